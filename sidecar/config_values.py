"""Strict reading of YAML: every value knows where it stands, and says so when it is not what it should be.

PyYAML's composer gives nodes with line and column; objects are never constructed from them. Refused before anything is
looked at: aliases and anchors (they can make ten lines into a billion), explicit tags, more than one document, nesting
deeper than anything here needs. PyYAML itself would take the last of two equal keys without a word: `fields` does not.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import yaml

from sidecar.config import Address
from sidecar.errors import ConfigError

DOCUMENT_OCTETS_MAX = 1_048_576
DEPTH_MAX = 16

_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "str": "text",
    "int": "a number",
    "float": "a number",
    "bool": "yes or no (YAML reads on, off, yes and no as such; use quotes for text)",
    "null": "nothing",
    "timestamp": "a date (use quotes for text)",
    "map": "a mapping",
    "seq": "a list",
}
_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ABSENT = frozenset({"", "~", "null", "Null", "NULL", "off", "Off", "OFF"})


class Value:
    """One YAML node with its place: file, line, column and field."""

    __slots__ = ("_node", "_source", "field")

    def __init__(self, node: yaml.Node, source: str, field: str = "") -> None:
        self._node = node
        self._source = source
        self.field = field
        """Its name from the root: `outbound.ports[0].listen`; "" is the root."""

    def __repr__(self) -> str:
        return f"<Value {self.field} at {self.place}>"

    @property
    def place(self) -> str:
        """`file:line:column`, or only the source of a value that no file holds."""
        mark = self._node.start_mark
        if mark is None:
            return self._source
        return f"{self._source}:{mark.line + 1}:{mark.column + 1}"

    def refuse(self, message: str, hint: str = "") -> NoReturn:
        """Raise ConfigError: `file:line:column: field: message; hint`."""
        where = f"{self.place}: {self.field}: " if self.field else f"{self.place}: "
        raise ConfigError(f"{where}{message}" + (f"; {hint}" if hint else ""))

    def _kind(self) -> str:
        return _KINDS.get(self._node.tag.removeprefix(_TAG), "something else")

    def text(self) -> str:
        """Text, and not something YAML takes for a number, a date or a truth value."""
        if not isinstance(self._node, yaml.ScalarNode):
            self.refuse(f"must be text, but is {self._kind()}")
        if self._node.tag != f"{_TAG}str":
            self.refuse(f"must be text, but is {self._kind()}", "put it in quotes")
        return str(self._node.value)

    def is_off(self) -> bool:
        """An explicit nothing: `off`, `null` or no value at all."""
        return isinstance(self._node, yaml.ScalarNode) and self._node.value in _ABSENT

    def choice(self, known: Mapping[str, str]) -> str:
        """One of the keys of `known`; a non-empty value there says why that key cannot be had yet.

        The text as written counts, so that a bare `off`, which YAML 1.1 takes for a truth value, is a word here.
        """
        options = " | ".join(word for word, why_not in known.items() if not why_not)
        if not isinstance(self._node, yaml.ScalarNode):
            self.refuse(f"must be one of {options}, but is {self._kind()}")
        word = str(self._node.value)
        if word not in known:
            self.refuse(f"{_shown(word)} is not one of {options}", _close(word, known))
        if known[word]:
            self.refuse(known[word], f"write one of {options}")
        return word

    def whole_number(self, minimum: int, maximum: int) -> int:
        """Decimal digits only: YAML's octal, hexadecimal and base 60 are not what anybody meant."""
        number = self._matched(_WHOLE_NUMBER, "a whole number")
        return int(self._bounded(int(number), minimum, maximum))

    def number(self, minimum: float, maximum: float) -> float:
        return float(self._bounded(float(self._matched(_NUMBER, "a number")), minimum, maximum))

    def _matched(self, pattern: re.Pattern[str], kind: str) -> str:
        if not isinstance(self._node, yaml.ScalarNode) or self._node.tag not in (f"{_TAG}int", f"{_TAG}float"):
            self.refuse(f"must be {kind}, but is {self._kind()}")
        if pattern.fullmatch(self._node.value) is None:
            self.refuse(f"{_shown(self._node.value)} is not {kind} in decimal digits")
        return str(self._node.value)

    def _bounded(self, number: float, minimum: float, maximum: float) -> float:
        if not minimum <= number <= maximum:
            self.refuse(f"{number} is out of range", f"from {minimum} to {maximum}")
        return number

    def items(self, count_max: int) -> list[Value]:
        """The values of a list."""
        if not isinstance(self._node, yaml.SequenceNode):
            self.refuse(f"must be a list, but is {self._kind()}", "write [ ... ] or lines that begin with '- '")
        if len(self._node.value) > count_max:
            self.refuse(f"has {len(self._node.value)} items", f"at most {count_max}")
        return [Value(node, self._source, f"{self.field}[{index}]") for index, node in enumerate(self._node.value)]

    def fields(self, known: Sequence[str], *, required: Sequence[str] = ()) -> dict[str, Value]:
        """The fields of a mapping: each known, none twice, those in `required` there."""
        if not isinstance(self._node, yaml.MappingNode):
            self.refuse(f"must be a mapping, but is {self._kind()}")
        found: dict[str, Value] = {}
        for key_node, value_node in self._node.value:
            key = Value(key_node, self._source, self.field)
            name = self._key(key_node, key)
            if name not in known:
                key.refuse(f"unknown field {_shown(name)}", _meant(name, known))
            if name in found:
                key.refuse(f"field {name!r} is given twice", f"first at {found[name].place}")
            found[name] = Value(value_node, self._source, f"{self.field}.{name}".removeprefix("."))
        for name in required:
            if name not in found:
                self.refuse(f"field {name!r} is missing")
        return found

    def _key(self, node: yaml.Node, key: Value) -> str:
        if not isinstance(node, yaml.ScalarNode):
            key.refuse("a field's name must be text")
        return str(node.value)

    def label(self) -> str:
        """An RFC 1123 label: what Kubernetes and DNS take for a name."""
        text = self.text()
        if _LABEL.fullmatch(text) is None:
            hint = "1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'"
            self.refuse(f"{_shown(text)} is not a name", hint)
        return text

    def service_name(self) -> str:
        """ "name", "name.namespace" or "name.namespace.svc.cluster.local"."""
        text = self.text()
        labels = text.removesuffix(".svc.cluster.local").split(".")
        is_long = text.endswith(".svc.cluster.local")
        if len(labels) > 2 or (is_long and len(labels) != 2):
            self.refuse(f"{_shown(text)} is not a service", "write NAME or NAME.NAMESPACE")
        if any(_LABEL.fullmatch(label) is None for label in labels):
            self.refuse(f"{_shown(text)} is not a service", "write NAME or NAME.NAMESPACE in lower case")
        return text

    def listener(self) -> Address:
        """Where to listen: IP address and port, 0 for a free one."""
        return self._address(port_min=0)

    def local(self, why: str, *, port_min: int) -> Address:
        """A loopback address or a unix socket; `why` nothing else will do."""
        text = self.text()
        if text.startswith("unix:"):
            return self._unix(text.removeprefix("unix:"))
        address = self._address(port_min=port_min)
        if not ipaddress.ip_address(address.host).is_loopback:
            port = address.port or "PORT"
            self.refuse(f"{address} is not on loopback: {why}", f"write 127.0.0.1:{port}, [::1]:{port} or unix:/path")
        return address

    def loopback(self, why: str) -> Address:
        """A loopback TCP address to listen on; `why` nothing else will do."""
        address = self.listener()
        if not ipaddress.ip_address(address.host).is_loopback:
            self.refuse(f"{address} is not on loopback: {why}", f"write 127.0.0.1:{address.port}")
        return address

    def remote(self, *, allow_name: bool) -> Address:
        """Where to connect: IP address, or a host name if `allow_name`, and port."""
        address = self._address(port_min=1, allow_name=allow_name)
        if address.host in ("0.0.0.0", "::"):
            self.refuse(f"{address} is no address to connect to", "write the address others reach")
        return address

    def _unix(self, path: str) -> Address:
        # sun_path has 108 octets with its end (unix(7)).
        if not path.startswith("/") or len(path.encode()) > 107 or "\0" in path:
            self.refuse(f"unix:{_shown(path)} is not a socket's path", "an absolute path of at most 107 octets")
        return Address(path=path)

    def _address(self, *, port_min: int, allow_name: bool = False) -> Address:
        text = self.text()
        host, separator, port_text = text.rpartition(":")
        if not separator or _WHOLE_NUMBER.fullmatch(port_text) is None:
            self.refuse(f"{_shown(text)} has no port", "write ADDRESS:PORT, with [ ] around an IPv6 address")
        port = int(port_text)
        if not port_min <= port <= 65_535:
            self.refuse(f"{port} is not a port", f"from {port_min} to 65535")
        return Address(self._host(host, allow_name=allow_name), port)

    def _host(self, host: str, *, allow_name: bool) -> str:
        is_bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if is_bracketed else host
        try:
            ip = ipaddress.ip_address(bare)
        except ValueError:
            if allow_name and not is_bracketed and _is_host_name(host):
                return host
            hint = "write 127.0.0.1" if host == "localhost" else "names are not looked up here"
            self.refuse(f"{_shown(host)} is not an IP address", hint)
        if (ip.version == 6) != is_bracketed:
            self.refuse(f"{_shown(host)} is ambiguous", "write [ ] around an IPv6 address, and only around one")
        if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped is not None or ip.scope_id is not None):
            self.refuse(f"{_shown(host)} is not taken", "write an IPv4 address as such, an IPv6 address without scope")
        return str(ip)


