"""Rotations done with real keys in a real store: by time, by operators, from an older data directory, after the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from certs.bundle import pin
from certs.csr import make_csr
from certs.spiffe_id import SpiffeId
from certs.succession import follow
from certs.svid import new_private_key
from certs.verify import verify_chain
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaExpired, CaRefused
from control_plane.ca.signer import IssuedSvid
from control_plane.ca.slots import CaPolicy, Readiness, StepKind
from control_plane.errors import Unavailable
from control_plane.model import Authority, IssuedRecord, Level, Phase
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.ca.test_opening import older
from tests.control_plane.support import NOW, TD, ca_and_store, token_record, workload_spec

WEB = SpiffeId.for_workload(TD, "shop", "web")
BY = "operator alice"
SHORT = CaPolicy(root_lifetime_s=900.0, intermediate_lifetime_s=300.0, jwt_key_lifetime_s=300.0, leaf_lifetime_s=30.0)


class Mesh:
    """A CA with its store, and a workload that has certificates."""

    def __init__(self, ca: CertificateAuthority, store: SqliteStore, data_dir: Path) -> None:
        self.ca = ca
        self.store = store
        self.data_dir = data_dir
        self.workload = store.ensure_workload(workload_spec("web"), NOW)

    def everybody_knows(self) -> Readiness:
        return Readiness(missing={one.authority_id: () for one in self.ca.authorities})

    def tick(self, now: float) -> bool:
        return self.ca.tick(now, self.everybody_knows())

    def issue(self, now: float, lifetime_s: float = 30.0) -> IssuedSvid:
        issued = self.ca.issue(WEB, make_csr(new_private_key(), None), lifetime_s, now)
        self.store.record_issued(
            IssuedRecord(
                serial=issued.serial,
                spiffe_id=WEB,
                workload_id=self.workload.workload_id,
                not_before=issued.not_before,
                not_after=issued.not_after,
                issued_at=now,
                issuer_id=issued.issuer_id,
                root_id=issued.root_id,
            )
        )
        return issued

    def one(self, level: Level, phase: Phase = Phase.ACTIVE) -> Authority:
        (found,) = [one for one in self.ca.authorities if (one.level, one.phase) == (level, phase)]
        return found

    def phase_of(self, authority: Authority) -> Phase:
        return next(one for one in self.ca.authorities if one.authority_id == authority.authority_id).phase

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.data_dir / "audit.jsonl").read_text().splitlines()]

    def audited(self) -> list[tuple[str, str]]:
        return [(one["event"], one["by"]) for one in self.records() if one["event"].startswith("ca.")]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with ca_and_store(tmp_path / "cp", policy=SHORT) as (ca, store):
        yield Mesh(ca, store, tmp_path / "cp")


def test_a_year_of_ticks_rotates_everything_and_every_leaf_verifies(mesh: Mesh) -> None:
    """A leaf of any moment leads to an anchor in the bundle until it ends; nothing piles up."""
    held: list[IssuedSvid] = []
    roots = set()
    for step in range(400):
        now = NOW + step * 10.0
        mesh.tick(now)
        held = [one for one in held if one.not_after > now] + [mesh.issue(now)]
        for one in held:
            assert verify_chain(one.chain_der, mesh.ca.bundle, now) == WEB
            assert one.issuer_id not in mesh.ca.revoked_intermediates
        roots.add(mesh.ca.anchor_der)
        assert len(mesh.ca.bundle.anchors_der) <= 3
        assert mesh.ca.alarms(now, mesh.everybody_knows()) == ()
    assert len(roots) > 5
    assert ("ca.retired", "control plane") in mesh.audited()


def test_who_slept_through_it_all_follows_the_successions(mesh: Mesh) -> None:
    """From the first anchor to today's, over roots that were retired in the meantime."""
    first = mesh.ca.anchor_der
    for step in range(400):
        mesh.tick(NOW + step * 10.0)
    assert first not in mesh.ca.bundle.anchors_der
    assert follow([first], mesh.ca.successions(), TD)[-1] in mesh.ca.bundle.anchors_der
    assert mesh.ca.anchor_der in follow([first], mesh.ca.successions(), TD)


