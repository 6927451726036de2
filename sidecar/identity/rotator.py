"""Keeps the certificate fresh: renews at half of its life, off by up to a tenth, and never lets go of a valid one.

Theory of operation
-------------------
`Plan` decides (sans-IO) and `Rotator` waits and acts. Two clocks are looked at, and whichever says "now" first wins:
the wall clock, because certificates end on it and a machine may sleep or be set right while we wait; and the monotonic
clock, because a wall clock set back by an hour must not put the renewal off by an hour (R24). A wait is cut into
slices of at most `SLICE_S`, so that a jump is noticed within one.

A failed renewal keeps what we have and backs off, from 0.1 s to 10 s but never longer than a tenth of what remains of
the certificate's life. Every attempt has a fresh key; a key that was not certified is forgotten.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from certs.csr import make_csr
from certs.svid import X509Svid, new_private_key
from protos.hauberk.v1 import identity_pb2
from sidecar.errors import SidecarError
from sidecar.identity.errors import IssuedRefused
from sidecar.identity.issued import accept_issued
from sidecar.identity.source import IdentitySource
from sidecar.net.backoff import Backoff

log = logging.getLogger(__name__)

SLICE_S = 1.0
RENEWAL_TIMEOUT_S = 10.0
INTERVAL_MIN_S = 0.25
HURRY_SPREAD_S = 1.0
"""A shorter lifetime reaches the whole fleet at once; its renewals are spread over this time."""

Renew = Callable[[bytes], Awaitable[identity_pb2.SvidResponse]]


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


class Rotator:
    """Renews the SVID of `source` for as long as `run` runs."""

    def __init__(
        self,
        *,
        source: IdentitySource,
        renew: Renew,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._source = source
        self._renew = renew
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(rng)
        self._hurried = trio.Event()
        self._plan: Plan | None = None
        self._received_at = 0.0
        self.renewals = 0
        self.failures = 0
        """In a row; 0 when the last renewal worked."""
        self.last_error = ""

    def __repr__(self) -> str:
        return f"<Rotator {self.renewals} renewals, {self.failures} failures in a row>"

    async def run(self) -> None:
        """Until cancelled. Waits for the first SVID."""
        await self._source.wait_ready()
        self._received_at = self._clock()
        self._plan_renewal()
        while True:
            await self._wait_due()
            if await self._try():
                self._plan_renewal()

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

    async def _wait_due(self) -> None:
        assert self._plan is not None
        while True:
            if self._hurried.is_set():
                self._hurried = trio.Event()
                await trio.sleep(self._rng.uniform(0, min(HURRY_SPREAD_S, self._remaining_life_s() / 10)))
                return
            left = self._plan.remaining_s(now=self._clock(), monotonic=trio.current_time())
            if left <= 0:
                await trio.lowlevel.checkpoint()
                return
            with trio.move_on_after(min(left, SLICE_S)):
                await self._hurried.wait()

    async def _try(self) -> bool:
        held = self._held()
        key = new_private_key()
        try:
            with trio.fail_after(RENEWAL_TIMEOUT_S):
                response = await self._renew(make_csr(key, held.spiffe_id))
            svid, bundle = accept_issued(response, key, held.spiffe_id.trust_domain, self._clock())
            if svid.spiffe_id != held.spiffe_id:
                raise IssuedRefused(f"the control plane renewed {held.spiffe_id} as {svid.spiffe_id}")
            self._source.set(svid=svid, bundle=bundle)
        except (SidecarError, OSError, trio.TooSlowError) as error:
            self._failed(error)
            return False
        self._received_at = self._clock()
        self._backoff.reset()
        self.renewals += 1
        self.failures = 0
        self.last_error = ""
        log.info("certificate renewed", extra={"not_after": svid.not_after, "serial": f"{svid.serial:x}"})
        return True

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.last_error = str(error) or type(error).__name__
        remaining_s = self._remaining_life_s()
        delay_s = self._backoff.next_delay_s(at_most_s=max(0.05, remaining_s / 10) if remaining_s else None)
        self._plan = Plan.after(delay_s, now=self._clock(), monotonic=trio.current_time())
        facts = {"error": self.last_error, "failures": self.failures, "remaining_s": remaining_s}
        if remaining_s:
            log.warning("certificate renewal failed, the held certificate stays", extra=facts)
        else:
            log.error("certificate renewal failed and the held certificate has expired", extra=facts)

    def _plan_renewal(self) -> None:
        now = self._clock()
        due = renew_at(self._received_at, self._held().not_after, self._rng)
        # However short the life, or however far apart the clocks: no renewal follows another at once.
        self._plan = Plan.after(max(due - now, INTERVAL_MIN_S), now=now, monotonic=trio.current_time())

    def _remaining_life_s(self) -> float:
        return max(0.0, self._held().not_after - self._clock())

    def _held(self) -> X509Svid:
        svid = self._source.svid
        assert svid is not None  # run() waited for it, and it is never taken away
        return svid
