"""sidecar.control.watcher against a real grpcio server that the test plays."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager

import grpc
import pytest
import trio

from certs.csr import make_csr
from certs.svid import X509Svid, new_private_key
from protos.hauberk.v1 import discovery_pb2, identity_pb2
from sidecar.config import Address, Config
from sidecar.control.errors import RpcError
from sidecar.control.identity_calls import RENEW_PATH
from sidecar.control.watcher import WATCH_PATH, ControlLink
from sidecar.errors import SidecarError
from sidecar.identity.source import IdentitySource
from sidecar.rules.snapshot import Protocol, Snapshot
from tests.sidecar.control.grpc_peer import Peer, grpc_server
from tests.sidecar.control.snapshots import service, snapshot, workload
from tests.sidecar.mesh import ORDERS, WEB, Mesh
from tests.trio_support import trio_test

MESH = Mesh()


class Stream:
    """One Watch stream, seen from the control plane."""

    def __init__(self, client_pem: str, token: trio.lowlevel.TrioToken) -> None:
        self.client_pem = client_pem
        self._token = token
        self._outgoing: queue.Queue[discovery_pb2.Snapshot | grpc.StatusCode] = queue.Queue()
        self._send, self.heard = trio.open_memory_channel[discovery_pb2.WatchRequest](100)
        self.ended = trio.Event()

    def push(self, message: discovery_pb2.Snapshot | grpc.StatusCode) -> None:
        """Send a snapshot, or end the stream with a status."""
        self._outgoing.put(message)

    async def hear(self, kind: str) -> discovery_pb2.WatchRequest:
        """The next message, which must be of that kind."""
        request = await self.heard.receive()
        assert request.WhichOneof("body") == kind, request
        return request

    def serve(
        self, requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        context.add_callback(lambda: self._outgoing.put(grpc.StatusCode.CANCELLED))
        reader = threading.Thread(target=self._read, args=(requests,), daemon=True)
        reader.start()
        while not isinstance(message := self._outgoing.get(), grpc.StatusCode):
            yield message
        if context.is_active():
            context.abort(message, "said the test")

    def _read(self, requests: Iterator[discovery_pb2.WatchRequest]) -> None:
        try:
            for request in requests:
                self._token.run_sync_soon(self._send.send_nowait, request)
        except grpc.RpcError:
            pass
        try:
            self._token.run_sync_soon(self.ended.set)
        except trio.RunFinishedError:
            pass


class ControlPlane:
    """Watch and Renew, played by the test."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._send, self.streams = trio.open_memory_channel[Stream](100)
        self.renewals = 0

    def watch(
        self, requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        stream = Stream(str(context.auth_context()["x509_pem_cert"]), self._token)
        self._token.run_sync_soon(self._send.send_nowait, stream)
        return stream.serve(requests, context)

    def renew(self, request: identity_pb2.RenewRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        self.renewals += 1
        return MESH.answer(request.csr_der)

    def serving(self, port: int = 0) -> AbstractContextManager[Peer]:
        return grpc_server(MESH, unary={RENEW_PATH: self.renew}, stream={WATCH_PATH: self.watch}, port=port)


class Sidecar:
    """The parts around a link."""

    def __init__(self, address: Address) -> None:
        self.source = IdentitySource()
        self.source.set(svid=MESH.svid(WEB), bundle=MESH.bundle)
        self.applied: list[Snapshot] = []
        self.refuse_with: Exception | None = None
        self.link = ControlLink(
            config=Config(service="web", namespace="shop", control_plane=address),
            identity=WEB,
            source=self.source,
            on_snapshot=self._apply,
            instance="instance-1",
            clock=time.time,
            rng=random.Random(1),
            pinned_services=["orders.shop"],
        )

    async def _apply(self, one: Snapshot) -> None:
        if self.refuse_with is not None:
            raise self.refuse_with
        assert self.link.subscription.current is one, "the link holds it already"
        self.applied.append(one)


async def until(condition: Callable[[], bool]) -> None:
    """Lets the other tasks run until it is so; the test's own limit bounds it."""
    while not condition():
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def linked(svid: X509Svid | None = None) -> AsyncIterator[tuple[Sidecar, ControlPlane, Peer]]:
    """A link at work; `svid`: another than a valid one, from the start."""
    plane = ControlPlane()
    with plane.serving() as peer:
        sidecar = Sidecar(peer.address)
        if svid is not None:
            sidecar.source.set(svid=svid)
        async with trio.open_nursery() as nursery:
            await nursery.start(sidecar.link.run)
            yield sidecar, plane, peer
            nursery.cancel_scope.cancel()


@trio_test
async def test_a_snapshot_is_asked_for_applied_and_acknowledged() -> None:
    """Hello, snapshot, ACK; connected."""
    async with linked() as (sidecar, plane, _):
        stream = await plane.streams.receive()
        hello = (await stream.hear("hello")).hello
        assert (hello.instance, list(hello.services), hello.version) == ("instance-1", ["orders.shop"], 0)
        assert sidecar.source.svid is not None
        assert hello.certificate_not_after == sidecar.source.svid.not_after
        stream.push(snapshot(MESH, 4, services=[service("orders.shop")]))
        assert (await stream.hear("ack")).ack.version == 4
        assert [one.version for one in sidecar.applied] == [4]
        assert not sidecar.link.needs("orders.shop")
        await until(lambda: sidecar.link.connected)
        assert sidecar.link.last_error == ""
        assert repr(sidecar.link).startswith("<ControlLink connected")


@trio_test
async def test_r11_a_bad_push_is_refused_and_the_stream_goes_on() -> None:
    """R11: NACK with the reason, the old snapshot stays active, the next good one is applied."""
    async with linked() as (sidecar, plane, _):
        stream = await plane.streams.receive()
        await stream.hear("hello")
        stream.push(snapshot(MESH, 1))
        await stream.hear("ack")
        stream.push(snapshot(MESH, 2, workload=workload(spiffe_id=str(ORDERS))))
        nack = (await stream.hear("nack")).nack
        assert nack.version == 2
        assert str(ORDERS) in nack.reason
        stream.push(snapshot(MESH, 3))
        await stream.hear("ack")
        assert [one.version for one in sidecar.applied] == [1, 3]


@pytest.mark.parametrize("error", [SidecarError("no"), ValueError("no")])
@trio_test
async def test_what_the_sidecar_cannot_apply_is_refused_too(error: Exception) -> None:
    """The callback's refusal is a NACK; the link holds the last good snapshot."""
    async with linked() as (sidecar, plane, _):
        stream = await plane.streams.receive()
        await stream.hear("hello")
        stream.push(snapshot(MESH, 1))
        await stream.hear("ack")
        sidecar.refuse_with = error
        stream.push(snapshot(MESH, 2))
        assert (await stream.hear("nack")).nack.reason == "could not be applied: no"
        assert sidecar.link.subscription.current is sidecar.applied[0]


@trio_test
async def test_a_repeated_snapshot_is_acknowledged_and_not_applied_again() -> None:
    """Nothing changed, so nothing is rebuilt."""
    async with linked() as (sidecar, plane, _):
        stream = await plane.streams.receive()
        await stream.hear("hello")
        for _ in range(2):
            stream.push(snapshot(MESH, 1))
            await stream.hear("ack")
        assert len(sidecar.applied) == 1


@trio_test
async def test_new_trust_anchors_are_used_at_once() -> None:
    """The bundle follows the snapshot, and the channel is made anew with it."""
    other = Mesh()
    async with linked() as (sidecar, plane, _):
        stream = await plane.streams.receive()
        await stream.hear("hello")
        stream.push(snapshot(MESH, 1, trust_anchors_der=[MESH.root.der, other.root.der]))
        await stream.hear("ack")
        assert sidecar.source.bundle is not None
        assert sidecar.source.bundle.anchors_der == (MESH.root.der, other.root.der)
        again = await plane.streams.receive()
        assert (await again.hear("hello")).hello.version == 1


@trio_test
async def test_what_is_said_reaches_the_control_plane() -> None:
    """Subscribe, advertise, withdraw, in order."""
    async with linked() as (sidecar, plane, _):
        stream = await plane.streams.receive()
        await stream.hear("hello")
        sidecar.link.subscribe("billing.shop")
        sidecar.link.subscribe("billing.shop")
        sidecar.link.advertise("10.0.0.7:15008", {8080: Protocol.HTTP1})
        await sidecar.link.withdraw()
        assert list((await stream.hear("subscribe")).subscribe.services) == ["billing.shop", "orders.shop"]
        assert (await stream.hear("advertise")).advertise.address == "10.0.0.7:15008"
        await stream.hear("withdraw")


@trio_test
async def test_decisions_are_reported_when_there_is_somebody_to_hear_and_nothing_else_to_say() -> None:
    """Until then they stay where they are: nothing is asked for that could not be sent."""
    taken: list[int] = []

    def take() -> discovery_pb2.Decisions | None:
        taken.append(1)
        return discovery_pb2.Decisions(dropped_count=len(taken)) if len(taken) < 3 else None

    async with linked() as (sidecar, plane, _):
        sidecar.link.report(take)
        assert not taken  # not connected yet
        stream = await plane.streams.receive()
        await stream.hear("hello")
        stream.push(snapshot(MESH))
        await stream.hear("ack")
        await until(lambda: sidecar.link.connected)
        sidecar.link.report(take)
        sidecar.link.report(take)  # before the first could be sent
        assert len(taken) == 1
        assert (await stream.hear("decisions")).decisions.dropped_count == 1
        sidecar.link.report(take)
        assert (await stream.hear("decisions")).decisions.dropped_count == 2
        sidecar.link.report(take)  # nothing to tell
        assert len(taken) == 3


@trio_test
async def test_r03_the_control_plane_dies_and_comes_back() -> None:
    """R03: the snapshot stays, the link says it is down and why, and returns by itself with all it has to say."""
    plane = ControlPlane()
    async with trio.open_nursery() as nursery:
        with plane.serving() as peer:
            sidecar = Sidecar(peer.address)
            await nursery.start(sidecar.link.run)
            stream = await plane.streams.receive()
            await stream.hear("hello")
            stream.push(snapshot(MESH, 4))
            await stream.hear("ack")
            await until(lambda: sidecar.link.connected)
            sidecar.link.advertise("10.0.0.7:15008", {8080: Protocol.HTTP1})
            await stream.hear("advertise")
        await until(lambda: not sidecar.link.connected)
        await until(lambda: sidecar.link.last_error != "")
        sidecar.link.subscribe("billing.shop")  # meanwhile, without a connection
        assert [one.version for one in sidecar.applied] == [4]
        with plane.serving(port=peer.port):
            stream = await plane.streams.receive()
            hello = (await stream.hear("hello")).hello
            assert (hello.instance, hello.epoch, hello.version) == ("instance-1", 1, 4)
            assert list(hello.services) == ["billing.shop", "orders.shop"]
            assert (await stream.hear("advertise")).advertise.address == "10.0.0.7:15008"
            stream.push(snapshot(MESH, 4))
            await until(lambda: sidecar.link.connected)
            assert sidecar.link.last_error == ""
            nursery.cancel_scope.cancel()


@trio_test
async def test_a_new_certificate_moves_to_a_new_stream_before_the_old_one_is_left() -> None:
    """Make before break: the old stream ends after the new one was heard; pushes on the new one are applied."""
    async with linked() as (sidecar, plane, _):
        old = await plane.streams.receive()
        await old.hear("hello")
        old.push(snapshot(MESH, 1))
        await old.hear("ack")
        await until(lambda: sidecar.link.connected)
        sidecar.source.set(svid=MESH.svid(WEB, serial=77))
        new = await plane.streams.receive()
        assert new.client_pem != old.client_pem
        assert (await new.hear("hello")).hello.version == 1
        assert sidecar.link.connected
        assert not old.ended.is_set()
        new.push(snapshot(MESH, 2))
        await new.hear("ack")
        await old.ended.wait()
        assert sidecar.link.connected
        assert [one.version for one in sidecar.applied] == [1, 2]


@trio_test
async def test_while_two_streams_are_open_an_older_snapshot_on_one_does_not_undo_the_other() -> None:
    """H14, across streams."""
    async with linked() as (sidecar, plane, _):
        first = await plane.streams.receive()
        await first.hear("hello")
        first.push(snapshot(MESH, 5))
        await first.hear("ack")
        sidecar.source.set(svid=MESH.svid(WEB))
        second = await plane.streams.receive()
        await second.hear("hello")
        second.push(snapshot(MESH, 4))
        assert "version 4 came after version 5" in (await second.hear("nack")).nack.reason
        assert [one.version for one in sidecar.applied] == [5]


@trio_test
async def test_a_new_stream_that_is_refused_does_not_cost_the_old_one() -> None:
    """The old stream stays the active one until a new one works."""
    async with linked() as (sidecar, plane, _):
        old = await plane.streams.receive()
        await old.hear("hello")
        old.push(snapshot(MESH, 1))
        await old.hear("ack")
        await until(lambda: sidecar.link.connected)
        sidecar.source.set(svid=MESH.svid(WEB))
        for _ in range(2):
            (await plane.streams.receive()).push(grpc.StatusCode.UNAVAILABLE)
        old.push(snapshot(MESH, 2))
        while (await old.heard.receive()).WhichOneof("body") != "ack":
            pass
        assert sidecar.link.connected
        assert sidecar.link.last_error == ""
        assert [one.version for one in sidecar.applied] == [1, 2]


class CountingBackoff:
    """Notes when it was asked and waits little."""

    def __init__(self) -> None:
        self.asked = 0
        self.resets = 0

    def next_delay_s(self) -> float:
        self.asked += 1
        return 0.001

    def reset(self) -> None:
        self.resets += 1


@trio_test
async def test_a_stream_that_is_always_refused_backs_off() -> None:
    """Connecting works, Watch does not: every try waits longer than the one before, until a snapshot came."""
    async with linked() as (sidecar, plane, _):
        backoff = CountingBackoff()
        sidecar.link._backoff = backoff  # type: ignore[assignment]
        for _ in range(5):
            stream = await plane.streams.receive()
            stream.push(grpc.StatusCode.PERMISSION_DENIED)
        await until(lambda: backoff.asked == 5)
        assert backoff.resets == 0
        assert sidecar.link.last_error == "said the test"
        stream = await plane.streams.receive()
        stream.push(snapshot(MESH, 1))
        await until(lambda: bool(sidecar.applied))
        stream.push(grpc.StatusCode.UNAVAILABLE)
        await until(lambda: backoff.asked == 6)
        assert backoff.resets == 1


@trio_test
async def test_renewing_uses_the_open_connection_or_a_fresh_one() -> None:
    """The rotator's call works whether or not the stream is up."""
    plane = ControlPlane()
    with plane.serving() as peer:
        sidecar = Sidecar(peer.address)
        csr = identity_csr()
        assert (await sidecar.link.renew(csr)).spiffe_id == str(WEB)  # the link does not even run
        async with trio.open_nursery() as nursery:
            await nursery.start(sidecar.link.run)
            (await plane.streams.receive()).push(snapshot(MESH, 1))
            await until(lambda: sidecar.link.connected)
            assert (await sidecar.link.renew(csr)).spiffe_id == str(WEB)
            nursery.cancel_scope.cancel()
        assert plane.renewals == 2


@trio_test
async def test_r01_without_a_control_plane_nothing_hangs() -> None:
    """R01: withdraw returns, renew fails with UNAVAILABLE, the link keeps trying and says why."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sidecar = Sidecar(Address("127.0.0.1", port))
    async with trio.open_nursery() as nursery:
        await nursery.start(sidecar.link.run)
        await until(lambda: sidecar.link.last_error != "")
        assert f"127.0.0.1:{port}" in sidecar.link.last_error
        assert not sidecar.link.connected
        await sidecar.link.withdraw()
        with pytest.raises(RpcError) as caught:
            await sidecar.link.renew(identity_csr())
        assert caught.value.is_unavailable
        nursery.cancel_scope.cancel()


@trio_test
async def test_an_expired_certificate_is_named_as_the_reason() -> None:
    """The server's alert does not say what to do; we know it."""
    async with linked(MESH.svid(WEB, lifetime_s=-10)) as (sidecar, _, _):
        await until(lambda: "has expired, and another is not there yet" in sidecar.link.last_error)
        assert "certificate has expired" in sidecar.link.last_error
        assert not sidecar.link.connected


@trio_test
async def test_a_control_plane_that_does_not_read_is_left() -> None:
    """What we say is bounded: after 256 unsaid messages the stream is given up and a new one is made."""
    async with linked() as (sidecar, plane, _):
        await (await plane.streams.receive()).hear("hello")
        for number in range(300):  # nothing can be sent in between: there is no checkpoint
            sidecar.link.advertise(f"10.0.0.7:{number + 1}", {8080: Protocol.HTTP1})
        stream = await plane.streams.receive()
        await stream.hear("hello")
        assert (await stream.hear("advertise")).advertise.address == "10.0.0.7:300"


def identity_csr() -> bytes:
    return make_csr(new_private_key(), WEB)
