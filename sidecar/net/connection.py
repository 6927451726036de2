"""Sockets and the sessions on them: the pump that turns received bytes into calls and queued bytes into sends.

Theory of operation
-------------------
A request costs no task. When sockets are readable (`reactor`), each is read once and what it had is run through its
session, and through the exchanges behind it, synchronously; then every session that was touched on the way is flushed,
whichever connection it belongs to. Flushing is a direct non-blocking `send`; only if the kernel takes less than
everything does a writer task exist, for as long as something is left. A connection's own task only sees to its
beginning and its end.

The `Driver` knows which connection a session lives on, keeps the set of touched sessions, and holds the clock of the
round being worked on, so that a round asks the operating system for the time once.

Sockets are plain `socket.socket` or `ssl.SSLSocket` in non-blocking mode. One read takes at most a slice (row A39); of
a TLS socket it takes one record, and if OpenSSL holds more than it gave, the reactor is told.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable

import trio

from certs.bundle import TrustBundle
from certs.svid import X509Svid
from sidecar.config import Limits
from sidecar.errors import PeerFlood
from sidecar.http.session import Session
from sidecar.net import ends
from sidecar.net.reactor import Reactor
from sidecar.net.tls import PeerCertificate
from sidecar.net.tls_messages import is_flooded

log = logging.getLogger(__name__)

SLICE_OCTETS = 65_536
SLICE_FRAMES = 128
"""Enough for what a busy peer sends at once; a flood of tiny frames would else hold everybody up for 20 ms."""
RECORD_OCTETS = 16_384
"""The most a TLS record holds (RFC 8446 section 5.1)."""
CONTROL_OCTETS_MAX = 1_048_576
"""Queued beyond the output limit: frames nobody reads the answers to (rows A07, A09)."""
LINGER_S = 1.0
LINGER_OCTETS = 1_048_576


class Driver:
    """What the connections of one process share. One per process; holds no policy and no routes."""

    def __init__(
        self, nursery: trio.Nursery, limits: Limits, count: Callable[[str, int], None] = lambda kind, change: None
    ) -> None:
        """`count` is told of every connection: its kind, and +1 when it begins or -1 when it ends."""
        self.limits = limits
        self.touched: set[Session] = set()
        self.now = time.monotonic()
        """Monotonic seconds at the start of this slice."""
        self._nursery = nursery
        self._count = count
        self._by_session: dict[Session, Connection] = {}
        self.reactor = Reactor(self._begin_round, self.flush)
        nursery.start_soon(self.reactor.run)

    def _begin_round(self) -> None:
        self.now = time.monotonic()

    def clock(self) -> float:
        return self.now

    def tick(self) -> float:
        self.now = time.monotonic()
        return self.now

    def spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task of its own. What goes wrong in it ends it, and nothing else."""
        self._nursery.start_soon(_guard, task, args)

    def flush(self) -> None:
        """Send what every touched session has to say; sending may wake others, so until there is none left."""
        touched, by_session = self.touched, self._by_session
        while touched:
            connection = by_session.get(touched.pop())
            if connection is not None:
                try:
                    connection.flush()
                except Exception:  # a bug, and nobody else's connection may end with it
                    log.exception("unexpected error on a connection")
                    connection.close()

    @property
    def connections(self) -> list[Connection]:
        return list(self._by_session.values())

    def add(self, connection: Connection) -> None:
        self._by_session[connection.session] = connection
        self._count(connection.kind, 1)

    def remove(self, connection: Connection) -> None:
        if self._by_session.pop(connection.session, None) is not None:
            self._count(connection.kind, -1)