def _is_host_name(host: str) -> bool:
    """RFC 1123 section 2.1. A name whose last label is all digits would be an odd way to write an IPv4 address."""
    labels = host.lower().split(".")
    return (
        len(host) <= 253 and all(_LABEL.fullmatch(label) is not None for label in labels) and not labels[-1].isdigit()
    )


def _shown(text: str) -> str:
    """`text` for a message: quoted, ASCII, and not for ever."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def _plain(text: str) -> str:
    """A message of PyYAML's, which may quote any character of the file, in printable ASCII."""
    return ascii(text)[1:-1]


def _meant(word: str, known: Sequence[str] | Mapping[str, str]) -> str:
    return _close(word, known) or f"known: {', '.join(known)}"


def _close(word: str, known: Sequence[str] | Mapping[str, str]) -> str:
    close = difflib.get_close_matches(word[:60], list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes and refuses what YAML can do and a configuration does not need. Constructs nothing."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self._source = source
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it bare
        where = Value(yaml.ScalarNode(f"{_TAG}str", "", event.start_mark), self._source)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            where.refuse("anchors and aliases are not taken", "write the value out")
        if getattr(event, "tag", None) is not None:
            where.refuse("tags are not taken", "leave out what begins with '!'")
        if self._depth >= DEPTH_MAX:
            where.refuse("is nested too deeply", f"at most {DEPTH_MAX} levels")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def compose(text: str, source: str) -> Value:
    """The one document in `text`, as nodes. Raises ConfigError."""
    if len(text.encode("utf-8", "surrogatepass")) > DOCUMENT_OCTETS_MAX:
        raise ConfigError(f"{source}: is larger than {DOCUMENT_OCTETS_MAX} octets")
    try:
        loader = _StrictLoader(text, source)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark is not None else source
        raise ConfigError(f"{place}: is not YAML: {_plain(error.problem or error.context or '')}") from None
    except yaml.YAMLError as error:
        # A character YAML does not allow; its own text shows the character and its position.
        raise ConfigError(f"{source}: is not YAML: {_plain(str(error))}") from None
    if node is None:
        raise ConfigError(f"{source}: is empty; at least `service: NAME` is needed")
    return Value(node, source)


def from_object(value: object, source: str, field: str = "") -> Value:
    """A `Value` of plain Python data (mapping, list, str, int, float, bool, None), which has no line to name."""
    return Value(_node_of(value, source), source, field)


def _node_of(value: object, source: str) -> yaml.Node:
    match value:
        case None:
            return yaml.ScalarNode(f"{_TAG}null", "null")
        case bool():
            return yaml.ScalarNode(f"{_TAG}bool", "true" if value else "false")
        case int():
            return yaml.ScalarNode(f"{_TAG}int", str(value))
        case float():
            return yaml.ScalarNode(f"{_TAG}float", f"{value:.9f}")
        case str():
            return yaml.ScalarNode(f"{_TAG}str", value)
        case Mapping():
            pairs = [(_node_of(key, source), _node_of(item, source)) for key, item in value.items()]
            return yaml.MappingNode(f"{_TAG}map", pairs)
        case Sequence():
            return yaml.SequenceNode(f"{_TAG}seq", [_node_of(item, source) for item in value])
        case _:
            raise ConfigError(f"{source}: holds a {type(value).__name__}, which is not configuration")
