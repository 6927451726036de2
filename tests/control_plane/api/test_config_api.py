"""Apply, Get, List, Delete, Explain over the operator's socket."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from control_plane.policy.parse import KINDS
from protos.hauberk.v1 import config_pb2
from tests.control_plane.support import (
    Rpc,
    advertise,
    asyncio_test,
    audited,
    mesh_yaml,
    policy_yaml,
    refusal,
    running,
    watching,
)

KIND = "AuthorizationPolicy"


def changes(response: config_pb2.ApplyResponse) -> list[str]:
    return [f"{one.what} {one.namespace}/{one.name}" for one in response.changes]


async def listed(operator: Rpc, **request: str) -> list[str]:
    response = await operator.call("Config/List", config_pb2.ListRequest(**request), config_pb2.ListResponse)
    return [f"{one.kind} {one.namespace}/{one.name}" for one in response.resources]


async def got(operator: Rpc, name: str = "orders", namespace: str = "shop", kind: str = KIND) -> config_pb2.Resource:
    request = config_pb2.GetRequest(kind=kind, namespace=namespace, name=name)
    return (await operator.call("Config/Get", request, config_pb2.GetResponse)).resource


async def explained(operator: Rpc, **request: Any) -> config_pb2.ExplainResponse:
    return await operator.call("Config/Explain", config_pb2.ExplainRequest(**request), config_pb2.ExplainResponse)


@asyncio_test
async def test_what_is_applied_is_there_as_it_was_written(tmp_path: Path) -> None:
    """With the place in the operator's file, who applied it, and the version it made."""
    text = mesh_yaml(defaultAction="DENY") + "---\n" + policy_yaml()
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        before = (await operator.status()).version
        response = await operator.apply(text)
        resource = await got(operator)
        again = await operator.apply(text)
        assert await listed(operator) == ["AuthorizationPolicy shop/orders", "MeshConfig /default"]
        assert await listed(operator, kind="MeshConfig") == ["MeshConfig /default"]
        assert await listed(operator, namespace="nowhere") == []
        assert (await got(operator, "default", "ignored", "MeshConfig")).name == "default"
    assert changes(response) == ["created /default", "created shop/orders"]
    assert changes(again) == ["unchanged /default", "unchanged shop/orders"]
    assert response.version == again.version == before + 1
    assert (resource.yaml.strip(), resource.source) == (policy_yaml().strip(), "file0.yaml:8")
    assert (resource.version, resource.applied_by) == (response.version, "local operator")
    assert resource.applied_at > 0
    assert [(one["event"], one["by"]) for one in audited(tmp_path / "cp")] == [("resources.applied", "local operator")]


@asyncio_test
async def test_one_bad_document_and_nothing_is_stored(tmp_path: Path) -> None:
    """All problems of all files are told at once, each with file, line, column and field."""
    unknown = policy_yaml().replace("  action:", "  axtion:")
    twice = policy_yaml("billing").replace("  action: ALLOW", "  action: ALLOW\n  action: DENY")
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await operator.apply(policy_yaml("kept"))
        version = (await operator.status()).version
        status, details = await refusal(operator.apply(policy_yaml("good"), unknown, twice, "a: [", "x" * 1_100_000))
        assert await listed(operator) == ["AuthorizationPolicy shop/kept"]
        assert (await operator.status()).version == version
    lines = details.split("\n")
    assert status == "INVALID_ARGUMENT"
    assert lines[0].startswith("file1.yaml:10:3: spec.axtion: ")
    assert lines[1].startswith("file2.yaml:11:3: ")
    assert lines[2].startswith("file3.yaml:1:")
    assert lines[3] == "file4.yaml:0:0: is larger than 1048576 octets; split it"
    assert len(lines) == 4


@asyncio_test
async def test_a_resource_twice_in_one_apply_is_refused(tmp_path: Path) -> None:
    """In one file or in two: which of them was meant?"""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status, details = await refusal(operator.apply(policy_yaml(), policy_yaml(action="DENY")))
        assert status == "INVALID_ARGUMENT"
        assert (
            "file1.yaml:1:1: metadata.name: AuthorizationPolicy shop/orders is there twice, first at file0" in details
        )
        status, _ = await refusal(operator.apply(policy_yaml() + "---\n" + policy_yaml()))
        assert status == "INVALID_ARGUMENT"
        assert await listed(operator) == []


