"""A target for attacks: one sidecar's data plane on real sockets, an app behind it, and an attacker with an identity.

The attacker's HTTP/2 is the `h2` package with every check of what it sends switched off, over TLS with an SVID of the
mesh. The app writes down what it gets, octet by octet, and answers what the test tells it to.
"""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset

from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid
from sidecar.config import Address, Config, Inbound, Limits, Timeouts
from sidecar.data_plane import DataPlane
from sidecar.http.session import Fields
from sidecar.identity.source import IdentitySource
from sidecar.net.connection import Driver
from sidecar.net.listener import bind
from sidecar.net.tls import client_context
from sidecar.rules.slices import at_once
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    Endpoint,
    Operation,
    Protocol,
    Rule,
    Service,
    Snapshot,
)
from sidecar.runtime import Runtime
from sidecar.telemetry.access_log import AccessLog, Exchange, RefusedConnection
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.trace import Tracer
from tests.sidecar.mesh import ORDERS, TD, WEB, Mesh

PORT = 8080
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

ALLOW_ALL = AuthorizationPolicy(namespace="shop", name="allow-all", action=Action.ALLOW, rules=(Rule(),))
DENY_ADMIN = AuthorizationPolicy(
    namespace="shop",
    name="deny-admin",
    action=Action.DENY,
    rules=(Rule(operations=(Operation(paths=("/admin", "/admin/*")),)),),
)


def snapshot(
    *policies: AuthorizationPolicy, version: int = 1, endpoints: Iterable[Endpoint] = (), identity: SpiffeId = ORDERS
) -> Snapshot:
    service = Service(name="orders", namespace="shop", known=True, endpoints=tuple(endpoints))
    return Snapshot(
        epoch=1,
        version=version,
        trust_domain=TD,
        identity=identity,
        service=str(identity.service_account),
        namespace="shop",
        labels={},
        default_action=Action.DENY,
        policies=policies,
        services={"orders.shop": service} if endpoints else {},
        trust_anchors_der=(),
        certificate_lifetime_s=3600,
    )


class App:
    """Listens on loopback. `requests`: what came, each connection's octets apart."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.connections: list[bytearray] = []
        self.reads = True
        self._listener = bind(Address("127.0.0.1", 0), "app")
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])

    @property
    def received(self) -> bytes:
        return b"".join(bytes(one) for one in self.connections)

    async def run(self) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        async with listener, trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await listener.accept())

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Answers once per head that has come whole; bodies are not told apart, which the tests know."""
        got = bytearray()
        self.connections.append(got)
        answered = 0
        async with stream:
            while True:
                while not self.reads:
                    await trio.sleep(0.01)
                try:
                    data = await stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    return
                if not data:
                    return
                got += data
                while answered < got.count(b"\r\n\r\n"):
                    answered += 1
                    try:
                        await stream.send_all(self.answer)
                    except trio.BrokenResourceError:
                        return


class Target:
    """One sidecar's data plane with its parts in reach."""

    def __init__(self, nursery: trio.Nursery, mesh: Mesh, config: Config, svid: X509Svid) -> None:
        self.mesh = mesh
        self.config = config
        self.records: list[tuple[object, object]] = []
        self.driver = Driver(nursery, config.limits)
        self.identity = IdentitySource()
        self.identity.set(svid=svid, bundle=mesh.bundle)
        self.metrics = metrics = Metrics(version="0")
        self.log = _Log()
        self.runtime = Runtime(
            config,
            self.driver,
            random.Random(1),
            Tracer.from_config(config, {}),
            lambda exchange, call: self.records.append((exchange, call)),
        )
        self.plane = DataPlane(config, self.driver, self.identity, self.runtime, metrics, self.log, lambda name: True)
        self.listener = bind(Address("127.0.0.1", 0), "mesh")
        self.address = self.listener.getsockname()
        self.outbound = bind(Address("127.0.0.1", 0), "outbound")
        self.outbound_address = self.outbound.getsockname()


class _Log(AccessLog):
    """Keeps the entries."""

    def __init__(self) -> None:
        super().__init__("all", _write_nothing, on_drop=lambda lines: None)
        self.entries: list[Exchange | RefusedConnection] = []

    def record(self, entry: Exchange | RefusedConnection) -> None:
        self.entries.append(entry)


async def _write_nothing(chunk: bytes) -> None: ...


