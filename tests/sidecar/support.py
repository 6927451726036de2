"""Data planes of real sidecars in one trio run, over real loopback sockets and real TLS; no control plane.

A `Side` is one sidecar's data plane: the test gives it an identity and snapshots, as `sidecar.app` does. `two_sides`
wires the usual pair: `web` calls, `orders` serves. When a test is over no exchange may be left on either side.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import h11
import trio

from certs.spiffe_id import SpiffeId
from sidecar.config import Address, Config, Inbound, Jwks, Limits, OutboundPort, Timeouts
from sidecar.data_plane import DataPlane
from sidecar.decisions import Decisions
from sidecar.exchange import Exchange
from sidecar.identity.source import IdentitySource
from sidecar.net.connection import Driver
from sidecar.net.listener import bind, bound_address
from sidecar.observe import Observer
from sidecar.rules.slices import at_once
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    Endpoint,
    JwtRule,
    Operation,
    PeerAuthentication,
    Protocol,
    RequestAuthentication,
    Rule,
    Service,
    Snapshot,
    Source,
)
from sidecar.runtime import Call, Runtime
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.trace import Sampler, Tracer
from tests.sidecar.mesh import ORDERS, TD, WEB, Mesh
from tests.sidecar.net.support import settled

ANY = Address("127.0.0.1", 0)
PORT = 8080
ORDERS_NAME = "orders.shop"
ENGINE = Config(service="-").http2_engine


def rule_for(*principals: SpiffeId, paths: Sequence[str] = ()) -> Rule:
    """These callers, on these paths."""
    operations = (Operation(paths=tuple(paths)),) if paths else ()
    return Rule(sources=(Source(principals=tuple(p.principal for p in principals)),), operations=operations)


def allow(*principals: SpiffeId, paths: Sequence[str] = ()) -> AuthorizationPolicy:
    return AuthorizationPolicy(
        namespace="shop", name="allow", action=Action.ALLOW, rules=(rule_for(*principals, paths=paths),)
    )


def deny(*paths: str) -> AuthorizationPolicy:
    rules = (Rule(operations=(Operation(paths=paths),)),)
    return AuthorizationPolicy(namespace="shop", name="deny", action=Action.DENY, rules=rules)


class Side:
    """One sidecar's data plane with its listeners, identity and records."""

    def __init__(
        self,
        nursery: trio.Nursery,
        mesh: Mesh,
        identity: SpiffeId,
        *,
        inbound: Sequence[Inbound] = (),
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        jwks: Jwks | None = None,
        answers_lookups: bool = True,
        now: Callable[[], float] = time.time,
        engine: str = ENGINE,
    ) -> None:
        self.mesh = mesh
        self.spiffe_id = identity
        self.service = identity.service_account or ""
        self.config = Config(
            service=self.service,
            namespace="shop",
            inbound=tuple(inbound),
            limits=limits or Limits(),
            timeouts=timeouts or Timeouts(),
            jwks=jwks or Jwks(),
            http2_engine=engine,
        )
        self.driver = Driver(nursery, self.config.limits)
        self.identity = IdentitySource()
        self.identity.set(svid=mesh.svid(identity), bundle=mesh.bundle)
        self.metrics = Metrics(version="test")
        self.records: list[tuple[Exchange, Call]] = []
        """What ended, and how."""
        self.log = bytearray()
        self.lookups: list[str] = []
        """Names the control plane would have been asked about."""
        self.decisions = Decisions(trio.current_time, random.Random(2).getrandbits)
        self.version = 0
        self._nursery = nursery
        self._answers_lookups = answers_lookups
        tracer = Tracer(Sampler(ratio=0.0), None, None)
        access_log = AccessLog("all", self._write_log, on_drop=self.metrics.access_log_dropped)
        self._observer = Observer(self.metrics, access_log, tracer, self.decisions)
        self.runtime = Runtime(self.config, self.driver, random.Random(1), tracer, self._observe)
        self.plane = DataPlane(
            self.config,
            self.driver,
            self.identity,
            self.runtime,
            self.metrics,
            access_log,
            self._subscribe,
            now=now,
        )
        nursery.start_soon(access_log.run)
        listener = bind(ANY, "mesh_listen")
        self.mesh_address = bound_address(listener)
        nursery.start_soon(self.plane.serve_mesh, listener)
        self.app_address = self.listen_for_apps(None)
        self.plaintext = {one.port: self._listen_in_plaintext(one) for one in self.config.inbound if one.plaintext}
        """Service's port -> where callers without mTLS come in."""

    def __repr__(self) -> str:
        return f"<Side {self.service}, {self.runtime.live_count} live, {len(self.driver.connections)} connections>"

    def listen_for_apps(self, fixed: OutboundPort | None) -> Address:
        """One more port for local apps; `fixed`: it means one service."""
        listener = bind(ANY, "outbound.listen")
        self._nursery.start_soon(self.plane.serve_apps, listener, fixed)
        return bound_address(listener)

    def _listen_in_plaintext(self, inbound: Inbound) -> Address:
        assert inbound.plaintext is not None
        listener = bind(inbound.plaintext, "plaintext")
        self._nursery.start_soon(self.plane.serve_plaintext, listener, inbound)
        return bound_address(listener)

    async def _write_log(self, chunk: bytes) -> None:
        self.log += chunk

    def _observe(self, exchange: Exchange, call: Call) -> None:
        self._observer(exchange, call)
        self.records.append((exchange, call))

    def _subscribe(self, name: str) -> bool:
        self.lookups.append(name)
        return self._answers_lookups

    async def log_lines(self, count: int) -> list[dict[str, object]]:
        """The first `count` lines of the access log, once they are there."""
        await settled(lambda: self.log.count(b"\n") >= count)
        return [json.loads(line) for line in self.log.splitlines()]

    # Snapshots

    def endpoint(self, *, identity: SpiffeId | None = None, address: Address | None = None) -> Endpoint:
        """This side as the control plane would name it to others."""
        return Endpoint(
            address=str(address or self.mesh_address),
            identity=identity or self.spiffe_id,
            instance=f"{self.service}-{(address or self.mesh_address).port}",
            ports={i.port: i.protocol for i in self.config.inbound} or {PORT: Protocol.HTTP1},
        )

    def apply(
        self,
        *,
        policies: Iterable[AuthorizationPolicy] = (),
        services: Mapping[str, Sequence[Endpoint] | None] | None = None,
        default: Action = Action.DENY,
        jwt_rules: Sequence[JwtRule] = (),
        peers: PeerAuthentication = PeerAuthentication(),  # noqa: B008  # frozen
    ) -> None:
        """A new snapshot. `services`: name -> its endpoints, or None for one that nobody ever joined as."""
        authentication = RequestAuthentication(namespace="shop", name="users", jwt_rules=tuple(jwt_rules))
        self.version += 1
        known: dict[str, Service] = {}
        for full_name, endpoints in (services or {}).items():
            name, _, namespace = full_name.partition(".")
            known[full_name] = Service(
                name=name, namespace=namespace, known=endpoints is not None, endpoints=tuple(endpoints or ())
            )
        received = Snapshot(
            epoch=1,
            version=self.version,
            trust_domain=TD,
            identity=self.spiffe_id,
            service=self.service,
            namespace="shop",
            labels={},
            default_action=default,
            policies=tuple(policies),
            services=known,
            trust_anchors_der=self.mesh.bundle.anchors_der,
            certificate_lifetime_s=3600,
            request_authentications=(authentication,) if jwt_rules else (),
            peer_authentication=peers,
        )
        at_once(self.plane.applying(received))

    # What it holds

    @property
    def held(self) -> int:
        """Octets of bodies that wait in the open exchanges."""
        live = self.runtime._live
        return sum(x.request.held + (x.response.held if x.response else 0) for x in live)

    @property
    def pending_max(self) -> int:
        """Octets that wait for the kernel, on the connection where most do."""
        return max((len(c._pending) for c in self.driver.connections), default=0)

    def check_bounds(self) -> None:
        """One slow body: a window (HTTP/1.1: its bound, and a slice more) in the exchange, the output limit below."""
        limits = self.config.limits
        assert self.held <= limits.stream_window_octets_max + 65_536
        assert self.pending_max <= limits.output_octets_max + 65_536


