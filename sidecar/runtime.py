"""What both directions of one sidecar share: the snapshot in force, the live exchanges, who is told when one ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from random import Random
from typing import TYPE_CHECKING
from weakref import WeakSet

from sidecar.authentication import Authentication
from sidecar.config import Config, Timeouts
from sidecar.errors import Forbidden, NotReady, RequestError, RequestTimeout, Unauthorized, UpstreamTimeout
from sidecar.exchange import Exchange, State
from sidecar.http.headers import RequestHead
from sidecar.http.session import Field, Fields, Session
from sidecar.net.connection import Driver
from sidecar.rules.authz import Authorizer, Denied, Permit, Verdict
from sidecar.rules.snapshot import Snapshot
from sidecar.telemetry.trace import TraceContext, Tracer

if TYPE_CHECKING:
    from protos.hauberk.v1.discovery_pb2 import Decision
    from sidecar.caller import Caller

REJUDGED_SLICE = 32
"""Open exchanges judged again between two yields."""

END_AWAITED_S = 1.0
"""How long an answered request may take to end its stream, once all of its octets are here."""

INBOUND, OUTBOUND = "inbound", "outbound"


class Call:
    """What the sidecar notes of one exchange besides its bytes. Each direction has its own kind, which also finds the
    exchange its connection: one object less for each request."""

    # fmt: off
    __slots__ = (
        "began_at", "denied", "destination", "direction", "endpoint", "exchange", "permit", "port", "source", "trace",
        "version",
    )
    # fmt: on
    exchange: Exchange

    def __init__(self, direction: str, source: str) -> None:
        self.direction = direction
        self.source = source
        """SPIFFE ID of the caller."""
        self.destination = ""
        """SPIFFE ID of who is called; "" while no endpoint is chosen."""
        self.port = 0
        self.permit: Permit | None = None
        self.denied: Denied | None = None
        self.version = 0
        """Of the snapshot the exchange began with."""
        self.endpoint = ""
        self.trace: TraceContext | None = None
        self.began_at = 0.0
        """Unix seconds; 0 unless the trace is sampled."""

    @property
    def source_ip(self) -> str:
        """Of the connection's other end; empty: nothing was judged by it."""
        return ""

    def describe(self, verdict: Verdict, decision_id: str, at: float) -> Decision | None:
        """For the control plane, what was decided with all that policies saw; `at` in Unix seconds. None: nothing was
        judged here."""
        return None

    def rejudge(self) -> Permit | Denied:
        """Judge it again with the policy of now. Asked only of what has a Permit."""
        raise NotImplementedError

    def release(self) -> None:
        """Give back the place in a pool, or in its queue."""


