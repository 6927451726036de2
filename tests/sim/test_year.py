"""A year of a mesh: nobody who may is without a certificate, and nobody who may not is trusted.

What runs by itself are two years of a small mesh, and planted bugs that must be noticed. As many years as are wanted,
of as many workloads: `HAUBERK_SIM_SEEDS=1-100 HAUBERK_SIM_NODES=200 pytest tests/sim -k a_year`. A failure names its
seed, and the same seed does the same again.
"""

from __future__ import annotations

import logging
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.ca import slots
from sidecar.identity import rotator
from tests.sim import mesh
from tests.sim.faults import YEAR_S, Rates, schedule
from tests.sim.invariants import Broken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a whole year of many nodes may be asked for

_first, _, _last = os.environ.get("HAUBERK_SIM_SEEDS", "").partition("-")
SEEDS = range(int(_first), int(_last or _first) + 1) if _first else range(1, 3)
NODES = int(os.environ.get("HAUBERK_SIM_NODES", "30"))
QUIET = Rates(
    restarts=0,
    partitions=0,
    jumps=0,
    control_downs=0,
    control_restarts=0,
    identities_revoked=0,
    serials_revoked=0,
    roots_prepared=0,
    intermediates_tainted=0,
)


@pytest.fixture(autouse=True)
def unsaid() -> Iterator[None]:
    """A year of log lines costs as much as all that happens in it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: nobody here loses power, so nothing has to reach a disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_year_of_restarts_partitions_clock_jumps_and_rotations(directory: Path, seed: int) -> None:
    """Every invariant holds after every step, and the year was one in which things happened."""
    report = mesh.run(directory, seed, nodes=NODES)
    print(report)  # what happened, for who reads the run
    assert report.happened["roots made"] >= 2
    assert report.happened["intermediates made"] >= 4
    for what in ("restart", "partition", "jump", "control plane down", "revoke serial"):
        assert report.happened[what] > 0, f"no {what} in this run: {report}"


def test_r24_a_year_of_a_control_plane_whose_clock_jumps(directory: Path) -> None:
    """By an hour, or by months, also while it starts or an operator rotates a root: when it is right again everything
    is, without anybody."""
    report = mesh.run(directory, SEEDS[0], nodes=12, rates=CLOCKS)
    print(report)
    assert report.happened["control plane jump"] >= 60


def renewal_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """Of a certificate's life, instead of at half of it."""
    patch.setattr(rotator, "renew_at", lambda received_at, not_after, rng: not_after)


def an_anchor_dropped_early(patch: pytest.MonkeyPatch) -> None:
    """As soon as another one signs, whoever still stands under it."""
    patch.setattr(slots.Live, "open_until", lambda self, authority_id: 0.0)


def a_timer_on_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """Who sets the clock back puts the renewal off."""

    def remaining_s(self: rotator.Plan, *, now: float, monotonic: float) -> float:
        return max(0.0, self.wall - now)

    patch.setattr(rotator.Plan, "remaining_s", remaining_s)
    patch.setattr(rotator.Plan, "jumped", lambda self, *, now, monotonic: False)


def an_anchor_nobody_was_told_of(patch: pytest.MonkeyPatch) -> None:
    """A root signs before everybody knows it."""
    patch.setattr(slots.Readiness, "waits_for", lambda self, authority_id: ())


def revocations_that_are_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("control_plane.push.encode.revocations", lambda value: None)


def a_clock_that_is_believed(patch: pytest.MonkeyPatch) -> None:
    """Whatever it says of a sudden has expired is gone for good."""
    patch.setattr("control_plane.app._doubts_clock", lambda state, now: False)


CLOCKS = Rates(control_jumps=80)

PLANTED = [
    (renewal_at_the_end, QUIET),
    (an_anchor_dropped_early, Rates(partitions=100, roots_prepared=24)),
    (a_timer_on_the_wall_clock, Rates(jumps=600, restarts=0)),
    (an_anchor_nobody_was_told_of, Rates(partitions=100, roots_prepared=24)),
    (revocations_that_are_not_asked_for, Rates(serials_revoked=60)),
    (a_clock_that_is_believed, CLOCKS),
]


@pytest.mark.parametrize(("bug", "rates"), PLANTED)
def test_a_planted_bug_is_caught(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    bug: Callable[[pytest.MonkeyPatch], None],
    rates: Rates,
) -> None:
    """The simulation can fail: each of these breaks an invariant of a small mesh, with this seed within days."""
    bug(monkeypatch)
    with pytest.raises(BaseExceptionGroup) as raised:
        mesh.run(directory, 1, nodes=12, days=100, rates=rates)
    found = _leaf(raised.value)
    assert isinstance(found, Broken)
    print(f"{bug.__name__}: {found}")  # which invariant, for who reads the run


@pytest.mark.parametrize("rates", {id(rates): rates for _, rates in PLANTED}.values())
def test_without_the_bug_the_same_meshes_hold(directory: Path, rates: Rates) -> None:
    """What is caught above is the bug, not what befalls the mesh beside it."""
    mesh.run(directory, 1, nodes=12, days=100, rates=rates)


def _leaf(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def test_a_run_can_be_had_again(directory: Path) -> None:
    """The same seed is the same run, to the last step: a failure that was found can be looked at."""
    reports = []
    for name in ("first", "second"):
        (directory / name).mkdir()
        reports.append(mesh.run(directory / name, 3, nodes=12, days=60))
    first, second = reports
    assert (first.steps, first.pairs, first.asked) == (second.steps, second.pairs, second.asked)
    assert first.steps > 100


def test_a_seed_says_it_all() -> None:
    """What befalls the mesh is drawn before anything runs, and is the same again."""
    both = [schedule(random.Random(7), 50, Rates(), from_s=0.0, until_s=YEAR_S) for _ in range(2)]
    assert both[0] == both[1]
    assert len(both[0]) > 500
    assert math.isfinite(both[0][-1].at)
