"""What one workload needs of all there is: which resources select it, and PeerAuthentication made into one.

Whom a resource selects is Istio's rule: without a selector, all workloads of its namespace; in the root namespace, all
of the mesh, or all that the selector matches. `targetRefs` name services of the resource's own namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from certs.spiffe_id import TrustDomain
from control_plane.policy import mtls
from control_plane.policy.model import (
    MeshConfigSpec,
    PeerAuthenticationSpec,
    PolicySpec,
    RequestAuthenticationSpec,
    Spec,
)
from control_plane.policy.wire import peer_authentication_to_proto, policy_to_proto, request_authentication_to_proto
from sidecar.rules.keys import Attribute
from sidecar.rules.snapshot import AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Rule, Source, When

__all__ = [
    "Member",
    "Selectable",
    "peer_authentication_for",
    "peer_authentication_to_proto",
    "policies_for",
    "policy_to_proto",
    "request_authentication_to_proto",
    "request_authentications_for",
    "selects",
    "specs_of",
]

LOCAL_TRUST_DOMAIN = "cluster.local/"
"""At the beginning of a principal it means the mesh's own trust domain, whatever that is called, as in Istio."""

S = TypeVar("S", PolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec)


class Member(Protocol):
    """What selecting looks at: what the workload's join token bound, never what a sidecar says of itself."""

    @property
    def namespace(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selectable:
    """A `Member` for those who have no workload at hand."""

    namespace: str
    labels: Mapping[str, str]
    service: str = ""


class HasSpec(Protocol):
    """A `ParsedResource`, or whatever the store makes of one."""

    @property
    def spec(self) -> Spec: ...


def specs_of(resources: Iterable[Spec | HasSpec], kind: type[S]) -> list[S]:
    """Those of one kind, sorted by name: equal input makes equal snapshots."""
    specs = (one.spec if not isinstance(one, Spec) else one for one in resources)
    return sorted((one for one in specs if isinstance(one, kind)), key=_full_name)


def _full_name(spec: PolicySpec | PeerAuthenticationSpec | RequestAuthenticationSpec) -> tuple[str, str]:
    match spec:
        case PolicySpec(policy=one) | RequestAuthenticationSpec(authentication=one):
            return one.namespace, one.name
        case PeerAuthenticationSpec():
            return spec.namespace, spec.name


def selects(
    spec: PolicySpec | PeerAuthenticationSpec | RequestAuthenticationSpec, workload: Member, mesh: MeshConfigSpec
) -> bool:
    selection = spec.selection
    if spec.namespace != workload.namespace and (spec.namespace != mesh.root_namespace or selection.services):
        return False
    if selection.services and workload.service not in selection.services:
        return False
    labels = workload.labels
    return all(labels.get(name) == value for name, value in selection.labels.items())


def policies_for(
    resources: Iterable[Spec | HasSpec], workload: Member, mesh: MeshConfigSpec, trust_domain: TrustDomain
) -> tuple[AuthorizationPolicy, ...]:
    """The policies that select a workload, sorted by name."""
    specs = specs_of(resources, PolicySpec)
    return tuple(resolved(spec.policy, trust_domain) for spec in specs if selects(spec, workload, mesh))


def peer_authentication_for(
    resources: Iterable[Spec | HasSpec], workload: Member, mesh: MeshConfigSpec
) -> PeerAuthentication:
    """All that select a workload, made into one."""
    found = [spec for spec in specs_of(resources, PeerAuthenticationSpec) if selects(spec, workload, mesh)]
    return mtls.resolve(found, mesh)


def request_authentications_for(
    resources: Iterable[Spec | HasSpec], workload: Member, mesh: MeshConfigSpec
) -> tuple[RequestAuthentication, ...]:
    """Those that select a workload, sorted by name."""
    specs = specs_of(resources, RequestAuthenticationSpec)
    return tuple(spec.authentication for spec in specs if selects(spec, workload, mesh))


# The mesh's own trust domain


def resolved(policy: AuthorizationPolicy, trust_domain: TrustDomain) -> AuthorizationPolicy:
    """With the trust domain's name for `cluster.local`. The same object if the policy does not say it."""
    if trust_domain.name + "/" == LOCAL_TRUST_DOMAIN or not any(map(_says_local, policy.rules)):
        return policy

    def named(principal: str) -> str:
        if not principal.startswith(LOCAL_TRUST_DOMAIN):
            return principal
        return f"{trust_domain.name}/{principal.removeprefix(LOCAL_TRUST_DOMAIN)}"

    return replace(policy, rules=tuple(_renamed(rule, named) for rule in policy.rules))


def _principals(rule: Rule) -> Iterable[str]:
    for source in rule.sources:
        yield from source.principals
        yield from source.not_principals
    for when in rule.when:
        if when.key == Attribute.PRINCIPAL.value:
            yield from when.values
            yield from when.not_values


def _says_local(rule: Rule) -> bool:
    return any(principal.startswith(LOCAL_TRUST_DOMAIN) for principal in _principals(rule))


def _renamed(rule: Rule, named: Callable[[str], str]) -> Rule:
    def in_source(source: Source) -> Source:
        principals, not_principals = tuple(map(named, source.principals)), tuple(map(named, source.not_principals))
        return replace(source, principals=principals, not_principals=not_principals)

    def in_when(when: When) -> When:
        if when.key != Attribute.PRINCIPAL.value:
            return when
        return replace(when, values=tuple(map(named, when.values)), not_values=tuple(map(named, when.not_values)))

    return replace(rule, sources=tuple(map(in_source, rule.sources)), when=tuple(map(in_when, rule.when)))
