"""The root: what must be true of its two halves."""

from __future__ import annotations

import secrets

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.spiffe_id import TrustDomain
from control_plane.ca.errors import CaError
from control_plane.ca.root import Root, check_root, make_root
from tests.certs.forge import make_ca, make_leaf, uri

NOW = 1_800_000_000.25
TD = TrustDomain.parse("mesh.local")


def new_root(name: str = "mesh.local") -> Root:
    return make_root(TrustDomain.parse(name), lifetime_s=3600, now=NOW, token_bytes=secrets.token_bytes)


def test_a_new_root_is_sound() -> None:
    """And makes a bundle of itself alone."""
    root = new_root()
    assert check_root(root, TD).anchors_der == (root.der,)


def test_j06_halves_of_two_roots_are_refused() -> None:
    """Row J06: a backup of one file beside another day's other file."""
    with pytest.raises(CaError, match="another key"):
        check_root(Root(certificate=new_root().certificate, private_key=new_root().private_key), TD)


def test_a_root_of_another_trust_domain_is_refused() -> None:
    """Row F03."""
    with pytest.raises(CaError, match=r"is of spiffe://other, not of spiffe://mesh\.local"):
        check_root(new_root("other"), TD)


def test_a_certificate_that_is_no_root_is_refused() -> None:
    """A leaf, an intermediate, a root without a name, each with its own key beside it."""
    authority = make_ca(names=[uri(TD.uri)])
    leaf = x509.load_der_x509_certificate(make_leaf(authority, key=authority.key.public_key(), names=[uri(TD.uri)]))
    inter = make_ca("inter", issuer=authority, names=[uri(TD.uri)])
    nameless = make_ca()
    for root, says in (
        (Root(certificate=leaf, private_key=authority.key), "CA:TRUE"),
        (Root(certificate=inter.certificate, private_key=inter.key), "own signature"),
        (Root(certificate=nameless.certificate, private_key=nameless.key), "is of nobody"),
    ):
        with pytest.raises(CaError, match=says):
            check_root(root, TD)


def test_j06_every_damaged_byte_of_a_root_is_noticed() -> None:
    """Row J06: its own signature covers it, although nobody else needs that signature."""
    root = new_root()
    der = root.certificate.public_bytes(Encoding.DER)
    for index in range(len(der)):
        damaged = bytearray(der)
        damaged[index] ^= 1
        try:
            certificate = x509.load_der_x509_certificate(bytes(damaged))
        except (ValueError, x509.InvalidVersion):
            continue
        with pytest.raises(CaError):
            check_root(Root(certificate=certificate, private_key=root.private_key), TD)
