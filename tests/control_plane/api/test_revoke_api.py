"""Rights taken away and given back: what is written down, who is hit, and how fast everybody knows."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid, new_private_key
from control_plane.api import revoke
from control_plane.api.callers import LOCAL_OPERATOR
from control_plane.errors import FailedPrecondition, InvalidRequest, NotFound, PermissionDenied
from protos.hauberk.v1 import admin_pb2, discovery_pb2, identity_pb2
from tests.control_plane.desk import Desk, answer, opened
from tests.control_plane.support import (
    NOW,
    TD,
    Rpc,
    Watcher,
    advertise,
    asyncio_test,
    audited,
    refusal,
    running,
    watching,
)

ORDERS = "spiffe://mesh.local/ns/shop/sa/orders"


def test_an_identity_is_revoked_with_all_its_certificates_and_given_back(tmp_path: Path) -> None:
    """Those it has now are named; it can neither renew nor join; afterwards it can. All of it is on record."""
    with opened(tmp_path) as desk:
        first, second, other = desk.join(), desk.join(), desk.join(service="billing")
        said = desk.revoke("identity", ORDERS, "stolen")
        assert said.changed
        assert sorted(said.serials) == sorted(f"{one.svid.serial:x}" for one in (first, second))
        again = desk.revoke("identity", ORDERS, "another reason")
        assert not again.changed
        with pytest.raises(PermissionDenied, match="revoked, by its identity"):
            desk.renew(first.svid)
        token = desk.token()
        with pytest.raises(PermissionDenied, match="was revoked"):
            desk.join(token)
        desk.renew(other.svid)
        (listed,) = desk.revocations()
        assert (listed.kind, listed.value, listed.at) == ("identity", ORDERS, NOW)
        assert (listed.by, listed.reason) == ("local operator", "stolen")
        assert desk.reinstate("identity", ORDERS)
        assert not desk.reinstate("identity", ORDERS)
        desk.renew(first.svid)
        desk.join(token)
        assert desk.revocations() == []
    told = [one for one in audited(tmp_path / "cp") if one["event"] in ("revoked", "reinstated")]
    assert [(one["event"], one["kind"], one["value"], one["by"]) for one in told] == [
        ("revoked", "identity", ORDERS, "local operator"),
        ("reinstated", "identity", ORDERS, "local operator"),
    ]
    assert told[0]["reason"] == "stolen"
    assert sorted(told[0]["serials"]) == sorted(said.serials)


def test_an_identity_that_nobody_has_can_be_revoked(tmp_path: Path) -> None:
    """Before somebody has it; that nobody does is said."""
    with opened(tmp_path) as desk:
        said = desk.revoke("identity", ORDERS)
        assert (said.changed, list(said.serials)) == (True, [])
        with pytest.raises(PermissionDenied, match="was revoked"):
            desk.join()


def test_an_identity_may_be_written_as_explain_takes_it(tmp_path: Path) -> None:
    """Namespace and service account; it is stored whole, and given back by either spelling."""
    with opened(tmp_path) as desk:
        assert desk.revoke("identity", "shop/orders").changed
        assert [one.value for one in desk.revocations()] == [ORDERS]
        assert not desk.revoke("identity", ORDERS).changed
        assert desk.reinstate("identity", "shop/orders")
        assert desk.revocations() == []


@pytest.mark.parametrize("spelled", ["{0:x}", "{0:X}", "00{0:x}", "{1}"])
def test_a_serial_number_is_taken_as_openssl_prints_it(tmp_path: Path, spelled: str) -> None:
    """In capitals, with zeros before it, with colons; stored in one spelling."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        colons = svid.serial.to_bytes(20).hex(":")
        said = desk.revoke("serial", spelled.format(svid.serial, colons))
        assert list(said.serials) == [f"{svid.serial:x}"] == [one.value for one in desk.revocations()]
        with pytest.raises(PermissionDenied, match="revoked, by its serial"):
            desk.renew(svid)