class Runtime:
    """One per process. Holds no sockets and no routes."""

    def __init__(
        self, config: Config, driver: Driver, rng: Random, tracer: Tracer, observe: Callable[[Exchange, Call], None]
    ) -> None:
        self.config = config
        self.driver = driver
        self.rng = rng
        """For what nobody may guess: the ids of decisions."""
        self.chance = Random(rng.getrandbits(128))  # noqa: S311 - nothing secret depends on it
        """For what must only be even: endpoints, ids of traces. Asks the kernel once, not for each request."""
        self.snapshot: Snapshot | None = None
        self.authorizer: Authorizer | None = None
        self.authentication = Authentication(config, driver, self.chance)
        self._tracer = tracer
        self._observe = observe
        self._live: dict[Exchange, Call] = {}
        self.callers: WeakSet[Caller] = WeakSet()
        """Who has asked for something on a connection that is open, and keeps what was in force then."""
        self._limits = config.limits

    @property
    def live_count(self) -> int:
        return len(self._live)

    def live_in(self, direction: str) -> int:
        return sum(call.direction == direction for call in self._live.values())

    def exchanges_on(self, session: Session) -> list[Exchange]:
        return [exchange for exchange in self._live if exchange.is_on(session)]

    def current(self) -> tuple[Snapshot, Authorizer]:
        """The snapshot for one exchange, from its beginning to its end. Raises NotReady before the first."""
        if self.snapshot is None or self.authorizer is None:
            raise NotReady("no policy received yet")
        return self.snapshot, self.authorizer

    def applying(self, snapshot: Snapshot) -> Generator[None, None, None]:
        """Put a snapshot into force, and judge every open exchange again: who lost the right is broken off.

        In slices of about a millisecond. Until its rules are compiled the snapshot before it is in force; from then on
        new requests are judged by the new one, while those that are open have their turn."""
        authorizer = yield from Authorizer.compiling(snapshot)
        self.authentication.under(snapshot)  # what may refuse the snapshot comes before anything has changed
        self.authorizer, self.snapshot = authorizer, snapshot
        for caller in list(self.callers):
            caller.forget()
        for count, (exchange, call) in enumerate(list(self._live.items()), 1):
            if count % REJUDGED_SLICE == 0:
                self.driver.flush()
                yield
            if call.permit is None or exchange.is_over:
                continue
            try:
                verdict = call.rejudge()
            except Unauthorized as e:
                self.turn_away(exchange, e)
                continue
            if isinstance(verdict, Denied):
                self.deny(exchange, call, verdict)
            else:
                call.permit = verdict
        self.driver.flush()

    def deny(self, exchange: Exchange, call: Call, verdict: Denied) -> None:
        call.denied, call.version = verdict, verdict.version
        self._name_decision(exchange)
        exchange.fail(Forbidden(verdict.reason))

    def turn_away(self, exchange: Exchange, error: Unauthorized) -> None:
        """A token that is not taken: the caller hears no more than that, and an id to ask about."""
        self._name_decision(exchange)
        exchange.extra_response.append((b"www-authenticate", b'Bearer error="invalid_token"'))
        exchange.fail(error)

    def _name_decision(self, exchange: Exchange) -> None:
        exchange.decision_id = f"{self.rng.getrandbits(64):016x}"
        exchange.extra_response = [(b"hauberk-decision-id", exchange.decision_id.encode())]

    def begin(self, session: Session, stream: int, end: bool, call: Call) -> Exchange:
        """A request arrived: from here on the exchange is live, and will be recorded when it ends."""
        driver = self.driver
        exchange = call.exchange = Exchange(
            session,
            stream,
            end,
            touched=driver.touched,
            limits=self._limits,
            clock=driver.clock,
            on_end=self._ended,
            of_app=call.direction == INBOUND,
        )
        exchange.context = call
        self._live[exchange] = call
        return exchange

    def refuse(self, exchange: Exchange, fields: Fields, error: RequestError) -> None:
        """Answer a request that will not be relayed, in the way its client understands."""
        if isinstance(error, Unauthorized):
            self.turn_away(exchange, error)
            return
        if exchange.head is None:
            exchange.is_grpc = any(n == b"content-type" and v.startswith(b"application/grpc") for n, v in fields)
        exchange.fail(error)

    def trace(self, call: Call, head: RequestHead) -> Field:
        """Pass the trace on or begin one. Returns the field that goes upstream.

        A `tracestate` belongs to the trace it came with (W3C Trace Context section 3.3.1)."""
        trace = call.trace = self._tracer.begin(head.traceparent, self.chance)
        if trace.sampled:
            call.began_at = time.time()
        if trace.begun:
            head.fields = [field for field in head.fields if field[0] != b"tracestate"]
        return (b"traceparent", trace.header)

    def _ended(self, exchange: Exchange) -> None:
        call = self._live.pop(exchange)
        call.release()
        self._observe(exchange, call)
        exchange.context = exchange.on_unprocessed = None  # they point to each other, and need no garbage collector

    def sweep(self, now: float) -> None:
        """End what is overdue. Called a few times a second; costs nothing per request."""
        timeouts = self.config.timeouts
        for exchange in list(self._live):
            error = overdue(exchange, timeouts, now)
            if exchange.awaits_end and now - exchange.activity > END_AWAITED_S:
                exchange.waive_end()
            elif error is not None:
                exchange.fail(error)
        self.authentication.sweep(now)
        self.driver.flush()


def overdue(exchange: Exchange, timeouts: Timeouts, now: float) -> RequestError | None:
    """Whether an exchange has used up its time (monotonic `now`), and whose fault that is."""
    idle = now - exchange.activity > timeouts.idle_s
    if exchange.state is State.ANSWERING:
        return UpstreamTimeout("no byte in either direction") if idle else None
    if now - exchange.started <= timeouts.request_s and not idle:
        return None
    if exchange.request_ended or exchange.request.held:
        return UpstreamTimeout("no answer in time")
    # A stream that keeps sending (gRPC client streaming) is alive although no answer has begun.
    return RequestTimeout("the request did not go on") if idle else None
