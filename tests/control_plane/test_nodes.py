"""The rules of nodes: whose certificate counts, who comes back, what a second holder of a key gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from certs import node_key
from certs.csr import make_csr
from certs.errors import InvalidCsr
from certs.svid import X509Svid, new_private_key
from control_plane.errors import InvalidRequest, PermissionDenied, Unauthenticated
from control_plane.model import IssuedRecord, Node, Workload
from control_plane.nodes import Standing, new_node, refusal_to_rejoin, standing
from protos.hauberk.v1 import identity_pb2 as pb
from tests.control_plane.desk import STRANGER, Desk, answer, node_id_of, opened, signed_join, signed_rejoin
from tests.control_plane.support import NOW, audited, workload_spec

DAY_S = 86_400.0
WORKLOAD = Workload(workload_id=1, spec=workload_spec(), joined_at=NOW)


def node(confirmed_number: int = 5) -> Node:
    return Node(
        node_id="0" * 32,
        workload_id=1,
        token_id="0" * 16,
        public_key_der=b"",
        joined_at=NOW,
        expires_at=NOW + 100,
        confirmed_number=confirmed_number,
    )


def certificate(number: int) -> IssuedRecord:
    return IssuedRecord(
        serial=number,
        spiffe_id=WORKLOAD.spiffe_id,
        workload_id=1,
        not_before=NOW,
        not_after=NOW + 60,
        issued_at=NOW,
        number=number,
    )


@pytest.mark.parametrize(
    ("number", "expected"), [(4, Standing.PUT_AWAY), (5, Standing.CURRENT), (6, Standing.NEWER), (9, Standing.NEWER)]
)
def test_g24_what_a_certificate_says_is_its_place_in_the_line(number: int, expected: Standing) -> None:
    """Against the newest one the node was seen to use."""
    assert standing(certificate(number), node()) is expected


def test_a_certificate_of_no_node_says_nothing() -> None:
    """It is of before a restore, or of an older release."""
    assert standing(None, None) is standing(certificate(1), None) is standing(None, node()) is Standing.UNKNOWN


def test_a_node_is_named_by_its_key_or_at_random() -> None:
    """Two without a key are two."""
    key = new_private_key()
    named = new_node(WORKLOAD, "t", node_key.public_der(key), now=NOW, lifetime_s=10)
    assert (named.node_id, named.expires_at) == (node_id_of(key), NOW + 10)
    first, second = (new_node(WORKLOAD, "t", b"", now=NOW, lifetime_s=10) for _ in range(2))
    assert len(first.node_id) == len(second.node_id) == 32
    assert first.node_id != second.node_id
    with pytest.raises(InvalidCsr):
        new_node(WORKLOAD, "t", b"garbage", now=NOW, lifetime_s=10)


def test_who_may_come_back() -> None:
    """A node that is known, not for too long away, of a workload that is there, not revoked."""

    def asked(
        of: Node | None = None, workload: Workload | None = WORKLOAD, now: float = NOW, revoked: bool = False
    ) -> str:
        return refusal_to_rejoin(of, workload, now=now, is_revoked=revoked)

    assert asked(node()) == ""
    assert asked(node(), now=NOW + 99.9) == ""
    assert "too long" in asked(node(), now=NOW + 100)
    assert "not known" in asked(None)
    assert "removed" in asked(node(), workload=None)
    assert "revoked" in asked(node(), revoked=True)


# --- through the API ---------------------------------------------------------------------------------------------


def test_a_node_joins_with_a_key_and_is_told_how_long_that_is_good(tmp_path: Path) -> None:
    """30 days after its last certificate; a node without a key cannot come back, and is told so."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        with_key, without = desk.join(node=key), desk.join()
        assert (with_key.said.node_id, with_key.said.node_expires_at) == (node_id_of(key), NOW + 30 * DAY_S)
        assert (len(without.said.node_id), without.said.node_expires_at) == (32, 0)
        desk.passes(600)
        renewed = desk.renew(with_key.svid)
        assert desk.node_of(renewed).expires_at == NOW + 600 + 30 * DAY_S


@pytest.mark.parametrize(
    "spoil",
    [
        lambda request: setattr(request, "node_signature", b""),
        lambda request: setattr(request, "node_signature", request.node_signature[:-1]),
        lambda request: setattr(request, "node_key_der", b"garbage"),
        lambda request: setattr(request, "node_key_der", node_key.public_der(new_private_key())),
        lambda request: setattr(request, "csr_der", make_csr(new_private_key(), None)),
    ],
    ids=["no signature", "cut", "no key", "another's key", "another request"],
)
def test_g04_a_node_key_is_registered_only_for_who_holds_it(
    tmp_path: Path, spoil: Callable[[pb.JoinRequest], None]
) -> None:
    """Of the key, over this token and this request; the token stays good."""
    with opened(tmp_path) as desk:
        token, key = desk.token(), new_private_key()
        request = signed_join(token, new_private_key(), key)
        spoil(request)
        with pytest.raises(InvalidRequest, match="node"):
            answer(desk.apis.identity.join(STRANGER, request))
        desk.join(token, key)


