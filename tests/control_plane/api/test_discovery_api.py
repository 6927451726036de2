"""Watch over real TLS sockets: what a sidecar is told, when, and how its stream ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from certs.csr import make_csr
from certs.svid import new_private_key
from protos.hauberk.v1 import config_pb2, discovery_pb2, identity_pb2
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.snapshot import Action
from tests.control_plane.support import (
    TD,
    Mesh,
    Rpc,
    Watcher,
    advertise,
    asyncio_test,
    mesh_yaml,
    policy_yaml,
    refusal,
    running,
    watching,
)


@contextlib.asynccontextmanager
async def member_of(mesh: Mesh, service: str = "orders", namespace: str = "shop", **more: Any) -> AsyncIterator[Rpc]:
    async with mesh.as_member(await mesh.join(service, namespace, **more)) as rpc:
        yield rpc


def addresses(snapshot: discovery_pb2.Snapshot, service: str = "billing") -> list[str] | None:
    """Where `service` can be reached; None: nobody ever joined as it."""
    (found,) = [one for one in snapshot.services if one.name == service]
    return [one.address for one in found.endpoints] if found.known else None


@asyncio_test
async def test_a_sidecar_is_told_at_once_who_it_is_and_what_holds(tmp_path: Path) -> None:
    """A snapshot the sidecar's own decoder takes; with no policy yet, the answer is no."""
    async with running(tmp_path) as mesh, member_of(mesh, labels={"tier": "gold"}) as rpc:
        watcher = await watching(rpc, services=["billing.shop"])
        message = await watcher.snapshot()
        snapshot = snapshot_from_proto(message)
        anchor = mesh.certificate_authority(time.time()).anchor_der
    assert str(snapshot.identity) == "spiffe://mesh.local/ns/shop/sa/orders"
    assert (snapshot.service, snapshot.namespace, dict(snapshot.labels)) == (
        "orders",
        "shop",
        {"app": "orders", "tier": "gold"},
    )
    assert snapshot.default_action is Action.DENY
    assert snapshot.policies == ()
    assert snapshot.services["billing.shop"].known is False
    assert (snapshot.trust_anchors_der, snapshot.certificate_lifetime_s) == ((anchor,), 3_600)
    assert snapshot.trust_domain == TD


@asyncio_test
async def test_an_endpoint_comes_and_goes(tmp_path: Path) -> None:
    """Unknown, known, served, withdrawn; each told to who asked for the service."""
    async with running(tmp_path) as mesh, member_of(mesh, "web") as web_rpc:
        web = await watching(web_rpc, services=["billing.shop"])
        assert addresses(await web.taken()) is None
        async with member_of(mesh, "billing") as billing_rpc:
            billing = await watching(billing_rpc)
            await web.until(lambda snapshot: addresses(snapshot) == [])
            await billing.say(advertise=advertise("127.0.0.1:15008"))
            served = await web.until(lambda snapshot: addresses(snapshot) == ["127.0.0.1:15008"])
            (endpoint,) = served.services[0].endpoints
            assert endpoint.spiffe_id == "spiffe://mesh.local/ns/shop/sa/billing"
            assert [(one.port, one.protocol) for one in endpoint.ports] == [(8080, discovery_pb2.PROTOCOL_HTTP1)]
            await billing.say(withdraw=discovery_pb2.Withdraw())
            await web.until(lambda snapshot: addresses(snapshot) == [])


@asyncio_test
async def test_a_broken_stream_takes_its_endpoint_along_after_a_while(tmp_path: Path) -> None:
    """Not at once: the sidecar may be reconnecting."""
    async with running(tmp_path, endpoint_lost_s=0.2) as mesh, member_of(mesh, "web") as web_rpc:
        web = await watching(web_rpc, services=["billing.shop"])
        async with member_of(mesh, "billing") as billing_rpc:
            billing = await watching(billing_rpc)
            await billing.say(advertise=advertise("127.0.0.1:15008"))
            await web.until(lambda snapshot: addresses(snapshot) == ["127.0.0.1:15008"])
        await web.until(lambda snapshot: addresses(snapshot) == [])


