"""What the control plane told this sidecar, as frozen values. One snapshot is used for the whole of one exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from certs.spiffe_id import SpiffeId, TrustDomain


class Action(Enum):
    ALLOW = "ALLOW"
    DENY = "DENY"


class Protocol(Enum):
    HTTP1 = "http1"
    HTTP2 = "http2"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who calls. All present fields are ANDed, the values of one field are ORed. Empty tuple: no condition.

    Values are Istio's matches: exact, prefix `abc*`, suffix `*abc`, presence `*`. Principals are written without the
    scheme, as in Istio: `mesh.local/ns/shop/sa/web`."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is asked for. All present fields are ANDed, the values of one field are ORed. Empty tuple: no condition."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Matches if one of `sources` matches (or there is none) and one of `operations` matches (or there is none)."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy:
    """`security.istio.io/v1` AuthorizationPolicy that selects this workload. No rules: matches nothing."""

    namespace: str
    name: str
    action: Action
    rules: tuple[Rule, ...]
    source: str = ""
    """"file:line" it was applied from."""

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One sidecar that serves a service."""

    address: str
    """"ip:port" of its mesh listener."""
    identity: SpiffeId
    """Whom the caller must find there, or hang up."""
    instance: str
    ports: Mapping[int, Protocol]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    name: str
    namespace: str
    known: bool
    """False: no workload of that name has ever joined."""
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything one workload needs. Replaced whole, never changed."""

    epoch: int
    version: int
    """Grows within an epoch."""
    trust_domain: TrustDomain
    identity: SpiffeId
    service: str
    namespace: str
    labels: Mapping[str, str]
    default_action: Action
    policies: tuple[AuthorizationPolicy, ...]
    services: Mapping[str, Service]
    """By "name.namespace"; only those subscribed to."""
    trust_anchors_der: tuple[bytes, ...]
    certificate_lifetime_s: int