@asynccontextmanager
async def target(
    *policies: AuthorizationPolicy,
    app: App,
    protocol: Protocol = Protocol.HTTP1,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    mesh: Mesh | None = None,
    engine: str = Config(service="-").http2_engine,
) -> AsyncIterator[Target]:
    """`orders` with `app` behind it, its mesh port and its outbound port open, and the policies in force."""
    config = Config(
        service="orders",
        namespace="shop",
        inbound=(Inbound(port=PORT, app=app.address, protocol=protocol),),
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
        http2_engine=engine,
    )
    mesh = mesh or Mesh()
    async with trio.open_nursery() as nursery:
        it = Target(nursery, mesh, config, mesh.svid(ORDERS))
        at_once(it.plane.applying(snapshot(*policies)))
        nursery.start_soon(it.plane.serve_mesh, it.listener)
        nursery.start_soon(it.plane.serve_apps, it.outbound, None)
        nursery.start_soon(it.plane.sweep)
        nursery.start_soon(app.run)
        yield it
        nursery.cancel_scope.cancel()


class Attacker:
    """One TLS connection to a mesh port, speaking whatever it is told to."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.events: list[Event] = []
        self._sending = trio.Lock()

    async def start(self) -> None:
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self, more: bytes = b"") -> None:
        """Send what is queued, then `more` as it is."""
        async with self._sending:
            await self.stream.send_all(self.h2.data_to_send() + more)

    async def receive(self) -> list[Event]:
        """One read's worth of events; [] at the end of the connection."""
        events: list[Event] = []
        while not events:
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return []
            if not data:
                return []
            events = self.h2.receive_data(data)
        self.events += events
        for event in events:
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        await self.flush()
        return events

    async def until(self, wanted: Callable[[Event], bool]) -> Event | None:
        """The first event that is wanted, of those still to come; None when the connection ends before."""
        while events := await self.receive():
            for event in events:
                if wanted(event):
                    return event
        return None

    def open(self, fields: Fields, *, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end)
        return stream

    async def ask(self, fields: Fields, body: bytes | None = None, trailers: Fields | None = None) -> Answer:
        """One exchange, to its end."""
        stream = self.open(fields, end=body is None and trailers is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=trailers is None)
        if trailers is not None:
            self.h2.send_headers(stream, trailers, end_stream=True)
        await self.flush()
        return await self.answer(stream)

    async def answer(self, stream: int) -> Answer:
        answer = Answer()
        while not answer.over:
            events = await self.receive()
            if not events:
                answer.end = "closed"
            for event in events:
                if isinstance(event, ConnectionTerminated):
                    answer.end = answer.end or f"goaway {int(event.error_code or 0)}"
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, ResponseReceived):
                    answer.head = [(bytes(name), bytes(value)) for name, value in event.headers]
                elif isinstance(event, DataReceived):
                    answer.body += event.data
                elif isinstance(event, StreamEnded):
                    answer.end = "ended"
                elif isinstance(event, StreamReset):
                    answer.end = answer.end or f"reset {int(event.error_code)}"
        return answer


class Answer:
    def __init__(self) -> None:
        self.head: Fields = []
        self.body = b""
        self.end = ""

    @property
    def over(self) -> bool:
        return bool(self.end)

    @property
    def status(self) -> int:
        return next((int(value) for name, value in self.head if name == b":status"), 0)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body[:40]!r} {self.end}>"


@asynccontextmanager
async def attacker(
    it: Target,
    identity: SpiffeId = WEB,
    *,
    svid: X509Svid | None = None,
    context: ssl.SSLContext | None = None,
    asks_for: str | None = None,
) -> AsyncIterator[Attacker]:
    """A peer with a valid certificate, its HTTP/2 begun. `asks_for`: the name it sends in its handshake."""
    context = context or client_context(svid or it.mesh.svid(identity), it.mesh.bundle)
    plain = await trio.open_tcp_stream(*it.address)
    stream = trio.SSLStream(plain, context, server_hostname=asks_for, https_compatible=True)
    async with plain:  # closed as it is: an attacker does not take leave
        await stream.do_handshake()
        peer = Attacker(stream)
        await peer.start()
        yield peer


def request(path: bytes = b"/", method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> Fields:
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", path), *fields]


async def settled(condition: Callable[[], object]) -> None:
    """Until `condition` holds: other tasks run in between, no time is measured."""
    while not condition():
        await trio.sleep(0.005)


def plain_connection(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address)
    sock.setblocking(False)
    return sock
