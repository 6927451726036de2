"""The control plane's own certificate: issued by its own CA, renewed at half life, never on disk."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.bundle import TrustBundle
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid, new_private_key
from certs.verify import CHAIN_BYTES_MAX
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError, CaExpired
from control_plane.ca.hierarchy import of_root
from control_plane.ca.root import make_root
from control_plane.ca.signer import IssuedSvid, Signer
from control_plane.errors import ControlPlaneError
from control_plane.logs import fields
from control_plane.model import IssuedRecord
from control_plane.store.base import Store

log = logging.getLogger(__name__)

LIFETIME_S = 86_400.0
RETRY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """What TLS needs, PEM."""

    key_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    """Leaf first, the trust anchors last: a sidecar that joins knows nothing but an anchor's pin and looks for it
    here."""
    roots_pem: bytes = field(repr=False)


class OwnCertificate:
    """The certificate in use. `current` is replaced whole, so that TLS threads may read it at any time.

    While nobody can sign (everything has expired, the offline root has not answered yet) it is one that nobody trusts:
    the ports are there, the operator's socket works, and the mesh can be brought back."""

    def __init__(
        self, authority: CertificateAuthority, store: Store, audit: AuditLog, trust_domain: TrustDomain, now: float
    ) -> None:
        """Raises CaError, but for CaExpired."""
        self._audit = audit
        self._authority = authority
        self._store = store
        self._trust_domain = trust_domain
        self._issued: IssuedSvid | None = None
        self._issued_at = 0.0
        self._key = new_private_key()
        self._bundle = authority.bundle
        self._retry_at = now
        try:
            self.current = self._issue(now)
        except CaExpired as failure:  # a state of the mesh that an operator ends, so no traceback
            facts = fields(reason=str(failure))
            log.error("own certificate not issued: see `hauberk ca status`", extra=facts)  # noqa: TRY400
            self.current = _nobodys(trust_domain, self._bundle, now)

    def renew(self, now: float) -> None:
        """Renews if it is time, or if others sign now. A failed renewal keeps the certificate and is tried again soon;
        the anchors shown with it are always those of now. The clock may have been ahead (R24): what was put off until
        then is not."""
        try:
            if self._is_due(now) and not self._retry_at - RETRY_S <= now < self._retry_at:
                self.current = self._issue(now)
        except (CaError, ControlPlaneError) as failure:
            self._retry_at = now + RETRY_S
            trace, facts = None if isinstance(failure, CaExpired) else failure, fields(reason=str(failure))
            log.error("own certificate not renewed", exc_info=trace, extra=facts)  # noqa: TRY400
        if self._bundle != self._authority.bundle:
            self._bundle = self._authority.bundle
            self.current = replace(self.current, roots_pem=self._bundle.pem())
            if self._issued is not None:
                self.current = self._shown(self._issued)

    def _is_due(self, now: float) -> bool:
        """Half of its life is over, or it is not valid yet, or who signed it does not sign any more (tainted, revoked,
        replaced)."""
        if self._issued is None:
            return self._authority.issuer_id != ""
        is_in_time = self._issued.not_before <= now < (self._issued_at + self._issued.not_after) / 2
        return not is_in_time or self._authority.issuer_id not in ("", self._issued.issuer_id)

    def _issue(self, now: float) -> ServerCertificate:
        identity = SpiffeId.for_control_plane(self._trust_domain)
        key = new_private_key()
        issued = self._authority.issue_for_key(identity, key.public_key(), LIFETIME_S, now)
        X509Svid.of(issued.chain_der, key, self._trust_domain, now)
        with self._store.transaction():
            self._store.record_issued(
                IssuedRecord(
                    serial=issued.serial,
                    spiffe_id=identity,
                    workload_id=None,
                    not_before=issued.not_before,
                    not_after=issued.not_after,
                    issued_at=now,
                    issuer_id=issued.issuer_id,
                    root_id=issued.root_id,
                )
            )
            self._audit.append(
                "identity.own",
                at=now,
                by="control plane",
                spiffe_id=str(identity),
                serial=f"{issued.serial:x}",
                not_after=issued.not_after,
                issuer_id=issued.issuer_id,
                root_id=issued.root_id,
            )
        self._issued, self._key, self._bundle = issued, key, self._authority.bundle
        self._issued_at = now
        log.info("own certificate issued", extra=fields(serial=f"{issued.serial:x}", not_after=issued.not_after))
        return self._shown(issued)

    def _shown(self, issued: IssuedSvid) -> ServerCertificate:
        """Leaf, intermediate, and every anchor that fits: who joins looks for the one it has the pin of."""
        chain_der, size = list(issued.chain_der), sum(map(len, issued.chain_der))
        for der in self._bundle.anchors_der:
            size += len(der)
            if size > CHAIN_BYTES_MAX:
                break
            chain_der.append(der)
        chain_pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain_der)
        return ServerCertificate(key_pem=_pem(self._key), chain_pem=chain_pem, roots_pem=self._bundle.pem())


def _nobodys(trust_domain: TrustDomain, bundle: TrustBundle, now: float) -> ServerCertificate:
    """A leaf under a root that is thrown away. TLS libraries refuse to serve with a root itself: its key usage lacks
    digitalSignature (RFC 5280 section 4.2.1.3)."""
    root = make_root(trust_domain, lifetime_s=LIFETIME_S, now=now, token_bytes=os.urandom)
    key = new_private_key()
    signer = Signer(of_root(root), trust_domain, token_bytes=os.urandom)
    issued = signer.issue(SpiffeId.for_control_plane(trust_domain), key.public_key(), LIFETIME_S, now)
    chain_der = [*issued.chain_der, root.der]
    chain_pem = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain_der)
    return ServerCertificate(key_pem=_pem(key), chain_pem=chain_pem, roots_pem=bundle.pem())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
