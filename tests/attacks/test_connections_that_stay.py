"""Connections whose peer does nothing, or just too little: each must end, and give back what it holds.

The sweep's clock is `driver.now`, so the tests say what time it is and call it themselves."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import trio
from h2.events import ConnectionTerminated, DataReceived, TrailersReceived

from certs.revocation import Revocations
from sidecar.aging import SWEEP_S
from sidecar.config import Timeouts
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.http.http1 import Http1Server
from sidecar.http.session import Fields, Session, StreamSink
from sidecar.net.connection import LINGER_S, Connection
from sidecar.trust import GOODBYE_MAX_S
from tests.attacks.support import ALLOW_ALL, App, Target, attacker, plain_connection, request, settled, target
from tests.sidecar.mesh import WEB
from tests.trio_support import trio_test

TIMEOUTS = Timeouts(headers_s=10, idle_s=300, connection_idle_s=300)


def mesh_connection(it: Target) -> Connection:
    return next(one for one in it.driver.connections if one.kind == "mesh_server")


def sweep(it: Target, *, after_s: float, step_s: float = 1.0, each: Callable[[], None] = lambda: None) -> None:
    """As the sweep does it, for so long; `each` is what the peer does meanwhile."""
    start = it.driver.now
    while it.driver.now < start + after_s:
        it.driver.now += step_s
        each()
        it.runtime.sweep(it.driver.now)
        for connection in it.driver.connections:
            it.plane._aging.look_at(connection, it.driver.now)
        it.driver.flush()


@trio_test
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
async def test_a14_a_peer_that_never_reads_is_closed(engine: str) -> None:
    """Requests are sent, answers are never taken off the socket: the connection and what waits for it must go."""
    app = App(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000)
    async with target(ALLOW_ALL, app=app, timeouts=TIMEOUTS, engine=engine) as it, attacker(it) as peer:
        connection = mesh_connection(it)
        peer.h2.update_settings({4: 2**31 - 1})  # INITIAL_WINDOW_SIZE: nothing but TCP holds us back
        peer.h2.increment_flow_control_window(2**30)
        for _ in range(5):
            peer.open(request(b"/large"))
        await peer.flush()
        await settled(lambda: connection.unsent)
        await trio.sleep(0.1)
        sweep(it, after_s=400)
        await settled(lambda: connection not in it.driver.connections)
        assert it.runtime.live_count == 0


@trio_test
async def test_f15_a_connection_that_has_ended_is_closed_although_its_peer_reads_nothing() -> None:
    """When the certificate ends so does the connection, whether or not the peer takes the goodbye."""
    app = App(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000)
    async with target(ALLOW_ALL, app=app, timeouts=TIMEOUTS) as it, attacker(it) as peer:
        connection = mesh_connection(it)
        peer.h2.update_settings({4: 2**31 - 1})
        peer.h2.increment_flow_control_window(2**30)
        for _ in range(5):
            peer.open(request(b"/large"))
        await peer.flush()
        await settled(lambda: connection.unsent)
        connection.expires_at = it.driver.now + 5
        sweep(it, after_s=20)
        await settled(lambda: connection not in it.driver.connections)


@trio_test
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
async def test_f15_a_revoked_peer_in_the_middle_of_answers_it_does_not_read_is_gone_at_once(engine: str) -> None:
    """What waits for it to read is not for it any more, and nothing is waited for."""
    app = App(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + b"x" * 4_000_000)
    async with target(ALLOW_ALL, app=app, timeouts=TIMEOUTS, engine=engine) as it, attacker(it) as peer:
        connection = mesh_connection(it)
        peer.h2.update_settings({4: 2**31 - 1})
        peer.h2.increment_flow_control_window(2**30)
        for _ in range(5):
            peer.open(request(b"/large"))
        await peer.flush()
        await settled(lambda: connection.unsent)
        it.identity.set(revocations=Revocations(identities=frozenset({WEB})))
        await settled(lambda: not it.plane._trust._is_looking)
        assert connection._broken, "without the sweep's help"
        await settled(lambda: connection not in it.driver.connections)
        assert it.runtime.live_count == 0
        assert connection._sock.fileno() == -1


@trio_test
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
async def test_f15_a_revoked_peer_that_does_not_read_the_goodbye_is_closed_within_the_bar(engine: str) -> None:
    """The goodbye does not fit into what the kernel takes: one turn of the sweep after `GOODBYE_MAX_S` it is over."""
    async with target(ALLOW_ALL, app=App(), timeouts=TIMEOUTS, engine=engine) as it, attacker(it) as peer:
        assert (await peer.ask(request())).status == 200
        connection = mesh_connection(it)
        connection._send = lambda data: 0  # type: ignore[method-assign]  # as a full socket
        it.identity.set(revocations=Revocations(identities=frozenset({WEB})))
        await settled(lambda: connection.unsent)
        sweep(it, after_s=GOODBYE_MAX_S / 2, step_s=SWEEP_S)
        assert connection in it.driver.connections
        sweep(it, after_s=GOODBYE_MAX_S / 2 + 2 * SWEEP_S, step_s=SWEEP_S)
        assert connection._broken
        await settled(lambda: connection not in it.driver.connections)
        assert GOODBYE_MAX_S + SWEEP_S + LINGER_S < 5.0


@trio_test
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
async def test_f15_a_revoked_caller_is_told_and_its_stream_ends_in_order(engine: str) -> None:
    """gRPC: UNAVAILABLE in the trailers of what has begun; then GOAWAY, then the end of the connection."""
    app = App(b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 100\r\n\r\nhalf")
    async with target(ALLOW_ALL, app=app, timeouts=TIMEOUTS, engine=engine) as it, attacker(it) as peer:
        stream = peer.open(request(b"/a/b", b"POST", (b"content-type", b"application/grpc")), end=False)
        await peer.flush()
        assert await peer.until(lambda event: isinstance(event, DataReceived))
        it.identity.set(revocations=Revocations(identities=frozenset({WEB})))
        trailers = await peer.until(lambda event: isinstance(event, TrailersReceived))
        assert isinstance(trailers, TrailersReceived)
        assert (b"grpc-status", b"14") in [(bytes(n), bytes(v)) for n, v in trailers.headers]
        assert trailers.stream_id == stream
        while await peer.receive():
            pass
        assert any(isinstance(event, ConnectionTerminated) for event in peer.events)
        await settled(lambda: not it.driver.connections or mesh_gone(it))


def mesh_gone(it: Target) -> bool:
    return not any(one.kind == "mesh_server" for one in it.driver.connections)


@trio_test
async def test_r14_a_drained_connection_ends_although_its_peer_answers_no_ping() -> None:
    """The graceful goodbye waits for a PING to come back; a peer that never sends it back must not hold us."""
    async with target(ALLOW_ALL, app=App(), timeouts=TIMEOUTS) as it, attacker(it) as peer:
        assert (await peer.ask(request())).status == 200
        connection = mesh_connection(it)
        sweep(it, after_s=320)  # idle: drained; the peer says nothing
        await settled(lambda: connection not in it.driver.connections)


class _NoHandler:
    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        raise AssertionError("no request is ever complete here")


@trio_test
async def test_i01_a_head_that_dribbles_in_is_cut_off() -> None:
    """One octet every few seconds keeps a connection busy, not a head legal: it has ten seconds in all."""
    async with target(ALLOW_ALL, app=App(), timeouts=TIMEOUTS) as it:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        connection = Connection(it.driver, ours, Http1Server(_NoHandler(), limits=it.config.limits), kind="app_server")
        it.driver.add(connection)
        connection.session.receive(b"GET / HTTP/1.1\r\nx: ")

        def dribble() -> None:
            connection.session.receive(b"x")
            connection.activity = it.driver.now

        sweep(it, after_s=15, each=dribble)
        assert connection.session.closed
        ours.close()
        peer.close()


@trio_test
async def test_i01_an_http2_header_block_that_never_ends_is_cut_off() -> None:
    """HEADERS without END_HEADERS, and then silence: the rest has ten seconds to come."""
    async with target(ALLOW_ALL, app=App(), timeouts=TIMEOUTS) as it, attacker(it) as peer:
        connection = mesh_connection(it)
        await peer.flush(b"\0\0\x04\x01\0\0\0\0\x01\x82\x84\x86\x83")
        await settled(lambda: connection.session.awaits_rest)
        sweep(it, after_s=15)
        await settled(lambda: connection not in it.driver.connections)


@pytest.mark.parametrize(
    ("first", "row"),
    [
        (b"", "F21"),
        (b"\x16", "F21"),
        (b"\x16\x03\x01\x02\x00", "F21"),
        (b"GET / HTTP/1.1\r\n\r\n", "F20"),
        (b"\x16\x03\x01\xff\xff", ""),  # broken TLS, which OpenSSL itself turns away
    ],
)
@trio_test
async def test_f20_f21_what_is_no_handshake_is_closed_and_told(first: bytes, row: str) -> None:
    """Plaintext, half a ClientHello, nothing at all: closed within the handshake's time, and one line says so."""
    assert Timeouts().handshake_s == 10, "what the row promises to who sets nothing"
    async with target(ALLOW_ALL, app=App(), timeouts=Timeouts(handshake_s=0.2)) as it:
        stream = await trio.open_tcp_stream(*it.address)
        if first:
            await stream.send_all(first)
        got = b""
        try:
            while data := await stream.receive_some(4_096):
                got += data
        except trio.BrokenResourceError:
            pass
        await stream.aclose()
        assert b"HTTP/" not in got
        assert [getattr(entry, "row", "") for entry in it.log.entries] == [row]
        assert not it.driver.connections
        async with attacker(it) as peer:
            assert (await peer.ask(request())).status == 200


@trio_test
async def test_i03_strangers_leave_descriptors_for_what_is_established() -> None:
    """Connections that never speak are bounded below the process's limit, so that the app can still be dialled."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * used + 200, old[1]))
    try:
        app = App()
        async with target(ALLOW_ALL, app=app) as it, attacker(it) as peer:
            gate = it.plane._mesh_gate
            with ExitStack() as stack:
                strangers = []
                resource.setrlimit(resource.RLIMIT_NOFILE, old)  # the strangers' descriptors are not ours to count
                while not gate.refused:
                    strangers.append(stack.enter_context(plain_connection(it.address)))
                    await trio.sleep(0)
                assert gate.open <= (4 * used + 200) // 2
                assert (await peer.ask(request(b"/still-served"))).status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
