"""Listening sockets: bound all at once before anything runs, and an accept loop that outlives a shortage.

Only running out of descriptors or memory is survived, by name, with a pause (row I04); a peer that is gone before it
was accepted is nothing; every other error is a bug and propagates.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable

import trio

from sidecar.config import Address
from sidecar.errors import ConfigError

log = logging.getLogger(__name__)

ACCEPT_CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
ACCEPT_PAUSE_S = 0.1
BACKLOG = 1_024


def bind(address: Address, what: str) -> socket.socket:
    """A non-blocking listening socket. `what` names the field of the configuration, for the error.

    Raises ConfigError: the port is in use, not ours to take, or not an address of this machine."""
    if address.path:
        return _bind_unix(address.path, what)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise ConfigError(f"{what}: cannot listen on {address}: {_reason(e, address)}") from None
    return sock


def _bind_unix(path: str, what: str) -> socket.socket:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    old = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise ConfigError(f"{what}: cannot listen on unix:{path}: {os.strerror(e.errno or 0)}") from None
    finally:
        os.umask(old)
    return sock


def _reason(error: OSError, address: Address) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use; stop what uses {address.port}, or choose another (0 takes any free one)"
    if error.errno == errno.EACCES:
        return "not allowed; ports below 1024 need CAP_NET_BIND_SERVICE, so choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return os.strerror(error.errno or 0)


def bound_address(sock: socket.socket) -> Address:
    """Where a bound socket listens, with the port it was given."""
    if sock.family == socket.AF_UNIX:
        return Address(path=str(sock.getsockname()))
    host, port = sock.getsockname()[:2]
    return Address(host, port)


class Gate:
    """Counts the connections of one listener; the newest is refused when there are too many (row I03)."""

    def __init__(self, connections_max: int) -> None:
        self.connections_max = connections_max
        self.open = 0
        self.refused = 0


async def serve(listener: socket.socket, gate: Gate, serve_one: Callable[[socket.socket], Awaitable[None]]) -> None:
    """Accept until cancelled; one task per connection. Closes the listener at its end."""
    try:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    sock, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError as e:
                    if e.errno not in ACCEPT_CAPACITY_ERRNOS:
                        raise
                    log.warning("cannot accept for want of resources", extra={"error": errno.errorcode[e.errno]})
                    await trio.sleep(ACCEPT_PAUSE_S)
                    continue
                if gate.open >= gate.connections_max:
                    gate.refused += 1
                    sock.close()
                    continue
                sock.setblocking(False)
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                gate.open += 1
                nursery.start_soon(_guard, sock, gate, serve_one)
    finally:
        trio.lowlevel.notify_closing(listener)
        listener.close()


async def _guard(sock: socket.socket, gate: Gate, serve_one: Callable[[socket.socket], Awaitable[None]]) -> None:
    """The border of one connection: what goes wrong in it ends it, and nothing else."""
    try:
        await serve_one(sock)
    except Exception:
        log.exception("unexpected error on a connection")
    finally:
        gate.open -= 1
        sock.close()
