"""Whether who was trusted when a connection was made is trusted still. Pure: no socket, no clock."""

from __future__ import annotations

from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.revocation import Revocations
from certs.svid import X509Svid
from certs.verify import verify_chain
from sidecar.net.errors import OwnRevoked, PeerRefused, TlsError
from sidecar.net.tls import PeerCertificate, authority_ids, revocation_of


def why_not(
    peer: PeerCertificate,
    bundle: TrustBundle,
    revocations: Revocations,
    now: float,
    verified_under: TrustBundle | None = None,
) -> TlsError | None:
    """Why a peer is not trusted any more (PeerRevoked, PeerRefused), or None. `now` in Unix seconds.

    `verified_under`: what its chain was verified with before. A chain that led to one of those anchors still does if
    none of them has gone, and to verify one costs as much as several requests."""
    if revoked := revocation_of(peer, revocations):
        return revoked
    if verified_under is not None and has_lost_nothing(verified_under, bundle):
        return None
    try:
        verify_chain((peer.der, *peer.issuers_der), bundle, now)
    except CertsError as error:
        return PeerRefused(f"{peer.identity} is not trusted any more: {error}", row=error.row)
    return None


def why_not_ours(
    own: X509Svid,
    bundle: TrustBundle,
    revocations: Revocations,
    now: float,
    verified_under: TrustBundle | None = None,
) -> OwnRevoked | None:
    """Why a certificate of ours is worth nothing to whoever was shown it, or None. As `why_not`."""
    try:
        what = revocations.refusal(own.spiffe_id, own.serial, authority_ids(own.chain_der[1:]))
        if not what and not (verified_under is not None and has_lost_nothing(verified_under, bundle)):
            verify_chain(own.chain_der, bundle, now)
    except CertsError as error:
        return OwnRevoked(f"our certificate {own.serial:x} is not trusted any more: {error}", row=error.row)
    return OwnRevoked(f"of our certificate {own.serial:x} the {what} is revoked", row="F15") if what else None


def has_lost_nothing(before: TrustBundle, bundle: TrustBundle) -> bool:
    """Does everybody who was trusted before have an anchor in the bundle of now?"""
    return before == bundle or (
        before.trust_domain == bundle.trust_domain and set(before.anchors_der) <= set(bundle.anchors_der)
    )
