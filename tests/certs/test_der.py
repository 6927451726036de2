"""The border: which keys are strong enough, and that the parser's surprises stay there."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certs.der import PublicKey, load_certificate, weakness_of
from certs.errors import CertsError, InvalidBundle, InvalidSvid
from tests.certs.forge import ec_key, make_leaf, odd_rsa_key, root


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("exponent", [65537, 2**32 - 1])
def test_f23_rsa_keys_of_sane_size_and_exponent_are_accepted(bits: int, exponent: int) -> None:
    """2048 to 4096 bits; exponents from 65537 to 32 bits."""
    assert weakness_of(odd_rsa_key(bits=bits, exponent=exponent)) is None


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (odd_rsa_key(bits=2047), "2047 bits"),
        (odd_rsa_key(bits=4097), "4097 bits"),
        (odd_rsa_key(exponent=3), "exponent"),
        (odd_rsa_key(exponent=65535), "exponent"),
        (odd_rsa_key(exponent=2**32 + 15), "exponent"),
        (odd_rsa_key(small_factor=3), "small factor"),
        (odd_rsa_key(small_factor=751), "small factor"),
        (ec_key(ec.SECP521R1).public_key(), "secp521r1"),
        (ec_key(ec.SECP256K1).public_key(), "secp256k1"),
    ],
)
def test_f23_g05_other_keys_are_not(key: PublicKey, why: str) -> None:
    """Rows F23 and G05: too weak, too slow, or too exotic."""
    assert why in (weakness_of(key) or "accepted")


@pytest.mark.parametrize("error", [InvalidSvid, InvalidBundle])
def test_the_caller_says_which_error_a_bad_certificate_is(error: type[CertsError]) -> None:
    """One border, several meanings."""
    with pytest.raises(error):
        load_certificate(b"garbage", error)
    with pytest.raises(error):
        load_certificate("garbage", error)  # type: ignore[arg-type]


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_the_parser_raises_nothing_but_what_it_was_told_to(index: int, value: int) -> None:
    """Every mutation of one byte."""
    data = bytearray(make_leaf(root()))
    data[index % len(data)] = value
    try:
        load_certificate(bytes(data), InvalidSvid)
    except InvalidSvid as failure:
        assert failure.row  # noqa: PT017


def test_f10_a_signature_with_unused_bits_is_refused() -> None:
    """One certificate, one fingerprint: the one octet of a certificate that its signature does not protect."""
    while True:  # an ECDSA signature whose last bit happens to be 0, so that it may be declared unused
        data = bytearray(make_leaf(root()))
        if data[-1] & 1 == 0:
            break
    signature = x509.load_der_x509_certificate(bytes(data)).signature
    data[-len(signature) - 1] = 1
    x509.load_der_x509_certificate(bytes(data)).verify_directly_issued_by(root().certificate)  # it still verifies
    with pytest.raises(InvalidSvid, match="whole number of octets"):
        load_certificate(bytes(data), InvalidSvid)
