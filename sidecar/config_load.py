"""From YAML to the `Config` tree, strictly; back to plain data; and what the command line changes on the way.

`load` and `parse` raise ConfigError with `file:line:column: field: message; hint` at the first thing that is not right
and never return half a configuration. What may be written is the table of each section below; `sidecar.config` says
what it means; `sidecar.config_values` reads the single values.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from certs.errors import InvalidSpiffeId
from certs.spiffe_id import TrustDomain
from sidecar.config import Address, Config, Inbound, Jwks, Limits, Outbound, OutboundPort, Timeouts, Tracing
from sidecar.config_values import Value, compose, from_object
from sidecar.describe import describe
from sidecar.errors import ConfigError
from sidecar.rules.snapshot import Protocol

STDIN = "-"
INBOUND_MAX = 64
OUTBOUND_PORTS_MAX = 256
NETWORKS_MAX = 64

FIELDS = (
    "service", "namespace", "trust_domain", "control_plane", "join_token_file", "state_dir", "cache", "workload_api",
    "workload_api_mode", "svid_dir", "mesh_listen", "advertise", "inbound", "outbound", "admin", "health",
    "http2_engine", "access_log", "timeouts", "limits", "tracing", "jwks",
)  # fmt: skip

# Words that may be written; a text beside one says why it cannot be had yet.
PROTOCOLS = {"http1": "", "http2": "", "tcp": "tcp is not yet available in this version"}
ENGINES = {"relay": "", "reference": ""}
YES_OR_NO = {"true": "", "false": ""}
SOCKET_MODES = {
    "0600": "",
    "0660": "",
    "0666": "every user of this machine could speak with this service's identity",
    "0777": "every user of this machine could speak with this service's identity",
}
ACCESS_LOGS = {"all": "", "denied": "", "off": ""}

# Least and most of each number.
TIMEOUTS: Mapping[str, tuple[float, float]] = {
    "connect_s": (0.01, 60), "handshake_s": (0.1, 60), "request_s": (0.1, 86_400), "idle_s": (0.1, 86_400),
    "headers_s": (0.1, 300), "connection_idle_s": (1, 86_400), "keepalive_s": (1, 86_400),
    "keepalive_timeout_s": (0.1, 3_600), "drain_s": (0.1, 3_600), "app_start_s": (0.1, 3_600),
}  # fmt: skip
JWKS: Mapping[str, tuple[float, float]] = {
    "refresh_s": (1, 86_400), "stale_s": (10, 604_800), "fetch_timeout_s": (0.1, 60),
}  # fmt: skip
LIMITS: Mapping[str, tuple[int, int]] = {
    "connections_max": (1, 1_000_000), "streams_per_connection_max": (1, 10_000),
    "header_list_octets_max": (1_024, 1_048_576), "header_fields_max": (8, 10_000),
    "continuation_frames_max": (0, 1_000), "settings_entries_max": (8, 1_000),
    "control_frames_queued_max": (10, 100_000), "glitches_max": (100, 1_000_000),
    "premature_resets_max": (1, 1_000_000), "priority_frames_per_stream_max": (1, 10_000),
    "window_updates_per_data_frame_max": (1, 1_000), "empty_frames_max": (0, 10_000),
    "tiny_data_frames_max": (100, 10_000_000), "informational_max": (0, 1_000),
    "streams_total_max": (1, 1_000_000_000),
    "stream_window_octets": (1_024, 16_777_216), "stream_window_octets_max": (1_024, 16_777_216),
    "connection_window_octets": (65_535, 268_435_456),
    "output_octets_max": (16_384, 67_108_864), "app_connections_max": (1, 100_000),
    "waiting_exchanges_max": (1, 1_000_000), "subscriptions_max": (1, 100_000),
}  # fmt: skip

WHY_APP_LOCAL = "the app could be reached from outside without its sidecar, and so without any policy"
WHY_OUTBOUND_LOCAL = "whoever reaches this port speaks with this service's identity"
WHY_ADMIN_LOCAL = "it shows the configuration to whoever asks"
TOKEN_PREFIX = "hauberk1."  # noqa: S105  # how every join token begins; no secret


def load(path: str) -> Config:
    """Read the file at `path`, or standard input for "-". Raises ConfigError."""
    source = "<stdin>" if path == STDIN else path
    try:
        if path == STDIN:
            text = sys.stdin.buffer.read().decode("utf-8")
        else:
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read()
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}; check the path and its mode") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: is not UTF-8 text at octet {error.start}") from None
    return parse(text, source)


def parse(document: str | Mapping[str, object], source: str) -> Config:
    """The configuration in a YAML text, or in plain data that somebody else has read. Raises ConfigError."""
    root = compose(document, source) if isinstance(document, str) else from_object(document, source)
    config = _config(root, replace(Config(service="-"), source=source), required=("service",))
    _check_whole(config)
    return config


def with_overrides(config: Config | None = None, /, **flags: object) -> Config:
    """`config` with what the command line says instead; without a `config`, the defaults, and `service` is needed.

    `flags` are fields of FIELDS as plain data, plus `port` (and `app`, `protocol`, which go with it: one inbound port
    instead of those configured) and `outbound_listen`. None: not given. Raises ConfigError naming the `--flag`.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    base = config or Config(service="-", source="<command line>")
    if config is None and "service" not in given:
        raise ConfigError("--service is needed, or --config FILE with a `service`")
    document: dict[str, object] = {}
    inbound = {name: given.pop(name) for name in ("port", "app", "protocol") if name in given}
    if inbound:
        if "port" not in inbound:
            raise ConfigError("--app and --protocol need --port")
        inbound.setdefault("app", f"127.0.0.1:{inbound['port']}")
        document["inbound"] = [{"protocol": "http1", **inbound}]
    if "outbound_listen" in given:
        document["outbound"] = {"listen": given.pop("outbound_listen")}
    document.update(given)
    changed = _config(from_object(document, "command line"), base, required=())
    _check_whole(changed)
    return changed