@asyncio_test
async def test_subscribing_brings_what_was_not_asked_before(tmp_path: Path) -> None:
    """With a larger version, although nothing in the mesh changed; unsubscribing takes it away."""
    async with running(tmp_path) as mesh, member_of(mesh) as rpc:
        watcher = await watching(rpc)
        first = await watcher.taken()
        assert list(first.services) == []
        await watcher.say(subscribe=discovery_pb2.Subscribe(services=["orders.shop", "none.shop"]))
        second = await watcher.taken()
        assert {one.name: one.known for one in second.services} == {"none": False, "orders": True}
        await watcher.say(subscribe=discovery_pb2.Subscribe())
        third = await watcher.taken()
        assert list(third.services) == []
    assert first.version < second.version < third.version


@asyncio_test
async def test_g18_a_sidecar_is_told_nothing_of_others(tmp_path: Path) -> None:
    """Not their policies, not their labels, and of their endpoints only what it asked for; and there is no call by
    which it could ask for more."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, member_of(mesh, "web") as web_rpc:
        web = await watching(web_rpc)
        await web.taken()
        await operator.apply(policy_yaml("billing"), policy_yaml("web", "pay"), policy_yaml("web"))
        snapshot = await web.taken()
        assert [one.name + "." + one.namespace for one in snapshot.policies] == ["web.shop"]
        calls = [
            ("Config/Get", config_pb2.GetRequest(kind="AuthorizationPolicy", name="billing", namespace="shop")),
            ("Config/List", config_pb2.ListRequest()),
            ("Config/Explain", config_pb2.ExplainRequest(from_identity="shop/web", to_service="billing.shop")),
        ]
        for method, request in calls:
            status, details = await refusal(web_rpc.call(method, request, config_pb2.ListResponse))
            assert status == "PERMISSION_DENIED"
            assert "it is for operators" in details


@asyncio_test
async def test_h09_a_large_snapshot_arrives(tmp_path: Path) -> None:
    """One that could not be sent would end the stream, each time, and leave the sidecar with the policies it has."""
    values = ", ".join(f'"{number:05}{"v" * 1_995}"' for number in range(450))
    condition = f"{{key: 'request.headers[x-a]', values: [{values}]}}"
    async with running(tmp_path) as mesh, mesh.operator() as operator, member_of(mesh, "web") as rpc:
        web = await watching(rpc)
        await web.taken()
        for number in range(5):
            await operator.apply(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
                f"metadata: {{name: p{number}, namespace: shop}}\nspec: {{rules: [{{when: [{condition}]}}]}}\n"
            )
        told = await web.until(lambda snapshot: len(snapshot.policies) == 5)
    assert told.ByteSize() > 4_194_304


@asyncio_test
async def test_h13_a_snapshot_is_of_one_revision(tmp_path: Path) -> None:
    """Documents applied together arrive together, for whoever they concern, under one version."""
    async with (
        running(tmp_path) as mesh,
        mesh.operator() as operator,
        member_of(mesh, "web") as web_rpc,
        member_of(mesh, "billing") as billing_rpc,
    ):
        watchers = [await watching(web_rpc), await watching(billing_rpc)]
        for watcher in watchers:
            await watcher.taken()
        both = policy_yaml("web") + "---\n" + policy_yaml("billing")
        version = (await operator.apply(both)).version
        got = [await watcher.taken() for watcher in watchers]
    assert [[one.name for one in snapshot.policies] for snapshot in got] == [["web"], ["billing"]]
    assert [snapshot.version for snapshot in got] == [version, version]


@asyncio_test
async def test_h14_versions_only_grow_across_reconnects_and_restarts(tmp_path: Path) -> None:
    """A sidecar would refuse an older one. The epoch stays: it is the same store."""
    held: list[discovery_pb2.Snapshot] = []
    async with running(tmp_path) as mesh:
        svid = await mesh.join()
    for _ in range(3):
        async with running(tmp_path) as mesh, mesh.as_member(svid) as rpc:
            for _ in range(2):
                last = held[-1] if held else discovery_pb2.Snapshot()
                watcher = await watching(rpc, epoch=last.epoch, version=last.version)
                held.append(await watcher.taken())
                watcher.stream.cancel()
    assert len({snapshot.epoch for snapshot in held}) == 1
    versions = [snapshot.version for snapshot in held]
    assert versions == sorted(set(versions))


@asyncio_test
async def test_j07_a_restored_backup_begins_a_new_epoch(tmp_path: Path) -> None:
    """A sidecar knows a version this store never reached. Streams that are open are moved along, with a larger epoch.
    A second one that claims so within a minute is not believed: it could lie."""
    async with running(tmp_path) as mesh, member_of(mesh, "web") as web_rpc, member_of(mesh) as rpc:
        web = await watching(web_rpc)
        first = await web.taken()
        watcher = await watching(rpc, epoch=first.epoch, version=first.version + 1_000)
        second = await watcher.taken()
        moved = await web.taken()
        again = await watching(rpc, "two", epoch=second.epoch, version=second.version + 1_000)
        assert (await again.end())[0] == "INVALID_ARGUMENT"
    assert second.epoch > first.epoch
    assert moved.epoch == second.epoch


@asyncio_test
async def test_h16_a_rejection_is_shown_and_the_next_good_version_clears_it(tmp_path: Path) -> None:
    """`status` names the sidecar and the reason; `apply --wait` does too."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, member_of(mesh) as rpc:
        watcher = await watching(rpc)
        good = await watcher.taken()
        applying = asyncio.create_task(operator.apply(policy_yaml(), wait=True, wait_timeout_s=10))
        bad = await watcher.snapshot()
        nack = discovery_pb2.Nack(epoch=bad.epoch, version=bad.version, reason="policies[0]: no")
        await watcher.say(nack=nack)
        propagation = (await applying).propagation
        assert [(one.workload, one.reason) for one in propagation.rejected] == [
            ("spiffe://mesh.local/ns/shop/sa/orders#one", "policies[0]: no")
        ]
        (shown,) = (await operator.status()).workloads
        assert (shown.rejected_reason, shown.acknowledged_version, shown.pushed_version) == (
            "policies[0]: no",
            good.version,
            bad.version,
        )
        await operator.apply(mesh_yaml(certificateLifetime="10m"))
        await watcher.taken()
        while (await operator.status()).workloads[0].rejected_reason:
            await asyncio.sleep(0)


