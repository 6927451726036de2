"""Build, sign, verify: what does not verify does not leave."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
from cryptography import x509

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.ca.errors import CaError, CaExpired, UnfitToIssue
from control_plane.ca.hierarchy import Issuer, make_intermediate, of_root
from control_plane.ca.root import Root, make_root
from control_plane.ca.signer import Signer
from tests.certs.forge import ec_key, make_ca, uri

NOW = 1_800_000_000.25
TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.for_workload(TD, "shop", "web")


def new_root() -> Root:
    return make_root(TD, lifetime_s=3600, now=NOW, token_bytes=secrets.token_bytes)


def new_issuer() -> Issuer:
    return make_intermediate(new_root(), TD, lifetime_s=1800, now=NOW, token_bytes=secrets.token_bytes)


def signer(issuer: Issuer) -> Signer:
    return Signer(issuer, TD, token_bytes=secrets.token_bytes)


def refused(issuer: Issuer) -> None:
    with pytest.raises(UnfitToIssue, match="does not verify"):
        signer(issuer).issue(WEB, ec_key().public_key(), 60, NOW)


def test_an_intermediate_signs_and_its_certificate_goes_along() -> None:
    """The chain is leaf and intermediate; both authorities are named."""
    issuer = new_issuer()
    issued = signer(issuer).issue(WEB, ec_key().public_key(), 60, NOW)
    assert (issued.spiffe_id, issued.chain_der[1:]) == (WEB, (issuer.der,))
    assert (issued.issuer_id, issued.root_id) == (issuer.issuer_id, issuer.root_id)


def test_a_root_of_before_there_were_intermediates_signs_leaves() -> None:
    """Path length 0: what an older data directory holds."""
    old = make_ca(constraints=x509.BasicConstraints(ca=True, path_length=0), names=[uri(TD.uri)])
    issued = signer(of_root(Root(certificate=old.certificate, private_key=old.key))).issue(
        WEB, ec_key().public_key(), 60, NOW
    )
    assert len(issued.chain_der) == 1
    assert issued.issuer_id == issued.root_id


def test_what_peers_would_not_accept_never_leaves() -> None:
    """An intermediate beside a root that did not sign it: the signature is fine, and useless."""
    refused(replace(new_issuer(), anchor=new_root().certificate))


def test_a_key_that_is_not_the_issuers_signs_nothing_that_leaves() -> None:
    """Certificate and key of two different intermediates."""
    refused(replace(new_issuer(), private_key=new_issuer().private_key))


def test_f09_an_intermediate_under_an_intermediate_signs_nothing_that_leaves() -> None:
    """The root's path length is 1: peers follow no more than that."""
    root = new_root()
    first = make_intermediate(root, TD, lifetime_s=1800, now=NOW, token_bytes=secrets.token_bytes)
    under = Root(certificate=first.certificate, private_key=first.private_key)
    second = make_intermediate(under, TD, lifetime_s=1800, now=NOW, token_bytes=secrets.token_bytes)
    refused(replace(second, anchor=root.certificate))


def test_an_issuer_that_is_not_valid_yet_signs_nothing_that_leaves() -> None:
    """Peers look at their own clock."""
    old = make_ca(not_before=NOW + 30, not_after=NOW + 3600, names=[uri(TD.uri)])
    issuer = of_root(Root(certificate=old.certificate, private_key=old.key))
    with pytest.raises(CaExpired, match="not valid yet"):
        signer(issuer).issue(WEB, ec_key().public_key(), 60, NOW)


def test_an_anchor_that_is_none_makes_no_signer() -> None:
    """Row F06: a leaf is no anchor."""
    issuer = new_issuer()
    leaf = signer(issuer).issue(WEB, ec_key().public_key(), 60, NOW).chain_der[0]
    with pytest.raises(CaError):
        signer(replace(issuer, anchor=x509.load_der_x509_certificate(leaf)))


def test_nothing_secret_is_in_a_repr() -> None:
    """Objects get logged."""
    issuer = new_issuer()
    for thing in (issuer, signer(issuer)):
        assert "rivate" not in repr(thing)
