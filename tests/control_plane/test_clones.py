"""Two who hold one key: noticed, refused, the honest one never locked out. As examples, and as a state machine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from certs.svid import X509Svid, new_private_key
from control_plane.config_ca import CaConfig
from control_plane.errors import InvalidRequest, PermissionDenied, Unauthenticated, Unavailable
from control_plane.nodes import CLONED
from tests.control_plane.desk import Desk, node_id_of, opened
from tests.control_plane.support import audited


def test_g24_the_second_of_two_who_renew_is_refused_and_told_of(tmp_path: Path) -> None:
    """The thief comes first: the honest one is refused, there is an alarm, and with its node key it is back; then the
    thief is refused for good."""
    with opened(tmp_path) as desk:
        honest = desk.join(node=new_private_key())
        assert honest.node is not None
        desk.confirm(honest.svid)
        stolen = desk.renew(honest.svid)
        desk.confirm(stolen)
        for refused in (lambda: desk.renew(honest.svid), lambda: desk.confirm(honest.svid)):
            with pytest.raises(PermissionDenied, match="two hold its key"):
                refused()
        assert desk.node_of(stolen).alarm == CLONED
        back = desk.rejoin(honest.node)
        desk.confirm(back)
        with pytest.raises(PermissionDenied, match="two hold its key"):
            desk.renew(stolen)
        desk.renew(back)
        (told,) = [one for one in audited(tmp_path / "cp") if one["event"] == "identity.cloned"]
    assert told["serial"] == f"{honest.svid.serial:x}"
    assert told["node_id"] == node_id_of(honest.node)
    assert told["peer"] == "192.0.2.7"


def test_g24_as_declared_a_clone_ends_its_node(tmp_path: Path) -> None:
    """`clone_action: revoke`: neither of the two is anybody any more; others of the workload are."""
    with opened(tmp_path, ca=CaConfig(clone_action="revoke")) as desk:
        honest, sibling = desk.join(node=new_private_key()), desk.join(node=new_private_key())
        assert honest.node is not None
        stolen = desk.renew(honest.svid)
        desk.confirm(stolen)
        with pytest.raises(PermissionDenied, match="two hold its key"):
            desk.renew(honest.svid)
        for svid in (stolen, honest.svid):
            with pytest.raises(PermissionDenied, match="revoked, by its serial"):
                desk.renew(svid)
        with pytest.raises(PermissionDenied, match="revoked"):
            desk.rejoin(honest.node)
        desk.renew(sibling.svid)
        token_id = desk.node_of(stolen).token_id
        events = [(one["event"], one.get("value")) for one in audited(tmp_path / "cp")]
        assert events[-3:-1] == [("identity.cloned", None), ("revoked", token_id)]
        assert desk.reinstate("token", token_id)
        desk.renew(desk.rejoin(honest.node))


@pytest.mark.parametrize("clone_action", ["alarm", "revoke"])
def test_g24_a_certificate_that_was_put_away_gets_no_token(tmp_path: Path, clone_action: str) -> None:
    """A JWT-SVID would outlive the certificate that is refused. No alarm: a sidecar may ask while it moves to the newer
    certificate, and is answered as soon as it has."""
    with opened(tmp_path, ca=CaConfig(clone_action=clone_action)) as desk:
        held = desk.join(node=new_private_key()).svid
        desk.confirm(held)
        new = desk.renew(held)
        desk.jwt(held)
        desk.jwt(new)
        desk.confirm(new)
        with pytest.raises(Unavailable, match="newer one"):
            desk.jwt(held)
        assert desk.node_of(new).alarm == ""
        assert desk.jwt(new).token


@pytest.mark.parametrize("clone_action", ["alarm", "revoke"])
def test_g24_a_certificate_that_was_put_away_watches_nothing_and_is_told_of(tmp_path: Path, clone_action: str) -> None:
    """While its sidecar is there with a newer one, who opens a stream with it is somebody else."""
    with opened(tmp_path, ca=CaConfig(clone_action=clone_action)) as desk:
        stolen = desk.join(node=new_private_key()).svid
        desk.watch(stolen, "honest")
        new = desk.renew(stolen)
        desk.watch(new, "honest")
        for _ in range(3):
            with pytest.raises(PermissionDenied, match=r"replaced by a newer one|revoked"):
                desk.watch(stolen, "thief")
        assert desk.node_of(new).alarm == CLONED
        assert [one.instance for one in desk.state.hub] == ["honest", "honest"]
        events = [one for one in audited(tmp_path / "cp") if one["event"] == "identity.cloned"]
        assert [(one["serial"], one["peer"]) for one in events] == [(f"{stolen.serial:x}", "192.0.2.7")]
        if clone_action == "revoke":
            with pytest.raises(PermissionDenied, match="revoked"):
                desk.renew(new)
        else:
            desk.renew(new)


def test_g24_a_sidecar_that_did_not_hear_of_its_newer_certificate_is_sent_for_it_without_an_alarm(
    tmp_path: Path,
) -> None:
    """The answer to its Confirm was lost, and its stream breaks: it asks once more, and watches with the newer one."""
    with opened(tmp_path) as desk:
        held = desk.join(node=new_private_key()).svid
        desk.watch(held, "honest")()
        new = desk.renew(held)
        desk.confirm(new)  # the answer is lost
        with pytest.raises(PermissionDenied, match="come with that, or with the node key"):
            desk.watch(held, "honest")
        desk.confirm(new)
        desk.watch(new, "honest")
        # A stream opened long ago, of which we hear only now: of the same process, so it is nobody else.
        with pytest.raises(PermissionDenied):
            desk.watch(held, "honest")
        assert desk.node_of(new).alarm == ""


def test_g24_a_sidecar_that_was_killed_before_it_kept_its_newer_certificate_comes_back_without_an_alarm(
    tmp_path: Path,
) -> None:
    """Its stream ended with it; the one of a machine without power stays, but nobody is heard on it."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        held = desk.join(node=key).svid
        new = desk.renew(held)
        ends = desk.watch(new, "first")
        desk.passes(20.0)
        with pytest.raises(PermissionDenied):
            desk.watch(held, "second")
        ends()
        with pytest.raises(PermissionDenied):
            desk.watch(held, "second")
        back = desk.rejoin(key)
        desk.watch(back, "second")
        assert desk.node_of(back).alarm == ""
        with pytest.raises(PermissionDenied):
            desk.watch(new, "thief")  # who kept that one is somebody else
        assert desk.node_of(back).alarm == CLONED