@asyncio_test
async def test_a_change_of_the_mesh_reaches_everybody_and_a_policy_only_whom_it_selects(tmp_path: Path) -> None:
    """Whose snapshot did not change is not disturbed."""
    async with (
        running(tmp_path) as mesh,
        mesh.operator() as operator,
        member_of(mesh, "web") as web_rpc,
        member_of(mesh, "billing") as billing_rpc,
    ):
        web, billing = await watching(web_rpc), await watching(billing_rpc)
        await web.taken()
        await billing.taken()
        await operator.apply(policy_yaml("billing"))
        await billing.taken()
        version = (await operator.apply(mesh_yaml(defaultAction="ALLOW", certificateLifetime="30s"))).version
        for watcher in (web, billing):
            snapshot = await watcher.taken()  # web's next: the policy made none for it
            assert snapshot.default_action == discovery_pb2.DEFAULT_ACTION_ALLOW
            assert (snapshot.certificate_lifetime_s, snapshot.version) == (30, version)


@asyncio_test
async def test_a_burst_of_changes_is_pushed_as_few(tmp_path: Path) -> None:
    """A slow subscriber skips to the newest."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, member_of(mesh) as rpc:
        watcher = await watching(rpc)
        await watcher.taken()
        for n in range(100):
            last = await operator.apply(policy_yaml(principal=f"mesh.local/ns/shop/sa/caller-{n}"))
        snapshot = await watcher.snapshot()  # the first of the burst, unanswered
        count = 1
        while snapshot.version < last.version:
            await watcher.ack(snapshot)
            snapshot = await watcher.snapshot()
            count += 1
    assert count <= 3
    assert snapshot.policies[0].rules[0].sources[0].principals == ["mesh.local/ns/shop/sa/caller-99"]


@asyncio_test
async def test_endpoints_survive_a_restart_of_the_control_plane(tmp_path: Path) -> None:
    """Callers keep their upstreams while sidecars reconnect."""
    async with running(tmp_path) as mesh, member_of(mesh, "billing") as rpc:
        billing = await watching(rpc)
        await billing.say(advertise=advertise("127.0.0.1:15008"))
        web_svid = await mesh.join("web")
        async with mesh.as_member(web_svid) as web_rpc:
            web = await watching(web_rpc, services=["billing.shop"])
            await web.until(lambda snapshot: addresses(snapshot) == ["127.0.0.1:15008"])
    async with running(tmp_path) as mesh, mesh.as_member(web_svid) as web_rpc:
        web = await watching(web_rpc, services=["billing.shop"])
        assert addresses(await web.taken()) == ["127.0.0.1:15008"]


@asyncio_test
async def test_a_stopping_control_plane_ends_streams_with_unavailable(tmp_path: Path) -> None:
    """So that sidecars come back."""
    async with contextlib.AsyncExitStack() as stack:
        async with running(tmp_path) as mesh:
            rpc = await stack.enter_async_context(member_of(mesh))
            watcher = await watching(rpc)
            await watcher.taken()
            ending = asyncio.create_task(watcher.end())
            await asyncio.sleep(0)
        status, details = await ending
    assert status == "UNAVAILABLE"
    assert "stopping" in details


@asyncio_test
async def test_g23_a_stream_ends_with_the_certificate_that_opened_it(tmp_path: Path) -> None:
    """And calls on that connection are refused from then on; with the renewed one all is well."""
    async with running(tmp_path, certificate_lifetime_s=2) as mesh:
        svid = await mesh.join()
        async with mesh.as_member(svid) as rpc:
            watcher = await watching(rpc)
            await watcher.taken()
            key = new_private_key()
            request = identity_pb2.RenewRequest(csr_der=make_csr(key, None))
            renewed = await rpc.call("Identity/Renew", request, identity_pb2.SvidResponse)
            status, details = await watcher.end()
            late = await refusal(rpc.call("Identity/Renew", request, identity_pb2.SvidResponse))
        assert (status, late[0]) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert "reconnect" in details
    assert renewed.spiffe_id == str(svid.spiffe_id)


@asyncio_test
async def test_g25_a_sidecar_has_two_streams_and_a_third_ends_the_first(tmp_path: Path) -> None:
    """One to move from, one to move to; its own broken past cannot lock it out."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, member_of(mesh) as rpc:
        watchers = []
        for _ in range(3):
            watchers.append(await watching(rpc))
            await watchers[-1].taken()
        assert (await watchers[0].end())[0] == "ABORTED"
        other = await watching(rpc, instance="two")
        await other.taken()
        assert [one.instance for one in (await operator.status()).workloads] == ["one", "two"]
        await watchers[1].say(subscribe=discovery_pb2.Subscribe(services=["x.shop"]))
        await watchers[1].taken()  # still alive


