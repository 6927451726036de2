"""One request and its answer: a table of states and events between two sessions. Sans-IO; it ends exactly once.

Theory of operation
-------------------
An `Exchange` stands between a stream of a *downstream* server session (who asked) and a stream of an *upstream* client
session (who answers). It is told what happens through two `StreamSink`s and acts by calling the sessions, which only
queue bytes. Every session it called is put into `touched`, and whoever owns the sockets flushes those afterwards.

    PARKED     the head is understood and permitted; a connection is being found (or a name looked up)
    RELAYING   the request was opened upstream; no final response head yet
    ANSWERING  the response head was passed on; from here on an error can only break off
    ENDED      nothing more is said on either side; `on_end` was called

Every transition is a row of `TABLE`. A pair that is not in the table cannot happen, and raises.

The two bodies are two independent `Flow`s. Bytes that the other side cannot take yet wait in the flow; the credit they
came with is returned to their sender only when they were handed on. So what one exchange holds is bounded by the window
we gave its sender, and a slow reader slows its sender and nobody else.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from sidecar.config import Limits
from sidecar.errors import BadRequest, RequestError, UpstreamFailed
from sidecar.http.headers import (
    BodyLength,
    RequestHead,
    ResponseHead,
    admit_informational,
    admit_response,
    admit_trailers,
    response_fields,
)
from sidecar.http.session import ErrorCode, Fields, Session, StreamSink


class State(Enum):
    PARKED = auto()
    RELAYING = auto()
    ANSWERING = auto()
    ENDED = auto()


class Event(Enum):
    CONNECTED = auto()
    UNPROCESSED = auto()
    """The upstream certainly did not act on the request, and we still have all of it."""
    RESPONSE_HEAD = auto()
    RESPONSE_END = auto()
    """The whole response was handed to the downstream session."""
    CLIENT_RESET = auto()
    UPSTREAM_RESET = auto()
    FAILED = auto()
    """A `RequestError` of ours: refused, timed out, revoked, invalid upstream answer."""


TABLE: dict[tuple[State, Event], tuple[State, str]] = {
    (State.PARKED, Event.CONNECTED): (State.RELAYING, "open_upstream"),
    (State.PARKED, Event.CLIENT_RESET): (State.ENDED, "end"),
    (State.PARKED, Event.FAILED): (State.ENDED, "answer_error"),
    (State.RELAYING, Event.UNPROCESSED): (State.PARKED, "park_again"),
    (State.RELAYING, Event.RESPONSE_HEAD): (State.ANSWERING, "pass_head"),
    (State.RELAYING, Event.CLIENT_RESET): (State.ENDED, "end"),
    (State.RELAYING, Event.UPSTREAM_RESET): (State.ENDED, "answer_error"),
    (State.RELAYING, Event.FAILED): (State.ENDED, "answer_error"),
    (State.ANSWERING, Event.RESPONSE_END): (State.ENDED, "end"),
    (State.ANSWERING, Event.CLIENT_RESET): (State.ENDED, "end"),
    (State.ANSWERING, Event.UPSTREAM_RESET): (State.ENDED, "break_off"),
    (State.ANSWERING, Event.FAILED): (State.ENDED, "break_off"),
}


class Flow:
    """One direction of body: from a stream of `source` to a stream of `target`, as fast as the target takes it."""

    __slots__ = (
        "_queue",
        "_source",
        "_source_stream",
        "_stopped",
        "_target",
        "_target_stream",
        "ended",
        "octets",
        "touched",
    )

    def __init__(self, source: Session, source_stream: int, touched: set[Session]) -> None:
        self._source = source
        self._source_stream = source_stream
        self._target: Session | None = None
        self._target_stream = 0
        self._queue: deque[tuple[bytes, int, bool, Fields | None]] = deque()
        """(data, credit to return, last, trailers)"""
        self.touched = touched
        self.octets = 0
        """Handed on so far."""
        self.ended = False
        """The last byte (or the trailers) was handed on."""
        self._stopped = False

    @property
    def held(self) -> int:
        """Octets waiting here."""
        return sum(len(item[0]) for item in self._queue)

    @property
    def is_empty(self) -> bool:
        return not self._queue

    @property
    def is_whole(self) -> bool:
        """Nothing was handed on yet, so all of it could go elsewhere."""
        return self.octets == 0 and not self.ended

    def open(self, target: Session, stream: int) -> None:
        self._target, self._target_stream = target, stream
        self.pump()

    def rewind(self) -> None:
        """The target is gone before anything was handed to it."""
        assert self.is_whole
        self._target = None

    def push(self, data: bytes, flow: int, end: bool) -> None:
        if self._stopped:
            self.swallow(flow)
            return
        self._queue.append((data, flow, end, None))
        self.pump()

    def finish(self, trailers: Fields) -> None:
        self._queue.append((b"", 0, True, trailers or None))
        self.pump()

    def pump(self) -> None:
        target = self._target
        if target is None or not self._queue:
            return
        queue, stream, given = self._queue, self._target_stream, 0
        while queue:
            data, flow, end, trailers = queue[0]
            if data:
                credit = target.credit(stream)
                if credit <= 0:
                    target.want_write(stream)
                    break
                if credit < len(data):
                    # The queue first: the call may end the exchange, and that empties it.
                    queue[0] = (data[credit:], flow - credit, end, trailers)
                    self.octets += credit
                    given += credit
                    target.data(stream, data[:credit], False)
                    continue
            queue.popleft()
            self.octets += len(data)
            given += flow
            self.ended = end
            if trailers is not None:
                target.trailers(stream, trailers)
            elif data or end:
                target.data(stream, data, end)
        self.touched.add(target)
        if given:
            self._source.consumed(self._source_stream, given)
            self.touched.add(self._source)

    def drop(self) -> None:
        """Throw away what waits and give its credit back: the sender's connection is shared."""
        given = sum(item[1] for item in self._queue)
        self._queue.clear()
        self._target = None
        self._stopped = True
        if given:
            self._source.consumed(self._source_stream, given)
            self.touched.add(self._source)

    def swallow(self, flow: int) -> None:
        """Bytes that arrive after the end."""
        self._source.consumed(self._source_stream, flow)
        self.touched.add(self._source)


