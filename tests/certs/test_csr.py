"""Signing requests: a stranger's proof that it holds a key, and what else it may not smuggle in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs.csr import make_csr, read_csr
from certs.errors import InvalidCsr
from tests.certs.forge import WEB, ec_key, rsa_key, uri, usage

ORDERS = "spiffe://mesh.local/ns/shop/sa/orders"
SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")


def csr(
    *,
    key: Any = None,
    names: Sequence[x509.GeneralName] | None = None,
    extra: Iterable[x509.ExtensionType] = (),
    common_names: Iterable[str] = (),
    attributes: Iterable[tuple[x509.ObjectIdentifier, bytes]] = (),
    digest: Any = None,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for extension in extra:
        builder = builder.add_extension(extension, critical=True)
    for oid, value in attributes:
        builder = builder.add_attribute(oid, value)
    key = key or ec_key()
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def with_another_signature() -> bytes:
    der = csr()
    return der[:-1] + bytes([der[-1] ^ 1])


def with_another_key() -> bytes:
    """Somebody else's key in a request that is signed with one's own: exactly what the signature is there against."""
    mine = ec_key().public_key().public_numbers()
    theirs = ec.generate_private_key(ec.SECP256R1()).public_key()
    coordinate = mine.x.to_bytes(32, "big") + mine.y.to_bytes(32, "big")
    numbers = theirs.public_numbers()
    replacement = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    der = csr()
    assert der.count(coordinate) == 1
    return der.replace(coordinate, replacement)


def with_sha1() -> bytes:
    der = csr(key=rsa_key(2048))
    assert der.count(SHA256_WITH_RSA) == 1
    return der.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)


REFUSED: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "g03 two identities": ("G03", "2 identities", lambda: csr(names=[uri(str(WEB)), uri(ORDERS)])),
    "g03 a DNS name": ("G03", "kind DNSName", lambda: csr(names=[x509.DNSName("web.shop")])),
    "g03 a DNS name beside": ("G03", "kind DNSName", lambda: csr(names=[uri(str(WEB)), x509.DNSName("web.shop")])),
    "g03 an e-mail address": ("G03", "kind RFC822Name", lambda: csr(names=[x509.RFC822Name("a@b.c")])),
    "g03 a web address": ("G03", "begins with", lambda: csr(names=[uri("https://mesh.local/x")])),
    "g03 an illegal ID": ("G03", "'..'", lambda: csr(names=[uri("spiffe://mesh.local/ns/../sa/web")])),
    "g03 another common name": (
        "G03",
        "common name",
        lambda: csr(names=[uri(str(WEB))], common_names=[ORDERS]),
    ),
    "g03 a common name alone": ("G03", "common name", lambda: csr(common_names=["web"])),
    "g03 a second common name": (
        "G03",
        "common name",
        lambda: csr(names=[uri(str(WEB))], common_names=[str(WEB), "x"]),
    ),
    "g04 a bad signature": ("G04", "not signed with the key", with_another_signature),
    "g04 another key put in": ("G04", "not signed with the key", with_another_key),
    "g04 SHA-1": ("G04", "signed with sha1", with_sha1),
    "g05 RSA 1024": ("G05", "RSA key of 1024 bits", lambda: csr(key=rsa_key(1024))),
    "g05 P-521": ("G05", "EC key on secp521r1", lambda: csr(key=ec_key(ec.SECP521R1))),
    "g05 a curve of another family": ("G05", "EC key on secp256k1", lambda: csr(key=ec_key(ec.SECP256K1))),
    "g05 Ed25519": ("G05", "neither EC nor RSA", lambda: csr(key=ed25519.Ed25519PrivateKey.generate())),
    "g06 nothing": ("G06", "no signing request", lambda: b""),
    "g06 garbage": ("G06", "not a signing request", lambda: b"\x30\x82\xff\xff garbage"),
    "g06 PEM": ("G06", "not a signing request", lambda: x509.load_der_x509_csr(csr()).public_bytes(Encoding.PEM)),
    "g06 bytes after it": ("G06", "not a signing request", lambda: csr() + b"\0"),
    "g06 extensions asked for twice": (
        "G06",
        "signing request",
        lambda: csr(names=[uri(str(WEB))], attributes=[(x509.ObjectIdentifier("1.2.840.113549.1.9.14"), b"0")]),
    ),
    "g06 more than 8 KiB": (
        "G06",
        "at most 8192",
        lambda: csr(attributes=[(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), b"x" * 9000)]),
    ),
}


@pytest.mark.parametrize(("row", "why", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_g03_g04_g05_g06_a_request_that_asks_for_more_or_proves_less_is_refused(
    row: str, why: str, make: Callable[[], bytes]
) -> None:
    """Rows G03 to G06: each refusal says why."""
    with pytest.raises(InvalidCsr) as caught:
        read_csr(make())
    assert why in str(caught.value)
    assert caught.value.row == row


def test_g06_more_than_8_kib_is_refused_by_its_length_alone() -> None:
    """Row G06: nothing is parsed first, so this holds for any bytes."""
    with pytest.raises(InvalidCsr, match="at most 8192"):
        read_csr(b"\x30" * 8193)


@pytest.mark.parametrize("key", [ec_key(), ec_key(ec.SECP384R1), rsa_key(2048)], ids=["P-256", "P-384", "RSA 2048"])
def test_a_request_with_a_strong_key_is_read(key: Any) -> None:
    """Of it only the key and the identity hoped for are taken."""
    facts = read_csr(csr(key=key, names=[uri(str(WEB))]))
    assert facts.public_key == key.public_key()
    assert facts.spiffe_id == WEB


def test_what_is_made_here_is_read_here() -> None:
    """With and without an identity in it."""
    for identity in (None, WEB):
        facts = read_csr(make_csr(ec_key(), identity))
        assert (facts.public_key, facts.spiffe_id) == (ec_key().public_key(), identity)


def test_a_common_name_that_repeats_the_identity_is_fine() -> None:
    """Some tools always write one."""
    assert read_csr(csr(names=[uri(str(WEB))], common_names=[str(WEB)])).spiffe_id == WEB


def test_g02_requested_extensions_are_ignored() -> None:
    """Row G02: whoever asks to be a CA gets read as if it had not asked."""
    greedy = csr(
        names=[uri(str(WEB))],
        extra=[
            x509.BasicConstraints(ca=True, path_length=None),
            usage("key_cert_sign", "crl_sign"),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
            x509.NameConstraints([uri("mesh.local")], None),
        ],
    )
    assert read_csr(greedy) == read_csr(csr(names=[uri(str(WEB))]))


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_g06_a_mutated_request_never_proves_anything(index: int, value: int) -> None:
    """Every byte is under the signature, or is the signature; nothing but InvalidCsr is ever raised."""
    data = bytearray(_REQUEST)
    data[index % len(data)] = value
    if bytes(data) == _REQUEST:
        assert read_csr(bytes(data)).spiffe_id == WEB
        return
    with pytest.raises(InvalidCsr):
        read_csr(bytes(data))


_REQUEST = csr(names=[uri(str(WEB))])


@given(st.binary(max_size=400))
def test_g06_garbage_is_refused(data: bytes) -> None:
    """Row G06."""
    with pytest.raises(InvalidCsr):
        read_csr(data)
