"""What a sidecar says about where it can be reached: told to every caller, so it is checked here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from control_plane.errors import InvalidRequest
from control_plane.push.encode import PROTOCOLS
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.snapshot import Protocol

PORTS_MAX = 64
_BY_NUMBER: Mapping[int, Protocol] = {number: kind for kind, number in PROTOCOLS.items()}


def read_address(text: str) -> str:
    """ "ip:port" or "[ip6]:port", in the one spelling sidecars accept. Raises InvalidRequest."""
    host, _, port = text[:128].rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise InvalidRequest(f"advertise.address: {text[:128]!r} is not ip:port") from None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise InvalidRequest(f"advertise.address: {text[:128]!r} has no port from 1 to 65535")
    if ip.is_unspecified or ip.is_multicast or "%" in host:
        raise InvalidRequest(f"advertise.address: {text[:128]!r} cannot be reached by others; set advertise")
    return f"[{ip}]:{int(port)}" if ip.version == 6 else f"{ip}:{int(port)}"


def read_ports(messages: Sequence[pb.InboundPort]) -> Mapping[int, Protocol]:
    """Raises InvalidRequest."""
    if not 1 <= len(messages) <= PORTS_MAX:
        raise InvalidRequest(f"advertise.ports: must be 1 to {PORTS_MAX}")
    ports: dict[int, Protocol] = {}
    for one in messages:
        if not 1 <= one.port <= 65_535 or one.port in ports:
            raise InvalidRequest(f"advertise.ports: {one.port} is no port, or given twice")
        if one.protocol not in _BY_NUMBER:
            raise InvalidRequest(f"advertise.ports: port {one.port} names no protocol known here")
        ports[one.port] = _BY_NUMBER[one.protocol]
    return ports
