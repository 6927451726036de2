"""Who has acknowledged which authority: whom a rotation waits for, and whom it does not."""

from __future__ import annotations

from pathlib import Path

from certs.authority_id import authority_ids
from certs.svid import X509Svid, new_private_key
from control_plane.api.callers import LOCAL_OPERATOR
from control_plane.model import Authority, IssuedRecord, Level, Phase
from protos.hauberk.v1 import admin_pb2
from protos.hauberk.v1 import discovery_pb2 as pb
from tests.control_plane.desk import Desk, answer, opened


class Watching:
    """A sidecar's stream, without the stream."""

    def __init__(self, desk: Desk, svid: X509Svid, instance: str = "one") -> None:
        self._desk = desk
        self._discovery = desk.apis.discovery
        self.stream, self.subscriber = self._discovery.open_stream(desk.caller(svid), pb.Hello(instance=instance))

    def acknowledges(self) -> pb.Snapshot:
        """What it is sent now."""
        self._desk.state.hub.flush()
        session = self.subscriber.session
        session._unanswered_since = None
        sent = session.take(self._desk.clock())
        assert sent is not None
        self.says(ack=pb.Ack(epoch=sent.epoch, version=sent.version))
        return sent

    def says(self, **body: object) -> None:
        self._discovery.take(self.stream, self.subscriber, pb.WatchRequest(**body))  # type: ignore[arg-type]

    def ends(self) -> None:
        self._discovery.close_stream(self.stream, self.subscriber)


def prepared(desk: Desk, level: Level = Level.ROOT) -> Authority:
    """One that waits for its sidecars."""
    request = admin_pb2.CaStepRequest(step="prepare", level=level.value)
    made = answer(desk.apis.ca.step(LOCAL_OPERATOR, request)).authority
    (found,) = [one for one in desk.state.authority.authorities if one.authority_id == made.authority_id]
    assert found.phase is Phase.PREPARED
    return found


def waits_for(desk: Desk, one: Authority) -> tuple[str, ...]:
    return desk.state.acknowledged.readiness(desk.clock()).waits_for(one.authority_id)


def label(desk: Desk, svid: X509Svid) -> str:
    return f"{svid.spiffe_id} (node {desk.node_of(svid).node_id[:8]})"


def test_r05_an_anchor_waits_for_every_node_until_its_snapshot_is_acknowledged(tmp_path: Path) -> None:
    """Not for being sent, and not for an acknowledgement of an older one."""
    with opened(tmp_path) as desk:
        web, orders = desk.join(service="web").svid, desk.join().svid
        streams = [Watching(desk, web), Watching(desk, orders)]
        for one in streams:
            one.acknowledges()
        root = prepared(desk)
        assert set(waits_for(desk, root)) == {label(desk, web), label(desk, orders)}
        sent = streams[0].acknowledges()
        assert root.certificate_der in sent.trust_anchors_der
        assert waits_for(desk, root) == (label(desk, orders),)
        streams[1].acknowledges()
        assert waits_for(desk, root) == ()


def test_a_refused_snapshot_is_not_an_acknowledged_one(tmp_path: Path) -> None:
    """What a sidecar did not take it does not know."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        stream = Watching(desk, svid)
        stream.acknowledges()
        root = prepared(desk)
        desk.state.hub.flush()
        sent = stream.subscriber.session.take(desk.clock())
        assert sent is not None
        stream.says(nack=pb.Nack(epoch=sent.epoch, version=sent.version, reason="no"))
        assert waits_for(desk, root) == (label(desk, svid),)


def test_who_is_away_is_waited_for_until_its_certificate_ends(tmp_path: Path) -> None:
    """It may come back by then; after that it follows the anchors when it does."""
    with opened(tmp_path) as desk:
        svid = desk.join(node=new_private_key()).svid
        root = prepared(desk)
        assert waits_for(desk, root) == (label(desk, svid),)
        desk.clock.at += 3_599
        assert waits_for(desk, root) == (label(desk, svid),)
        desk.clock.at += 1
        assert waits_for(desk, root) == ()


def test_a_renewal_does_not_make_a_node_forget(tmp_path: Path) -> None:
    """It is the node that knows, not the certificate."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        root = prepared(desk)
        Watching(desk, svid).acknowledges()
        renewed = desk.renew(svid)
        desk.confirm(renewed)
        desk.clock.at += 1
        assert waits_for(desk, root) == ()