class Pair:
    """`web`, who calls, and `orders`, who serves."""

    def __init__(self, web: Side, orders: Side) -> None:
        self.web = web
        self.orders = orders

    def url(self, path: str = "/", name: str = ORDERS_NAME) -> str:
        return f"http://{name}:{PORT}{path}"

    @property
    def proxy(self) -> str:
        """Where an app finds its sidecar."""
        return f"http://{self.web.app_address}"

    def check_bounds(self) -> None:
        self.web.check_bounds()
        self.orders.check_bounds()


@asynccontextmanager
async def two_sides(
    app: Address,
    *,
    protocol: Protocol = Protocol.HTTP1,
    policies: Sequence[AuthorizationPolicy] = (allow(WEB),),
    apply: bool = True,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    jwks: Jwks | None = None,
    engine: str = ENGINE,
    mesh: Mesh | None = None,
) -> AsyncIterator[Pair]:
    mesh = mesh or Mesh()
    async with trio.open_nursery() as nursery:
        inbound = Inbound(port=PORT, app=app, protocol=protocol)
        orders = Side(
            nursery, mesh, ORDERS, inbound=[inbound], limits=limits, timeouts=timeouts, jwks=jwks, engine=engine
        )
        web = Side(nursery, mesh, WEB, limits=limits, timeouts=timeouts, engine=engine)
        if apply:
            orders.apply(policies=policies)
            web.apply(services={ORDERS_NAME: [orders.endpoint()]})
        pair = Pair(web, orders)
        yield pair
        with trio.fail_after(5):
            await settled(lambda: not web.runtime.live_count and not orders.runtime.live_count)
        nursery.cancel_scope.cancel()


