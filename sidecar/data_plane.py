"""The data plane of one sidecar: everything a request touches, wired; it knows nothing of how policy gets here.

`sidecar.app` gives it sockets, an identity and snapshots. The tests do the same by hand.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
from collections.abc import Callable, Generator
from functools import partial

import trio

from sidecar.caller import Caller
from sidecar.config import Address, Config, Inbound, OutboundPort
from sidecar.errors import NotFound, RequestError
from sidecar.http import tunnel
from sidecar.http.engines import http2_session
from sidecar.http.frames import PREFACE
from sidecar.http.http1 import Http1Server
from sidecar.http.session import ErrorCode, Session
from sidecar.identity.source import IdentitySource
from sidecar.inbound import Edge, InboundPeer
from sidecar.net.connection import Connection, Driver
from sidecar.net.errors import NotAWorkload, OtherService, TlsError
from sidecar.net.listener import Gate, serve
from sidecar.net.pool import Pool
from sidecar.net.preamble import PROXY_V1, PROXY_V2, first_octets, is_proxy_protocol, send_short, some_octets
from sidecar.net.tls import PeerCertificate, check_peer, handshake, server_name
from sidecar.net.upstream import dial_app, dial_mesh
from sidecar.outbound import Outbound, OutboundApp
from sidecar.plaintext import KIND as PLAINTEXT
from sidecar.plaintext import ROW_OF_REFUSAL, PlaintextEdge
from sidecar.rules.addresses import canonical_address
from sidecar.rules.errors import RoutingError
from sidecar.rules.facts import Peer
from sidecar.rules.routing import is_named, resolve
from sidecar.rules.snapshot import Endpoint, Protocol, Snapshot
from sidecar.runtime import INBOUND, Runtime
from sidecar.telemetry.access_log import AccessLog, RefusedConnection
from sidecar.telemetry.metrics import Metrics

Subscribe = Callable[[str], bool]

SWEEP_S = 0.25
MESH_CONNECTIONS_PER_ENDPOINT_MAX = 8
APP_HTTP2_CONNECTIONS_MAX = 8
CONNECTION_AGE_MAX_S = 3_600.0
DRAINED_MAX_S = 5.0
"""How long a peer may take to answer the PING of our goodbye."""
CLOSED_MAX_S = 10.0
"""How long a peer may take to read our last words."""


class DataPlane:
    """See the module's docstring."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        identity: IdentitySource,
        runtime: Runtime,
        metrics: Metrics,
        access_log: AccessLog,
        subscribe: Subscribe,
        used: Callable[[str], None] = lambda name: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now`: Unix seconds, for the end dates of a PeerAuthentication."""
        self._config = config
        self._driver = driver
        self._identity = identity
        self._runtime = runtime
        self._metrics = metrics
        self._access_log = access_log
        self._apps = {inbound.port: self._app_pool(inbound.port) for inbound in config.inbound}
        self._outbound = Outbound(runtime, self._mesh_pool, subscribe, used)
        # Accepting must leave descriptors for dialling, or strangers could stop what is established (row I03).
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            descriptors = sys.maxsize
        self._mesh_gate = Gate(min(config.limits.connections_max, descriptors // 2))
        self._app_gate = Gate(min(config.limits.connections_max, descriptors // 4))
        self._plaintext_gate = Gate(min(config.limits.connections_max, descriptors // 8))
        self._plaintext = PlaintextEdge(runtime, config.inbound, now)
        self._now = now
        self._draining = False
        identity.subscribe(self._outbound.retire_connections)

    # What the app wires

    async def serve_mesh(self, listener: socket.socket) -> None:
        """Accept other sidecars. Call it only when there is a certificate (row F26)."""
        await serve(listener, self._mesh_gate, self._serve_mesh_one)

    async def serve_apps(self, listener: socket.socket, fixed: OutboundPort | None) -> None:
        """Accept local apps: HTTP/1.1 or HTTP/2 with prior knowledge, told apart by the first bytes."""

        async def one(sock: socket.socket) -> None:
            await self._serve_app_one(sock, fixed)

        await serve(listener, self._app_gate, one)

    async def serve_plaintext(self, listener: socket.socket, inbound: Inbound) -> None:
        """Accept callers without mTLS to one port, while PeerAuthentication lets them."""

        async def one(sock: socket.socket) -> None:
            await self._serve_plaintext_one(sock, inbound)

        await serve(listener, self._plaintext_gate, one)

    def applying(self, snapshot: Snapshot) -> Generator[None, None, None]:
        """Put it into force, in slices."""
        yield from self._runtime.applying(snapshot)
        self._plaintext.enforce()
        self._outbound.snapshot_changed()

    @property
    def app_failures(self) -> int:
        """Connections to the app that failed since the last that did not."""
        return max((pool.failures for pool in self._apps.values()), default=0)

    def app_is_back(self) -> None:
        for pool in self._apps.values():
            pool.failures = 0

    async def sweep(self) -> None:
        """Forever: end what is overdue. The one timer of the data plane."""
        while True:
            await trio.sleep(SWEEP_S)
            now = self._driver.tick()
            self._runtime.sweep(now)
            self._outbound.sweep(now)
            self._plaintext.enforce()
            for pool in self._apps.values():
                pool.freed()
            for connection in self._driver.connections:
                self._sweep_connection(connection, now)
            self._driver.flush()

    async def drain(self, timeout_s: float) -> bool:
        """Let the requests from the mesh finish, taking no new connections' worth of them. True if all did."""
        self._draining = True
        for connection in self._driver.connections:
            if connection.kind in ("mesh_server", PLAINTEXT):
                connection.session.drain()
                self._driver.touched.add(connection.session)
        self._driver.flush()
        with trio.move_on_after(timeout_s):
            while self._runtime.live_in(INBOUND):
                await trio.sleep(0.02)
            return True
        return False

    # From the mesh

    async def _serve_mesh_one(self, sock: socket.socket) -> None:
        limits = self._config.limits
        remote, source, own = _remote(sock), *_addresses(sock)  # now, for the handshake takes the socket over
        try:
            with trio.fail_after(self._config.timeouts.handshake_s):
                tls_sock = await handshake(sock, self._identity.server_context(), server_side=True)
        except trio.TooSlowError:
            self._refused("handshake_timeout", "F21", remote)
            return
        except TlsError as e:
            self._refused(e.reason, e.row, remote)
            return
        try:
            svid = self._identity.svid
            assert svid is not None
            peer = check_peer(tls_sock, svid.spiffe_id.trust_domain, time.time(), None)
            if not peer.identity.is_workload:
                raise NotAWorkload(str(peer.identity))
            asked_for = server_name(tls_sock)
            if asked_for and not is_named(self._config.service, self._config.namespace, asked_for):
                raise OtherService(asked_for)
        except TlsError as e:
            self._refused(e.reason, e.row, remote, e.asked_for if isinstance(e, OtherService) else "")
            tls_sock.close()
            return
        caller = Caller(self._runtime, Peer(peer.identity, source, own, asked_for), peer, self._now)
        handler = InboundPeer(self._runtime, self._apps, caller)
        session = http2_session(self._config.http2_engine, handler, limits, self._driver.clock)
        if self._draining:
            session.drain()
        await self._run(tls_sock, session, "mesh_server", peer)

    # In plaintext

    async def _serve_plaintext_one(self, sock: socket.socket, inbound: Inbound) -> None:
        """What it speaks is declared, and not what it likes to begin with (row C25)."""
        remote, source, own = _remote(sock), *_addresses(sock)
        edge = Edge(inbound.port, partial(self._plaintext.refusal, inbound.port, source))
        if why := edge.refusal():
            self._refused(why, ROW_OF_REFUSAL, remote)
            return
        is_http2 = inbound.protocol is Protocol.HTTP2
        first = b""
        with trio.move_on_after(self._config.timeouts.headers_s) as waiting:
            first = await first_octets(sock, apart=(PREFACE, PROXY_V1, PROXY_V2))
        if waiting.cancelled_caught:
            self._refused("first_octets_timeout", "C25", remote)
        elif is_proxy_protocol(first):
            self._refused("proxy_protocol", "C27", remote)
        elif first and first.startswith(PREFACE) is not is_http2:
            self._refused("protocol_mismatch", "C25", remote)
        elif why := edge.refusal():  # while we waited
            self._refused(why, ROW_OF_REFUSAL, remote)
        elif first:
            peer = InboundPeer(
                self._runtime, self._apps, Caller(self._runtime, Peer(None, source, own), None, self._now), edge
            )
            session: Session
            if is_http2:
                session = http2_session(self._config.http2_engine, peer, self._config.limits, self._driver.clock)
            else:
                session = Http1Server(peer, limits=self._config.limits)
            if self._draining:
                session.drain()
            connection = Connection(self._driver, sock, session, kind=PLAINTEXT)
            with self._plaintext.watched(connection, peer):
                await connection.run(first)
            self._ended(session)

    def _refused(self, reason: str, row: str, remote: str, sni: str = "") -> None:
        self._metrics.refused(row, reason)
        refused = RefusedConnection(
            now=time.time(), direction=INBOUND, remote=remote, reason=reason, row=row, sni=sni.encode() or None
        )
        self._access_log.record(refused)

    # From local apps

    async def _serve_app_one(self, sock: socket.socket, fixed: OutboundPort | None) -> None:
        first = b""
        with trio.move_on_after(self._config.timeouts.headers_s):
            first = await first_octets(sock)
            if fixed is None and first.startswith(tunnel.METHOD):
                fixed, first = await self._open_tunnel(sock, first)
                if fixed is not None:
                    first = await first_octets(sock, first)
        if not first:
            return
        handler = OutboundApp(self._outbound, fixed)
        session: Session
        if first.startswith(PREFACE):
            session = http2_session(self._config.http2_engine, handler, self._config.limits, self._driver.clock)
        else:
            session = Http1Server(handler, limits=self._config.limits)
        await self._run(sock, session, "app_server", None, first)

    async def _open_tunnel(self, sock: socket.socket, first: bytes) -> tuple[OutboundPort | None, bytes]:
        """Answer a CONNECT: the service it names, and what came after it. None: refused, and answered so."""
        try:
            asked = tunnel.read_connect(first)
            while asked is None:
                first += await some_octets(sock)
                asked = tunnel.read_connect(first)
            resolve(asked.host, asked.port, self._config.namespace)
        except (RequestError, RoutingError) as e:
            error = e if isinstance(e, RequestError) else NotFound(str(e))
            self._metrics.refused(error.row, error.reason)
            head = f"HTTP/1.1 {error.http_status} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            send_short(sock, head.encode())
            return None, b""
        except EOFError:
            return None, b""
        send_short(sock, tunnel.ESTABLISHED)
        return OutboundPort(listen=Address(), service=asked.host, port=asked.port), asked.rest

    async def _run(
        self, sock: socket.socket, session: Session, kind: str, peer: PeerCertificate | None, first: bytes = b""
    ) -> None:
        connection = Connection(self._driver, sock, session, kind=kind, peer=peer)
        if peer is not None:
            connection.expires_at = self._driver.tick() + peer.not_after - time.time()
        await connection.run(first)
        self._ended(session)

    def _ended(self, session: Session) -> None:
        """Of what never became a request (a malformed head, a flood) no exchange tells."""
        if session.fault is not None:
            self._metrics.refused(session.fault.row, session.fault.reason)

    # Pools

    def _app_pool(self, port: int) -> Pool:
        inbound = next(i for i in self._config.inbound if i.port == port)
        limits = self._config.limits
        is_http2 = inbound.protocol is Protocol.HTTP2
        return Pool(
            str(inbound.app),
            self._driver,
            lambda: dial_app(self._driver, self._config, inbound, self._ended),
            connections_max=APP_HTTP2_CONNECTIONS_MAX if is_http2 else limits.app_connections_max,
            streams_per_connection=limits.streams_per_connection_max if is_http2 else 1,
            waiting_max=limits.waiting_exchanges_max,
        )

    def _mesh_pool(self, endpoint: Endpoint, service: str) -> Pool:
        limits = self._config.limits
        return Pool(
            endpoint.address,
            self._driver,
            lambda: dial_mesh(self._driver, self._config, self._identity, endpoint, service, self._ended),
            connections_max=MESH_CONNECTIONS_PER_ENDPOINT_MAX,
            streams_per_connection=limits.streams_per_connection_max,
            waiting_max=limits.waiting_exchanges_max,
        )

    # Time

    def _sweep_connection(self, connection: Connection, now: float) -> None:
        """A connection ends when its certificate does (row F15), takes no new streams from half of that life on, and
        goes when nobody has used it for long. Whoever does not do their part in that is not waited for (A14, I01), nor
        is a sidecar that gives no sign of life."""
        session, timeouts = connection.session, self._config.timeouts
        is_quiet = not session.open_streams
        closed_s = _lasts_s(connection, "closed", session.closed, now)
        is_unused = is_quiet and now - _used_at(connection) > (connection.idle_s or timeouts.connection_idle_s)
        is_old = now - connection.opened > CONNECTION_AGE_MAX_S and not session.draining
        drained_s = _lasts_s(connection, "drained", is_quiet and session.draining, now)
        awaiting_s = _lasts_s(connection, "awaiting", is_quiet and session.awaits_rest, now)
        is_dead = (
            session.awaits_pong and now - connection.activity > timeouts.keepalive_s + timeouts.keepalive_timeout_s
        )
        if is_dead or closed_s > CLOSED_MAX_S or (connection.unsent and now - connection.sent_at > timeouts.idle_s):
            connection.close()
            return
        if connection.expires_at is not None and now >= connection.expires_at:
            session.shutdown(ErrorCode.NO_ERROR)
        elif awaiting_s > timeouts.headers_s:
            session.shutdown(ErrorCode.PROTOCOL_ERROR)
        elif drained_s > DRAINED_MAX_S:
            session.shutdown(ErrorCode.NO_ERROR)
        elif connection.retire_at is not None and now >= connection.retire_at:
            connection.retire_at = None
            session.drain()
        elif is_old or is_unused:
            session.drain()
        elif self._is_due_for_ping(connection, now):
            connection.since["asked"] = now
            session.ping()
        else:
            return
        self._driver.touched.add(session)

    def _is_due_for_ping(self, connection: Connection, now: float) -> bool:
        """Whether nothing came for so long that the other sidecar may be gone, its address with it (RFC 9113 section
        6.7). A connection that waits for use is asked about by its client only: by both, each would take the other's
        question for use."""
        session = connection.session
        is_kept = connection.kind == "mesh_client" or (connection.kind == "mesh_server" and session.open_streams > 0)
        is_silent = now - connection.activity > self._config.timeouts.keepalive_s
        return is_kept and is_silent and not session.awaits_pong and not session.closed


def _used_at(connection: Connection) -> float:
    """Monotonic time of the last sign that somebody uses the connection. The answer to our own PING is none."""
    session, since, activity = connection.session, connection.since, connection.activity
    if not session.awaits_pong and since.pop("asked", None) is not None:
        since["answered"] = activity
    if session.open_streams or not ("asked" in since or since.get("answered") == activity):
        since["used"] = activity
    return since.get("used", connection.opened)


def _lasts_s(connection: Connection, state: str, holds: bool, now: float) -> float:
    """For how long the sweep has seen the connection in this state without a break."""
    if not holds:
        connection.since.pop(state, None)
        return 0.0
    return now - connection.since.setdefault(state, now)


def _addresses(sock: socket.socket) -> tuple[str, str]:
    """Of the other end and of ours, for policy: in one spelling (row C29). Empty: the peer is gone."""
    try:
        return canonical_address(sock.getpeername()[0]), canonical_address(sock.getsockname()[0])
    except OSError:
        return "", ""


def _remote(sock: socket.socket) -> str:
    """Address of the other end, for the log."""
    try:
        return str(Address(*sock.getpeername()[:2]))
    except OSError:
        return "unknown"
