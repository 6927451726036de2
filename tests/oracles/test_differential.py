"""Any sequence of frames, cut at any byte, is the same to both HTTP/2 engines, but for the differences in the table.

A few hundred scripts a role by default. `HAUBERK_DIFFERENTIAL_EXAMPLES=50000` tries as many for each role, without
making a failure smaller at first: run the one that fails again with few to see it shrunk. Every failure that is mended
leaves its script in `regressions/` (`scripts.to_json`, `minimize.minimized`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from sidecar.http.engines import HTTP2_ENGINES, http2_engine
from tests.oracles.compare import check_cuts, compare
from tests.oracles.differences import TABLE
from tests.oracles.generate import scripts
from tests.oracles.scripts import Script, load

REFERENCE = http2_engine("reference")
RELAY = http2_engine("relay")
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.json"))

MANY = int(os.environ.get("HAUBERK_DIFFERENTIAL_EXAMPLES", "0"))
quickly = settings(
    max_examples=MANY or 300,
    phases=[Phase.explicit, Phase.generate] if MANY else list(Phase),
    suppress_health_check=list(HealthCheck),
)
every_role = pytest.mark.parametrize("role", ["server", "client"])


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@pytest.mark.timeout(7_200 if MANY else 300)
@every_role
def test_both_engines_do_the_same_with_any_frames_or_differ_as_listed(role: str) -> None:
    """Calls, frames and state after every frame and every act of ours; then the same again with the bytes cut."""
    stops: Counter[str] = Counter()

    @quickly
    @given(scripts(role))
    def run(script: Script) -> None:
        verdict = compare(RELAY, REFERENCE, script)
        check_cuts(RELAY, script)
        stops[verdict.difference.name if verdict.difference else "no difference"] += 1

    run()
    assert stops["no difference"] > sum(stops.values()) / 2, f"most scripts should be compared to their end: {stops}"


@every_role
def test_cuts_change_nothing_for_the_reference(role: str) -> None:
    """The oracle itself is blind to where its bytes are cut."""

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(scripts(role))
    def run(script: Script) -> None:
        check_cuts(REFERENCE, script)

    run()


@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@every_role
def test_an_engine_does_not_differ_from_itself(engine: str, role: str) -> None:
    """Nothing in an engine or in the harness depends on chance."""
    make = http2_engine(engine)

    @settings(max_examples=50, suppress_health_check=list(HealthCheck))
    @given(scripts(role))
    def run(script: Script) -> None:
        assert compare(make, make, script).difference is None

    run()


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_scripts_that_once_mattered_still_go_well(path: Path) -> None:
    """A file named after a difference ends with it; any other is the same to both engines to its end."""
    script = load(path)
    expected = {slug(difference.name): difference for difference in TABLE}.get(path.stem)
    verdict = compare(RELAY, REFERENCE, script)
    assert verdict.difference == expected
    check_cuts(RELAY, script)
    check_cuts(REFERENCE, script)


def test_every_allowed_difference_has_a_script_that_needs_it() -> None:
    """A rule that nothing needs is taken out; none has the name of another."""
    names = [slug(difference.name) for difference in TABLE]
    assert len(set(names)) == len(names)
    assert set(names) <= {path.stem for path in REGRESSIONS}
    assert all(difference.section and difference.reason for difference in TABLE)
