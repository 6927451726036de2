"""sidecar.control.rpc against a real grpcio server, and against peers that misbehave, over real TLS."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import grpc
import pytest
import trio
import trio.testing

from certs.revocation import Revocations
from certs.spiffe_id import SpiffeId
from protos.hauberk.v1 import discovery_pb2, identity_pb2
from sidecar.config import Address
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel, ChannelLimits, open_channel
from sidecar.control.wire import USER_AGENT
from sidecar.errors import (
    GRPC_DEADLINE_EXCEEDED,
    GRPC_PERMISSION_DENIED,
    GRPC_RESOURCE_EXHAUSTED,
    GRPC_UNAVAILABLE,
    GRPC_UNIMPLEMENTED,
)
from sidecar.identity.source import IdentitySource
from sidecar.net.errors import PeerRefused, PeerRevoked, WrongPeer
from sidecar.net.tls import client_context, handshake, server_context
from tests.sidecar.control.grpc_peer import Peer, grpc_server
from tests.sidecar.mesh import CONTROL_PLANE, ORDERS, TD, WEB, Mesh
from tests.trio_support import trio_test

MESH = Mesh()
RENEW = "/hauberk.v1.Identity/Renew"
WATCH = "/hauberk.v1.Discovery/Watch"
REQUEST = identity_pb2.RenewRequest(csr_der=b"csr")


def channel_to(
    address: Address,
    *,
    expected: SpiffeId = CONTROL_PLANE,
    limits: ChannelLimits | None = None,
    context: ssl.SSLContext | None = None,
    timeout_s: float = 5.0,
) -> AbstractAsyncContextManager[Channel]:
    return open_channel(
        address,
        context or client_context(MESH.svid(WEB), MESH.bundle),
        TD,
        expected,
        clock=time.time,
        connect_timeout_s=timeout_s,
        limits=limits,
    )


def echo(request: identity_pb2.RenewRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
    metadata = dict(context.invocation_metadata())
    return identity_pb2.SvidResponse(service=request.csr_der.decode(), namespace=str(metadata["user-agent"]))


def count_back(
    requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
) -> Iterator[discovery_pb2.Snapshot]:
    """One snapshot for each request, numbered as the request's heartbeat says."""
    for request in requests:
        yield discovery_pb2.Snapshot(version=int(request.heartbeat.clock))


def heartbeat(number: int) -> discovery_pb2.WatchRequest:
    return discovery_pb2.WatchRequest(heartbeat=discovery_pb2.Heartbeat(clock=number))


@trio_test
async def test_unary_calls_share_a_connection() -> None:
    """Request and reply, one after the other and at once; the user agent says who we are."""
    with grpc_server(MESH, unary={RENEW: echo}) as peer:
        async with channel_to(peer.address) as channel:
            assert channel.peer.identity == CONTROL_PLANE
            reply = await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse)
            assert reply.service == "csr"
            assert reply.namespace == USER_AGENT.decode()
            answers: list[str] = []

            async def ask(number: int) -> None:
                request = identity_pb2.RenewRequest(csr_der=b"%d" % number)
                answers.append((await channel.unary(RENEW, request, identity_pb2.SvidResponse)).service)

            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(ask, number)
            assert sorted(answers) == [str(number) for number in range(10)]
            assert "0 calls" in repr(channel)


@trio_test
async def test_a_stream_speaks_in_both_directions() -> None:
    """Each message is answered before the next is sent; finishing ends the stream with OK."""
    with grpc_server(MESH, stream={WATCH: count_back}) as peer:
        async with channel_to(peer.address) as channel, channel.stream(WATCH, discovery_pb2.Snapshot) as call:
            for number in range(1, 20):
                await call.send(heartbeat(number))
                assert (await anext(call)).version == number
            call.finish_sending()
            with pytest.raises(StopAsyncIteration):
                await anext(call)
            with pytest.raises(RpcError):
                await call.send(heartbeat(1))


