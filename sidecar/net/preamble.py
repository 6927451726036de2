"""The first octets of a plaintext connection: enough to tell what it begins with, before any session sees them."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from sidecar.http.frames import PREFACE

PROXY_V1, PROXY_V2 = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
"""How the PROXY protocol begins (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 and 2.2)."""


def is_proxy_protocol(first: bytes) -> bool:
    """Somebody in between wants to say where the connection comes from: nobody may (row C27)."""
    return first.startswith((PROXY_V1, PROXY_V2))


async def first_octets(sock: socket.socket, first: bytes = b"", apart: Sequence[bytes] = (PREFACE,)) -> bytes:
    """Enough of a connection's beginning to tell those `apart` from all else; empty if it ends before. By default
    HTTP/2 (RFC 9113 section 3.4) from HTTP/1.1.

    `first`: what was read already."""
    try:
        while not first or any(len(first) < len(one) and one.startswith(first) for one in apart):
            first += await some_octets(sock)
    except EOFError:
        return b""
    return first


async def some_octets(sock: socket.socket) -> bytes:
    """At least one. Raises EOFError when the peer is gone."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(65_536)
        except BlockingIOError:
            continue
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return data


def send_short(sock: socket.socket, data: bytes) -> None:
    """A few octets into an empty socket buffer: the kernel takes them whole, or the peer is gone."""
    try:
        sock.send(data)
    except OSError:
        pass
