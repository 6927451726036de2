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
    """The issuer expires before the lifetime asked for has passed (row G08)."""


def leaf_validity(
    *, now: float, lifetime_s: float, issuer_not_after: float, lifetime_max_s: float = LIFETIME_MAX_S
) -> Validity:
    """Lifetimes are clamped to [1 s, `lifetime_max_s`] (row G07; what is not a number counts as too short) and end no
    later than the issuer's (row G08). Raises CaExpired."""
    lifetime_s = min(lifetime_s, lifetime_max_s) if lifetime_s >= LIFETIME_MIN_S else LIFETIME_MIN_S
    return issuer_validity(now=now, lifetime_s=lifetime_s, issuer_not_after=issuer_not_after)


def issuer_validity(*, now: float, lifetime_s: float, issuer_not_after: float) -> Validity:
    """From now on, and no longer than the issuer. Raises CaExpired."""
    if now >= issuer_not_after:
        raise CaExpired("who would sign it has expired; nothing can be issued under it", row="G08")
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
    """The self-signed root: SPIFFE X509-SVID sections 3.2 and 4. It signs intermediates only, so its path length is
    1."""
    name = _name("root", public_key)
    ski = x509.SubjectKeyIdentifier.from_public_key(public_key)
    not_before = math.floor(now) - BACKDATE_S
    return (
        _builder(public_key, not_before=not_before, not_after=math.ceil(now + lifetime_s), serial=serial)
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(_of_trust_domain(trust_domain), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
    )


def intermediate_builder(
    trust_domain: TrustDomain,
    public_key: ec.EllipticCurvePublicKey,
    *,
    validity: Validity,
    serial: int,
    issuer: x509.Certificate,
) -> x509.CertificateBuilder:
    """A signing certificate under a root: the same sections. It signs leaves only, so its path length is 0."""
    issuer_ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(public_key, not_before=validity.not_before, not_after=validity.not_after, serial=serial)
        .subject_name(_name("intermediate", public_key))
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(_of_trust_domain(trust_domain), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski), critical=False)
    )


def intermediate_request(
    trust_domain: TrustDomain, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateSigningRequestBuilder:
    """What an offline root is asked to sign: the extensions are those of `intermediate_builder`."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name("intermediate", public_key))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(_of_trust_domain(trust_domain), critical=False)
    )


def _name(level: str, public_key: ec.EllipticCurvePublicKey) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hauberk {level} {key_id(public_key)}")])


def _of_trust_domain(trust_domain: TrustDomain) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(trust_domain.uri)])


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
