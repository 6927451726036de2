"""Intermediates: what is made, and what is taken from an offline root."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.spiffe_id import TrustDomain
from certs.svid import new_private_key
from control_plane.ca.errors import CaError, CaExpired
from control_plane.ca.hierarchy import check_intermediate, make_intermediate, make_request
from control_plane.ca.root import make_root
from tests.certs.forge import Authority, make_ca, make_leaf, uri, usage

NOW = 1_800_000_000.25
TD = TrustDomain.parse("mesh.local")
LEAVES_ONLY = x509.BasicConstraints(ca=True, path_length=0)


def root() -> Authority:
    return make_ca(names=[uri(TD.uri)], constraints=x509.BasicConstraints(ca=True, path_length=1))


def test_an_intermediate_says_what_spiffe_asks_of_a_signing_certificate() -> None:
    """SPIFFE X509-SVID sections 3.2 and 4: path length 0, the trust domain's name, P-256."""
    above = make_root(TD, lifetime_s=3600, now=NOW, token_bytes=secrets.token_bytes)
    made = make_intermediate(above, TD, lifetime_s=1800, now=NOW, token_bytes=secrets.token_bytes)
    extensions = {type(one.value): one for one in made.certificate.extensions}
    assert extensions[x509.BasicConstraints].value == LEAVES_ONLY
    assert extensions[x509.BasicConstraints].critical
    assert extensions[x509.KeyUsage].value == usage("key_cert_sign", "crl_sign")
    assert extensions[x509.SubjectAlternativeName].value == x509.SubjectAlternativeName([uri(TD.uri)])
    key = made.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert check_intermediate(made.der, above.der, NOW) == made.certificate


def test_g08_an_intermediate_ends_no_later_than_its_root() -> None:
    """And nothing is made under a root that has expired."""
    above = make_root(TD, lifetime_s=10, now=NOW, token_bytes=secrets.token_bytes)
    made = make_intermediate(above, TD, lifetime_s=3600, now=NOW, token_bytes=secrets.token_bytes)
    assert made.not_after == above.not_after
    with pytest.raises(CaExpired):
        make_intermediate(above, TD, lifetime_s=3600, now=NOW + 11, token_bytes=secrets.token_bytes)


REFUSED: dict[str, tuple[str, Callable[[Authority], Authority]]] = {
    "signed by another root": ("not signed by", lambda above: make_ca("x", issuer=root(), constraints=LEAVES_ONLY)),
    "f09 path length 1": (
        "path length 0",
        lambda above: make_ca("x", issuer=above, constraints=x509.BasicConstraints(ca=True, path_length=1)),
    ),
    "f09 no path length": ("path length 0", lambda above: make_ca("x", issuer=above)),
    "f06 no signing certificate": (
        "CA:TRUE",
        lambda above: make_ca("x", issuer=above, constraints=x509.BasicConstraints(ca=False, path_length=None)),
    ),
    "f07 no keyCertSign": (
        "keyCertSign",
        lambda above: make_ca("x", issuer=above, constraints=LEAVES_ONLY, key_usage=usage("crl_sign")),
    ),
    "f09 name constraints": (
        "name constraints",
        lambda above: make_ca(
            "x",
            issuer=above,
            constraints=LEAVES_ONLY,
            extra=[(x509.NameConstraints([uri("mesh.local")], None), True)],
        ),
    ),
    "f01 expired": (
        "expired",
        lambda above: make_ca("x", issuer=above, constraints=LEAVES_ONLY, not_after=NOW - 1),
    ),
    "f01 of tomorrow": (
        "not valid before",
        lambda above: make_ca("x", issuer=above, constraints=LEAVES_ONLY, not_before=NOW + 60),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_an_offline_root_sends_is_judged(what: str) -> None:
    """Whatever its operator signed: only what peers will follow is taken."""
    says, make = REFUSED[what]
    above = root()
    with pytest.raises(CaError, match=says):
        check_intermediate(make(above).der, above.der, NOW)


def test_f09_a_root_for_leaves_only_has_no_intermediate() -> None:
    """Path length 0 at the root."""
    above = make_ca(names=[uri(TD.uri)], constraints=LEAVES_ONLY)
    with pytest.raises(CaError, match="leaves only"):
        check_intermediate(make_ca("x", issuer=above, constraints=LEAVES_ONLY).der, above.der, NOW)


def test_garbage_and_leaves_are_refused_with_our_error() -> None:
    """Never with the parser's."""
    above = root()
    for der in (b"", b"\x30\x00", make_leaf(above)):
        with pytest.raises(CaError):
            check_intermediate(der, above.der, NOW)


def test_a_request_asks_for_what_is_needed_and_proves_its_key() -> None:
    """PKCS#10 that a plain `openssl x509 -req -copy_extensions copyall` turns into an intermediate."""
    key = new_private_key()
    request = x509.load_pem_x509_csr(make_request(key, TD))
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert request.extensions.get_extension_for_class(x509.BasicConstraints).value == LEAVES_ONLY
    assert request.extensions.get_extension_for_class(x509.KeyUsage).value == usage("key_cert_sign", "crl_sign")
    assert request.public_bytes(Encoding.PEM).startswith(b"-----BEGIN CERTIFICATE REQUEST-----")
