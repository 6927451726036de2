"""The handlers of the API, made and wired over the state. Nothing in them knows how a call came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from control_plane.api.admin import AdminApi
from control_plane.api.ca import CaApi
from control_plane.api.changes import ResourceChanges
from control_plane.api.clones import CloneAlarm
from control_plane.api.config import ConfigApi
from control_plane.api.discovery import DiscoveryApi
from control_plane.api.explain import ExplainApi
from control_plane.api.history import HistoryApi
from control_plane.api.identity import IdentityApi
from control_plane.api.issuing import Issuer
from control_plane.api.revoke import RevokeApi
from control_plane.config import Limits
from control_plane.decisions import DecisionLog
from control_plane.limits import RateLimit
from control_plane.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Apis:
    """The handlers over the state; nothing in them knows how a call came."""

    identity: IdentityApi
    discovery: DiscoveryApi
    resources: ConfigApi
    explain: ExplainApi
    history: HistoryApi
    admin: AdminApi
    ca: CaApi
    revoke: RevokeApi


def apis(state: State, limits: Limits, now: Callable[[], float]) -> Apis:
    """Made and wired."""
    loader = state.loader
    decisions = DecisionLog()
    clones = CloneAlarm(
        store=state.store,
        audit=state.audit,
        is_revoked=state.ca.clone_action == "revoke",
        changed=state.hub.notify,
    )
    discovery = DiscoveryApi(
        store=state.store,
        registry=state.registry,
        hub=state.hub,
        decisions=decisions,
        acknowledged=state.acknowledged,
        clones=clones,
        subscriptions_max=limits.subscriptions_max,
        streams_max=limits.streams_per_instance_max,
        now=now,
    )
    resources, explain, history = _resource_apis(state, limits, decisions, now)
    admin = AdminApi(
        store=state.store,
        authority=state.authority,
        audit=state.audit,
        registry=state.registry,
        hub=state.hub,
        loader=loader,
        trust_domain=state.trust_domain,
        join_port=lambda: state.join_port,
        release=metadata.version("hauberk"),
        now=now,
    )
    ca = CaApi(
        store=state.store,
        authority=state.authority,
        registry=state.registry,
        hub=state.hub,
        readiness=state.acknowledged.readiness,
        now=now,
    )
    revoke = RevokeApi(
        store=state.store,
        audit=state.audit,
        registry=state.registry,
        hub=state.hub,
        trust_domain=state.trust_domain,
        now=now,
    )
    return Apis(
        identity=_identity(state, limits, clones, now),
        discovery=discovery,
        resources=resources,
        explain=explain,
        history=history,
        admin=admin,
        ca=ca,
        revoke=revoke,
    )


def _identity(state: State, limits: Limits, clones: CloneAlarm, now: Callable[[], float]) -> IdentityApi:
    loader = state.loader
    return IdentityApi(
        store=state.store,
        authority=state.authority,
        audit=state.audit,
        revoked=state.revoked,
        issuer=Issuer(
            store=state.store,
            authority=state.authority,
            audit=state.audit,
            lifetime_s=lambda: loader.load().mesh.certificate_lifetime_s,
            node_lifetime_s=state.ca.node_lifetime_s,
        ),
        clones=clones,
        changed=state.hub.notify,
        join_limit=RateLimit(rate_per_s=limits.join_rate_per_s, burst=limits.join_burst),
        rejoin_limit=RateLimit(rate_per_s=limits.renew_rate_per_s, burst=limits.renew_burst),
        renew_limit=RateLimit(rate_per_s=limits.renew_rate_per_s, burst=limits.renew_burst),
        now=now,
    )


def _resource_apis(
    state: State, limits: Limits, decisions: DecisionLog, now: Callable[[], float]
) -> tuple[ConfigApi, ExplainApi, HistoryApi]:
    """What serves hauberk.v1.Config."""
    loader = state.loader
    changes = ResourceChanges(
        store=state.store,
        registry=state.registry,
        hub=state.hub,
        loader=loader,
        impact_timeout_s=limits.impact_timeout_s,
        now=now,
    )
    resources = ConfigApi(
        store=state.store,
        audit=state.audit,
        changes=changes,
        hub=state.hub,
        loader=loader,
        trust_domain=state.trust_domain,
        file_octets_max=limits.file_octets_max,
        resources_max=limits.resources_max,
        now=now,
    )
    explain = ExplainApi(
        store=state.store,
        registry=state.registry,
        loader=loader,
        decisions=decisions,
        trust_domain=state.trust_domain,
        now=now,
    )
    history = HistoryApi(
        store=state.store,
        audit=state.audit,
        changes=changes,
        registry=state.registry,
        hub=state.hub,
        loader=loader,
        trust_domain=state.trust_domain,
        now=now,
    )
    return resources, explain, history
