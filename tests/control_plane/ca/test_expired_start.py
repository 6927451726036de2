"""A control plane whose every certificate has expired, on real sockets: it comes up far enough to be brought back."""

from __future__ import annotations

import time
from pathlib import Path

from control_plane.ca.slots import CaPolicy
from protos.hauberk.v1 import admin_pb2
from tests.control_plane.support import asyncio_test, open_ca, refusal, running

SHORT = CaPolicy(root_lifetime_s=60.0, intermediate_lifetime_s=30.0, jwt_key_lifetime_s=30.0, leaf_lifetime_s=10.0)


@asyncio_test
async def test_an_operator_can_look_at_a_mesh_in_which_everything_has_expired(tmp_path: Path) -> None:
    """The socket answers; nobody can join, and is told to come back; nothing ends."""
    old = open_ca(tmp_path / "cp", time.time() - 10_000, policy=SHORT)
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status = await operator.status()
        assert status.anchor_sha256 == old.pin.hex()
        assert status.anchor_not_after < time.time()
        shown = await operator.call("Admin/CaStatus", admin_pb2.CaStatusRequest(), admin_pb2.CaStatusResponse)
        assert any("expired" in alarm for alarm in shown.alarms)
        code, _ = await refusal(mesh.join())
        assert code in ("UNAVAILABLE", "FAILED_PRECONDITION")
