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

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.csr import make_csr, read_csr
from certs.revocation import Revocations
from certs.svid import X509Svid, new_private_key
from protos.hauberk.v1 import identity_pb2
from sidecar.control.errors import RpcError
from sidecar.errors import GRPC_PERMISSION_DENIED, GRPC_UNAVAILABLE
from sidecar.identity.errors import ControlPlaneUnreachable, JoinRefused
from sidecar.identity.issued import accept_issued
from sidecar.identity.rotator import HURRY_SPREAD_S, JUMP_S, RENEWAL_TIMEOUT_S, Plan, Prove, Rejoin, Rotator, renew_at
from sidecar.identity.source import IdentitySource
from sidecar.net.errors import PeerRefused, RefusedByPeer
from tests.certs.forge import NOW
from tests.sidecar.mesh import ORDERS, TD, WEB, Mesh
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
    lifetime_s: float = 3600, seed: int = 1, prove: Prove | None = None, rejoin: Rejoin | None = None
) -> AsyncIterator[tuple[Rotator, Authority, IdentitySource, WallClock]]:
    clock = WallClock()
    authority = Authority(clock, lifetime_s)
    source = IdentitySource()
    source.set(svid=authority.mesh.svid(WEB, lifetime_s=lifetime_s), bundle=authority.mesh.bundle)
    rotator = Rotator(
        source=source, renew=authority.renew, clock=clock, rng=random.Random(seed), prove=prove, rejoin=rejoin
    )
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
def test_j02_r24_a_wait_is_never_negative_and_never_longer_than_planned(
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
        assert 16 < gaps[-1] <= 20, "after its end there is no hurry any more, and no hot loop"


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


@pytest.mark.parametrize("back_s", [3_600, 86_400])
@trio_test(autojump=True)
async def test_j02_r24_a_certificate_that_is_not_valid_yet_is_renewed_at_once(back_s: float) -> None:
    """J02, R24: it came while all clocks were ahead, and they are set right. No new connection can be made with it."""
    async with rotation() as (rotator, authority, source, clock):
        await trio.sleep(100)
        clock.offset_s -= back_s
        await trio.sleep(2 + HURRY_SPREAD_S)
        assert rotator.renewals == 1
        assert source.svid is not None
        assert source.svid.not_before <= clock() < source.svid.not_after
        await trio.sleep(1_000)
        assert len(authority.asked_at) == 1


@trio_test(autojump=True)
async def test_j02_r24_a_machine_that_slept_renews_within_seconds_of_waking() -> None:
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


# Candidates, taint, the node key ----------------------------------------------------------------------------------


class Trial:
    """What `prove` finds, and what it was asked."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.tried: list[bytes] = []
        """Leaves."""

    async def prove(self, svid: X509Svid, bundle: TrustBundle) -> None:
        self.tried.append(svid.chain_der[0])
        await trio.sleep(0)
        if self.failure is not None:
            raise self.failure


@trio_test(autojump=True)
async def test_r05_a_new_certificate_is_tried_before_it_replaces_the_old_one() -> None:
    """Until the control plane has answered on a connection made with it the old one stays, and the same candidate is
    tried again: if it was confirmed without our hearing of it, renewing with the old one would look like theft."""
    trial = Trial()
    async with rotation(prove=trial.prove) as (rotator, authority, source, _):
        held = source.svid
        trial.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        await trio.sleep(2_000)
        assert source.svid is held
        assert len(authority.asked_at) == 1
        assert len(trial.tried) > 3
        assert len(set(trial.tried)) == 1
        assert "a call with it failed" in rotator.last_error
        trial.failure = None
        await trio.sleep(160)
        assert source.svid is not None
        assert source.svid.chain_der[0] == trial.tried[0]
        assert rotator.failures == 0


@pytest.mark.parametrize("failure", [RpcError(GRPC_PERMISSION_DENIED, "no"), RefusedByPeer("no")])
@trio_test(autojump=True)
async def test_a_candidate_that_is_refused_is_dropped(failure: Exception) -> None:
    """It will never work; the next attempt makes another."""
    trial = Trial()
    async with rotation(prove=trial.prove) as (_, authority, source, _):
        held = source.svid
        trial.failure = failure
        await trio.sleep(2_200)
        assert source.svid is held
        assert len(authority.asked_at) == len(trial.tried) == len(set(trial.tried)) > 1


@trio_test(autojump=True)
async def test_a_candidate_that_cannot_be_tried_is_used_when_the_old_one_is_about_to_end() -> None:
    """Less than one time-out before the end a certificate that verifies is better than none."""
    trial = Trial()
    async with rotation(lifetime_s=100, prove=trial.prove) as (rotator, _, source, clock):
        held = source.svid
        assert held is not None
        trial.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        await trio.sleep(80)
        assert source.svid is held
        while source.svid is held:
            await trio.sleep(0.1)
        assert 0 < held.not_after - clock() < RENEWAL_TIMEOUT_S
        assert rotator.renewals == 1


@trio_test(autojump=True)
async def test_a_candidate_does_not_bring_back_the_anchors_of_before() -> None:
    """While it waited to be tried a snapshot brought another bundle: that one stays, and must lead to the candidate."""
    trial = Trial()
    async with rotation(prove=trial.prove) as (_, authority, source, _):
        trial.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        await trio.sleep(2_000)
        other = Mesh(clock=authority.clock)
        newer = TrustBundle.of(TD, [authority.mesh.root.der, other.root.der])
        source.set(bundle=newer)
        trial.failure = None
        await trio.sleep(160)
        assert source.svid is not None
        assert source.svid.chain_der[0] == trial.tried[0]
        assert source.bundle == newer


@trio_test(autojump=True)
async def test_a_certificate_that_is_revoked_already_is_not_used() -> None:
    """The snapshot may be faster than the answer."""
    async with rotation() as (rotator, _, source, _):
        held = source.svid
        source.set(revocations=Revocations(identities=frozenset({WEB})))
        await trio.sleep(2_200)
        assert source.svid is held
        assert "is revoked already" in rotator.last_error


@trio_test(autojump=True)
async def test_r08_under_a_tainted_authority_it_renews_at_once_and_only_once() -> None:
    """R08: within the spread; and if the new certificate is under it again, that is no loop."""
    async with rotation() as (rotator, authority, source, _):
        (root,) = authority_ids((authority.mesh.root.der,))
        source.set(revocations=Revocations(tainted_authorities=frozenset({"0" * 32})))
        await trio.sleep(HURRY_SPREAD_S + 1)
        assert rotator.renewals == 0, "somebody else's"
        source.set(revocations=Revocations(tainted_authorities=frozenset({root})))
        await trio.sleep(HURRY_SPREAD_S + 1)
        assert rotator.renewals == 1
        await trio.sleep(600)
        assert 15 <= rotator.renewals <= 25, "now and then, until it comes from another authority"


class NodeKey:
    """`rejoin`, played by the test."""

    def __init__(self) -> None:
        self.authority: Authority | None = None
        self.failure: Exception | None = None
        self.asked_at: list[float] = []

    async def rejoin(self) -> tuple[X509Svid, TrustBundle]:
        self.asked_at.append(trio.current_time())
        await trio.sleep(0)
        if self.failure is not None:
            raise self.failure
        assert self.authority is not None
        mesh = self.authority.mesh
        return mesh.svid(WEB, lifetime_s=self.authority.lifetime_s), mesh.bundle


@pytest.mark.parametrize("jump_s", [3_700, 60_000])
@trio_test(autojump=True)
async def test_r24_a_machine_that_slept_longer_than_its_certificate_comes_back_with_the_node_key(jump_s: float) -> None:
    """R24, R04: the certificate ended in its sleep. Within 30 s of waking there is another, and nobody was asked to
    renew the one that had ended."""
    node_key = NodeKey()
    async with rotation(rejoin=node_key.rejoin) as (rotator, authority, source, clock):
        node_key.authority = authority
        await trio.sleep(100)
        clock.offset_s += jump_s
        await trio.sleep(30)
        assert (rotator.renewals, rotator.rejoins, rotator.failures) == (1, 1, 0)
        assert source.svid is not None
        assert source.svid.not_after > clock() + 3_000
        assert not authority.asked_at


@trio_test(autojump=True)
async def test_r04_it_tries_to_come_back_for_ever_and_is_within_half_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """R04: an outage of half a day; tries every 20 s at most; then back within 30 s."""
    node_key = NodeKey()
    async with rotation(rejoin=node_key.rejoin) as (rotator, authority, source, clock):
        authority.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        node_key.failure = ControlPlaneUnreachable("nobody there")
        node_key.authority = authority
        await trio.sleep(43_200)
        gaps = [b - a for a, b in zip(node_key.asked_at[-20:], node_key.asked_at[-19:], strict=False)]
        assert all(16 < gap <= 21 for gap in gaps)
        authority.failure = node_key.failure = None
        await trio.sleep(30)
        assert rotator.rejoins == 1
        assert source.svid is not None
        assert source.svid.not_after > clock()


@trio_test(autojump=True)
async def test_a_final_refusal_is_said_once_and_asked_about_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """Revoked, or not known any more: one line in the log, the reason in the status, a try every minute; and if
    somebody takes the revocation back, we are."""
    node_key = NodeKey()
    async with rotation(rejoin=node_key.rejoin) as (rotator, authority, source, clock):
        node_key.authority = authority
        node_key.failure = JoinRefused("its identity was revoked; make a new join token")
        authority.failure = RpcError(GRPC_PERMISSION_DENIED, "its identity was revoked")
        await trio.sleep(7_200)
        assert [record.getMessage() for record in caplog.records].count(
            "the control plane does not take this sidecar back"
        ) <= 3, "once; with the answers of Renew between, before the certificate ended"
        assert "make a new join token" in rotator.last_error
        gaps = [b - a for a, b in zip(node_key.asked_at[-20:], node_key.asked_at[-19:], strict=False)]
        assert all(49 < gap <= 61 for gap in gaps)
        node_key.failure = None
        await trio.sleep(61)
        assert rotator.last_error == ""
        assert source.svid is not None
        assert source.svid.not_after > clock()


@trio_test(autojump=True)
async def test_g24_whoever_is_refused_as_a_second_holder_proves_the_node_key() -> None:
    """G24: a thief has renewed first; the honest one is back within seconds, for a thief has no node key."""
    node_key = NodeKey()
    async with rotation(rejoin=node_key.rejoin) as (rotator, authority, _, _):
        node_key.authority = authority
        authority.failure = RpcError(GRPC_PERMISSION_DENIED, "this certificate was replaced by a newer one")
        await trio.sleep(2_000)
        assert rotator.rejoins >= 1
        assert len(authority.asked_at) == 1


@pytest.mark.parametrize(
    "failure", [PeerRefused("no path to a trust anchor", row="F02"), RefusedByPeer("bad certificate")]
)
@trio_test(autojump=True)
async def test_whoever_missed_a_rotation_of_the_root_comes_back_with_the_node_key(failure: Exception) -> None:
    """Who was revoked, or cut off when a root was forced in, knows no anchor of the control plane when it is welcome
    again: Renew can never work, so the node key is used while the certificate is good, not only at 70 % of its life."""
    node_key = NodeKey()
    async with rotation(rejoin=node_key.rejoin) as (rotator, authority, _, _):
        node_key.authority = authority
        authority.failure = failure
        node_key.failure = JoinRefused("its identity was revoked")
        rotator.hurry()
        await trio.sleep(600)
        assert len(authority.asked_at) > 1, "each of the two is asked in turn"
        assert len(node_key.asked_at) > 1
        node_key.failure = None
        await trio.sleep(300)
        assert rotator.rejoins == 1
        assert rotator.failures == 0


@trio_test(autojump=True)
async def test_an_overdue_renewal_is_an_alarm_at_70_percent_and_stale_at_90(caplog: pytest.LogCaptureFixture) -> None:
    """One error in the log; both words are taken back by a renewal."""
    async with rotation(lifetime_s=1_000) as (rotator, authority, _, _):
        authority.failure = RpcError(GRPC_UNAVAILABLE, "nobody there")
        await trio.sleep(690)
        assert (rotator.is_late, rotator.is_stale) == (False, False)
        await trio.sleep(20)
        assert (rotator.is_late, rotator.is_stale) == (True, False)
        await trio.sleep(180)
        assert not rotator.is_stale
        await trio.sleep(20)
        assert (rotator.is_late, rotator.is_stale) == (True, True)
        alarms = [record for record in caplog.records if record.getMessage() == "certificate is overdue for renewal"]
        assert [record.levelno for record in alarms] == [logging.ERROR]
        authority.failure = None
        await trio.sleep(15)
        assert (rotator.is_late, rotator.is_stale, rotator.failures) == (False, False, 0)


@pytest.mark.parametrize("jump_s", [3_600, -3_600, 86_400, -86_400])
def test_r24_a_fleet_whose_clocks_are_set_in_one_moment_does_not_come_in_one_moment(jump_s: float) -> None:
    """R24: 50 sidecars on one clock that jumps: nobody waits less than nothing, nobody asks twice within a second, no
    second has more than its share of them, and all have a good certificate a minute after the clock is right."""

    @trio_test(autojump=True)
    async def play() -> None:
        clock = WallClock()
        mesh = Mesh(clock=clock)
        asked: list[float] = []
        issuer_offset_s = [0.0]

        def answer_now(csr_der: bytes) -> identity_pb2.SvidResponse:
            asked.append(trio.current_time())
            clock.offset_s += issuer_offset_s[0]
            try:
                return mesh.answer(csr_der)
            finally:
                clock.offset_s -= issuer_offset_s[0]

        async def renew(csr_der: bytes) -> identity_pb2.SvidResponse:
            return answer_now(csr_der)

        async def rejoin() -> tuple[X509Svid, TrustBundle]:
            key = new_private_key()
            return accept_issued(answer_now(make_csr(key, None)), key, TD, clock())

        sources = []
        async with trio.open_nursery() as nursery:
            for seed in range(50):
                source = IdentitySource()
                source.set(svid=mesh.svid(WEB), bundle=mesh.bundle)
                sources.append(source)
                rotator = Rotator(source=source, renew=renew, rejoin=rejoin, clock=clock, rng=random.Random(seed))
                nursery.start_soon(rotator.run)
            await trio.sleep(300)
            clock.offset_s += jump_s
            issuer_offset_s[0] = -jump_s  # only this site's clock jumped
            jumped = trio.current_time()
            await trio.sleep(600)
            busiest = max(sum(at <= one < at + 1 for one in asked) for at in range(int(jumped), int(jumped) + 600))
            assert busiest <= 40, "spread over some seconds, second and third tries included"
            assert len(asked) <= 50 * 45, "no storm"
            clock.offset_s -= jump_s
            issuer_offset_s[0] = 0.0
            await trio.sleep(60)
            assert all(one.svid is not None and one.svid.not_after > clock() for one in sources)
            nursery.cancel_scope.cancel()

    play()


@given(
    delay_s=st.floats(0, 1e6),
    rate=st.floats(0.9, 1.1),
    parts=st.lists(st.floats(0, 1.2), max_size=20),
    start=st.floats(0, 1e6),
)
def test_r24_under_a_clock_that_is_slewed_a_wait_shrinks_and_ends_once_by_the_faster_one(
    delay_s: float, rate: float, parts: list[float], start: float
) -> None:
    """R24: a wall clock that runs up to a tenth too fast or too slow moves a renewal by that tenth at most: never more
    is left than before, never less than nothing, and what is due stays so."""
    plan = Plan.after(delay_s, now=NOW, monotonic=start)
    before = delay_s + 1e-3
    for gone_s in sorted(part * delay_s for part in parts):
        left = plan.remaining_s(now=NOW + gone_s * rate, monotonic=start + gone_s)
        assert 0 <= left <= before
        assert left == pytest.approx(max(0.0, delay_s - gone_s * max(1.0, rate)), abs=1e-3)
        before = left + 1e-3
        if gone_s * abs(rate - 1) < JUMP_S - 1e-3:
            assert not plan.jumped(now=NOW + gone_s * rate, monotonic=start + gone_s)


class SlewedClock(WallClock):
    """Can be made to run at another rate."""

    def __init__(self) -> None:
        super().__init__()
        self._rate, self._since = 1.0, trio.current_time()

    def __call__(self) -> float:
        return super().__call__() + (self._rate - 1) * (trio.current_time() - self._since)

    def run_at(self, rate: float) -> None:
        """From now on; nothing jumps."""
        self.offset_s = self() - super().__call__() + self.offset_s
        self._rate, self._since = rate, trio.current_time()


@pytest.mark.slow
@pytest.mark.parametrize("is_everybodys", [True, False])
@pytest.mark.parametrize("rate", [1.05, 0.95])
def test_r24_a_fleet_whose_clocks_are_slewed_renews_on_time_and_spread(
    rate: float, is_everybodys: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R24: 60 sidecars whose clocks run 5 % too fast or too slow, for 1,100 s (so long the skew stays below the 60 s
    that are tolerated), and then as much the other way. With and without the control plane's clock: nothing fails,
    nobody renews early or twice, no ten seconds bring more of them than by chance."""
    monkeypatch.setattr("sidecar.identity.rotator.SLICE_S", 10.0)  # nothing jumps here, so looking seldom is enough

    @trio_test(autojump=True)
    async def play() -> None:
        true, slewed = WallClock(), SlewedClock()
        mesh = Mesh(clock=slewed if is_everybodys else true)
        asked: list[list[float]] = []
        rotators: list[Rotator] = []

        def add(nursery: trio.Nursery, seed: int) -> None:
            times: list[float] = []

            async def renew(csr_der: bytes) -> identity_pb2.SvidResponse:
                times.append(trio.current_time())
                return mesh.answer(csr_der, lifetime_s=1_800)

            source = IdentitySource()
            source.set(svid=mesh.svid(WEB, lifetime_s=1_800), bundle=mesh.bundle)
            rotators.append(Rotator(source=source, renew=renew, clock=slewed, rng=random.Random(seed)))
            asked.append(times)
            nursery.start_soon(rotators[-1].run)

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for seed in range(60):
                add(nursery, seed)
            for pace in (rate, 2 - rate, 1.0):
                slewed.run_at(pace)
                await trio.sleep(1_100)
            assert slewed() == pytest.approx(true(), abs=0.01)
            nursery.cancel_scope.cancel()
        assert all(one.failures_total == 0 for one in rotators)
        for times in asked:
            gaps = [after - before for before, after in zip([began, *times], times, strict=False)]
            assert len(times) in (3, 4)
            assert min(gaps) > 0.45 * (1_800 - 60) / 1.05
            assert max(gaps) < 0.55 * (1_800 + 60) + HURRY_SPREAD_S + 2
        every = sorted(one for times in asked for one in times)
        busiest = max(sum(first <= one < first + 10 for one in every) for first in every)
        assert busiest <= 10

    play()
