"""Who signs leaves: an intermediate under its root, or a root of before there were intermediates.

Whatever is signed here is checked before anybody gets it, as a peer would: the chain of a probe, a leaf made for that
and thrown away, must verify against the root alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority_id import key_id
from certs.der import load_certificate, load_public_key, weakness_of_signature
from certs.errors import InvalidBundle
from certs.spiffe_id import TrustDomain
from certs.svid import new_private_key
from control_plane.ca.errors import CaError, CaExpired
from control_plane.ca.root import Root
from control_plane.ca.template import intermediate_builder, intermediate_request, issuer_validity, new_serial


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A key that signs leaves, and the way from there to its anchor."""

    certificate: x509.Certificate = field(repr=False)
    anchor: x509.Certificate = field(repr=False)
    """The root; `certificate` itself, if the root signs leaves."""
    private_key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @property
    def issuer_id(self) -> str:
        return key_id(self.private_key.public_key())

    @property
    def root_id(self) -> str:
        return key_id(load_public_key(self.anchor, InvalidBundle, "J06"))

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def anchor_der(self) -> bytes:
        return self.anchor.public_bytes(Encoding.DER)

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """What stands between a leaf and the anchor."""
        return () if self.certificate == self.anchor else (self.der,)

    @property
    def not_after(self) -> float:
        """Unix seconds; of whichever ends first."""
        ends = (one.not_valid_after_utc.timestamp() for one in (self.certificate, self.anchor))
        return min(ends)


def of_root(root: Root) -> Issuer:
    """A root that signs leaves itself."""
    return Issuer(certificate=root.certificate, anchor=root.certificate, private_key=root.private_key)


def make_intermediate(
    root: Root, trust_domain: TrustDomain, *, lifetime_s: float, now: float, token_bytes: Callable[[int], bytes]
) -> Issuer:
    """A new P-256 intermediate; it ends no later than its root. Raises CaExpired."""
    key = new_private_key()
    validity = issuer_validity(now=now, lifetime_s=lifetime_s, issuer_not_after=root.not_after)
    builder = intermediate_builder(
        trust_domain,
        key.public_key(),
        validity=validity,
        serial=new_serial(token_bytes),
        issuer=root.certificate,
    )
    certificate = builder.sign(root.private_key, SHA256())
    return Issuer(certificate=certificate, anchor=root.certificate, private_key=key)


def make_request(key: ec.EllipticCurvePrivateKey, trust_domain: TrustDomain) -> bytes:
    """PKCS#10 in PEM, for an offline root."""
    return intermediate_request(trust_domain, key.public_key()).sign(key, SHA256()).public_bytes(Encoding.PEM)


def check_intermediate(der: bytes, anchor_der: bytes, now: float | None) -> x509.Certificate:
    """A signing certificate for leaves, signed by that anchor. `now` None: its time is not looked at.

    RFC 5280 sections 4.2.1.3 and 4.2.1.9, SPIFFE X509-SVID sections 3.2 and 4.3. Raises CaError, CaExpired."""
    try:
        certificate, extensions = load_certificate(der, InvalidBundle)
        anchor, anchor_extensions = load_certificate(anchor_der, InvalidBundle)
        load_public_key(certificate, InvalidBundle, "F23")
    except InvalidBundle as failure:
        raise CaError(str(failure), row=failure.row) from failure
    if weakness := weakness_of_signature(certificate):
        raise CaError(weakness, row="F23")
    _check_extensions(extensions, anchor_extensions)
    try:
        certificate.verify_directly_issued_by(anchor)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as failure:
        raise CaError("is not signed by the root beside it", row="F02") from failure
    if now is not None:
        for one, name in ((certificate, "it"), (anchor, "its root")):
            if now >= one.not_valid_after_utc.timestamp():
                raise CaExpired(f"{name} expired at {one.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}", row="F01")
            if now < one.not_valid_before_utc.timestamp():
                raise CaError(f"{name} is not valid before {one.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}", row="F01")
    return certificate


def _check_extensions(extensions: x509.Extensions, anchor_extensions: x509.Extensions) -> None:
    values = {type(one.value): one.value for one in extensions}
    constraints = values.get(x509.BasicConstraints)
    if not isinstance(constraints, x509.BasicConstraints) or not constraints.ca:
        raise CaError("is no signing certificate (CA:TRUE)", row="F06")
    if constraints.path_length != 0:
        raise CaError("must have the path length 0: it signs leaves only", row="F09")
    usage = values.get(x509.KeyUsage)
    if not isinstance(usage, x509.KeyUsage) or not usage.key_cert_sign:
        raise CaError("its key usage lacks keyCertSign", row="F07")
    if x509.NameConstraints in values:
        raise CaError("has name constraints, which nobody evaluates for URIs", row="F09")
    if x509.SubjectKeyIdentifier not in values:
        raise CaError("has no subject key identifier (RFC 5280 section 4.2.1.2)", row="F10")
    for one in anchor_extensions:
        if isinstance(one.value, x509.BasicConstraints) and one.value.path_length == 0:
            raise CaError("its root may sign leaves only (path length 0)", row="F09")
