"""Makes certificates, legal and illegal: a legal one by default, every part of it can be replaced.

It shares no code with `control_plane.ca`, so that what one writes the other can be held against.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from certs.spiffe_id import SpiffeId, TrustDomain

NOW = 1_800_000_000.25
TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.parse("spiffe://mesh.local/ns/shop/sa/web")

BOTH_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in _USAGES})


ONLY_WEB = (uri(str(WEB)),)
NOT_A_CA = x509.BasicConstraints(ca=False, path_length=None)
SIGNS = usage("digital_signature")


def raw_names(*entries: tuple[int, bytes]) -> x509.UnrecognizedExtension:
    """A subject alternative name written by hand: (context tag, content) each. 6 is a URI, 2 DNS, 0 otherName."""
    body = b"".join(bytes([0x80 | tag]) + _length(content) + content for tag, content in entries)
    return x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30" + _length(body) + body)


def _length(content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


@functools.cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


def odd_rsa_key(*, bits: int = 2048, exponent: int = 65537, small_factor: int = 1) -> rsa.RSAPublicKey:
    """A public key nobody has the other half of. Its modulus has no factor below 752 but the one asked for."""
    rng = random.Random(bits * exponent * small_factor)
    primes = [n for n in range(2, 752) if all(n % d for d in range(2, n))]
    while True:
        cofactor = rng.getrandbits(bits - small_factor.bit_length() + 1) | 1 << (bits - small_factor.bit_length())
        n = cofactor * small_factor
        if n.bit_length() == bits and all(cofactor % prime for prime in primes):
            return rsa.RSAPublicNumbers(exponent, n).public_key()


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def _build(
    *,
    subject: x509.Name,
    issuer: Authority | None,
    key: Any,
    extensions: Iterable[tuple[x509.ExtensionType | None, bool]],
    not_before: float,
    not_after: float,
    serial: int,
    digest: Any,
    signing_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(at(not_before))
        .not_valid_after(at(not_after))
    )
    for value, critical in extensions:
        if value is not None:
            builder = builder.add_extension(value, critical)
    return builder.sign(signing_key, digest)


def make_ca(
    name: str = "root",
    *,
    issuer: Authority | None = None,
    constraints: x509.BasicConstraints | None = None,
    key_usage: x509.KeyUsage | None = None,
    names: Sequence[x509.GeneralName] = (),
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    key: Any = None,
    not_before: float = NOW - 3600,
    not_after: float = NOW + 3600,
) -> Authority:
    """A signing certificate; self-signed unless it has an issuer."""
    own = ec.generate_private_key(ec.SECP256R1())
    ski = x509.SubjectKeyIdentifier.from_public_key(key or own.public_key())
    parent_ski = (
        issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value if issuer else ski
    )
    certificate = _build(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        issuer=issuer,
        key=key or own.public_key(),
        extensions=[
            (constraints or x509.BasicConstraints(ca=True, path_length=None), True),
            (key_usage or usage("key_cert_sign", "crl_sign"), True),
            (x509.SubjectAlternativeName(names) if names else None, False),
            (ski, False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(parent_ski), False),
            *extra,
        ],
        not_before=not_before,
        not_after=not_after,
        serial=x509.random_serial_number(),
        digest=hashes.SHA256(),
        signing_key=issuer.key if issuer else own,
    )
    return Authority(key=own, certificate=certificate)


def make_leaf(
    issuer: Authority,
    *,
    names: Sequence[x509.GeneralName] | x509.UnrecognizedExtension | None = ONLY_WEB,
    constraints: x509.BasicConstraints | None = NOT_A_CA,
    key_usage: x509.KeyUsage | None = SIGNS,
    purposes: Sequence[x509.ObjectIdentifier] | None = BOTH_PURPOSES,
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
    key: Any = None,
    not_before: float = NOW - 60,
    not_after: float = NOW + 60,
    serial: int = 4711,
    digest: Any = None,
) -> bytes:
    """An X.509 SVID in DER."""
    san: x509.ExtensionType | None
    if names is None or isinstance(names, x509.UnrecognizedExtension):
        san = names
    else:
        san = x509.SubjectAlternativeName(names)
    ski = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = _build(
        subject=x509.Name([]),
        issuer=issuer,
        key=key or ec_key().public_key(),
        extensions=[
            (constraints, True),
            (key_usage, True),
            (x509.ExtendedKeyUsage(purposes) if purposes is not None else None, False),
            (san, True),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), False),
            *extra,
        ],
        not_before=not_before,
        not_after=not_after,
        serial=serial,
        digest=digest or hashes.SHA256(),
        signing_key=issuer.key,
    )
    return certificate.public_bytes(Encoding.DER)


@functools.cache
def root() -> Authority:
    return make_ca(names=(uri(TD.uri),))
