"""One request and its answer: a table of states and events between two sessions. Sans-IO; it ends exactly once.

Theory of operation
-------------------
An `Exchange` stands between a stream of a *downstream* server session (who asked) and a stream of an *upstream* client
session (who answers). It is told what happens through two `StreamSink`s and acts by calling the sessions, which only
queue bytes. Every session it called is put into `touched`, and whoever owns the sockets flushes those afterwards.
Every transition is a row of `course.TABLE`. A pair that is not in the table cannot happen, and raises.
The two bodies are two independent `Flow`s (`flow`).

An answer may be over before its request is: then the rest is not wanted, and the stream reset (RFC 9113 section 8.1).
But not if all its content-length announced is here, and only the end of the stream is on its way: clients that are just
about to send that may take a reset for a failure. The exchange waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.answers import error_answer, grpc_status_fields, grpc_status_of
from sidecar.config import Limits
from sidecar.course import TABLE, Event, State
from sidecar.errors import BadRequest, RequestError, UpstreamFailed
from sidecar.flow import NO_BODY, Flow
from sidecar.http import headers
from sidecar.http.fields import folded
from sidecar.http.headers import BodyLength, RequestHead, ResponseHead, response_fields
from sidecar.http.session import ErrorCode, Fields, Session, StreamSink

__all__ = ["TABLE", "Event", "Exchange", "State"]

_ENDED = State.ENDED
_ANY_REQUEST_LENGTH = BodyLength(None, BadRequest)
_ANY_RESPONSE_LENGTH = BodyLength(None, UpstreamFailed)


class Exchange:
    """See the module's docstring. `inbound` and `outbound` make one per request and decide where it goes."""

    # fmt: off
    __slots__ = (
        "_down", "_limits", "_of_app", "_request_length", "_response_length", "_stream", "_up", "_up_stream",
        "activity", "clock", "context", "decision_id", "error", "extra_response", "grpc_status", "head", "how_ended",
        "is_grpc", "on_end", "on_unprocessed", "request", "request_ended", "reserved", "response", "response_ended",
        "response_head", "started", "state", "status", "touched", "upstream_fields",
    )
    # fmt: on

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
        of_app: bool = False,
    ) -> None:
        """`of_app`: it is an app that answers, not another sidecar."""
        self._down, self._stream = down, stream
        self._of_app = of_app
        self._up: Session | None = None
        self._up_stream = 0
        self._limits = limits
        self.touched = touched
        self.head: RequestHead | None = None
        """None: not understood."""
        self.is_grpc = False
        self.state = State.PARKED
        self.request = NO_BODY if end else Flow(down, stream, touched)
        self.request_ended = end
        """The request arrived whole."""
        self.response: Flow | None = None
        self.response_head: ResponseHead | None = None
        self.response_ended = False
        """The response arrived whole; it may still wait for the downstream to take it."""
        self._request_length = _ANY_REQUEST_LENGTH
        self._response_length = _ANY_RESPONSE_LENGTH
        self.upstream_fields: Fields = []
        """Request head as it goes upstream."""
        self.extra_response: Fields = []
        """Fields added to whatever is answered."""
        self.reserved: frozenset[bytes] = frozenset()
        """Names, as `folded`, that a client cannot say in trailers either: headers that carry a user's claims."""
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
        return self.state is _ENDED

    def is_on(self, session: Session) -> bool:
        """Does it go over this connection, at either side?"""
        return session is self._down or session is self._up

    @property
    def awaits_end(self) -> bool:
        """The answer is over, and the request all but: only the end of its stream is to come."""
        return self.response is not None and self.response.ended and self.state is State.ANSWERING

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
        if self.awaits_end:
            self.waive_end()
        elif self.state is not _ENDED:
            self.error = error
            self.how_ended = error.reason
            self._event(Event.FAILED)

    def waive_end(self) -> None:
        """Of one that `awaits_end`: nothing can come but that, and it does not."""
        self.how_ended = self.how_ended or "complete"
        self._event(Event.RESPONSE_END)

    # The machine

    def _event(self, event: Event) -> None:
        if self.state is not _ENDED:  # else: the other side's last words
            self.state, act = _ROWS[self.state, event]
            act(self)

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
            self.grpc_status = grpc_status_of(head.fields)
            self.response.ended = True
            self.response_pumped()
        else:
            self.response.open(self._down, self._stream)

    def _answer_error(self) -> None:
        error = self.error or UpstreamFailed()
        self.status, self.grpc_status = error.http_status, error.grpc_status if self.is_grpc else None
        fields, body = error_answer(error, self.decision_id, is_grpc=self.is_grpc)
        if self.head is not None and self.head.method == b"HEAD":
            body = b""
        is_malformed = isinstance(error, BadRequest)  # then the answer is no good end (RFC 9113 section 8.1.1)
        self._down.head(self._stream, fields + self.extra_response, not body and not is_malformed)
        if body and self._down.credit(self._stream) >= len(body):
            self._down.data(self._stream, body, not is_malformed)
        elif body:  # a client that grants no window has at least the status
            self._down.reset(self._stream, ErrorCode.CANCEL)
        if is_malformed:
            self._down.reset(self._stream, ErrorCode.PROTOCOL_ERROR)
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
            if not (self.response_ended and self.request.ended):
                self._up.reset(self._up_stream, ErrorCode.CANCEL)
            self.touched.add(self._up)
        self.request.drop()
        if self.response is not None:
            self.response.drop()
        self.on_end(self)

    def response_pumped(self) -> None:
        if self.awaits_end and (self.request_ended or not self._request_length.is_complete):
            self.waive_end()


