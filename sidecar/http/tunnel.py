"""CONNECT to a service of the mesh, as gRPC clients do when HTTP_PROXY is set (RFC 9110 section 9.3.6). Sans-IO.

The tunnel does not leave the mesh: what comes through it is read as HTTP again and relayed request by request, judged
like any other. So a tunnel is no more than a way to name the service, and TLS inside of it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidecar.errors import BadRequest, HeadersTooLarge
from sidecar.http.authority import parse_authority

METHOD = b"CONNECT "
HEAD_OCTETS_MAX = 8_192
ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
_HEAD = re.compile(rb"CONNECT ([!-~]{1,300}) HTTP/1\.[01]\r\n(?:[!#-'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*\r\n")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What was asked for, and the octets that came after the head."""

    host: str
    port: int
    rest: bytes


def read_connect(data: bytes) -> Tunnel | None:
    """The tunnel asked for by `data`, which begins with `METHOD`; None while its head is not complete.

    Raises BadRequest (B06, B24, B33), HeadersTooLarge."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > HEAD_OCTETS_MAX:
            raise HeadersTooLarge("head of a CONNECT is too large", row="B39")
        return None
    match = _HEAD.fullmatch(data, 0, end + 4)
    if match is None:
        raise BadRequest("malformed CONNECT", row="B24")
    authority = parse_authority(match[1])
    if authority.port is None:
        raise BadRequest("CONNECT names no port", row="B06")
    return Tunnel(authority.host, authority.port, data[end + 4 :])
