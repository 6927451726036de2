"""A mesh of many workloads for a year, in seconds: the simulation.

`run(seed, ...)` starts a control plane and its sidecars on trio's mock clock, lets befall them what `faults` has drawn
from the seed, and after every step asks `invariants`. The code is that which runs in production; what is replaced, all
of it in `in_memory`, is the wire (`network`), the TLS contexts (their facts are compared instead), and how often the
patient look at the clock: certificates live for days here, so a slice of waiting is hours.

Read it in this order: mesh, faults, invariants, node, control, network.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from certs.bundle import TrustBundle
from certs.svid import X509Svid
from control_plane.ca.slots import CaPolicy
from control_plane.config import ControlPlaneConfig, Limits
from control_plane.config_ca import CaConfig
from control_plane.errors import ControlPlaneError
from control_plane.model import Level, Phase
from protos.hauberk.v1 import admin_pb2
from sidecar.net.backoff import Backoff
from tests.sim.control import Control
from tests.sim.faults import DAY_S, HOUR_S, YEAR_S, Fault, Rates, schedule
from tests.sim.invariants import RECOVERY_S, REVOKED_S, SKEW_S, Broken, Shown, Verifier, View
from tests.sim.network import Contexts, Network
from tests.sim.node import Node

BEGAN_AT = 1_800_000_000.0
"""True Unix time when the simulation begins."""
SETTLED_S = HOUR_S
"""Everybody has joined by then; faults begin."""
SCALE = 240
"""Certificates live for twenty days instead of an hour or two, so whoever waits and tries again does so 240 times
slower, and has 240 times as long to be back."""
SLICE_S = 12 * HOUR_S
HEARTBEAT_S = 4 * DAY_S
HOUSEKEEPING_S = 2 * HOUR_S
WATCH_S = 3 * HOUR_S
LEAF_S, INTERMEDIATE_S, ROOT_S = 20 * DAY_S, 60 * DAY_S, 180 * DAY_S
LOST_SHARE = 0.01
"""Of messages."""
NODES_PER_SERVICE = 4


@dataclass(slots=True, kw_only=True)
class Report:
    """What happened, for people and for the test that looks whether anything did."""

    seed: int
    days: float
    happened: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    asked: int = 0
    verified: int = 0

    def __str__(self) -> str:
        events = ", ".join(f"{count} {what}" for what, count in sorted(self.happened.items()))
        return f"seed {self.seed}: {self.days:g} days, {self.steps} steps, {self.asked} questions of trust; {events}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A certificate whose holder lost the right to it."""

    shown: Shown
    at: float
    """True time."""
    why: str


