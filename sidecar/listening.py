"""Who listens on a port, as the kernel tells it: an app that can be reached past its sidecar is no longer protected.

The sidecar can insist that it is *told* a loopback address, but the app may still bind 0.0.0.0 and be reached on that
same port from outside. /proc/net/tcp and tcp6 (proc(5)) show every listener of the network namespace.
"""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections.abc import Iterable

from sidecar.config import Config

log = logging.getLogger(__name__)

_LISTEN = "0A"
_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")


def exposed_listeners(port: int, proc_net_text: str) -> list[str]:
    """Addresses other than loopback on which somebody listens at `port`, from the text of the kernel's tables.

    Lines that are not a socket are passed over, so that both tables may come in one text with their headings.
    """
    exposed: list[str] = []
    for line in proc_net_text.splitlines():
        columns = line.split()
        if len(columns) < 4 or columns[3] != _LISTEN:
            continue
        host_hex, _, port_hex = columns[1].partition(":")
        if int(port_hex, 16) != port:
            continue
        ip = _address(host_hex)
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        if not (mapped or ip).is_loopback:
            exposed.append(str(mapped or ip))
    return exposed


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Eight or thirty-two hex digits: 32-bit words, each in the byte order of this machine."""
    words = [text[start : start + 8] for start in range(0, len(text), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return ipaddress.ip_address(packed)


def read_tables(paths: Iterable[str] = _TABLES) -> str:
    """Both tables of this process's network namespace; a table that is not there (no IPv6) is empty."""
    texts: list[str] = []
    for path in paths:
        try:
            with open(path, encoding="ascii") as table:
                texts.append(table.read())
        except OSError:
            continue
    return "\n".join(texts)


def warn_if_exposed(config: Config) -> None:
    """One loud line for each address on which an app of `config` can be reached past its sidecar.

    The sidecar's own plaintext listener may have the app's port on another address: that is no way past it."""
    tables = read_tables()
    own = {(one.plaintext.host, one.plaintext.port) for one in config.inbound if one.plaintext}
    for inbound in config.inbound:
        for address in [] if inbound.app.path else exposed_listeners(inbound.app.port, tables):
            if (address, inbound.app.port) in own:
                continue
            log.warning(
                "the app listens on %s port %d: whoever reaches that port goes past the sidecar and its policy; "
                "let the app listen on 127.0.0.1",
                address,
                inbound.app.port,
            )
