"""Resources as values, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from control_plane.errors import InvalidRequest
from sidecar.rules.snapshot import Action, AuthorizationPolicy, RequestAuthentication, TlsMode

PROBLEMS_MAX = 100
"""Reported at once; a thousand would help nobody."""
ROOT_NAMESPACE = "istio-system"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which workloads a resource is for, within the namespaces it reaches (`compile.selects`)."""

    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """A workload must have them all; empty: any."""
    services: tuple[str, ...] = ()
    """Names in the resource's own namespace, one of which the workload must serve; empty: any."""

    @property
    def is_everything(self) -> bool:
        return not self.labels and not self.services


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """An AuthorizationPolicy and whom it selects."""

    policy: AuthorizationPolicy
    selection: Selection = Selection()

    @property
    def namespace(self) -> str:
        return self.policy.namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthenticationSpec:
    """A PeerAuthentication as written; `compile.peer_authentication_for` makes all of a workload's into one."""

    namespace: str
    name: str
    selection: Selection = Selection()
    mode: TlsMode | None = None
    """None: UNSET, what the next wider one says."""
    ports: Mapping[int, TlsMode | None] = field(default_factory=dict)
    """None: UNSET, what `mode` says."""
    until: float = 0.0
    """Unix seconds: when plaintext ends; 0: it does not."""
    peers: tuple[str, ...] = ()
    """CIDR blocks, canonical: who may come in plaintext; none: everybody."""
    source: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def takes_plaintext(self) -> bool:
        """Somewhere, by itself."""
        return any(mode in (TlsMode.PERMISSIVE, TlsMode.DISABLE) for mode in (self.mode, *self.ports.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthenticationSpec:
    """A RequestAuthentication and whom it selects."""

    authentication: RequestAuthentication
    selection: Selection = Selection()

    @property
    def namespace(self) -> str:
        return self.authentication.namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfigSpec:
    """What holds for the whole mesh. Its defaults are the ones in force while no MeshConfig is applied."""

    trust_domain: str | None = None
    """None: the one the control plane was started with."""
    certificate_lifetime_s: int = 3600
    default_action: Action = Action.DENY
    root_namespace: str = ROOT_NAMESPACE
    """Its resources hold in every namespace."""
    trusted_proxies_count: int = 0
    """How many entries from the right of x-forwarded-for are believed."""
    permissive_until_required: bool = False
    permissive_peers_required: bool = False
    """Whether plaintext must have an end and named peers; where it does not, the port is STRICT."""


Spec = PolicySpec | PeerAuthenticationSpec | RequestAuthenticationSpec | MeshConfigSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedResource:
    """One valid document."""

    kind: str
    """"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication" or "MeshConfig"."""
    namespace: str
    """Empty for what is cluster-wide."""
    name: str
    spec: Spec
    yaml: str = field(repr=False)
    """This document's text, without the line "---"."""
    source: str
    """"file:line"."""
    warnings: tuple[str, ...] = ()
    """Legal, but probably not what was meant."""
    notes: tuple[str, ...] = ()
    """Where Istio would make more of it. `apply` tells; nobody has to change anything."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyProblem:
    """One thing that is wrong, where, and what to do about it."""

    file: str
    line: int
    """From 1; 0 when the whole file is meant."""
    column: int
    """From 1; 0 when the whole file is meant."""
    field: str
    """"spec.rules[0].from[1].source.principals[0]"; empty when the document is meant."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{where}: {what}; {self.hint}" if self.hint else f"{where}: {what}"


class PolicyErrors(InvalidRequest):  # several of them, which a name in -Error would hide
    """Documents that will not be applied, none of them. Its text is one problem a line."""

    def __init__(self, problems: tuple[PolicyProblem, ...]) -> None:
        assert problems, "refused without a reason"
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
