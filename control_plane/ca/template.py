"""What stands in a certificate. Pure functions from facts to an unsigned certificate; `signer` signs them.

Nothing of a signing request comes in here but its public key (row G02).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority_id import key_id
from certs.der import PublicKey
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.ca.errors import CaExpired

BACKDATE_S = 60
"""NotBefore lies this far in the past: clocks of peers may be slow (row J01)."""
LIFETIME_MIN_S, LIFETIME_MAX_S = 1.0, 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    not_before: int
    not_after: int
    """Unix seconds, whole: X.509 knows nothing finer."""
    is_cut: bool
    """The root expires before the lifetime asked for has passed (row G08)."""


def leaf_validity(*, now: float, lifetime_s: float, issuer_not_after: float) -> Validity:
    """Lifetimes are clamped to [1 s, 24 h] (row G07; what is not a number counts as too short) and end no later than
    the issuer's (row G08). Raises CaExpired."""
    if now >= issuer_not_after:
        raise CaExpired("the root certificate has expired; nothing can be issued under it", row="G08")
    lifetime_s = min(lifetime_s, LIFETIME_MAX_S) if lifetime_s >= LIFETIME_MIN_S else LIFETIME_MIN_S
    wanted = math.ceil(now + lifetime_s)
    latest = math.floor(issuer_not_after)
    return Validity(not_before=math.floor(now) - BACKDATE_S, not_after=min(wanted, latest), is_cut=latest < wanted)


def new_serial(token_bytes: Callable[[int], bytes]) -> int:
    """128 random bits, and positive (RFC 5280 section 4.1.2.2)."""
    return int.from_bytes(token_bytes(16), "big") or 1


def leaf_builder(
    identity: SpiffeId, public_key: PublicKey, *, validity: Validity, serial: int, issuer: x509.Certificate
) -> x509.CertificateBuilder:
    """An X.509 SVID: SPIFFE X509-SVID sections 2, 3.1 and 4.

    No subject, hence a critical alternative name (RFC 5280 section 4.1.2.6)."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer_ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(public_key, not_before=validity.not_before, not_after=validity.not_after, serial=serial)
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(names, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski), critical=False)
    )


def root_builder(
    trust_domain: TrustDomain,
    public_key: ec.EllipticCurvePublicKey,
    *,
    lifetime_s: float,
    now: float,
    serial: int,
) -> x509.CertificateBuilder:
    """The self-signed root: SPIFFE X509-SVID sections 3.2 and 4. It signs leaves only, so its path length is 0."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hauberk root {key_id(public_key)}")])
    ski = x509.SubjectKeyIdentifier.from_public_key(public_key)
    not_before = math.floor(now) - BACKDATE_S
    return (
        _builder(public_key, not_before=not_before, not_after=math.ceil(now + lifetime_s), serial=serial)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(trust_domain.uri)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
    )


def _builder(public_key: PublicKey, *, not_before: int, not_after: int, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
