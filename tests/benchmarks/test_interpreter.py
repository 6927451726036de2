"""Which interpreter runs our side of a benchmark."""

from __future__ import annotations

import sys

import pytest

from benchmarks import interpreter
from benchmarks.tools import Missing


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"own": 1.0}, "own"),
        ({"own": 1.0, "other": 0.94}, "other"),
        ({"own": 1.0, "other": 0.96}, "own"),
        ({"own": 1.0, "other": 0.9, "third": 0.8}, "third"),
        ({"own": 0.7, "other": 0.9}, "own"),
    ],
)
def test_another_interpreter_is_chosen_only_if_it_is_clearly_faster(times: dict[str, float], chosen: str) -> None:
    """Our own needs no venv made."""
    assert interpreter.choose(times, "own") == chosen


def test_our_own_interpreter_is_a_candidate_that_can_be_measured() -> None:
    """And stands first."""
    assert interpreter.candidates()[0] == sys.executable
    assert (interpreter.seconds(sys.executable) or 0) > 0


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false", "/nowhere/python3"])
def test_what_is_no_cpython_is_none(program: str) -> None:
    """A shim without an interpreter behind it, for example."""
    assert interpreter.seconds(program) is None


def test_our_own_interpreter_needs_no_venv() -> None:
    """It has what Hauberk needs."""
    assert interpreter.equipped(sys.executable) == sys.executable


@pytest.mark.parametrize("program", ["/bin/true", "/nowhere/python3"])
def test_what_cannot_run_us_is_refused_with_a_way_out(program: str) -> None:
    """One line, before a venv is made of it."""
    with pytest.raises(Missing, match="--python own"):
        interpreter.equipped(program)
