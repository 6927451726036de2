"""Trust bundles: which signing certificates speak for a trust domain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.der import load_certificate, load_public_key
from certs.errors import InvalidBundle
from certs.spiffe_id import TrustDomain

ANCHORS_MAX = 16


def pin(der: bytes) -> bytes:
    """What a join token carries to know a trust anchor by: SHA-256 of its DER, 32 bytes."""
    return hashlib.sha256(der).digest()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrustBundle:
    """The trust anchors of one trust domain; at least one. Make it with `of`, which checks them."""

    trust_domain: TrustDomain
    anchors_der: tuple[bytes, ...]

    @classmethod
    def of(cls, trust_domain: TrustDomain, anchors_der: Iterable[bytes]) -> TrustBundle:
        """Raises InvalidBundle: none or too many anchors, or one that is no signing certificate of the trust domain.

        An empty bundle is refused because verifying against nothing must never be possible (row F26). Validity in time
        is not looked at here: a bundle may hold an anchor of tomorrow, and `verify` looks at the clock every time."""
        unique = tuple(dict.fromkeys(anchors_der))
        if not unique:
            raise InvalidBundle("a trust bundle holds at least one anchor", row="F26")
        if len(unique) > ANCHORS_MAX:
            raise InvalidBundle(f"{len(unique)} trust anchors; at most {ANCHORS_MAX} are read", row="F22")
        for der in unique:
            _check_anchor(der, trust_domain)
        return cls(trust_domain=trust_domain, anchors_der=unique)

    def pem(self) -> bytes:
        """All anchors, one after the other, as OpenSSL reads them."""
        return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in self.anchors_der)

    def __repr__(self) -> str:
        pins = ", ".join(pin(der).hex()[:16] for der in self.anchors_der)
        return f"TrustBundle({self.trust_domain}: {pins})"


@lru_cache(maxsize=64)
def _check_anchor(der: bytes, trust_domain: TrustDomain) -> None:
    """SPIFFE X509-SVID sections 3.2, 4.1 and 4.3. Every snapshot and every answer with a certificate brings the anchors
    again; what is said of them needs no clock, and a refusal, which is raised, is not remembered."""
    certificate, extensions = load_certificate(der, InvalidBundle)
    values = [extension.value for extension in extensions]
    if not any(isinstance(value, x509.BasicConstraints) and value.ca for value in values):
        raise InvalidBundle("a trust anchor is a signing certificate (CA:TRUE)", row="F06")
    if not any(isinstance(value, x509.KeyUsage) and value.key_cert_sign for value in values):
        raise InvalidBundle("a trust anchor's key usage has keyCertSign", row="F07")
    if any(isinstance(value, x509.NameConstraints) for value in values):
        raise InvalidBundle("a trust anchor with name constraints: those are not evaluated here", row="F09")
    for value in values:
        if not isinstance(value, x509.SubjectAlternativeName):
            continue
        for uri in value.get_values_for_type(x509.UniformResourceIdentifier):
            if uri != trust_domain.uri:
                raise InvalidBundle(f"a trust anchor of {trust_domain} names itself {uri[:100]!a}", row="F03")
    load_public_key(certificate, InvalidBundle, "F23")
