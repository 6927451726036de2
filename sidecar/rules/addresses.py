"""Sets of IP addresses, and the address a request comes from.

An address is compared in one spelling: that of `ipaddress`, a v4-mapped one (`::ffff:10.0.0.1`) unwrapped to IPv4
(security.md C29), a scope (`fe80::1%eth0`) left out. Blocks are CIDR (RFC 4632) or single addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

from sidecar.rules.match import Matcher

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

ADDRESS_CHARACTERS_MAX = 64
FORWARDED_ENTRIES_MAX = 64
"""Of x-forwarded-for; who sends more has no known address."""


@lru_cache(maxsize=4_096)  # of pure values; of a few connections and blocks
def canonical_address(text: str) -> str:
    """The one spelling of an address; "" if it is none."""
    ip = _address(text)
    return "" if ip is None else str(ip)


def _address(text: str) -> IpAddress | None:
    if len(text) > ADDRESS_CHARACTERS_MAX:
        return None
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


@lru_cache(maxsize=4_096)
def _number(text: str) -> tuple[int, int] | None:
    """(version, value)."""
    ip = _address(text)
    return None if ip is None else (ip.version, int(ip))


def ipv6_host(text: str) -> str:
    """An IPv6 address as it stands in a host, without brackets: RFC 5952, with section 5's mixed notation for what
    stands for an IPv4 address, on every Python version. Raises ValueError."""
    address = ipaddress.IPv6Address(text)
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped is not None else address.compressed


def compile_blocks(values: Iterable[str]) -> Matcher:
    """One predicate for all blocks, ORed: a look-up for each length of prefix that occurs, whatever their number.

    Raises ValueError for what is no block, host bits included (security.md H11). "" is in no block."""
    by_length: dict[tuple[int, int], set[int]] = {}
    for value in values:
        network = ipaddress.ip_network(value)
        shift = network.max_prefixlen - network.prefixlen
        by_length.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
    tables = tuple((version, shift, frozenset(prefixes)) for (version, shift), prefixes in by_length.items())

    def matches(text: str) -> bool:
        number = _number(text)
        if number is None:
            return False
        version, value = number
        return any(version == v and value >> shift in prefixes for v, shift, prefixes in tables)

    return matches


def remote_address(forwarded_for: Sequence[str], trusted_proxies_count: int) -> str:
    """The client's address as the trusted proxies saw it: each appends to x-forwarded-for whom it was called by.

    `forwarded_for`: the field's values in their order. The count-th entry from the right; "" if there are fewer, or it
    is no address. Entries further left are the client's own words."""
    entries = [entry.strip() for value in forwarded_for for entry in value.split(",")]
    if not 0 < trusted_proxies_count <= len(entries) <= FORWARDED_ENTRIES_MAX:
        return ""
    entry = entries[-trusted_proxies_count]
    if entry.startswith("[") and "]" in entry:  # [v6] or [v6]:port
        entry = entry[1 : entry.index("]")]
    elif entry.count(":") == 1:  # v4:port
        entry = entry.partition(":")[0]
    return canonical_address(entry)
