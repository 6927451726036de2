"""The control plane's configuration: one frozen tree, made once from one YAML mapping, strictly.

`load(path)` and `parse(text, source)` refuse unknown and duplicate keys, wrong types and impossible values with file,
line and field. A missing key takes its default; no default is unsafe. Units stand last in the names. Certificate
lifetime and default action can later be overridden by a MeshConfig resource, the trust domain cannot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from certs.errors import CertsError
from certs.spiffe_id import TrustDomain
from control_plane.config_ca import CaConfig
from control_plane.errors import ConfigError

CERTIFICATE_LIFETIME_S_MIN = 2
CERTIFICATE_LIFETIME_S_MAX = 86_400
_CONFIG_OCTETS_MAX = 262_144
_SOCKET_PATH_OCTETS_MAX = 107
"""sun_path of unix(7), less its final zero."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A TCP address to listen on. Port 0: choose a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """From "ip:port" or "[ip6]:port". Raises ValueError with what to write."""
        host, colon, port_text = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if not colon or address is None or bracketed != (address.version == 6):
            raise ValueError(f'{text!r} is not an address; write it as "127.0.0.1:15012" or "[::1]:15012"')
        if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= 65_535):
            raise ValueError(f"{text!r} has no port between 0 and 65535")
        return cls(str(address), int(port_text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one caller, or all of them, can take from the control plane."""

    message_octets_max: int = 4 * 1024 * 1024
    file_octets_max: int = 1024 * 1024
    """Of one file in an apply."""
    resources_max: int = 10_000
    history_versions_max: int = 1_000
    """Changes of resources that can be looked up and rolled back to."""
    impact_timeout_s: float = 2.0
    """How long to look who gains and who loses by a change, before it is made."""
    join_rate_per_s: float = 1.0
    """Joins from one IP address (security.md G12)."""
    join_burst: int = 20
    renew_rate_per_s: float = 500.0
    """Renewals from one IP address (security.md G25)."""
    renew_burst: int = 1_000
    streams_per_instance_max: int = 2
    """Watch streams of one sidecar process: the one it has, and the one it is moving to."""
    streams_per_identity_max: int = 1_000
    subscriptions_max: int = 1_000
    """Services one sidecar may watch."""
    concurrent_streams_max: int = 100
    """HTTP/2 streams of one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneConfig:
    data_dir: Path
    """Mode 0700, ours. Holds the database, the CA and the operator's socket."""
    trust_domain: str = "mesh.local"
    listen: ListenAddress = ListenAddress("127.0.0.1", 15012)
    """Mutual TLS: workloads and remote operators."""
    join_listen: ListenAddress = ListenAddress("127.0.0.1", 15011)
    """TLS that asks for no client certificate; serves Join and nothing else."""
    operator_socket: Path | None = None
    """Unix socket, mode 0600; None: `data_dir`/operator.sock."""
    kek_file: Path | None = None
    """Key that encrypts the CA's key; None: the CA's default place in `data_dir`."""
    certificate_lifetime_s: int = 3_600
    endpoint_lost_s: float = 5.0
    """How long an endpoint stays when its sidecar's stream breaks without Withdraw."""
    restart_grace_s: float = 30.0
    """How long stored endpoints stay after a start until their sidecars must be back."""
    push_debounce_s: float = 0.02
    ca: CaConfig = field(default_factory=CaConfig)
    limits: Limits = field(default_factory=Limits)
    source: str = "<defaults>"
    """Where it was read from, for messages."""

    @property
    def operator_socket_path(self) -> Path:
        return self.operator_socket or self.data_dir / "operator.sock"


