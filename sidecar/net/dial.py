"""Opening a plain connection: one non-blocking socket, waited on with trio.lowlevel."""

from __future__ import annotations

import os
import socket

import trio

from sidecar.config import Address


async def dial(address: Address) -> socket.socket:
    """A connected, non-blocking socket. The caller sets the deadline. Raises OSError when nobody is there.

    A host name is looked up, and its addresses are tried one after the other."""
    if address.path:
        return await _connect(socket.AF_UNIX, address.path)
    found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"no address for {address.host}")
    for family, _type, _proto, _name, sockaddr in found:
        try:
            return await _connect(family, sockaddr)
        except OSError as error:
            failure = error
    raise failure


async def _connect(family: int, sockaddr: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(sockaddr)  # type: ignore[arg-type]  # the shape depends on the family
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                raise OSError(status, os.strerror(status)) from None
    except BaseException:
        sock.close()
        raise
    return sock