class Exchange:
    """See the module's docstring. `inbound` and `outbound` make one per request and decide where it goes."""

    __slots__ = (
        "_down",
        "_limits",
        "_request_length",
        "_response_length",
        "_stream",
        "_up",
        "_up_stream",
        "activity",
        "clock",
        "context",
        "decision_id",
        "error",
        "extra_response",
        "grpc_status",
        "head",
        "how_ended",
        "is_grpc",
        "on_end",
        "on_unprocessed",
        "request",
        "request_ended",
        "response",
        "response_ended",
        "response_head",
        "started",
        "state",
        "status",
        "touched",
        "upstream_fields",
    )

    def __init__(
        self,
        down: Session,
        stream: int,
        end: bool,
        *,
        touched: set[Session],
        limits: Limits,
        clock: Callable[[], float],
        on_end: Callable[[Exchange], None],
    ) -> None:
        self._down, self._stream = down, stream
        self._up: Session | None = None
        self._up_stream = 0
        self._limits = limits
        self.touched = touched
        self.head: RequestHead | None = None
        """None: not understood."""
        self.is_grpc = False
        self.state = State.PARKED
        self.request = Flow(down, stream, touched)
        self.request_ended = end
        """The request arrived whole."""
        self.response: Flow | None = None
        self.response_head: ResponseHead | None = None
        self.response_ended = False
        """The response arrived whole; it may still wait for the downstream to take it."""
        self._request_length = BodyLength(None, BadRequest)
        self._response_length = BodyLength(None, UpstreamFailed)
        self.upstream_fields: Fields = []
        """Request head as it goes upstream."""
        self.extra_response: Fields = []
        """Fields added to whatever is answered."""
        self.decision_id = ""
        """On a denial: told to the caller, who may ask an operator why."""
        self.status = 0
        """What the downstream was told; 0: nothing yet."""
        self.grpc_status: int | None = None
        self.error: RequestError | None = None
        self.how_ended = ""
        """"complete", "client_reset", "upstream_reset", or the reason of `error`."""
        self.clock = clock
        self.started = self.activity = clock()
        """Monotonic seconds; `activity`: the last byte in either direction."""
        self.on_end = on_end
        self.on_unprocessed: Callable[[Exchange], None] | None = None
        self.context: object = None
        """The owner's notes."""

    def __repr__(self) -> str:
        return f"<Exchange {self.state.name} {self.head.method.decode() if self.head else '?'} {self.how_ended}>"

    @property
    def sink(self) -> StreamSink:
        """Where the downstream session tells of this stream."""
        return _Downstream(self)

    @property
    def is_over(self) -> bool:
        return self.state is State.ENDED

    # What the owner tells

    def understood(self, head: RequestHead) -> None:
        self.head = head
        self.is_grpc = head.is_grpc
        if not self.request_ended:
            self._request_length = BodyLength.of_request(head)

    def connected(self, session: Session) -> None:
        """A session with room for one more stream."""
        self._up = session
        self._event(Event.CONNECTED)

    def fail(self, error: RequestError) -> None:
        """Answer with the error, or break off if the answer has begun. Harmless when over."""
        if self.state is not State.ENDED:
            self.error = error
            self.how_ended = error.reason
            self._event(Event.FAILED)

    # The machine

    def _event(self, event: Event) -> None:
        if self.state is not State.ENDED:  # else: the other side's last words
            self.state, action = TABLE[self.state, event]
            getattr(self, f"_{action}")()

    def _open_upstream(self) -> None:
        up = self._up
        assert up is not None
        end = self.request_ended and self.request.is_empty
        try:
            self._up_stream = up.request(self.upstream_fields, end, _Upstream(self))
        except ValueError as e:  # a field of ours that HTTP cannot carry (row B12)
            self._up = None
            self.fail(UpstreamFailed(str(e), row="B12"))
            return
        self.touched.add(up)
        if not end and not self.is_over:
            self.request.open(up, self._up_stream)

    def _park_again(self) -> None:
        self._up = None
        self.request.rewind()
        assert self.on_unprocessed is not None
        self.on_unprocessed(self)

    def _pass_head(self) -> None:
        head, self.response_head = self.response_head, None
        assert head is not None
        assert self._up is not None
        self.status = head.status
        if not self.response_ended:
            self._response_length = BodyLength.of_response(head, self.head.method if self.head else b"GET")
        self._down.head(self._stream, response_fields(head, self.extra_response), self.response_ended)
        self.touched.add(self._down)
        self.response = Flow(self._up, self._up_stream, self.touched)
        if self.response_ended:
            self.note_grpc_status(head.fields)
            self.response.ended = True
            self.response_pumped()
        else:
            self.response.open(self._down, self._stream)

    def note_grpc_status(self, fields: Fields) -> None:
        for name, value in fields:
            if name == b"grpc-status" and value[:3].isdigit():
                self.grpc_status = int(value[:3])

    def _answer_error(self) -> None:
        error = self.error or UpstreamFailed()
        self.status, self.grpc_status = error.http_status, error.grpc_status if self.is_grpc else None
        fields, body = error_answer(error, self.decision_id, is_grpc=self.is_grpc)
        if self.head is not None and self.head.method == b"HEAD":
            body = b""
        self._down.head(self._stream, fields + self.extra_response, not body)
        if body and self._down.credit(self._stream) >= len(body):
            self._down.data(self._stream, body, True)
        elif body:  # a client that grants no window has at least the status
            self._down.reset(self._stream, ErrorCode.CANCEL)
        self._end()

    def _break_off(self) -> None:
        """Too late for another head. A gRPC caller is told why in the trailers, others see the stream end early."""
        error = self.error or UpstreamFailed()
        if self.is_grpc:
            self.grpc_status = error.grpc_status
            self._down.trailers(self._stream, grpc_status_fields(error, self.decision_id))
        else:
            # Never REFUSED_STREAM here: it would say that nothing was done, and invite a retry (RFC 9113 section 8.7).
            code = ErrorCode.CANCEL if error.h2_code == ErrorCode.REFUSED_STREAM else error.h2_code
            self._down.reset(self._stream, code)
        self._end()

    def _end(self) -> None:
        """The one way out. Streams that are not over are reset: downstream after a whole answer with NO_ERROR, because
        the rest of its request is not wanted (RFC 9113 section 8.1); upstream with CANCEL."""
        if not self.request_ended:
            self._down.reset(self._stream, ErrorCode.NO_ERROR)
        self.touched.add(self._down)
        if self._up is not None:
            self._up.reset(self._up_stream, ErrorCode.CANCEL)
            self.touched.add(self._up)
        self.request.drop()
        if self.response is not None:
            self.response.drop()
        self.on_end(self)

    def response_pumped(self) -> None:
        if self.response is not None and self.response.ended and self.state is State.ANSWERING:
            self.how_ended = self.how_ended or "complete"
            self._event(Event.RESPONSE_END)

    @property
    def upstream(self) -> Session | None:
        return self._up