class World:
    """Everything there is."""

    def __init__(self, directory: Path, seed: int, node_count: int, rates: Rates, days: float) -> None:
        self._directory = directory
        self._rng = random.Random(seed)
        self._days = days
        self.report = Report(seed=seed, days=days)
        config = ControlPlaneConfig(
            data_dir=directory / "control-plane",
            certificate_lifetime_s=int(LEAF_S),
            push_debounce_s=0.0,
            ca=CaConfig(
                root_lifetime_s=ROOT_S,
                intermediate_lifetime_s=INTERMEDIATE_S,
                jwt_key_lifetime_s=INTERMEDIATE_S,
                node_lifetime_s=4 * LEAF_S,
            ),
            limits=Limits(join_burst=1_000, join_rate_per_s=100.0),
        )
        self.control = Control(config, self.now)
        self.network = Network(control=self.control, losing=lambda: self._rng.random() < LOST_SHARE)
        self._verifier = Verifier()
        self.nodes = [
            Node(
                number,
                directory,
                service=f"service-{number // NODES_PER_SERVICE}",
                now=self.now,
                rng=self._rng,
                changed=self._node_changed,
                new_token=self._token_wanted,
                view=self._verifier.view,
            )
            for number in range(node_count)
        ]
        self._faults = schedule(self._rng, node_count, rates, from_s=SETTLED_S, until_s=days * DAY_S)
        self._taken: list[Taken] = []
        self._revoked: dict[str, float] = {}
        """SPIFFE ID -> since when."""
        self._since: dict[tuple[str, int], float] = {}
        """(what, node) -> true time from which it holds without a break: sound, reachable, on."""
        self._up_since = 0.0
        """Of the control plane."""
        self._tokens_wanted: set[int] = set()
        self._nursery: trio.Nursery | None = None

    def now(self) -> float:
        """True Unix seconds."""
        return BEGAN_AT + trio.current_time()

    # The run

    async def run(self) -> Report:
        self.control.start()
        self._up_since = self.now()
        for node in self.nodes:
            self._give_token(node)
            for what in ("on", "reachable", "sound"):
                self._since[what, node.number] = self.now()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.control.housekeeping, HOUSEKEEPING_S)
            nursery.start_soon(self._watch)
            self._nursery = nursery
            for node in self.nodes:
                nursery.start_soon(node.live)
            for fault in self._faults:
                await trio.sleep_until(fault.at)
                nursery.start_soon(self._befall, fault)
            await trio.sleep_until(self._days * DAY_S)
            nursery.cancel_scope.cancel()
        self.report.asked, self.report.verified = self._verifier.asked, self._verifier.verified
        self.report.happened["roots made"] = self._count(Level.ROOT)
        self.report.happened["intermediates made"] = self._count(Level.INTERMEDIATE)
        self.control.stop()
        return self.report

    def _count(self, level: Level) -> int:
        return sum(one.level is level for one in self.control.state.store.authorities()) if self.control.is_up else 0

    # Faults

    async def _befall(self, fault: Fault) -> None:
        self.report.happened[fault.kind] += 1
        match fault.kind:
            case "restart":
                await self._restart(self.nodes[fault.nodes[0]], fault.for_s)
            case "partition":
                await self._partition(fault)
            case "jump":
                await self._jump(self.nodes[fault.nodes[0]], fault)
            case "control plane down":
                await self._control_down(fault.for_s)
            case "revoke identity":
                await self._revoke_identity(self.nodes[fault.nodes[0]], fault.for_s)
            case "revoke serial":
                self._revoke_serial(self.nodes[fault.nodes[0]])
            case "prepare root":
                await self._rotate_root()
            case "taint intermediate":
                await self._taint_intermediate()
            case other:
                raise AssertionError(f"no such fault: {other}")
        self._step()

    async def _restart(self, node: Node, down_s: float) -> None:
        if not node.is_on:
            return
        node.off()
        await trio.sleep(down_s)
        node.on()
        self._since["on", node.number] = self.now()

    async def _partition(self, fault: Fault) -> None:
        cut = [number for number in fault.nodes if number not in self.network.cut_off]
        for number in cut:
            self.network.cut(number)
        await trio.sleep(fault.for_s)
        for number in cut:
            self.network.mend(number)
            self._since["reachable", number] = self.now()

    async def _jump(self, node: Node, fault: Fault) -> None:
        if node.offset_s:
            return
        node.offset_s = fault.by_s
        await trio.sleep(fault.for_s)
        node.offset_s = 0.0
        self._since["sound", node.number] = self.now()

    async def _control_down(self, for_s: float) -> None:
        if not self.control.is_up:
            return
        self.control.stop()
        self.network.went_down()
        await trio.sleep(for_s)
        self.control.start()
        self._up_since = self.now()

    async def _revoke_identity(self, node: Node, for_s: float) -> None:
        identity = identity_of(node)
        if identity in self._revoked or not self._operate(
            "Admin/Revoke", admin_pb2.RevokeRequest(kind="identity", value=identity, reason="simulated")
        ):
            return
        self._revoked[identity] = self.now()
        holders = [one for one in self.nodes if one.service == node.service and one.shown is not None]
        taken = [Taken(shown=one.shown, at=self.now(), why="identity") for one in holders if one.shown is not None]
        self._taken += taken
        await trio.sleep(for_s)
        self._taken = [one for one in self._taken if one not in taken]
        while not self._operate("Admin/Reinstate", admin_pb2.ReinstateRequest(kind="identity", value=identity)):
            await trio.sleep(HOUR_S)
        await trio.sleep(REVOKED_S)  # it takes as long to be trusted again
        del self._revoked[identity]
        for one in self.nodes:
            if one.service == node.service:
                self._since["on", one.number] = self.now()

    def _revoke_serial(self, node: Node) -> None:
        if node.shown is None or not self._is_well(node):
            return
        request = admin_pb2.RevokeRequest(kind="serial", value=f"{node.shown.serial:x}", reason="simulated")
        if self._operate("Admin/Revoke", request):
            self._taken.append(Taken(shown=node.shown, at=self.now(), why="serial"))
            self._since["on", node.number] = self.now()

    async def _rotate_root(self) -> None:
        """By command. An operator who does not want to wait asks every day, and is refused while it would hurt."""
        if not self._operate("Admin/CaStep", admin_pb2.CaStepRequest(step="prepare", level="root")):
            return
        await trio.sleep(HOUR_S)
        while not self._operate("Admin/CaStep", admin_pb2.CaStepRequest(step="activate", level="root")):
            await trio.sleep(DAY_S)

    async def _taint_intermediate(self) -> None:
        """An operator who fears for a key: another takes over, the one before is left by all, then revoked."""
        if not self.control.is_up:
            return
        before = next(
            one
            for one in self.control.state.store.authorities()
            if one.level is Level.INTERMEDIATE and one.phase is Phase.ACTIVE
        )
        for step in ("prepare", "activate"):
            self._operate("Admin/CaStep", admin_pb2.CaStepRequest(step=step, level="intermediate"))
        for step, wait_s in (("taint", 60 * DAY_S), ("revoke", 0.0)):
            request = admin_pb2.CaStepRequest(step=step, authority_id=before.authority_id)
            self.report.happened[step] += bool(self._operate("Admin/CaStep", request))
            await trio.sleep(wait_s)

    def _operate(self, method: str, request: object) -> bool:
        """What an operator types; False if it was refused, as it may rightly be."""
        if not self.control.is_up:
            return False
        try:
            self.control.operate(f"/hauberk.v1.{method}", request)  # type: ignore[arg-type]  # a message
        except ControlPlaneError as error:
            self.report.happened[f"refused: {method} {str(error)[:40]}"] += 1
            return False
        return True

    # Tokens

    def _give_token(self, node: Node) -> None:
        request = admin_pb2.CreateTokenRequest(service=node.service, namespace="shop", ttl_s=DAY_S)
        answer = self.control.operate("/hauberk.v1.Admin/CreateToken", request)
        node.token_file.write_text(answer.token)

    def _token_wanted(self, node: Node) -> None:
        """A sidecar ended because nothing helps but a new token: its operator makes one, when that is possible."""
        self.report.happened["new tokens"] += 1
        self._tokens_wanted.add(node.number)

    async def _watch(self) -> None:
        """Now and then: the operator answers, and everything is looked at although nothing happened."""
        while True:
            await trio.sleep(WATCH_S)
            if self.control.is_up:
                for number in list(self._tokens_wanted):
                    self._give_token(self.nodes[number])
                    self._tokens_wanted.discard(number)
            self._step()

    # Invariants

    def _node_changed(self, node: Node) -> None:
        if node.shown is not None and self._nursery is not None:
            self._nursery.start_soon(self._at_its_end, node, node.shown.not_after)
        self._step(node)

    async def _at_its_end(self, node: Node, not_after: float) -> None:
        """The moment a certificate ends is the one to look whether there is another."""
        await trio.sleep_until(not_after - BEGAN_AT)
        self._step(node)

    def _step(self, node: Node | None = None) -> None:
        """Something happened (to one node, if one is named): does everything hold?"""
        self.report.steps += 1
        now = self.now()
        for one in self.nodes if node is None else (node,):
            self._check_usable(one, now)
        receivers = self._receivers(now)
        senders = self._senders(now)
        if node is None:
            self._check_pairs(senders, receivers, now)
        else:
            self._check_pairs([one for one in senders if one is node], receivers, now)
            self._check_pairs(senders, [one for one in receivers if one is node], now)
        self._check_taken(receivers, now)

    def _check_usable(self, node: Node, now: float) -> None:
        if self._is_well(node) and (node.shown is None or node.shown.not_after <= now):
            self._broken(f"{node} has no certificate, although nothing is in its way")

    def _check_pairs(self, senders: list[Node], receivers: list[Node], now: float) -> None:
        for (view, offset_s, hears), alike in self._alike(receivers, now).items():
            for sender in senders:
                assert sender.shown is not None
                why = self._verifier.refusal(sender.shown, view, now + offset_s)
                if why and (hears or not why.startswith("revoked")):
                    self._broken(f"{alike[0]} does not take {sender}: {why}")

    def _alike(self, receivers: list[Node], now: float) -> dict[tuple[View, float, bool], list[Node]]:
        """Who would answer the same."""
        groups: defaultdict[tuple[View, float, bool], list[Node]] = defaultdict(list)
        for one in receivers:
            assert one.view is not None
            groups[one.view, one.offset_s, self._hears(one, now)].append(one)
        return groups

    def _check_taken(self, receivers: list[Node], now: float) -> None:
        self._taken = [one for one in self._taken if one.shown.not_after + SKEW_S > now]
        late = [one for one in self._taken if now >= one.at + REVOKED_S]
        for (view, offset_s, hears), alike in self._alike(receivers, now).items():
            for one in late if hears else ():
                if not self._verifier.refusal(one.shown, view, now + offset_s):
                    self._broken(f"{alike[0]} takes what was revoked by {one.why} {now - one.at:g} s ago")

    def _receivers(self, now: float) -> list[Node]:
        """Who is there to be shown something, with a certificate of its own and a clock in its right mind."""
        return [
            one
            for one in self.nodes
            if one.view is not None and one.shown is not None and self._is_sound(one, now) and one.shown.not_after > now
        ]

    def _senders(self, now: float) -> list[Node]:
        """Whose certificate everybody must take."""
        taken = {one.shown.serial for one in self._taken}
        return [
            one
            for one in self.nodes
            if one.shown is not None
            and one.shown.not_before + 2 * SKEW_S <= now < one.shown.not_after - SKEW_S
            and one.shown.serial not in taken
            and str(one.shown.identity) not in self._revoked
        ]

    def _is_well(self, node: Node) -> bool:
        """Has nothing been in the way of a certificate for long enough?"""
        now = self.now()
        return (
            self._hears(node, now)
            and node.is_on
            and now - self._since["on", node.number] > RECOVERY_S
            and node.number not in self._tokens_wanted
        )

    def _hears(self, node: Node, now: float) -> bool:
        """Has nothing been in the way of what the control plane says for long enough?"""
        since = max(self._since["reachable", node.number], self._up_since)
        return (
            self.control.is_up
            and self.network.is_reachable(node.number)
            and self._is_sound(node, now)
            and identity_of(node) not in self._revoked
            and now - since > RECOVERY_S
            and now - self._since["on", node.number] > RECOVERY_S
        )

    def _is_sound(self, node: Node, now: float) -> bool:
        since = now - self._since["sound", node.number]
        return abs(node.offset_s) <= SKEW_S and since > SLICE_S + RECOVERY_S

    def _broken(self, what: str) -> None:
        day = trio.current_time() / DAY_S
        raise Broken(f"seed {self.report.seed}, day {day:.4f}, step {self.report.steps}: {what}")