def test_a_node_key_of_another_workload_is_not_taken(tmp_path: Path) -> None:
    """Its line of certificates is somebody else's; the token stays good."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        desk.join(node=key, service="billing")
        token = desk.token()
        with pytest.raises(PermissionDenied, match="another workload"):
            desk.join(token, key)
        desk.join(token)


def test_r03_a_node_that_slept_longer_than_its_certificate_comes_back(tmp_path: Path) -> None:
    """Without a token, as the same workload; with its expired certificate nothing works."""
    with opened(tmp_path) as desk:
        sidecar = desk.join(node=new_private_key())
        assert sidecar.node is not None
        desk.passes(29 * DAY_S)
        with pytest.raises(Unauthenticated, match="not valid"):
            desk.renew(sidecar.svid)
        back = desk.rejoin(sidecar.node)
        assert back.spiffe_id == sidecar.svid.spiffe_id
        desk.renew(back)
        assert [one["event"] for one in audited(tmp_path / "cp")][-2:] == ["identity.rejoined", "identity.renewed"]


def test_a_join_whose_answer_was_lost_is_made_good_by_the_node_key(tmp_path: Path) -> None:
    """The token is spent, the certificate never seen; the node is known all the same."""
    with opened(tmp_path) as desk:
        token, key = desk.token(), new_private_key()
        desk.join(token, key)  # and the answer is lost
        with pytest.raises(PermissionDenied, match="already used"):
            desk.join(token, key)
        desk.confirm(desk.rejoin(key))


def test_g23_a_node_that_was_away_for_too_long_does_not_come_back(tmp_path: Path) -> None:
    """After 30 days it needs a token."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        desk.join(node=key)
        desk.passes(30 * DAY_S)
        with pytest.raises(PermissionDenied, match="hauberk token create"):
            desk.rejoin(key)
        desk.join(node=key)


def _revoke_identity(desk: Desk, svid: X509Svid) -> None:
    desk.revoke("identity", str(svid.spiffe_id))


def _revoke_token(desk: Desk, svid: X509Svid) -> None:
    desk.revoke("token", desk.node_of(svid).token_id)


def _remove(desk: Desk, svid: X509Svid) -> None:
    desk.state.store.remove_workload(desk.node_of(svid).workload_id, desk.clock())


@pytest.mark.parametrize("shut_out", [_revoke_identity, _revoke_token, _remove])
def test_g22_who_was_shut_out_neither_renews_nor_rejoins(
    tmp_path: Path, shut_out: Callable[[Desk, X509Svid], None]
) -> None:
    """By identity, by join token, or removed."""
    with opened(tmp_path) as desk:
        sidecar = desk.join(node=new_private_key())
        other = desk.join(node=new_private_key(), service="billing")
        assert sidecar.node is not None
        assert other.node is not None
        shut_out(desk, sidecar.svid)
        with pytest.raises(PermissionDenied):
            desk.renew(sidecar.svid)
        with pytest.raises(PermissionDenied):
            desk.rejoin(sidecar.node)
        desk.renew(other.svid)
        desk.rejoin(other.node)


def test_g22_what_came_of_a_token_is_revoked_with_it_though_the_node_has_joined_again(tmp_path: Path) -> None:
    """Each certificate knows its token, by however many renewals; what the new token brought is not meant."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        joined = desk.join(node=key).svid
        token_id = desk.node_of(joined).token_id
        renewed = desk.renew(joined)
        again = desk.join(node=key)
        late = desk.renew(renewed)  # by who kept it: of the first token, although the node has another now
        assert desk.node_of(late).token_id != token_id
        told = desk.revoke("token", token_id)
        assert sorted(told.serials) == sorted(f"{one.serial:x}" for one in (joined, renewed, late))
        for svid in (joined, renewed, late):
            with pytest.raises(PermissionDenied, match="revoked, by its serial"):
                desk.renew(svid)
        desk.renew(again.svid)
        desk.renew(desk.rejoin(key))
        assert desk.reinstate("token", token_id)
        desk.caller(late)


def test_g22_a_nodes_last_token_ends_all_that_it_has(tmp_path: Path) -> None:
    """Its key came in with that one, and whoever has a certificate of before may have the key."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        before = desk.join(node=key).svid
        again = desk.join(node=key).svid
        desk.revoke("token", desk.node_of(again).token_id)
        for svid in (before, again):
            with pytest.raises(PermissionDenied, match="revoked, by its serial"):
                desk.renew(svid)
        with pytest.raises(PermissionDenied):
            desk.rejoin(key)


