"""Connections to one upstream, shared by the exchanges that need it. Decide synchronously, dial in the background.

`acquire` hands out a session that has room for one more stream, or parks the caller and sees to it that enough
connections are being dialled. What a parked caller gets is decided in one place, `_serve`, whenever something changed:
a connection is ready, a stream has ended, a dial has failed.

An HTTP/2 session carries many streams, an HTTP/1.1 session one at a time; the pool does not know which it has, only
`Session.can_open`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from sidecar.errors import ConnectFailed, RequestError, TooManyRequests
from sidecar.http.session import Session
from sidecar.net.connection import Connection, Driver


class Waiter(Protocol):
    """Who waits for a session. One of the two is called, once."""

    def connected(self, session: Session) -> None: ...
    def unreachable(self, error: RequestError) -> None: ...


class Pool:
    """See the module's docstring. `dial` opens one connection, ready to use, or raises ConnectFailed."""

    def __init__(
        self,
        name: str,
        driver: Driver,
        dial: Callable[[], Awaitable[Connection]],
        *,
        connections_max: int,
        streams_per_connection: int,
        waiting_max: int,
    ) -> None:
        self.name = name
        self.failures = 0
        """Dials that failed since the last that did not."""
        self.failed_at = 0.0
        """When the last of them did; monotonic seconds."""
        self._driver = driver
        self._dial = dial
        self._connections_max = connections_max
        self._streams_per_connection = streams_per_connection
        self._waiting_max = waiting_max
        self._connections: list[Connection] = []
        self._dialling = 0
        self._waiting: deque[Waiter] = deque()
        self._closed = False
        self._hopeful: dict[Session, None] = {}
        """Where a stream ended, the latest last: there is probably room. Asked before all connections are gone through,
        so that a request costs the same however many there are."""

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name}, {len(self._connections)} connections, {self._dialling} dialling, "
            f"{len(self._waiting)} waiting>"
        )

    @property
    def load(self) -> int:
        """Streams open and callers waiting: what balancing compares."""
        load = len(self._waiting)
        for connection in self._connections:
            load += connection.session.open_streams
        return load

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections)

    @property
    def is_idle(self) -> bool:
        return not self._connections and not self._dialling and not self._waiting

    def acquire(self, waiter: Waiter) -> None:
        """Calls `waiter.connected` at once if there is room, else later. Raises TooManyRequests."""
        session = None if self._waiting else self._ready()
        if session is not None:
            waiter.connected(session)
            return
        if len(self._waiting) >= self._waiting_max:
            raise TooManyRequests(f"{len(self._waiting)} requests wait for a connection to {self.name}")
        self._waiting.append(waiter)
        self._dial_as_needed()

    def forget(self, waiter: Waiter) -> None:
        """The waiter does not want to wait any longer."""
        if not self._waiting:
            return
        try:
            self._waiting.remove(waiter)
        except ValueError:
            pass

    def retire(self) -> None:
        """Take no new streams on the connections there are; they end when their streams have (a new certificate)."""
        for connection in self._connections:
            connection.session.drain()
            self._driver.touched.add(connection.session)
        self._connections.clear()
        self._hopeful.clear()

    def close(self) -> None:
        """The upstream is no more: let what is open finish, fail who waits."""
        self._closed = True
        self.retire()
        self._fail_all(ConnectFailed(f"{self.name} is gone"))

    def freed(self, session: Session | None = None) -> None:
        """A stream ended (of `session`, if it came so far): somebody may have waited for its place. Called now and
        then, too: nobody tells when a peer has read what kept its connection from taking more (`HEADS_OCTETS_MAX`)."""
        if session is not None and not session.closed:
            self._hopeful[session] = None
        if self._waiting:
            self._serve()

    def _ready(self) -> Session | None:
        """The connection used last that has room, or the one with the fewest streams.

        Few connections that carry much cost less than many that carry little, and those not needed can close."""
        hopeful = self._hopeful
        while hopeful:
            session = next(reversed(hopeful))
            if session.can_open and not session.draining:
                return session
            del hopeful[session]
        return self._least_busy()

    def _least_busy(self) -> Session | None:
        """Of all. Those that will open no more are forgotten on the way."""
        best: Session | None = None
        for connection in list(self._connections):
            session = connection.session
            if session.draining:
                self._connections.remove(connection)
            elif session.can_open and (best is None or session.open_streams < best.open_streams):
                best = session
        return best

    def _serve(self) -> None:
        while self._waiting:
            session = self._ready()
            if session is None:
                break
            self._waiting.popleft().connected(session)
            self._driver.touched.add(session)
        self._dial_as_needed()

    def _dial_as_needed(self) -> None:
        while (
            self._waiting
            and not self._closed
            and self._dialling * self._streams_per_connection < len(self._waiting)
            and self._dialling + len(self._connections) < self._connections_max
        ):
            self._dialling += 1
            self._driver.spawn(self._dial_one)

    async def _dial_one(self) -> None:
        try:
            connection = await self._dial()
            if connection.session.draining:  # dialling on would go in circles
                raise ConnectFailed(f"{self.name} takes no requests")
        except ConnectFailed as e:
            self._dialling -= 1
            self.failures += 1
            self.failed_at = self._driver.tick()
            self._least_busy()  # forgets connections that are over
            if not self._dialling and not self._connections:
                self._fail_all(e)
        else:
            self._dialling -= 1
            self.failures = 0
            self._connections.append(connection)
            self._serve()
        self._driver.flush()

    def _fail_all(self, error: RequestError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.unreachable(error)
