"""What operators and observers of a mesh under test do: steps of the CA, revocations, counting."""

from __future__ import annotations

import time
from collections.abc import Sequence

from protos.hauberk.v1 import admin_pb2 as pb
from tests.e2e.harness import Member, Mesh, eventually

ALL_KNOW_S = 15.0
RETIRED_S = 30.0


def authorities(mesh: Mesh, level: str, *phases: str) -> list[pb.Authority]:
    """Oldest first. Without `phases`: in any."""
    status = mesh.operator("Admin/CaStatus", pb.CaStatusRequest(), pb.CaStatusResponse)
    return [one for one in status.authorities if one.level == level and (not phases or one.phase in phases)]


def active(mesh: Mesh, level: str) -> str:
    """Its id. There is exactly one."""
    (found,) = authorities(mesh, level, "active")
    return found.authority_id


def step(mesh: Mesh, name: str, level: str = "", authority_id: str = "", *, force: bool = False) -> pb.CaStepResponse:
    request = pb.CaStepRequest(step=name, level=level, authority_id=authority_id, force=force)
    return mesh.operator("Admin/CaStep", request, pb.CaStepResponse)


def rotate_intermediate(mesh: Mesh) -> str:
    """A new one signs. Returns the one before."""
    before = active(mesh, "intermediate")
    step(mesh, "prepare", "intermediate")
    step(mesh, "activate", "intermediate")
    assert active(mesh, "intermediate") != before
    return before


def prepare_root(mesh: Mesh) -> str:
    """A new one, known to every sidecar. Returns its id; the next `activate` is not refused."""
    made = step(mesh, "prepare", "root").authority.authority_id
    wait_known(mesh, made)
    return made


def wait_known(mesh: Mesh, root: str) -> None:
    def is_known() -> bool:
        request = pb.CaStepRequest(step="activate", level="root", authority_id=root, dry_run=True)
        return not mesh.operator("Admin/CaStep", request, pb.CaStepResponse).breaks

    eventually(is_known, ALL_KNOW_S, "every sidecar says that it knows the new root")


def activate_root(mesh: Mesh, root: str) -> None:
    """And the first intermediate under it signs."""
    step(mesh, "activate", "root", root)
    eventually(lambda: authorities(mesh, "intermediate", "active")[0].parent_id == root, 10, "it signs")


def revoked_root(mesh: Mesh, root: str) -> float:
    """Waits until time has retired it. Monotonic seconds of when that was seen."""

    def is_gone() -> bool:
        return all(one.phase == "revoked" for one in authorities(mesh, "root") if one.authority_id == root)

    eventually(is_gone, RETIRED_S, "nothing hangs on the old root any more")
    return time.monotonic()


def renewals(members: Sequence[Member]) -> int:
    """Of all together."""
    return sum(int(one.status.get("renewals", 0)) for one in members)


def address_of(mesh: Mesh, service: str) -> str:
    """Of the mesh listener of its one endpoint."""
    (found,) = [one["address"] for one in mesh.workloads() if one["service"] == service and one.get("address")]
    return str(found)


def counter(member: Member, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = [line for line in member.page("/metrics")[1].splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
