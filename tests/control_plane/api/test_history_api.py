"""History, Rollback, Inventory, and what changes say before they are made, over a real control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from control_plane.model import ResourceKey
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import config_pb2 as pb
from tests.control_plane.support import (
    NOW,
    Rpc,
    advertise,
    asyncio_test,
    audited,
    mesh_yaml,
    policy_yaml,
    refusal,
    resource_record,
    running,
    watching,
)

WEB = "spiffe://mesh.local/ns/shop/sa/web"
FOR_WEB = policy_yaml(principal="mesh.local/ns/shop/sa/web")


async def rollback(operator: Rpc, version: int, **options: Any) -> pb.RollbackResponse:
    request = pb.RollbackRequest(to_version=version, **options)
    return await operator.call("Config/Rollback", request, pb.RollbackResponse)


async def history(operator: Rpc, **options: Any) -> list[pb.HistoryEntry]:
    return list((await operator.call("Config/History", pb.HistoryRequest(**options), pb.HistoryResponse)).entries)


async def delete(operator: Rpc, name: str, **options: Any) -> pb.DeleteResponse:
    request = pb.DeleteRequest(kind="AuthorizationPolicy", namespace="shop", name=name, **options)
    return await operator.call("Config/Delete", request, pb.DeleteResponse)


def lines(impact: pb.Impact) -> list[str]:
    return [
        f"{'gains' if one.gains else 'loses'} {one.from_identity} {one.to_service} {one.what}" for one in impact.lines
    ]


@asyncio_test
async def test_apply_says_who_gains_before_it_stores(tmp_path: Path) -> None:
    """A dry run says the same; members are known, ports or not."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await mesh.join("orders")
        await mesh.join("web")
        tried = await operator.apply(FOR_WEB, dry_run=True)
        assert lines(tried.impact) == [f"gains {WEB} orders.shop everything"]
        assert await history(operator) == []
        done = await operator.apply(FOR_WEB)
        assert done.impact == tried.impact
        assert lines((await operator.apply(FOR_WEB)).impact) == []
        gone = await delete(operator, "orders", dry_run=True)
        assert lines(gone.impact) == [f"loses {WEB} orders.shop everything"]
        assert lines((await delete(operator, "orders")).impact) == lines(gone.impact)


@asyncio_test
async def test_a_change_on_what_was_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    """Whoever decided by what a dry run showed must look again; a sidecar that comes is no such change."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        seen = (await operator.apply(FOR_WEB, dry_run=True)).version
        await mesh.join("orders")
        first = await operator.apply(FOR_WEB, base_version=seen, skip_impact=True)
        for call in (
            operator.apply(policy_yaml("other"), base_version=seen),
            delete(operator, "orders", base_version=seen),
            rollback(operator, 1, base_version=seen),
        ):
            status, details = await refusal(call)
            assert status == "FAILED_PRECONDITION"
            assert f"version {first.version} by local operator" in details
        assert [one.version for one in await history(operator)] == [first.version]


@asyncio_test
async def test_a_rollback_is_a_new_version_that_everybody_gets(tmp_path: Path) -> None:
    """With its own entries in history and audit, and who gains and loses by it."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        orders, _web = await mesh.join("orders"), await mesh.join("web")
        first = (await operator.apply(FOR_WEB)).version
        second = (await operator.apply(policy_yaml(action="DENY"), policy_yaml("new"))).version
        async with mesh.as_member(orders) as rpc:
            watcher = await watching(rpc)
            await watcher.say(advertise=advertise("127.0.0.1:9"))
            await watcher.until(lambda one: len(one.policies) == 1 and one.policies[0].action == 2)
            tried = await rollback(operator, first, dry_run=True)
            assert {f"{one.what} {one.name}" for one in tried.changes} == {"updated orders", "deleted new"}
            assert lines(tried.impact) == [f"gains {WEB} orders.shop everything"]
            done = await rollback(operator, first)
            assert done.changes == tried.changes
            assert done.version > second
            await watcher.until(lambda one: len(one.policies) == 1 and one.policies[0].action == 1)
        entries = await history(operator)
        assert [(one.what, one.by) for one in entries] == [
            (f"rollback to {first}", "local operator"),
            ("apply", "local operator"),
            ("apply", "local operator"),
        ]
        (then,) = await history(operator, version=first)
        (now,) = await history(operator, version=done.version)
        assert [one.yaml for one in then.resources] == [one.yaml for one in now.resources] == [FOR_WEB]
        assert "resources.rolled_back" in [one["event"] for one in audited(tmp_path / "cp")]
        assert not (await rollback(operator, first)).changes


@asyncio_test
async def test_a_version_nobody_knows_is_told(tmp_path: Path) -> None:
    """With those that are."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        version = (await operator.apply(FOR_WEB)).version
        for call in (rollback(operator, version + 1), history(operator, version=version + 1)):
            status, details = await refusal(call)
            assert status == "NOT_FOUND"
            assert f"to {version}, see: hauberk policy history" in details
        (empty,) = await history(operator, version=version - 1)
        assert not empty.resources
        assert {one.what for one in (await rollback(operator, version - 1)).changes} == {"deleted"}


@asyncio_test
async def test_what_is_no_longer_valid_is_not_brought_back(tmp_path: Path) -> None:
    """None of it: documents that do not parse any more, and a trust domain that is another mesh's."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await operator.apply(FOR_WEB)
    store = SqliteStore.open(tmp_path / "cp" / "hauberk.db")
    mesh_key = ResourceKey(kind="MeshConfig", namespace="", name="default")
    other = mesh_yaml(trustDomain="other.mesh")
    store.apply_resources([resource_record("future", yaml=policy_yaml("future") + "  quantum: true\n")])
    unread = store.revision
    store.delete_resource(resource_record("future").key, at=NOW, by="me")
    store.apply_resources([resource_record(key=mesh_key, yaml=other)])
    foreign = store.revision
    store.delete_resource(mesh_key, at=NOW, by="me")
    held = store.revision
    store.close()
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        for version, told in ((unread, "quantum"), (foreign, "other.mesh")):
            status, details = await refusal(rollback(operator, version))
            assert status == "FAILED_PRECONDITION"
            assert f"version {version} cannot be brought back" in details
            assert told in details
        assert (await history(operator, count_max=1))[0].version == held


@asyncio_test
async def test_the_inventory_tells_who_there_is(tmp_path: Path) -> None:
    """Members with their labels and ports, and what is applied; no secret."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        orders = await mesh.join("orders", labels={"app": "orders"})
        await operator.apply(FOR_WEB)
        async with mesh.as_member(orders) as rpc:
            watcher = await watching(rpc)
            await watcher.taken()
            await watcher.say(advertise=advertise("127.0.0.1:9"))
            while True:
                found = await operator.call("Config/Inventory", pb.InventoryRequest(), pb.InventoryResponse)
                if found.members[0].ports:
                    break
        (member,) = found.members
        assert (member.spiffe_id, member.service, member.namespace) == (str(orders.spiffe_id), "orders", "shop")
        assert (dict(member.labels), list(member.ports)) == ({"app": "orders"}, [8080])
        assert [one.name for one in found.resources] == ["orders"]
        assert found.trust_domain == "mesh.local"