class _Downstream:
    """What the asking side's stream says."""

    __slots__ = ("_x",)

    def __init__(self, exchange: Exchange) -> None:
        self._x = exchange

    def informational(self, fields: Fields) -> None:
        raise AssertionError("a request has no 1xx")

    def head(self, fields: Fields, end: bool) -> None:
        raise AssertionError("the request's head came with the handler's call")

    def data(self, data: bytes, flow: int, end: bool) -> None:
        x = self._x
        x.request_ended = x.request_ended or end
        if x.state is State.ENDED:
            x.request.swallow(flow)
            return
        x.activity = x.clock()
        try:
            x._request_length.take(len(data))
            if end:
                x._request_length.finish()
        except RequestError as e:
            x.request.swallow(flow)
            x.fail(e)
            return
        x.request.push(data, flow, end)

    def trailers(self, fields: Fields) -> None:
        x = self._x
        x.request_ended = True
        if x.state is State.ENDED:
            return
        try:
            x._request_length.finish()
            x.request.finish(admit_trailers(fields, x._limits))
        except RequestError as e:
            x.fail(e)

    def reset(self, code: int, unprocessed: bool) -> None:
        x = self._x
        x.request_ended = True  # nothing to reset downstream any more
        x.how_ended = x.how_ended or "client_reset"
        x._event(Event.CLIENT_RESET)

    def writable(self) -> None:
        x = self._x
        x.activity = x.clock()
        if x.response is not None:
            x.response.pump()
            x.response_pumped()


