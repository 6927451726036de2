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

from sidecar.aging import Aging
from sidecar.caller import Caller
from sidecar.config import Address, Config, Inbound, OutboundPort
from sidecar.errors import NotFound, RequestError, TrustLost
from sidecar.http import tunnel
from sidecar.http.engines import http2_session
from sidecar.http.frames import PREFACE
from sidecar.http.http1 import Http1Server
from sidecar.http.session import Session
from sidecar.identity.source import IdentitySource
from sidecar.inbound import Edge, InboundPeer
from sidecar.net import ends
from sidecar.net.connection import Connection, Driver
from sidecar.net.errors import NotAWorkload, OtherService, TlsError
from sidecar.net.listener import Gate, serve
from sidecar.net.pool import Pool
from sidecar.net.preamble import PROXY_V1, PROXY_V2, first_octets, is_proxy_protocol, send_short, some_octets
from sidecar.net.tls import check_peer, handshake, server_name
from sidecar.net.upstream import dial_app, dial_mesh
from sidecar.outbound import Outbound, OutboundApp
from sidecar.plaintext import KIND as PLAINTEXT
from sidecar.plaintext import ROW_OF_REFUSAL, PlaintextEdge
from sidecar.rules.errors import RoutingError
from sidecar.rules.facts import Peer
from sidecar.rules.routing import is_named, resolve
from sidecar.rules.snapshot import Endpoint, Protocol, Snapshot
from sidecar.runtime import INBOUND, OUTBOUND, Runtime
from sidecar.telemetry.access_log import AccessLog, RefusedConnection
from sidecar.telemetry.metrics import Metrics
from sidecar.trust import ROW as TRUST_ROW
from sidecar.trust import TrustKeeper

Subscribe = Callable[[str], bool]

MESH_CONNECTIONS_PER_ENDPOINT_MAX = 8
APP_HTTP2_CONNECTIONS_MAX = 8


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
        self._aging = Aging(driver, config.timeouts)
        self._trust = TrustKeeper(identity, runtime, self._ended_for_trust)
        self._shown = identity.svid
        identity.subscribe(self._identity_changed)

    def _identity_changed(self) -> None:
        if self._identity.svid is not self._shown:
            self._shown = self._identity.svid
            self._outbound.retire_connections()
        self._trust.changed()

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
            await trio.sleep(self._aging.next_look_s(self._driver.tick()))
            now = self._driver.tick()
            self._runtime.sweep(now)
            self._outbound.sweep(now)
            self._plaintext.enforce()
            for pool in self._apps.values():
                pool.freed()
            for connection in self._driver.connections:
                self._aging.look_at(connection, now)
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
        remote, (source, destination) = ends.remote(sock), ends.addresses(sock)  # the handshake takes the socket over
        own, bundle, context = self._identity.svid, self._identity.bundle, self._identity.server_context()
        assert own is not None
        try:
            with trio.fail_after(self._config.timeouts.handshake_s):
                tls_sock = await handshake(sock, context, server_side=True)
        except trio.TooSlowError:
            self._refused("handshake_timeout", "F21", remote)
            return
        except TlsError as e:
            self._refused(e.reason, e.row, remote)
            return
        # From here on nothing is waited for until the connection is among those that are looked at again.
        try:
            revocations = self._identity.revocations
            peer = check_peer(tls_sock, own.spiffe_id.trust_domain, time.time(), None, revocations)
            if not peer.identity.is_workload:
                raise NotAWorkload(str(peer.identity))
            asked_for = server_name(tls_sock)
            if asked_for and not is_named(self._config.service, self._config.namespace, asked_for):
                raise OtherService(asked_for)
            caller = Caller(self._runtime, Peer(peer.identity, source, destination, asked_for), peer, self._now)
            handler = InboundPeer(self._runtime, self._apps, caller)
            session = http2_session(self._config.http2_engine, handler, self._config.limits, self._driver.clock)
            connection = Connection(self._driver, tls_sock, session, kind="mesh_server", peer=peer)
            connection.own, connection.verified_under = own, bundle
            if error := self._trust.refusal(connection):  # trust changed during the handshake
                raise error
        except TlsError as e:
            self._refused(e.reason, e.row, remote, e.asked_for if isinstance(e, OtherService) else "")
            tls_sock.close()
            return
        if self._draining:
            session.drain()
        connection.expires_at = self._driver.tick() + min(peer.not_after, own.not_after) - time.time()
        await connection.run()
        self._ended(session)

    # In plaintext

    async def _serve_plaintext_one(self, sock: socket.socket, inbound: Inbound) -> None:
        """What it speaks is declared, and not what it likes to begin with (row C25)."""
        remote, (source, own) = ends.remote(sock), ends.addresses(sock)
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

    # Who was refused

    def _refused(self, reason: str, row: str, remote: str, sni: str = "", direction: str = INBOUND) -> None:
        self._metrics.refused(row, reason)
        refused = RefusedConnection(
            now=time.time(), direction=direction, remote=remote, reason=reason, row=row, sni=sni.encode() or None
        )
        self._access_log.record(refused)

    def refusal(self, connection: Connection) -> TlsError | None:
        """For `dial_mesh`."""
        return self._trust.refusal(connection)

    def refused(self, error: TlsError, address: str) -> None:
        """For `dial_mesh`."""
        self._refused(error.reason, error.row, address, direction=OUTBOUND)

    def _ended_for_trust(self, connection: Connection, error: TlsError) -> None:
        direction = INBOUND if connection.kind == "mesh_server" else OUTBOUND
        self._refused(TrustLost.reason, TRUST_ROW, connection.remote, direction=direction)

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
        await Connection(self._driver, sock, session, kind="app_server").run(first)
        self._ended(session)

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
            lambda: dial_mesh(self._driver, self._config, self._identity, endpoint, service, self, self._ended),
            connections_max=MESH_CONNECTIONS_PER_ENDPOINT_MAX,
            streams_per_connection=limits.streams_per_connection_max,
            waiting_max=limits.waiting_exchanges_max,
        )
