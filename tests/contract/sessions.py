"""What the contract suite of `sidecar.http.session` needs: engines back to back, strict sinks, a wire that cuts.

No sockets: a `Wire` carries the bytes of two sessions to each other, in pieces of any size, and behaves like
`sidecar.net.connection` otherwise: it stops delivering while `wants_read` is False, and a closed end becomes the
other's `eof`. A `StrictSink` fails the test the moment an engine breaks the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

from sidecar.config import Limits
from sidecar.http.engines import HTTP2_ENGINES, http2_engine
from sidecar.http.http1 import Http1Client, Http1Server
from sidecar.http.session import Fields, ServerHandler, Session, StreamSink

GET: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", b"/a")]
POST: Fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", b"/a")]
OK: Fields = [(b":status", b"200"), (b"content-type", b"text/plain")]
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Engine:
    """One implementation of `Session`, in both roles."""

    name: str
    server: Callable[[ServerHandler, Limits], Session]
    client: Callable[[Limits], Session]
    is_multiplexed: bool

    def __str__(self) -> str:
        return self.name


def _http2(name: str) -> Engine:
    make = http2_engine(name)
    return Engine(name, make, lambda limits: make(None, limits), is_multiplexed=True)


HTTP1 = Engine(
    "http1",
    lambda handler, limits: Http1Server(handler, limits=limits),
    lambda limits: Http1Client(limits=limits),
    is_multiplexed=False,
)
HTTP2 = tuple(map(_http2, HTTP2_ENGINES))
ENGINES = (*HTTP2, HTTP1)


class StrictSink:
    """Records what one stream says and fails if it says what it must not.

    `gives_back`: returns all credit at once; else the test does, with `give_back`."""

    def __init__(self, *, is_client: bool, gives_back: bool = True) -> None:
        self.session: Session | None = None
        self.stream = 0
        self.interim: list[Fields] = []
        self.fields: Fields | None = None
        self.body = bytearray()
        self.trailer_fields: Fields | None = None
        self.ended = False
        """The receiving half ended in order."""
        self.reset_code: int | None = None
        self.unprocessed = False
        self.owed = 0
        """Credit not given back."""
        self.owed_max = 0
        self.writable_count = 0
        self.silenced = False
        """We reset the stream: not a word more."""
        self.on_event: Callable[[str], None] = lambda name: None
        """Called after each event with its name."""
        self._is_client = is_client
        self._gives_back = gives_back

    def __repr__(self) -> str:
        return f"<StrictSink {self.stream} {len(self.body)} octets, ended={self.ended}, reset={self.reset_code}>"

    @property
    def over(self) -> bool:
        return self.ended or self.reset_code is not None

    def attach(self, session: Session, stream: int) -> None:
        self.session, self.stream = session, stream

    def reset_it(self, code: int) -> None:
        """Our own reset."""
        assert self.session is not None
        self.silenced = True
        self.session.reset(self.stream, code)

    def give_back(self, octets: int | None = None) -> None:
        assert self.session is not None
        octets = self.owed if octets is None else min(octets, self.owed)
        self.owed -= octets
        self.session.consumed(self.stream, octets)

    def _check(self, *, needs_head: bool) -> None:
        assert not self.silenced, "spoken to after our own reset"
        assert self.reset_code is None, "spoken to after a reset"
        assert not self.ended, "spoken to after the end"
        if self._is_client:
            assert (self.fields is not None) == needs_head

    def informational(self, fields: Fields) -> None:
        assert self._is_client
        self._check(needs_head=False)
        self.interim.append(fields)
        self.on_event("informational")

    def head(self, fields: Fields, end: bool) -> None:
        assert self._is_client
        self._check(needs_head=False)
        self.fields = fields
        self.ended = end
        self.on_event("head")

    def data(self, data: bytes, flow: int, end: bool) -> None:
        self._check(needs_head=True)
        assert flow >= len(data)
        self.body += data
        self.owed += flow
        self.owed_max = max(self.owed_max, self.owed)
        self.ended = end
        if self._gives_back:
            self.give_back()
        self.on_event("data")

    def trailers(self, fields: Fields) -> None:
        self._check(needs_head=True)
        self.trailer_fields = fields
        self.ended = True
        self.on_event("trailers")

    def reset(self, code: int, unprocessed: bool) -> None:
        """May follow an orderly end while our own half is open: the peer, or the connection, is gone."""
        assert not self.silenced, "reset after our own reset"
        assert self.reset_code is None, "reset twice"
        self.reset_code, self.unprocessed = code, unprocessed
        self.on_event("reset")

    def writable(self) -> None:
        assert not self.silenced
        assert self.reset_code is None
        self.writable_count += 1
        self.on_event("writable")


class Handler:
    """Takes every request; `sinks` in order of arrival. `on_request` runs inside the call, before its return."""

    def __init__(self, *, gives_back: bool = True) -> None:
        self.sinks: list[StrictSink] = []
        self.gives_back = gives_back
        self.on_request: Callable[[Session, StrictSink], None] = lambda session, sink: None

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        assert stream not in [s.stream for s in self.sinks if s.session is session], "two requests on one stream"
        sink = StrictSink(is_client=False, gives_back=self.gives_back)
        sink.attach(session, stream)
        sink.fields, sink.ended = fields, end
        self.sinks.append(sink)
        self.on_request(session, sink)
        return sink


class Sender:
    """Sends one body as fast as credit allows, then the trailers, if any."""

    def __init__(self, sink: StrictSink, body: bytes, trailers: Fields | None = None) -> None:
        self._sink = sink
        self._left = body
        self._trailers = trailers
        self.done = False
        self.wanted = 0
        sink.on_event = self._on_event

    def _on_event(self, name: str) -> None:
        if name == "writable":
            self.go()

    def go(self) -> None:
        session, stream = self._sink.session, self._sink.stream
        assert session is not None
        while self._left:
            credit = session.credit(stream)
            if credit <= 0:
                self.wanted += 1
                session.want_write(stream)
                return
            piece, self._left = self._left[:credit], self._left[credit:]
            session.data(stream, piece, not self._left and self._trailers is None)
        if self.done:
            return
        self.done = True
        if self._trailers is not None:
            session.trailers(stream, self._trailers)


class Wire:
    """Two sessions back to back. `serve`: who answers, if it is not to be a recording `Handler`."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits = LIMITS,
        client_limits: Limits | None = None,
        gives_back: bool = True,
        serve: ServerHandler | None = None,
    ) -> None:
        self.engine = engine
        self.handler = Handler(gives_back=gives_back)
        self.server = engine.server(serve or self.handler, limits)
        self.client = engine.client(client_limits or limits)
        self._cuts: Iterator[int] = repeat(65_536)
        self._flying = {self.client: bytearray(), self.server: bytearray()}
        """Bytes on their way *to* a session."""
        self._eof_told: set[Session] = set()
        self.flushes: Callable[[Session], bool] = lambda session: True
        """Whether somebody would send now what `session` has to say."""
        self.received: Callable[[Session], None] = lambda session: None
        """Called after bytes or the end of the connection were told to `session`."""

    def cut(self, sizes: Iterable[int]) -> None:
        """Pieces of these sizes first, then whatever is there."""
        self._cuts = iter([*sizes])

    def other(self, session: Session) -> Session:
        return self.server if session is self.client else self.client

    def request(self, fields: Fields, end: bool, *, gives_back: bool = True) -> StrictSink:
        sink = StrictSink(is_client=True, gives_back=gives_back)
        assert self.client.can_open
        sink.attach(self.client, self.client.request(fields, end, sink))
        return sink

    def pump(self) -> None:
        """Until nothing moves any more."""
        both = (self.client, self.server)
        while any(
            [self._send(s) for s in both] + [self._deliver(s) for s in both] + [self._tell_loss(s) for s in both]
        ):
            pass

    def _send(self, session: Session) -> bool:
        """What `session` has to say goes out. False: nothing."""
        out = session.take() if self.flushes(session) else b""
        if out:
            session.sent(0)
            self._flying[self.other(session)] += out
        return bool(out)

    def _deliver(self, session: Session) -> bool:
        """One piece of what has arrived for `session` goes in. False: nothing, or it does not want to read."""
        flying = self._flying[session]
        if session.closed:
            flying.clear()
        if not flying or not session.wants_read:
            return False
        size = max(1, next(self._cuts, 65_536))
        piece = bytes(flying[:size])
        del flying[:size]
        session.receive(piece)
        self.received(session)
        return True

    def _tell_loss(self, session: Session) -> bool:
        """The other end closed, and all it said has arrived."""
        other = self.other(session)
        if not other.closed or self._flying[session] or session in self._eof_told:
            return False
        if self._send(other):
            return True
        self._eof_told.add(session)
        session.eof()
        self.received(session)
        return True

    def lose(self) -> None:
        """The connection breaks: both ends hear of it."""
        for session in (self.client, self.server):
            self._flying[session].clear()
            self._eof_told.add(session)
            session.eof()
            self.received(session)


def regular(fields: Fields | None) -> Fields:
    """Without pseudo-header fields and framing, which belong to the protocol."""
    return [f for f in fields or [] if not f[0].startswith(b":") and f[0] != b"content-length"]


def pseudo(fields: Fields | None) -> dict[bytes, bytes]:
    return {name: value for name, value in fields or [] if name.startswith(b":")}
