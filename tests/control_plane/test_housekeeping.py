"""What is forgotten, and when: not because a clock was wrong for a moment (R24)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from certs.svid import new_private_key
from control_plane.app import DOUBTED_S, EXPIRED_KEPT_S, FORGET_EVERY_S, JUMPED_S, housekeep
from control_plane.ca.errors import CaRefused
from control_plane.ca.slots import Readiness
from control_plane.model import Level, Phase
from tests.control_plane.desk import Desk, Sidecar

DAY = 86_400.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(tmp_path, stack)


def tick(desk: Desk, at: float) -> None:
    desk.clock.at = at
    housekeep(desk.state, at)


def is_remembered(desk: Desk, sidecar: Sidecar) -> bool:
    return desk.state.store.certificate(sidecar.svid.serial) is not None


def test_r24_a_clock_that_was_ahead_forgets_no_revocation(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """By weeks, for a minute, at every tick of it: who was revoked is, who has a node key may come back, and nobody is
    trusted again whose certificate lives."""
    begun = desk.clock.at
    revoked, other = desk.join(node=new_private_key()), desk.join(node=new_private_key(), service="web")
    tick(desk, begun + 1)
    tick(desk, begun + FORGET_EVERY_S / 10)
    desk.revoke("serial", f"{revoked.svid.serial:x}")
    caplog.set_level(logging.WARNING)
    for second in range(60):
        tick(desk, begun + 40 * DAY + second)
    tick(desk, begun + 40 * DAY + 58)  # a small step back, as a clock makes that is being set, is not the way back
    tick(desk, begun + 40 * DAY + 61)
    assert "the clock went ahead" in caplog.text
    assert desk.state.doubted_until > desk.clock.at
    for second in range(60):
        tick(desk, begun + FORGET_EVERY_S / 10 + second)
    assert revoked.svid.serial in desk.state.revoked.current().serials
    assert is_remembered(desk, revoked)
    assert is_remembered(desk, other)
    assert other.node is not None
    desk.rejoin(other.node, node_id=desk.node_of(other.svid).node_id)


def test_r24_a_start_under_a_clock_that_is_ahead_forgets_nothing_for_an_hour(tmp_path: Path) -> None:
    """A machine whose clock is set after its services have started."""
    with ExitStack() as stack:
        desk = Desk(tmp_path, stack)
        sidecar = desk.join()
        begun = desk.clock.at
    with ExitStack() as stack:
        desk.clock.at = begun + 40 * DAY
        desk = Desk(tmp_path, stack, desk.clock)
        for second in range(60):
            tick(desk, begun + 40 * DAY + second)
        assert is_remembered(desk, sidecar)
        tick(desk, begun + 120)
        assert is_remembered(desk, sidecar)


def test_r24_after_a_jump_roots_stay_as_they_are_unless_forced(tmp_path: Path) -> None:
    """Whose certificates a clock that is ahead calls expired would not be waited for: neither time nor an operator
    takes a root from them by mistake. The doubt outlives a restart, and ends when the clock goes back, or in a day."""
    with ExitStack() as stack:
        desk = Desk(tmp_path, stack)
        desk.join()
        begun = desk.clock.at
        new = desk.state.authority.prepare(Level.ROOT, begun, "ann")
        tick(desk, begun + 1)
        ahead = begun + 250 * DAY
        tick(desk, ahead)
        activate = partial(desk.state.authority.activate, new.authority_id, ahead, "ann", Readiness())
        with pytest.raises(CaRefused, match="this machine's clock went ahead less than a day ago") as refused:
            activate()
        assert refused.value.can_force
    with ExitStack() as stack:
        desk.clock.at = ahead + 60
        desk = Desk(tmp_path, stack, desk.clock)
        for second in range(20):
            tick(desk, ahead + 60 + second)
        (found,) = [one for one in desk.state.authority.authorities if one.authority_id == new.authority_id]
        assert found.phase is Phase.PREPARED
        assert any(
            "until it is trusted again" in alarm for alarm in desk.state.authority.alarms(ahead + 90, Readiness())
        )
        activate = partial(desk.state.authority.activate, new.authority_id, begun + 60, "ann")
        told = Readiness(missing={new.authority_id: ()})
        with pytest.raises(CaRefused, match="clock went ahead"):
            activate(told)
        tick(desk, begun + 60)
        assert activate(told).phase is Phase.ACTIVE


def test_r24_after_a_jump_an_operator_who_is_sure_may_force_it(desk: Desk) -> None:
    """As after a machine has slept; the audit file says that it was forced."""
    begun = desk.clock.at
    new = desk.state.authority.prepare(Level.ROOT, begun, "ann")
    tick(desk, begun + 1)
    tick(desk, begun + 2 * DAY)
    told = Readiness(missing={new.authority_id: ()})
    desk.state.authority.activate(new.authority_id, begun + 2 * DAY, "ann", told, force=True)
    (record,) = [line for line in audited(desk) if line["event"] == "ca.activated"]
    assert "clock went ahead" in record["forced"]


def audited(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (desk.config.data_dir / "audit.jsonl").read_text().splitlines()]


def test_what_has_long_expired_is_forgotten(desk: Desk) -> None:
    """Hourly, a day after its end; also if the machine slept, a day later."""
    sidecar = desk.join()
    now = begun = desk.clock.at
    for _ in range(round((2 * EXPIRED_KEPT_S) / JUMPED_S) + 10):
        now += JUMPED_S
        tick(desk, now)
    assert not is_remembered(desk, sidecar)
    assert now - begun > EXPIRED_KEPT_S
    slept = desk.join()
    now += 10 * DAY
    tick(desk, now)
    tick(desk, now + JUMPED_S)
    assert is_remembered(desk, slept)
    for _ in range(round(DOUBTED_S / JUMPED_S) + 2):
        now += JUMPED_S
        tick(desk, now)
    assert not is_remembered(desk, slept)