def test_an_unused_token_is_void_and_a_used_one_takes_along_what_came_of_it(tmp_path: Path) -> None:
    """Its node's certificates, those it has put away too; what was revoked for itself stays so when the token is given
    back."""
    with opened(tmp_path) as desk:
        unused = desk.token()
        said = desk.revoke("token", unused.split(".")[1])
        assert (said.changed, list(said.serials)) == (True, [])
        with pytest.raises(PermissionDenied, match="revoked"):
            desk.join(unused)
        used = desk.token()
        token_id = used.split(".")[1]
        sidecar = desk.join(used, new_private_key())
        sibling = desk.join()
        newer = desk.renew(sidecar.svid)
        desk.revoke("serial", f"{newer.serial:x}", "its own")
        said = desk.revoke("token", token_id, "lost")
        assert sorted(said.serials) == sorted(f"{one.serial:x}" for one in (sidecar.svid, newer))
        for svid in (sidecar.svid, newer):
            with pytest.raises(PermissionDenied, match="revoked, by its serial"):
                desk.renew(svid)
        assert sidecar.node is not None
        with pytest.raises(PermissionDenied, match="revoked"):
            desk.rejoin(sidecar.node)
        desk.renew(sibling.svid)
        reasons = {one.value: one.reason for one in desk.revocations()}
        assert reasons[f"{sidecar.svid.serial:x}"] == f"join token {token_id}: lost"
        assert desk.reinstate("token", token_id)
        assert [one.value for one in desk.revocations() if one.kind == "serial"] == [f"{newer.serial:x}"]
        desk.rejoin(sidecar.node)
        desk.reinstate("token", unused.split(".")[1])
        desk.join(unused)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("identity", "spiffe://mesh.local/hauberk/control-plane", "no workload"),
        ("identity", "spiffe://mesh.local/hauberk/operator/ann", "no workload"),
        ("identity", "spiffe://other.mesh/ns/shop/sa/orders", "not of this mesh"),
        ("identity", "orders", "value: .*or as namespace/service-account"),
        ("identity", "shop/", "value: "),
        ("identity", "/orders", "value: "),
        ("identity", "shop/or ders", "value: "),
        ("identity", "spiffe://mesh.local/ns/shop/sa/../x", "value: "),
        ("serial", "0", "no serial number"),
        ("serial", "", "no serial number"),
        ("serial", "xyz", "no serial number"),
        ("serial", "f" * 41, "no serial number"),
        ("token", "hauberk1.00112233445566aa.c2VjcmV0c2VjcmV0c2VjcmV0.x.1", "never the token itself"),
        ("authority", "0" * 32, "one of identity, serial, token"),
        ("", "", "one of identity, serial, token"),
    ],
)
def test_what_cannot_be_revoked_is_refused(tmp_path: Path, kind: str, value: str, why: str) -> None:
    """The control plane, operators, other meshes, what is spelled wrong; a token is not repeated."""
    with opened(tmp_path) as desk:
        with pytest.raises(InvalidRequest, match=why) as refused:
            desk.revoke(kind, value)
        with pytest.raises(InvalidRequest, match=why):
            desk.reinstate(kind, value)
        assert desk.revocations() == []
    assert "c2VjcmV0" not in str(refused.value)


def test_the_control_planes_own_certificate_is_not_revoked(tmp_path: Path) -> None:
    """Every sidecar would leave it, and hear of nothing any more."""
    with opened(tmp_path) as desk:
        own = SpiffeId.for_control_plane(TD)
        (serial,) = {one.serial for one in desk.state.store.live_certificates(NOW) if one.spiffe_id == own}
        with pytest.raises(InvalidRequest, match="control plane's own"):
            desk.revoke("serial", f"{serial:x}")


def test_a_token_that_never_was_is_not_found(tmp_path: Path) -> None:
    """A typing mistake would look like it was done."""
    with opened(tmp_path) as desk, pytest.raises(NotFound, match="nothing was revoked"):
        desk.revoke("token", "0123456789abcdef")


