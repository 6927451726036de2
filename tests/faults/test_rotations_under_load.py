"""Every level of certificates rotates under load: nobody notices but those who should (R05, R06, R07).

`HAUBERK_ROTATIONS=full` makes it 1,000 leaf, 50 intermediate and 10 root rotations.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import ALLOW_ALL, GRPC_APP, WEB_APP, Inbound, Member, Mesh, eventually
from tests.faults.callers import Callers, calling
from tests.faults.operating import (
    activate_root,
    active,
    address_of,
    prepare_root,
    renewals,
    revoked_root,
    rotate_intermediate,
)
from tests.faults.thief import Holder, steal

LIFETIME_S = 2
"""Of leaves. They end on whole seconds, so they live up to 3 s."""
DROPPED_S = 5.0
"""After its root is gone nobody who stands under it is served (row R07, as the project's goal tightens it)."""
STREAM_S_MIN = 0.4
"""A stream is cut when its certificates end, and no connection takes one in the second half of what is left of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """How often each level rotates at least."""

    leaves: int
    intermediates: int
    roots: int
    replicas: int
    """Of sidecars that only rotate."""
    bound_s: float


SHORT = Goal(leaves=40, intermediates=4, roots=2, replicas=0, bound_s=90)
FULL = Goal(leaves=1_000, intermediates=50, roots=10, replicas=3, bound_s=1_500)
GOAL = FULL if os.environ.get("HAUBERK_ROTATIONS") == "full" else SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    members: tuple[Member, ...]
    web: Member


@contextmanager
def shop(directory: Path, replicas: int, **control_plane: object) -> Iterator[Shop]:
    with Mesh(directory, certificate_lifetime_s=LIFETIME_S, **control_plane) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        greeter = mesh.run("greeter", GRPC_APP, inbound=[Inbound(9090, protocol="http2")], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080, "greeter": 9090}, access_log="denied")
        others = [mesh.sidecar(f"other-{number}", access_log="off") for number in range(replicas)]
        members = (orders, greeter, web, *others)
        mesh.wait_ready(*members)
        mesh.wait_reached(web, "orders", "greeter")
        yield Shop(mesh=mesh, members=members, web=web)


@contextmanager
def load(shop: Shop) -> Iterator[Callers]:
    ports = shop.web.ports
    with calling(ports["orders"], grpc_port=ports["greeter"], streams=True) as callers:
        eventually(lambda: all(one.answered for one in callers.kinds.values()), 20, "all kinds of load flow")
        yield callers
    callers.assert_unharmed()


def report(callers: Callers, shop: Shop, **more: object) -> None:
    """Shown with -s or -rP."""
    lasted = sorted(one.lasted_s for one in callers.streams)
    print({**more, "leaves": renewals(shop.members), "callers": callers, "streams lasted": (lasted[:3], lasted[-1:])})


def root_rotation(shop: Shop, callers: Callers) -> float:
    """One in three phases. Returns how long the old root's holder was served after the root's end, in seconds."""
    mesh = shop.mesh
    old = active(mesh, "root")
    thief = steal(mesh.data_dir)
    with Holder(thief, mesh.directory, address_of(mesh, "orders")) as holder:
        eventually(lambda: holder.is_open and holder.taken, 10, "who has a certificate under the old root is served")
        new = prepare_root(mesh)
        eventually(lambda: holder.is_open, 10, "the victim's own certificate may have ended its stream: it has another")
        activate_root(mesh, new)
        gone = revoked_root(mesh, old)
        eventually(lambda: holder.is_out or callers.failed, DROPPED_S, f"it is refused, open connections too: {holder}")
        callers.assert_unharmed()
        return max(0.0, holder.taken_at - gone, holder.ended_at - gone)


@pytest.mark.slow
@pytest.mark.timeout(GOAL.bound_s + 120)
def test_r05_r06_r07_every_level_rotates_under_load_and_no_request_fails(tmp_path: Path) -> None:
    """Leaves by time, intermediates and roots by the operator's steps; after each root's end its holder is refused
    within 5 s, over open connections and new ones. Long streams end with their certificates and not sooner."""
    with shop(tmp_path, GOAL.replicas) as here, load(here) as callers:
        began, intermediates, dropped = time.monotonic(), 0, []
        before = renewals(here.members)
        for _ in range(GOAL.roots):
            for _ in range(-(-GOAL.intermediates // GOAL.roots)):
                rotate_intermediate(here.mesh)
                intermediates += 1
                seen = renewals(here.members)
                eventually(
                    lambda: callers.failed or renewals(here.members) >= seen + len(here.members),  # noqa: B023
                    20, "leaves are renewed under it",
                )  # fmt: skip
                callers.assert_unharmed()
            dropped.append(root_rotation(here, callers))
        eventually(
            lambda: callers.failed or renewals(here.members) - before >= GOAL.leaves,
            GOAL.bound_s - (time.monotonic() - began), f"{GOAL.leaves} leaf rotations",
        )  # fmt: skip
        report(callers, here, intermediates=intermediates, dropped_s=dropped, took_s=time.monotonic() - began)
        assert max(dropped) <= DROPPED_S
        assert intermediates >= GOAL.intermediates
        assert callers.streams, "there were streams that their certificates ended"
        assert min(one.lasted_s for one in callers.streams) >= STREAM_S_MIN, callers.streams
        for one in here.members:
            assert one.process.is_running


@pytest.mark.slow
def test_r06_intermediates_turn_over_by_themselves_under_load(tmp_path: Path) -> None:
    """Prepared at half of their life, active in its last third, retired when nothing hangs on them."""
    with shop(tmp_path, 0, ca={"intermediate_lifetime_s": 9, "root_lifetime_s": 3_600}) as here, load(here) as callers:
        seen = {active(here.mesh, "intermediate")}
        root = active(here.mesh, "root")

        def turned() -> bool:
            seen.add(active(here.mesh, "intermediate"))
            return len(seen) > 3 or callers.failed > 0

        eventually(turned, 60, "three successors took over")
        assert active(here.mesh, "root") == root