@asyncio_test
async def test_a_running_mesh_keeps_its_trust_domain(tmp_path: Path) -> None:
    """A MeshConfig that names another is refused with the way out; one that names this one is fine."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status, details = await refusal(operator.apply(mesh_yaml(trustDomain="other.example")))
        assert status == "INVALID_ARGUMENT"
        assert "spec.trustDomain: is other.example, but this mesh is mesh.local" in details
        await operator.apply(mesh_yaml(trustDomain="mesh.local", defaultAction="ALLOW"))
        assert (await operator.status()).default_action == "ALLOW"
        await operator.call(
            "Config/Delete", config_pb2.DeleteRequest(kind="MeshConfig", name="default"), config_pb2.DeleteResponse
        )
        assert (await operator.status()).default_action == "DENY"


@asyncio_test
async def test_a_dry_run_tells_and_stores_nothing(tmp_path: Path) -> None:
    """Created, updated, unchanged; and it refuses what apply would refuse."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await operator.apply(policy_yaml("a"), policy_yaml("b"))
        version = (await operator.status()).version
        response = await operator.apply(
            policy_yaml("a"), policy_yaml("b", action="DENY"), policy_yaml("c"), dry_run=True
        )
        assert changes(response) == ["unchanged shop/a", "updated shop/b", "created shop/c"]
        assert response.version == version == (await operator.status()).version
        assert (await refusal(operator.apply("kind: x", dry_run=True)))[0] == "INVALID_ARGUMENT"


@asyncio_test
async def test_what_is_probably_not_meant_is_warned_of_with_its_place(tmp_path: Path) -> None:
    """Legal, stored, and said."""
    text = policy_yaml(action="DENY") + '    to: [{operation: {paths: ["/admin"]}}]\n'
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        (warning,) = (await operator.apply(text)).warnings
        assert await listed(operator) == ["AuthorizationPolicy shop/orders"]
    assert re.search(r":1: .*paths: /admin leaves what is below it", warning)


@asyncio_test
async def test_an_apply_of_nothing_is_refused(tmp_path: Path) -> None:
    """What wrote the documents failed, most likely."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status, details = await refusal(operator.apply("# nothing\n---\n"))
    assert (status, details.partition(",")[0]) == ("INVALID_ARGUMENT", "no document was sent")


@asyncio_test
async def test_what_is_deleted_is_gone(tmp_path: Path) -> None:
    """Once."""
    request = config_pb2.DeleteRequest(kind=KIND, namespace="shop", name="orders")
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        version = (await operator.apply(policy_yaml())).version
        deleted = await operator.call("Config/Delete", request, config_pb2.DeleteResponse)
        assert deleted.version == version + 1
        assert (await refusal(got(operator)))[0] == "NOT_FOUND"
        status, details = await refusal(operator.call("Config/Delete", request, config_pb2.DeleteResponse))
        assert (status, details) == (
            "NOT_FOUND",
            (
                "there is no AuthorizationPolicy shop/orders, so nothing was deleted; list what there is with:"
                " hauberk get AuthorizationPolicy"
            ),
        )


@asyncio_test
async def test_an_unknown_kind_is_named_with_the_known_ones(tmp_path: Path) -> None:
    """So is an apply of nothing."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        for refused in (
            await refusal(got(operator, kind="Gateway")),
            await refusal(listed(operator, kind="Gateway")),
        ):
            assert refused == (
                "INVALID_ARGUMENT",
                f"kind: 'Gateway' is not known; known are {', '.join(KINDS)}",
            )
        assert (await refusal(operator.apply()))[0] == "INVALID_ARGUMENT"


