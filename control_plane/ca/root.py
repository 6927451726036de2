"""The root as one value: its private key and its self-signed certificate, and what must be true of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority_id import key_id
from certs.bundle import TrustBundle
from certs.der import load_certificate, load_public_key
from certs.errors import InvalidBundle
from certs.spiffe_id import TrustDomain
from certs.svid import new_private_key
from control_plane.ca.errors import CaError
from control_plane.ca.template import new_serial, root_builder


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    certificate: x509.Certificate = field(repr=False)
    private_key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @property
    def key_id(self) -> str:
        return key_id(self.private_key.public_key())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def not_before(self) -> float:
        return self.certificate.not_valid_before_utc.timestamp()

    @property
    def not_after(self) -> float:
        """Unix seconds."""
        return self.certificate.not_valid_after_utc.timestamp()


def make_root(trust_domain: TrustDomain, *, lifetime_s: float, now: float, token_bytes: Callable[[int], bytes]) -> Root:
    """A new P-256 root, self-signed."""
    key = new_private_key()
    builder = root_builder(
        trust_domain, key.public_key(), lifetime_s=lifetime_s, now=now, serial=new_serial(token_bytes)
    )
    return Root(certificate=builder.sign(key, SHA256()), private_key=key)


def check_root(root: Root, trust_domain: TrustDomain) -> TrustBundle:
    """The bundle this root makes. Raises CaError if the two halves do not belong together or to the trust domain.

    The time is not looked at: an expired root is sound, only useless."""
    try:
        certificate, extensions = load_certificate(root.der, InvalidBundle)
        if load_public_key(certificate, InvalidBundle, "J06") != root.private_key.public_key():
            raise CaError("the certificate belongs to another key than the one beside it", row="J06")
        uris = [
            uri
            for extension in extensions
            if isinstance(extension.value, x509.SubjectAlternativeName)
            for uri in extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        ]
        if uris != [trust_domain.uri]:
            raise CaError(f"the root is of {', '.join(uris) or 'nobody'}, not of {trust_domain.uri}", row="F03")
        bundle = TrustBundle.of(trust_domain, [root.der])
    except InvalidBundle as failure:
        raise CaError(str(failure), row=failure.row) from failure
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as failure:
        raise CaError("the certificate's own signature does not verify", row="J06") from failure
    return bundle
