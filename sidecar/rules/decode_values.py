"""The leaves of the wire form: each check returns its value or raises DecodeError with the field's name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.rules.errors import DecodeError
from sidecar.rules.match import compile_template, is_template, shape_of
from sidecar.rules.routing import DNS_LABEL, PORT_MAX

V = TypeVar("V")
R = TypeVar("R")

VALUE_CHARS_MAX = 2_048


def values(texts: Iterable[str], field: str, check: Callable[[str, str], str]) -> tuple[str, ...]:
    """All of a list, checked by one of the functions below."""
    return tuple([check(one, f"{field}[{i}]") for i, one in enumerate(texts)])


def pattern(value: str, field: str) -> str:
    """One of the four shapes."""
    text(value, field)
    return _shaped(value, field)


def claim_pattern(value: str, field: str) -> str:
    """The same of what an issuer writes, which need not be ASCII."""
    if not (0 < len(value) <= VALUE_CHARS_MAX and value.isprintable()):
        raise DecodeError(field, f"{value[:80]!a} is empty, too long or not printable")
    return _shaped(value, field)


def _shaped(value: str, field: str) -> str:
    try:
        shape_of(value)
    except ValueError as error:
        raise DecodeError(field, str(error)) from None
    return value


def path_pattern(value: str, field: str) -> str:
    """One of the four shapes, or a template."""
    if not is_template(value):
        return pattern(value, field)
    text(value, field)
    try:
        compile_template(value)
    except ValueError as error:
        raise DecodeError(field, str(error)) from None
    return value


def block(value: str, field: str) -> str:
    """A CIDR block or an address, canonical (security.md H11)."""
    text(value, field)
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise DecodeError(field, f"{value[:80]!a}: {error}") from None
    if value not in (str(network), str(network.network_address)) or (
        isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None
    ):
        raise DecodeError(field, f"{value[:80]!a} is not in canonical spelling")
    return value


def port_value(value: str, field: str) -> str:
    # Compared as strings, so only the canonical spelling of a port can ever match one.
    if not (value.isascii() and value.isdigit() and value[0] != "0" and int(value[:6]) <= PORT_MAX):
        raise DecodeError(field, f"{value[:20]!a} is not a port")
    return value


def address(value: str, field: str) -> str:
    """ "ip:port" or "[ip6]:port", in canonical spelling."""
    host, _, port = value.rpartition(":")
    try:
        bracketed = host.startswith("[") and host.endswith("]")
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
        canonical = f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"
    except ValueError:
        raise DecodeError(field, f"{value[:80]!a} is not ip:port") from None
    if canonical != value or "%" in value or ip.is_unspecified or ip.is_multicast:
        raise DecodeError(field, f"{value[:80]!a} is not an address that can be reached")
    port_value(port, field)
    return value


def workload_identity(value: str, trust_domain: TrustDomain, field: str) -> SpiffeId:
    identity = parsed(SpiffeId.parse, value, field)
    if identity.trust_domain != trust_domain:
        raise DecodeError(field, f"{identity} is not of the trust domain {trust_domain.name}")
    if not identity.is_workload:
        raise DecodeError(field, f"{identity} is not a workload")
    return identity


def parsed(parse: Callable[[V], R], value: V, field: str) -> R:
    try:
        return parse(value)
    except CertsError as error:
        raise DecodeError(field, str(error)) from None


def known(table: Mapping[int, V], number: int, field: str) -> V:
    """Neither unspecified nor a value that only a newer control plane knows."""
    if number not in table:
        raise DecodeError(field, f"{number} is not a value known to this version")
    return table[number]


def dns_label(value: str, field: str) -> str:
    if not DNS_LABEL.fullmatch(value):
        raise DecodeError(field, f"{value[:80]!a} is not a DNS label")
    return value


def source_place(value: str, field: str) -> str:
    """ "file:line", for people; a file may be called anything that fits one line of a log."""
    if len(value) > VALUE_CHARS_MAX or not value.isprintable():
        raise DecodeError(field, "is too long or not printable")
    return value


def text(value: str, field: str) -> str:
    """Printable ASCII, of bounded length (security.md H12)."""
    if not (0 < len(value) <= VALUE_CHARS_MAX and value.isascii() and value.isprintable()):
        raise DecodeError(field, f"{value[:80]!a} is empty, too long or not printable ASCII")
    return value