HELLO = discovery_pb2.Hello(instance="one")
BAD_MESSAGES: dict[str, list[dict[str, Any]]] = {
    "no hello": [{"ack": discovery_pb2.Ack(version=1)}],
    "empty": [{}],
    "no instance": [{"hello": discovery_pb2.Hello()}],
    "odd instance": [{"hello": discovery_pb2.Hello(instance="a/../b")}],
    "odd service": [{"hello": discovery_pb2.Hello(instance="one", services=["../x.shop"])}],
    "service without namespace": [{"hello": HELLO}, {"subscribe": discovery_pb2.Subscribe(services=["orders"])}],
    "too many services": [{"hello": discovery_pb2.Hello(instance="one", services=[f"s{n}.x" for n in range(1_001)])}],
    "second hello": [{"hello": HELLO}, {"hello": HELLO}],
    "ack of what was never sent": [{"hello": HELLO}, {"ack": "future"}],
    "no address": [{"hello": HELLO}, {"advertise": advertise("")}],
    "name for an address": [{"hello": HELLO}, {"advertise": advertise("localhost:80")}],
    "any address": [{"hello": HELLO}, {"advertise": advertise("0.0.0.0:80")}],
    "multicast": [{"hello": HELLO}, {"advertise": advertise("224.0.0.1:80")}],
    "port 0": [{"hello": HELLO}, {"advertise": advertise("10.0.0.1:0")}],
    "no ports": [{"hello": HELLO}, {"advertise": discovery_pb2.Advertise(address="10.0.0.1:80")}],
    "no protocol": [
        {"hello": HELLO},
        {"advertise": advertise("10.0.0.1:80", {80: discovery_pb2.PROTOCOL_UNSPECIFIED})},
    ],
    "no port": [{"hello": HELLO}, {"advertise": advertise("10.0.0.1:80", {70_000: discovery_pb2.PROTOCOL_TCP})}],
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_what_a_sidecar_may_not_say_ends_its_stream(tmp_path: Path, case: str) -> None:
    """INVALID_ARGUMENT, and nothing of it is kept."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path) as mesh, mesh.operator() as operator, member_of(mesh) as rpc:
            epoch = (await operator.status()).epoch
            watcher = Watcher(rpc.watch())
            for body in BAD_MESSAGES[case]:
                future = {"ack": discovery_pb2.Ack(epoch=epoch, version=2**40)}
                await watcher.say(**(future if body.get("ack") == "future" else body))
            status, details = await watcher.end()
            assert status == "INVALID_ARGUMENT"
            assert details
            (shown,) = (await operator.status()).workloads
            assert (shown.connected, shown.address) == (False, "")

    main()


@asyncio_test
async def test_watching_is_for_members(tmp_path: Path) -> None:
    """Not for the operator, who has no snapshot, nor for a removed workload."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        watcher = await watching(operator)
        assert (await watcher.end())[0] == "PERMISSION_DENIED"


@asyncio_test
async def test_a_sidecar_that_does_not_read_cannot_hold_up_anything(tmp_path: Path) -> None:
    """A snapshot is stuck on its way to it: the mesh goes on, it is shown as pending, a stop is quick."""
    principals = '", "'.join(f"mesh.local/ns/shop/sa/caller-{n}-{'x' * 40}" for n in range(6_000))
    large = policy_yaml("orders", principal=principals)
    async with contextlib.AsyncExitStack() as stack:
        async with running(tmp_path) as mesh, mesh.operator() as operator:
            deaf = await stack.enter_async_context(member_of(mesh))
            await watching(deaf)
            await operator.apply(large)
            async with member_of(mesh, "web") as web_rpc:
                web = await watching(web_rpc)
                await web.taken()
                waiting = asyncio.create_task(
                    operator.apply(mesh_yaml(defaultAction="ALLOW"), wait=True, wait_timeout_s=1)
                )
                await web.until(lambda snapshot: snapshot.default_action == discovery_pb2.DEFAULT_ACTION_ALLOW)
                propagation = (await waiting).propagation
            begin = time.monotonic()
        assert time.monotonic() - begin < 10
    assert list(propagation.acknowledged) == ["spiffe://mesh.local/ns/shop/sa/web#one"]
    assert list(propagation.pending) == ["spiffe://mesh.local/ns/shop/sa/orders#one"]