def test_reasons_and_waits_are_bounded(tmp_path: Path) -> None:
    """They go into records, and hold a call open."""
    with opened(tmp_path) as desk:
        for reason in ("x" * 301, "a\nb", "\x1b[2J"):
            with pytest.raises(InvalidRequest, match="reason"):
                desk.revoke("identity", ORDERS, reason)
        for wait_s in (-1.0, float("nan"), float("inf")):
            request = admin_pb2.RevokeRequest(kind="identity", value=ORDERS, wait_s=wait_s)
            with pytest.raises(InvalidRequest, match="wait_s"):
                answer(desk.apis.revoke.revoke(LOCAL_OPERATOR, request))
        assert desk.revocations() == []


def test_more_than_sidecars_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that no sidecar reads would stop every later push; nothing is changed by the one too many."""
    monkeypatch.setattr(revoke, "SERIALS_MAX", 2)
    monkeypatch.setattr(revoke, "IDENTITIES_MAX", 1)
    with opened(tmp_path) as desk:
        for serial in ("1", "2"):
            desk.revoke("serial", serial)
        with pytest.raises(FailedPrecondition, match="more than 2"):
            desk.revoke("serial", "3")
        desk.revoke("identity", ORDERS)
        with pytest.raises(FailedPrecondition, match="more than 1"):
            desk.revoke("identity", ORDERS + "2")
        assert len(desk.revocations()) == 3


def test_a_restart_and_a_long_time_forget_no_revoked_identity(tmp_path: Path) -> None:
    """A serial number is forgotten when its certificate has long ended, and not before."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        desk.revoke("identity", "spiffe://mesh.local/ns/shop/sa/gone")
        desk.revoke("serial", f"{svid.serial:x}")
    with opened(tmp_path) as desk:
        with pytest.raises(PermissionDenied, match="revoked"):
            desk.renew(svid)
        desk.passes(3_000)
        assert len(desk.revocations()) == 2
        desk.passes(4 * 86_400)
        assert [one.kind for one in desk.revocations()] == ["identity"]


# --- over sockets ------------------------------------------------------------------------------------------------


async def revokes(operator: Rpc, kind: str, value: str, wait_s: float = 0.0) -> admin_pb2.RevokeResponse:
    request = admin_pb2.RevokeRequest(kind=kind, value=value, wait_s=wait_s)
    return await operator.call("Admin/Revoke", request, admin_pb2.RevokeResponse)


def revoked_in(snapshot: discovery_pb2.Snapshot) -> set[str]:
    return {*snapshot.revocations.identities, *snapshot.revocations.serials}


def by_kind(kind: str, svid: X509Svid) -> str:
    return str(svid.spiffe_id) if kind == "identity" else f"{svid.serial:x}"


