"""A sidecar of the simulated mesh: how it gets and keeps an identity, by the code of `sidecar.membership`, the control
link and the rotator. What it does with its identity (the data plane) is left out; `invariants` asks in its place.

A process may end at any moment and be started again; what it kept is in its state directory, on a real disk.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import trio

from certs.bundle import TrustBundle
from certs.revocation import Revocations
from sidecar.config import Address, Config
from sidecar.control.watcher import ControlLink
from sidecar.errors import SidecarError
from sidecar.identity.source import IdentitySource
from sidecar.membership import Membership
from sidecar.rules.snapshot import Snapshot
from tests.sim.invariants import Shown, View

log = logging.getLogger(__name__)

RESTARTED_S = 28_800.0
"""What supervises a sidecar starts it again after so long when it gave up (30 s at the pace of `in_memory.SCALE`)."""


class Node:
    """See the module's docstring."""

    def __init__(
        self,
        number: int,
        directory: Path,
        *,
        service: str,
        now: Callable[[], float],
        rng: random.Random,
        changed: Callable[[Node], None],
        new_token: Callable[[Node], None],
        view: Callable[[TrustBundle, Revocations], View],
    ) -> None:
        """`now`: true Unix seconds. `new_token` puts one where the configuration says."""
        self.number = number
        self.name = f"node-{number}"
        self.service = service
        self.identity = f"spiffe://mesh.local/ns/shop/sa/{service}"
        self.token_file = directory / f"{self.name}.token"
        state_dir = directory / self.name
        state_dir.mkdir(mode=0o700)
        self.config = Config(
            service=service,
            namespace="shop",
            control_plane=address_of(number),
            join_token_file=str(self.token_file),
            state_dir=str(state_dir),
            cache=number % 2 == 0,
        )
        self._now = now
        self._rng = rng
        self._changed = changed
        self._new_token = new_token
        self._view = view
        self.offset_s = 0.0
        """Its clock minus the true one."""
        self.is_on = True
        self._switched = trio.Event()
        self._scope: trio.CancelScope | None = None
        self.source: IdentitySource | None = None
        self.link: ControlLink | None = None
        self.membership: Membership | None = None
        self.shown: Shown | None = None
        """What it shows: None while it is not running or has nothing."""
        self.view: View | None = None
        self.last_error = ""
        self.starts = 0
        self.instance = 0

    def __repr__(self) -> str:
        state = f"{'on' if self.is_on else 'off'}, {self.offset_s:+g} s"
        return f"<{self.name} of {self.service}, {state}, {self.link!r}, {self.membership!r}, {self.last_error}>"

    def clock(self) -> float:
        """As it believes, Unix seconds."""
        return self._now() + self.offset_s

    def off(self) -> None:
        self.is_on = False
        if self._scope is not None:
            self._scope.cancel()

    def on(self) -> None:
        self.is_on = True
        self._switched.set()

    async def live(self) -> None:
        """For ever: one process after the other."""
        while True:
            while not self.is_on:
                self._switched = trio.Event()
                await self._switched.wait()
            with trio.CancelScope() as self._scope:
                await self._process()
            self.source = self.link = self.membership = self.shown = self.view = None
            self._changed(self)
            if self.is_on:
                await trio.sleep(RESTARTED_S)

    async def _process(self) -> None:
        self.starts += 1
        source = IdentitySource()
        rng = random.Random(self._rng.getrandbits(64))
        membership: Membership | None = None
        try:
            membership = Membership(self.config, source, clock=self.clock, rng=rng)
            await membership.enter()
            await self._as_member(membership, source, rng)
        except SidecarError as error:
            self.last_error = str(error)
            log.info("a sidecar gave up", extra={"node": self.name, "error": self.last_error})
            self._new_token(self)
        finally:
            if membership is not None:
                membership.close()

    async def _as_member(self, membership: Membership, source: IdentitySource, rng: random.Random) -> None:
        assert source.svid is not None
        self.source = source
        source.subscribe(self._identity_changed)
        self._identity_changed()
        self.instance += 1
        link = self.link = ControlLink(
            config=self.config,
            identity=source.svid.spiffe_id,
            source=source,
            on_snapshot=self._snapshot,
            instance=f"{self.name}-{self.instance}",
            clock=self.clock,
            rng=rng,
            on_applied=membership.applied,
        )
        membership.attach(link)
        self.membership = membership
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            nursery.start_soon(membership.run)

    async def _snapshot(self, snapshot: Snapshot) -> None:
        await trio.lowlevel.checkpoint()

    def _identity_changed(self) -> None:
        source = self.source
        assert source is not None
        svid, bundle = source.svid, source.bundle
        assert svid is not None
        assert bundle is not None
        if self.shown is None or self.shown.chain_der != svid.chain_der:
            self.shown = Shown.of(svid.chain_der, svid.spiffe_id, svid.serial)
        self.view = self._view(bundle, source.revocations)
        self._changed(self)


def address_of(number: int) -> Address:
    """Each node calls the control plane by an address of its own, so that the network knows who calls."""
    return Address(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 15012)


def number_of(address: Address) -> int:
    _, high, middle, low = (int(part) for part in address.host.split("."))
    return high << 16 | middle << 8 | low
