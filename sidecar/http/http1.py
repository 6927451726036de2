"""HTTP/1.1 (and 1.0) as a `sidecar.http.session.Session`, in both roles: one stream at a time.

Theory of operation
-------------------
Received bytes wait in one buffer. Between messages the buffer is searched for the end of a head, which `http1_head`
judges and translates; then a reader of `http1_body` eats the body off the buffer's front; what is left is the next
message, and is not looked at before this one is over in both directions (row B32). `_run` turns that crank until
nothing moves. A sink may call back while it turns: nested calls return at once and the outer one goes on.

The one open stream (`http1_core.Stream1`) remembers its two halves. Once both are over the connection is free
again, or, where it may not be used again, `closed`.

Sending, each head decides how its body is delimited: by content-length if there is one, else chunked, and
to an HTTP/1.0 client by closing. What would make the message longer or shorter than announced ends the connection
instead of leaving the next message in doubt.

What the peer may do to us: a malformed message ends the connection; a server says why first, in a fixed answer, if it
has not begun another (row I16). A server whose answer is complete before the request is (it was refused, say) reads
and drops up to `DISCARD_OCTETS_MAX` more so that the connection may live, then closes.
"""

from __future__ import annotations

from sidecar.config import Limits
from sidecar.errors import BadRequest, RequestError, UpstreamFailed
from sidecar.http.http1_body import LengthReader, UntilCloseReader, body_reader
from sidecar.http.http1_core import DISCARD_OCTETS_MAX, Http1Session, Stream1
from sidecar.http.http1_head import CHUNKED, UNTIL_CLOSE, parse_request, parse_response
from sidecar.http.http1_write import error_answer, join_fields, response_lines, write_request, write_response
from sidecar.http.session import ErrorCode, Field, Fields, ServerHandler, StreamSink

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
_USUALLY_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
_TOKEN_START = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_CLOSE: Field = (b"connection", b"close")
_KEEP_ALIVE: Field = (b"connection", b"keep-alive")
_CHUNKED: Field = (b"transfer-encoding", b"chunked")
_EMPTY: Field = (b"content-length", b"0")


class Http1Server(Http1Session):
    """Answers requests: towards an app that calls out, or a client of the gateway."""

    def __init__(self, handler: ServerHandler, *, limits: Limits) -> None:
        super().__init__(limits)
        self._handler = handler
        self._skipped_empty_line = False

    # Receiving

    def _step(self) -> bool:
        stream = self._stream
        if stream is None:
            return self._read_head()
        return not stream.received_end and self._read_body(stream)

    def _read_head(self) -> bool:
        if not self._in:
            return False
        try:
            self._check_start()
            block = self._cut_head(BadRequest)
            if block is None:
                return False
            request = parse_request(block, self._limits)
        except RequestError as error:
            self._refuse(error)
            return False
        self._skipped_empty_line = False
        self._streams_begun += 1
        stream = Stream1(self._streams_begun, request.method, None)
        stream.keep_alive = request.keep_alive
        stream.is_http10 = request.is_http10
        stream.awaits_continue = request.expects_continue
        stream.reader = body_reader(request.framing, self._limits, BadRequest)
        end = stream.received_end = stream.reader.done
        self._stream = stream
        sink = self._handler.request(self, stream.id, request.fields, end)
        if stream.reset_early is not None:
            sink.reset(stream.reset_early, False)
        elif stream.discarded is None:
            stream.sink = sink
        return True

    def _check_start(self) -> None:
        """RFC 9112 section 2.2: one empty line before a request is forgiven. Whatever cannot begin a method is not."""
        if not self._skipped_empty_line and self._in[:2] == b"\r\n":
            self._skipped_empty_line = True
            del self._in[:2]
            self._searched = 0
        if self._in and self._in[0] not in _TOKEN_START and self._in != b"\r":
            raise BadRequest("not the beginning of a request", row="B02")

    def _refuse(self, error: RequestError) -> None:
        answered = self._stream is not None and self._stream.sent_head
        super()._refuse(error)
        if not answered:
            self._write(error_answer(error))

    def eof(self) -> None:
        """A client that has gone does not wait for an answer, so neither does whoever works on it."""
        if not self.closed:
            self._end_stream(ErrorCode.CANCEL)

    # Sending

    @property
    def can_open(self) -> bool:
        return False

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        raise AssertionError("a server session opens no streams")

    def informational(self, stream: int, fields: Fields) -> None:
        current = self._stream
        if current is None or current.id != stream or current.sent_head or current.is_http10:
            return
        self._write(write_response(fields, []))
        if fields[0][1] == b"100":
            current.awaits_continue = False

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        current = self._stream
        if current is None or current.id != stream or current.sent_head:
            return
        lines = response_lines(fields)  # raises before anything has changed
        extra = self._frame(current, fields, end)
        if self._draining or self._must_close(current, fields[0][1], end):
            current.keep_alive = False
        if not current.keep_alive:
            extra.append(_CLOSE)
        elif current.is_http10:
            extra.append(_KEEP_ALIVE)
        self._write(b"%s%s\r\n" % (lines, join_fields(extra)))
        current.sent_head = True
        if end:
            self.data(stream, b"", True)

    def _frame(self, stream: Stream1, fields: Fields, end: bool) -> Fields:
        """Decide how the response's body is delimited; what the head has to say about it (RFC 9112 section 6)."""
        length = dict(fields).get(b"content-length")
        if stream.method == b"HEAD" or fields[0][1] in (b"204", b"304"):
            stream.sends_no_body = True
        elif length is not None:
            stream.framing = int(length)
        elif end:
            return [_EMPTY]
        elif stream.is_http10:
            stream.framing = UNTIL_CLOSE
            stream.keep_alive = False
        else:
            stream.framing = CHUNKED
            return [_CHUNKED]
        return []

    def _must_close(self, stream: Stream1, status: bytes, end: bool) -> bool:
        """Is this an early answer to a request whose rest may never come, or is too much to be thrown away?"""
        if stream.received_end or not (end or status >= b"400"):
            return False
        if stream.awaits_continue:
            return True
        reader = stream.reader
        return isinstance(reader, LengthReader) and reader.left > DISCARD_OCTETS_MAX

    def reset(self, stream: int, code: int) -> None:
        current = self._stream
        if current is None or current.id != stream or current.discarded is not None:
            return
        if current.sent_end and current.keep_alive:
            current.sink = None
            current.discarded = 0
            current.unconsumed = 0
            self._update_reading()
        else:
            self._stream = None
            self._close()


