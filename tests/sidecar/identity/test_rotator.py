"""sidecar.identity.rotator on a clock that jumps: hours cost nothing."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from certs.csr import read_csr
from protos.hauberk.v1 import identity_pb2
from sidecar.control.errors import RpcError
from sidecar.errors import GRPC_UNAVAILABLE
from sidecar.identity.rotator import HURRY_SPREAD_S, Plan, Rotator, renew_at
from sidecar.identity.source import IdentitySource
from tests.certs.forge import NOW
from tests.sidecar.mesh import ORDERS, WEB, Mesh
from tests.trio_support import trio_test


class WallClock:
    """Runs with trio's clock, and can be set."""

    def __init__(self) -> None:
        self._began = trio.current_time()
        self.offset_s = 0.0

    def __call__(self) -> float:
        return NOW + trio.current_time() - self._began + self.offset_s


class Authority:
    """A control plane's answers, and when they were asked for."""

    def __init__(self, clock: WallClock, lifetime_s: float = 3600) -> None:
        self.clock = clock
        self.mesh = Mesh(clock=clock)
        self.lifetime_s = lifetime_s
        self.asked_at: list[float] = []
        self.keys: set[Any] = set()
        self.failure: Exception | None = None
        self.replaced: dict[str, Any] = {}
        self.issuer_offset_s = 0.0
        """What the control plane's clock is ahead of ours."""

    async def renew(self, csr_der: bytes) -> identity_pb2.SvidResponse:
        self.asked_at.append(trio.current_time())
        self.keys.add(read_csr(csr_der).public_key.public_numbers())
        await trio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.clock.offset_s += self.issuer_offset_s
        try:
            return self.mesh.answer(csr_der, **{"lifetime_s": self.lifetime_s, **self.replaced})
        finally:
            self.clock.offset_s -= self.issuer_offset_s


@asynccontextmanager
async def rotation(
    lifetime_s: float = 3600, seed: int = 1
) -> AsyncIterator[tuple[Rotator, Authority, IdentitySource, WallClock]]:
    clock = WallClock()
    authority = Authority(clock, lifetime_s)
    source = IdentitySource()
    source.set(svid=authority.mesh.svid(WEB, lifetime_s=lifetime_s), bundle=authority.mesh.bundle)
    rotator = Rotator(source=source, renew=authority.renew, clock=clock, rng=random.Random(seed))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rotator.run)
        await trio.sleep(0)
        yield rotator, authority, source, clock
        nursery.cancel_scope.cancel()


@given(received_at=st.floats(0, 2e9), life_s=st.floats(-1e6, 1e6), seed=st.integers())
def test_renewal_is_due_at_half_of_the_remaining_life_give_or_take_a_tenth(
    received_at: float, life_s: float, seed: int
) -> None:
    """Between 45 % and 55 % of what was left at receipt; an expired certificate is due at once."""
    due = renew_at(received_at, received_at + life_s, random.Random(seed)) - received_at
    assert max(0, 0.45 * life_s) - 1e-3 <= due <= max(0, 0.55 * life_s) + 1e-3


@given(
    delay_s=st.floats(-100, 1e6), wall_s=st.floats(-1e7, 1e7), monotonic_s=st.floats(0, 1e6), start=st.floats(0, 1e6)
)
def test_r24_a_wait_is_never_negative_and_never_longer_than_planned(
    delay_s: float, wall_s: float, monotonic_s: float, start: float
) -> None:
    """R24: the monotonic clock bounds the wait whatever the wall clock does, and the wall clock wakes who slept."""
    plan = Plan.after(delay_s, now=NOW, monotonic=start)
    left = plan.remaining_s(now=NOW + wall_s, monotonic=start + monotonic_s)
    assert 0 <= left <= max(0, delay_s) + 1e-3
    if wall_s >= max(0, delay_s) + 1e-3 or monotonic_s >= max(0, delay_s) + 1e-3:
        assert left == 0


