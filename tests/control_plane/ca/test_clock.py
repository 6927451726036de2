"""The clock of the control plane's machine was wrong, and is right again (R24): what was made meanwhile is in nobody's
way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.spiffe_id import SpiffeId
from certs.succession import follow
from certs.verify import verify_chain
from control_plane.api.credentials import RETRY_S, OwnCertificate
from control_plane.ca.errors import CaExpired, CaRefused, CaStateError
from control_plane.ca.slots import CaPolicy, Readiness, StepKind, is_valid
from control_plane.model import Level, Phase
from tests.control_plane.ca.test_operations import BY, WEB, Mesh
from tests.control_plane.support import NOW, TD, ca_and_store

DAY = 86_400.0
AHEAD = NOW + 10 * DAY
"""Longer than an intermediate lives."""


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with ca_and_store(tmp_path / "cp", policy=CaPolicy()) as (ca, store):
        yield Mesh(ca, store, tmp_path / "cp")


def test_r24_after_a_clock_that_was_ahead_another_intermediate_signs(mesh: Mesh) -> None:
    """The one that was made ahead of time is not valid for days: it is said, and at the next tick another one is."""
    mesh.tick(AHEAD)
    ahead = mesh.one(Level.INTERMEDIATE)
    assert not is_valid(ahead, NOW + 60)
    (alarm,) = mesh.ca.alarms(NOW + 60, Readiness())
    assert f"intermediate {ahead.authority_id} is not valid before 2027-01-25T" in alarm
    with pytest.raises(CaExpired, match="not valid yet: was this machine's clock ahead"):
        mesh.issue(NOW + 60)
    assert mesh.tick(NOW + 60)
    assert mesh.one(Level.INTERMEDIATE).authority_id != ahead.authority_id
    assert verify_chain(mesh.issue(NOW + 60).chain_der, mesh.ca.bundle, NOW + 60) == WEB
    assert mesh.ca.alarms(NOW + 60, Readiness()) == ()
    assert not mesh.tick(NOW + 61)


def test_r24_a_start_after_a_clock_that_was_ahead(tmp_path: Path) -> None:
    """The natural first thing to do; the same happens."""
    with ca_and_store(tmp_path / "cp") as (ca, _):
        ca.tick(AHEAD, Readiness())
    with ca_and_store(tmp_path / "cp", NOW + 60) as (ca, store):
        own = OwnCertificate(ca, store, ca._book._audit, TD, NOW + 60)
        ca.tick(NOW + 61, Readiness())
        own.renew(NOW + 61)
        assert Mesh(ca, store, tmp_path / "cp").issue(NOW + 61).not_before <= NOW + 61
        assert own.current.chain_pem.count(b"BEGIN") == 3


@pytest.mark.parametrize(
    "days", [0.5, 1, 3.4, 3.5, 3.6, 4.6, 4.7, 5, 6.9, 7, 7.1, 8, 10, 14, 15, 30, 100, 182, 184, 240]
)
def test_r24_whenever_the_clock_comes_back_there_is_one_that_signs(mesh: Mesh, days: float) -> None:
    """Ahead by any number of days, for three ticks; then right again, for six weeks."""
    for tick in range(3):
        mesh.tick(NOW + days * DAY + tick)
    for day in range(42):
        now = NOW + 60 + day * DAY
        mesh.tick(now)
        assert verify_chain(mesh.issue(now).chain_der, mesh.ca.bundle, now) == WEB
        assert len([one for one in mesh.ca.authorities if one.phase is Phase.ACTIVE]) == 3


def test_r24_a_root_that_was_prepared_ahead_waits_until_it_is_valid(mesh: Mesh) -> None:
    """It may be forced by nobody: what it signs would be taken by nobody."""
    mesh.tick(NOW + 200 * DAY)
    prepared = mesh.one(Level.ROOT, Phase.PREPARED)
    mesh.tick(NOW + 60)
    steps = mesh.ca.next_steps(NOW + 60, Readiness())
    (activate,) = [one for one in steps if one.authority_id == prepared.authority_id and one.kind is StepKind.ACTIVATE]
    assert activate.not_before >= prepared.not_before
    with pytest.raises(CaRefused, match=r"is not valid before 2027-08-0.*: is this machine's clock right"):
        mesh.ca.activate(prepared.authority_id, NOW + 60, BY, Readiness(), force=True)


def test_r24_a_root_made_by_a_recovery_under_a_wrong_clock(tmp_path: Path) -> None:
    """Whether the clock is wrong now or was then only an operator can know: the start says so, and recovers by force.
    Who knew the first root finds the third."""
    late = NOW + 400 * DAY
    with ca_and_store(tmp_path / "cp") as (ca, _):
        first = ca.anchor_der
        ca.recover(late, BY)
        ca.tick(NOW + 60, Readiness())
        (alarm,) = [one for one in ca.alarms(NOW + 60, Readiness()) if one.startswith("root")]
        assert "hauberk ca recover --force" in alarm
        with pytest.raises(CaRefused, match="set this machine's clock; if it is right"):
            ca.prepare(Level.INTERMEDIATE, NOW + 60, BY)
    with (
        pytest.raises(
            CaStateError, match=r"root is not valid before 2028-\S+ Set this machine's clock\. If it is right"
        ),
        ca_and_store(tmp_path / "cp", NOW + 120),
    ):
        pass
    with ca_and_store(tmp_path / "cp", NOW + 120, recovering=True) as (ca, store):
        with pytest.raises(CaRefused, match="is not valid before") as refused:
            ca.recover(NOW + 120, BY)
        assert refused.value.can_force
        ca.recover(NOW + 120, BY, force=True)
        assert ca.anchor_der in follow([first], ca.successions(), TD)
        Mesh(ca, store, tmp_path / "cp").issue(NOW + 120)
    with ca_and_store(tmp_path / "cp", NOW + 180) as (ca, _):
        ca.tick(NOW + 180, Readiness())


def test_r24_the_control_planes_own_certificate_after_a_clock_that_was_ahead(mesh: Mesh) -> None:
    """By hours, so that its intermediate is a good one: it is not valid yet itself, or its renewal was put off."""
    me = SpiffeId.for_control_plane(TD)
    own = OwnCertificate(mesh.ca, mesh.store, mesh.ca._book._audit, TD, NOW)
    own.renew(NOW + 13 * 3_600)
    own.renew(NOW + 60)
    shown = mesh.store.live_certificates(NOW + 60)
    assert {one.spiffe_id for one in shown} == {me}
    assert max(shown, key=lambda one: one.number).not_before <= NOW + 60
    own.renew(AHEAD)  # nobody signs there
    unchanged = own.current
    own.renew(NOW + 61)
    assert own.current is unchanged
    own.renew(NOW + 61 + 13 * 3_600)
    assert own.current is not unchanged
    assert RETRY_S < 60
