"""What a request costs between two HTTP engines: the straight line, exchange, pool, metrics; no socket, no TLS.

    python -m benchmarks.straight_line [--grpc] [--profile] [--requests N] [--rounds N] [--rules N] [--endpoints N]

Both sides of the real `InboundPeer` and `OutboundApp` are sessions that only note what they are told, so what is
measured is everything between a decoded request head and an answer handed over for encoding. Heads are realistic:
13 fields of which path (200 of them), its query, `traceparent` and `x-request-id` differ, in lists whose repeating
fields are the same objects each time, as an HPACK decoder hands them out; answers have 1 KiB and a
head that comes again. CPU time of this process, the fastest round of several: what disturbs can only add. `rules` are
ALLOW rules for the one caller, of which the last but one matches; as many again are for others. `endpoints` belong to
the one service. `--grpc`: unary calls of 100 octets, with trailers.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import socket
import time
from collections.abc import Callable

import trio

from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.caller import Caller
from sidecar.config import Config
from sidecar.decisions import Decisions
from sidecar.errors import RequestError
from sidecar.http.fields import Remembered
from sidecar.http.session import Field, Fields, ServerHandler, StreamSink
from sidecar.inbound import InboundPeer
from sidecar.net.connection import Connection, Driver
from sidecar.net.pool import Pool
from sidecar.net.tls import PeerCertificate
from sidecar.observe import Observer
from sidecar.outbound import Outbound, OutboundApp
from sidecar.rules.facts import Peer
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
    Source,
)
from sidecar.runtime import Runtime
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.trace import Sampler, Tracer

TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.for_workload(TD, "shop", "web")
ORDERS = SpiffeId.for_workload(TD, "shop", "orders")
PORT = 8080
SLICE = 16
"""Requests between two flushes."""
BODY = b"x" * 1024
MESSAGE = b"x" * 105

SAME: list[Field] = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"orders.shop:8080"),
    (b"user-agent", b"okhttp/4.12.0 (Linux; x86_64) shop-frontend/7.3.1"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b"en-GB,en;q=0.8"),
    (b"x-client-version", b"2026.11.3-rc1"),
    (b"x-tenant", b"tenant-4711"),
    (b"authorization", b"Bearer eyJhbGciOiJFUzI1NiJ9." + b"c2VjcmV0" * 20),
]
ANSWER = Remembered(
    [
        (b":status", b"200"),
        (b"server", b"nghttpd nghttp2/1.52.0"),
        (b"date", b"Sun, 22 Nov 2026 23:59:12 GMT"),
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"1024"),
        (b"cache-control", b"max-age=3600"),
    ]
)


GRPC_ANSWER = Remembered([(b":status", b"200"), (b"content-type", b"application/grpc"), (b"server", b"grpc")])
GRPC_TRAILERS = Remembered([(b"grpc-status", b"0"), (b"grpc-message", b"")])
GRPC_SAME: list[Field] = [
    (b":method", b"POST"),
    *SAME[1:4],
    (b"content-type", b"application/grpc+proto"),
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
    *SAME[7:],
]


def request_heads(count: int, same: list[Field]) -> list[Fields]:
    rng = random.Random(4711)
    paths = [b"/api/v1/orders/%d/items/%d" % (n, n * 7) for n in range(200)]
    heads: list[Fields] = []
    for number in range(count):
        fields = list(same)
        fields.insert(3, (b":path", b"%s?page=%d" % (paths[number % 200], rng.getrandbits(32))))
        fields.append((b"traceparent", b"00-%032x-%016x-00" % (rng.getrandbits(128) or 1, rng.getrandbits(64) or 1)))
        fields.append((b"x-request-id", b"%032x" % rng.getrandbits(128)))
        heads.append(fields)
    return heads


class NotingSession:
    """A session without a protocol: it keeps the sinks it is given and counts what it is told."""

    def __init__(self) -> None:
        self.closed = self.draining = self.awaits_rest = self.awaits_pong = False
        self.wants_read = self.can_open = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.slice_frames = 0
        self.has_more = False
        self.fault: RequestError | None = None
        self.open_streams = 0
        self.opened: list[StreamSink] = []
        self.heads = self.octets = self.ends = 0

    def ping(self) -> None:
        pass

    def receive(self, data: bytes) -> None:
        pass

    def eof(self) -> None:
        pass

    def take(self) -> bytes:
        return b""

    def sent(self, unsent: int) -> None:
        pass

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        self.opened.append(sink)
        return 2 * len(self.opened) - 1

    def informational(self, stream: int, fields: Fields) -> None:
        pass

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        self.heads += 1

    def data(self, stream: int, data: bytes, end: bool) -> None:
        self.octets += len(data)
        self.ends += end

    def trailers(self, stream: int, fields: Fields) -> None:
        self.ends += 1

    def reset(self, stream: int, code: int) -> None:
        pass

    def credit(self, stream: int) -> int:
        return 65_535

    def want_write(self, stream: int) -> None:
        pass

    def consumed(self, stream: int, flow: int) -> None:
        pass

    def drain(self) -> None:
        pass

    def shutdown(self, code: int) -> None:
        pass


class Hop:
    """One sidecar without sockets: requests come in on `down`, and leave on `up`."""

    def __init__(self, driver: Driver, metrics: Metrics, snapshot: Snapshot) -> None:
        self.driver = driver
        self.down, self.up = NotingSession(), NotingSession()
        access_log = AccessLog("denied", _write, on_drop=metrics.access_log_dropped)
        tracer = Tracer(Sampler(ratio=0.01), None, None)
        observer = Observer(metrics, access_log, tracer, Decisions(time.monotonic, random.SystemRandom().getrandbits))
        self.runtime = Runtime(Config(service="orders"), driver, random.SystemRandom(), tracer, observer)
        at_once(self.runtime.applying(snapshot))

    def pool(self, endpoint: Endpoint, service: str = "") -> Pool:
        return Pool(
            endpoint.address, self.driver, self._dial, connections_max=8, streams_per_connection=100, waiting_max=5_000
        )

    async def _dial(self) -> Connection:
        sock, _ = socket.socketpair()
        connection = Connection(self.driver, sock, self.up, kind="app_client")
        self.driver.add(connection)
        return connection


async def _write(chunk: bytes) -> None:
    pass


def snapshot(rules: int, endpoints: int) -> Snapshot:
    def rule(caller: str, number: int) -> Rule:
        path = "/api/v1/orders/*" if number == rules - 2 else f"/service-{number}/*"
        return Rule(
            sources=(Source(principals=(caller,)),), operations=(Operation(methods=("GET", "POST"), paths=(path,)),)
        )

    mine = tuple(rule(WEB.principal, number) for number in range(rules))
    others = tuple(rule(f"mesh.local/ns/shop/sa/other-{number}", number) for number in range(rules))
    return Snapshot(
        epoch=1,
        version=1,
        trust_domain=TD,
        identity=ORDERS,
        service="orders",
        namespace="shop",
        labels={},
        default_action=Action.DENY,
        policies=(
            AuthorizationPolicy(namespace="shop", name="allow", action=Action.ALLOW, rules=mine),
            AuthorizationPolicy(namespace="shop", name="others", action=Action.ALLOW, rules=others),
        ),
        services={
            "orders.shop": Service(
                name="orders",
                namespace="shop",
                known=True,
                endpoints=tuple(
                    Endpoint(
                        address=f"127.0.0.1:{20_000 + number}",
                        identity=ORDERS,
                        instance=f"orders-{number}",
                        ports={PORT: Protocol.HTTP2},
                    )
                    for number in range(endpoints)
                ),
            )
        },
        trust_anchors_der=(),
        certificate_lifetime_s=3600,
    )


def relay(hop: Hop, handler: ServerHandler, heads: list[Fields], is_grpc: bool) -> float:
    """CPU seconds of one pass over `heads`."""
    down, opened, driver = hop.down, hop.up.opened, hop.driver
    done = down.ends
    began = time.process_time()
    for start in range(0, len(heads), SLICE):
        driver.tick()
        opened.clear()
        for stream, fields in enumerate(heads[start : start + SLICE]):
            sink = handler.request(down, 2 * stream + 1, fields, not is_grpc)
            if is_grpc:
                sink.data(MESSAGE, len(MESSAGE), True)
        driver.flush()
        for sink in opened:
            answer(sink, is_grpc)
        driver.flush()
    took = time.process_time() - began
    assert down.ends - done == len(heads), "an answer did not come"
    return took


def answer(sink: StreamSink, is_grpc: bool) -> None:
    if is_grpc:
        sink.head(GRPC_ANSWER, False)
        sink.data(MESSAGE, len(MESSAGE), False)
        sink.trailers(GRPC_TRAILERS)
    else:
        sink.head(ANSWER, False)
        sink.data(BODY, len(BODY), True)


async def warm_up(hop: Hop, handler: ServerHandler, head: Fields) -> None:
    """Until every pool has its connection."""
    for stream in range(2_000):
        handler.request(hop.down, 2 * stream + 1, head, True)
    with trio.fail_after(30):
        while len(hop.up.opened) < 2_000:
            await trio.sleep(0.01)
    for sink in hop.up.opened:
        answer(sink, False)


async def measure(arguments: argparse.Namespace) -> None:

    async with trio.open_nursery() as nursery:
        config = Config(service="orders")
        metrics = Metrics(version="benchmark")
        heads = request_heads(arguments.requests, GRPC_SAME if arguments.grpc else SAME)
        peer = PeerCertificate(identity=WEB, der=b"", not_after=2e9, sha256_hex="ab" * 32, serial=1)
        for direction in ("inbound", "outbound"):
            driver = Driver(nursery, config.limits)
            hop = Hop(driver, metrics, snapshot(arguments.rules, arguments.endpoints))
            handler: ServerHandler
            if direction == "inbound":
                app = hop.runtime.current()[0].services["orders.shop"].endpoints[0]
                handler = InboundPeer(
                    hop.runtime, {PORT: hop.pool(app)}, Caller(hop.runtime, Peer(peer.identity), peer)
                )
            else:
                handler = OutboundApp(Outbound(hop.runtime, hop.pool, lambda name: False, lambda name: None), None)
            await warm_up(hop, handler, heads[0])
            took = sorted(
                relay(hop, handler, heads, arguments.grpc) / len(heads) * 1e6 for _ in range(arguments.rounds)
            )
            print(f"{direction:9} {took[0]:6.2f} us/request (median {took[len(took) // 2]:.2f})")
            if arguments.profile:
                profile = cProfile.Profile()
                profile.runcall(relay, hop, handler, heads, arguments.grpc)
                pstats.Stats(profile).sort_stats("tottime").print_stats(28)

        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rules", type=int, default=50)
    parser.add_argument("--endpoints", type=int, default=1)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--profile", action="store_true")
    trio.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