@trio_test(autojump=True)
async def test_a_certificate_is_renewed_at_half_life_again_and_again() -> None:
    """Some hours of one-hour certificates: a fresh key each time, and the source has the newest."""
    async with rotation() as (rotator, authority, source, clock):
        await trio.sleep(20_000)
        gaps = [b - a for a, b in zip(authority.asked_at, authority.asked_at[1:], strict=False)]
        assert rotator.renewals == len(authority.asked_at) == len(authority.keys)
        assert 10 <= rotator.renewals <= 12
        assert all(0.45 * 3599 <= gap <= 0.55 * 3601 + 1 for gap in gaps)
        assert len(set(gaps)) > 5, "jitter"
        assert source.generation == 1 + rotator.renewals
        assert source.svid is not None
        assert source.svid.not_after > clock() + 1500


@trio_test(autojump=True)
async def test_two_second_certificates_are_always_valid() -> None:
    """The shortest life: at every moment of 200 rotations the held certificate is valid."""
    async with rotation(lifetime_s=2) as (rotator, _, source, clock):
        while rotator.renewals < 200:
            await trio.sleep(0.05)
            assert source.svid is not None
            assert source.svid.not_after > clock()
        assert rotator.failures == 0


@trio_test(autojump=True)
async def test_r03_a_failed_renewal_keeps_the_certificate_and_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    """R03: the control plane is gone; tries get rarer up to 150 s, nothing is thrown away, and its return is used."""
    async with rotation() as (rotator, authority, source, _):
        held = source.svid
        authority.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        await trio.sleep(2_600)  # renewal was due at 1620 to 1980 s
        assert source.svid is held
        assert rotator.failures >= 10
        assert "nobody there" in rotator.last_error
        gaps = [b - a for a, b in zip(authority.asked_at, authority.asked_at[1:], strict=False)]
        assert 0.8 <= gaps[0] <= 1.2
        assert gaps == sorted(gaps[:6]) + gaps[6:]
        assert 80 < max(gaps) <= 150, "no more often than is of use, no more seldom than a tenth of what is left"
        authority.failure = None
        await trio.sleep(110)
        assert source.svid is not held
        assert (rotator.failures, rotator.last_error) == (0, "")
    assert {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING} == {
        "certificate renewal failed, the held certificate stays"
    }


@trio_test(autojump=True)
async def test_near_its_end_a_certificate_is_fought_for_more_often() -> None:
    """The back-off is at most a tenth of the remaining life, so that a short outage near the end does not kill us."""
    async with rotation(lifetime_s=10) as (_, authority, source, clock):
        authority.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        await trio.sleep(9)
        assert source.svid is not None
        remaining_s = source.svid.not_after - clock()
        assert authority.asked_at[-1] - authority.asked_at[-2] < 0.3
        assert remaining_s > 0
        await trio.sleep(3_600)
        gaps = [b - a for a, b in zip(authority.asked_at, authority.asked_at[1:], strict=False)]
        assert 17 < gaps[-1] <= 20, "after its end there is no hurry any more, and no hot loop"


@pytest.mark.parametrize("jump_s", [3_600, -3_600, 1e7, -1e7])
@trio_test(autojump=True)
async def test_r24_a_clock_that_jumps_makes_no_storm_and_no_gap(jump_s: float) -> None:
    """R24: our clock is set wrong for an hour and then right. Renewal goes on by the control plane's clock as soon as
    its certificates make sense here again, within 60 s; tries stay rare."""
    async with rotation() as (rotator, authority, source, clock):
        await trio.sleep(100)
        clock.offset_s += jump_s
        authority.issuer_offset_s = -jump_s
        asked_before = len(authority.asked_at)
        await trio.sleep(3_600)
        assert len(authority.asked_at) - asked_before <= 3_600 / 8 + 20, "no storm"
        clock.offset_s -= jump_s
        authority.issuer_offset_s = 0
        await trio.sleep(60)
        assert rotator.failures == 0
        assert source.svid is not None
        assert source.svid.not_after > clock(), "recovered"


