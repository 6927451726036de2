"""The socket of the Workload API: bound, guarded, its connections, and what is overdue on them.

Whoever may connect is this workload, so the socket's mode says who may: our own user, or our group too. Beyond that
the endpoint is a server like any other of ours: the HTTP/2 engine with its budgets against floods, bounds for
connections, streams, heads and messages, and a time for everything a caller has to do. Its connections are the driver's
like all others, so whoever sweeps those (`sidecar.aging`) ends what is idle or stuck; what is overdue within a call is
ended here.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from sidecar.config import Config
from sidecar.errors import ConfigError
from sidecar.http.engines import http2_session
from sidecar.http.frames import PREFACE
from sidecar.identity.source import IdentitySource
from sidecar.identity.workload_api.api import WorkloadApi
from sidecar.identity.workload_api.calls import Caller, Calls
from sidecar.identity.workload_api.tokens import Issue, Tokens
from sidecar.net.connection import Connection, Driver
from sidecar.net.listener import BACKLOG, Gate, serve
from sidecar.net.preamble import first_octets

log = logging.getLogger(__name__)

KIND = "workload_api"
CONNECTIONS_MAX = 256
STREAMS_MAX = 32
HEADER_LIST_OCTETS_MAX = 8_192
CONNECTION_WINDOW_OCTETS = 262_144
CONNECTION_IDLE_S = 60.0
SWEEP_S = 0.5
ROW = "G29"

_UCRED = struct.Struct("3i")


def bind_endpoint(path: str, mode: str) -> socket.socket:
    """A listening socket at `path` with `mode` ("0600"). One that a process of ours left behind is replaced.

    Raises ConfigError: something else is there, somebody serves there, or the directory is not to be written."""
    what = f"workload_api: cannot listen on {path}"
    _remove_stale(path, what)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    old = os.umask(0o777 & ~int(mode, 8))  # no chmod after it: by then something else could have that name
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = "; make its directory first" if error.errno == errno.ENOENT else ""
        raise ConfigError(f"{what}: {os.strerror(error.errno or 0)}{hint}") from None
    finally:
        os.umask(old)
    return sock


def _remove_stale(path: str, what: str) -> None:
    """Raises ConfigError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{what}: {os.strerror(error.errno or 0)}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{what}: something that is no socket is there; choose another path or remove it")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{what}: the socket there belongs to another user (uid {found.st_uid}); choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        # EAGAIN: somebody listens and is busy.
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise ConfigError(f"{what}: another process serves there; stop it, or choose another path")
    os.unlink(path)


class Endpoint:
    """The Workload API on one listening socket."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        source: IdentitySource,
        issue: Issue,
        clock: Callable[[], float],
        on_refused: Callable[[str, str], object],
    ) -> None:
        """`issue` asks the control plane for a token. `clock`: Unix seconds. `on_refused` counts what was refused: its
        row in the catalogue of bad inputs and a constant reason."""
        self._config = config
        self._driver = driver
        self._source = source
        self._api = api = WorkloadApi(source, Tokens(issue, clock), clock, self._spawn)
        self._on_refused = on_refused
        self._limits = replace(
            config.limits,
            streams_per_connection_max=min(config.limits.streams_per_connection_max, STREAMS_MAX),
            header_list_octets_max=min(config.limits.header_list_octets_max, HEADER_LIST_OCTETS_MAX),
            connection_window_octets=min(config.limits.connection_window_octets, CONNECTION_WINDOW_OCTETS),
        )
        self._gate = Gate(min(config.limits.connections_max, CONNECTIONS_MAX))
        self.calls = Calls(api.find, driver.clock, driver.touched.add, self._without_header)

    def __repr__(self) -> str:
        return f"<Endpoint {self._gate.open} connections, {self.calls!r}>"

    @property
    def refused_connections(self) -> int:
        """For there were too many."""
        return self._gate.refused

    async def run(self, listener: socket.socket) -> None:
        """Until cancelled."""
        unsubscribe = self._source.subscribe(self._changed)
        self._changed()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                await serve(listener, self._gate, self._serve_one)
        finally:
            unsubscribe()

    def jwt_keys_changed(self, jwt_keys: str) -> None:
        """The JSON Web Key Set of a snapshot; "" is none."""
        self._driver.tick()
        self._api.jwt_keys_changed(jwt_keys)
        self._driver.flush()

    def _changed(self) -> None:
        self._driver.tick()
        self._api.changed()
        self._driver.flush()

    def _spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        async def flushed() -> None:
            await task(*args)
            self._driver.flush()

        self._driver.spawn(flushed)

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_S)
            self._driver.tick()
            self._api.sweep()
            self.calls.sweep(self._config.timeouts.headers_s)
            self._driver.flush()

    async def _serve_one(self, sock: socket.socket) -> None:
        caller = peer_of(sock)
        first = b""
        with trio.move_on_after(self._config.timeouts.headers_s):
            first = await first_octets(sock)
        if not first.startswith(PREFACE):
            if first:
                self._on_refused(ROW, "not_http2")
            return
        handler = self.calls.handler(caller)
        session = http2_session(self._config.http2_engine, handler, self._limits, self._driver.clock)
        connection = Connection(self._driver, sock, session, kind=KIND)
        connection.idle_s = CONNECTION_IDLE_S
        await connection.run(first)
        if session.fault is not None:
            self._on_refused(session.fault.row, session.fault.reason)

    def _without_header(self, caller: Caller) -> None:
        self._on_refused(ROW, "no_security_header")
        if "" not in caller.known_for:
            caller.known_for.add("")
            facts = {"pid": caller.pid, "uid": caller.uid, "gid": caller.gid}
            log.warning("refused a call without the security header of the Workload API", extra=facts)


def peer_of(sock: socket.socket) -> Caller:
    """The process at the other end when it connected (SO_PEERCRED, unix(7))."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(pid=pid, uid=uid, gid=gid)
