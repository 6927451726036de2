"""The mesh as it is now, as a rehearsal of the CA wants it: who holds which certificate, who is away since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.rehearse.mesh import trusted_roots
from control_plane.ca.rehearse.model import Sidecar, Topology
from control_plane.ca.slots import NOT_TOLD, Readiness
from control_plane.model import Authority, IssuedRecord, Node, Phase
from control_plane.push.hub import Hub
from control_plane.push.session import Session
from control_plane.registry import Instance, Registry
from control_plane.store.base import Store

NODE_CHARACTERS = 8


def topology(
    store: Store,
    authority: CertificateAuthority,
    registry: Registry,
    hub: Hub,
    readiness: Readiness,
    now: float,
) -> Topology:
    """One sidecar for each node with a live certificate. The control plane itself changes over at once, and is left
    out."""
    newest: dict[str, IssuedRecord] = {}
    for one in store.live_certificates(now):
        if one.workload_id is not None:
            newest[one.node_id or f"{one.serial:x}"] = one
    nodes = {one.node_id: one for one in store.nodes()}
    instances = {one.key: one for one in registry}
    sessions = {session.certificate.node_id: session for session in hub if session.certificate is not None}
    unknown = _unknown(authority.authorities, readiness)
    sidecars = []
    for node_id, certificate in newest.items():
        session = sessions.get(node_id)
        instance = instances.get(session.key) if session is not None else _last_of(certificate, instances.values())
        sidecars.append(_sidecar(node_id, certificate, instance, nodes.get(node_id), session, unknown))
    return Topology(authorities=authority.authorities, sidecars=tuple(sidecars), policy=authority.policy)


def _unknown(authorities: Sequence[Authority], readiness: Readiness) -> dict[str, tuple[str, ...]]:
    """Of each published root: who does not know it. Readiness speaks of those that something waits for; the others
    were acknowledged by everybody before they signed."""
    published, found = trusted_roots(authorities), {}
    for one in authorities:
        if one.authority_id in published:
            is_new = one.phase is Phase.PREPARED
            missing = readiness.missing.get(one.authority_id, NOT_TOLD if is_new else ())
            found[one.authority_id] = missing
    return found


def _last_of(certificate: IssuedRecord, instances: Iterable[Instance]) -> Instance | None:
    """A process of that workload that has gone: the last one there was."""
    gone = (one for one in instances if one.workload.workload_id == certificate.workload_id and not one.is_connected)
    return max(gone, key=lambda one: one.last_seen, default=None)


def _sidecar(
    node_id: str,
    certificate: IssuedRecord,
    instance: Instance | None,
    node: Node | None,
    session: Session | None,
    unknown: Mapping[str, tuple[str, ...]],
) -> Sidecar:
    short = node_id[:NODE_CHARACTERS]
    away_since = instance.last_seen if instance is not None and instance.last_seen else certificate.issued_at
    knows = {
        root
        for root, missing in unknown.items()
        if root == certificate.root_id or not (missing == NOT_TOLD or any(short in one for one in missing))
    }
    return Sidecar(
        name=session.label if session is not None else f"{certificate.spiffe_id} (node {short})",
        issuer_id=certificate.issuer_id,
        root_id=certificate.root_id,
        issued_at=certificate.issued_at,
        not_after=certificate.not_after,
        knows=frozenset(knows),
        away_since=away_since if session is None else None,
        rejoins_until=node.expires_at if node is not None and node.public_key_der else 0.0,
        clock_skew_s=instance.clock_skew_s if instance is not None and session is not None else 0.0,
        takes_snapshots=session is None or not session.rejected_reason,
    )
