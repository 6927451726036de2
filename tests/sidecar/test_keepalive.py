"""Mesh connections whose other end is silent: asked with PING, believed if they answer, ended if they do not.

The tests say what time it is and sweep themselves; nobody waits for it to pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from sidecar.config import Address, Timeouts
from sidecar.net.connection import Connection
from tests.sidecar.net.support import settled
from tests.sidecar.support import ORDERS_NAME, App, AppRequest, Pair, Side, calling, serving, two_sides
from tests.trio_support import trio_test

TIMEOUTS = Timeouts(keepalive_s=30, keepalive_timeout_s=10, connection_idle_s=300)


class Path:
    """What lies between two sidecars. `swallow`: what is sent on the connections of now arrives nowhere any more."""

    def __init__(self, destination: Address) -> None:
        self.destination = destination
        self.address = destination
        self.connections = 0
        self._lost = 0

    def swallow(self) -> None:
        self._lost = self.connections

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = Address(*listener.socket.getsockname()[:2])
        task_status.started()
        await trio.serve_listeners(self._carry, [listener])

    async def _carry(self, near: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        far = await trio.open_tcp_stream(self.destination.host, self.destination.port)
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(self._one_way, number, near, far)
            await self._one_way(number, far, near)
            nursery.cancel_scope.cancel()

    async def _one_way(self, number: int, source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some(65_536):
                if number > self._lost:
                    await target.send_all(data)
        except trio.BrokenResourceError:
            pass
        if number <= self._lost:  # not even the end of the connection is told
            await trio.sleep_forever()


@asynccontextmanager
async def over_a_path(app: App) -> AsyncIterator[tuple[Pair, Path]]:
    async with serving(app) as address, two_sides(address, timeouts=TIMEOUTS) as pair, trio.open_nursery() as nursery:
        path = Path(_address(pair.orders))
        await nursery.start(path.run)
        pair.web.apply(services={ORDERS_NAME: [pair.orders.endpoint(address=path.address)]})
        yield pair, path
        nursery.cancel_scope.cancel()


def _address(side: Side) -> Address:
    host, _, port = side.endpoint().address.rpartition(":")
    return Address(host, int(port))


def mesh_connections(side: Side, kind: str) -> list[Connection]:
    return [one for one in side.driver.connections if one.kind == kind]


def sweep(side: Side, now: float) -> None:
    """As the data plane does it, at that time."""
    for connection in side.driver.connections:
        side.plane._aging.look_at(connection, now)
    side.driver.flush()


def is_asked(connection: Connection) -> bool:
    return connection.session.awaits_pong


class Held(App):
    """Answers /held when told to, everything else at once."""

    def __init__(self) -> None:
        super().__init__()
        self.released = trio.Event()

    async def serve_one(self, request: AppRequest) -> None:
        if request.target == b"/held":
            await self.released.wait()
        await super().serve_one(request)


@trio_test
async def test_a_stream_to_a_black_hole_ends_with_an_error_and_the_pool_dials_anew() -> None:
    """No FIN, no RST, no answer: whoever waits is told, and the next request goes over a new connection."""
    app = Held()
    async with over_a_path(app) as (pair, path), calling(pair.web.app_address) as caller:
        await caller.ask("/held")
        await settled(lambda: app.requests)
        path.swallow()
        now = pair.web.driver.tick()
        sweep(pair.web, now + 29)
        (connection,) = mesh_connections(pair.web, "mesh_client")
        assert not is_asked(connection)
        sweep(pair.web, now + 31)
        sweep(pair.web, now + 39)
        assert is_asked(connection)
        assert pair.web.runtime.live_count == 1
        sweep(pair.web, now + 41)
        assert (await caller.head()).status_code == 502
        async with calling(pair.web.app_address) as other:
            await other.ask("/next")
            assert (await other.head()).status_code == 200
            assert await other.rest() == b"/next"
        assert path.connections == 2
        assert connection not in pair.web.driver.connections
        app.released.set()
        await settled(lambda: not pair.orders.runtime.live_count)


@trio_test
async def test_a_caller_that_vanished_without_a_word_is_given_up() -> None:
    """The serving end asks while streams are open, and gives back what they hold."""
    app = Held()
    async with over_a_path(app) as (pair, path), calling(pair.web.app_address) as caller:
        await caller.ask("/held")
        await settled(lambda: app.requests)
        path.swallow()
        now = pair.orders.driver.tick()
        sweep(pair.orders, now + 31)
        assert pair.orders.runtime.live_count == 1
        sweep(pair.orders, now + 41)
        await settled(lambda: not mesh_connections(pair.orders, "mesh_server"))
        assert pair.orders.runtime.live_count == 0
        app.released.set()


@trio_test
async def test_a_pooled_connection_into_a_black_hole_is_gone_before_a_request_meets_it() -> None:
    """Its client asks although nobody uses it; its server need not."""
    async with over_a_path(App()) as (pair, path), calling(pair.web.app_address) as caller:
        await caller.ask("/a")
        assert (await caller.head()).status_code == 200
        await caller.rest()
        path.swallow()
        now = pair.web.driver.tick()
        sweep(pair.orders, now + 31)
        (serving_end,) = mesh_connections(pair.orders, "mesh_server")
        assert not is_asked(serving_end)
        sweep(pair.web, now + 31)
        sweep(pair.web, now + 41)
        await settled(lambda: not mesh_connections(pair.web, "mesh_client"))
        caller.next_request()
        await caller.ask("/b")
        assert (await caller.head()).status_code == 200
        assert path.connections == 2


@trio_test
async def test_a_slow_answer_over_a_connection_that_lives_is_waited_for() -> None:
    """The other sidecar answers every PING, however long its app thinks."""
    app = Held()
    async with over_a_path(app) as (pair, path), calling(pair.web.app_address) as caller:
        await caller.ask("/held")
        await settled(lambda: app.requests)
        (connection,) = mesh_connections(pair.web, "mesh_client")
        now = pair.web.driver.tick()
        for minutes in range(1, 4):
            sweep(pair.web, now + 60 * minutes)
            assert is_asked(connection)
            await settled(lambda: not connection.session.awaits_pong)
        app.released.set()
        assert (await caller.head()).status_code == 200
        assert path.connections == 1


@trio_test
async def test_answers_to_our_own_questions_do_not_keep_an_unused_connection() -> None:
    """PING every so often, for ever, on a connection that nobody uses would be a leak."""
    async with over_a_path(App()) as (pair, _), calling(pair.web.app_address) as caller:
        await caller.ask("/a")
        assert (await caller.head()).status_code == 200
        await caller.rest()
        (connection,) = mesh_connections(pair.web, "mesh_client")
        now = pair.web.driver.tick()
        for asked_s in range(31, 300, 31):
            sweep(pair.web, now + asked_s)
            assert is_asked(connection)
            await settled(lambda: not connection.session.awaits_pong)
            connection.activity = now + asked_s  # when the answer came, by the clock of this test
            sweep(pair.web, now + asked_s + 0.25)
        sweep(pair.web, now + 301)
        await settled(lambda: not mesh_connections(pair.web, "mesh_client"))


@trio_test
@pytest.mark.parametrize("kind", ["app_server", "app_client"])
async def test_apps_are_not_asked(kind: str) -> None:
    """They are on the same machine, where a connection that is gone is known to be gone."""
    app = Held()
    async with over_a_path(app) as (pair, _), calling(pair.web.app_address) as caller:
        await caller.ask("/held")
        await settled(lambda: app.requests)
        side = pair.web if kind == "app_server" else pair.orders
        (connection,) = mesh_connections(side, kind)
        assert not side.plane._aging._is_due_for_ping(connection, side.driver.now + 1_000)
        app.released.set()
        assert (await caller.head()).status_code == 200
