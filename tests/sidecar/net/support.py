"""Real sockets for the tests of `sidecar.net`: a driver, connected pairs, and sessions that do what they are told."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from sidecar.config import Limits
from sidecar.errors import RequestError
from sidecar.http.session import Fields, StreamSink
from sidecar.net.connection import Connection, Driver

LIMITS = Limits()


class ScriptedSession:
    """A session whose output the test queues; it keeps what it receives.

    `answer` turns what was received into what is said."""

    def __init__(self, *, streams_max: int = 1) -> None:
        self.closed = False
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.awaits_rest = False
        self.slice_frames = 0
        self.has_more = False
        self.fault: RequestError | None = None
        self.awaits_pong = False
        self.is_draining = False
        self.open_streams = 0
        self.received = bytearray()
        self.queued = bytearray()
        self.unsent = 0
        self.unsent_max = 0
        self.eofs = 0
        self.answer: Callable[[bytes], bytes] = lambda data: b""
        self.on_sent: Callable[[], None] = lambda: None
        self.on_receive: Callable[[], None] = lambda: None
        self._streams_max = streams_max

    def receive(self, data: bytes) -> None:
        self.received += data
        self.queued += self.answer(data)
        self.on_receive()

    def eof(self) -> None:
        self.eofs += 1
        self.closed = True

    def take(self) -> bytes:
        out, self.queued = bytes(self.queued), bytearray()
        return out

    def sent(self, unsent: int) -> None:
        self.unsent = unsent
        self.unsent_max = max(self.unsent_max, unsent)
        self.on_sent()

    @property
    def draining(self) -> bool:
        return self.is_draining or self.closed

    @property
    def can_open(self) -> bool:
        return not self.closed and not self.draining and self.open_streams < self._streams_max

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        assert self.can_open
        self.open_streams += 1
        return self.open_streams

    def end_stream(self) -> None:
        self.open_streams -= 1

    def drain(self) -> None:
        self.is_draining = True
        self.closed = self.closed or not self.open_streams

    def shutdown(self, code: int) -> None:
        self.closed = True

    def ping(self) -> None: ...
    def informational(self, stream: int, fields: Fields) -> None: ...
    def head(self, stream: int, fields: Fields, end: bool) -> None: ...
    def data(self, stream: int, data: bytes, end: bool) -> None: ...
    def trailers(self, stream: int, fields: Fields) -> None: ...
    def reset(self, stream: int, code: int) -> None: ...
    def want_write(self, stream: int) -> None: ...
    def consumed(self, stream: int, flow: int) -> None: ...
    def credit(self, stream: int) -> int:
        return 0


@asynccontextmanager
async def driven(limits: Limits = LIMITS) -> AsyncIterator[Driver]:
    """A driver with its nursery; what still runs at the end is cancelled."""
    async with trio.open_nursery() as nursery:
        yield Driver(nursery, limits)
        nursery.cancel_scope.cancel()


def socket_pair(*, small_buffers: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking TCP sockets: ours, and the peer's."""
    with socket.socket() as listener:
        if small_buffers:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = socket.socket()
        if small_buffers:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        ours.connect(listener.getsockname())
        peer, _ = listener.accept()
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


def reset_by_peer(peer: socket.socket) -> None:
    """Close with a TCP reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


async def read_some(peer: socket.socket, size: int = 65_536) -> bytes:
    """What arrives next; empty at the end."""
    while True:
        await trio.lowlevel.wait_readable(peer)
        try:
            return peer.recv(size)
        except BlockingIOError:
            continue


async def read_all(peer: socket.socket) -> bytes:
    """Until the end of the stream."""
    chunks = []
    while chunk := await read_some(peer):
        chunks.append(chunk)
    return b"".join(chunks)


async def read_exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await read_some(peer, size - len(data))
        assert chunk, f"the peer ended after {len(data)} of {size} octets"
        data += chunk
    return data


async def settled(condition: Callable[[], object]) -> None:
    """Until `condition` holds: other tasks run in between, no time is measured."""
    while not condition():
        await trio.lowlevel.checkpoint()


async def run_connection(connection: Connection, done: trio.Event) -> None:
    """As a task: `done` is set when the connection has ended."""
    try:
        await connection.run()
    finally:
        done.set()
