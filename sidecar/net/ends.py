"""The two ends of a socket, as policy and the log see them."""

from __future__ import annotations

import socket

from sidecar.config import Address
from sidecar.rules.addresses import canonical_address


def addresses(sock: socket.socket) -> tuple[str, str]:
    """Of the other end and of ours, for policy: in one spelling (row C29). Empty: the peer is gone."""
    try:
        return canonical_address(sock.getpeername()[0]), canonical_address(sock.getsockname()[0])
    except OSError:
        return "", ""


def remote(sock: socket.socket) -> str:
    """Address of the other end, for the log."""
    try:
        return str(Address(*sock.getpeername()[:2]))
    except OSError:
        return "unknown"