class Http1Client(Http1Session):
    """Sends requests: to the app beside us."""

    def __init__(self, *, limits: Limits) -> None:
        super().__init__(limits)
        self._may_repeat = False
        """The request under way has no body and an idempotent method."""

    # Receiving

    def _step(self) -> bool:
        stream = self._stream
        if stream is not None and not stream.received_end:
            return self._read_head(stream) if stream.reader is None else self._read_body(stream)
        if self._in:  # nobody asked: whatever it answers, it is not the next request
            self._refuse(UpstreamFailed("bytes after the response", row="B36"))
        return False

    def _read_head(self, stream: Stream1) -> bool:
        if not self._in:
            return False
        try:
            if not b"HTTP/".startswith(self._in[:5]):
                raise UpstreamFailed("not the beginning of a response", row="B35")
            block = self._cut_head(UpstreamFailed)
            if block is None:
                return False
            response = parse_response(block, stream.method, self._limits)
            if response.status < 200:
                stream.informational += 1
                if stream.informational > self._limits.informational_max:
                    raise UpstreamFailed("too many 1xx responses", row="A32")
        except RequestError as error:
            self._refuse(error)
            return False
        assert stream.sink is not None
        if response.status < 200:
            stream.sink.informational(response.fields)
            return True
        stream.keep_alive = stream.keep_alive and response.keep_alive
        stream.reader = body_reader(response.framing, self._limits, UpstreamFailed)
        end = stream.reader.done
        if end:
            self._receive_end(stream)
        stream.sink.head(response.fields, end)
        if end:
            self._finish_if_over(stream)
        return True

    def _finish_if_over(self, stream: Stream1) -> None:
        # A server that has answered and closes takes no more of the request.
        if self._stream is stream and stream.received_end and not stream.sent_end and not stream.keep_alive:
            self._end_stream(ErrorCode.NO_ERROR)
            return
        super()._finish_if_over(stream)

    def eof(self) -> None:
        if self.closed:
            return
        stream = self._stream
        if stream is None:
            self._close()
        elif isinstance(stream.reader, UntilCloseReader) and not stream.received_end:
            stream.keep_alive = False
            self._receive_end(stream)
            assert stream.sink is not None
            stream.sink.data(b"", 0, True)
            self._finish_if_over(stream)
        else:
            # RFC 9112 section 9.3.1: a server may close an idle connection while a request is on its way to it.
            silent = stream.reader is None and not stream.informational and not self._in
            unprocessed = silent and self._may_repeat and self._streams_begun > 1
            code = ErrorCode.REFUSED_STREAM if unprocessed else ErrorCode.INTERNAL_ERROR
            self._end_stream(code, unprocessed=unprocessed)

    # Sending

    @property
    def can_open(self) -> bool:
        return self._stream is None and not self.closed and not self._draining

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        assert self.can_open
        named = dict(fields)
        method, length = named.get(b":method", b""), named.get(b"content-length")
        framing: Field | None = None
        if length is None and end:
            framing = _EMPTY if method in _USUALLY_WITH_BODY else None
        elif length is None:
            framing = _CHUNKED
        self._write(write_request(fields, framing))
        self._streams_begun += 1
        stream = Stream1(self._streams_begun, method, sink)
        stream.sent_head = True
        stream.framing = CHUNKED if framing is _CHUNKED else int(length or 0)
        self._may_repeat = end and method in _IDEMPOTENT
        self._stream = stream
        if end:
            self.data(stream.id, b"", True)
        return stream.id

    def informational(self, stream: int, fields: Fields) -> None:
        raise AssertionError("a client session sends no responses")

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        raise AssertionError("a client session sends no responses")

    def reset(self, stream: int, code: int) -> None:
        current = self._stream
        if current is not None and current.id == stream:
            self._stream = None
            self._close()