@trio_test
async def test_a_server_may_stream_without_being_asked_again() -> None:
    """Server streaming: a thousand messages for one, in order, then OK."""

    def flood(
        requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        next(requests)
        for version in range(1000):
            yield discovery_pb2.Snapshot(version=version)

    with grpc_server(MESH, stream={WATCH: flood}) as peer:
        async with channel_to(peer.address) as channel, channel.stream(WATCH, discovery_pb2.Snapshot) as call:
            await call.send(heartbeat(0))
            assert [snapshot.version async for snapshot in call] == list(range(1000))


@pytest.mark.parametrize("after_messages", [0, 2], ids=["trailers only", "after messages"])
@trio_test
async def test_a_status_is_an_error_with_its_message_decoded(after_messages: int) -> None:
    """grpc-status and percent-encoded grpc-message, in a trailers-only answer and in trailers."""

    def refuse(
        requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        for _ in range(after_messages):
            yield discovery_pb2.Snapshot(version=7)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "100 % nö\nline two")

    with grpc_server(MESH, stream={WATCH: refuse}) as peer:
        async with channel_to(peer.address) as channel, channel.stream(WATCH, discovery_pb2.Snapshot) as call:
            for _ in range(after_messages):
                assert (await anext(call)).version == 7
            with pytest.raises(RpcError) as caught:
                await anext(call)
            assert caught.value.status == GRPC_PERMISSION_DENIED
            assert caught.value.message == "100 % nö line two", "printable, for a log"


@trio_test
async def test_a_unary_error_is_an_error() -> None:
    """The status of a unary call; the channel stays usable after it."""

    def refuse(request: identity_pb2.RenewRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

    with grpc_server(MESH, unary={RENEW: refuse}) as peer:
        async with channel_to(peer.address) as channel:
            for path, status in ((RENEW, GRPC_PERMISSION_DENIED), ("/hauberk.v1.No/Such", GRPC_UNIMPLEMENTED)):
                with pytest.raises(RpcError) as caught:
                    await channel.unary(path, REQUEST, identity_pb2.SvidResponse)
                assert caught.value.status == status
            assert channel.is_usable


@trio_test
async def test_a_deadline_ends_a_call_and_the_server_hears_of_it() -> None:
    """No answer in time is DEADLINE_EXCEEDED; the server's call is cancelled; the channel goes on."""
    cancelled = trio.Event()
    token = trio.lowlevel.current_trio_token()
    peers: list[Peer] = []

    def slow(request: identity_pb2.RenewRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        if request.csr_der == b"fast":
            return identity_pb2.SvidResponse()
        context.add_callback(lambda: token.run_sync_soon(cancelled.set))
        peers[0].released.wait(20)
        return identity_pb2.SvidResponse()

    with grpc_server(MESH, unary={RENEW: slow}) as peer:
        peers.append(peer)
        async with channel_to(peer.address) as channel:
            with pytest.raises(RpcError) as caught:
                await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse, timeout_s=0.05)
            assert caught.value.status == GRPC_DEADLINE_EXCEEDED
            await cancelled.wait()
            await channel.unary(RENEW, identity_pb2.RenewRequest(csr_der=b"fast"), identity_pb2.SvidResponse)


@trio_test
async def test_big_messages_pass_both_ways() -> None:
    """3 MB each way: many frames, many windows, credit given back."""
    size = 3_000_000

    def swallow(request: identity_pb2.RenewRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        assert request.csr_der == b"x" * size
        return identity_pb2.SvidResponse(certificate_chain_der=[b"y" * size])

    with grpc_server(MESH, unary={RENEW: swallow}) as peer:
        async with channel_to(peer.address) as channel:
            for _ in range(3):
                request = identity_pb2.RenewRequest(csr_der=b"x" * size)
                reply = await channel.unary(RENEW, request, identity_pb2.SvidResponse)
                assert reply.certificate_chain_der[0] == b"y" * size


@trio_test
async def test_messages_above_the_limit_are_refused_in_both_directions() -> None:
    """Received: RESOURCE_EXHAUSTED before it is held in memory. Sent: not sent. The channel stays usable."""

    def big(request: identity_pb2.RenewRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        return identity_pb2.SvidResponse(certificate_chain_der=[b"y" * 20_000])

    with grpc_server(MESH, unary={RENEW: big}) as peer:
        limits = ChannelLimits(message_octets_max=10_000)
        async with channel_to(peer.address, limits=limits) as channel:
            with pytest.raises(RpcError) as caught:
                await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse)
            assert caught.value.status == GRPC_RESOURCE_EXHAUSTED
            with pytest.raises(RpcError) as caught:
                await channel.unary(RENEW, identity_pb2.RenewRequest(csr_der=b"x" * 20_000), identity_pb2.SvidResponse)
            assert caught.value.status == GRPC_RESOURCE_EXHAUSTED
            assert channel.is_usable


@trio_test
async def test_a_reader_that_waits_stops_the_sender_and_loses_nothing() -> None:
    """Credit is held back while messages wait: 8 MB sent at once arrive whole, and few of them are ever queued here."""
    sent: list[int] = []

    def pour(
        requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        next(requests)
        for version in range(200):
            sent.append(version)
            yield discovery_pb2.Snapshot(version=version, trust_anchors_der=[b"z" * 40_000])

    with grpc_server(MESH, stream={WATCH: pour}) as peer:
        async with channel_to(peer.address) as channel, channel.stream(WATCH, discovery_pb2.Snapshot) as call:
            await call.send(heartbeat(0))
            got = [(await anext(call)).version]
            for _ in range(5):
                await channel.ping()  # round trips in which the server sends all it may
            waiting = len(call._call.inbox)
            assert waiting <= 1_048_576 // 40_000 + 2, "one window, no more"
            got += [snapshot.version async for snapshot in call]
            assert got == list(range(200))


@trio_test
async def test_a_killed_server_makes_every_call_unavailable() -> None:
    """Connection loss: the open stream, the waiting unary call and later calls all meet UNAVAILABLE."""
    peers: list[Peer] = []

    def wait(
        requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        yield discovery_pb2.Snapshot(version=1)
        peers[0].released.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listener, grpc_server(MESH, stream={WATCH: wait}) as peer:
        peers.append(peer)
        async with trio.open_nursery() as nursery:
            # A relay in between, so that the connection can be cut like a cable.
            cut = trio.CancelScope()
            nursery.start_soon(relay, listener, peer.port, cut)
            address = Address("127.0.0.1", listener.getsockname()[1])
            async with channel_to(address) as channel, channel.stream(WATCH, discovery_pb2.Snapshot) as call:
                assert (await anext(call)).version == 1
                cut.cancel()
                with pytest.raises(RpcError) as caught:
                    await anext(call)
                assert caught.value.status == GRPC_UNAVAILABLE
                await channel.wait_unusable()
                for attempt in (channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse), channel.ping()):
                    with pytest.raises(RpcError) as caught:
                        await attempt
                    assert caught.value.is_unavailable


async def relay(listener: socket.socket, port: int, scope: trio.CancelScope) -> None:
    """One connection, passed on until `scope` is cancelled; then both ends are closed."""
    accepting = trio.socket.from_stdlib_socket(listener)
    with scope:
        accepted, _ = await accepting.accept()
        near, far = trio.SocketStream(accepted), await trio.open_tcp_stream("127.0.0.1", port)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(copy, near, far)
            nursery.start_soon(copy, far, near)


async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)


@trio_test
async def test_after_goaway_the_open_call_goes_on_and_new_ones_are_refused() -> None:
    """A server that stops gracefully finishes what runs: h2 alone would fail it, the frame gate does not."""
    peers: list[Peer] = []

    def patient(
        requests: Iterator[discovery_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.Snapshot]:
        yield discovery_pb2.Snapshot(version=1)
        for request in requests:
            yield discovery_pb2.Snapshot(version=int(request.heartbeat.clock))

    with grpc_server(MESH, stream={WATCH: patient}) as peer:
        peers.append(peer)
        async with channel_to(peer.address) as channel, channel.stream(WATCH, discovery_pb2.Snapshot) as call:
            assert (await anext(call)).version == 1
            peer.stop(grace_s=20)
            await channel.wait_unusable()
            assert "going away" in repr(channel)
            with pytest.raises(RpcError) as caught:
                await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse)
            assert caught.value.status == GRPC_UNAVAILABLE
            for number in (2, 3):
                await call.send(heartbeat(number))
                assert (await anext(call)).version == number
            call.finish_sending()
            assert [snapshot async for snapshot in call] == []


@trio_test
async def test_g15_another_workload_is_not_the_control_plane() -> None:
    """G15: a valid certificate of the mesh that is not the control plane's; nothing was said to it."""
    with grpc_server(MESH, unary={RENEW: echo}, svid=MESH.svid(ORDERS)) as peer, pytest.raises(WrongPeer):
        async with channel_to(peer.address):
            pytest.fail("no channel to a stranger")


@trio_test
async def test_another_mesh_is_not_believed() -> None:
    """The right name, signed by somebody else."""
    other = Mesh()
    with grpc_server(other) as peer, pytest.raises(PeerRefused):
        async with channel_to(peer.address):
            pytest.fail("no channel to another mesh")


@trio_test
async def test_a_refused_client_certificate_is_unavailable_at_the_first_call() -> None:
    """F18: the server's alert comes after our handshake; the first call meets it, with the reason."""
    with grpc_server(MESH, unary={RENEW: echo}) as peer:
        with pytest.raises(RpcError) as caught:
            async with channel_to(peer.address, context=client_context(None, MESH.bundle)) as channel:
                await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse)
        assert caught.value.status == GRPC_UNAVAILABLE


@trio_test
async def test_nobody_listening_is_unavailable() -> None:
    """A closed port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RpcError) as caught:
        async with channel_to(Address("127.0.0.1", port)):
            pytest.fail("nobody is there")
    assert caught.value.status == GRPC_UNAVAILABLE
    assert f"127.0.0.1:{port}" in caught.value.message


@trio_test
async def test_a_listener_that_never_answers_is_unavailable_in_time() -> None:
    """TCP connects, TLS does not begin: the connect timeout covers both."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(RpcError) as caught:
        async with channel_to(Address("127.0.0.1", listener.getsockname()[1]), timeout_s=0.05):
            pytest.fail("nobody answered")
    assert caught.value.status == GRPC_UNAVAILABLE


@asynccontextmanager
async def raw_peer() -> AsyncIterator[tuple[Channel, ssl.SSLSocket]]:
    """A channel to a TLS server that speaks whatever the test writes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepted: list[ssl.SSLSocket] = []

        async def accept() -> None:
            await trio.lowlevel.wait_readable(listener)
            plain, _ = listener.accept()
            plain.setblocking(False)
            context = server_context(MESH.svid(CONTROL_PLANE), MESH.bundle)
            accepted.append(await handshake(plain, context, server_side=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            limits = ChannelLimits(ping_after_s=0.05, ping_timeout_s=0.05)
            async with channel_to(Address("127.0.0.1", listener.getsockname()[1]), limits=limits) as channel:
                while not accepted:
                    await trio.lowlevel.checkpoint()
                with accepted[0]:
                    yield channel, accepted[0]


@trio_test
async def test_r03_a_link_that_went_dead_is_noticed() -> None:
    """R03: the peer's machine is gone without a word: no answer to a PING ends the channel."""
    async with raw_peer() as (channel, _):
        with pytest.raises(RpcError, match="sign of life") as caught:
            await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse, timeout_s=20)
        assert caught.value.status == GRPC_UNAVAILABLE


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x05\x00\0\0\0\0\x63hello",
        b"\xff\xff\xff\x00\0\0\0\0\x01",
        b"\0\0\x01\x07\0\0\0\0\0x",
    ],
    ids=["HTTP/1.1", "DATA on an idle stream", "a frame too large", "a GOAWAY too short"],
)
@trio_test
async def test_a_peer_that_breaks_http2_ends_the_channel(nonsense: bytes) -> None:
    """Nothing a server sends raises anything but RpcError(UNAVAILABLE)."""
    async with raw_peer() as (channel, server):
        server.send(nonsense)
        with pytest.raises(RpcError) as caught:
            await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse, timeout_s=20)
        assert caught.value.status == GRPC_UNAVAILABLE


