"""The nouns of the control plane. Read this first.

A **workload** is what an operator named when making a join token: a service in a namespace, under a service account,
with labels. Its SPIFFE ID follows from namespace and service account. A **join token** turns a fresh process into a
member of one workload, once. Every certificate **issued** is recorded with the workload it is for, so that a caller is
known by the serial number of its certificate and two services may share one service account. A running sidecar of a
workload is an **instance**; one that serves has an **endpoint**. What an operator applies is a **resource**. Every
change of a resource or an endpoint makes a new **revision** of the store, which is the version of the snapshots made
from it; revisions grow within an **epoch**.

All times are Unix seconds. Values are frozen; the store makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from certs.spiffe_id import SpiffeId
from sidecar.rules.snapshot import Protocol

InstanceKey = tuple[int, str]
"""A running sidecar: (workload id, the instance name it chose at random)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What a join token binds. Never taken from what a sidecar says about itself."""

    spiffe_id: SpiffeId
    service: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload that has joined at least once."""

    workload_id: int
    spec: WorkloadSpec
    joined_at: float
    """When the first of its sidecars joined."""

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.spec.spiffe_id

    @property
    def service_name(self) -> str:
        """ "service.namespace", as others call it."""
        return f"{self.spec.service}.{self.spec.namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenRecord:
    """A join token as stored: never the secret, only its SHA-256."""

    token_id: str
    """16 lower-case hexadecimal digits; not secret."""
    secret_sha256: bytes = field(repr=False)
    spec: WorkloadSpec
    created_at: float
    created_by: str
    expires_at: float
    consumed_at: float | None = None
    """None: not used yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRecord:
    """A certificate, written down before anybody gets to see it (security.md J10)."""

    serial: int
    """Up to 159 bits (RFC 5280 section 4.1.2.2)."""
    spiffe_id: SpiffeId
    workload_id: int | None
    """None: the control plane's own."""
    not_before: float
    not_after: float
    issued_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKey:
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRecord:
    """One document an operator applied."""

    key: ResourceKey
    yaml: str
    """This document's text, as applied."""
    source: str
    """"file:line" as the operator typed it."""
    version: int
    """Revision of the store that brought it."""
    applied_at: float
    applied_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an apply or a delete did, or would do, to one resource."""

    key: ResourceKey
    what: str
    """created | updated | unchanged | deleted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One change of resources."""

    version: int
    """Revision of the store that it made."""
    at: float
    by: str
    what: str
    """apply | delete | rollback to N | imported"""
    changes: tuple[Change, ...]
    """Without what stayed as it was; ordered by kind, namespace, name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """Where a sidecar takes calls for its service."""

    workload_id: int
    instance: str
    address: str
    """"ip:port" of its mesh listener."""
    ports: Mapping[int, Protocol]
    """The service's ports; order does not matter."""

    @property
    def key(self) -> InstanceKey:
        return self.workload_id, self.instance
