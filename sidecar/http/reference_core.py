"""The reference engine's saying half: what our sinks send, credit, and how the connection ends.

`sidecar.http.reference` has the theory of operation and the half that listens.
"""

from __future__ import annotations

from collections.abc import Callable

from h2.exceptions import H2Error

from sidecar.config import Limits
from sidecar.errors import RequestError
from sidecar.http import frames
from sidecar.http.budgets import Budgets
from sidecar.http.frames import DRAIN_PING, KEEP_ALIVE_PING, STREAM_ID_MAX
from sidecar.http.gate import FrameGate
from sidecar.http.h2_connection import Connection, OpenStream, header_tuples, make_connection
from sidecar.http.headers import check_outgoing
from sidecar.http.session import HEADS_OCTETS_MAX, NO_SINK, ErrorCode, Fields, ServerHandler, StreamSink


class ReferenceCore:
    """State of one connection, and what is said on it."""

    def __init__(self, handler: ServerHandler | None, limits: Limits, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.closed = False
        self.fault: RequestError | None = None
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.slice_frames = 0
        self.has_more = False
        self.peer_error = ErrorCode.NO_ERROR
        """Code of the GOAWAY received, or of the fault we found."""
        self._handler = handler
        self._limits = limits
        self._clock = clock
        self._budgets = Budgets(limits, clock)
        self._pings = 0
        self._streams: dict[int, OpenStream] = {}
        self._blocked: dict[int, None] = {}
        self._gate = FrameGate(limits, self._budgets, clock, expects_preface=handler is not None)
        self._out = bytearray()
        self._queued = 0
        self._heads = 0
        """Octets of requests' heads that were not taken."""
        self._unsent = 0
        self._draining = False
        self._last_accepted = STREAM_ID_MAX
        self._conn = self._begin()

    def _begin(self) -> Connection:
        conn = make_connection(self._limits, is_client=self._handler is None)
        self._out += conn.data_to_send()
        if self._handler is not None:
            # h2 would end the connection over one stream too many, so it is not told of the limit; the client is.
            self._out += frames.settings({frames.MAX_CONCURRENT_STREAMS: self._limits.streams_per_connection_max})
        if self._limits.connection_window_octets > 65_535:
            conn.increment_flow_control_window(self._limits.connection_window_octets - 65_535)
        return conn

    def __repr__(self) -> str:
        role = "server" if self._handler else "client"
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<http2 reference {role}, {state}, {len(self._streams)} streams>"

    # Sending: sinks -> h2 -> bytes

    def take(self) -> bytes:
        self._out += self._conn.data_to_send()
        self._queued = self._heads = 0
        out = bytes(self._out)
        self._out.clear()
        self._unsent += len(out)
        return out

    def sent(self, unsent: int) -> None:
        if self._budgets.has_replies:
            self._budgets.replies_sent(self._unsent - unsent, unsent)
        self._unsent = unsent
        if self._blocked:
            self._wake()

    @property
    def awaits_pong(self) -> bool:
        return self._pings > 0

    def ping(self) -> None:
        if not self.closed:
            self._pings += 1
            self._conn.ping(KEEP_ALIVE_PING)

    @property
    def awaits_rest(self) -> bool:
        return self._gate.awaits_rest

    @property
    def can_open(self) -> bool:
        if self.closed or self._draining:
            return False
        if self._heads + self._queued + self._unsent > self._limits.output_octets_max + HEADS_OCTETS_MAX:
            return False
        limit = min(self._conn.remote_settings.max_concurrent_streams, self._limits.streams_per_connection_max)
        return len(self._streams) < limit

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    @property
    def draining(self) -> bool:
        return self._draining or self.closed

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        assert self.can_open
        stream = self._conn.get_next_available_stream_id()
        check_outgoing(fields)
        self._conn.send_headers(stream, header_tuples(fields), end)
        self._heads += sum(len(name) + len(value) for name, value in fields)
        state = OpenStream(sink, self._clock())
        state.sent_end = end
        self._streams[stream] = state
        self._count_stream(stream)
        return stream

    def _count_stream(self, stream: int) -> None:
        """A connection that has carried enough makes room for another in good order (row A41), and so does one that
        runs out of stream numbers (RFC 9113 section 5.1.1)."""
        self._budgets.streams_opened += 1
        is_last = self._handler is None and stream > STREAM_ID_MAX - 3
        if is_last or self._budgets.streams_opened == self._limits.streams_total_max:
            self.drain()

    def informational(self, stream: int, fields: Fields) -> None:
        if self._can_send(stream):
            check_outgoing(fields)
            self._try(lambda: self._conn.send_headers(stream, header_tuples(fields), False))

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        if state := self._can_send(stream):
            state.is_answered = True
        self._send_fields(stream, fields, end)

    def trailers(self, stream: int, fields: Fields) -> None:
        if fields:
            self._send_fields(stream, fields, True)
        else:  # a section of which nothing may cross; h2 cannot write an empty header block
            self.data(stream, b"", True)

    def _send_fields(self, stream: int, fields: Fields, end: bool) -> None:
        state = self._can_send(stream)
        if state is None:
            return
        check_outgoing(fields)
        self._try(lambda: self._conn.send_headers(stream, header_tuples(fields), end))
        if end:
            self._sent_end(stream, state)

    def data(self, stream: int, data: bytes, end: bool) -> None:
        state = self._can_send(stream)
        if state is None:
            return
        size = self._conn.max_outbound_frame_size
        for start in range(0, max(len(data), 1), size):
            piece = data[start : start + size]
            last = end and start + size >= len(data)
            self._try(lambda piece=piece, last=last: self._conn.send_data(stream, piece, last))  # type: ignore[misc]
            self._budgets.data_frames_sent += 1
        self._queued += len(data)
        if end:
            self._sent_end(stream, state)

    def _can_send(self, stream: int) -> OpenStream | None:
        """The stream, if our half of it is open. What is said after it would make `h2` close the other half too."""
        state = self._streams.get(stream)
        return None if state is None or state.sent_end else state

    def _sent_end(self, stream: int, state: OpenStream) -> None:
        state.sent_end = True
        self._budgets.answered += 1
        self._blocked.pop(stream, None)
        self._forget_if_over(stream, state)

    def _forget_if_over(self, stream: int, state: OpenStream) -> None:
        if state.received_end and state.sent_end and self._streams.get(stream) is state:
            del self._streams[stream]
            if state.tiny:
                self._budgets.tiny_taken(state.tiny)
            self._close_if_drained()

    def reset(self, stream: int, code: int) -> None:
        if self._streams.pop(stream, None) is not None:
            self._blocked.pop(stream, None)
            self._try(lambda: self._conn.reset_stream(stream, code))
            self._close_if_drained()

    def credit(self, stream: int) -> int:
        if not self._can_send(stream):
            return 0
        room = self._limits.output_octets_max - self._queued - self._unsent
        try:
            return max(0, min(room, self._conn.local_flow_control_window(stream)))
        except H2Error:
            return 0

    def want_write(self, stream: int) -> None:
        if self._can_send(stream):
            self._blocked[stream] = None

    def _wake(self) -> None:
        """Offer the credit there is to those who wait for it, in the order in which they began to wait."""
        for stream in list(self._blocked):
            if stream in self._blocked and self.credit(stream) > 0:
                del self._blocked[stream]
                self._streams[stream].sink.writable()

    def consumed(self, stream: int, flow: int) -> None:
        if flow > 0 and not self.closed:
            self._try(lambda: self._conn.acknowledge_received_data(flow, stream))
            state = self._streams.get(stream)
            if state is not None:
                state.waiting -= flow
                if state.tiny and state.waiting <= 0:
                    self._budgets.tiny_taken(state.tiny)
                    state.tiny = 0

    def _try(self, call: Callable[[], None]) -> None:
        """`h2` refuses frames for a stream the peer has just reset; whoever owns it hears of that from the reset."""
        try:
            call()
        except (H2Error, KeyError):
            pass

    # The end

    def eof(self) -> None:
        self._end_all(ErrorCode.CANCEL)

    def _fail(self, code: int) -> None:
        """A fault of the connection, or our own wish: say goodbye and end every stream."""
        self.peer_error = code
        self._out += self._conn.data_to_send()
        self._out += frames.goaway(self._conn.highest_inbound_stream_id, code)
        self._end_all(code)

    def _end_all(self, code: int) -> None:
        if self.closed:
            return
        self.closed = True
        self._blocked.clear()
        while self._streams:  # one by one: a sink may reset another stream, which then hears nothing more
            state = self._streams.pop(next(iter(self._streams)))
            if state.sink is NO_SINK:
                state.reset_early = code
            else:
                state.sink.reset(code, False)

    def drain(self) -> None:
        if self._draining or self.closed:
            self._draining = True
            self._close_if_drained()
            return
        self._draining = True
        if self._handler is None:
            self._close_if_drained()
            return
        self._out += self._conn.data_to_send()
        self._out += frames.goaway(STREAM_ID_MAX, ErrorCode.NO_ERROR)
        self._conn.ping(DRAIN_PING)

    def _drain_confirmed(self) -> None:
        """Whoever answers the PING of a drain that was never sent, or answers it twice, confirms nothing."""
        if self._handler is None or self._last_accepted != STREAM_ID_MAX:
            return
        self._last_accepted = self._conn.highest_inbound_stream_id
        self._out += self._conn.data_to_send()
        self._out += frames.goaway(self._last_accepted, ErrorCode.NO_ERROR)
        self._close_if_drained()

    def _close_if_drained(self) -> None:
        """A server waits for the PING of its drain; a client, or the receiver of a GOAWAY, for its streams only."""
        if not self._draining or self._streams or self.closed:
            return
        if self._handler is None or self._last_accepted != STREAM_ID_MAX:
            self._out += self._conn.data_to_send()
            self.closed = True

    def shutdown(self, code: int) -> None:
        if not self.closed:
            self._fail(code)