@trio_test(autojump=True)
async def test_r24_a_machine_that_slept_renews_within_seconds_of_waking() -> None:
    """R24: the wall clock moves on during a suspend, the monotonic one does not."""
    async with rotation() as (rotator, _, source, clock):
        await trio.sleep(100)
        clock.offset_s += 2_500  # past the renewal, before the end
        await trio.sleep(2 + HURRY_SPREAD_S)
        assert rotator.renewals == 1
        assert source.svid is not None
        assert source.svid.not_after > clock() + 3_000


WRONG: dict[str, Callable[[Authority], dict[str, Any]]] = {
    "another identity": lambda _: {"identity": ORDERS},
    "another CA": lambda authority: {"certificate_chain_der": [authority.mesh.svid(WEB).chain_der[0]]},
    "no anchors": lambda _: {"trust_anchors_der": []},
    "foreign anchors": lambda authority: {"trust_anchors_der": [Mesh(clock=authority.clock).root.der]},
    "no certificate": lambda _: {"certificate_chain_der": []},
    "nonsense": lambda _: {"certificate_chain_der": [b"nonsense"]},
    "announced another": lambda _: {"spiffe_id": str(ORDERS)},
    "expired": lambda _: {"lifetime_s": -10},
}


@pytest.mark.parametrize("what", WRONG)
@trio_test(autojump=True)
async def test_a_wrong_answer_is_a_failed_renewal(what: str) -> None:
    """Whatever is issued is judged like a stranger's certificate; the held one stays."""
    async with rotation() as (rotator, authority, source, _):
        held = source.svid
        authority.replaced = WRONG[what](authority)
        await trio.sleep(2_000)
        assert source.svid is held
        assert source.generation == 1
        assert rotator.failures > 0
        authority.replaced = {}
        await trio.sleep(160)
        assert source.svid is not held


@trio_test(autojump=True)
async def test_a_renewal_that_never_answers_is_given_up() -> None:
    """A hung control plane is a failure like any other."""
    async with rotation(lifetime_s=100) as (rotator, authority, _, _):

        async def hang(csr_der: bytes) -> identity_pb2.SvidResponse:
            await trio.sleep(1e6)
            return await authority.renew(csr_der)

        rotator._renew = hang
        await trio.sleep(70)
        assert rotator.failures >= 1


@trio_test(autojump=True)
async def test_a_shorter_lifetime_renews_now() -> None:
    """MeshConfig made lives shorter: the held long one is replaced at once; an equal or longer one changes nothing."""
    async with rotation() as (rotator, authority, _, _):
        for lifetime_s in (0, 3_600, 7_200):
            rotator.lifetime_wanted(lifetime_s)
        await trio.sleep(5)
        assert rotator.renewals == 0
        authority.lifetime_s = 30
        rotator.lifetime_wanted(30)
        await trio.sleep(HURRY_SPREAD_S)
        assert rotator.renewals == 1
        rotator.lifetime_wanted(30)
        await trio.sleep(2)
        assert rotator.renewals == 1, "the new one is short enough"


@trio_test(autojump=True)
async def test_a_hurry_during_an_outage_is_not_a_hot_loop() -> None:
    """After a hurried failure the back-off rules."""
    async with rotation() as (rotator, authority, _, _):
        authority.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        rotator.hurry()
        await trio.sleep(100)
        assert 3 <= len(authority.asked_at) <= 20
        assert "failures in a row" in repr(rotator)


@trio_test(autojump=True)
async def test_logs_hold_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """Constant messages, facts as fields, no key and no certificate."""
    caplog.set_level(logging.DEBUG)
    async with rotation() as (_, _, source, _):
        await trio.sleep(2_000)
        assert source.svid is not None
        key = source.svid.key_pem().decode().splitlines()[1]
    records = [record for record in caplog.records if record.name.startswith("sidecar")]
    assert {record.getMessage() for record in records} == {"certificate renewed"}
    assert all(key not in str(record.__dict__) for record in records)