def load(path: Path, *, data_dir: Path | None = None) -> ControlPlaneConfig:
    """Reads a file. `data_dir`, when given (the command line), wins over the file's. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_CONFIG_OCTETS_MAX + 1)
        if len(raw) > _CONFIG_OCTETS_MAX:
            raise ConfigError(f"{path}: larger than {_CONFIG_OCTETS_MAX} octets")
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    return parse(text, str(path), data_dir=data_dir)


def parse(text: str, source: str, *, data_dir: Path | None = None) -> ControlPlaneConfig:
    """From YAML text. Raises ConfigError."""
    values = _section(_root(text, source), source, "", _CONFIG_FIELDS)
    if data_dir is not None:
        values["data_dir"] = data_dir
    if "data_dir" not in values:
        raise ConfigError(f"{source}: data_dir: is missing; set it, or pass --data-dir")
    config = ControlPlaneConfig(**values, source=source)  # type: ignore[arg-type]  # _CONFIG_FIELDS gives each its type
    return check(config)


def check(config: ControlPlaneConfig) -> ControlPlaneConfig:
    """What no single field shows. Returns `config`; raises ConfigError."""
    try:
        TrustDomain.parse(config.trust_domain)
    except CertsError as error:
        raise ConfigError(f"{config.source}: trust_domain: {error}") from error
    low, high = CERTIFICATE_LIFETIME_S_MIN, CERTIFICATE_LIFETIME_S_MAX
    if not low <= config.certificate_lifetime_s <= high:
        raise ConfigError(f"{config.source}: certificate_lifetime_s: must be from {low} to {high}")
    if fault := config.ca.fault():
        raise ConfigError(f"{config.source}: ca.{fault}")
    if config.listen.port != 0 and config.listen == config.join_listen:
        raise ConfigError(f"{config.source}: join_listen: must differ from listen; give it a port of its own")
    if len(str(config.operator_socket_path).encode()) > _SOCKET_PATH_OCTETS_MAX:
        raise ConfigError(
            f"{config.source}: operator_socket: the path is longer than {_SOCKET_PATH_OCTETS_MAX} octets,"
            " which unix sockets do not allow; set operator_socket to a shorter one"
        )
    return config


# --- YAML, strictly -------------------------------------------------------------------------------------------------

_Reader = Callable[[yaml.Node, str, str], object]
"""(node, source, field) -> value; raises ConfigError."""


def _where(source: str, node: yaml.Node, name: str) -> str:
    return f"{source}:{node.start_mark.line + 1}: {name}"


def _root(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: is not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: is not valid YAML: {error}") from error


def _section(node: yaml.Node | None, source: str, prefix: str, readers: Mapping[str, _Reader]) -> dict[str, object]:
    """A mapping's values by field. None (an empty file) is an empty mapping."""
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_where(source, node, prefix.rstrip('.') or 'file')}: must be a mapping of field: value")
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        name = f"{prefix}{key}"
        if key not in readers:
            known = ", ".join(sorted(readers))
            raise ConfigError(f"{_where(source, key_node, name)}: unknown field; known here: {known}")
        if key in values:
            raise ConfigError(f"{_where(source, key_node, name)}: given twice; keep one")
        values[key] = readers[key](value_node, source, name)
    return values


def _scalar(node: yaml.Node, source: str, name: str, tag: str, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in tag.split():
        raise ConfigError(f"{_where(source, node, name)}: must be {what}")
    return str(node.value)


def _text(node: yaml.Node, source: str, name: str) -> str:
    text = _scalar(node, source, name, "tag:yaml.org,2002:str", "text")
    if not text:
        raise ConfigError(f"{_where(source, node, name)}: must not be empty")
    return text


def _path(node: yaml.Node, source: str, name: str) -> Path:
    return Path(_text(node, source, name))


def _listen(node: yaml.Node, source: str, name: str) -> ListenAddress:
    try:
        return ListenAddress.parse(_text(node, source, name))
    except ValueError as error:
        raise ConfigError(f"{_where(source, node, name)}: {error}") from error


def _number(node: yaml.Node, source: str, name: str) -> float:
    tags = "tag:yaml.org,2002:int tag:yaml.org,2002:float"
    text = _scalar(node, source, name, tags, "a number above 0")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ConfigError(f"{_where(source, node, name)}: must be a number above 0")
    return value


def _count(node: yaml.Node, source: str, name: str) -> int:
    text = _scalar(node, source, name, "tag:yaml.org,2002:int", "a whole number above 0")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise ConfigError(f"{_where(source, node, name)}: must be a whole number above 0")
    return int(text)


def _limits(node: yaml.Node, source: str, name: str) -> Limits:
    readers: dict[str, _Reader] = {
        one.name: _number if isinstance(one.default, float) else _count for one in fields(Limits)
    }
    return Limits(**_section(node, source, f"{name}.", readers))  # type: ignore[arg-type]  # readers give each its type


def _argv(node: yaml.Node, source: str, name: str) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise ConfigError(f"{_where(source, node, name)}: must be a list: a program and its arguments")
    return tuple(_text(one, source, f"{name}[{index}]") for index, one in enumerate(node.value))


def _ca(node: yaml.Node, source: str, name: str) -> CaConfig:
    readers: dict[str, _Reader] = {
        one.name: _number if isinstance(one.default, float) else _text for one in fields(CaConfig)
    }
    values = _section(node, source, f"{name}.", readers | {"sign_command": _argv})
    return CaConfig(**values)  # type: ignore[arg-type]  # readers give each its type


_CONFIG_FIELDS: Mapping[str, _Reader] = {
    "data_dir": _path,
    "trust_domain": _text,
    "listen": _listen,
    "join_listen": _listen,
    "operator_socket": _path,
    "kek_file": _path,
    "certificate_lifetime_s": _count,
    "endpoint_lost_s": _number,
    "restart_grace_s": _number,
    "push_debounce_s": _number,
    "ca": _ca,
    "limits": _limits,
}