_ROWS = {pair: (state, getattr(Exchange, f"_{action}")) for pair, (state, action) in TABLE.items()}


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
        if x.state is _ENDED:
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
        if end:
            x.response_pumped()

    def trailers(self, fields: Fields) -> None:
        x = self._x
        x.request_ended = True
        if x.state is _ENDED:
            return
        try:
            x._request_length.finish()
            admitted = headers.admit_trailers(fields, x._limits)
            if x.reserved:
                admitted = [field for field in admitted if folded(field[0]) not in x.reserved]
            x.request.finish(admitted)
        except RequestError as e:
            x.fail(e)
            return
        x.response_pumped()

    def reset(self, code: int, unprocessed: bool) -> None:
        x = self._x
        x.request_ended = True  # nothing to reset downstream any more
        x.how_ended = x.how_ended or ("complete" if x.awaits_end else "client_reset")
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

    def __init__(self, exchange: Exchange) -> None:
        self._x: Exchange | None = exchange
        self._informational = 0

    def informational(self, fields: Fields) -> None:
        x = self._x
        if x is None or x.state is not State.RELAYING:
            return
        self._informational += 1
        try:
            if self._informational > x._limits.informational_max:
                raise UpstreamFailed("too many 1xx responses", row="A32")
            x._down.informational(x._stream, headers.admit_informational(fields, x._limits))
            x.touched.add(x._down)
        except RequestError as e:
            x.fail(e)

    def head(self, fields: Fields, end: bool) -> None:
        x = self._x
        if x is None or x.state is not State.RELAYING:
            return
        x.activity = x.clock()
        try:
            head = headers.admit_response(fields, x._limits, of_app=x._of_app)
        except RequestError as e:
            x.fail(e)
            return
        x.response_head, x.response_ended = head, end
        x._event(Event.RESPONSE_HEAD)

    def data(self, data: bytes, flow: int, end: bool) -> None:
        x = self._x
        if x is None or x.response is None or x.state is _ENDED:
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
        if x is None or x.response is None or x.state is _ENDED:
            return
        x.grpc_status = grpc_status_of(fields)
        x.response_ended = True
        try:
            x._response_length.finish()
            x.response.finish(headers.admit_trailers(fields, x._limits, fault=UpstreamFailed))
        except RequestError as e:
            x.fail(e)
            return
        x.response_pumped()

    def reset(self, code: int, unprocessed: bool) -> None:
        x = self._x
        if x is None or x.state is _ENDED:
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
