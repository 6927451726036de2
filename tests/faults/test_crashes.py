"""kill -9 at every write point: what was acknowledged is there, nothing is half there, no token is spent twice.

Some points of each scenario by default, by a seed that is printed; all of them with HAUBERK_CRASH_ALL=1 (minutes).
HAUBERK_CRASH_SEED=N repeats a run. `crash_points` says what a point is, `crash_scenarios.examine` what must hold.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from tests.faults.crash_scenarios import SCENARIOS

SAMPLE = 20
ROTATIONS = ("authorities", "new_root")
PLANTED = "answers_too_early"


def killed(scenario: str, count: int) -> dict[str, Any]:
    """What the child found."""
    seed = os.environ.get("HAUBERK_CRASH_SEED") or str(random.randrange(2**32))
    sys.stdout.write(f"HAUBERK_CRASH_SEED={seed}\n")
    typed = [sys.executable, "-m", "tests.faults.crash_child", scenario, str(count), seed]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in {PLANTED, *ROTATIONS}])
def test_j10_j03_killed_at_any_write_nothing_acknowledged_is_lost(scenario: str) -> None:
    """And the audit file verifies, there is one root, and every token is spent at most once."""
    found = killed(scenario, 0 if os.environ.get("HAUBERK_CRASH_ALL") else SAMPLE)
    assert found["failures"] == []
    assert found["points"] >= 10
    assert found["runs"] >= min(SAMPLE, found["points"])


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ROTATIONS)
def test_r09_j10_killed_within_a_step_of_a_rotation_no_authority_is_doubled_or_lost(scenario: str) -> None:
    """At any write of preparing, activating, tainting, revoking: started again, there is one root (two while one
    replaces the other), at each level one authority signs, and every step that was acknowledged is done."""
    found = killed(scenario, 0 if os.environ.get("HAUBERK_CRASH_ALL") else SAMPLE)
    assert found["failures"] == []
    assert found["points"] >= 10


@pytest.mark.slow
def test_a_planted_early_answer_is_caught() -> None:
    """So the test above can fail."""
    assert any("policy second" in one for one in killed(PLANTED, 0)["failures"])
