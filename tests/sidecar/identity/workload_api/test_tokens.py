"""JWT-SVIDs are kept for half of their life, asked for once by however many want them, and few at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import trio

from protos.hauberk.v1 import identity_pb2
from sidecar.control.errors import RpcError
from sidecar.errors import GRPC_INVALID_ARGUMENT, GRPC_PERMISSION_DENIED, GRPC_UNAVAILABLE
from sidecar.identity.workload_api.tokens import (
    CALLS_MAX,
    ISSUE_TIMEOUT_S,
    KEPT_MAX,
    RECONNECTED_S,
    WAITING_MAX,
    Tokens,
)
from tests.trio_support import trio_test

OWN = "spiffe://mesh.local/ns/shop/sa/web"
LIFE_S = 100.0


class ControlPlane:
    """Issues tokens that are numbered; `gate` holds its answers back."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.asked: list[tuple[str, ...]] = []
        self.busy = self.busiest = 0
        self.gate = trio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.spiffe_id = OWN
        self.life_s = LIFE_S

    def clock(self) -> float:
        return self.now

    async def issue(self, audiences: Sequence[str]) -> identity_pb2.JwtSvidResponse:
        self.asked.append(tuple(audiences))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self.gate.wait()
        finally:
            self.busy -= 1
        if self.error is not None:
            raise self.error
        return identity_pb2.JwtSvidResponse(
            token=f"token {len(self.asked)}",
            spiffe_id=self.spiffe_id,
            issued_at=self.now,
            expires_at=self.now + self.life_s,
        )


@trio_test(autojump=True)
async def test_a_token_is_kept_for_half_of_its_life() -> None:
    """For the same audiences; others are asked for."""
    control_plane = ControlPlane()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    first = await tokens.get(("a",), OWN)
    control_plane.now += LIFE_S / 2 - 1
    assert (await tokens.get(("a",), OWN)).token == first.token
    assert (await tokens.get(("a", "b"), OWN)).token != first.token
    control_plane.now += 1
    assert (await tokens.get(("a",), OWN)).token != first.token
    assert control_plane.asked == [("a",), ("a", "b"), ("a",)]


@trio_test(autojump=True)
async def test_any_number_of_callers_cost_one_question() -> None:
    """Those who come while it is asked wait for its answer."""
    control_plane = ControlPlane()
    control_plane.gate = trio.Event()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    got = []

    async def want() -> None:
        got.append((await tokens.get(("a",), OWN)).token)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(want)
        await trio.testing.wait_all_tasks_blocked()
        control_plane.gate.set()
    assert got == ["token 1"] * 50


