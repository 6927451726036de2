"""The nouns of the control plane. Read this first.

A **workload** is what an operator named when making a join token: a service in a namespace, under a service account,
with labels. Its SPIFFE ID follows from namespace and service account. A **join token** turns a fresh process into a
member of one workload, once. What joins is a **node**: it keeps a key of its own that outlives its certificates, and
is what a line of certificates, each renewed from the one before, belongs to. Every certificate **issued** is recorded
with the workload and the node it is for, so that a caller is known by the serial number of its certificate and two
services may share one service account. What signs them is an **authority**: a root, an intermediate, or the key of
JWT-SVIDs. A **revocation** takes away what an identity, a certificate or a join token gave. A running sidecar of a
workload is an **instance**; one that serves has an **endpoint**. What an operator applies is a **resource**. Every
change of a resource or an endpoint makes a new **revision** of the store, which is the version of the snapshots made
from it; revisions grow within an **epoch**.

All times are Unix seconds. Values are frozen; the store makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

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
    node_id: str = ""
    """Whose line it belongs to; empty: nobody's (the control plane's own)."""
    issuer_id: str = ""
    """The authority that signed it."""
    root_id: str = ""
    """The root that one stands under."""
    token_id: str = ""
    """The join token it came of, by however many renewals; empty: none (the control plane's own, or not known)."""
    number: int = 0
    """Grows with every certificate recorded; given by the store, ignored on the way in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What joined with one join token, and comes back with its node key."""

    node_id: str
    """`certs.authority_id.key_id` of its node key; 32 random hexadecimal digits for one that has none."""
    workload_id: int
    token_id: str
    """The join token it came with."""
    public_key_der: bytes = field(repr=False)
    """Empty: it cannot come back without a token."""
    joined_at: float
    expires_at: float
    """Until when it may rejoin; each renewal moves it on."""
    confirmed_number: int = 0
    """`IssuedRecord.number` of the newest certificate it was seen to use. Older ones are not used any more: who renews
    with one of them is a second holder of the key (security.md G24)."""
    alarm: str = ""
    """What somebody should look at; empty: nothing."""


class Level(Enum):
    ROOT = "root"
    INTERMEDIATE = "intermediate"
    JWT = "jwt"
    """Signs JWT-SVIDs; has no certificate."""


class Phase(Enum):
    """Where an authority is in its life. `control_plane.ca.slots` has the table of what may follow what."""

    REQUESTED = "requested"
    """There is a key, and its certificate was asked of an offline root."""
    PREPARED = "prepared"
    """Complete and published, signs nothing yet."""
    ACTIVE = "active"
    """Signs. At most one of a level."""
    OLD = "old"
    """Signed once, and is trusted still."""
    TAINTED = "tainted"
    """As OLD, but whoever holds something signed by it has to replace it at once."""
    REVOKED = "revoked"
    """Trusted by nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A key that signs, and what is known of it."""

    authority_id: str
    """`certs.authority_id.key_id` of its public key."""
    level: Level
    phase: Phase
    parent_id: str
    """The root that signed it; its own id for a root; empty for a JWT key."""
    public_key_der: bytes = field(repr=False)
    certificate_der: bytes = field(default=b"", repr=False)
    """Empty while REQUESTED, and for JWT keys."""
    sealed_key: bytes = field(default=b"", repr=False)
    """The private key under the key-encryption key (`control_plane.ca.keys`). Empty: it is kept elsewhere."""
    not_before: float
    not_after: float
    """Unix seconds; 0 while REQUESTED."""
    prepared_at: float
    activated_at: float | None = None
    tainted_at: float | None = None
    revoked_at: float | None = None
    predecessor_id: str = ""
    """Of a root: the one that vouches for it."""
    succession: bytes = field(default=b"", repr=False)
    """That one's signature (`certs.succession`); empty: nobody vouches."""


class RevokedKind(Enum):
    IDENTITY = "identity"
    SERIAL = "serial"
    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """The join token, if it was not used, and all that came of it if it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRecord:
    """A right taken away by an operator. Authorities are revoked by their phase."""

    kind: RevokedKind
    value: str
    """SPIFFE ID | serial number, lower-case hexadecimal | token id."""
    at: float
    by: str
    reason: str


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
