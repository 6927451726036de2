"""Build, sign, verify: what does not verify does not leave."""

from __future__ import annotations

import secrets

import pytest

from certs.bundle import TrustBundle
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.ca.errors import UnfitToIssue
from control_plane.ca.root import Root, check_root, make_root
from control_plane.ca.signer import Signer
from tests.certs.forge import ec_key, make_ca

NOW = 1_800_000_000.25
TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.for_workload(TD, "shop", "web")


def new_root() -> Root:
    return make_root(TD, lifetime_s=3600, now=NOW, token_bytes=secrets.token_bytes)


def test_a_signer_signs_for_the_bundle_it_was_given() -> None:
    """The straight way."""
    root = new_root()
    signer = Signer(root, check_root(root, TD), token_bytes=secrets.token_bytes)
    assert signer.issue(WEB, ec_key().public_key(), 60, NOW).spiffe_id == WEB


def test_what_peers_would_not_accept_never_leaves() -> None:
    """A root that is in nobody's bundle: the signature is fine, and useless."""
    signer = Signer(new_root(), TrustBundle.of(TD, [new_root().der]), token_bytes=secrets.token_bytes)
    with pytest.raises(UnfitToIssue, match="does not verify"):
        signer.issue(WEB, ec_key().public_key(), 60, NOW)


def test_a_key_that_is_not_the_roots_signs_nothing_that_leaves() -> None:
    """Certificate and key of two different roots."""
    root = new_root()
    mixed = Root(certificate=root.certificate, private_key=new_root().private_key)
    signer = Signer(mixed, check_root(root, TD), token_bytes=secrets.token_bytes)
    with pytest.raises(UnfitToIssue, match="does not verify"):
        signer.issue(WEB, ec_key().public_key(), 60, NOW)


def test_a_root_that_may_not_sign_signs_nothing_that_leaves() -> None:
    """An expired root in the past of which we were asked to sign: peers look at their own clock."""
    old = make_ca(not_before=NOW + 30, not_after=NOW + 3600)
    root = Root(certificate=old.certificate, private_key=old.key)
    signer = Signer(root, TrustBundle.of(TD, [old.der]), token_bytes=secrets.token_bytes)
    with pytest.raises(UnfitToIssue):
        signer.issue(WEB, ec_key().public_key(), 60, NOW)