# Apps


class AppRequest:
    """A request as an HTTP/1.1 app sees it, and its ways to answer."""

    def __init__(self, conn: h11.Connection, stream: trio.SocketStream, head: h11.Request) -> None:
        self.method = head.method
        self.target = head.target
        self.fields = [(bytes(n), bytes(v)) for n, v in head.headers]
        self.trailers: list[tuple[bytes, bytes]] = []
        """Once the body was read to its end."""
        self._conn = conn
        self._stream = stream

    def values(self, name: bytes) -> list[bytes]:
        return [v for n, v in self.fields if n == name]

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. As an app does, it lets a client that expects 100 go on."""
        if self._conn.they_are_waiting_for_100_continue:
            await self._stream.send_all(
                self._conn.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""
            )
        while True:
            event = self._conn.next_event()
            if event is h11.NEED_DATA:
                self._conn.receive_data(await self._stream.receive_some(65_536))
            elif isinstance(event, h11.Data):
                return bytes(event.data)
            else:
                if isinstance(event, h11.EndOfMessage):
                    self.trailers = [(bytes(n), bytes(v)) for n, v in event.headers]
                return b""

    async def body(self) -> bytes:
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def head(self, status: int = 200, fields: Sequence[tuple[bytes, bytes]] = ()) -> None:
        await self._send(h11.Response(status_code=status, headers=list(fields), reason=b"Fine"))

    async def data(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def answer(self, body: bytes = b"", status: int = 200, fields: Sequence[tuple[bytes, bytes]] = ()) -> None:
        await self.head(status, [*fields, (b"content-length", b"%d" % len(body))])
        await self.data(body)
        await self.end()

    async def _send(self, event: h11.Event) -> None:
        data = self._conn.send(event)
        if data:
            await self._stream.send_all(data)


class App:
    """An HTTP/1.1 app on trio; `serve_one` answers each request."""

    def __init__(self) -> None:
        self.requests: list[AppRequest] = []
        self.connections = 0
        self.address = ANY

    async def serve_one(self, request: AppRequest) -> None:
        """Echo what was asked, after the whole of it has come."""
        body = await request.body()
        await request.answer(body or request.target)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        conn = h11.Connection(h11.SERVER)
        try:
            while True:
                event = conn.next_event()
                if event is h11.NEED_DATA:
                    conn.receive_data(await stream.receive_some(65_536))
                    continue
                if not isinstance(event, h11.Request):
                    return
                request = AppRequest(conn, stream, event)
                self.requests.append(request)
                await self.serve_one(request)
                if conn.their_state is h11.SEND_BODY:
                    await request.body()
                if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
                    return
                conn.start_next_cycle()
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return  # the sidecar gave the request up

    async def run(self, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = Address(*listener.socket.getsockname()[:2])
        task_status.started(self.address)
        await trio.serve_listeners(self._serve, [listener])


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(app.run)
        nursery.cancel_scope.cancel()


# A client whose every step the test takes


class Caller:
    """An HTTP/1.1 client that reads and writes only when told to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._conn = h11.Connection(h11.CLIENT)

    async def ask(
        self, path: str = "/", *, method: str = "GET", fields: Sequence[tuple[str, str]] = (), name: str = ORDERS_NAME
    ) -> None:
        """The head; a body may follow if the fields say so."""
        headers = [("host", f"{name}:{PORT}"), *fields]
        await self._send(h11.Request(method=method, target=path, headers=headers))
        if method == "GET":
            await self.end()

    async def send(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self._conn.send(event)
        if data:
            await self._stream.send_all(data)

    async def head(self) -> h11.Response:
        event = await self._event()
        assert isinstance(event, h11.Response), event
        return event

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises h11.RemoteProtocolError if it breaks off."""
        event = await self._event()
        if isinstance(event, h11.EndOfMessage):
            return b""
        assert isinstance(event, h11.Data), event
        return bytes(event.data)

    async def rest(self) -> bytes:
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def _event(self) -> h11.Event:
        while True:
            event = self._conn.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await self._stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    data = b""
                self._conn.receive_data(data)
                continue
            assert isinstance(event, h11.Event)
            return event

    def next_request(self) -> None:
        self._conn.start_next_cycle()


@asynccontextmanager
async def calling(address: Address) -> AsyncIterator[Caller]:
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        yield Caller(stream)


def closed_port() -> Address:
    """Where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Address(*sock.getsockname()[:2])


def small(limits: Limits, **changes: int) -> Limits:
    return replace(limits, **changes)