@asyncio_test
async def test_waiting_ends_when_every_sidecar_concerned_has_acknowledged(tmp_path: Path) -> None:
    """Those that the change does not concern are not waited for."""
    orders_svid_label = "spiffe://mesh.local/ns/shop/sa/orders#one"
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        orders_svid, web_svid = await mesh.join("orders"), await mesh.join("web")
        async with mesh.as_member(orders_svid) as orders_rpc, mesh.as_member(web_svid) as web_rpc:
            orders, web = await watching(orders_rpc), await watching(web_rpc)
            await orders.taken()
            await web.snapshot()  # never acknowledged
            applying = asyncio.create_task(operator.apply(policy_yaml(), wait=True, wait_timeout_s=20))
            snapshot = await orders.snapshot()
            assert not applying.done()
            await orders.ack(snapshot)
            response = await applying
            assert snapshot.version == response.version
            assert list(response.propagation.acknowledged) == [orders_svid_label]
            assert (list(response.propagation.pending), list(response.propagation.rejected)) == ([], [])
            nothing = await operator.apply(policy_yaml(), wait=True, wait_timeout_s=20)
            assert not nothing.propagation.pending
            late = await operator.apply(policy_yaml(action="DENY"), wait=True, wait_timeout_s=0.05)
            assert list(late.propagation.pending) == [orders_svid_label]


@asyncio_test
async def test_a_sidecar_that_reconnects_while_waited_for_is_waited_for(tmp_path: Path) -> None:
    """Its stream broke before it answered: it may hold the old policy still."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        svid = await mesh.join("orders")
        async with mesh.as_member(svid) as rpc:
            first = await watching(rpc)
            await first.say(advertise=advertise("127.0.0.1:15008"))
            await first.taken()
            applying = asyncio.create_task(operator.apply(policy_yaml(), wait=True, wait_timeout_s=20))
            await first.snapshot()
        assert not applying.done()
        async with mesh.as_member(svid) as rpc:
            second = await watching(rpc)
            await second.taken()
            response = await applying
    assert list(response.propagation.acknowledged) == ["spiffe://mesh.local/ns/shop/sa/orders#one"]


@asyncio_test
async def test_explain_says_what_the_sidecar_would(tmp_path: Path) -> None:
    """Verdict, rule, place of the rule; and for a denial the rule that came nearest."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await operator.apply(policy_yaml(principal="mesh.local/ns/shop/sa/web"))
        async with mesh.as_member(await mesh.join("orders")) as rpc:
            watcher = await watching(rpc)
            await watcher.taken()
            await watcher.say(advertise=advertise("127.0.0.1:15008"))
            while not (await operator.status()).workloads[0].address:
                await asyncio.sleep(0)
            question = {"to_service": "orders.shop", "method": "GET", "path": "/x"}
            allowed = await explained(operator, from_identity="shop/web", **question)
            denied = await explained(operator, from_identity="spiffe://mesh.local/ns/shop/sa/billing", **question)
    assert (allowed.allowed, allowed.rule, allowed.source) == (True, "shop/orders#0", "file0.yaml:12")
    assert (allowed.from_identity, allowed.to_identity) == (
        "spiffe://mesh.local/ns/shop/sa/web",
        "spiffe://mesh.local/ns/shop/sa/orders",
    )
    assert (denied.allowed, denied.rule) == (False, "default")
    (miss,) = denied.near_misses
    (condition,) = miss.conditions
    assert (miss.rule, condition.got, condition.matched) == (
        "shop/orders#0",
        "mesh.local/ns/shop/sa/billing",
        False,
    )


@pytest.mark.parametrize(
    ("request_", "status", "told"),
    [
        (
            {"from_identity": "web", "to_service": "orders.shop"},
            "INVALID_ARGUMENT",
            'write "namespace/service-account"',
        ),
        ({"from_identity": "shop/web", "to_service": "a/b"}, "INVALID_ARGUMENT", "to: "),
        ({"from_identity": "shop/web", "to_service": "none.shop"}, "NOT_FOUND", "nobody ever joined as none.shop"),
        ({"from_identity": "shop/web", "to_service": "orders"}, "NOT_FOUND", "nobody ever joined as orders.default"),
        ({"from_identity": "shop/web", "to_service": "orders.shop"}, "FAILED_PRECONDITION", "--port"),
        ({"from_identity": "shop/web", "to_service": "orders.shop", "port": 70_000}, "INVALID_ARGUMENT", "port"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    tmp_path: Path, request_: dict[str, Any], status: str, told: str
) -> None:
    """And what to ask instead."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path) as mesh, mesh.operator() as operator:
            await mesh.join("orders")
            refused, details = await refusal(explained(operator, **request_))
            assert refused == status
            assert told in details

    main()
