"""What the control plane told this sidecar, as frozen values. One snapshot is used for the whole of one exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from certs.revocation import NOTHING_REVOKED, Revocations
from certs.spiffe_id import SpiffeId, TrustDomain


class Action(Enum):
    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    """Decides nothing; what matches is logged."""


class TlsMode(Enum):
    """What a port takes, by PeerAuthentication."""

    STRICT = "STRICT"
    """Mutual TLS only."""
    PERMISSIVE = "PERMISSIVE"
    """Plaintext also, without an identity."""
    DISABLE = "DISABLE"
    """Plaintext; whoever comes over mutual TLS all the same has no identity either."""


class Protocol(Enum):
    HTTP1 = "http1"
    HTTP2 = "http2"
    TCP = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who calls. All present fields are ANDed, the values of one field are ORed. Empty tuple: no condition.

    Values are Istio's matches: exact, prefix `abc*`, suffix `*abc`, presence `*`; blocks are addresses. Principals are
    written without the scheme, as in Istio: `mesh.local/ns/shop/sa/web`."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    """"issuer/subject" of the verified token."""
    not_request_principals: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    """CIDR blocks or addresses, in the canonical spelling of `ipaddress`; of the connection's other end."""
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    """The same, of the client at the far end of trusted proxies."""
    not_remote_ip_blocks: tuple[str, ...] = ()


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
    """Besides the four: templates, `/orders/{*}/items/{**}`."""
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """One attribute: it must match one of `values`, if there are any, and none of `not_values`."""

    key: str
    """Istio's name of it; `rules.keys.parse_key` reads it."""
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Matches if one of `sources` matches (or there is none), one of `operations` matches (or there is none), and all
    of `when` match."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    when: tuple[When, ...] = ()
    line: int = 0
    """Of the file it was applied from; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy:
    """`security.istio.io/v1` AuthorizationPolicy that selects this workload. No rules: matches nothing."""

    namespace: str
    name: str
    action: Action
    rules: tuple[Rule, ...]
    source: str = ""
    """"file:line" it was applied from."""
    shadow: bool = False
    """Judged, counted and logged, never enforced."""

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortTls:
    """What one port takes."""

    mode: TlsMode = TlsMode.STRICT
    until: float = 0.0
    """Unix seconds; from then on the port is STRICT. 0: no end."""
    peers: tuple[str, ...] = ()
    """CIDR blocks: who may come in plaintext. None: everybody."""
    source: str = ""
    """"file:line" of the PeerAuthentication; empty: the mesh's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication:
    """`security.istio.io/v1` PeerAuthentication, all that apply to this workload made into one."""

    rest: PortTls = PortTls()
    """Every port that is not in `ports`."""
    ports: Mapping[int, PortTls] = field(default_factory=dict)
    """By the service's port."""

    def port(self, port: int) -> PortTls:
        return self.ports.get(port, self.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """Whose tokens are taken, from where, and what becomes of them. Exactly one of `jwks`, `jwks_uri` and `discover`
    says where the keys come from."""

    issuer: str
    audiences: tuple[str, ...] = ()
    """None: any, but a token must have one."""
    jwks: str = ""
    """A JSON Web Key Set (RFC 7517), as text."""
    jwks_uri: str = ""
    discover: bool = False
    """`issuer` + "/.well-known/openid-configuration" names the URI (OpenID Connect Discovery 1.0 section 4)."""
    from_headers: tuple[tuple[str, str], ...] = ()
    """(name in lower case, prefix). With no `from_...` at all: ("authorization", "Bearer ")."""
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[tuple[str, str], ...] = ()
    """(header in lower case, claim; "a.b" is nested)."""
    forward_original_token: bool = False
    timeout_s: float = 0.0
    """Of one fetch; 0: the sidecar's own."""
    token_types: tuple[str, ...] = ()
    """What the token's `typ` may be, lower case and without "application/"; none: any."""
    space_delimited_claims: tuple[str, ...] = ()
    """Besides "scope" and "permission"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthentication:
    """`security.istio.io/v1` RequestAuthentication that selects this workload."""

    namespace: str
    name: str
    jwt_rules: tuple[JwtRule, ...]
    source: str = ""
    """"file:line" it was applied from."""


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
    peer_authentication: PeerAuthentication = PeerAuthentication()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    trusted_proxies_count: int = 0
    """How many entries from the right of x-forwarded-for are believed; 0: none, the remote address is the source's."""
    revocations: Revocations = NOTHING_REVOKED
    jwt_keys: str = ""
    """JSON Web Key Set of the control plane, which JWT-SVIDs are verified with; empty: it signs none."""