def test_a_root_is_active_only_when_everybody_knows_it(mesh: Mesh) -> None:
    """Published at half; while somebody does not answer the old one signs, and that is an alarm."""
    old = mesh.ca.anchor_der
    mesh.tick(NOW + 451)
    new = mesh.one(Level.ROOT, Phase.PREPARED)
    assert mesh.ca.bundle.anchors_der == (old, new.certificate_der)
    waiting = Readiness(missing={new.authority_id: ("orders.shop#1",)})
    assert not mesh.ca.tick(NOW + 452, waiting)
    mesh.ca.tick(NOW + 700, waiting)
    assert mesh.ca.anchor_der == old
    assert any("orders.shop#1" in one for one in mesh.ca.alarms(NOW + 700, waiting))
    step = next(one for one in mesh.ca.next_steps(NOW + 700, waiting) if one.level is Level.ROOT)
    assert (step.kind, step.waits_for) == (StepKind.ACTIVATE, ("orders.shop#1",))
    assert mesh.tick(NOW + 701)
    assert mesh.ca.anchor_der == new.certificate_der
    assert mesh.ca.pin == pin(new.certificate_der)
    issued = mesh.issue(NOW + 701)
    assert issued.root_id == new.authority_id


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """Phases, keys and successions are in the store; time goes on where it was."""
    with ca_and_store(tmp_path / "cp", policy=SHORT) as (ca, store):
        Mesh(ca, store, tmp_path).tick(NOW + 451)
        before = ca.authorities, ca.successions(), ca.jwt_keys()
    with ca_and_store(tmp_path / "cp", NOW + 452, policy=SHORT) as (ca, store):
        assert (ca.authorities, ca.successions(), ca.jwt_keys()) == before
        mesh = Mesh(ca, store, tmp_path)
        mesh.tick(NOW + 601)
        mesh.issue(NOW + 601)
        assert ca.anchor_der == mesh.one(Level.ROOT).certificate_der


