"""Whom a connection proves. The only place where a certificate becomes a `Caller`."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.verify import verify_chain
from control_plane.api.authz import Caller, Role
from control_plane.errors import PermissionDenied, Unauthenticated

LOCAL_OPERATOR = Caller(role=Role.OPERATOR, name="local operator", peer="unix")
"""Whoever may open the unix socket (mode 0600, in a directory of mode 0700)."""


def anonymous(peer: str) -> Caller:
    return Caller(role=Role.ANONYMOUS, name="anonymous", peer=peer)


def of_certificate(chain_der: Sequence[bytes], bundle: TrustBundle, *, peer: str, now: float) -> Caller:
    """The workload or operator whose chain this is, leaf first; TLS has proved that the peer holds its key.

    Checked anew at every call: a connection outlives the certificate it was made with, the right to call does not.
    Raises Unauthenticated, or PermissionDenied for an identity that never calls us (our own, G15)."""
    try:
        spiffe_id = verify_chain(chain_der, bundle, now)
    except CertsError as error:
        raise Unauthenticated(
            f"your certificate is not valid (any more): {error}; reconnect with a valid one, or join"
        ) from error
    leaf = x509.load_der_x509_certificate(chain_der[0])
    if spiffe_id.is_workload:
        role = Role.WORKLOAD
    elif spiffe_id.is_operator:
        role = Role.OPERATOR
    else:
        raise PermissionDenied(f"{spiffe_id} is no workload and no operator; it may call nothing")
    return Caller(
        role=role,
        name=str(spiffe_id),
        peer=peer,
        spiffe_id=spiffe_id,
        serial=leaf.serial_number,
        not_after=leaf.not_valid_after_utc.timestamp(),
    )


def ip_of(peer: str) -> str:
    """IP address of a gRPC peer name: "ipv4:192.0.2.1:5000", "ipv6:%5B::1%5D:5000", "unix:"."""
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        return rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
    return kind
