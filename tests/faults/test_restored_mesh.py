"""A mesh whose control plane was restored from an old backup, as a sidecar sees it (J07, R26)."""

from __future__ import annotations

from pathlib import Path

from control_plane.backup import make
from control_plane.restore import restore
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.control.subscription import Accepted, Subscription
from sidecar.rules.slices import at_once
from tests.control_plane.support import asyncio_test, policy_yaml, running, watching


@asyncio_test
async def test_j07_r26_a_sidecar_that_holds_later_versions_takes_the_restored_ones(tmp_path: Path) -> None:
    """On a new stream to the restored control plane: smaller version, larger epoch. Its certificate is still good."""
    backup = tmp_path / "backup"
    async with running(tmp_path) as mesh:
        svid = await mesh.join("web")
        data_dir = mesh.config.data_dir
        async with mesh.operator() as operator, mesh.as_member(svid) as member:
            kek = (data_dir / "kek.key").read_bytes()
            make(data_dir, backup, release="1", now=0.0, kek=kek)
            for count in range(3):
                await operator.apply(
                    policy_yaml(f"web{count}"), policy_yaml("web", principal=f"mesh.local/ns/shop/sa/p{count}")
                )
            held = await (await watching(member)).taken()
    done = restore(data_dir, backup, replace=True, by="ann", now=0.0, kek=kek)
    async with running(tmp_path) as mesh, mesh.as_member(svid) as member:
        again = await (await watching(member)).taken()
    assert again.epoch == done.epoch > held.epoch
    assert again.version < held.version
    sidecar = Subscription(
        identity=svid.spiffe_id, service="web", namespace="shop", instance="one", sidecar_version="1", services_max=10
    )
    for snapshot in (held, again):
        sidecar.open_stream(now=0.0, certificate_not_after=1.0)
        verdict = at_once(sidecar.receiving(snapshot))
        assert isinstance(verdict, Accepted), verdict
        assert sidecar.commit(verdict).ack == pb.Ack(epoch=snapshot.epoch, version=snapshot.version)