def identity_of(node: Node) -> str:
    return f"spiffe://mesh.local/ns/shop/sa/{node.service}"


@contextlib.contextmanager
def in_memory(network: Network) -> Iterator[None]:
    """While the block runs, sidecars talk through `network`, and wait in longer slices."""

    def contexts(svid: X509Svid | None, bundle: TrustBundle) -> Contexts:
        return Contexts(svid=svid, bundle=bundle)

    replaced: dict[str, object] = {
        "sidecar.control.identity_calls.open_channel": network.open_channel,
        "sidecar.control.identity_calls.client_context": contexts,
        "sidecar.control.watcher.client_context": contexts,
        "sidecar.control.watcher.HEARTBEAT_S": HEARTBEAT_S,
        "sidecar.identity.join_port.open_channel": network.open_channel,
        "sidecar.identity.join_port.open_unverified_channel": network.open_unverified_channel,
        "sidecar.identity.join_port.client_context": contexts,
        "sidecar.identity.bootstrap.client_context": contexts,
        "sidecar.identity.bootstrap._find_anchor": network.find_anchor,
        "sidecar.identity.source.client_context": contexts,
        "sidecar.identity.source.server_context": contexts,
        "sidecar.identity.rotator.SLICE_S": SLICE_S,
        "sidecar.identity.rotator.Backoff": slow_backoff,
        "sidecar.membership.Backoff": slow_backoff,
        "sidecar.control.watcher.Backoff": slow_backoff,
        "sidecar.rules.decode.LIFETIME_S_MAX": LEAF_S,
        "control_plane.config.CERTIFICATE_LIFETIME_S_MAX": LEAF_S,
        "control_plane.config_ca.CaPolicy": partial(CaPolicy, leaf_lifetime_max_s=LEAF_S),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in replaced.items():
            patch.setattr(name, value)
        yield


def slow_backoff(rng: random.Random, *, base_s: float = 0.1, max_s: float = 10.0, jitter: float = 0.1) -> Backoff:
    return Backoff(rng, base_s=base_s * SCALE, max_s=max_s * SCALE, jitter=jitter)


def run(
    directory: Path,
    seed: int,
    *,
    nodes: int = 200,
    days: float = YEAR_S / DAY_S,
    rates: Rates | None = None,
    prepare: Callable[[World], object] = lambda world: None,
) -> Report:
    """One simulation. Raises Broken."""

    async def main() -> Report:
        world = World(directory, seed, nodes, rates or Rates(), days)
        prepare(world)
        with in_memory(world.network):
            return await world.run()

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
