"""What a legal SVID is. The CA runs this on what it signs, both ends of every connection on what they are shown.

Theory of operation
-------------------
`check_leaf` looks at one certificate. It does not check who signed it: on a connection OpenSSL has done that before
anybody asks. It checks what TLS libraries do not (security catalogue, section F): exactly one SPIFFE ID, of our trust
domain, in a certificate that is no CA, for both ends of a connection, with a strong key, valid now.

`verify_chain` does both: `check_leaf`, then a path from the leaf to one of the bundle's anchors. Path building
(signatures, validity of every certificate, CA flags, path lengths) is left to `cryptography.x509.verification`, which
is maintained, written in Rust and bounds its own work; here only the length of a chain is added. Nobody evaluates URI
name constraints (RFC 5280 section 4.2.1.10) in Python, so signing certificates that carry name constraints are refused,
as SPIFFE X509-SVID section 4.2 expects of whoever cannot read them.

Validity is half open, `not_before <= now < not_after`, which is what OpenSSL does with its whole seconds.
Each refusal is an `InvalidSvid` with its own text and the row of the catalogue. Nothing else is ever raised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.bundle import TrustBundle
from certs.der import load_certificate, load_public_key, weakness_of_signature
from certs.errors import InvalidSpiffeId, InvalidSvid
from certs.spiffe_id import SpiffeId, TrustDomain

CHAIN_BYTES_MAX = 16 * 1024
INTERMEDIATES_MAX = 3
DNS_SANS_MAX = 32

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

_CA_POLICY = verification.ExtensionPolicy.webpki_defaults_ca()
_LEAF_POLICY = verification.ExtensionPolicy.permit_all()  # check_leaf has judged the leaf, more strictly

_UNDERSTOOD: tuple[type[x509.ExtensionType], ...] = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
)


def check_leaf(der: bytes, trust_domain: TrustDomain, now: float) -> SpiffeId:
    """Whose certificate this is. `now` in Unix seconds. Raises InvalidSvid.

    SPIFFE X509-SVID sections 2, 3.1, 4.1, 4.3, 4.4 and 5.2. Who signed it must have been checked already."""
    certificate, extensions = load_certificate(der, InvalidSvid)
    return _check_leaf(certificate, extensions, trust_domain, now)


def verify_chain(chain_der: Sequence[bytes], bundle: TrustBundle, now: float) -> SpiffeId:
    """Whose chain this is: leaf first, then at most three intermediates; the anchor itself may follow.

    `now` in Unix seconds. Raises InvalidSvid."""
    if not chain_der:
        raise InvalidSvid("no certificate was presented", row="F19")
    leaf_der, *rest = chain_der
    intermediates_der = [der for der in rest if der not in bundle.anchors_der]
    if len(intermediates_der) > INTERMEDIATES_MAX:
        raise InvalidSvid(
            f"chain has {len(intermediates_der)} intermediates; at most {INTERMEDIATES_MAX} are followed", row="F22"
        )
    size = len(leaf_der) + sum(map(len, intermediates_der))
    if size > CHAIN_BYTES_MAX:
        raise InvalidSvid(f"chain of {size} bytes; at most {CHAIN_BYTES_MAX} are read", row="F22")
    leaf, extensions = load_certificate(leaf_der, InvalidSvid)
    identity = _check_leaf(leaf, extensions, bundle.trust_domain, now)
    _check_path(leaf, intermediates_der, bundle, now)
    return identity


def _check_leaf(
    certificate: x509.Certificate, extensions: x509.Extensions, trust_domain: TrustDomain, now: float
) -> SpiffeId:
    _check_no_unknown_critical(extensions)
    _check_not_a_ca(extensions)
    _check_usages(extensions)
    identity = _only_spiffe_id(extensions)
    if identity.trust_domain != trust_domain:
        raise InvalidSvid(
            f"identity {identity} is not of the trust domain {trust_domain}: is the peer in another mesh?", row="F03"
        )
    load_public_key(certificate, InvalidSvid, "F23")
    if weakness := weakness_of_signature(certificate):
        raise InvalidSvid(weakness, row="F23")
    _check_validity(certificate, now)
    return identity


def _check_no_unknown_critical(extensions: x509.Extensions) -> None:
    """RFC 5280 section 4.2: a critical extension that is not understood is a refusal."""
    for extension in extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise InvalidSvid(f"critical extension {extension.oid.dotted_string} is not understood", row="F10")


def _check_not_a_ca(extensions: x509.Extensions) -> None:
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise InvalidSvid("a signing certificate (CA:TRUE) proves no identity", row="F06")


def _check_usages(extensions: x509.Extensions) -> None:
    usage = _find(extensions, x509.KeyUsage)
    if usage is None:
        raise InvalidSvid("key usage is missing", row="F07")
    if usage.key_cert_sign or usage.crl_sign:
        raise InvalidSvid("key usage allows signing of certificates or revocation lists", row="F07")
    if not usage.digital_signature:
        raise InvalidSvid("key usage lacks digitalSignature", row="F07")
    purposes = _find(extensions, x509.ExtendedKeyUsage)
    if purposes is None:
        raise InvalidSvid("extended key usage is missing", row="F08")
    for purpose, name in (
        (ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
        (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
    ):
        if purpose not in purposes:
            raise InvalidSvid(f"extended key usage lacks {name}", row="F08")


def _only_spiffe_id(extensions: x509.Extensions) -> SpiffeId:
    """The one URI among the alternative names. DNS names may stand beside it (X509-SVID section 2), nothing else."""
    names = _find(extensions, x509.SubjectAlternativeName)
    if names is None:
        raise InvalidSvid("there is no subject alternative name, so no SPIFFE ID", row="F05")
    uris: list[str] = []
    dns_names = 0
    for name in names:
        if isinstance(name, x509.UniformResourceIdentifier):
            uris.append(name.value)
        elif isinstance(name, x509.DNSName):
            dns_names += 1
        else:
            raise InvalidSvid(f"subject alternative name of the kind {type(name).__name__}", row="F10")
    if not uris:
        raise InvalidSvid("there is no URI among the subject alternative names, so no SPIFFE ID", row="F05")
    if len(uris) > 1:
        raise InvalidSvid(f"{len(uris)} URIs among the subject alternative names; exactly one is allowed", row="F04")
    if dns_names > DNS_SANS_MAX:
        raise InvalidSvid(f"{dns_names} DNS names; at most {DNS_SANS_MAX} are read", row="F22")
    try:
        return SpiffeId.parse(uris[0])
    except InvalidSpiffeId as failure:
        raise InvalidSvid(str(failure), row=failure.row) from failure


def _check_validity(certificate: x509.Certificate, now: float) -> None:
    if not math.isfinite(now):
        raise InvalidSvid("the time is not known, so no certificate is valid", row="F01")
    not_before = certificate.not_valid_before_utc
    not_after = certificate.not_valid_after_utc
    if now < not_before.timestamp():
        raise InvalidSvid(f"not valid before {not_before:%Y-%m-%dT%H:%M:%SZ}: do the clocks agree?", row="F01")
    if now >= not_after.timestamp():
        raise InvalidSvid(f"expired at {not_after:%Y-%m-%dT%H:%M:%SZ}", row="F01")


def _check_path(leaf: x509.Certificate, intermediates_der: Sequence[bytes], bundle: TrustBundle, now: float) -> None:
    intermediates = [_intermediate(der) for der in intermediates_der]
    verifier = (
        verification.PolicyBuilder()
        .store(_store(bundle.anchors_der))
        .time(datetime.fromtimestamp(now, UTC))
        .max_chain_depth(INTERMEDIATES_MAX)
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, intermediates)
    except verification.VerificationError as failure:
        raise InvalidSvid(f"no path to a trust anchor of {bundle.trust_domain}: {failure}", row="F02") from failure


@lru_cache(maxsize=64)
def _intermediate(der: bytes) -> x509.Certificate:
    """What can be said of it without a clock is the same every time, and there are few of them. Raises InvalidSvid,
    which is not remembered."""
    certificate, extensions = load_certificate(der, InvalidSvid)
    load_public_key(certificate, InvalidSvid, "F23")
    if weakness := weakness_of_signature(certificate):
        raise InvalidSvid(f"intermediate: {weakness}", row="F23")
    if _find(extensions, x509.NameConstraints) is not None:
        raise InvalidSvid("intermediate: name constraints are not evaluated here", row="F09")
    return certificate


@lru_cache(maxsize=16)
def _store(anchors_der: tuple[bytes, ...]) -> verification.Store:
    return verification.Store([load_certificate(der, InvalidSvid)[0] for der in anchors_der])


def _find(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    for extension in extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None