def test_a_lost_renewal_or_confirmation_is_no_clone(tmp_path: Path) -> None:
    """Asked again with the confirmed certificate, and confirmed again with the new one, however often."""
    with opened(tmp_path) as desk:
        held = desk.join(node=new_private_key()).svid
        desk.confirm(held)
        for _ in range(3):
            new = desk.renew(held)  # twice lost
        for _ in range(3):
            desk.confirm(new)  # twice lost
        held = desk.renew(new)
        desk.confirm(held)
        assert desk.node_of(held).alarm == ""


def test_an_alarm_stays_until_somebody_has_looked_at_it(tmp_path: Path) -> None:
    """`reinstate alarm NODE` clears it; so does a new token, which an operator made."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        svid = desk.join(node=key).svid
        desk.confirm(desk.renew(svid))
        with pytest.raises(PermissionDenied):
            desk.renew(svid)
        assert desk.reinstate("alarm", node_id_of(key))
        assert not desk.reinstate("alarm", node_id_of(key))
        assert desk.node_of(svid).alarm == ""
        with pytest.raises(PermissionDenied):
            desk.renew(svid)
        assert desk.node_of(svid).alarm == CLONED
        desk.join(node=key)
        assert desk.node_of(svid).alarm == ""
        with pytest.raises(InvalidRequest, match="node's id"):
            desk.reinstate("alarm", "nobody")


def test_a_member_of_before_a_restore_gets_a_line_with_its_renewal(tmp_path: Path) -> None:
    """The store does not know its certificate; from then on rotations wait for it."""
    with opened(tmp_path) as desk:
        svid = desk.join(node=new_private_key()).svid
        certificate = desk.state.store.certificate(svid.serial)
        assert certificate is not None
        desk.state.store.forget_node(certificate.node_id)
        renewed = desk.renew(svid)
        node = desk.node_of(renewed)
        assert (node.public_key_der, node.token_id) == (b"", "")
        desk.confirm(renewed)
        assert desk.node_of(renewed).confirmed_number > 0


def test_a_renewal_does_not_look_through_all_certificates(tmp_path: Path) -> None:
    """Nor through all nodes, revocations or workloads: what it costs does not grow with the mesh."""
    with opened(tmp_path) as desk:
        svid = desk.join(node=new_private_key()).svid
        desk.revoke("serial", "abc")
        desk.renew(svid)
        plans: list[str] = []
        connection = desk.state.store._connection  # type: ignore[attr-defined]
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        desk.renew(svid)
        connection.set_trace_callback(None)
        for statement in statements:
            if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
                plans += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert statements
    assert {one for one in plans if one.startswith("SCAN")} <= {"SCAN clock"}  # which has one row


class Lines(RuleBasedStateMachine):
    """A sidecar that behaves, with answers that get lost, and a thief who has copied what it held but its node key.

    What holds at every step, and is checked where it happens:

    1. A certificate older than the confirmed one never renews, is never confirmed and watches nothing; trying to renew
       or to confirm leaves an alarm.
    2. One that is not older, and has not ended, does. So answers that are lost lock nobody out.
    3. No alarm without a thief.
    4. With its node key the honest one is back, whatever happened; from then on the thief's are put away.
    """

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._stack = contextlib.ExitStack()
        self.desk = Desk(Path(self._directory.name), self._stack)
        self._numbers: dict[int, int] = {}
        self.node = new_private_key()
        self.candidate: X509Svid | None = None
        self.stolen: list[X509Svid] = []
        self.process = 0
        self.streams: list[Callable[[], None]] = []
        self.confirmed = 0

    def teardown(self) -> None:
        self._stack.close()
        self._directory.cleanup()

    @initialize(is_answer_lost=st.booleans())
    def joins(self, is_answer_lost: bool) -> None:
        self.held = self.desk.join(node=self.node).svid
        if is_answer_lost:
            self.held = self.desk.rejoin(self.node)

    def number(self, svid: X509Svid) -> int:
        """Kept here, because the store forgets certificates that have long ended."""
        certificate = self.desk.state.store.certificate(svid.serial)
        return self._numbers.setdefault(svid.serial, certificate.number if certificate else 0)

    @property
    def alarm(self) -> str:
        node = self.desk.state.store.node(node_id_of(self.node))
        assert node is not None
        return node.alarm

    def _asks(self, svid: X509Svid, *, confirms: bool) -> X509Svid | None:
        """Renews or confirms with that certificate, and checks that what came of it is right. None: refused."""
        is_put_away = self.number(svid) < self.confirmed
        if svid.not_after <= self.desk.clock():
            with pytest.raises(Unauthenticated):
                self.desk.renew(svid)
            return None
        if is_put_away:
            with pytest.raises(PermissionDenied, match="two hold its key"):
                self.desk.confirm(svid) if confirms else self.desk.renew(svid)
            assert self.alarm == CLONED
            return None
        self.confirmed = self.number(svid)
        if confirms:
            self.desk.confirm(svid)
            return svid
        return self.desk.renew(svid)

    @rule(is_answer_lost=st.booleans())
    def renews(self, is_answer_lost: bool) -> None:
        if self.candidate is not None:
            return
        found = self._asks(self.held, confirms=False)
        if found is not None and not is_answer_lost:
            self.candidate = found
        elif found is None:
            self.comes_back(is_answer_lost)

    @precondition(lambda self: self.candidate is not None)
    @rule(is_answer_lost=st.booleans())
    def proves_the_new_one(self, is_answer_lost: bool) -> None:
        assert self.candidate is not None
        if self._asks(self.candidate, confirms=True) is None:
            self.candidate = None  # refused: it is no good
        elif not is_answer_lost:
            self.held, self.candidate = self.candidate, None

    @rule(is_answer_lost=st.booleans())
    def comes_back(self, is_answer_lost: bool) -> None:
        back = self.desk.rejoin(self.node)
        if not is_answer_lost:
            self.held, self.candidate = back, None

    @rule()
    def is_stolen_from(self) -> None:
        self.stolen.append(self.held)

    def _watches(self, svid: X509Svid, instance: str) -> Callable[[], None] | None:
        """Opens a stream, and checks that what came of it is right. None: refused."""
        if svid.not_after <= self.desk.clock():
            return None
        if self.number(svid) < self.confirmed:
            with pytest.raises(PermissionDenied, match="replaced by a newer one"):
                self.desk.watch(svid, instance)
            return None
        self.confirmed = self.number(svid)
        return self.desk.watch(svid, instance)

    @rule(is_restarted=st.booleans())
    def watches(self, is_restarted: bool) -> None:
        """A stream of before stays for a while, unless its process has ended."""
        if is_restarted:
            self.process += 1
            for end in self.streams:
                end()
            self.streams.clear()
            self.candidate = None
        opened = self._watches(self.held, f"honest-{self.process}")
        if opened is not None:
            self.streams.append(opened)
        elif self.candidate is not None:
            self.proves_the_new_one(is_answer_lost=False)
        else:
            self.comes_back(is_answer_lost=False)

    @precondition(lambda self: self.stolen)
    @rule(which=st.integers(0, 10))
    def the_thief_watches(self, which: int) -> None:
        self._watches(self.stolen[which % len(self.stolen)], "thief")

    @precondition(lambda self: self.stolen)
    @rule(which=st.integers(0, 10), confirms=st.booleans())
    def the_thief_asks(self, which: int, confirms: bool) -> None:
        found = self._asks(self.stolen[which % len(self.stolen)], confirms=confirms)
        if found is not None and not confirms:
            self.stolen.append(found)

    @invariant()
    def numbers_are_known(self) -> None:
        for svid in (self.held, self.candidate, *self.stolen):
            if svid is not None:
                self.number(svid)

    @rule(seconds=st.sampled_from([1.0, 1_800.0, 3_600.0, 2 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        self.desk.passes(seconds)

    @rule()
    def the_control_plane_restarts(self) -> None:
        self._stack.close()
        self._stack = contextlib.ExitStack()
        self.desk = Desk(Path(self._directory.name), self._stack, self.desk.clock)
        self.streams.clear()

    @rule()
    def the_honest_one_ends_it(self) -> None:
        self.held, self.candidate = self.desk.rejoin(self.node), None
        assert self._asks(self.held, confirms=True) is not None
        for svid in self.stolen:
            if self.number(svid) < self.number(self.held):
                assert self._asks(svid, confirms=False) is None
        renewed = self._asks(self.held, confirms=False)
        assert renewed is not None
        self.held = renewed

    @invariant()
    def no_alarm_without_a_thief(self) -> None:
        assert self.stolen or not self.alarm


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
