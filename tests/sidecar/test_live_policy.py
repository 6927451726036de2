"""A new snapshot in the middle of traffic (row H15): a decision is of one snapshot, what is open is judged again."""

from __future__ import annotations

import h11
import trio

from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, When
from tests.sidecar.mesh import WEB
from tests.sidecar.support import App, AppRequest, Pair, allow, calling, deny, serving, two_sides
from tests.trio_support import trio_test

CALLERS_COUNT = 4
PUSHES_COUNT = 40


def deny_role(role: str) -> AuthorizationPolicy:
    when = When(key="request.headers[x-role]", values=(role,))
    return AuthorizationPolicy(namespace="shop", name="roles", action=Action.DENY, rules=(Rule(when=(when,)),))


class Echo(App):
    """Answers when the whole body is there."""

    async def serve_one(self, request: AppRequest) -> None:
        await request.answer(await request.body())


async def asking(pair: Pair, is_over: trio.Event, statuses: list[int]) -> None:
    """One caller after the other, each with one request, until it is over."""
    while not is_over.is_set():
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/x")
            try:
                statuses.append((await caller.head()).status_code)
                await caller.rest()
            except h11.RemoteProtocolError:
                statuses.append(0)  # its right was lost while the answer was on its way


@trio_test
async def test_h15_every_decision_is_of_one_snapshot() -> None:
    """Pushes in turn allow and forbid under full traffic: each record's verdict is the one of the version it names."""
    is_over, statuses = trio.Event(), list[int]()
    async with serving(App()) as app, two_sides(app) as pair:
        first = pair.orders.version
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS_COUNT):
                nursery.start_soon(asking, pair, is_over, statuses)
            for number in range(1, PUSHES_COUNT + 1):
                seen = len(statuses)
                while len(statuses) < seen + 3:
                    await trio.lowlevel.checkpoint()
                pair.orders.apply(policies=(allow(WEB),) if number % 2 == 0 else ())
            is_over.set()
        for _, call in pair.orders.records:
            is_open = (call.version - first) % 2 == 0
            assert (call.denied is None) is is_open
            verdict = call.denied or call.permit
            assert verdict is not None
            assert verdict.version >= call.version
            assert (verdict.version - first) % 2 == (0 if is_open else 1)
        assert {200, 403} <= set(statuses)
        assert len({call.version for _, call in pair.orders.records}) > PUSHES_COUNT / 2


@trio_test
async def test_h15_a_request_is_decided_once_when_its_head_is_there() -> None:
    """Its body changes nothing; the next snapshot judges the same head again, header and all."""
    async with (
        serving(Echo()) as app,
        two_sides(app) as pair,
        calling(pair.web.app_address) as lost,
        calling(pair.web.app_address) as kept,
    ):
        for caller, role in ((lost, "guest"), (kept, "admin")):
            await caller.ask("/upload", method="POST", fields=[("content-length", "6"), ("x-role", role)])
            await caller.send(b"abc")
        while pair.orders.runtime.live_count < 2:
            await trio.lowlevel.checkpoint()
        decided = pair.orders.version
        pair.orders.apply(policies=(allow(WEB), deny("/other")))
        assert pair.orders.runtime.live_count == 2
        pair.orders.apply(policies=(allow(WEB), deny_role("guest")))
        assert (await lost.head()).status_code == 403
        await kept.send(b"def")
        await kept.end()
        assert (await kept.head()).status_code == 200
        assert await kept.rest() == b"abcdef"
        (_, refused), (_, done) = pair.orders.records
        assert refused.denied is not None
        assert (refused.denied.rule, refused.version) == ("shop/roles#0", decided + 2)
        assert done.permit is not None
        assert (done.version, done.permit.version) == (decided, decided + 2)
