"""Connections to one upstream, over real sockets: dialled as needed, shared, retired; waiters served in order."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from sidecar.errors import ConnectFailed, RequestError, TooManyRequests
from sidecar.http.session import Session
from sidecar.net.connection import Connection, Driver
from sidecar.net.pool import Pool
from tests.sidecar.net.support import ScriptedSession, driven, settled, socket_pair
from tests.trio_support import trio_test


class Caller:
    """Who waits for a session, and at once opens a stream on it."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.session: ScriptedSession | None = None
        self.error: RequestError | None = None

    def connected(self, session: Session) -> None:
        assert self.session is None
        assert self.error is None
        assert isinstance(session, ScriptedSession)
        session.request([], True, None)  # type: ignore[arg-type]  # nobody listens
        self.session = session

    def unreachable(self, error: RequestError) -> None:
        assert self.session is None
        assert self.error is None
        self.error = error

    def finish(self) -> None:
        """The exchange ended."""
        assert self.session is not None
        self.session.end_stream()
        self.pool.freed()


class Upstream:
    """What is dialled: each dial waits until the test lets it go on."""

    def __init__(self, driver: Driver, streams_max: int) -> None:
        self.driver = driver
        self.streams_max = streams_max
        self.dials = 0
        self.dialling: list[trio.Event] = []
        self.failing = False
        self.sessions: list[ScriptedSession] = []
        self.peers: list[socket.socket] = []
        self.make_session: Callable[[], ScriptedSession] = lambda: ScriptedSession(streams_max=self.streams_max)

    async def dial(self) -> Connection:
        self.dials += 1
        gate = trio.Event()
        self.dialling.append(gate)
        await gate.wait()
        if self.failing:
            raise ConnectFailed("nothing listens there")
        ours, peer = socket_pair()
        session = self.make_session()
        connection = Connection(self.driver, ours, session, kind="app_client")
        self.driver.spawn(connection.run)
        self.sessions.append(session)
        self.peers.append(peer)
        return connection

    async def let_dials_finish(self) -> None:
        """All that were begun, and those that follow from them."""
        await trio.testing.wait_all_tasks_blocked()
        while self.dialling:
            for gate in self.dialling:
                gate.set()
            self.dialling.clear()
            await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def pooled(
    *, connections_max: int = 4, streams_per_connection: int = 1, waiting_max: int = 100
) -> AsyncIterator[tuple[Pool, Upstream]]:
    async with driven() as driver:
        upstream = Upstream(driver, streams_per_connection)
        pool = Pool(
            "127.0.0.1:8080",
            driver,
            upstream.dial,
            connections_max=connections_max,
            streams_per_connection=streams_per_connection,
            waiting_max=waiting_max,
        )
        yield pool, upstream
    for peer in upstream.peers:
        peer.close()


def callers(pool: Pool, count: int) -> list[Caller]:
    asked = [Caller(pool) for _ in range(count)]
    for caller in asked:
        pool.acquire(caller)
    return asked


@trio_test
async def test_the_first_caller_waits_for_a_dial_and_the_next_does_not() -> None:
    """A connection that is free is given away at once."""
    async with pooled() as (pool, upstream):
        (first,) = callers(pool, 1)
        assert upstream.sessions == []
        await upstream.let_dials_finish()
        assert first.session is not None
        first.finish()
        (second,) = callers(pool, 1)
        assert second.session is first.session
        assert upstream.dials == 1


@trio_test
async def test_as_many_connections_are_dialled_as_are_needed() -> None:
    """One for each caller of HTTP/1.1; one for all of HTTP/2 that fit."""
    async with pooled(streams_per_connection=1) as (pool, upstream):
        callers(pool, 3)
        await upstream.let_dials_finish()
        assert upstream.dials == 3
    async with pooled(streams_per_connection=10) as (pool, upstream):
        asked = callers(pool, 10)
        await upstream.let_dials_finish()
        assert upstream.dials == 1
        assert len({id(c.session) for c in asked}) == 1
        callers(pool, 1)
        await upstream.let_dials_finish()
        assert upstream.dials == 2


@trio_test
async def test_a_peer_that_allows_fewer_streams_gets_more_connections() -> None:
    """The pool knows only `can_open`, not what was hoped for."""
    async with pooled(streams_per_connection=10) as (pool, upstream):
        upstream.streams_max = 2
        asked = callers(pool, 5)
        await upstream.let_dials_finish()
        assert upstream.dials == 3
        assert all(c.session for c in asked)


@trio_test
async def test_never_more_connections_than_allowed_and_places_go_in_order() -> None:
    """Who waits gets the place of whoever ends; first come, first served."""
    async with pooled(connections_max=2) as (pool, upstream):
        asked = callers(pool, 5)
        await upstream.let_dials_finish()
        assert upstream.dials == 2
        assert [c.session is not None for c in asked] == [True, True, False, False, False]
        asked[1].finish()
        assert [c.session is not None for c in asked] == [True, True, True, False, False]
        assert asked[2].session is asked[1].session
        asked[0].finish()
        asked[2].finish()
        assert all(c.session for c in asked)
        assert upstream.dials == 2
        assert pool.load == 2


@trio_test
async def test_nobody_overtakes_those_who_wait() -> None:
    """A newcomer queues up although a place has just become free."""
    async with pooled(connections_max=1) as (pool, upstream):
        first, second = callers(pool, 2)
        await upstream.let_dials_finish()
        assert first.session is not None
        first.session.end_stream()
        (third,) = callers(pool, 1)
        assert third.session is None
        pool.freed()
        assert second.session is not None
        assert third.session is None


