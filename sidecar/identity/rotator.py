"""Keeps the certificate fresh: renews at half of its life, off by up to a tenth, and never lets go of a valid one.

Theory of operation
-------------------
`Plan` decides (sans-IO) and `Rotator` waits and acts. Two clocks are looked at, and whichever says "now" first wins:
the wall clock, because certificates end on it and a machine may sleep or be set right while we wait; and the monotonic
clock, because a wall clock set back by an hour must not put the renewal off by an hour (R24). A wait is cut into
slices of at most `SLICE_S`, so that a jump is noticed within one. What many notice in one moment (a jump, a shorter
lifetime, a tainted authority) they act upon within `HURRY_SPREAD_S`, each at a time of its own.

One attempt is one of three things:

1. A candidate is there (issued, not proven): try it. It is proven when the control plane answered over a connection
   made with it; only then it replaces the held one. If it was refused it is dropped. If nobody answered it is kept and
   tried again: perhaps it was confirmed and we did not hear of it, and whoever then renews with the certificate before
   looks like a thief (row G24). When the held one is about to end, a candidate is used that could not be tried.
2. The held certificate has ended, or the control plane will not renew with it: rejoin with the node key. What that
   gives is used at once, there is nothing better. From `LATE` of the life on this is tried in turn with:
3. Renew, with a fresh key; a key that was not certified is forgotten.

A failed attempt keeps what we have and backs off, each sidecar by itself: from 1 s to 150 s but never longer than a
tenth of what remains of the certificate's life; after its end from 1 s to 20 s; and to 60 s when the control plane said
that it will not have us.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.csr import make_csr
from certs.errors import CertsError
from certs.svid import X509Svid, new_private_key
from certs.verify import verify_chain
from protos.hauberk.v1 import identity_pb2
from sidecar.control.errors import RpcError
from sidecar.errors import GRPC_PERMISSION_DENIED, GRPC_UNAUTHENTICATED, SidecarError
from sidecar.identity.errors import IssuedRefused, JoinRefused, NotProven, WrongPin
from sidecar.identity.issued import accept_issued
from sidecar.identity.source import IdentitySource
from sidecar.identity.taint import tainted_above
from sidecar.net.backoff import Backoff
from sidecar.net.errors import PeerRefused, RefusedByPeer, TlsError

log = logging.getLogger(__name__)

SLICE_S = 1.0
RENEWAL_TIMEOUT_S = 10.0
RENEWAL_TIMEOUT_MIN_S = 1.0
INTERVAL_MIN_S = 0.25
HURRY_SPREAD_S = 5.0
"""What reaches the whole fleet at once is acted upon within this time."""
TAINTED_RETRY_S = 30.0
"""A renewal under a tainted authority brought a certificate under it again."""
JUMP_S = 5.0
"""How far the wall clock may move against the monotonic one without anything being read into it."""
LATE, STALE = 0.7, 0.9
"""Parts of a certificate's life. From the first on a missing renewal is an alarm, from the second on it costs
readiness."""

Renew = Callable[[bytes], Awaitable[identity_pb2.SvidResponse]]
Prove = Callable[[X509Svid, TrustBundle], Awaitable[None]]
Rejoin = Callable[[], Awaitable[tuple[X509Svid, TrustBundle]]]


def renew_at(received_at: float, not_after: float, rng: random.Random) -> float:
    """When to renew a certificate received at `received_at` that ends at `not_after` (Unix seconds, both and back)."""
    return received_at + max(0.0, not_after - received_at) * rng.uniform(0.45, 0.55)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When the next renewal is due, on both clocks."""

    wall: float
    """Unix seconds."""
    monotonic: float
    """Seconds of the monotonic clock."""

    @classmethod
    def after(cls, delay_s: float, *, now: float, monotonic: float) -> Plan:
        delay_s = max(0.0, delay_s)
        return cls(wall=now + delay_s, monotonic=monotonic + delay_s)

    def remaining_s(self, *, now: float, monotonic: float) -> float:
        """How long to wait; 0 when it is due on either clock. Never negative."""
        return max(0.0, min(self.wall - now, self.monotonic - monotonic))

    def jumped(self, *, now: float, monotonic: float) -> bool:
        """Whether the wall clock was set, either way, or the machine slept, since this was planned."""
        return abs((self.wall - now) - (self.monotonic - monotonic)) > JUMP_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    svid: X509Svid
    bundle: TrustBundle
    bundle_before: TrustBundle | None
    """The one held when it was asked for: if that has changed since, what came by snapshot is the newer one."""


