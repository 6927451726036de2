"""The sidecar's configuration: one frozen tree, made once from one mapping, strictly.

`sidecar.config_load` reads it: `load(path)` and `parse(document, source)` refuse unknown fields, duplicate keys, wrong
types and impossible values with the file, line, field and what to write instead. No default is unsafe. Units stand last
in the names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.rules.snapshot import Protocol


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect: host and port, or a unix socket."""

    host: str = ""
    """An IP address; empty for a unix socket."""
    port: int = 0
    """0 when listening: choose a free one."""
    path: str = ""
    """Of a unix socket; empty for TCP."""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """One port of the service: what other workloads ask for, and where the app listens."""

    port: int
    app: Address
    """Loopback or a unix socket only, else the app could be reached without its sidecar."""
    protocol: Protocol
    plaintext: Address | None = None
    """Where callers without mTLS come in, while a PeerAuthentication lets them. None: nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundPort:
    """A local port that stands for one service: `127.0.0.1:9101 -> billing.shop:8080`."""

    listen: Address
    service: str
    """"name" (own namespace), "name.namespace" or "name.namespace.svc.cluster.local"."""
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound:
    listen: Address | None = Address("127.0.0.1", 15001)
    """HTTP_PROXY (absolute-form) and Host header requests. None: off."""
    ports: tuple[OutboundPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    connect_s: float = 1.0
    handshake_s: float = 10.0
    request_s: float = 300.0
    """From the request's head to the response's head. A stream that has begun its answer is bounded by `idle_s`."""
    idle_s: float = 300.0
    """Without a byte in either direction on an exchange."""
    headers_s: float = 10.0
    """From a connection's or a request's first byte to its complete head."""
    connection_idle_s: float = 300.0
    keepalive_s: float = 30.0
    """Silence on a mesh connection in use or pooled, after which its peer is asked with PING (RFC 9113 section 6.7)."""
    keepalive_timeout_s: float = 10.0
    """Without an answer to that: the connection is ended."""
    drain_s: float = 30.0
    app_start_s: float = 60.0
    """`hauberk run`: how long the app may take until it listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    connections_max: int = 10_000
    streams_per_connection_max: int = 250
    header_list_octets_max: int = 16_384
    """Names + values + 32 per field (RFC 9113 section 6.5.2)."""
    header_fields_max: int = 100
    continuation_frames_max: int = 8
    """Per header block (row A04)."""
    settings_entries_max: int = 32
    """In one SETTINGS frame (row A08)."""
    control_frames_queued_max: int = 1_000
    """Acknowledgements and resets that a peer elicited and does not read (rows A07, A09, A11)."""
    glitches_max: int = 10_000
    """Frames without use within 30 s: PING, unknown types, frames for streams long gone, and, counting tenfold,
    SETTINGS and streams beyond the limit (rows A28, A30, A35)."""
    premature_resets_max: int = 250
    """Within 10 s: requests given up unanswered within half a second, or that we had to reset, beyond those answered
    (rows A01, A02)."""
    priority_frames_per_stream_max: int = 100
    """Row A10."""
    window_updates_per_data_frame_max: int = 10
    """Row A17; twice as many, and as many again for each stream, end the connection."""
    empty_frames_max: int = 1
    """In a row, of DATA, HEADERS and CONTINUATION, ending nothing (row A15)."""
    tiny_data_frames_max: int = 25_600
    """DATA of less than 32 octets, while what came before it still waits for its reader (row A16)."""
    informational_max: int = 10
    """1xx heads before one answer (row A32)."""
    streams_total_max: int = 1_000_000
    """In the life of one connection; then it drains and another takes over (row A41)."""
    stream_window_octets: int = 65_535
    """What may wait for a slow reader."""
    stream_window_octets_max: int = 262_144
    """To which the window of a stream grows while its reader keeps up (relay engine only)."""
    connection_window_octets: int = 20_971_520
    """Of all streams of a connection together. As large as all their windows no number of slow readers holds up the
    others (row R20); what it is larger than that is lent to the windows that grow. Less saves memory and lets them."""
    output_octets_max: int = 262_144
    """Bytes queued towards one socket before its senders are held back."""
    app_connections_max: int = 256
    """HTTP/1.1 connections to the app, each one request at a time."""
    waiting_exchanges_max: int = 1_024
    """Exchanges that wait for a connection, per upstream."""
    subscriptions_max: int = 1_000
    """Services this sidecar may ask the control plane about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    sample_ratio: float = 0.01
    """Of requests that carry no sampling decision of their own; OTEL_TRACES_SAMPLER_ARG overrides it."""
    otlp_endpoint: str = ""
    """Empty: spans are not exported unless OTEL_EXPORTER_OTLP_(TRACES_)ENDPOINT is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwks:
    """How the keys of token issuers are fetched (RequestAuthentication)."""

    ca_file: str = ""
    """PEM of the authorities that certify their servers; empty: the system's."""
    allow_networks: tuple[str, ...] = ()
    """CIDR blocks beyond the public Internet in which their servers may be (row E23)."""
    refresh_s: float = 600.0
    """How often they are fetched again; max-age may make it half or twice of that."""
    stale_s: float = 3_600.0
    """How long they hold when they cannot be fetched again (row E20)."""
    fetch_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    service: str
    namespace: str = "default"
    trust_domain: str = "mesh.local"
    control_plane: Address = Address("127.0.0.1", 15012)
    join_token_file: str = ""
    """Path, or "-" for standard input. Never the token itself."""
    state_dir: str = ""
    """Directory, ours alone, for what outlives the process: the node key. Empty: a restart needs a new join token."""
    cache: bool = False
    """Also keep certificate and policy there, to start from while the control plane is away (row R02)."""
    workload_api: str = ""
    """Path of the unix socket on which workloads are told who they are (SPIFFE Workload API). Empty: off."""
    workload_api_mode: str = "0600"
    """Of that socket: 0600 for our own user, 0660 for our group too."""
    svid_dir: str = ""
    """Directory, ours, where the certificate, its key and the bundle are kept as files. Empty: nowhere."""
    mesh_listen: Address = Address("0.0.0.0", 15008)
    advertise: Address | None = None
    """What other sidecars are told; None: `mesh_listen`'s address as bound."""
    inbound: tuple[Inbound, ...] = ()
    outbound: Outbound = field(default_factory=Outbound)
    admin: Address = Address("127.0.0.1", 15000)
    health: Address | None = Address("0.0.0.0", 15020)
    """/ready, /live and /metrics for whoever watches from outside; None: off."""
    http2_engine: str = "relay"
    access_log: str = "all"
    """all | denied | off; JSON lines on standard error."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    tracing: Tracing = field(default_factory=Tracing)
    jwks: Jwks = field(default_factory=Jwks)
    source: str = "<defaults>"
    """Where it was read from, for messages."""
