"""An X.509 SVID that is ours: a certificate chain and the private key it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.der import load_certificate
from certs.errors import InvalidSvid
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.verify import CHAIN_BYTES_MAX, INTERMEDIATES_MAX, check_leaf


def new_private_key() -> ec.EllipticCurvePrivateKey:
    """P-256, from the operating system's randomness: quick to make, quick to sign with, accepted everywhere."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Svid:
    """Who we are and the proof of it. Make it with `of`, which checks it."""

    spiffe_id: SpiffeId
    chain_der: tuple[bytes, ...] = field(repr=False)
    """Leaf first; the trust anchor is not needed."""
    private_key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    not_before: float
    not_after: float
    """Unix seconds; valid while `not_before <= now < not_after`."""
    serial: int

    @classmethod
    def of(
        cls,
        chain_der: Iterable[bytes],
        private_key: ec.EllipticCurvePrivateKey,
        trust_domain: TrustDomain,
        now: float,
    ) -> X509Svid:
        """Checks what we were issued before we use it: a legal SVID, of our trust domain, valid now, for our key.

        Raises InvalidSvid. Whether the chain leads to an anchor is `verify.verify_chain`'s question."""
        chain = tuple(chain_der)
        if not chain:
            raise InvalidSvid("no certificate", row="F19")
        if len(chain) > 1 + INTERMEDIATES_MAX + 1 or sum(map(len, chain)) > 2 * CHAIN_BYTES_MAX:
            raise InvalidSvid(f"chain of {len(chain)} certificates is too long", row="F22")
        identity = check_leaf(chain[0], trust_domain, now)
        leaf, _ = load_certificate(chain[0], InvalidSvid)
        if leaf.public_key() != private_key.public_key():
            raise InvalidSvid("the certificate was issued for another key than ours")
        for der in chain[1:]:
            load_certificate(der, InvalidSvid)
        return cls(
            spiffe_id=identity,
            chain_der=chain,
            private_key=private_key,
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
            serial=leaf.serial_number,
        )

    def chain_pem(self) -> bytes:
        """As `SSLContext.load_cert_chain` reads it."""
        return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in self.chain_der)

    def key_pem(self) -> bytes:
        """PKCS#8, in clear: for a memfd, never for a disk."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