@trio_test(autojump=True)
async def test_a_caller_that_gives_up_takes_nobody_with_it() -> None:
    """The next in line asks."""
    control_plane = ControlPlane()
    control_plane.gate = trio.Event()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    got = []

    async def give_up(scope: trio.CancelScope) -> None:
        with scope:
            await tokens.get(("a",), OWN)

    async def want() -> None:
        got.append((await tokens.get(("a",), OWN)).token)

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(give_up, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(want)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        control_plane.gate.set()
    assert (got, len(control_plane.asked)) == (["token 2"], 2)


@trio_test(autojump=True)
async def test_few_questions_are_under_way_at_a_time_and_a_bounded_number_waits() -> None:
    """A workload that asks for ever new audiences must not take the connection from the renewal."""
    control_plane = ControlPlane()
    control_plane.gate = trio.Event()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    refused = []

    async def want(number: int) -> None:
        try:
            await tokens.get((f"a{number}",), OWN)
        except RpcError as error:
            refused.append(error.status)

    async with trio.open_nursery() as nursery:
        for number in range(WAITING_MAX + 10):
            nursery.start_soon(want, number)
        await trio.testing.wait_all_tasks_blocked()
        control_plane.gate.set()
    assert control_plane.busiest == CALLS_MAX
    assert refused == [GRPC_UNAVAILABLE] * 10


@trio_test(autojump=True)
async def test_while_the_control_plane_is_away_a_token_serves_longer() -> None:
    """Until three quarters of its life; then there is none."""
    control_plane = ControlPlane()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    first = await tokens.get(("a",), OWN)
    control_plane.error = RpcError(GRPC_UNAVAILABLE, "away")
    control_plane.now += LIFE_S * 0.7
    assert (await tokens.get(("a",), OWN)).token == first.token
    control_plane.now += LIFE_S * 0.1
    with pytest.raises(RpcError) as raised:
        await tokens.get(("a",), OWN)
    assert raised.value.status == GRPC_UNAVAILABLE


@trio_test(autojump=True)
async def test_a_control_link_that_is_made_anew_is_waited_for() -> None:
    """Some seconds. Who has a token that will do waits for nothing."""
    control_plane = ControlPlane()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    control_plane.error = RpcError(GRPC_UNAVAILABLE, "away")
    got: list[str] = []

    async def ask() -> None:
        got.append((await tokens.get(("a",), OWN)).token)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(RECONNECTED_S / 2)
        assert got == []
        control_plane.error = None
    assert len(got) == 1
    control_plane.error = RpcError(GRPC_UNAVAILABLE, "away")
    control_plane.now += LIFE_S * 0.6
    began = trio.current_time()
    assert (await tokens.get(("a",), OWN)).token == got[0]
    assert trio.current_time() == began


@trio_test(autojump=True)
async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    """UNAVAILABLE after ten seconds, for everybody who waits for it."""
    control_plane = ControlPlane()
    control_plane.gate = trio.Event()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    began, statuses = trio.current_time(), []

    async def want() -> None:
        try:
            await tokens.get(("a",), OWN)
        except RpcError as error:
            statuses.append(error.status)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(want)
    assert statuses == [GRPC_UNAVAILABLE] * 3
    assert trio.current_time() - began == pytest.approx(ISSUE_TIMEOUT_S)


@pytest.mark.parametrize("status", [GRPC_INVALID_ARGUMENT, GRPC_PERMISSION_DENIED])
def test_what_concerns_the_caller_is_passed_on(status: int) -> None:
    """And no older token is handed out instead: the control plane has said no."""

    @trio_test(autojump=True)
    async def ask() -> None:
        control_plane = ControlPlane()
        tokens = Tokens(control_plane.issue, control_plane.clock)
        await tokens.get(("a",), OWN)
        control_plane.now += LIFE_S * 0.6
        control_plane.error = RpcError(status, "no")
        with pytest.raises(RpcError) as raised:
            await tokens.get(("a",), OWN)
        assert (raised.value.status, raised.value.message) == (status, "no")

    ask()


@trio_test(autojump=True)
async def test_a_token_for_somebody_else_is_not_handed_out() -> None:
    """Whatever the control plane thinks who we are."""
    control_plane = ControlPlane()
    control_plane.spiffe_id = "spiffe://mesh.local/ns/shop/sa/other"
    tokens = Tokens(control_plane.issue, control_plane.clock)
    with pytest.raises(RpcError) as raised:
        await tokens.get(("a",), OWN)
    assert raised.value.status == GRPC_UNAVAILABLE


@pytest.mark.parametrize("life_s", [math.nan, math.inf, -math.inf, 0.0, -1.0])
@trio_test(autojump=True)
async def test_a_token_without_an_end_to_come_is_not_handed_out(life_s: float) -> None:
    """Nor is it kept: it would be for ever, or asked for at each call."""
    control_plane = ControlPlane()
    control_plane.life_s = life_s
    tokens = Tokens(control_plane.issue, control_plane.clock)
    with pytest.raises(RpcError) as caught:
        await tokens.get(("a",), OWN)
    assert caught.value.status == GRPC_UNAVAILABLE
    assert tokens.held(("a",)) is None


@trio_test(autojump=True)
async def test_tokens_are_forgotten_with_the_keys_that_signed_them() -> None:
    """Also one that is on its way."""
    control_plane = ControlPlane()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    await tokens.get(("a",), OWN)
    tokens.forget()
    assert tokens.held(("a",)) is None
    control_plane.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tokens.get, ("a",), OWN)
        await trio.testing.wait_all_tasks_blocked()
        tokens.forget()
        control_plane.gate.set()
    assert tokens.held(("a",)) is None


@trio_test(autojump=True)
async def test_the_number_of_kept_tokens_is_bounded() -> None:
    """The oldest goes."""
    control_plane = ControlPlane()
    tokens = Tokens(control_plane.issue, control_plane.clock)
    for number in range(KEPT_MAX + 5):
        await tokens.get((str(number),), OWN)
    assert [tokens.held((str(number),)) is None for number in (0, 4, 5)] == [True, True, False]
    assert "token 5" not in repr(tokens) + repr(tokens.held(("5",)))
