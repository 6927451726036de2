"""Build, sign, verify what was signed: a certificate that `certs.verify` would refuse never leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle
from certs.der import PublicKey, weakness_of
from certs.errors import InvalidCsr, InvalidSvid
from certs.spiffe_id import SpiffeId
from certs.verify import verify_chain
from control_plane.ca.errors import IdentityMismatch, UnfitToIssue
from control_plane.ca.root import Root
from control_plane.ca.template import Validity, leaf_builder, leaf_validity, new_serial


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedSvid:
    spiffe_id: SpiffeId
    chain_der: tuple[bytes, ...] = field(repr=False)
    """Leaf first, without the trust anchor."""
    not_before: float
    not_after: float
    """Unix seconds, whole; valid while `not_before <= now < not_after`."""
    serial: int
    is_cut: bool
    """It lives shorter than asked because the root expires first: somebody must be told (row G08)."""


class Signer:
    """Holds the root's private key. Whoever has a Signer can be anybody: hand it to nobody but the facade."""

    def __init__(self, root: Root, bundle: TrustBundle, *, token_bytes: Callable[[int], bytes]) -> None:
        self._root = root
        self._bundle = bundle
        self._token_bytes = token_bytes

    def issue(self, identity: SpiffeId, public_key: PublicKey, lifetime_s: float, now: float) -> IssuedSvid:
        """An SVID for `identity`, whom the caller of this method has authenticated. `now` in Unix seconds.

        Raises IdentityMismatch (another trust domain), InvalidCsr (a key not accepted), CaExpired, UnfitToIssue."""
        if identity.trust_domain != self._bundle.trust_domain:
            raise IdentityMismatch(
                f"{identity} is not of the trust domain {self._bundle.trust_domain} of this CA", row="F03"
            )
        if weakness := weakness_of(public_key):
            raise InvalidCsr(weakness, row="G05")
        validity = leaf_validity(now=now, lifetime_s=lifetime_s, issuer_not_after=self._root.not_after)
        serial = new_serial(self._token_bytes)
        builder = leaf_builder(identity, public_key, validity=validity, serial=serial, issuer=self._root.certificate)
        leaf = builder.sign(self._root.private_key, SHA256()).public_bytes(Encoding.DER)
        issued = IssuedSvid(
            spiffe_id=identity,
            chain_der=(leaf,),
            not_before=float(validity.not_before),
            not_after=float(validity.not_after),
            serial=serial,
            is_cut=validity.is_cut,
        )
        self._check_issued(issued, public_key, validity, now)
        return issued

    def _check_issued(self, issued: IssuedSvid, public_key: PublicKey, validity: Validity, now: float) -> None:
        """Reads back what was signed as a peer would. The template cannot vouch for itself."""
        try:
            found = verify_chain(issued.chain_der, self._bundle, now)
        except InvalidSvid as failure:
            raise UnfitToIssue(f"signed a certificate that does not verify: {failure}", row=failure.row) from failure
        leaf = x509.load_der_x509_certificate(issued.chain_der[0])
        times = (leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())
        if (found, leaf.serial_number, times) != (
            issued.spiffe_id,
            issued.serial,
            (validity.not_before, validity.not_after),
        ) or leaf.public_key() != public_key:
            raise UnfitToIssue("signed a certificate that does not say what was meant")
