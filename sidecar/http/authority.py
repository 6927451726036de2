"""Who a request is for: `host[:port]`, read once and strictly, in one spelling (rows B06, C15 to C17)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from sidecar.errors import BadRequest
from sidecar.rules.addresses import ipv6_host

AUTHORITY_OCTETS_MAX = 262
"""A name of 255 octets, a trailing dot, a colon, a port."""

# Labels and dots alternate and share no character, so there is one way to match and nothing to go back to.
_NAME = re.compile(rb"((?:[a-z0-9_-]+\.)*[a-z0-9_-]+)\.?(?::([0-9]{1,5}))?")
_IPV6 = re.compile(rb"\[([0-9a-f:.]{2,45})\](?::([0-9]{1,5}))?")


class Authority(NamedTuple):
    """`uri-host [ ":" port ]` (RFC 3986 section 3.2) in its one spelling."""

    text: bytes
    """As forwarded: lower case, no trailing dot, the port only if it was given."""
    host: str
    """`text` without the port; IPv6 in brackets, compressed."""
    port: int | None


@lru_cache(maxsize=1024)  # of pure values of bounded length; failures are not kept
def parse_authority(raw: bytes) -> Authority:
    """Read an authority: no userinfo, no percent-encoding, no empty port, no zone, nothing outside ASCII.

    Raises BadRequest (B06, C17)."""
    if len(raw) > AUTHORITY_OCTETS_MAX:
        raise BadRequest("authority is too long", row="B06")
    lower = raw.lower()
    if match := _NAME.fullmatch(lower):
        host = match[1].decode("ascii")
    elif match := _IPV6.fullmatch(lower):
        try:
            host = f"[{ipv6_host(match[1].decode('ascii'))}]"
        except ValueError:
            raise BadRequest("authority is not an IPv6 address", row="C17") from None
    else:
        row = "C17" if lower[:1] == b"[" or lower[-1:] == b"." else "B06"
        raise BadRequest("authority is not host[:port]", row=row)
    if match[2] is None:
        return Authority(host.encode("ascii"), host, None)
    port = int(match[2])
    if not 1 <= port <= 65_535:
        raise BadRequest("port is out of range", row="B06")
    return Authority(b"%s:%d" % (host.encode("ascii"), port), host, port)