class Rotator:
    """Renews the SVID of `source` for as long as `run` runs."""

    def __init__(
        self,
        *,
        source: IdentitySource,
        renew: Renew,
        clock: Callable[[], float],
        rng: random.Random,
        prove: Prove | None = None,
        rejoin: Rejoin | None = None,
        received_at: float | None = None,
    ) -> None:
        """`renew` asks with the certificate in use; `prove` tries one that is not in use yet; `rejoin` asks with the
        node key. Without the last two new certificates are used untried, and one that has ended stays so.
        `received_at`: when the first SVID was issued, if not now (Unix seconds)."""
        self._source = source
        self._renew = renew
        self._prove = prove
        self._rejoin = rejoin
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(rng, base_s=1.0, max_s=150.0, jitter=0.2)
        self._backoff_ended = Backoff(rng, base_s=1.0, max_s=20.0)
        self._backoff_refused = Backoff(rng, base_s=30.0, max_s=60.0)
        self._hurried = trio.Event()
        self._plan: Plan | None = None
        self._received_at = received_at or 0.0
        self._candidate: _Candidate | None = None
        self._is_denied = False
        self._left: frozenset[str] = frozenset()
        """Tainted authorities that we have hurried away from."""
        self._said = ""
        """The last refusal that was logged."""
        self._said_late = False
        self.renewals = 0
        """Certificates that replaced another, rejoins among them."""
        self.rejoins = 0
        self.failures = 0
        """In a row; 0 when the last renewal worked."""
        self.failures_total = 0
        self.last_error = ""

    def __repr__(self) -> str:
        return f"<Rotator {self.renewals} renewals, {self.failures} failures in a row>"

    @property
    def is_late(self) -> bool:
        return self._life_used() >= LATE

    @property
    def is_stale(self) -> bool:
        return self._life_used() >= STALE

    @property
    def received_at(self) -> float:
        """When the certificate in use came; Unix seconds, 0: there is none yet."""
        return self._received_at

    async def run(self) -> None:
        """Until cancelled. Waits for the first SVID."""
        await self._source.wait_ready()
        self._received_at = self._received_at or self._clock()
        self._plan_renewal()
        unsubscribe = self._source.subscribe(self._look_for_reasons)
        self._look_for_reasons()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_life)
                while True:
                    await self._wait_due()
                    if await self._try():
                        self._plan_renewal()
        finally:
            unsubscribe()

    def hurry(self) -> None:
        """Renew now: the held certificate should not live as long as it says."""
        self._hurried.set()

    def lifetime_wanted(self, lifetime_s: int) -> None:
        """What a snapshot says certificates should live: hurry if the held one lives markedly longer (0: no word)."""
        svid = self._source.svid
        if svid is None or lifetime_s <= 0 or not self._received_at:
            return
        # Certificates end on whole seconds, and the clocks of both sides may differ a little.
        if svid.not_after - self._received_at > lifetime_s * 1.1 + 5:
            self.hurry()

    # When ---------------------------------------------------------------------------------------------------------

    async def _wait_due(self) -> None:
        assert self._plan is not None
        while True:
            if self._hurried.is_set():
                self._hurried = trio.Event()
                await self._spread()
                return
            now, monotonic = self._clock(), trio.current_time()
            left = self._plan.remaining_s(now=now, monotonic=monotonic)
            is_early = now < self._held().not_before
            if self._plan.jumped(now=now, monotonic=monotonic) and (left <= 0 or self.failures or is_early):
                # All machines of a site may have been set right at once. Whatever failed may have failed for the clock;
                # and what was issued while it was ahead is worth nothing to anybody now.
                await self._spread()
                return
            if left <= 0:
                await trio.lowlevel.checkpoint()
                return
            with trio.move_on_after(min(left, SLICE_S)):
                await self._hurried.wait()

    async def _spread(self) -> None:
        remaining_s = self._remaining_life_s()
        most_s = min(HURRY_SPREAD_S, remaining_s / 10) if remaining_s else HURRY_SPREAD_S
        await trio.sleep(self._rng.uniform(0, most_s))

    def _plan_renewal(self) -> None:
        now = self._clock()
        due = renew_at(self._received_at, self._held().not_after, self._rng)
        # However short the life, or however far apart the clocks: no renewal follows another at once.
        delay_s = max(due - now, INTERVAL_MIN_S)
        if self._tainted():
            delay_s = min(delay_s, TAINTED_RETRY_S)
        self._plan = Plan.after(delay_s, now=now, monotonic=trio.current_time())

    def _look_for_reasons(self) -> None:
        """Called after every change of the source: is there a reason not to wait until half of the life?"""
        if self._source.denied and not self._is_denied:
            self._is_denied = True  # the certificate may be revoked and the node be welcome
            self.hurry()
        tainted = self._tainted()
        if tainted - self._left:
            log.warning("the authority of our certificate is tainted; renewing", extra={"authorities": sorted(tainted)})
            self.hurry()
        self._left = tainted

    def _tainted(self) -> frozenset[str]:
        source = self._source
        if source.svid is None or source.bundle is None:
            return frozenset()
        return tainted_above(source.svid, source.bundle, source.revocations.tainted_authorities, self._clock())

    # What ---------------------------------------------------------------------------------------------------------

    async def _try(self) -> bool:
        try:
            if self._candidate is None and self._should_rejoin():
                candidate = await self._rejoined()
            else:
                candidate = self._candidate or await self._renewed()
                self._candidate = candidate
                await self._proven(candidate)
            self._adopt(candidate)
        except (SidecarError, CertsError, ValueError, OSError, trio.TooSlowError) as error:
            self._failed(error)
            return False
        self._received_at = self._clock()
        for backoff in (self._backoff, self._backoff_ended, self._backoff_refused):
            backoff.reset()
        self.renewals += 1
        self.failures = 0
        self.last_error = self._said = ""
        self._is_denied = self._said_late = False
        facts = {"not_after": candidate.svid.not_after, "serial": f"{candidate.svid.serial:x}"}
        log.info("certificate renewed", extra=facts)
        return True

    def _should_rejoin(self) -> bool:
        if self._rejoin is None:
            return False
        return not self._remaining_life_s() or self._is_denied or (self.is_late and self.failures % 2 == 1)

    async def _renewed(self) -> _Candidate:
        held, before = self._held(), self._source.bundle
        key = new_private_key()
        with trio.fail_after(self._timeout_s()):
            response = await self._renew(make_csr(key, held.spiffe_id))
        svid, bundle = accept_issued(response, key, held.spiffe_id.trust_domain, self._clock())
        if svid.spiffe_id != held.spiffe_id:
            raise IssuedRefused(f"the control plane renewed {held.spiffe_id} as {svid.spiffe_id}")
        return _Candidate(svid=svid, bundle=bundle, bundle_before=before)

    async def _rejoined(self) -> _Candidate:
        assert self._rejoin is not None
        held, before = self._held(), self._source.bundle
        self._is_denied = False  # if this does not help either, Renew is asked again
        svid, bundle = await self._rejoin()
        if svid.spiffe_id != held.spiffe_id:
            raise IssuedRefused(f"the control plane took {held.spiffe_id} back as {svid.spiffe_id}")
        self.rejoins += 1
        return _Candidate(svid=svid, bundle=bundle, bundle_before=before)

    async def _proven(self, candidate: _Candidate) -> None:
        """Raises NotProven: the candidate is not to be used, or not yet."""
        if self._prove is None:
            return
        timeout_s = self._timeout_s()
        try:
            with trio.fail_after(timeout_s):
                await self._prove(candidate.svid, candidate.bundle)
        except (SidecarError, OSError, trio.TooSlowError) as error:
            facts = {"error": _text(error), "serial": f"{candidate.svid.serial:x}"}
            if self._remaining_life_s() < timeout_s:
                log.warning("the new certificate could not be tried; the held one is about to end", extra=facts)
                return
            if isinstance(error, TlsError) or _is_denial(error):
                self._candidate = None
            raise NotProven(f"the new certificate is not used, for a call with it failed: {facts['error']}") from error

    def _adopt(self, candidate: _Candidate) -> None:
        """Raises CertsError, IssuedRefused, ValueError, ssl.SSLError; then it is dropped and nothing has changed."""
        self._candidate = None
        source, svid, now = self._source, candidate.svid, self._clock()
        bundle = candidate.bundle
        if source.bundle is not None and source.bundle is not candidate.bundle_before:
            bundle = source.bundle
        verify_chain(svid.chain_der, bundle, now)
        if why := source.revocations.refusal(svid.spiffe_id, svid.serial, authority_ids(svid.chain_der[1:])):
            raise IssuedRefused(f"the new certificate is revoked already, by its {why}")
        source.set(svid=svid, bundle=bundle)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.failures_total += 1
        self.last_error = _text(error)
        # Where one of us knows no anchor of the other any more, only the node key helps, and what vouches for anchors.
        is_stranger = isinstance(error, (PeerRefused, RefusedByPeer))
        self._is_denied = self._is_denied or is_stranger or _is_denial(error)
        if self._candidate is not None and self._candidate.svid.not_after <= self._clock():
            self._candidate = None
        remaining_s = self._remaining_life_s()
        is_refused = isinstance(error, (JoinRefused, WrongPin))
        if remaining_s:
            most_s = max(0.05, remaining_s / 10) * self._rng.uniform(0.8, 1.0)
            delay_s = self._backoff.next_delay_s(at_most_s=most_s)
        else:
            delay_s = (self._backoff_refused if is_refused else self._backoff_ended).next_delay_s()
        self._plan = Plan.after(delay_s, now=self._clock(), monotonic=trio.current_time())
        facts = {"error": self.last_error, "failures": self.failures, "remaining_s": remaining_s}
        if is_refused:
            if self.last_error != self._said:  # it stays true until somebody does something
                log.error("the control plane does not take this sidecar back", extra=facts)
            self._said = self.last_error
        elif remaining_s:
            log.warning("certificate renewal failed, the held certificate stays", extra=facts)
        else:
            log.error("certificate renewal failed and the held certificate has expired", extra=facts)

    # The life of what is held ----------------------------------------------------------------------------------------

    async def _watch_life(self) -> None:
        while True:
            if self.is_late and not self._said_late:
                self._said_late = True
                facts = {"remaining_s": self._remaining_life_s(), "error": self.last_error, "failures": self.failures}
                log.error("certificate is overdue for renewal", extra=facts)
            await trio.sleep(SLICE_S)

    def _life_used(self) -> float:
        svid = self._source.svid
        if svid is None or not self._received_at:
            return 0.0
        life_s = svid.not_after - self._received_at
        return (self._clock() - self._received_at) / life_s if life_s > 0 else 1.0

    def _timeout_s(self) -> float:
        """Of one call. Also "about to end": who has less than this left cannot wait for another."""
        return min(RENEWAL_TIMEOUT_S, max(RENEWAL_TIMEOUT_MIN_S, self._remaining_life_s() / 3))

    def _remaining_life_s(self) -> float:
        return max(0.0, self._held().not_after - self._clock())

    def _held(self) -> X509Svid:
        svid = self._source.svid
        assert svid is not None  # run() waited for it, and it is never taken away
        return svid


def _is_denial(error: Exception) -> bool:
    return isinstance(error, RpcError) and error.status in (GRPC_PERMISSION_DENIED, GRPC_UNAUTHENTICATED)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