@pytest.mark.parametrize("kind", ["identity", "serial"])
def test_r08_whoever_is_revoked_is_out_at_once(tmp_path: Path, kind: str) -> None:
    """Its stream ends, its calls on a connection it has and on a new one are refused, its endpoint leaves the snapshots
    of others, and those are told whom to refuse."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path, endpoint_lost_s=60.0) as mesh, mesh.operator() as operator:
            orders, web = await mesh.join("orders"), await mesh.join("web")
            async with mesh.as_member(orders) as bad, mesh.as_member(web) as good:
                out = await watching(bad)
                await out.taken()
                await out.say(advertise=advertise("127.0.0.1:15008"))
                watcher = await watching(good, services=["orders.shop"])
                await watcher.until(lambda snapshot: len(snapshot.services[0].endpoints) == 1)
                said = await revokes(operator, kind, by_kind(kind, orders))
                assert list(said.serials) == [f"{orders.serial:x}"]
                status, text = await out.end()
                assert (status, text) == ("PERMISSION_DENIED", f"your certificate was revoked, by its {kind}")
                await watcher.until(
                    lambda seen: not seen.services[0].endpoints and revoked_in(seen) == {by_kind(kind, orders)}
                )
                for rpc in (bad, None):
                    async with mesh.as_member(orders) as fresh:
                        call = (rpc or fresh).call(
                            "Identity/Confirm", identity_pb2.ConfirmRequest(), identity_pb2.ConfirmResponse
                        )
                        assert (await refusal(call))[0] == "PERMISSION_DENIED"
                await good.call("Identity/Confirm", identity_pb2.ConfirmRequest(), identity_pb2.ConfirmResponse)

    main()


@asyncio_test
async def test_the_endpoint_of_a_revoked_identity_is_not_told_to_anybody_again(tmp_path: Path) -> None:
    """Not after a restart either, while the store still has it."""
    async with running(tmp_path, endpoint_lost_s=60.0) as mesh, mesh.operator() as operator:
        orders, web = await mesh.join("orders"), await mesh.join("web")
        async with mesh.as_member(orders) as rpc:
            await (await watching(rpc)).say(advertise=advertise("127.0.0.1:15008"))
            while not [one for one in (await operator.status()).workloads if one.address]:
                await asyncio.sleep(0)
        await revokes(operator, "identity", str(orders.spiffe_id))
        async with mesh.as_member(web) as rpc:
            assert not (await (await watching(rpc, services=["orders.shop"])).taken()).services[0].endpoints
    async with running(tmp_path) as mesh, mesh.as_member(web) as rpc:
        snapshot = await (await watching(rpc, services=["orders.shop"])).taken()
        assert (snapshot.services[0].known, list(snapshot.services[0].endpoints)) == (True, [])


@asyncio_test
async def test_a_revocation_is_waited_for_until_every_sidecar_knows(tmp_path: Path) -> None:
    """Who has confirmed, who has not when time is up; whoever is hit is not waited for."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        orders, web, slow = await mesh.join("orders"), await mesh.join("web"), await mesh.join("slow")
        async with mesh.as_member(orders) as one, mesh.as_member(web) as two, mesh.as_member(slow) as three:
            await (await watching(one)).taken()
            watcher, sleeper = await watching(two), await watching(three)
            await watcher.taken()
            await sleeper.taken()

            async def acknowledges(of: Watcher, value: str) -> None:
                await of.until(lambda snapshot: value in revoked_in(snapshot))

            said, _ = await asyncio.gather(
                revokes(operator, "identity", ORDERS, wait_s=0.5), acknowledges(watcher, ORDERS)
            )
            assert list(said.acknowledged) == [f"{web.spiffe_id}#one"]
            assert list(said.pending) == [f"{slow.spiffe_id}#one"]
            both = asyncio.gather(acknowledges(watcher, "abc"), acknowledges(sleeper, "abc"))
            said = await revokes(operator, "serial", "abc", wait_s=20.0)
            await both
            assert list(said.acknowledged) == [f"{slow.spiffe_id}#one", f"{web.spiffe_id}#one"]
            assert not said.pending


@asyncio_test
async def test_g19_only_operators_revoke(tmp_path: Path) -> None:
    """Not even oneself."""
    async with running(tmp_path) as mesh:
        svid = await mesh.join()
        async with mesh.as_member(svid) as rpc:
            assert (await refusal(revokes(rpc, "identity", str(svid.spiffe_id))))[0] == "PERMISSION_DENIED"
        async with mesh.operator() as operator:
            request = admin_pb2.ListRevocationsRequest()
            listed = await operator.call("Admin/ListRevocations", request, admin_pb2.ListRevocationsResponse)
    assert not listed.revocations


def test_a_revocation_that_cannot_be_written_down_is_not_made(tmp_path: Path) -> None:
    """G30: neither in the store nor in force."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        _break_audit(desk)
        with pytest.raises(Exception, match="nothing was changed"):
            desk.revoke("identity", ORDERS)
        assert desk.revocations() == []
        assert ORDERS not in {str(one) for one in desk.state.revoked.current().identities}
        assert desk.caller(svid).spiffe_id == svid.spiffe_id


def _break_audit(desk: Desk) -> None:
    """As a disk does that is full."""
    desk.state.audit._fd, held = -1, desk.state.audit._fd
    os.close(held)