class _Upstream:
    """What the answering side's stream says. After a retry the old one has no exchange left."""

    __slots__ = ("_informational", "_x")

    INFORMATIONAL_MAX = 10

    def __init__(self, exchange: Exchange) -> None:
        self._x: Exchange | None = exchange
        self._informational = 0

    def informational(self, fields: Fields) -> None:
        x = self._x
        if x is None or x.state is not State.RELAYING:
            return
        self._informational += 1
        try:
            if self._informational > self.INFORMATIONAL_MAX:
                raise UpstreamFailed("more than ten 1xx responses", row="A32")
            x._down.informational(x._stream, admit_informational(fields, x._limits))
            x.touched.add(x._down)
        except RequestError as e:
            x.fail(e)

    def head(self, fields: Fields, end: bool) -> None:
        x = self._x
        if x is None or x.state is not State.RELAYING:
            return
        x.activity = x.clock()
        try:
            head = admit_response(fields, x._limits)
        except RequestError as e:
            x.fail(e)
            return
        x.response_head, x.response_ended = head, end
        x._event(Event.RESPONSE_HEAD)

    def data(self, data: bytes, flow: int, end: bool) -> None:
        x = self._x
        if x is None or x.response is None or x.state is State.ENDED:
            if x is not None and x._up is not None:
                x._up.consumed(x._up_stream, flow)
                x.touched.add(x._up)
            return
        x.activity = x.clock()
        try:
            x._response_length.take(len(data))
            if end:
                x._response_length.finish()
        except RequestError as e:
            x.response.swallow(flow)
            x.fail(e)
            return
        x.response_ended = end
        x.response.push(data, flow, end)
        x.response_pumped()

    def trailers(self, fields: Fields) -> None:
        x = self._x
        if x is None or x.response is None or x.state is State.ENDED:
            return
        x.note_grpc_status(fields)
        x.response_ended = True
        try:
            x._response_length.finish()
            x.response.finish(admit_trailers(fields, x._limits, fault=UpstreamFailed))
        except RequestError as e:
            x.fail(e)
            return
        x.response_pumped()

    def reset(self, code: int, unprocessed: bool) -> None:
        x = self._x
        if x is None or x.state is State.ENDED:
            return
        if x.response_ended:  # it wants no more of the request, and has said all (RFC 9113 section 8.1)
            x._up = None
            x.request.drop()
            return
        if x.state is State.RELAYING and unprocessed and x.request.is_whole and x.on_unprocessed is not None:
            self._x = None
            x._event(Event.UNPROCESSED)
            return
        if x.error is None:
            x.error = UpstreamFailed(f"the upstream reset the stream with code {code}")
        x.how_ended = x.how_ended or "upstream_reset"
        x._up = None
        x._event(Event.UPSTREAM_RESET)

    def writable(self) -> None:
        x = self._x
        if x is not None:
            x.activity = x.clock()
            x.request.pump()


def error_answer(error: RequestError, decision_id: str, *, is_grpc: bool) -> tuple[Fields, bytes]:
    """The one place where an error becomes an answer: gRPC trailers-only, or problem+json (RFC 9457).

    The texts are fixed: nothing of the request is reflected (row I16), no rule is named."""
    if is_grpc:
        head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
        return head + grpc_status_fields(error, decision_id), b""
    problem: dict[str, object] = {"type": "about:blank", "title": error.title, "status": error.http_status}
    if decision_id:
        problem["decision_id"] = decision_id
    body = json.dumps(problem).encode() + b"\n"
    return [
        (b":status", b"%d" % error.http_status),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ], body


def grpc_status_fields(error: RequestError, decision_id: str) -> Fields:
    message = f"{error.title} (decision {decision_id})" if decision_id else error.title
    return [(b"grpc-status", b"%d" % error.grpc_status), (b"grpc-message", message.encode())]