def test_j10_a_step_is_written_down_or_not_done(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the tick says so in the log, changes nothing, and does it later."""
    before = mesh.ca.authorities

    def full(*_: object, **__: object) -> None:
        raise Unavailable("no space")

    with monkeypatch.context() as patched:
        patched.setattr(type(mesh.ca._book._audit), "append", full)
        assert not mesh.tick(NOW + 451)
        assert (mesh.ca.authorities, tuple(mesh.store.authorities())) == (before, before)
        assert any("no space" in one for one in mesh.ca.alarms(NOW + 451, Readiness()))
    assert not mesh.tick(NOW + 455)
    assert mesh.tick(NOW + 462)
    assert mesh.store.authorities() == list(mesh.ca.authorities)


# --- operators -----------------------------------------------------------------------------------------------------


def test_an_operator_can_rotate_a_root_at_any_time(mesh: Mesh) -> None:
    """Prepare, activate, taint, revoke: each written down with who did it."""
    first, leaf = mesh.one(Level.ROOT), mesh.issue(NOW)
    new = mesh.ca.prepare(Level.ROOT, NOW + 1, BY)
    assert new.phase is Phase.PREPARED
    mesh.ca.activate(new.authority_id, NOW + 2, BY, mesh.everybody_knows())
    assert mesh.issue(NOW + 2).root_id == new.authority_id
    mesh.ca.taint(first.authority_id, NOW + 3, BY)
    assert {first.authority_id, leaf.issuer_id} <= mesh.ca.tainted
    assert verify_chain(leaf.chain_der, mesh.ca.bundle, NOW + 3) == WEB
    with pytest.raises(CaRefused, match="1 live certificates stand under") as refused:
        mesh.ca.revoke(first.authority_id, NOW + 4, BY)
    assert refused.value.breaks == (f"{WEB} (certificate {leaf.serial:x})",)
    assert refused.value.can_force
    assert mesh.ca.breaks(first.authority_id, StepKind.REVOKE, NOW + 4, Readiness()) == refused.value.breaks
    mesh.ca.revoke(first.authority_id, NOW + 5, BY, force=True)
    assert first.certificate_der not in mesh.ca.bundle.anchors_der
    assert mesh.ca.revoked_intermediates == {leaf.issuer_id}
    assert mesh.ca.successions() == ()
    assert {by for event, by in mesh.audited() if event in ("ca.tainted", "ca.revoked")} == {BY}


def test_an_anchor_nobody_needs_any_more_is_revoked_without_force(mesh: Mesh) -> None:
    """After the last leaf under it has ended."""
    first = mesh.one(Level.ROOT)
    mesh.issue(NOW)
    new = mesh.ca.prepare(Level.ROOT, NOW + 1, BY)
    mesh.ca.activate(new.authority_id, NOW + 2, BY, mesh.everybody_knows())
    with pytest.raises(CaRefused):
        mesh.ca.revoke(first.authority_id, NOW + 29, BY)
    assert mesh.ca.revoke(first.authority_id, NOW + 31, BY).phase is Phase.REVOKED


def test_activating_what_somebody_does_not_know_needs_force(mesh: Mesh) -> None:
    """The list says who; forced, the intermediate still waits for them."""
    new = mesh.ca.prepare(Level.ROOT, NOW + 1, BY)
    missing = Readiness(missing={new.authority_id: ("orders.shop#1", "web.shop#2")})
    with pytest.raises(CaRefused, match=r"orders\.shop#1, web\.shop#2") as refused:
        mesh.ca.activate(new.authority_id, NOW + 2, BY, missing)
    assert refused.value.breaks == ("orders.shop#1", "web.shop#2")
    mesh.ca.activate(new.authority_id, NOW + 3, BY, missing, force=True)
    assert mesh.ca.anchor_der == new.certificate_der
    assert mesh.issue(NOW + 3).root_id != new.authority_id
    # Who joins now is shown a certificate under the root before, and a token has to lead to that.
    assert mesh.ca.pin != pin(new.certificate_der)
    second = mesh.one(Level.INTERMEDIATE, Phase.PREPARED)
    with pytest.raises(CaRefused):
        mesh.ca.activate(second.authority_id, NOW + 4, BY, missing)
    mesh.ca.activate(second.authority_id, NOW + 5, BY, missing, force=True)
    assert mesh.issue(NOW + 5).root_id == new.authority_id
    assert mesh.ca.pin == pin(new.certificate_der)


def test_j10_what_was_forced_says_so_in_the_audit_file(mesh: Mesh) -> None:
    """With what it was done against, and who was cut off; what needed no force does not, whatever was typed."""
    new = mesh.ca.prepare(Level.ROOT, NOW + 1, BY)
    missing = Readiness(missing={new.authority_id: ("orders.shop#1", "web.shop#2")})
    mesh.ca.activate(new.authority_id, NOW + 2, BY, missing, force=True)
    second = mesh.one(Level.INTERMEDIATE, Phase.PREPARED)
    mesh.ca.activate(second.authority_id, NOW + 3, BY, mesh.everybody_knows(), force=True)
    mesh.ca.recover(NOW + 4, BY, force=True)
    activated, unforced, recovered = [one for one in mesh.records() if one["event"] in ("ca.activated", "ca.recovered")]
    assert "is not known to everybody yet" in activated["forced"]
    assert activated["breaks"] == ["orders.shop#1", "web.shop#2"]
    assert "forced" not in unforced
    assert "has not expired" in recovered["forced"]


def test_recovered_too_often_it_is_refused_with_words(mesh: Mesh) -> None:
    """A bundle holds no more; those that are retired by time make room, also where no control plane has run."""
    mesh.issue(NOW)
    for number in range(15):
        mesh.ca.recover(NOW + 1 + number / 10, BY, force=True)
        mesh.issue(NOW + 1 + number / 10)
    with pytest.raises(CaRefused, match="16 roots are trusted already; revoke one that nobody needs"):
        mesh.ca.recover(NOW + 3, BY, force=True)
    mesh.ca.recover(NOW + 40, BY, force=True)
    assert mesh.issue(NOW + 41).root_id == mesh.one(Level.ROOT).authority_id


def test_a_step_that_raises_anything_is_tried_again_later(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours in it does not end the housekeeping, and an alarm says what it was."""

    def fails(now: float) -> bool:
        raise ArithmeticError("a mistake")

    with monkeypatch.context() as patched:
        patched.setattr(mesh.ca._operations._book, "forget", fails)
        for second in range(25):
            mesh.tick(NOW + second)
    assert caplog.text.count("a step of the CA failed") == 3
    assert mesh.ca.alarms(NOW + 25, Readiness()) == ("the last step of the CA failed: a mistake",)
    mesh.tick(NOW + 40)
    assert mesh.ca.alarms(NOW + 40, Readiness()) == ()


def test_what_is_active_is_not_taken_away(mesh: Mesh) -> None:
    """Force or not: there would be nobody to sign."""
    for level in Level:
        one = mesh.one(level)
        with pytest.raises(CaRefused, match="is active: prepare and activate another"):
            mesh.ca.taint(one.authority_id, NOW, BY)
        with pytest.raises(CaRefused, match="is active"):
            mesh.ca.revoke(one.authority_id, NOW, BY, force=True)


def test_a_root_whose_intermediate_signs_is_not_taken_away(mesh: Mesh) -> None:
    """The root was replaced by force, its intermediate signs still."""
    first = mesh.one(Level.ROOT)
    new = mesh.ca.prepare(Level.ROOT, NOW + 1, BY)
    mesh.ca.activate(new.authority_id, NOW + 2, BY, Readiness(missing={new.authority_id: ("x",)}), force=True)
    for step in (mesh.ca.taint, mesh.ca.revoke):
        with pytest.raises(CaRefused, match="stands under root"):
            step(first.authority_id, NOW + 3, BY)


def test_one_successor_at_a_time_unless_forced(mesh: Mesh) -> None:
    """A second click is no second root."""
    for level in Level:
        first = mesh.ca.prepare(level, NOW + 1, BY)
        with pytest.raises(CaRefused, match="is prepared already"):
            mesh.ca.prepare(level, NOW + 2, BY)
        assert mesh.ca.prepare(level, NOW + 3, BY, force=True).authority_id != first.authority_id


def test_authorities_are_found_by_the_beginning_of_their_id(mesh: Mesh) -> None:
    """As people type them."""
    root = mesh.one(Level.ROOT)
    assert mesh.ca.find(root.authority_id[:12]) == root
    for unknown in ("", "zz"):
        with pytest.raises(CaRefused, match="of that id"):
            mesh.ca.find(unknown)


def test_a_tainted_jwt_key_is_published_no_more(mesh: Mesh) -> None:
    """Tokens are short: whoever does not trust the key does not wait."""
    old = mesh.one(Level.JWT)
    new = mesh.ca.prepare(Level.JWT, NOW + 1, BY)
    assert [key["kid"] for key in json.loads(mesh.ca.jwt_keys())["keys"]] == sorted(
        [old.authority_id, new.authority_id]
    )
    mesh.ca.activate(new.authority_id, NOW + 2, BY, Readiness())
    mesh.ca.taint(old.authority_id, NOW + 3, BY)
    assert [key["kid"] for key in json.loads(mesh.ca.jwt_keys())["keys"]] == [new.authority_id]


# --- after the end -------------------------------------------------------------------------------------------------


def test_after_everything_has_expired_nothing_is_issued_and_recover_brings_it_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing crashes; the new root is vouched for by the old one's key, so who holds that one comes back."""
    with ca_and_store(tmp_path / "cp", policy=SHORT) as (ca, _):
        old = ca.anchor_der
    late = NOW + 10_000
    with ca_and_store(tmp_path / "cp", late, policy=SHORT) as (ca, store):
        mesh = Mesh(ca, store, tmp_path / "cp")
        with caplog.at_level(logging.ERROR):
            mesh.tick(late)
        assert any("hauberk ca recover" in one for one in ca.alarms(late, Readiness()))
        assert "hauberk ca recover" in caplog.text
        with pytest.raises(CaExpired):
            mesh.issue(late)
        with pytest.raises(CaRefused, match="has expired"):
            ca.prepare(Level.INTERMEDIATE, late, BY)
        root = ca.recover(late + 1, BY)
        assert ca.anchor_der == root.certificate_der
        assert verify_chain(mesh.issue(late + 2).chain_der, ca.bundle, late + 2) == WEB
        assert follow([old], ca.successions(), TD) == (ca.anchor_der,)
        mesh.tick(late + 3)
        assert ca.bundle.anchors_der == (ca.anchor_der,)
        assert follow([old], ca.successions(), TD) == (ca.anchor_der,)
        assert ("ca.recovered", BY) in mesh.audited()


def test_a_root_that_lives_is_not_recovered(mesh: Mesh) -> None:
    """Recovery does not wait for anybody, so it is not the way to rotate."""
    with pytest.raises(CaRefused, match="has not expired") as refused:
        mesh.ca.recover(NOW, BY)
    assert refused.value.can_force
    mesh.ca.recover(NOW + 1, BY, force=True)
    assert mesh.issue(NOW + 2).root_id == mesh.one(Level.ROOT).authority_id


def test_an_expired_intermediate_is_replaced_by_the_next_tick(mesh: Mesh) -> None:
    """The control plane was away for longer than it lives, the root is fine."""
    with pytest.raises(CaExpired):
        mesh.issue(NOW + 301)
    with pytest.raises(CaExpired):
        mesh.ca.issue_jwt(WEB, ["orders"], NOW + 301)
    assert mesh.tick(NOW + 301)
    mesh.issue(NOW + 301)
    mesh.ca.issue_jwt(WEB, ["orders"], NOW + 301)


# --- an older data directory ---------------------------------------------------------------------------------------


def test_an_adopted_root_signs_until_its_successor_is_known(tmp_path: Path) -> None:
    """It signs leaves itself; prepare, acknowledge, activate; then it goes when the last of its leaves has ended."""
    der = older(tmp_path / "cp")
    with ExitStack() as stack:
        ca, store = stack.enter_context(ca_and_store(tmp_path / "cp"))
        mesh = Mesh(ca, store, tmp_path / "cp")
        first = mesh.issue(NOW, 600.0)
        assert (len(first.chain_der), first.issuer_id) == (1, first.root_id)
        ca.tick(NOW + 1, Readiness())
        assert len(ca.bundle.anchors_der) == 2
        assert mesh.issue(NOW + 1).root_id == first.root_id
        mesh.tick(NOW + 2)
        second = mesh.issue(NOW + 2)
        assert len(second.chain_der) == 2
        assert second.root_id != first.root_id
        assert verify_chain(first.chain_der, ca.bundle, NOW + 599) == WEB
        assert ca.anchor_der in follow([der], ca.successions(), TD)
        mesh.tick(NOW + 599)
        assert der in ca.bundle.anchors_der
        mesh.tick(NOW + 602)
        assert der not in ca.bundle.anchors_der


def test_a_root_whose_pin_is_in_a_join_token_stays_until_the_token_has_ended(mesh: Mesh) -> None:
    """Unless the token was used; one made after it was replaced does not carry its pin."""
    first = mesh.one(Level.ROOT)
    mesh.store.put_token(token_record(created_at=NOW, expires_at=NOW + 60))
    new = mesh.ca.prepare(Level.ROOT, NOW + 1, BY)
    mesh.ca.activate(new.authority_id, NOW + 2, BY, mesh.everybody_knows())
    mesh.store.put_token(token_record("00112233445566bb", created_at=NOW + 3, expires_at=NOW + 600))
    mesh.tick(NOW + 59)
    assert mesh.phase_of(first) is Phase.OLD
    mesh.tick(NOW + 61)
    assert mesh.phase_of(first) is Phase.REVOKED