@trio_test
async def test_too_many_waiters_are_refused() -> None:
    """The queue has an end (row I14): 429, at once."""
    async with pooled(connections_max=1, waiting_max=2) as (pool, upstream):
        callers(pool, 2)
        with pytest.raises(TooManyRequests):
            pool.acquire(Caller(pool))
        await upstream.let_dials_finish()
        callers(pool, 1)
        with pytest.raises(TooManyRequests):
            pool.acquire(Caller(pool))


@trio_test
async def test_an_unreachable_upstream_fails_each_waiter_once() -> None:
    """And counts, so that another endpoint is chosen; the next caller tries again."""
    async with pooled() as (pool, upstream):
        upstream.failing = True
        asked = callers(pool, 2)
        await upstream.let_dials_finish()
        assert all(isinstance(c.error, ConnectFailed) for c in asked)
        assert pool.failures == 2
        assert pool.failed_at == upstream.driver.now
        assert pool.is_idle
        upstream.failing = False
        (again,) = callers(pool, 1)
        await upstream.let_dials_finish()
        assert again.session is not None
        assert pool.failures == 0


@trio_test
async def test_a_dial_that_fails_beside_a_live_connection_fails_nobody() -> None:
    """Who waits for a place still gets one."""
    async with pooled() as (pool, upstream):
        (first,) = callers(pool, 1)
        await upstream.let_dials_finish()
        upstream.failing = True
        (second,) = callers(pool, 1)
        await upstream.let_dials_finish()
        assert second.error is None
        first.finish()
        assert second.session is first.session


@trio_test
async def test_a_caller_that_fails_may_ask_again_at_once() -> None:
    """From inside `unreachable`, as a retry does."""

    class Stubborn(Caller):
        def unreachable(self, error: RequestError) -> None:
            upstream.failing = False
            self.pool.acquire(self)

    async with pooled() as (pool, upstream):
        upstream.failing = True
        stubborn = Stubborn(pool)
        pool.acquire(stubborn)
        await upstream.let_dials_finish()
        assert stubborn.session is not None


@trio_test
async def test_who_does_not_want_to_wait_any_longer_is_forgotten() -> None:
    """The connection that was dialled for it serves the next."""
    async with pooled() as (pool, upstream):
        (gone,) = callers(pool, 1)
        pool.forget(gone)
        pool.forget(gone)
        await upstream.let_dials_finish()
        assert gone.session is None
        assert gone.error is None
        (next_one,) = callers(pool, 1)
        assert next_one.session is not None
        assert upstream.dials == 1


@trio_test
async def test_retired_connections_finish_what_they_have_and_take_no_more() -> None:
    """A new certificate: idle ones close, busy ones drain, new requests get a new one."""
    async with pooled() as (pool, upstream):
        busy, idle = callers(pool, 2)
        await upstream.let_dials_finish()
        assert busy.session is not None
        idle.finish()
        pool.retire()
        upstream.driver.flush()
        assert pool.connections == []
        assert busy.session.draining
        assert not busy.session.closed
        assert idle.session is not None
        assert idle.session.closed
        (fresh,) = callers(pool, 1)
        await upstream.let_dials_finish()
        assert fresh.session not in (busy.session, idle.session)
        assert upstream.dials == 3


@trio_test
async def test_a_connection_that_is_lost_is_replaced_for_whoever_waits() -> None:
    """Its exchanges end, and that is when the queue is looked at."""
    async with pooled(connections_max=1) as (pool, upstream):
        first, second = callers(pool, 2)
        await upstream.let_dials_finish()
        lost = first.session
        assert lost is not None
        upstream.peers[0].close()
        await settled(lambda: lost.closed)
        first.finish()
        await upstream.let_dials_finish()
        assert second.session is not None
        assert second.session is not lost


@trio_test
async def test_a_pool_that_is_closed_fails_who_waits_and_dials_no_more() -> None:
    """The endpoint is no more: what is open finishes."""
    async with pooled(connections_max=1) as (pool, upstream):
        first, second = callers(pool, 2)
        await upstream.let_dials_finish()
        pool.close()
        assert isinstance(second.error, ConnectFailed)
        assert first.session is not None
        assert first.session.draining
        assert not first.session.closed
        first.finish()
        await upstream.let_dials_finish()
        assert upstream.dials == 1


@trio_test
async def test_an_upstream_that_says_goodbye_at_once_is_unreachable() -> None:
    """A sidecar that drains answers a dial with GOAWAY; dialling it again and again would be a busy loop."""
    async with pooled() as (pool, upstream):

        def draining() -> ScriptedSession:
            session = ScriptedSession()
            session.drain()
            return session

        upstream.make_session = draining
        (caller,) = callers(pool, 1)
        await upstream.let_dials_finish()
        assert isinstance(caller.error, ConnectFailed)
        assert upstream.dials == 1
        assert pool.failures == 1


@trio_test
async def test_the_connection_with_the_fewest_streams_is_chosen() -> None:
    """So that load spreads over those there are."""
    async with pooled(connections_max=2, streams_per_connection=2) as (pool, upstream):
        asked = callers(pool, 4)
        await upstream.let_dials_finish()
        one, two = upstream.sessions
        for caller in asked:
            if caller.session is two:
                caller.finish()
        assert (one.open_streams, two.open_streams) == (2, 0)
        callers(pool, 1)
        assert (one.open_streams, two.open_streams) == (2, 1)


@trio_test
async def test_repr_tells_what_there_is() -> None:
    """Tests and logs look at it."""
    async with pooled(connections_max=1) as (pool, upstream):
        callers(pool, 2)
        assert repr(pool) == "<Pool 127.0.0.1:8080, 0 connections, 1 dialling, 2 waiting>"
        await upstream.let_dials_finish()
        assert repr(pool) == "<Pool 127.0.0.1:8080, 1 connections, 0 dialling, 1 waiting>"
