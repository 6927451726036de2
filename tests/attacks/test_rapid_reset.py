"""Rapid reset over real sockets and TLS (security.md A01): one attacker at full speed beside one honest client."""

from __future__ import annotations

from itertools import count

import pytest
import trio
from h2.events import ConnectionTerminated, Event
from hpack import Encoder
from hyperframe.frame import HeadersFrame, RstStreamFrame
from prometheus_client.parser import text_string_to_metric_families

from certs.spiffe_id import SpiffeId
from sidecar.config import Limits
from sidecar.exchange import Exchange
from sidecar.http.budgets import PREMATURE_REFILL_S
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.http.session import ErrorCode
from sidecar.runtime import Call
from tests.attacks.support import ALLOW_ALL, App, Attacker, Target, attacker, request, settled, target
from tests.sidecar.mesh import TD
from tests.trio_support import trio_test

pytestmark = pytest.mark.parametrize("engine", HTTP2_ENGINES)

MALLORY = SpiffeId.for_workload(TD, "shop", "mallory")
BATCH = 100
"""Requests written at once: what fits into a record or two."""


async def reset_rapidly(peer: Attacker) -> int:
    """HEADERS and RST_STREAM, as fast as the socket takes them, until it takes no more. Returns how many."""
    encoder = Encoder()
    block = encoder.encode(request(b"/expensive"))
    streams = count(1, 2)
    sent = 0
    while True:
        batch = bytearray()
        for _ in range(BATCH):
            stream = next(streams)
            batch += HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
            batch += RstStreamFrame(stream, ErrorCode.CANCEL).serialize()
            block = encoder.encode(request(b"/expensive"))
        try:
            await peer.flush(bytes(batch))
        except trio.BrokenResourceError:
            return sent
        sent += BATCH


def is_goodbye(event: Event) -> bool:
    return isinstance(event, ConnectionTerminated)


def refused(it: Target, row: str, reason: str) -> float:
    """As the metrics tell it."""
    wanted = {"row": row, "reason": reason}
    return sum(
        sample.value
        for family in text_string_to_metric_families(it.metrics.export().decode())
        for sample in family.samples
        if sample.name == "hauberk_refused_total" and sample.labels == wanted
    )


def is_mallorys(call: object) -> bool:
    assert isinstance(call, Call)
    return call.source == str(MALLORY)


def assert_admitted_are_paid_for(it: Target, connections: int, elapsed_s: float) -> None:
    """Every request that was admitted left one record. Of those thrown away unanswered, `connections` that follow one
    another may have had what each begins with, the one that was too many, what time gave back, and one for each that
    was answered, which happens when a reset is in a later read than its request."""
    thrown_away = answered = 0
    for exchange, call in it.records:
        assert isinstance(exchange, Exchange)
        if is_mallorys(call):
            answered += exchange.status != 0
            thrown_away += exchange.status == 0
    maximum = it.config.limits.premature_resets_max
    assert thrown_away > connections
    assert thrown_away <= connections * (maximum + 1) + elapsed_s * maximum / PREMATURE_REFILL_S + answered


class Watch:
    """What the sidecar held at most while it was attacked."""

    def __init__(self, it: Target) -> None:
        self._it = it
        self.live = 0
        self.connections = 0

    def look(self) -> None:
        self.live = max(self.live, self._it.runtime.live_count)
        self.connections = max(self.connections, len(self._it.driver.connections))


@trio_test
async def test_a01_an_attacker_at_full_speed_is_gone_and_nobody_else_notices(engine: str) -> None:
    """Three times over: ENHANCE_YOUR_CALM for the attacker, 200 for everybody else, and nothing is left behind."""
    app = App()
    async with target(ALLOW_ALL, app=app, engine=engine) as it, attacker(it) as honest:
        watch, began = Watch(it), trio.current_time()
        assert (await honest.ask(request(b"/first"))).status == 200
        for _ in range(3):
            done = trio.Event()
            asked = 0

            async def attack(done: trio.Event) -> None:
                async with attacker(it, MALLORY) as mallory, trio.open_nursery() as nursery:
                    nursery.start_soon(reset_rapidly, mallory)
                    goodbye = await mallory.until(is_goodbye)
                    assert isinstance(goodbye, ConnectionTerminated)
                    assert goodbye.error_code == ErrorCode.ENHANCE_YOUR_CALM
                    nursery.cancel_scope.cancel()
                done.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(attack, done)
                while not done.is_set() or not asked:
                    answer = await honest.ask(request(b"/meanwhile"))
                    assert (answer.status, answer.body) == (200, b"ok")
                    asked += 1
                    watch.look()
        await settled(lambda: it.runtime.live_count == 0)
        await settled(lambda: [c.kind for c in it.driver.connections].count("mesh_server") == 1)
        limits = Limits()
        assert watch.live <= limits.streams_per_connection_max + 1
        assert watch.connections <= 2 + limits.app_connections_max
        assert_admitted_are_paid_for(it, connections=3, elapsed_s=trio.current_time() - began)
        assert app.received.count(b"GET /expensive") <= sum(is_mallorys(call) for _, call in it.records)
        await settled(lambda: refused(it, "A01", "flood") == 3)
        assert (await honest.ask(request(b"/after"))).status == 200


@trio_test
async def test_a01_an_attacker_that_comes_back_at_once_gets_no_further(engine: str) -> None:
    """Each new connection costs it a handshake, and buys it as little as the last."""
    app = App()
    async with target(ALLOW_ALL, app=app, engine=engine) as it, attacker(it) as honest:
        began = trio.current_time()
        for _ in range(5):
            async with attacker(it, MALLORY) as mallory, trio.open_nursery() as nursery:
                nursery.start_soon(reset_rapidly, mallory)
                assert await mallory.until(is_goodbye) is not None
                nursery.cancel_scope.cancel()
            assert (await honest.ask(request(b"/meanwhile"))).status == 200
        await settled(lambda: it.runtime.live_count == 0)
        assert_admitted_are_paid_for(it, connections=5, elapsed_s=trio.current_time() - began)
        await settled(lambda: refused(it, "A01", "flood") == 5)
