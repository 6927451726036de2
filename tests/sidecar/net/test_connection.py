"""The pump between a socket and its session, on real sockets of the loopback device."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from sidecar.net.connection import CONTROL_OCTETS_MAX, Connection, Driver
from sidecar.net.tls import client_context, handshake, server_context
from tests.sidecar.mesh import ORDERS, WEB, Mesh
from tests.sidecar.net.support import (
    LIMITS,
    ScriptedSession,
    driven,
    read_all,
    read_exactly,
    read_some,
    reset_by_peer,
    run_connection,
    settled,
    socket_pair,
)
from tests.trio_support import trio_test


class Running:
    """One connection at work, and its peer's end."""

    def __init__(self, driver: Driver, sock: socket.socket, peer: socket.socket, session: ScriptedSession) -> None:
        self.driver = driver
        self.peer = peer
        self.session = session
        self.connection = Connection(driver, sock, session, kind="app_server")
        self.done = trio.Event()

    def say(self, data: bytes) -> None:
        """The session has something to say."""
        self.session.queued += data
        self.driver.touched.add(self.session)
        self.driver.flush()


@asynccontextmanager
async def running(
    *, small_buffers: bool = False, session: ScriptedSession | None = None, first: bytes | None = None
) -> AsyncIterator[Running]:
    ours, peer = socket_pair(small_buffers=small_buffers)
    async with driven() as driver:
        one = Running(driver, ours, peer, session or ScriptedSession())
        driver.spawn(run_connection, one.connection, one.done)
        await settled(lambda: driver.connections)
        yield one
    peer.close()


@trio_test
async def test_what_is_received_is_answered_at_once() -> None:
    """One reader task: bytes in, calls, bytes out, flush."""
    async with running() as one:
        one.session.answer = lambda data: data.upper()
        for word in (b"one", b"two"):
            one.peer.send(word)
            assert await read_exactly(one.peer, 3) == word.upper()
        assert bytes(one.session.received) == b"onetwo"


@trio_test
async def test_bytes_read_before_the_connection_was_made_come_first() -> None:
    """Those by which the protocol was recognised."""
    ours, peer = socket_pair()
    async with driven() as driver:
        session = ScriptedSession()
        session.answer = lambda data: data.upper()
        driver.spawn(Connection(driver, ours, session, kind="app_server").run, b"hello ")
        peer.send(b"world")
        assert await read_exactly(peer, 11) == b"HELLO WORLD"
    peer.close()


@trio_test
async def test_what_the_session_says_first_needs_no_peer() -> None:
    """A client's preface is sent before anything is received."""
    session = ScriptedSession()
    session.queued += b"preface"
    async with running(session=session) as one:
        assert await read_exactly(one.peer, 7) == b"preface"


@trio_test
async def test_sessions_touched_on_another_connection_are_flushed() -> None:
    """What arrives here goes out there, in the same slice."""
    async with running() as here, running() as there:
        # Two drivers would be two processes: let the second belong to the first.
        here.driver.add(there.connection)

        def relay() -> None:
            there.session.queued += bytes(here.session.received)
            here.driver.touched.add(there.session)

        here.session.on_receive = relay
        here.peer.send(b"across")
        assert await read_exactly(there.peer, 6) == b"across"


@trio_test
async def test_r20_a_slow_reader_gets_everything_and_little_waits_here() -> None:
    """The kernel takes what it can, a writer task the rest; what waits stays within `output_octets_max`."""
    async with running(small_buffers=True) as one:
        bound, total = LIMITS.output_octets_max, 4_000_000
        left = total

        def refill() -> None:
            nonlocal left
            room = min(bound - len(one.session.queued) - one.session.unsent, left)
            if room > 0:
                left -= room
                one.session.queued += b"x" * room
                one.driver.touched.add(one.session)

        one.session.on_sent = refill
        one.say(b"")
        refill()
        one.driver.flush()
        assert one.session.unsent > 0  # the kernel did not take it all
        got = 0
        while got < total:
            got += len(await read_some(one.peer, 10_000))
        assert left == 0
        assert one.session.unsent_max <= bound
        await settled(lambda: one.session.unsent == 0)
        assert "0 octets pending" in repr(one.connection)