def _config(root: Value, base: Config, *, required: tuple[str, ...]) -> Config:
    """`base` with the fields that `root` holds."""
    found = root.fields(FIELDS, required=required)
    readers: dict[str, Callable[[Value], object]] = {
        "service": Value.label,
        "namespace": Value.label,
        "trust_domain": _trust_domain,
        "control_plane": lambda value: value.remote(allow_name=True),
        "join_token_file": _token_file,
        "state_dir": _path,
        "cache": lambda value: value.choice(YES_OR_NO) == "true",
        "workload_api": _socket,
        "workload_api_mode": lambda value: value.choice(SOCKET_MODES),
        "svid_dir": _path,
        "mesh_listen": Value.listener,
        "advertise": lambda value: None if value.is_off() else value.remote(allow_name=False),
        "inbound": _inbound,
        "outbound": lambda value: _outbound(value, base.outbound),
        "admin": lambda value: value.local(WHY_ADMIN_LOCAL, port_min=0),
        "health": lambda value: None if value.is_off() else value.listener(),
        "http2_engine": lambda value: value.choice(ENGINES),
        "access_log": lambda value: value.choice(ACCESS_LOGS),
        "timeouts": lambda value: _timeouts(value, base.timeouts),
        "limits": lambda value: _limits(value, base.limits),
        "tracing": lambda value: _tracing(value, base.tracing),
        "jwks": lambda value: _jwks(value, base.jwks),
    }
    changes: dict[str, Any] = {name: readers[name](value) for name, value in found.items()}
    return replace(base, **changes)


def _trust_domain(value: Value) -> str:
    text = value.text()
    try:
        return TrustDomain.parse(text).name
    except InvalidSpiffeId as error:
        value.refuse(f"is not a trust domain: {error}", "such as mesh.local")


def _token_file(value: Value) -> str:
    path = value.text()
    if path.startswith(TOKEN_PREFIX):
        # Row G13: a token has no place in a configuration, and none in this message.
        value.refuse("holds the token itself", "put the token into a file of mode 0600 and write its path here")
    return _path(value)


def _path(value: Value) -> str:
    path = value.text()
    if "\0" in path or len(path) > 4_096:
        value.refuse("is not a path")
    return path


def _socket(value: Value) -> str:
    path = "" if value.is_off() else value.text().removeprefix("unix:")
    # sun_path has 108 octets with its end (unix(7)); what apps are told (SPIFFE_ENDPOINT_SOCKET) must be absolute.
    if (path and not path.startswith("/")) or len(path.encode()) > 107 or "\0" in path:
        value.refuse(
            "is not a socket's path", "an absolute path of at most 107 octets, such as /run/hauberk/agent.sock"
        )
    return path


def _inbound(value: Value) -> tuple[Inbound, ...]:
    ports: list[Inbound] = []
    for item in value.items(INBOUND_MAX):
        found = item.fields(("port", "app", "protocol", "plaintext"), required=("port", "app", "protocol"))
        port = found["port"].whole_number(1, 65_535)
        if any(other.port == port for other in ports):
            found["port"].refuse(f"port {port} is given twice", "each port once; to serve it elsewhere choose another")
        app = found["app"].local(WHY_APP_LOCAL, port_min=1)
        protocol = Protocol(found["protocol"].choice(PROTOCOLS))
        ports.append(Inbound(port=port, app=app, protocol=protocol, plaintext=_plaintext(found.get("plaintext"))))
    return tuple(ports)


def _plaintext(value: Value | None) -> Address | None:
    return None if value is None or value.is_off() else value.listener()


