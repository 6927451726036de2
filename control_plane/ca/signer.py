"""Build, sign, verify what was signed: a certificate that `certs.verify` would refuse never leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle
from certs.der import PublicKey, weakness_of
from certs.errors import InvalidBundle, InvalidCsr, InvalidSvid
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import new_private_key
from certs.verify import verify_chain
from control_plane.ca.errors import CaError, CaExpired, IdentityMismatch, UnfitToIssue
from control_plane.ca.handshake import check_handshake
from control_plane.ca.hierarchy import Issuer
from control_plane.ca.template import LIFETIME_MAX_S, Validity, leaf_builder, leaf_validity, new_serial


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
    """It lives shorter than asked because its issuer expires first: somebody must be told (row G08)."""
    issuer_id: str = ""
    """The authority that signed it."""
    root_id: str = ""
    """The root that one stands under."""


class Signer:
    """Holds an issuer's private key. Whoever has a Signer can be anybody: hand it to nobody but the facade."""

    def __init__(
        self,
        issuer: Issuer,
        trust_domain: TrustDomain,
        *,
        token_bytes: Callable[[int], bytes],
        lifetime_max_s: float = LIFETIME_MAX_S,
    ) -> None:
        """Raises CaError: its anchor is none of that trust domain."""
        self._issuer = issuer
        self._not_before = issuer.certificate.not_valid_before_utc.timestamp()
        self._not_after = issuer.not_after
        self._ids = issuer.issuer_id, issuer.root_id
        self._chain_der = issuer.chain_der
        try:
            self._bundle = TrustBundle.of(trust_domain, [issuer.anchor_der])
        except InvalidBundle as failure:
            raise CaError(str(failure), row=failure.row) from failure
        self._token_bytes = token_bytes
        self._lifetime_max_s = lifetime_max_s

    @property
    def not_after(self) -> float:
        """Unix seconds; nothing that is signed lives longer."""
        return self._not_after

    @property
    def issuer_id(self) -> str:
        return self._ids[0]

    @property
    def anchor_der(self) -> bytes:
        """The root above."""
        return self._issuer.anchor_der

    def probe(self, now: float) -> None:
        """Does what it signs verify, and do peers shake hands with it? Signs a leaf nobody gets. Raises CaError."""
        identity, key = SpiffeId.for_control_plane(self._bundle.trust_domain), new_private_key()
        issued = self.issue(identity, key.public_key(), 60.0, now)
        check_handshake(issued.chain_der, key, self.anchor_der)

    def issue(self, identity: SpiffeId, public_key: PublicKey, lifetime_s: float, now: float) -> IssuedSvid:
        """An SVID for `identity`, whom the caller of this method has authenticated. `now` in Unix seconds.

        Raises IdentityMismatch (another trust domain), InvalidCsr (a key not accepted), CaExpired, UnfitToIssue."""
        if identity.trust_domain != self._bundle.trust_domain:
            raise IdentityMismatch(
                f"{identity} is not of the trust domain {self._bundle.trust_domain} of this CA", row="F03"
            )
        if weakness := weakness_of(public_key):
            raise InvalidCsr(weakness, row="G05")
        if now < self._not_before:
            raise CaExpired("the intermediate is not valid yet: was this machine's clock ahead?", row="F01")
        validity = leaf_validity(
            now=now, lifetime_s=lifetime_s, issuer_not_after=self._not_after, lifetime_max_s=self._lifetime_max_s
        )
        serial = new_serial(self._token_bytes)
        issuer = self._issuer
        builder = leaf_builder(identity, public_key, validity=validity, serial=serial, issuer=issuer.certificate)
        leaf = builder.sign(issuer.private_key, SHA256()).public_bytes(Encoding.DER)
        issued = IssuedSvid(
            spiffe_id=identity,
            chain_der=(leaf, *self._chain_der),
            not_before=float(validity.not_before),
            not_after=float(validity.not_after),
            serial=serial,
            is_cut=validity.is_cut,
            issuer_id=self._ids[0],
            root_id=self._ids[1],
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