@trio_test
async def test_there_is_a_writer_only_while_something_waits() -> None:
    """A request costs no task; a slow reader costs one."""
    async with running(small_buffers=True) as one:
        nursery_tasks = len(one.driver._nursery.child_tasks)
        one.say(b"x" * 100)
        assert len(one.driver._nursery.child_tasks) == nursery_tasks
        await read_exactly(one.peer, 100)
        one.say(b"x" * 3_000_000)
        assert len(one.driver._nursery.child_tasks) == nursery_tasks + 1
        await read_exactly(one.peer, 3_000_000)
        await settled(lambda: len(one.driver._nursery.child_tasks) == nursery_tasks)
        one.say(b"more")
        assert await read_exactly(one.peer, 4) == b"more"


@trio_test
async def test_a07_control_frames_nobody_reads_the_answers_to_end_the_connection() -> None:
    """Beyond the output limit only protocol answers can queue up, and of those a megabyte is enough."""
    async with running(small_buffers=True) as one:
        one.say(b"x" * 3_000_000)
        for _ in range(20):
            one.say(b"p" * (CONTROL_OCTETS_MAX // 10))
        await one.done.wait()
        assert one.session.eofs == 1


@trio_test
@pytest.mark.parametrize("while_writing", [False, True])
async def test_a_peer_that_resets_ends_its_connection_and_nothing_else(
    while_writing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it is the writer that meets the reset; the driver goes on, and nothing unexpected happened."""
    async with running(small_buffers=True) as one:
        if while_writing:
            one.session.wants_read = False
            one.peer.send(b"x")
            await settled(lambda: not one.connection._is_watched)
            one.say(b"x" * 3_000_000)
        reset_by_peer(one.peer)
        await one.done.wait()
        assert one.session.eofs == 1
        assert one.driver.connections == []
        ours, peer = socket_pair()
        other = ScriptedSession()
        other.answer = lambda data: data
        one.driver.spawn(Connection(one.driver, ours, other, kind="app_server").run)
        peer.send(b"alive")
        assert await read_exactly(peer, 5) == b"alive"
        peer.close()
    assert "unexpected" not in caplog.text


@trio_test
async def test_a_peer_that_leaves_ends_its_session_once() -> None:
    """What it said before is heard."""
    async with running() as one:
        one.peer.send(b"last words")
        one.peer.close()
        await one.done.wait()
        assert bytes(one.session.received) == b"last words"
        assert one.session.eofs == 1


@trio_test
async def test_a_closed_session_closes_the_socket_after_its_last_words() -> None:
    """GOAWAY, or an error answer, still goes out."""
    async with running() as one:
        one.session.closed = True
        one.say(b"goodbye")
        assert await read_all(one.peer) == b"goodbye"
        one.peer.close()
        await one.done.wait()


@trio_test
async def test_an_answer_arrives_although_the_peer_still_sends() -> None:
    """Closing with unread bytes would destroy it with a TCP reset: the connection lingers and reads on."""
    async with running() as one:

        def refuse(data: bytes) -> bytes:
            one.session.closed = True
            return b"413 too much"

        one.session.answer = refuse
        one.peer.send(b"x" * 60_000)
        await settled(lambda: one.session.closed)
        for _ in range(10):  # it had not heard yet
            one.peer.send(b"x" * 10_000)
        assert await read_all(one.peer) == b"413 too much"
        one.peer.close()
        await one.done.wait()


@trio_test
async def test_a_slow_reader_gets_the_last_words_of_a_closed_session() -> None:
    """Closed, but not before what is queued was taken."""
    async with running(small_buffers=True) as one:
        one.session.closed = True
        one.say(b"y" * 1_000_000)
        assert len(await read_all(one.peer)) == 1_000_000
        one.peer.close()
        await one.done.wait()


@trio_test
async def test_close_from_outside_ends_it_at_once() -> None:
    """Nothing waits for a peer that does not read; twice is once."""
    async with running(small_buffers=True) as one:
        one.say(b"z" * 3_000_000)
        one.connection.close()
        one.connection.close()
        await one.done.wait()
        assert one.session.eofs == 1
        assert one.driver.connections == []


@trio_test
async def test_close_before_it_ran_is_survived() -> None:
    """A dial that was given up."""
    ours, peer = socket_pair()
    async with driven() as driver:
        session = ScriptedSession()
        connection = Connection(driver, ours, session, kind="mesh_client")
        connection.close()
        await connection.run()
        assert session.eofs == 1
        assert await read_all(peer) == b""
    peer.close()


def fill(sock: socket.socket) -> int:
    """Write until the kernel takes no more; how much it took."""
    sent = 0
    try:
        while True:
            sent += sock.send(b"x" * 10_000)
    except BlockingIOError:
        return sent


@trio_test
async def test_a_session_that_does_not_want_to_read_holds_its_peer_back() -> None:
    """Until `resume_reading` is called; then nothing is missing."""
    async with running(small_buffers=True) as one:
        one.session.wants_read = False
        one.peer.send(b"first")
        await settled(lambda: not one.connection._is_watched or one.session.received)
        sent = fill(one.peer)
        assert len(one.session.received) <= 5
        one.session.wants_read = True
        one.session.resume_reading()
        await settled(lambda: len(one.session.received) == 5 + sent)


@trio_test
async def test_the_first_bytes_back_are_waited_for() -> None:
    """F18: a client's connection counts only when the other end has spoken."""
    async with running() as one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.connection.wait_spoken)
            one.peer.send(b"s")
        await one.connection.wait_spoken()


@trio_test
async def test_f18_a_peer_that_leaves_without_a_word_is_an_error() -> None:
    """As a server does that refuses our certificate."""
    async with running() as one:
        one.peer.close()
        with pytest.raises(ConnectionResetError):
            await one.connection.wait_spoken()


@trio_test
async def test_an_error_in_a_task_ends_that_task_only(caplog: pytest.LogCaptureFixture) -> None:
    """A bug behind one connection we dialled must not end the process."""
    caplog.set_level(logging.ERROR)
    async with running() as one:

        def bug() -> None:
            raise AssertionError("cannot happen")

        one.session.on_receive = bug
        one.peer.send(b"x")
        await one.done.wait()
        assert one.driver.connections == []
        await trio.lowlevel.checkpoint()
    assert "unexpected error" in caplog.text


class Stuck(socket.socket):
    """The kernel takes nothing, as often as is asked, until it is told to."""

    takes = False
    tries = 0

    def send(self, data: object, flags: int = 0) -> int:
        self.tries += 1
        if not self.takes:
            raise BlockingIOError(errno.EAGAIN, "not now")
        return super().send(data, flags)  # type: ignore[arg-type]


@trio_test
async def test_a_kernel_that_takes_nothing_is_asked_again() -> None:
    """EAGAIN is no error, whenever it comes."""
    ours, peer = socket_pair()
    stuck = Stuck(fileno=ours.detach())
    stuck.setblocking(False)
    async with driven() as driver:
        session = ScriptedSession()
        one = Running(driver, stuck, peer, session)
        driver.spawn(run_connection, one.connection, one.done)
        await settled(lambda: driver.connections)
        one.say(b"patience")
        await settled(lambda: stuck.tries > 3)
        assert session.unsent == 8
        stuck.takes = True
        assert await read_exactly(peer, 8) == b"patience"
        await settled(lambda: session.unsent == 0)
    peer.close()


# TLS


@asynccontextmanager
async def over_tls() -> AsyncIterator[tuple[Running, ssl.SSLSocket]]:
    """A served connection and a client's TLS socket."""
    mesh = Mesh()
    ours, theirs = socket_pair(small_buffers=True)
    found: dict[str, ssl.SSLSocket] = {}

    async def shake(name: str, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        found[name] = await handshake(sock, context, server_side=server_side)

    server, client = server_context(mesh.svid(ORDERS), mesh.bundle), client_context(mesh.svid(WEB), mesh.bundle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: shake("ours", ours, server, server_side=True))
        nursery.start_soon(lambda: shake("peer", theirs, client, server_side=False))
    async with driven() as driver:
        one = Running(driver, found["ours"], found["peer"], ScriptedSession())
        driver.spawn(run_connection, one.connection, one.done)
        await settled(lambda: driver.connections)
        yield one, found["peer"]
    found["peer"].close()


async def tls_read(peer: ssl.SSLSocket, size: int) -> bytes:
    """Up to `size` octets, less only at the end."""
    data = b""
    while len(data) < size:
        try:
            chunk = peer.recv(min(65_536, size - len(data)))
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(peer)
            continue
        if not chunk:
            break
        data += chunk
    return data


async def tls_write(peer: ssl.SSLSocket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[peer.send(view) :]
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(peer)


@trio_test
async def test_large_bodies_pass_over_tls_both_ways() -> None:
    """Many records in a slice, and a partial write that is tried again with the same bytes."""
    async with over_tls() as (one, peer):
        body = bytes(range(256)) * 8_000
        one.say(body)
        assert await tls_read(peer, len(body)) == body
        await tls_write(peer, body)
        await settled(lambda: len(one.session.received) == len(body))
        assert bytes(one.session.received) == body


@trio_test
async def test_what_is_said_while_a_tls_write_waits_comes_after_it() -> None:
    """A record that was begun is finished first."""
    async with over_tls() as (one, peer):
        one.say(b"a" * 1_000_000)
        assert one.session.unsent > 0
        for letter in (b"b", b"c"):
            one.say(letter * 10_000)
        got = await tls_read(peer, 1_020_000)
        assert got == b"a" * 1_000_000 + b"b" * 10_000 + b"c" * 10_000


@trio_test
async def test_the_last_words_arrive_over_tls_although_the_peer_still_sends() -> None:
    """close_notify, then the socket lingers."""
    async with over_tls() as (one, peer):

        def refuse(data: bytes) -> bytes:
            one.session.closed = True
            return b"GOAWAY"

        one.session.answer = refuse
        await tls_write(peer, b"x" * 100_000)
        assert await tls_read(peer, 100) == b"GOAWAY"
        peer.close()
        await one.done.wait()
        assert one.session.eofs == 1


def test_limits_are_what_the_driver_was_given() -> None:
    """One per process, from the configuration."""

    async def main() -> None:
        limits = replace(LIMITS, output_octets_max=1)
        async with driven(limits) as driver:
            assert driver.limits.output_octets_max == 1
            before = driver.now
            assert driver.tick() >= before
            assert driver.clock() == driver.now

    trio.run(main)


@trio_test
async def test_the_driver_counts_connections_by_kind_as_they_begin_and_end() -> None:
    """Whoever made them: accepted or dialled."""
    counts: list[tuple[str, int]] = []
    ours, peer = socket_pair()
    async with trio.open_nursery() as nursery:
        driver = Driver(nursery, LIMITS, lambda kind, change: counts.append((kind, change)))
        connection = Connection(driver, ours, ScriptedSession(), kind="app_client")
        nursery.start_soon(connection.run)
        await settled(lambda: driver.connections)
        assert counts == [("app_client", 1)]
        peer.close()
        await settled(lambda: not driver.connections)
        assert counts == [("app_client", 1), ("app_client", -1)]
        nursery.cancel_scope.cancel()


@trio_test
async def test_a_session_that_ended_with_more_to_run_is_not_run_any_more() -> None:
    """While its last words wait for a peer that does not read, the loop must not spin."""
    async with running(small_buffers=True) as one:
        one.session.has_more = True
        one.say(b"x" * 3_000_000)
        one.peer.send(b"y")
        await settled(lambda: one.session.received == b"y" or one.connection.unsent)
        one.session.closed = True
        one.session.received.clear()
        rounds = 0

        def count() -> None:
            nonlocal rounds
            rounds += 1

        one.driver.reactor._before = count
        one.peer.send(b"z")
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert rounds < 10