def _outbound(value: Value, base: Outbound) -> Outbound:
    found = value.fields(("listen", "ports"))
    listen = base.listen
    if "listen" in found:
        listen = None if found["listen"].is_off() else found["listen"].loopback(WHY_OUTBOUND_LOCAL)
    ports = base.ports
    if "ports" in found:
        ports = tuple(_outbound_port(item) for item in found["ports"].items(OUTBOUND_PORTS_MAX))
    return Outbound(listen=listen, ports=ports)


def _outbound_port(item: Value) -> OutboundPort:
    found = item.fields(("listen", "service", "port"), required=("listen", "service", "port"))
    return OutboundPort(
        listen=found["listen"].loopback(WHY_OUTBOUND_LOCAL),
        service=found["service"].service_name(),
        port=found["port"].whole_number(1, 65_535),
    )


def _timeouts(value: Value, base: Timeouts) -> Timeouts:
    found = value.fields(tuple(TIMEOUTS))
    return replace(base, **{name: item.number(*TIMEOUTS[name]) for name, item in found.items()})


def _limits(value: Value, base: Limits) -> Limits:
    found = value.fields(tuple(LIMITS))
    return replace(base, **{name: item.whole_number(*LIMITS[name]) for name, item in found.items()})


def _tracing(value: Value, base: Tracing) -> Tracing:
    found = value.fields(("sample_ratio", "otlp_endpoint"))
    ratio, endpoint = base.sample_ratio, base.otlp_endpoint
    if "sample_ratio" in found:
        ratio = found["sample_ratio"].number(0.0, 1.0)
    if "otlp_endpoint" in found:
        endpoint = found["otlp_endpoint"].text()
        is_url = endpoint.startswith(("http://", "https://")) and endpoint.isascii() and endpoint.isprintable()
        if endpoint and (not is_url or " " in endpoint or "@" in endpoint or len(endpoint) > 2_048):
            # "@" would be a password, which /config would show.
            found["otlp_endpoint"].refuse("is not a collector's URL", "such as http://127.0.0.1:4318")
    return Tracing(sample_ratio=ratio, otlp_endpoint=endpoint)


def _jwks(value: Value, base: Jwks) -> Jwks:
    found = value.fields(("ca_file", "allow_networks", *JWKS))
    changes: dict[str, Any] = {name: found[name].number(*JWKS[name]) for name in JWKS if name in found}
    if "ca_file" in found:
        changes["ca_file"] = _path(found["ca_file"])
    if "allow_networks" in found:
        changes["allow_networks"] = tuple(_network(item) for item in found["allow_networks"].items(NETWORKS_MAX))
    return replace(base, **changes)


def _network(item: Value) -> str:
    try:
        return str(ipaddress.ip_network(item.text()))
    except ValueError:
        item.refuse("is not a CIDR block", "such as 10.0.0.0/8, with no bits set behind the prefix")


def _check_whole(config: Config) -> None:
    """What no single field can tell: no two may listen on one port, nor may we where the app does."""
    if config.cache and not config.state_dir:
        raise ConfigError(f"{config.source}: cache: has no place to be; set state_dir as well")
    taken: list[tuple[str, Address]] = []
    for field, address in _listeners(config):
        for other_field, other in taken:
            if _collide(address, other):
                raise ConfigError(
                    f"{config.source}: {field}: {address} is {other_field}'s already ({other}); choose another port"
                )
        taken.append((field, address))
    for index, port in enumerate(config.inbound):
        for other_field, other in taken:
            if _collide(port.app, other):
                raise ConfigError(
                    f"{config.source}: inbound[{index}].app: {port.app} is where the sidecar itself listens "
                    f"({other_field}: {other}); let the app listen on another port"
                )


def _listeners(config: Config) -> Iterable[tuple[str, Address]]:
    yield "mesh_listen", config.mesh_listen
    if config.outbound.listen:
        yield "outbound.listen", config.outbound.listen
    for index, port in enumerate(config.outbound.ports):
        yield f"outbound.ports[{index}].listen", port.listen
    for index, inbound in enumerate(config.inbound):
        if inbound.plaintext:
            yield f"inbound[{index}].plaintext", inbound.plaintext
    yield "admin", config.admin
    if config.health:
        yield "health", config.health
    if config.workload_api:
        yield "workload_api", Address(path=config.workload_api)


def _collide(one: Address, other: Address) -> bool:
    """Whether both cannot be bound: the same socket path, or the same port on one address or on a wildcard."""
    if one.path or other.path:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    hosts = {one.host, other.host}
    if len(hosts) == 1 or "::" in hosts:
        return True
    return "0.0.0.0" in hosts and not any(":" in host for host in hosts)


def to_yaml(config: Config) -> str:
    """`describe` as YAML that `parse` reads back."""
    return yaml.safe_dump(describe(config), sort_keys=False)
