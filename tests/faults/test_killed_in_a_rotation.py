"""The control plane is killed (-9) in every phase of a rotation and started again (R09)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh, eventually
from tests.faults.callers import Callers, calling
from tests.faults.operating import active, authorities, renewals, step, wait_known

LIFETIME_S = 4
BACK_S = 15.0


class Rotation:
    """Of one level, with a kill after each step."""

    def __init__(self, mesh: Mesh, members: tuple[Member, ...], callers: Callers) -> None:
        self.mesh = mesh
        self.members = members
        self.callers = callers
        self.control_plane = mesh.processes[0]

    def kill(self) -> None:
        """And start: what was there before is there again, one of each level signs, everybody comes back, renews."""
        known = {
            level: {one.authority_id for one in authorities(self.mesh, level)} for level in ("root", "intermediate")
        }
        signing = active(self.mesh, "root"), active(self.mesh, "intermediate"), active(self.mesh, "jwt")
        self.control_plane.kill()
        self.control_plane = self.mesh.start_control_plane()
        assert (active(self.mesh, "root"), active(self.mesh, "intermediate"), active(self.mesh, "jwt")) == signing
        for level, before in known.items():
            assert {one.authority_id for one in authorities(self.mesh, level)} == before, level
        seen = renewals(self.members)
        self.until(lambda: all(one.is_connected for one in self.members), "all are connected again")
        self.until(lambda: renewals(self.members) >= seen + len(self.members), "certificates are renewed")

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        eventually(lambda: self.callers.failed or is_so(), BACK_S, what)
        self.callers.assert_unharmed()


@contextmanager
def rotation(directory: Path) -> Iterator[Rotation]:
    with Mesh(directory, certificate_lifetime_s=LIFETIME_S) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        with calling(web.ports["orders"]) as callers:
            eventually(lambda: callers.answered > 50, 20, "load flows")
            yield Rotation(mesh, (orders, web), callers)
        callers.assert_unharmed()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_r09_killed_in_every_phase_of_a_root_s_rotation_it_goes_on_from_there(tmp_path: Path) -> None:
    """Prepared, active, tainted, revoked: no second root is made, none is lost, no request fails."""
    with rotation(tmp_path) as it:
        mesh, old = it.mesh, active(it.mesh, "root")
        made = step(mesh, "prepare", "root").authority.authority_id
        it.kill()
        assert [one.authority_id for one in authorities(mesh, "root", "prepared")] == [made]
        wait_known(mesh, made)
        step(mesh, "activate", "root", made)
        it.kill()
        assert active(mesh, "root") == made
        it.until(lambda: under(mesh) == made, "an intermediate under it signs")
        step(mesh, "taint", authority_id=old)
        it.kill()
        it.until(lambda: phase_of(mesh, old) == "revoked", "nothing hangs on the old root any more")
        it.kill()
        assert active(mesh, "root") == made
        assert phase_of(mesh, old) == "revoked"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_r09_killed_in_every_phase_of_an_intermediate_s_rotation_it_goes_on_from_there(tmp_path: Path) -> None:
    """The same one level below."""
    with rotation(tmp_path) as it:
        mesh, root, old = it.mesh, active(it.mesh, "root"), active(it.mesh, "intermediate")
        made = step(mesh, "prepare", "intermediate").authority.authority_id
        it.kill()
        step(mesh, "activate", "intermediate", made)
        it.kill()
        assert active(mesh, "intermediate") == made
        it.until(lambda: phase_of(mesh, old) == "revoked", "nothing hangs on the old one any more")
        it.kill()
        assert (active(mesh, "root"), active(mesh, "intermediate")) == (root, made)


def under(mesh: Mesh) -> str:
    (signing,) = authorities(mesh, "intermediate", "active")
    return signing.parent_id


def phase_of(mesh: Mesh, authority_id: str) -> str:
    return next((one.phase for one in authorities(mesh, "root") + authorities(mesh, "intermediate")
                 if one.authority_id == authority_id), "revoked")  # fmt: skip
