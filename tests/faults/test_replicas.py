"""Two replicas of a service: one is stopped in order, one is killed; callers should hardly notice (R14, R15, R16)."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.clients import ask, load, outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh, eventually

IN_FLIGHT_MAX = 6
"""Requests that may be with the victim when it dies: one of each of the load's threads, and some on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    web: Member

    def replica(self, number: int) -> Member:
        member = self.mesh.run(f"orders-{number}", WEB_APP, service="orders", inbound=[Inbound(8080)], access_log="off")
        self.mesh.wait_ready(member)
        eventually(lambda: member.name in self.names(), 10, f"{member.name} is known")
        return member

    def names(self) -> list[str]:
        """Replicas with an endpoint, by the name this file gave them."""
        addresses = {one.get("address") for one in self.mesh.workloads() if one["service"] == "orders"}
        mine = [one for one in self.mesh.processes if one.name.startswith("orders-") and one.is_running]
        return [one.name for one in mine if any(f'"address": "{address}"' in one.log for address in addresses)]


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Mesh(tmp_path_factory.mktemp("replicas")) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        shop = Shop(mesh=mesh, web=web)
        mesh.wait_ready(web)
        yield shop


def served(member: Member) -> int:
    """Requests its sidecar has passed to the app."""
    lines = member.page("/metrics")[1].splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("hauberk_requests_total{") and 'direction="inbound"' in line
    )


def test_r14_r16_a_rolling_restart_under_load_fails_no_request(shop: Shop) -> None:
    """SIGTERM: deregister, then drain, then the app. One replica after the other, each replaced first."""
    replicas = [shop.replica(0), shop.replica(1)]
    shop.mesh.wait_reached(shop.web, "orders")
    with load(shop.web.ports["orders"], kept=3, fresh=1, pause_s=0.01) as seen:
        for number in (2, 3):
            eventually(lambda: seen.failed or all(served(one) for one in replicas), 20, "both replicas serve")
            leaving = replicas.pop(0)
            assert leaving.process.stop() in (0, 143)
            replicas.append(shop.replica(number))
        answered = seen.answered
        eventually(lambda: seen.failed or seen.answered > answered + 100, 20, "load goes on")
        assert seen.failed == 0, (seen.counted, seen.failures)


def test_r15_a_killed_sidecar_costs_no_more_than_what_it_had_in_hand(shop: Shop) -> None:
    """kill -9: its app dies with it, requests in flight may fail, new ones go to the other replica at once."""
    victim, other = shop.replica(0), shop.replica(1)
    shop.mesh.wait_reached(shop.web, "orders")
    with load(shop.web.ports["orders"], kept=3, fresh=1, pause_s=0.01) as seen:
        eventually(lambda: all(served(one) for one in (victim, other)), 20, "both replicas serve")
        victim.process.kill()
        answered, failed = seen.answered, seen.failed
        eventually(lambda: seen.answered > answered + 200, 20, "load goes on")
        assert seen.failed - failed <= IN_FLIGHT_MAX, (seen.counted, seen.failures)
        settled = seen.failed
        eventually(lambda: shop.names() == [other.name], 10, "the dead endpoint is gone from the registry")
        answered = seen.answered
        eventually(lambda: seen.answered > answered + 100, 20, "load goes on")
        assert seen.failed == settled, (seen.counted, seen.failures)
    eventually(lambda: outcome(victim.app) == "ConnectionRefusedError", 5, "the app died with its sidecar")
    again = shop.replica(2)
    eventually(lambda: outcome(shop.web.ports["orders"]) == 200 and served(again) > 0, 10, "a new one takes its share")


def test_r15_a_killed_app_is_a_503_and_then_nobody(shop: Shop) -> None:
    """`hauberk run` ends with it; callers hear 503, not silence, until there is another."""
    alone = shop.replica(0)
    shop.mesh.wait_reached(shop.web, "orders")
    pid = next(int(json.loads(line)["pid"]) for line in alone.process.log.splitlines() if "the app was started" in line)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: outcome(shop.web.ports["orders"]) == 503, 5, "callers are told")
    assert alone.process.wait() == 137
    assert outcome(shop.web.ports["orders"]) == 503
    shop.replica(1)
    eventually(lambda: outcome(shop.web.ports["orders"]) == 200, 10, "the next one is found")
    assert ask(shop.web.ports["orders"], "/echo", "POST", b"abc").status == 200
