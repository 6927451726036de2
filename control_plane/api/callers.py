"""Whom a connection proves. The only place where a certificate becomes a `Caller`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.revocation import Revocations
from certs.verify import verify_chain
from control_plane.api.authz import Caller, Role
from control_plane.errors import PermissionDenied, Unauthenticated

KNOWN_MAX = 10_000
"""Chains remembered."""

LOCAL_OPERATOR = Caller(role=Role.OPERATOR, name="local operator", peer="unix")
"""Whoever may open the unix socket (mode 0600, in a directory of mode 0700)."""


def anonymous(peer: str) -> Caller:
    return Caller(role=Role.ANONYMOUS, name="anonymous", peer=peer)


def of_certificate(chain_der: Sequence[bytes], bundle: TrustBundle, *, peer: str, now: float) -> Caller:
    """The workload or operator whose chain this is, leaf first; TLS has proved that the peer holds its key.

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
        issuer_ids=authority_ids(tuple(chain_der[1:])),
    )


class KnownCallers:
    """Who calls on each connection, asked at every call: a connection outlives the certificate it was made with, and
    the trust in it; the right to call does not.

    A chain that was verified is verified again when the anchors change or a certificate of it begins or ends; what is
    revoked is looked up every time."""

    def __init__(self, bundle: Callable[[], TrustBundle], revoked: Callable[[], Revocations]) -> None:
        self._bundle = bundle
        self._revoked = revoked
        self._known: OrderedDict[tuple[bytes, ...], _Known] = OrderedDict()

    def __repr__(self) -> str:
        return f"<KnownCallers {len(self._known)}>"

    def of(self, pems: tuple[bytes, ...], *, peer: str, now: float) -> Caller:
        """`pems`: the leaf, then the rest of the chain. Raises Unauthenticated, PermissionDenied."""
        bundle = self._bundle()
        held = self._known.get(pems)
        if held is None or held.anchors_der != bundle.anchors_der or not held.since <= now < held.until:
            held = self._known[pems] = _verified(pems, bundle, peer, now)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(pems)
        caller = held.caller if held.caller.peer == peer else replace(held.caller, peer=peer)
        check_not_revoked(caller, self._revoked())
        return caller


def check_not_revoked(caller: Caller, revoked: Revocations) -> None:
    """Raises PermissionDenied (G22)."""
    assert caller.spiffe_id is not None
    if why := revoked.refusal(caller.spiffe_id, caller.serial, caller.issuer_ids):
        raise PermissionDenied(f"your certificate was revoked, by its {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    caller: Caller
    anchors_der: tuple[bytes, ...]
    since: float
    until: float


def _verified(pems: tuple[bytes, ...], bundle: TrustBundle, peer: str, now: float) -> _Known:
    certificates = x509.load_pem_x509_certificates(b"".join(pems))
    chain_der = [one.public_bytes(Encoding.DER) for one in certificates]
    return _Known(
        caller=of_certificate(chain_der, bundle, peer=peer, now=now),
        anchors_der=bundle.anchors_der,
        since=max(one.not_valid_before_utc.timestamp() for one in certificates),
        until=min(one.not_valid_after_utc.timestamp() for one in certificates),
    )


def ip_of(peer: str) -> str:
    """IP address of a gRPC peer name: "ipv4:192.0.2.1:5000", "ipv6:%5B::1%5D:5000", "unix:"."""
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rpartition(":")[0]
    if kind == "ipv6":
        return rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
    return kind
