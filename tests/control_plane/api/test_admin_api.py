"""CreateToken, ListTokens and Status over the operator's socket."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from certs.svid import new_private_key
from control_plane.api.callers import LOCAL_OPERATOR
from control_plane.errors import PermissionDenied
from protos.hauberk.v1 import admin_pb2, discovery_pb2
from tests.control_plane.desk import Desk, answer, node_id_of, opened
from tests.control_plane.support import advertise, asyncio_test, refusal, running, watching


@asyncio_test
async def test_a_token_names_its_workload_and_its_end(tmp_path: Path) -> None:
    """Ten minutes unless told otherwise; the port in it is the one Join listens on."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        request = admin_pb2.CreateTokenRequest(service="orders")
        made = await operator.call("Admin/CreateToken", request, admin_pb2.CreateTokenResponse)
        status = await operator.status()
    prefix, token_id, _, _, port = made.token.split(".")
    assert (prefix, token_id, int(port)) == ("hauberk1", made.token_id, mesh.addresses.join_listen.port)
    assert made.spiffe_id == "spiffe://mesh.local/ns/default/sa/orders"
    assert abs(made.expires_at - time.time() - 600) < 30
    assert len(status.anchor_sha256) == 64


@asyncio_test
async def test_g09_a_name_that_is_none_makes_no_token(tmp_path: Path) -> None:
    """INVALID_ARGUMENT, naming the field."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        for service in ("", "../x", "a%2eb", "a\x00b"):
            status, details = await refusal(operator.token(service))
            assert status == "INVALID_ARGUMENT"
            assert details.startswith("service: ")
        assert (await refusal(operator.token(ttl_s=90_000)))[0] == "INVALID_ARGUMENT"
        assert (await refusal(operator.token(labels={"a b": "c"})))[0] == "INVALID_ARGUMENT"


def test_g13_tokens_are_listed_with_whom_they_brought_and_without_their_secret(tmp_path: Path) -> None:
    """Used, unused and revoked ones, oldest first; the node is under the token it joined with last."""
    with opened(tmp_path) as desk:
        key, texts = new_private_key(), []
        for service in ("orders", "orders", "billing"):
            texts.append(desk.token(service))
            desk.clock.at += 1
        ids = [text.split(".")[1] for text in texts]
        desk.join(texts[0], node=key)
        before = listed(desk)
        desk.join(texts[1], node=key)
        desk.revoke("token", ids[2])
        after = listed(desk)
        held = [desk.state.store.token(one) for one in ids]
    assert [one.token_id for one in after.tokens] == ids
    assert [(bool(one.used_at), list(one.node_ids)) for one in before.tokens] == [
        (True, [node_id_of(key)]), (False, []), (False, []),
    ]  # fmt: skip
    assert [(bool(one.used_at), list(one.node_ids), one.revoked) for one in after.tokens] == [
        (True, [], False), (True, [node_id_of(key)], False), (False, [], True),
    ]  # fmt: skip
    last = after.tokens[2]
    assert (last.service, last.namespace, last.spiffe_id) == (
        "billing",
        "shop",
        "spiffe://mesh.local/ns/shop/sa/billing",
    )
    assert (last.created_by, dict(last.labels)) == ("local operator", {"app": "billing"})
    assert last.created_at < after.server_time < last.expires_at
    said = after.SerializeToString()
    for text, one in zip(texts, held, strict=True):
        assert one is not None
        assert one.secret_sha256 not in said
        assert text.split(".")[2].encode() not in said


def test_of_very_many_tokens_the_newest_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer has a size; how many are left off is said."""
    monkeypatch.setattr("control_plane.api.admin.TOKENS_MAX", 2)
    with opened(tmp_path) as desk:
        ids = []
        for _ in range(3):
            ids.append(desk.token().split(".")[1])
            desk.clock.at += 1
        found = listed(desk)
    assert ([one.token_id for one in found.tokens], found.left_off) == (ids[1:], 1)


def listed(desk: Desk) -> admin_pb2.ListTokensResponse:
    return answer(desk.apis.admin.list_tokens(LOCAL_OPERATOR, admin_pb2.ListTokensRequest()))


