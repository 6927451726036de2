"""The mesh as it is now, as a rehearsal of the CA wants it: who holds which certificate, who is away since when."""

from __future__ import annotations

from collections.abc import Iterable

from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.rehearse.mesh import trusted_roots
from control_plane.ca.rehearse.model import Sidecar, Topology
from control_plane.ca.slots import NOT_TOLD, Readiness
from control_plane.model import Authority, InstanceKey, IssuedRecord, Node
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
    sessions = {session.key: session for session in hub}
    free = sorted(registry, key=lambda one: (one.is_connected, one.last_seen))
    sidecars = []
    for node_id, certificate in sorted(newest.items(), key=lambda item: -item[1].number):
        instance = _instance_of(node_id, certificate, free)
        if instance is not None:
            free.remove(instance)
        node, session = nodes.get(node_id), _session_of(instance, sessions)
        sidecars.append(_sidecar(node_id, certificate, instance, node, session, authority.authorities, readiness))
    return Topology(authorities=authority.authorities, sidecars=tuple(sidecars[::-1]), policy=authority.policy)


def _instance_of(node_id: str, certificate: IssuedRecord, free: Iterable[Instance]) -> Instance | None:
    """The process that holds it: the one of that node; one of that workload, if it did not say which it is."""
    ours = [one for one in free if one.workload.workload_id == certificate.workload_id]
    for one in ours:
        if _node_of(one) == node_id:
            return one
    return max(
        (one for one in ours if not _node_of(one)),
        key=lambda one: (one.is_connected, -abs(one.certificate_not_after - certificate.not_after)),
        default=None,
    )


def _node_of(instance: Instance) -> str:
    return str(getattr(instance, "node_id", ""))


def _session_of(instance: Instance | None, sessions: dict[InstanceKey, Session]) -> Session | None:
    return sessions.get(instance.key) if instance is not None else None


def _sidecar(
    node_id: str,
    certificate: IssuedRecord,
    instance: Instance | None,
    node: Node | None,
    session: Session | None,
    authorities: Iterable[Authority],
    readiness: Readiness,
) -> Sidecar:
    short = node_id[:NODE_CHARACTERS]
    label = session.label if session is not None else ""
    is_connected = instance is not None and instance.is_connected
    unknown = {
        root
        for root in trusted_roots(authorities)
        if root != certificate.root_id and _is_missing(readiness.waits_for(root), label, node_id)
    }
    away_since = None if is_connected else instance.last_seen if instance is not None else certificate.issued_at
    return Sidecar(
        name=label or f"{certificate.spiffe_id} (node {short})",
        issuer_id=certificate.issuer_id,
        root_id=certificate.root_id,
        issued_at=certificate.issued_at,
        not_after=certificate.not_after,
        knows=trusted_roots(authorities) - unknown,
        away_since=away_since,
        rejoins_until=node.expires_at if node is not None and node.public_key_der else 0.0,
        clock_skew_s=instance.clock_skew_s if instance is not None and is_connected else 0.0,
        takes_snapshots=session is None or not session.rejected_reason,
    )


def _is_missing(missing: tuple[str, ...], label: str, node_id: str) -> bool:
    """Labels are a connected sidecar's, or name its node."""
    return missing == NOT_TOLD or any(one == label or node_id[:NODE_CHARACTERS] in one for one in missing)
