"""The control plane's own certificate: issued by its own CA, renewed at half life, never on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid, new_private_key
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError
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
    """Leaf first, the trust anchor last: a sidecar that joins knows nothing but the anchor's pin and looks for it
    here."""
    roots_pem: bytes = field(repr=False)


class OwnCertificate:
    """The certificate in use. `current` is replaced whole, so that TLS threads may read it at any time."""

    def __init__(self, authority: CertificateAuthority, store: Store, trust_domain: TrustDomain, now: float) -> None:
        """Raises CaError."""
        self._authority = authority
        self._store = store
        self._trust_domain = trust_domain
        self.renew_at = now
        self.current = self._issue(now)

    def renew(self, now: float) -> None:
        """Renews if it is time. A failed renewal keeps the valid certificate and is tried again soon."""
        if now < self.renew_at:
            return
        try:
            self.current = self._issue(now)
        except CaError:
            self.renew_at = now + RETRY_S
            log.exception("own certificate not renewed")

    def _issue(self, now: float) -> ServerCertificate:
        identity = SpiffeId.for_control_plane(self._trust_domain)
        key = new_private_key()
        issued = self._authority.issue_for_key(identity, key.public_key(), LIFETIME_S, now)
        self._store.record_issued(
            IssuedRecord(
                serial=issued.serial,
                spiffe_id=identity,
                workload_id=None,
                not_before=issued.not_before,
                not_after=issued.not_after,
                issued_at=now,
            )
        )
        chain_der = (*issued.chain_der, self._authority.anchor_der)
        svid = X509Svid.of(chain_der, key, self._trust_domain, now)
        self.renew_at = now + (issued.not_after - now) / 2
        log.info("own certificate issued", extra=fields(serial=f"{issued.serial:x}", not_after=issued.not_after))
        return ServerCertificate(
            key_pem=svid.key_pem(), chain_pem=svid.chain_pem(), roots_pem=self._authority.bundle.pem()
        )
