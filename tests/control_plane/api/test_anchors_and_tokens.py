"""What strangers may ask besides Join, what a workload gets besides certificates: anchors, challenges, JWT-SVIDs."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from certs.bundle import pin
from certs.csr import make_csr
from certs.succession import Succession, follow
from certs.svid import new_private_key
from control_plane.config import Limits
from control_plane.errors import InvalidRequest, PermissionDenied, ResourceExhausted, Unavailable
from protos.hauberk.v1 import config_pb2
from protos.hauberk.v1 import identity_pb2 as pb
from tests.control_plane.desk import STRANGER, Desk, answer, opened, signed_rejoin
from tests.control_plane.support import (
    NOW,
    TD,
    asyncio_test,
    audited,
    policy_yaml,
    refusal,
    running,
    watching,
)


def anchors(desk: Desk, *held_sha256: bytes) -> tuple[Succession, ...]:
    request = pb.AnchorsRequest(held_sha256=held_sha256)
    found = answer(desk.apis.identity.anchors(STRANGER, request)).successions
    return tuple(
        Succession(predecessor_sha256=one.predecessor_sha256, successor_der=one.successor_der, signature=one.signature)
        for one in found
    )


def turned_over(desk: Desk, times: int) -> list[bytes]:
    """The anchors of a mesh whose root turns over so often; nobody is in it, so nobody is waited for."""
    found = [desk.state.authority.anchor_der]
    while len(found) <= times:
        desk.passes(10 * 86_400)
        if desk.state.authority.anchor_der != found[-1]:
            found.append(desk.state.authority.anchor_der)
    return found


def test_r04_whoever_knows_an_old_anchor_follows_it_to_the_one_of_today(tmp_path: Path) -> None:
    """Through all that came between, by statements that prove themselves. Who knows none of ours is told nothing."""
    with opened(tmp_path) as desk:
        first, second, third = turned_over(desk, 2)
        said = anchors(desk, pin(first))
        assert follow([first], said, TD) == (second, third)
        assert follow([second], anchors(desk, pin(second)), TD) == (third,)
        assert follow([second], anchors(desk, b"x" * 32, pin(second)), TD) == (third,)
        assert anchors(desk, pin(third)) == anchors(desk, b"x" * 32) == anchors(desk) == ()


def test_a_question_about_too_many_anchors_is_refused(tmp_path: Path) -> None:
    """Nobody holds that many."""
    with opened(tmp_path) as desk:
        anchors(desk, *[bytes([n]) * 32 for n in range(16)])
        with pytest.raises(InvalidRequest, match="at most 16"):
            anchors(desk, *[bytes([n]) * 32 for n in range(17)])


def _challenge(desk: Desk) -> Any:
    return answer(desk.apis.identity.challenge(STRANGER, pb.ChallengeRequest()))


def _rejoin(desk: Desk) -> Any:
    request = signed_rejoin(new_private_key(), new_private_key(), bytes(32))
    with contextlib.suppress(InvalidRequest, PermissionDenied):
        return answer(desk.apis.identity.rejoin(STRANGER, request))


@pytest.mark.parametrize("ask", [_challenge, _rejoin, anchors])
def test_g25_what_strangers_may_ask_is_limited_and_takes_nothing_from_members(
    tmp_path: Path, ask: Callable[[Desk], Any]
) -> None:
    """By their address; a member at the same address renews as ever."""
    limits = Limits(renew_rate_per_s=1.0, renew_burst=5)
    with opened(tmp_path, limits=limits) as desk:
        svid = desk.join().svid
        for _ in range(5):
            ask(desk)
        with pytest.raises(ResourceExhausted, match="try again in"):
            ask(desk)
        at_that_address = desk.caller(svid)
        assert at_that_address.peer != STRANGER.peer
        key = new_private_key()
        stranger_here = type(at_that_address)(
            role=at_that_address.role,
            name=at_that_address.name,
            peer=STRANGER.peer,
            spiffe_id=at_that_address.spiffe_id,
            serial=at_that_address.serial,
        )
        answer(desk.apis.identity.renew(stranger_here, pb.RenewRequest(csr_der=make_csr(key, None))))
        desk.clock.at += 1
        ask(desk)


def test_g25_renewals_from_one_address_are_limited(tmp_path: Path) -> None:
    """And those from another are not hit."""
    with opened(tmp_path, limits=Limits(renew_rate_per_s=1.0, renew_burst=3)) as desk:
        svid = desk.join().svid
        for _ in range(3):
            desk.renew(svid)
        with pytest.raises(ResourceExhausted):
            desk.renew(svid)
        desk.clock.at += 1
        desk.renew(svid)


# --- JWT-SVIDs ---------------------------------------------------------------------------------------------------


def jwt(desk: Desk, svid: Any, *audiences: str) -> pb.JwtSvidResponse:
    request = pb.JwtSvidRequest(audiences=audiences)
    return answer(desk.apis.identity.issue_jwt_svid(desk.caller(svid), request))


def test_a_jwt_svid_is_the_callers_own_and_on_record(tmp_path: Path) -> None:
    """Subject, audiences and life are what was said; the token itself is in no record."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        said = jwt(desk, svid, "billing", "reports", "billing")
        payload = said.token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert (claims["sub"], claims["aud"]) == (said.spiffe_id, ["billing", "reports"])
        assert said.spiffe_id == str(svid.spiffe_id)
        assert (said.issued_at, said.expires_at) == (NOW, NOW + 300)
    (told,) = [one for one in audited(tmp_path / "cp") if one["event"] == "identity.jwt_issued"]
    assert (told["audiences"], told["spiffe_id"]) == (["billing", "reports"], said.spiffe_id)
    assert said.token not in (tmp_path / "cp" / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    "audiences", [(), ("",), ("a",) * 17, ("x" * 513,), ("a\nb",)], ids=["none", "empty", "17", "513", "unprintable"]
)
def test_audiences_are_bounded(tmp_path: Path, audiences: tuple[str, ...]) -> None:
    """One to sixteen, printable, not too long; the caller is told which."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        with pytest.raises(InvalidRequest, match="audiences: "):
            jwt(desk, svid, *audiences)
        jwt(desk, svid, *[f"{n}" * 100 for n in range(16)])


def test_g22_who_was_shut_out_gets_no_jwt_svid(tmp_path: Path) -> None:
    """Revoked, or removed."""
    with opened(tmp_path) as desk:
        svid, other = desk.join().svid, desk.join(service="billing").svid
        desk.revoke("identity", str(svid.spiffe_id))
        desk.state.store.remove_workload(desk.node_of(other).workload_id, NOW)
        for one in (svid, other):
            with pytest.raises(PermissionDenied):
                jwt(desk, one, "a")


def test_g30_what_cannot_be_written_down_is_not_signed(tmp_path: Path) -> None:
    """A token is an issuance too."""
    with opened(tmp_path) as desk:
        svid = desk.join().svid
        desk.state.audit._fd, held = -1, desk.state.audit._fd
        try:
            with pytest.raises(Unavailable, match="nothing was changed"):
                jwt(desk, svid, "a")
        finally:
            desk.state.audit._fd = held


@asyncio_test
async def test_g25_a_refused_call_of_a_stranger_is_on_record(tmp_path: Path) -> None:
    """Method, address and why; over the port itself."""
    async with running(tmp_path) as mesh, mesh.anonymous() as stranger:
        request = signed_rejoin(new_private_key(), new_private_key(), bytes(32))
        status, _ = await refusal(stranger.call("Identity/Rejoin", request, pb.SvidResponse))
        nonce = (await stranger.call("Identity/Challenge", pb.ChallengeRequest(), pb.ChallengeResponse)).nonce
        said = await stranger.call("Identity/Anchors", pb.AnchorsRequest(), pb.AnchorsResponse)
    assert (status, len(nonce), list(said.successions)) == ("INVALID_ARGUMENT", 32, [])
    lines = [json.loads(line) for line in (tmp_path / "cp" / "audit.jsonl").read_text().splitlines()]
    (told,) = [one for one in lines if one.get("method") == "/hauberk.v1.Identity/Rejoin"]
    assert (told["event"], told["peer"], told["status"]) == ("call.refused", "127.0.0.1", "INVALID_ARGUMENT")


@asyncio_test
async def test_g27_a_policy_reaches_the_workloads_of_its_own_namespace_only(tmp_path: Path) -> None:
    """Whoever writes policies for one namespace cannot touch another's, whatever its selector says."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        svid = await mesh.join("orders", "shop")
        await operator.apply(policy_yaml("orders", namespace="tenant", action="DENY"), policy_yaml("orders"))
        async with mesh.as_member(svid) as rpc:
            snapshot = await (await watching(rpc)).taken()
    assert [(one.namespace, one.name) for one in snapshot.policies] == [("shop", "orders")]


@asyncio_test
async def test_g27_a_policy_that_names_a_service_of_another_namespace_is_refused(tmp_path: Path) -> None:
    """At admission, with the place; nothing is stored."""
    text = policy_yaml("orders", namespace="tenant", action="DENY").replace(
        "  selector:\n    matchLabels:\n      app: orders\n",
        "  targetRefs:\n  - {kind: Service, group: '', name: orders, namespace: shop}\n",
    )
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status, told = await refusal(operator.apply(text))
        listed = await operator.call("Config/List", config_pb2.ListRequest(), config_pb2.ListResponse)
    assert status == "INVALID_ARGUMENT"
    assert "targetRefs" in told
    assert "namespace" in told
    assert not listed.resources
