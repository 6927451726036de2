"""Clocks are set wrong by an hour, and right again, under load (R24, J02)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clients import Load, load, outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh, eventually
from tests.faults.environment import CLOCK_KNOWN_S, Machine

HOUR_S = 3_600
LIFETIME_S = 1_800
"""Half of a jump: certificates of before have ended after it, and those of after have not begun when it is undone."""
RECOVERED_S = 60.0
IN_A_ROW = 150
"""Answers without a failure in between."""
ISSUED_MAX = 3
"""Certificates for each sidecar and jump; more would be the beginning of a storm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    machine: Machine
    environ: dict[str, str]
    """Of sidecars."""
    members: tuple[Member, ...]
    seen: Load

    @property
    def issued(self) -> list[int]:
        return [int(one.status["renewals"]) for one in self.members]

    def set_clock(self, clock_s: int) -> float:
        """And wait until all processes know. Monotonic seconds of then."""
        self.machine.set(clock_s=clock_s)
        known = time.monotonic() + CLOCK_KNOWN_S
        eventually(lambda: time.monotonic() >= known, CLOCK_KNOWN_S + 1, "the clock is looked up")
        return known

    def wait_well(self, name: str, since: float) -> None:
        """Everybody is, requests pass one after the other, and so do those of a sidecar `name` that joins only now."""
        mark = [-1, 0]

        def is_well() -> bool:
            if self.seen.failed != mark[0]:
                mark[:] = self.seen.failed, self.seen.answered
            is_sound = all(one.is_ready and one.is_connected for one in self.members)
            return is_sound and self.seen.answered >= mark[1] + IN_A_ROW

        eventually(is_well, RECOVERED_S, "all is well")
        late = self.mesh.sidecar(name, calls={"orders": 8080}, environ=self.environ)
        self.mesh.wait_ready(late)
        eventually(lambda: outcome(late.ports["orders"]) == 200, RECOVERED_S, "a new caller is served")
        assert time.monotonic() - since <= RECOVERED_S
        for one in self.members:
            assert one.process.is_running


@contextmanager
def shop(directory: Path, who: str) -> Iterator[Shop]:
    """`who` has clocks that can be set: "everybody", "sidecars" or "control plane"."""
    machine = Machine(directory)
    environ = machine.environ if who != "control plane" else {}
    with Mesh(directory, certificate_lifetime_s=LIFETIME_S) as mesh:
        mesh.start_control_plane(machine.environ if who != "sidecars" else {})
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied", environ=environ)
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied", environ=environ)
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        with load(web.ports["orders"], pause_s=0.01) as seen:
            eventually(lambda: seen.answered > 50, 10, "load flows")
            yield Shop(mesh=mesh, machine=machine, environ=environ, members=(orders, web), seen=seen)


@pytest.mark.slow
def test_j02_r24_all_clocks_are_set_an_hour_ahead_and_back(tmp_path: Path) -> None:
    """Every certificate has ended in one moment, and later none has begun: each time everybody has another within 60 s,
    and nobody asks for many."""
    with shop(tmp_path, "everybody") as here:
        for clock_s, name in ((HOUR_S, "ahead"), (0, "back")):
            before = here.issued
            since = here.set_clock(clock_s)
            eventually(lambda: all(now > was for now, was in zip(here.issued, before, strict=True)),  # noqa: B023
                       RECOVERED_S, "everybody has another certificate")  # fmt: skip
            here.wait_well(name, since)
            assert all(now <= was + ISSUED_MAX for now, was in zip(here.issued, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("who", ["sidecars", "control plane"])
@pytest.mark.parametrize("wrong_s", [HOUR_S, -HOUR_S])
def test_j02_r24_some_clocks_are_set_wrong_and_right_again(tmp_path: Path, who: str, wrong_s: int) -> None:
    """While they are wrong nobody ends and nobody asks without a pause; connections there are go on. Within 60 s of
    their being right all is well, without a restart."""
    with shop(tmp_path, who) as here:
        here.set_clock(wrong_s)
        answered = here.seen.answered
        eventually(lambda: here.seen.answered + here.seen.failed > answered + IN_A_ROW, 20, "it is asked on")
        since = here.set_clock(0)
        here.wait_well("late", since)
        assert max(here.issued) <= ISSUED_MAX
        assert here.seen.failed == 0, (here.seen.counted, here.seen.failures)
