"""What the control plane issued is checked like a stranger's certificate before it is used."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.spiffe_id import TrustDomain
from certs.svid import X509Svid
from certs.verify import verify_chain
from protos.hauberk.v1 import identity_pb2
from sidecar.identity.errors import IssuedRefused


def accept_issued(
    response: identity_pb2.SvidResponse,
    private_key: ec.EllipticCurvePrivateKey,
    trust_domain: TrustDomain,
    now: float,
) -> tuple[X509Svid, TrustBundle]:
    """The SVID and the bundle of an answer to Join or Renew. Raises IssuedRefused.

    It must be a legal SVID of our trust domain, valid now, for the key just made, with a path to an anchor of the
    bundle it came with, and say in its certificate what it says beside it."""
    try:
        bundle = TrustBundle.of(trust_domain, response.trust_anchors_der)
        svid = X509Svid.of(response.certificate_chain_der, private_key, trust_domain, now)
        verify_chain(svid.chain_der, bundle, now)
    except CertsError as error:
        raise IssuedRefused(f"the control plane issued what cannot be used: {error}") from error
    if str(svid.spiffe_id) != response.spiffe_id:
        raise IssuedRefused(f"the control plane announced another identity than it certified: {svid.spiffe_id}")
    if not svid.spiffe_id.is_workload:
        raise IssuedRefused(f"the control plane issued an identity that is no workload's: {svid.spiffe_id}")
    return svid, bundle