def test_a_revoked_serial_ends_one_certificate_and_not_its_node(tmp_path: Path) -> None:
    """The key of that one was lost; the node key was not."""
    with opened(tmp_path) as desk:
        sidecar = desk.join(node=new_private_key())
        assert sidecar.node is not None
        desk.revoke("serial", f"{sidecar.svid.serial:x}")
        with pytest.raises(PermissionDenied, match="revoked, by its serial"):
            desk.renew(sidecar.svid)
        desk.renew(desk.rejoin(sidecar.node))


def test_a_nonce_is_good_once_and_for_a_minute(tmp_path: Path) -> None:
    """And only one of ours; after a restart none of before is."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        desk.join(node=key)
        used = desk.nonce()
        request = signed_rejoin(key, new_private_key(), used)
        answer(desk.apis.identity.rejoin(STRANGER, request))
        old = desk.nonce()
        of_before = desk.nonce()
        desk.clock.at += 60
        for nonce, why in ((used, "60 s"), (old, "60 s"), (bytes(32), "not one of"), (b"", "not one of")):
            with pytest.raises(InvalidRequest, match=why):
                answer(desk.apis.identity.rejoin(STRANGER, signed_rejoin(key, new_private_key(), nonce)))
        desk.clock.at -= 30
        with pytest.raises(InvalidRequest, match="used before"):
            answer(desk.apis.identity.rejoin(STRANGER, request))
        desk.clock.at = NOW
    with opened(tmp_path) as desk, pytest.raises(InvalidRequest, match="not one of"):
        answer(desk.apis.identity.rejoin(STRANGER, signed_rejoin(key, new_private_key(), of_before)))


def test_a_stranger_uses_up_no_nonce(tmp_path: Path) -> None:
    """Who did not prove the key costs nothing but the look."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        desk.join(node=key)
        nonce = desk.nonce()
        forged = signed_rejoin(new_private_key(), new_private_key(), nonce)
        forged.node_id = node_id_of(key)
        with pytest.raises(PermissionDenied):
            answer(desk.apis.identity.rejoin(STRANGER, forged))
        answer(desk.apis.identity.rejoin(STRANGER, signed_rejoin(key, new_private_key(), nonce)))


def test_g16_what_was_signed_is_what_is_used(tmp_path: Path) -> None:
    """A request put in the place of the signed one is refused; the certificate is for the key in the signed one."""
    with opened(tmp_path) as desk:
        key, wanted, thief = new_private_key(), new_private_key(), new_private_key()
        desk.join(node=key)
        request = signed_rejoin(key, wanted, desk.nonce())
        swapped = pb.RejoinRequest()
        swapped.CopyFrom(request)
        swapped.csr_der = make_csr(thief, None)
        with pytest.raises(PermissionDenied):
            answer(desk.apis.identity.rejoin(STRANGER, swapped))
        said = answer(desk.apis.identity.rejoin(STRANGER, request))
        X509Svid.of(said.certificate_chain_der, wanted, desk.state.trust_domain, desk.clock())


def test_whoever_cannot_prove_a_node_key_learns_nothing(tmp_path: Path) -> None:
    """A node that is known, one that is not, one without a key, an expired one: one and the same text."""
    texts = set()
    with opened(tmp_path) as desk:
        key, stranger = new_private_key(), new_private_key()
        known, keyless = desk.join(node=key), desk.join()
        for node_id in (known.said.node_id, keyless.said.node_id, "f" * 32, ""):
            with pytest.raises(PermissionDenied) as refused:
                desk.rejoin(stranger, node_id=node_id)
            texts.add(str(refused.value))
        desk.passes(31 * DAY_S)
        with pytest.raises(PermissionDenied) as refused:
            desk.rejoin(stranger, node_id=known.said.node_id)
    assert texts == {str(refused.value)}


def test_a_signature_for_joining_does_not_rejoin(tmp_path: Path) -> None:
    """What it is for is part of what is signed."""
    with opened(tmp_path) as desk:
        key = new_private_key()
        desk.join(node=key)
        nonce, csr_der = desk.nonce(), make_csr(new_private_key(), None)
        signature = node_key.sign(key, node_key.JOIN, nonce, csr_der)
        with pytest.raises(PermissionDenied):
            desk.rejoin(key, nonce=nonce, csr_der=csr_der, node_signature=signature)