@trio_test
async def test_errors_of_the_block_are_not_wrapped() -> None:
    """Callers catch what they raised, not an ExceptionGroup."""
    with grpc_server(MESH, unary={RENEW: echo}) as peer, pytest.raises(KeyError, match="mine"):
        async with channel_to(peer.address):
            raise KeyError("mine")


@trio_test
async def test_cancelling_a_call_leaves_the_channel_usable() -> None:
    """A caller that gives up resets its call only."""
    with grpc_server(MESH, unary={RENEW: echo}, stream={WATCH: count_back}) as peer:
        async with channel_to(peer.address) as channel:
            with trio.move_on_after(0.02) as scope:
                async with channel.stream(WATCH, discovery_pb2.Snapshot) as call:
                    await anext(call)
            assert scope.cancelled_caught
            assert (await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse)).service == "csr"


@trio_test
async def test_calls_are_bounded() -> None:
    """The seventeenth call at once is refused, not queued."""
    with grpc_server(MESH, stream={WATCH: count_back}) as peer:
        async with channel_to(peer.address) as channel, trio.open_nursery() as nursery:

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with channel.stream(WATCH, discovery_pb2.Snapshot):
                    task_status.started()
                    await trio.sleep_forever()

            for _ in range(16):
                await nursery.start(hold)
            with pytest.raises(RpcError) as caught:
                await channel.unary(RENEW, REQUEST, identity_pb2.SvidResponse)
            assert caught.value.status == GRPC_RESOURCE_EXHAUSTED
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("change", ["revoked", "anchor dropped"])
@trio_test
async def test_f15_a_control_plane_that_is_not_trusted_any_more_is_left(change: str) -> None:
    """Within the bar, the stream included; until then there is time to come again, and new connections are refused."""
    source = IdentitySource()
    source.set(svid=MESH.svid(WEB), bundle=MESH.bundle)
    with grpc_server(MESH, unary={RENEW: echo}) as server:

        def channel() -> AbstractAsyncContextManager[Channel]:
            context = source.client_context()
            return open_channel(server.address, context, TD, CONTROL_PLANE, clock=time.time, trust=source)

        async with channel() as one:
            source.set(revocations=Revocations(identities=frozenset({WEB})))  # somebody else
            await one.ping()
            with trio.fail_after(5.0):
                if change == "revoked":
                    source.set(revocations=Revocations(identities=frozenset({CONTROL_PLANE})))
                else:
                    source.set(bundle=Mesh().bundle)
                await one.wait_unusable()
            with pytest.raises(RpcError, match=r"revoked|not trusted any more"):
                await one.ping()
        with pytest.raises(PeerRevoked if change == "revoked" else PeerRefused):
            async with channel():
                pass