@asyncio_test
async def test_status_shows_every_workload_and_how_it_is(tmp_path: Path) -> None:
    """Those that are connected with all they said, and those that joined once and are not there."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await mesh.join("billing", "shop")
        svid = await mesh.join("orders", "shop", labels={"tier": "gold"})
        async with mesh.as_member(svid) as rpc:
            watcher = await watching(
                rpc, sidecar_version="0.1.0", clock=time.time() + 100, certificate_not_after=svid.not_after
            )
            first = await watcher.taken()
            ports = {8080: discovery_pb2.PROTOCOL_HTTP1, 9090: discovery_pb2.PROTOCOL_HTTP2}
            await watcher.say(advertise=advertise("127.0.0.1:15008", ports))
            await watcher.say(subscribe=discovery_pb2.Subscribe(services=["orders.shop"]))
            second = await watcher.until(lambda snapshot: len(snapshot.services[0].endpoints) == 1)
            status = await operator.status()
            while status.workloads[1].acknowledged_version < second.version:
                status = await operator.status()
    billing, orders = status.workloads
    assert (billing.service, billing.connected, billing.instance) == ("billing", False, "")
    assert (orders.spiffe_id, orders.instance, orders.connected) == (str(svid.spiffe_id), "one", True)
    assert (orders.address, orders.ports) == ("127.0.0.1:15008", "8080/http1, 9090/http2")
    assert (orders.sidecar_version, dict(orders.labels)) == ("0.1.0", {"app": "orders", "tier": "gold"})
    assert orders.certificate_not_after == svid.not_after
    assert 50 < orders.clock_skew_s < 150
    assert orders.pushed_version == orders.acknowledged_version == second.version > first.version
    assert (status.trust_domain, status.default_action) == ("mesh.local", "DENY")
    assert status.version >= second.version
    assert status.epoch == second.epoch
    assert status.control_plane_version


def shown(desk: Desk) -> list[admin_pb2.WorkloadStatus]:
    return list(answer(desk.apis.admin.status(LOCAL_OPERATOR, admin_pb2.StatusRequest())).workloads)


def test_status_shows_which_certificate_and_which_node(tmp_path: Path) -> None:
    """Of the stream's own certificate at first, then of the one the sidecar says it uses; another's serial number
    tells nothing of that one."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        first, other = desk.join(node=key).svid, desk.join(service="billing").svid
        discovery = desk.apis.discovery
        stream, subscriber = discovery.open_stream(desk.caller(first), discovery_pb2.Hello(instance="one"))

        def says(serial: str) -> admin_pb2.WorkloadStatus:
            beat = discovery_pb2.Heartbeat(clock=desk.clock(), certificate_serial=serial)
            discovery.take(stream, subscriber, discovery_pb2.WatchRequest(heartbeat=beat))
            return shown(desk)[1]

        (_, one) = shown(desk)
        assert (one.certificate_serial, one.node_id) == (f"{first.serial:x}", node_id_of(key))
        assert one.certificate_not_before == desk.clock() - 60
        desk.clock.at += 600
        second = desk.renew(first)
        assert says(f"{second.serial:x}").certificate_not_before == desk.clock() - 60
        for serial in ("", "no number", "-1", "f" * 41):
            assert says(serial).certificate_serial == f"{second.serial:x}"
        one = says(f"{other.serial:x}")
        assert (one.node_id, one.certificate_not_before) == ("", 0)


def test_g24_status_shows_an_alarm_whether_its_sidecar_is_there_or_not(tmp_path: Path) -> None:
    """Once for each node, beside the line of a sidecar that is well."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        svid, well = desk.join(node=key).svid, desk.join().svid
        newer = desk.renew(svid)
        desk.confirm(newer)
        desk.apis.discovery.open_stream(desk.caller(well), discovery_pb2.Hello(instance="well"))
        assert [(one.instance, one.alarm) for one in shown(desk)] == [("well", "")]
        with pytest.raises(PermissionDenied):
            desk.renew(svid)
        alarmed, well_shown = shown(desk)
        assert (alarmed.instance, alarmed.node_id, alarmed.connected) == ("", node_id_of(key), False)
        assert (alarmed.alarm, well_shown.alarm) == ("renewed from two places", "")
        desk.apis.discovery.open_stream(desk.caller(newer), discovery_pb2.Hello(instance="aside"))
        assert [(one.instance, bool(one.alarm)) for one in shown(desk)] == [("aside", True), ("well", False)]
        desk.reinstate("alarm", node_id_of(key))
        assert not any(one.alarm for one in shown(desk))
