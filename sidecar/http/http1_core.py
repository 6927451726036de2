"""What the two roles of HTTP/1.1 share: the buffer, the crank, the output and its bound. See `http1`."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config import Limits
from sidecar.errors import BadRequest, HeadersTooLarge, RequestError
from sidecar.http.fields import Fault, check_outgoing
from sidecar.http.http1_body import BodyReader
from sidecar.http.http1_head import CHUNKED, REQUEST_LINE_OCTETS_MAX, UNTIL_CLOSE, UriTooLong
from sidecar.http.http1_write import join_fields
from sidecar.http.session import ErrorCode, Fields, StreamSink

PIPELINED_OCTETS_MAX = 65_536
"""Received beyond the message in progress before reading pauses."""
DISCARD_OCTETS_MAX = 262_144
"""Of a request body nobody wants any more."""


class Stream1:
    """The message pair under way."""

    __slots__ = (
        "awaits_continue",
        "discarded",
        "framing",
        "id",
        "informational",
        "is_http10",
        "keep_alive",
        "method",
        "reader",
        "received_end",
        "reset_early",
        "sends_no_body",
        "sent_end",
        "sent_head",
        "sink",
        "unconsumed",
        "wants_write",
    )

    def __init__(self, number: int, method: bytes, sink: StreamSink | None) -> None:
        self.id = number
        self.method = method
        self.sink = sink
        """None: the handler has not returned yet, or nobody listens any more (`discarded` says which)."""
        self.reader: BodyReader | None = None
        """None: no final head was received yet."""
        self.received_end = False
        self.sent_head = False
        self.sent_end = False
        self.framing = 0
        """Of what we send: octets left of a content-length, CHUNKED or UNTIL_CLOSE."""
        self.sends_no_body = False
        """HEAD, 204, 304: whatever is given as body is dropped (row B36)."""
        self.keep_alive = True
        self.is_http10 = False
        self.awaits_continue = False
        """The client holds its body back until it hears 100 or a final status."""
        self.informational = 0
        """1xx heads so far."""
        self.unconsumed = 0
        self.wants_write = False
        self.discarded: int | None = None
        """Octets of body dropped since nobody wants them; None: somebody does."""
        self.reset_early: int | None = None
        """Code of a reset that came while the handler had not returned its sink yet."""


class Http1Session:
    """What server and client share: the buffer, the crank, the output and its bound."""

    def __init__(self, limits: Limits) -> None:
        self.closed = False
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.slice_frames = 0
        self.has_more = False
        self.fault: RequestError | None = None
        """What the peer did wrong, if that is why the connection ends; its `row` is for metrics."""
        self._limits = limits
        self._in = bytearray()
        self._searched = 0
        """Octets of `_in` in which no head ends."""
        self._out: list[bytes] = []
        self._queued = 0
        self._unsent = 0
        self._stream: Stream1 | None = None
        self._streams_begun = 0
        self._draining = False
        self._running = False

    def __repr__(self) -> str:
        role = type(self).__name__
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<{role}, {state}, {self.open_streams} streams>"

    @property
    def awaits_pong(self) -> bool:
        return False

    def ping(self) -> None:
        """There is no such question in HTTP/1.1."""

    @property
    def open_streams(self) -> int:
        return 0 if self._stream is None or self._is_discarding else 1

    @property
    def draining(self) -> bool:
        return self.closed or self._draining or (self._stream is not None and not self._stream.keep_alive)

    @property
    def awaits_rest(self) -> bool:
        return self._is_discarding or (bool(self._in) and self._stream is None)

    @property
    def _is_discarding(self) -> bool:
        return self._stream is not None and self._stream.discarded is not None

    # Receiving

    def receive(self, data: bytes) -> None:
        if not self.closed:
            self._in += data
            self._run()

    def _run(self) -> None:
        """Turn the crank until nothing moves."""
        if self._running:
            return
        self._running = True
        try:
            while not self.closed and self._step():
                pass
        finally:
            self._running = False
        self._update_reading()

    def _step(self) -> bool:
        """One element off the buffer; False: there is none, or it is not its time."""
        raise NotImplementedError

    def _refuse(self, error: RequestError) -> None:
        """The peer broke the protocol: end the connection."""
        self.fault = error
        self._end_stream(ErrorCode.PROTOCOL_ERROR)

    def _update_reading(self) -> None:
        stream = self._stream
        wants = len(self._in) <= PIPELINED_OCTETS_MAX and (
            stream is None or stream.unconsumed <= self._limits.stream_window_octets
        )
        if wants != self.wants_read:
            self.wants_read = wants
            if wants:
                self.resume_reading()

    def _cut_head(self, fault: Fault) -> bytes | None:
        """The next head with the CRLF of its last line, off the buffer; None: it is not complete yet.

        What can be refused before it is complete is refused then, else it would be waited for in vain."""
        buffer = self._in
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end >= 0:
            block = bytes(buffer[: end + 2])
            del buffer[: end + 4]
            self._searched = 0
            return block
        start = self._searched
        if start and buffer[start - 1] == 0x0D:
            start -= 1
        fresh = buffer[start:]
        if fresh.count(b"\n") != fresh.count(b"\r\n"):
            raise fault("bare LF", row="B24")
        self._searched = len(buffer)
        if len(buffer) > REQUEST_LINE_OCTETS_MAX and buffer.find(b"\r\n", 0, REQUEST_LINE_OCTETS_MAX + 2) < 0:
            raise (UriTooLong if fault is BadRequest else fault)("first line", row="B39")
        if len(buffer) > REQUEST_LINE_OCTETS_MAX + self._limits.header_list_octets_max:
            raise (HeadersTooLarge if fault is BadRequest else fault)("field section", row="B39")
        return None

    def _read_body(self, stream: Stream1) -> bool:
        """Hand over what there is of the body. True if that may have brought the crank further."""
        reader = stream.reader
        assert reader is not None
        if not self._in and not reader.done:
            return False
        try:
            data = reader.read(self._in)
        except RequestError as error:
            self._refuse(error)
            return False
        if not reader.done:
            if data:
                self._deliver(stream, data, end=False)
            return False
        if reader.trailers:
            if data:
                self._deliver(stream, data, end=False)
            if self._stream is stream:
                self._receive_end(stream)
                if stream.sink is not None:
                    stream.sink.trailers(reader.trailers)
        else:
            self._receive_end(stream)
            self._deliver(stream, data, end=True)
        self._finish_if_over(stream)
        return True

    def _deliver(self, stream: Stream1, data: bytes, *, end: bool) -> None:
        if stream.discarded is not None:
            stream.discarded += len(data)
            if stream.discarded > DISCARD_OCTETS_MAX:
                self._end_stream(ErrorCode.CANCEL)
        elif stream.sink is not None:
            stream.unconsumed += len(data)
            stream.sink.data(data, len(data), end)

    def consumed(self, stream: int, flow: int) -> None:
        current = self._stream
        if current is not None and current.id == stream:
            current.unconsumed -= flow
            self._update_reading()

    # Sending

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        self._queued += len(data)

    def take(self) -> bytes:
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._queued = 0
        self._unsent += len(out)
        return out

    def sent(self, unsent: int) -> None:
        self._unsent = unsent
        stream = self._stream
        if stream is not None and stream.wants_write and self.credit(stream.id) > 0:
            stream.wants_write = False
            if stream.sink is not None:
                stream.sink.writable()

    def credit(self, stream: int) -> int:
        current = self._sending(stream)
        if current is None:
            return 0
        return max(0, self._limits.output_octets_max - self._queued - self._unsent)

    def want_write(self, stream: int) -> None:
        if (current := self._sending(stream)) is not None:
            current.wants_write = True

    def data(self, stream: int, data: bytes, end: bool) -> None:
        current = self._sending(stream)
        if current is None:
            return
        if current.sends_no_body:
            pass
        elif current.framing == CHUNKED:
            if data:
                tail = b"\r\n0\r\n\r\n" if end else b"\r\n"
                self._write(b"".join((b"%x\r\n" % len(data), data, tail)))
            elif end:
                self._write(b"0\r\n\r\n")
        elif current.framing == UNTIL_CLOSE:
            self._write(data)
        elif not self._send_counted(current, data, end):
            return
        if end:
            self._sent_end(current)

    def _send_counted(self, stream: Stream1, data: bytes, end: bool) -> bool:
        """Part of a body with a content-length; never more of it than announced, and no end that is not one."""
        left = stream.framing - len(data)
        if left < 0 or (end and left):
            self._end_stream(ErrorCode.INTERNAL_ERROR)
            return False
        stream.framing = left
        self._write(data)
        return True

    def trailers(self, stream: int, fields: Fields) -> None:
        current = self._sending(stream)
        if current is None:
            return
        check_outgoing(fields)
        if current.framing == CHUNKED and not current.sends_no_body:
            self._write(b"0\r\n%s\r\n" % join_fields(fields))
            self._sent_end(current)
        else:
            self.data(stream, b"", True)

    def _sending(self, stream: int) -> Stream1 | None:
        """The stream if it is open, its head is sent and its sending half is not over."""
        current = self._stream
        if current is None or current.id != stream or current.sent_end or not current.sent_head or self.closed:
            return None
        return current

    def _sent_end(self, stream: Stream1) -> None:
        stream.sent_end = True
        stream.wants_write = False
        self._finish_if_over(stream)

    # The end

    def _receive_end(self, stream: Stream1) -> None:
        """Before the sink hears of the end: it may give the connection to the next message from inside that call, and
        what it then says of this stream must find it gone."""
        stream.received_end = True
        if stream.sent_end:
            self._finish_if_over(stream)

    def _finish_if_over(self, stream: Stream1) -> None:
        if self._stream is not stream or not (stream.received_end and stream.sent_end):
            return
        self._stream = None
        if stream.keep_alive and not self._draining:
            self._run()
        else:
            self._close()

    def _close(self) -> None:
        self.closed = True
        self._in.clear()
        self._searched = 0

    def _end_stream(self, code: int, *, unprocessed: bool = False) -> None:
        """The connection is over, and so is the stream on it, if one is open."""
        stream, self._stream = self._stream, None
        self._close()
        if stream is None or stream.discarded is not None:
            return
        if stream.sink is None:
            stream.reset_early = code
        else:
            stream.sink.reset(code, unprocessed)

    def drain(self) -> None:
        """A head that has begun to arrive is still answered, and its answer says that it is the last."""
        self._draining = True
        if self._is_discarding or (self._stream is None and not self._in):
            self._stream = None
            self._close()

    def shutdown(self, code: int) -> None:
        if not self.closed:
            self._end_stream(code)
