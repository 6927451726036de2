"""What is open while the control plane serves."""

from __future__ import annotations

from dataclasses import dataclass

from certs.spiffe_id import TrustDomain
from control_plane.api.credentials import OwnCertificate
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.config_ca import CaConfig
from control_plane.push.acknowledged import Acknowledged
from control_plane.push.hub import Hub
from control_plane.push.snapshot import WorldLoader
from control_plane.registry import Registry
from control_plane.revocation import RevokedView
from control_plane.store.base import Store


@dataclass(slots=True, kw_only=True)
class State:
    """Made by `control_plane.app.open_state`."""

    trust_domain: TrustDomain
    store: Store
    audit: AuditLog
    ca: CaConfig
    authority: CertificateAuthority
    revoked: RevokedView
    acknowledged: Acknowledged
    """What rotations wait for."""
    certificate: OwnCertificate
    loader: WorldLoader
    registry: Registry
    hub: Hub
    ticked_at: float
    """When the last housekeeping was; Unix seconds."""
    doubted_until: float
    """Until when the clock is not believed when it says that something has expired."""
    forget_at: float = 0.0
    """When what has long expired is looked for next."""
    join_port: int = 0
    """As bound; join tokens carry it."""