async def _guard(task: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
    try:
        await task(*args)
    except Exception:
        log.exception("unexpected error in a task of the data plane")


class Connection:
    """One socket with one session on it."""

    def __init__(
        self, driver: Driver, sock: socket.socket, session: Session, *, kind: str, peer: PeerCertificate | None = None
    ) -> None:
        self.session = session
        self.kind = kind
        """"mesh_server", "mesh_client", "app_server", "app_client", "workload_api", for metrics and timeouts."""
        self.peer = peer
        self.own: X509Svid | None = None
        """What the peer was shown."""
        self.verified_under: TrustBundle | None = None
        """What the peer's chain was verified with last."""
        self.expires_at: float | None = None
        """Monotonic time at which the connection must be gone: a certificate ends (row F15)."""
        self.close_at: float | None = None
        """Monotonic time at which the socket is closed, whether or not the peer has read our goodbye."""
        self.retire_at: float | None = None
        """Monotonic time from which the connection takes no new streams."""
        self.idle_s: float | None = None
        """How long it may be unused, if not the configured time."""
        self.acks_at_once = False
        """Do not delay TCP acknowledgements: for HTTP/1.1 apps that write head and body apart with Nagle's algorithm
        on (Python's http.server is one), which costs 40 ms an answer on every reused connection."""
        self.opened = self.activity = self.sent_at = driver.now
        """`sent_at`: when the kernel last took something of what waited, or it began to wait."""
        self.since: dict[str, float] = {}
        """The sweep's notes: a state -> when it was first seen to last."""
        self._driver = driver
        self._sock = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._pending = bytearray()
        self._writing = False
        self._peer_done = False
        self._broken = False
        self._over = False
        """The last byte was sent; only the peer's end of the connection is awaited."""
        self._fd = sock.fileno()
        self._is_watched = False
        self._read_all = trio.Event()
        """Nothing more is read: the peer or the session is done, or the connection is broken."""
        self._spoken = trio.Event()
        self._has_spoken = False
        self._scope = trio.CancelScope()
        session.resume_reading = self._resume_reading
        session.slice_frames = SLICE_FRAMES

    def __repr__(self) -> str:
        return f"<Connection {self.kind} {self.session!r}, {len(self._pending)} octets pending>"

    async def run(self, first: bytes = b"") -> None:
        """Serve the connection until it ends. `first`: bytes already read from the socket."""
        driver, session = self._driver, self.session
        driver.add(self)
        try:
            with self._scope:
                driver.tick()
                driver.touched.add(session)
                if first:
                    session.receive(first)
                driver.flush()
                self._watch()
                # What came with the end of the handshake is in OpenSSL, where the kernel does not see it.
                if self._is_tls or session.has_more:
                    driver.reactor.again(self._fd)
                await self._read_all.wait()
            self._unwatch()
            await self._linger()
        finally:
            self._unwatch()
            driver.remove(self)
            self._spoken.set()
            if is_flooded(self._sock):
                session.fault = PeerFlood("TLS messages besides data", row="F24")
            session.eof()
            driver.flush()
            self._close()

    @property
    def unsent(self) -> int:
        """Octets the kernel has not taken."""
        return len(self._pending)

    @property
    def remote(self) -> str:
        """Address of the other end, for the log."""
        return ends.remote(self._sock)

    async def wait_spoken(self) -> None:
        """Until the peer's first bytes. Raises ConnectionResetError if it leaves without a word."""
        await self._spoken.wait()
        if not self._has_spoken:
            raise ConnectionResetError("the peer closed the connection without a word")

    def close(self) -> None:
        """End it from outside; what is not sent is lost."""
        self._break(None)

    # Reading

    def _watch(self) -> None:
        if not self._is_watched and not self._broken and not self._peer_done:
            self._is_watched = True
            self._driver.reactor.add(self._fd, self._readable)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._driver.reactor.remove(self._fd)

    def _readable(self) -> None:
        """The reactor calls: read once, run a slice of what came. A bug that shows here ends no other connection."""
        session = self.session
        if not session.wants_read:
            self._unwatch()
            return
        try:
            if session.has_more and not session.closed:
                session.receive(b"")
                self._driver.touched.add(session)
            elif data := self._receive():
                self.activity = self._driver.now
                if not self._has_spoken:
                    self._has_spoken = True
                    self._spoken.set()
                session.receive(data)
                self._driver.touched.add(session)
                if self.acks_at_once and session.open_streams:  # the rest of an answer is awaited
                    self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # the kernel forgets it
            if session.has_more and not session.closed:
                self._driver.reactor.again(self._fd)
        except Exception:
            log.exception("unexpected error on a connection")
            self._break(None)
        if self._peer_done or self._broken:
            self._unwatch()
            self._read_all.set()

    def _receive(self) -> bytes:
        """What the socket has now, up to a slice; b"" if nothing, or if that was all (`_peer_done`, `_broken`)."""
        sock = self._sock
        try:
            if not self._is_tls:
                data = sock.recv(SLICE_OCTETS)
            else:
                data = sock.recv(RECORD_OCTETS)
                if len(data) == RECORD_OCTETS:  # a full record is a piece of something large
                    return self._receive_more(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except OSError as e:  # ssl.SSLError is one
            self._break(e)
            return b""
        if not data:
            self._peer_done = True
        return data

    def _receive_more(self, record: bytes) -> bytes:
        """The records that follow a full one, up to a slice. What ends the connection shows at the next read."""
        records = [record]
        try:
            while len(records) * RECORD_OCTETS < SLICE_OCTETS and len(record) == RECORD_OCTETS:
                record = self._sock.recv(RECORD_OCTETS)
                records.append(record)
        except OSError:  # SSLWantReadError is one
            pass
        return b"".join(records)

    def _resume_reading(self) -> None:
        if not self._read_all.is_set():
            self._watch()
            if self._is_tls:
                self._driver.reactor.again(self._fd)

    # Writing

    def flush(self) -> None:
        """Send what the session has queued, as far as the kernel takes it."""
        if self._broken:
            return
        data = self.session.take()
        if data:
            if self._pending:
                self._pending += data
                if len(self._pending) > self._driver.limits.output_octets_max + CONTROL_OCTETS_MAX:
                    self._break(None)
            else:
                sent = self._send(data)
                if sent < len(data):
                    self._pending += memoryview(data)[sent:]
                    self.sent_at = self._driver.now
                    self._start_writer()
            self.session.sent(len(self._pending))
        if self.session.closed and not self._pending and not self._over:
            self._over = True
            self._shut_down_writing()
            self._scope.cancel()  # the reader may be waiting for bytes that no longer matter

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        """Octets taken. TLS takes one record at a time, a plain socket all that it will."""
        sent = 0
        try:
            sent = self._sock.send(data)
            if self._is_tls and sent < len(data):
                with memoryview(data) as view:
                    while sent < len(view):
                        sent += self._sock.send(view[sent : sent + RECORD_OCTETS])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as e:
            self._break(e)
            return len(data)
        return sent

    def _start_writer(self) -> None:
        if not self._writing:
            self._writing = True
            self._driver.spawn(self._write)

    async def _write(self) -> None:
        """Lives while the kernel has not taken everything."""
        try:
            while self._pending and not self._broken:
                await trio.lowlevel.wait_writable(self._sock)
                self._driver.tick()
                with memoryview(self._pending) as view:
                    sent = self._send(view)
                del self._pending[:sent]
                if sent:
                    self.activity = self.sent_at = self._driver.now
                    self.session.sent(len(self._pending))
                    self._driver.touched.add(self.session)
                    self._driver.flush()
        except trio.ClosedResourceError:
            pass
        finally:
            self._writing = False

    # The end

    def _shut_down_writing(self) -> None:
        try:
            if isinstance(self._sock, ssl.SSLSocket):
                try:
                    self._sock.unwrap()
                except (ssl.SSLError, OSError, ValueError):
                    pass
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    async def _linger(self) -> None:
        """Closing while the peer still sends would destroy our last words with a TCP reset: read on for a moment."""
        if self._peer_done or self._broken:
            return
        taken = 0
        with trio.move_on_after(LINGER_S):
            while taken < LINGER_OCTETS:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    data = self._sock.recv(SLICE_OCTETS)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except OSError:
                    return
                if not data:
                    return
                taken += len(data)

    def _break(self, error: OSError | None) -> None:
        if not self._broken:
            self._broken = True
            self._pending = bytearray()  # not clear(): the writer may be looking at the old one
            log.debug("connection broke off", extra={"kind": self.kind, "error": str(error)})
            self._scope.cancel()

    def _close(self) -> None:
        self._broken = True
        self._pending = bytearray()
        try:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        except OSError:
            pass
