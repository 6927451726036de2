"""Whoever loses a right loses it within seconds, open connections included, and nobody else notices (R07, R08)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from protos.hauberk.v1 import admin_pb2 as pb
from sidecar.control.watcher import HEARTBEAT_S
from sidecar.trust import REISSUED_SPREAD_S
from tests.e2e.clients import Wire, outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh, eventually
from tests.faults.callers import Callers, calling
from tests.faults.operating import activate_root, active, address_of, authorities, prepare_root, step
from tests.faults.thief import Holder, steal

REFUSED_S = 5.0
LIFETIME_S = 600
"""Of leaves: nothing here is waited out."""
OTHERS = 3
COME_AGAIN_S = REISSUED_SPREAD_S + 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    orders: Member
    web: Member
    """Nobody takes anything away from it."""
    guest: Member
    others: tuple[Member, ...]
    token: str
    """The id of the one `guest` joined with."""

    def workload(self, service: str) -> dict[str, object]:
        (found,) = [one for one in self.mesh.workloads() if one["service"] == service and one.get("connected")]
        return found

    def revoke(self, kind: str, value: str) -> float:
        """Monotonic seconds of when that was acknowledged."""
        request = pb.RevokeRequest(kind=kind, value=value, reason="a test")
        assert self.mesh.operator("Admin/Revoke", request, pb.RevokeResponse).changed
        return time.monotonic()


@contextmanager
def shop(directory: Path) -> Iterator[Shop]:
    with Mesh(directory, certificate_lifetime_s=LIFETIME_S) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        token = mesh.token("guest")
        guest = mesh.sidecar("guest", calls={"orders": 8080}, token=token, access_log="denied")
        others = tuple(mesh.sidecar(f"other-{number}", access_log="off") for number in range(OTHERS))
        mesh.wait_ready(orders, web, guest, *others)
        mesh.wait_reached(web, "orders")
        mesh.wait_reached(guest, "orders")
        token_id = token.read_text().split(".")[1]
        yield Shop(mesh=mesh, orders=orders, web=web, guest=guest, others=others, token=token_id)


@contextmanager
def load(shop: Shop) -> Iterator[Callers]:
    """Of those who did nothing wrong."""
    with calling(shop.web.ports["orders"]) as callers:
        eventually(lambda: callers.answered > 50, 20, "load flows")
        yield callers
        answered = callers.answered
        eventually(lambda: callers.failed or callers.answered > answered + 50, 20, "load still flows")
    callers.assert_unharmed()


def wait_reissued(members: Sequence[Member], before: Sequence[int]) -> None:
    """`before`: how often each had renewed."""
    eventually(
        lambda: all(one.status["renewals"] > was for one, was in zip(members, before, strict=True)),
        2 * HEARTBEAT_S, "every certificate is re-issued",
    )  # fmt: skip


def wait_come_again() -> None:
    """Until callers are on connections made with the new certificates. Whoever is in a hurry does without, and the
    requests that are under way on the others break off."""
    since = time.monotonic()
    eventually(lambda: time.monotonic() > since + COME_AGAIN_S, COME_AGAIN_S + 1, "time goes by")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["identity", "serial", "token"])
def test_r08_a_revoked_workload_is_refused_within_seconds(tmp_path: Path, kind: str) -> None:
    """By its identity, its certificate or its join token. What it streams is cut, the pooled connection of its sidecar
    is worth nothing, and it gets no new certificate; the others are served without a failure."""
    with shop(tmp_path) as here, load(here), Wire(here.guest.ports["orders"]) as wire:
        wire.send(b"GET /events HTTP/1.1\r\nhost: orders\r\n\r\n")
        wire.until(b"data: 0")
        assert outcome(here.guest.ports["orders"]) == 200
        guest = here.workload("guest")
        value = {"identity": guest["spiffe_id"], "serial": guest["certificate_serial"], "token": here.token}[kind]
        renewals = here.guest.status["renewals"]
        revoked_at = here.revoke(kind, str(value))
        assert not wire.rest().endswith(b"0\r\n\r\n"), "the stream was cut, not finished"
        assert time.monotonic() - revoked_at <= REFUSED_S
        eventually(lambda: outcome(here.guest.ports["orders"]) != 200, REFUSED_S, "nothing it asks is answered")
        assert time.monotonic() - revoked_at <= REFUSED_S
        eventually(lambda: not here.guest.is_connected, REFUSED_S, "the control plane does not speak to it either")
        if kind != "serial":  # with another certificate of the same node the workload may be well again
            assert outcome(here.guest.ports["orders"]) != 200
            assert here.guest.status["renewals"] == renewals


@pytest.mark.slow
def test_r08_a_revoked_intermediate_s_holders_are_refused_and_everybody_else_has_another(tmp_path: Path) -> None:
    """Somebody has the key that signs. Another one signs, the stolen one is tainted: within two heartbeats everybody
    holds a new certificate; it is revoked: the thief is out within 5 s, over open connections and new ones."""
    with shop(tmp_path) as here, load(here):
        mesh = here.mesh
        stolen = active(mesh, "intermediate")
        members = (here.orders, here.web, here.guest, *here.others)
        with Holder(steal(mesh.data_dir), mesh.directory, address_of(mesh, "orders")) as holder:
            eventually(lambda: holder.is_open and holder.taken, 10, "the thief is served")
            before = [one.status["renewals"] for one in members]
            step(mesh, "prepare", "intermediate")
            step(mesh, "activate", "intermediate")
            tainted_at = time.monotonic()
            step(mesh, "taint", authority_id=stolen)
            wait_reissued(members, before)
            assert time.monotonic() - tainted_at <= 2 * HEARTBEAT_S
            wait_come_again()
            assert holder.is_open, "tainted is still trusted"
            step(mesh, "revoke", authority_id=stolen, force=True)
            revoked_at = time.monotonic()
            eventually(lambda: holder.is_out, REFUSED_S, "the thief is out")
            assert max(holder.taken_at, holder.ended_at) - revoked_at <= REFUSED_S
        assert all(one.is_ready for one in members)


@pytest.mark.slow
def test_r07_a_dropped_root_s_holder_is_refused_over_the_connection_it_keeps(tmp_path: Path) -> None:
    """Its certificate and the victim's would be good for many minutes: only the anchor is gone. Dropping it while
    certificates stand under it is refused, and who would lose by it is named; with force it is done."""
    with shop(tmp_path) as here, load(here):
        mesh = here.mesh
        old = active(mesh, "root")
        members = (here.orders, here.web, here.guest, *here.others)
        before = [one.status["renewals"] for one in members]
        with Holder(steal(mesh.data_dir), mesh.directory, address_of(mesh, "orders")) as holder:
            eventually(lambda: holder.is_open and holder.taken, 10, "who stands under the old root is served")
            activate_root(mesh, prepare_root(mesh))
            opened = holder.opened
            refused = mesh.hauberk("ca", "revoke", old)
            assert refused.returncode == 1
            assert "spiffe://mesh.local/ns/shop/sa/" in refused.stderr
            step(mesh, "taint", authority_id=old)
            wait_reissued(members, before)
            wait_come_again()
            assert holder.is_open
            assert holder.opened == opened, "one connection, kept from before"
            step(mesh, "revoke", authority_id=old, force=True)
            gone_at = time.monotonic()
            eventually(lambda: holder.is_out, REFUSED_S, "its holder is out")
            assert max(holder.taken_at, holder.ended_at) - gone_at <= REFUSED_S
        assert [one.authority_id for one in authorities(mesh, "root", "active", "old", "tainted")] == [
            active(mesh, "root")
        ]
        assert all(one.is_ready for one in members)
