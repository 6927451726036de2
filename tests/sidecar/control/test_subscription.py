"""sidecar.control.subscription: dialogues, no sockets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.control.errors import SubscriptionsFull
from sidecar.control.subscription import UNKNOWN_KEPT_S, UNUSED_KEPT_S, Accepted, Refused, Subscription
from sidecar.rules.slices import at_once
from sidecar.rules.snapshot import Protocol
from tests.sidecar.control.snapshots import service, snapshot, workload
from tests.sidecar.mesh import ORDERS, WEB, Mesh

MESH = Mesh()
NOW = 1_800_000_000.0


def fresh(services_max: int = 10) -> Subscription:
    return Subscription(
        identity=WEB,
        service="web",
        namespace="shop",
        instance="abc",
        sidecar_version="1.2.3",
        services_max=services_max,
    )


def apply(subscription: Subscription, message: pb.Snapshot) -> pb.WatchRequest:
    """What the watcher does with a verdict."""
    verdict = at_once(subscription.receiving(message))
    if isinstance(verdict, Accepted):
        return subscription.commit(verdict)
    return subscription.refuse(verdict.epoch, verdict.version, verdict.reason)


def reason_of(subscription: Subscription, message: pb.Snapshot) -> str:
    verdict = at_once(subscription.receiving(message))
    assert isinstance(verdict, Refused)
    assert (verdict.epoch, verdict.version) == (message.epoch, message.version)
    return verdict.reason


# What is said ----------------------------------------------------------------------------------------------------


def test_the_first_message_says_who_we_are_and_what_we_hold() -> None:
    """Hello, with nothing held at first and the held version after a reconnect."""
    subscription = fresh()
    subscription.subscribe("orders.shop", NOW, pinned=True)
    (first,) = subscription.open_stream(now=NOW, certificate_not_after=NOW + 60)
    assert first.hello == pb.Hello(
        sidecar_version="1.2.3",
        instance="abc",
        services=["orders.shop"],
        clock=NOW,
        certificate_not_after=NOW + 60,
    )
    apply(subscription, snapshot(MESH, 7, epoch=3))
    (again,) = subscription.open_stream(now=NOW, certificate_not_after=NOW + 60)
    assert (again.hello.epoch, again.hello.version) == (3, 7)


def test_what_was_advertised_is_said_again_on_every_stream_until_withdrawn() -> None:
    """A reconnect must not lose the endpoint, nor bring back one that was withdrawn."""
    subscription = fresh()
    said = subscription.advertise("10.0.0.7:15008", {8080: Protocol.HTTP1, 9000: Protocol.TCP})
    assert said.advertise == pb.Advertise(
        address="10.0.0.7:15008",
        ports=[
            pb.InboundPort(port=8080, protocol=pb.PROTOCOL_HTTP1),
            pb.InboundPort(port=9000, protocol=pb.PROTOCOL_TCP),
        ],
    )
    assert subscription.open_stream(now=NOW, certificate_not_after=0)[1:] == [said]
    withdrawn = subscription.withdraw()
    assert withdrawn.WhichOneof("body") == "withdraw"
    assert subscription.open_stream(now=NOW, certificate_not_after=0)[1:] == [withdrawn]


def test_a_heartbeat_carries_the_clock_and_the_certificates_end() -> None:
    """So that the control plane can show skew and expiry."""
    said = fresh().heartbeat(now=NOW, certificate_not_after=NOW + 5)
    assert said.heartbeat == pb.Heartbeat(clock=NOW, certificate_not_after=NOW + 5)


# Snapshots -------------------------------------------------------------------------------------------------------


def test_a_good_snapshot_is_held_and_acknowledged() -> None:
    """ACK names epoch and version."""
    subscription = fresh()
    answer = apply(subscription, snapshot(MESH, 5, epoch=2))
    assert answer.ack == pb.Ack(epoch=2, version=5)
    assert subscription.current is not None
    assert (subscription.current.identity, subscription.current.version) == (WEB, 5)
    assert repr(subscription) == f"<Subscription of {WEB} holds 2.5, 0 services>"


NOT_FOR_US: dict[str, dict[str, Any]] = {
    "another identity": {"workload": workload(spiffe_id=str(ORDERS))},
    "another service": {"workload": workload(service="orders")},
    "another trust domain": {
        "trust_domain": "other.example",
        "workload": workload(spiffe_id="spiffe://other.example/ns/shop/sa/web"),
    },
    "no default action": {"default_action": pb.DEFAULT_ACTION_UNSPECIFIED},
    "no anchors": {"trust_anchors_der": []},
    "anchors that are none": {"trust_anchors_der": [b"nonsense"]},
    "a leaf for an anchor": {"trust_anchors_der": [MESH.svid(WEB).chain_der[0]]},
    "anchors and nonsense": {"trust_anchors_der": [MESH.root.der, b"nonsense"]},
}


@pytest.mark.parametrize("what", NOT_FOR_US)
def test_r11_a_bad_snapshot_is_refused_whole_and_the_last_good_one_stays(what: str) -> None:
    """R11, R10: NACK with the reason; nothing of it is applied; a later good one is taken."""
    subscription = fresh()
    apply(subscription, snapshot(MESH, 1))
    held = subscription.current
    answer = apply(subscription, snapshot(MESH, 2, **NOT_FOR_US[what]))
    assert (answer.nack.epoch, answer.nack.version) == (1, 2)
    assert answer.nack.reason
    assert answer.nack.reason.isprintable()
    assert subscription.current is held
    assert (subscription.refusals, subscription.last_refusal) == (1, answer.nack.reason)
    assert apply(subscription, snapshot(MESH, 3)).ack.version == 3
    assert subscription.last_refusal == ""


def test_r11_an_unknown_field_is_refused() -> None:
    """A newer control plane's condition that we would not enforce: refused, not ignored."""
    message = snapshot(MESH, 1)
    message.MergeFromString(b"\xfa\x07\x01x")  # field 127
    assert "decode" in reason_of(fresh(), message)