def test_who_left_or_was_revoked_is_not_waited_for(tmp_path: Path) -> None:
    """In good order: said it leaves, and its stream ended. One whose stream only broke is."""
    with opened(tmp_path) as desk:
        leaves, breaks, is_revoked, loses = (desk.join(service=name).svid for name in ("a", "b", "c", "d"))
        streams = {svid: Watching(desk, svid) for svid in (leaves, breaks, is_revoked, loses)}
        root = prepared(desk)
        streams[leaves].says(withdraw=pb.Withdraw())
        streams[leaves].ends()
        streams[breaks].ends()
        desk.revoke("identity", str(is_revoked.spiffe_id))
        desk.revoke("serial", f"{loses.serial:x}")
        desk.clock.at += 1
        assert waits_for(desk, root) == (label(desk, breaks),)


def test_who_left_and_is_back_is_waited_for_again(tmp_path: Path) -> None:
    """When it has said what it knows."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        svid = desk.join(node=key).svid
        stream = Watching(desk, svid)
        stream.says(withdraw=pb.Withdraw())
        stream.ends()
        back = Watching(desk, desk.rejoin(key), "two")
        back.acknowledges()
        root = prepared(desk)
        assert len(waits_for(desk, root)) == 1
        back.acknowledges()
        assert waits_for(desk, root) == ()


def test_after_a_restart_nobody_has_said_anything(tmp_path: Path) -> None:
    """Until everybody has said it again."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        root = prepared(desk)
        Watching(desk, svid).acknowledges()
        assert waits_for(desk, root) == ()
    with opened(tmp_path) as desk:
        assert waits_for(desk, root) == (label(desk, svid),)
        Watching(desk, svid).acknowledges()
        assert waits_for(desk, root) == ()


def test_a_jwt_key_waits_for_those_who_verify_with_it(tmp_path: Path) -> None:
    """By its id in the set of keys."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        stream = Watching(desk, svid)
        stream.acknowledges()
        key = prepared(desk, Level.JWT)
        assert waits_for(desk, key) == (label(desk, svid),)
        stream.acknowledges()
        assert waits_for(desk, key) == ()


def test_a_certificate_of_no_node_is_waited_for_too(tmp_path: Path) -> None:
    """An older release issued it; the control plane's own is not."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        store = desk.state.store
        certificate = store.certificate(svid.serial)
        assert certificate is not None
        old = IssuedRecord(
            serial=4711,
            spiffe_id=svid.spiffe_id,
            workload_id=certificate.workload_id,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            issued_at=certificate.issued_at,
        )
        store.record_issued(old)
        root = prepared(desk)
        assert set(waits_for(desk, root)) == {label(desk, svid), f"{svid.spiffe_id} (serial 1267)"}
        desk.state.acknowledged.said(old, [root.certificate_der], "")
        assert waits_for(desk, root) == (label(desk, svid),)


def test_what_is_known_of_nodes_that_are_gone_is_forgotten(tmp_path: Path) -> None:
    """A mesh of jobs would fill the memory otherwise."""
    with opened(tmp_path) as desk:
        for name in ("a", "b", "c"):
            Watching(desk, desk.join(service=name).svid).acknowledges()
        assert repr(desk.state.acknowledged) == "<Acknowledged nodes=3>"
        desk.passes(3_599)
        kept = desk.join(service="d").svid
        Watching(desk, kept).acknowledges()
        desk.passes(2)
        desk.state.acknowledged.forget(desk.clock())
        assert repr(desk.state.acknowledged) == "<Acknowledged nodes=1>"


def test_r05_the_root_turns_over_by_itself_once_everybody_knows(tmp_path: Path) -> None:
    """End to end in one process: a year goes by; the sidecar renews and acknowledges, and is never without trust."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        svid = desk.join(node=key).svid
        first = desk.state.authority.pin
        for _ in range(330):
            desk.passes(86_400)
            svid = desk.rejoin(key)
            stream = Watching(desk, svid)
            while (
                desk.state.hub.is_due
                or stream.subscriber.session.target_version != stream.subscriber.session.sent_version
            ):
                stream.acknowledges()
            stream.ends()
        assert desk.state.authority.pin != first
        assert authority_ids(svid.chain_der[1:])
