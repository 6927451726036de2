"""A mesh of many workloads for a year, in seconds: the simulation.

`run(seed, ...)` starts a control plane and its sidecars on trio's mock clock, lets befall them what `faults` has drawn
from the seed, and after every step asks `invariants`. The code is that which runs in production; what is replaced, all
of it by `in_memory`, is the wire (`network`), the TLS contexts (their facts are compared instead), and how often the
patient look at the clock: certificates live for days here, so a slice of waiting is hours. Paths to an anchor that were
found once are remembered while they hold, and snapshots that were read, for here everybody is one process.

Read it in this order: mesh, faults, invariants, checks, node, control,
network, in_memory, clock.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from control_plane.config import ControlPlaneConfig, Limits
from control_plane.config_ca import CaConfig
from control_plane.errors import ControlPlaneError, StartError
from control_plane.model import Level, Phase
from protos.hauberk.v1 import admin_pb2
from tests.sim.checks import Checks
from tests.sim.clock import JumpClock
from tests.sim.control import Control
from tests.sim.faults import DAY_S, HOUR_S, YEAR_S, Fault, Rates, schedule
from tests.sim.in_memory import LEAF_S, SLICE_S, collected_seldom, in_memory
from tests.sim.invariants import REVOKED_S, Broken, Verifier
from tests.sim.network import Network
from tests.sim.node import Node

BEGAN_AT = 1_800_000_000.0
"""True Unix time when the simulation begins."""
SETTLED_S = HOUR_S
"""Everybody has joined by then; faults begin."""
HOUSEKEEPING_S = 12 * HOUR_S
WATCH_S = 3 * HOUR_S
INTERMEDIATE_S, ROOT_S = 120 * DAY_S, 180 * DAY_S
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
    pairs: int = 0
    """Of somebody with a certificate and somebody who judges it, summed over the steps."""
    asked: int = 0
    """How often one of them had to be asked again."""
    verified: int = 0
    """How often nothing was remembered."""

    def __str__(self) -> str:
        events = ", ".join(f"{count} {what}" for what, count in sorted(self.happened.items()))
        facts = f"{self.steps} steps, {self.pairs} pairs, {self.asked} questions of trust, {self.verified} verified"
        return f"seed {self.seed}: {self.days:g} days, {facts}; {events}"


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
        self._control_offset_s = 0.0
        """Of the control plane's clock."""
        self.control = Control(config, lambda: self.now() + self._control_offset_s)
        self.network = Network(control=self.control, losing=lambda: self._rng.random() < LOST_SHARE)
        verifier = Verifier()
        self.nodes = [
            Node(
                number,
                directory,
                service=f"service-{number // NODES_PER_SERVICE}",
                now=self.now,
                rng=self._rng,
                changed=self._node_changed,
                new_token=self._token_wanted,
                view=verifier.view,
            )
            for number in range(node_count)
        ]
        self.checks = Checks(
            nodes=self.nodes,
            verifier=verifier,
            began_at=BEGAN_AT,
            slice_s=SLICE_S,
            is_reachable=lambda number: not self._control_offset_s and self.network.is_reachable(number),
            broken=self._broken,
        )
        self._faults = schedule(self._rng, node_count, rates, from_s=SETTLED_S, until_s=days * DAY_S)
        self._made: dict[str, Level] = {}
        """Authorities, by id; the store forgets them in the end."""
        self._nursery: trio.Nursery | None = None
        self._ends: dict[int, float] = {}
        """Of the certificates that `_at_its_end` waits for, by node."""

    def now(self) -> float:
        """True Unix seconds."""
        return BEGAN_AT + trio.current_time()

    # The run

    async def run(self) -> Report:
        self.control.start()
        for node in self.nodes:
            self._give_token(node)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.control.keep_house, HOUSEKEEPING_S)
            nursery.start_soon(self._watch)
            self._nursery = nursery
            for node in self.nodes:
                nursery.start_soon(node.live)
            for fault in self._faults:
                await trio.sleep_until(fault.at)
                nursery.start_soon(self._befall, fault)
            await trio.sleep_until(self._days * DAY_S)
            nursery.cancel_scope.cancel()
        self.report.pairs = self.checks.pairs
        self.report.asked, self.report.verified = self.checks.verifier.asked, self.checks.verifier.verified
        for level in (Level.ROOT, Level.INTERMEDIATE):
            self.report.happened[f"{level.value}s made"] = sum(one is level for one in self._made.values())
        if self.control.is_up:
            self.control.stop()
        return self.report

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
            case "control plane jump":
                await self._control_jump(fault)
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
        self.checks.again("on", node, self.now())

    async def _partition(self, fault: Fault) -> None:
        cut = [number for number in fault.nodes if number not in self.network.cut_off]
        for number in cut:
            self.network.cut(number)
        await trio.sleep(fault.for_s)
        for number in cut:
            self.network.mend(number)
            self.checks.again("reachable", self.nodes[number], self.now())

    async def _jump(self, node: Node, fault: Fault) -> None:
        if node.offset_s:
            return
        node.offset_s = fault.by_s
        self.checks.changed(node)
        await trio.sleep(fault.for_s)
        node.offset_s = 0.0
        self.checks.changed(node)
        self.checks.again("sound", node, self.now())

    async def _control_down(self, for_s: float) -> None:
        if not self.control.is_up:
            return
        self.control.stop()
        self.network.went_down()
        await trio.sleep(for_s)
        while not self._starts():
            await trio.sleep(HOUR_S)
        self.checks.up_since = self.now()

    def _starts(self) -> bool:
        try:
            self.control.start()
        except StartError:
            if not self._control_offset_s:
                raise
            return False  # its clock is behind the root's beginning
        return True

    async def _control_jump(self, fault: Fault) -> None:
        """Its clock is wrong for a while, and right again; until then it may refuse everybody, and everybody it."""
        if self._control_offset_s:
            return
        self._control_offset_s = fault.by_s
        self._housekeep()
        await trio.sleep(fault.for_s)
        self._control_offset_s = 0.0
        self._housekeep()
        self.checks.up_since = self.now()

    def _housekeep(self) -> None:
        if self.control.is_up:
            self.control.housekeep()

    async def _revoke_identity(self, node: Node, for_s: float) -> None:
        identity, checks = node.identity, self.checks
        if checks.is_revoked(identity) or not self._operate(
            "Admin/Revoke", admin_pb2.RevokeRequest(kind="identity", value=identity, reason="simulated")
        ):
            return
        checks.set_revoked(identity, True)
        holders = [one for one in self.nodes if one.service == node.service]
        taken = [checks.take(one, self.now(), "identity") for one in holders if one.shown is not None]
        for one in holders:
            checks.estrange(one)
        await trio.sleep(for_s)
        checks.give_back(taken)
        while not self._operate("Admin/Reinstate", admin_pb2.ReinstateRequest(kind="identity", value=identity)):
            await trio.sleep(HOUR_S)
        await trio.sleep(REVOKED_S)  # it takes as long to be trusted again
        checks.set_revoked(identity, False)
        for one in holders:
            checks.again("welcome", one, self.now())

    def _revoke_serial(self, node: Node) -> None:
        if node.shown is None or not self.checks.is_well(node, self.now()):
            return
        request = admin_pb2.RevokeRequest(kind="serial", value=f"{node.shown.serial:x}", reason="simulated")
        if self._operate("Admin/Revoke", request):
            self.checks.take(node, self.now(), "serial")
            self.checks.again("welcome", node, self.now())

    async def _rotate_root(self) -> None:
        """By command. An operator who does not want to wait asks every day, and is refused while it would hurt."""
        if not self._operate("Admin/CaStep", admin_pb2.CaStepRequest(step="prepare", level="root")):
            return
        await trio.sleep(HOUR_S)
        while not self._operate("Admin/CaStep", admin_pb2.CaStepRequest(step="activate", level="root")):
            await trio.sleep(DAY_S)
            if self.control.is_up and not self._has_prepared_root():
                return  # by itself

    def _has_prepared_root(self) -> bool:
        held = self.control.state.store.authorities()
        return any(one.level is Level.ROOT and one.phase is Phase.PREPARED for one in held)

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
        self.checks.without_token.add(node.number)

    async def _watch(self) -> None:
        """Now and then: the operator answers, and everything is looked at although nothing happened."""
        while True:
            await trio.sleep(WATCH_S)
            if self.control.is_up:
                self._made |= {one.authority_id: one.level for one in self.control.state.authority.authorities}
                for number in list(self.checks.without_token):
                    self._give_token(self.nodes[number])
                    self.checks.without_token.discard(number)
            self._step()

    # Invariants

    def _node_changed(self, node: Node) -> None:
        self.checks.changed(node)
        if node.shown is not None and self._nursery is not None and self._ends.get(node.number) != node.shown.not_after:
            self._ends[node.number] = node.shown.not_after
            self._nursery.start_soon(self._at_its_end, node.shown.not_after)
        self._step()

    async def _at_its_end(self, not_after: float) -> None:
        """The moment a certificate ends is the one to look whether there is another."""
        await trio.sleep_until(not_after - BEGAN_AT)
        self._step()

    def _step(self) -> None:
        """Something happened: does everything hold?"""
        self.report.steps += 1
        self.checks.step(self.now())

    def _broken(self, what: str) -> Broken:
        day = trio.current_time() / DAY_S
        return Broken(f"seed {self.report.seed}, day {day:.4f}, step {self.report.steps}: {what}")


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

    clock = JumpClock()

    async def main() -> Report:
        scheduler.seed(seed)
        world = World(directory, seed, nodes, rates or Rates(), days)
        prepare(world)
        with in_memory(world.network, clock):
            return await world.run()

    with pytest.MonkeyPatch.context() as patch, collected_seldom():
        # trio runs what is ready in an order of its own dice; with a seed the same run is the same again.
        patch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
        scheduler: random.Random = trio._core._run._r
        return trio.run(main, clock=clock)