def test_h14_an_older_version_is_refused() -> None:
    """H14: lower version in the same epoch, on the same stream and on a later one."""
    subscription = fresh()
    apply(subscription, snapshot(MESH, 5))
    assert "version 4 came after version 5" in reason_of(subscription, snapshot(MESH, 4))
    subscription.open_stream(now=NOW, certificate_not_after=0)
    assert "version 4 came after version 5" in reason_of(subscription, snapshot(MESH, 4))


def test_h14_the_same_version_is_taken_only_with_the_same_content() -> None:
    """H14: a repetition is acknowledged and changes nothing; another content under the same version is refused."""
    subscription = fresh()
    apply(subscription, snapshot(MESH, 5))
    held = subscription.current
    verdict = at_once(subscription.receiving(snapshot(MESH, 5)))
    assert isinstance(verdict, Accepted)
    assert verdict.is_unchanged
    assert apply(subscription, snapshot(MESH, 5)).ack.version == 5
    other = snapshot(MESH, 5, default_action=pb.DEFAULT_ACTION_ALLOW)
    assert "another content" in reason_of(subscription, other)
    assert subscription.current == held


def test_h14_an_epoch_does_not_go_back_within_a_stream() -> None:
    """H14: a restore begins a new epoch; an older one on the same stream is a replay, on a new stream it is a fact."""
    subscription = fresh()
    apply(subscription, snapshot(MESH, 50, epoch=3))
    assert apply(subscription, snapshot(MESH, 1, epoch=4)).ack == pb.Ack(epoch=4, version=1)
    assert "epoch 3 came after epoch 4" in reason_of(subscription, snapshot(MESH, 51, epoch=3))
    subscription.open_stream(now=NOW, certificate_not_after=0)
    assert apply(subscription, snapshot(MESH, 51, epoch=3)).ack == pb.Ack(epoch=3, version=51)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans(), st.booleans()),
        max_size=12,
    )
)
def test_h14_whatever_comes_versions_never_go_back_within_an_epoch_and_stream(
    pushed: list[tuple[int, int, bool, bool]],
) -> None:
    """H14: (epoch, version, allow, reconnect first), in any order: the held pair never falls on one stream, and every
    push is answered once, naming itself."""
    subscription, is_first = fresh(), True
    for epoch, version, allow, reconnect in pushed:
        if reconnect:
            is_first = True
            subscription.open_stream(now=NOW, certificate_not_after=0)
        before = subscription.current
        action = pb.DEFAULT_ACTION_ALLOW if allow else pb.DEFAULT_ACTION_DENY
        answer = apply(subscription, snapshot(MESH, version, epoch=epoch, default_action=action))
        after = subscription.current
        said = answer.ack if answer.WhichOneof("body") == "ack" else answer.nack
        assert (said.epoch, said.version) == (epoch, version)
        if answer.WhichOneof("body") == "nack":
            assert after is before
        elif before is not None and after is not None:
            assert after.epoch != before.epoch or after.version >= before.version
            assert is_first or after.epoch >= before.epoch
        is_first = is_first and answer.WhichOneof("body") == "nack"


