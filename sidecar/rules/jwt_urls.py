"""Where keys are fetched from: URLs that can be read in one way only, and addresses nobody may be made to ask.

A URL in a policy is a request that every sidecar makes (server-side request forgery, security.md E23): https only, and
what its host resolves to is judged at each dial, not its name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

URL_CHARS_MAX = 2_048
WELL_KNOWN = "/.well-known/openid-configuration"

_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([1-9][0-9]{0,4}))?(/[!-~]*)?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LOCAL_NAMES = frozenset({"localhost"})

_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's metadata, which has an address of the public Internet
            "192.0.0.0/24",  # RFC 6890; Oracle's metadata. Python's own opinion of it differs between versions
            "::/96",  # IPv4-compatible (RFC 4291 section 2.5.5.1)
            "fec0::/10",  # site-local (RFC 3879)
        ),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    is_https: bool
    host: str
    """Lower case; an IPv6 address without brackets."""
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_https else 80) else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """By its name or as an address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host in _LOCAL_NAMES

    def __str__(self) -> str:
        return f"{'https' if self.is_https else 'http'}://{self.authority}{self.target}"


def parse_url(text: str) -> Url:
    """An https URL, or an http one of a loopback host. No user, no fragment.

    Raises ValueError with what is wrong, in words for the author of a policy."""
    matched = _URL.fullmatch(text) if len(text) <= URL_CHARS_MAX else None
    if matched is None or "#" in text or "\\" in text:
        raise ValueError("is not an https URL of at most 2,048 characters, without user and fragment")
    scheme, host, port, target = matched.groups()
    host = host.strip("[]").lower()
    if int(port or 1) > 65_535:
        raise ValueError("has no such port")
    try:
        address: IPAddress | None = ipaddress.ip_address(host)
    except ValueError:
        address = None
    labels = host.removesuffix(".").split(".")
    is_name = len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1][:1].isdigit()
    if address is None and not is_name:
        raise ValueError("has no host name or address")
    url = Url(
        is_https=scheme == "https",
        host=str(address) if address is not None else host,
        port=int(port) if port else 443 if scheme == "https" else 80,
        target=target or "/",
    )
    if not url.is_https and not url.is_loopback:
        raise ValueError("must be https: whoever could change the keys on their way could make tokens")
    return url


def discovery_url(issuer: str) -> Url:
    """OpenID Connect Discovery 1.0 section 4. Raises ValueError as `parse_url`, or for an issuer with a query."""
    if "?" in issuer:
        raise ValueError("has a query, and so no place for its configuration")
    return parse_url(issuer.removesuffix("/") + WELL_KNOWN)


def may_dial(address: str, allowed: Sequence[IPNetwork] = ()) -> bool:
    """Whether a key server may have this address: one of the public Internet, or in a network that was allowed.

    An IPv4 address that hides in an IPv6 one (mapped, NAT64, 6to4, Teredo) is judged as what it is."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _embedded(found)
    return all(any(one in network for network in allowed) or _is_public(one) for one in inner)


def _embedded(address: IPAddress) -> tuple[IPAddress, ...]:
    """What must be public of it: itself, or what is hidden in it."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address.teredo is not None:
        return (address, *address.teredo)
    return (address,)


def _is_public(address: IPAddress) -> bool:
    if any(address in network for network in _NOT_PUBLIC):
        return False
    special = address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local
    return address.is_global and not special and not address.is_reserved
