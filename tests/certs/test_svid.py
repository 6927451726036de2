"""An SVID of ours: checked before it is used, and its key never shown."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import InvalidSvid
from certs.spiffe_id import TrustDomain
from certs.svid import X509Svid, new_private_key
from tests.certs.forge import NOW, TD, WEB, ec_key, make_ca, make_leaf, root


def svid() -> X509Svid:
    return X509Svid.of([make_leaf(root())], ec_key(), TD, NOW)


def test_an_svid_tells_who_until_when_and_under_which_number() -> None:
    """Everything a rotator needs is read once."""
    one = svid()
    assert one.spiffe_id == WEB
    assert (one.not_before, one.not_after) == (int(NOW - 60), int(NOW + 60))
    assert one.serial == 4711


def test_a_certificate_for_another_key_is_refused() -> None:
    """Else TLS would fail later, with everybody else's certificate already thrown away."""
    with pytest.raises(InvalidSvid, match="another key"):
        X509Svid.of([make_leaf(root())], new_private_key(), TD, NOW)


def test_f01_an_expired_certificate_is_refused() -> None:
    """Row F01, at the one who is issued it."""
    with pytest.raises(InvalidSvid, match="expired"):
        X509Svid.of([make_leaf(root())], ec_key(), TD, NOW + 3600)


def test_f03_a_certificate_of_another_trust_domain_is_refused() -> None:
    """Row F03, at the one who is issued it."""
    with pytest.raises(InvalidSvid, match="not of the trust domain"):
        X509Svid.of([make_leaf(root())], ec_key(), TrustDomain.parse("other.local"), NOW)


def test_f22_a_chain_that_is_too_long_or_not_certificates_is_refused() -> None:
    """Row F22, at the one who is issued it."""
    leaf, inter = make_leaf(root()), make_ca("inter", issuer=root()).der
    assert len(X509Svid.of([leaf, inter, inter, inter, root().der], ec_key(), TD, NOW).chain_der) == 5
    for chain in ([], [leaf] + [inter] * 5, [leaf, b"garbage"]):
        with pytest.raises(InvalidSvid):
            X509Svid.of(chain, ec_key(), TD, NOW)


def test_the_key_is_in_no_repr() -> None:
    """Values get logged."""
    shown = repr(svid())
    assert "PRIVATE" not in shown
    assert "private_key" not in shown
    assert "chain_der" not in shown


def test_the_pem_files_are_what_tls_loads(tmp_path: Path) -> None:
    """Key and certificate belong together for OpenSSL too."""
    one = svid()
    (tmp_path / "chain").write_bytes(one.chain_pem())
    (tmp_path / "key").write_bytes(one.key_pem())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "chain", tmp_path / "key")
    assert len(x509.load_pem_x509_certificates(one.chain_pem())) == 1


def test_a_new_key_is_p256_and_never_the_same() -> None:
    """Randomness of the operating system."""
    first, second = new_private_key(), new_private_key()
    assert isinstance(first.curve, ec.SECP256R1)
    assert first.public_key() != second.public_key()