def test_a_snapshot_that_could_not_be_applied_is_taken_back() -> None:
    """The part that applies it may still say no."""
    subscription = fresh()
    apply(subscription, snapshot(MESH, 1))
    held = subscription.current
    verdict = at_once(subscription.receiving(snapshot(MESH, 2)))
    assert isinstance(verdict, Accepted)
    subscription.commit(verdict)
    subscription.take_back(held)
    assert subscription.refuse(1, 2, "no").nack == pb.Nack(epoch=1, version=2, reason="no")
    assert subscription.current is held
    assert apply(subscription, snapshot(MESH, 2)).ack.version == 2


# Services --------------------------------------------------------------------------------------------------------


def test_a_service_is_needed_until_a_snapshot_answers() -> None:
    """Also "no such service" is an answer."""
    subscription = fresh()
    assert subscription.needs("orders.shop")
    said = subscription.subscribe("orders.shop", NOW)
    assert said is not None
    assert list(said.subscribe.services) == ["orders.shop"]
    assert subscription.subscribe("orders.shop", NOW) is None, "asked already"
    apply(subscription, snapshot(MESH, 1))
    assert subscription.needs("orders.shop")
    apply(subscription, snapshot(MESH, 2, services=[service("orders.shop"), service("typo.shop", known=False)]))
    assert not subscription.needs("orders.shop")
    assert not subscription.needs("typo.shop")


def test_the_whole_set_is_said_each_time() -> None:
    """Subscribe replaces what was subscribed before."""
    subscription = fresh()
    subscription.subscribe("b.shop", NOW)
    said = subscription.subscribe("a.shop", NOW)
    assert said is not None
    assert list(said.subscribe.services) == ["a.shop", "b.shop"]


def test_unused_names_are_dropped_unknown_ones_sooner_pinned_ones_never() -> None:
    """A typo in a Host header is not asked about for ever."""
    subscription = fresh()
    subscription.subscribe("pinned.shop", NOW, pinned=True)
    for name in ("known.shop", "typo.shop"):
        subscription.subscribe(name, NOW)
    apply(subscription, snapshot(MESH, 1, services=[service("known.shop"), service("typo.shop", known=False)]))
    assert subscription.expire(NOW + UNKNOWN_KEPT_S) is None
    said = subscription.expire(NOW + UNKNOWN_KEPT_S + 1)
    assert said is not None
    assert list(said.subscribe.services) == ["known.shop", "pinned.shop"]
    subscription.used("known.shop", NOW + 1000)
    subscription.used("never.asked", NOW + 1000)
    assert subscription.expire(NOW + UNUSED_KEPT_S + 1) is None
    said = subscription.expire(NOW + UNUSED_KEPT_S + 1001)
    assert said is not None
    assert list(said.subscribe.services) == ["pinned.shop"]
    assert list(subscription.services) == ["pinned.shop"]


def test_subscriptions_are_bounded_and_stale_ones_make_room() -> None:
    """`limits.subscriptions_max`: an app that invents hosts fills its own table and nothing else."""
    subscription = fresh(services_max=2)
    subscription.subscribe("a.shop", NOW)
    subscription.subscribe("b.shop", NOW)
    with pytest.raises(SubscriptionsFull):
        subscription.subscribe("c.shop", NOW + 1)
    said = subscription.subscribe("c.shop", NOW + UNKNOWN_KEPT_S + 1)
    assert said is not None
    assert list(said.subscribe.services) == ["c.shop"]
