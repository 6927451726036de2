"""HTTP/2 on the `h2` package: the strict and simple engine, and the oracle for a faster one.

Theory of operation
-------------------
`h2` does frames, HPACK, stream states and windows (`h2_connection` sets it up). Three things it cannot do, so a gate
(`gate`) stands in front of it: received bytes are cut into whole frames and handed over one at a time.

1. Draining. `h2` closes its state machine on any GOAWAY, sent or received, and streams in flight then fail. So received
   GOAWAY frames are kept from it and ours are written by hand, and streams at or below the last id finish (RFC 9113
   section 6.8). Our own goodbye is the graceful one: GOAWAY 2^31-1 and a PING; when the PING comes back, every stream
   the peer had opened before it read our GOAWAY is here, and GOAWAY with the true last id follows.
2. Limits. What is too large ends the connection before it is buffered. One stream too many is refused alone.
3. Events before a fault. `h2` loses the events of earlier frames in a read when a later frame is wrong; frame by frame
   nothing is lost.

`h2` judges no header here (all its validation is off): a head is judged in one place, `sidecar.http.headers`, where a
bad one costs its own stream only, and bodies are counted against content-length by the exchange.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes
from hpack.exceptions import HPACKError

from sidecar.config import Limits
from sidecar.errors import RequestError
from sidecar.http.gate import SETTINGS, STREAM_ID_MAX, Frame, FrameGate, GateFault, frame_octets, goaway_octets
from sidecar.http.h2_connection import NO_SINK, OpenStream, cap_encoder, header_tuples, make_connection, received_fields
from sidecar.http.headers import check_outgoing
from sidecar.http.session import ErrorCode, Fields, ServerHandler, StreamSink

DRAIN_PING = b"hbkdrain"
KEEP_ALIVE_PING = b"hbkalive"


class ReferenceSession:
    """`sidecar.http.session.Session` on `h2`. A server session has a `handler`, a client session has none."""

    def __init__(self, handler: ServerHandler | None, limits: Limits, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.closed = False
        self.fault: RequestError | None = None
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.peer_error = ErrorCode.NO_ERROR
        """Code of the GOAWAY received, or of the fault we found."""
        self._handler = handler
        self._limits = limits
        self._clock = clock
        self._pings = 0
        self._streams: dict[int, OpenStream] = {}
        self._blocked: dict[int, None] = {}
        self._gate = FrameGate(
            header_block_octets_max=4 * limits.header_list_octets_max, expects_preface=handler is not None
        )
        self._out = bytearray()
        self._queued = 0
        self._unsent = 0
        self._draining = False
        self._last_accepted = STREAM_ID_MAX
        self._conn = self._begin()

    def _begin(self) -> H2Connection:
        conn = make_connection(self._limits, is_client=self._handler is None)
        self._out += conn.data_to_send()
        # h2 would end the connection over one stream too many, so it is not told of the limit; the peer is.
        streams = struct.pack(">HL", SettingCodes.MAX_CONCURRENT_STREAMS, self._limits.streams_per_connection_max)
        self._out += frame_octets(SETTINGS, 0, streams)
        if self._limits.connection_window_octets > 65_535:
            conn.increment_flow_control_window(self._limits.connection_window_octets - 65_535)
        return conn

    def __repr__(self) -> str:
        role = "server" if self._handler else "client"
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<http2 reference {role}, {state}, {len(self._streams)} streams>"

    # Receiving: bytes -> frames -> h2 -> sinks

    def receive(self, data: bytes) -> None:
        self._gate.push(data)
        try:
            while not self.closed and (frame := self._gate.pop()) is not None:
                self._frame(frame)
        except GateFault as e:
            self._fail(e.code)

    def _frame(self, frame: Frame) -> None:
        """What `h2` must not see is taken here."""
        if frame.is_goaway:
            self._goaway_received(*frame.goaway)
            return
        self._feed(frame.octets)

    def _feed(self, frame: bytes) -> None:
        try:
            events = self._conn.receive_data(frame)
        except ProtocolError as e:
            is_oversized = int(e.error_code) == ErrorCode.ENHANCE_YOUR_CALM  # an HPACKError too
            is_hpack = isinstance(e.__cause__, HPACKError) and not is_oversized
            self._fail(ErrorCode.COMPRESSION_ERROR if is_hpack else int(e.error_code))
            return
        for event in events:
            if self.closed:
                return
            self._event(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data_received(event)
        elif isinstance(event, WindowUpdated):
            self._wake()
        elif isinstance(event, RequestReceived):
            self._request_received(event)
        elif isinstance(event, (ResponseReceived, TrailersReceived, InformationalResponseReceived)):
            self._head_received(event)
        elif isinstance(event, StreamReset):
            self._reset_received(event)
        elif isinstance(event, RemoteSettingsChanged):
            cap_encoder(self._conn)
            self._wake()
        elif isinstance(event, PingAckReceived):
            if event.ping_data == KEEP_ALIVE_PING:
                self._pings = 0
            elif event.ping_data == DRAIN_PING and self._draining:
                self._drain_confirmed()

    def _request_received(self, event: RequestReceived) -> None:
        stream = event.stream_id
        if self._handler is None:  # a server begins no streams (RFC 9113 section 5.1.1), but h2 lets it
            self._fail(ErrorCode.PROTOCOL_ERROR)
            return
        if len(self._streams) >= self._limits.streams_per_connection_max or stream > self._last_accepted:
            self._conn.reset_stream(stream, ErrorCode.REFUSED_STREAM)
            return
        end = event.stream_ended is not None
        state = OpenStream(None)
        state.received_end = end
        self._streams[stream] = state
        sink = self._handler.request(self, stream, received_fields(event.headers), end)
        state.sink = sink
        if state.reset_early is not None:
            sink.reset(state.reset_early, False)
        else:
            self._forget_if_over(stream, state)

    def _head_received(self, event: ResponseReceived | TrailersReceived | InformationalResponseReceived) -> None:
        stream = event.stream_id
        state = self._streams.get(stream)
        if state is None:
            return
        fields = received_fields(event.headers)
        if isinstance(event, InformationalResponseReceived):
            state.sink.informational(fields)
            return
        if isinstance(event, TrailersReceived):
            self._received_end(stream, state)
            state.sink.trailers(fields)
            return
        end = event.stream_ended is not None
        if end:
            self._received_end(stream, state)
        state.sink.head(fields, end)

    def _data_received(self, event: DataReceived) -> None:
        stream = event.stream_id
        flow = event.flow_controlled_length
        state = self._streams.get(stream)
        if state is None:
            self.consumed(stream, flow)
            return
        end = event.stream_ended is not None
        if end:
            self._received_end(stream, state)
        state.sink.data(event.data, flow, end)

    def _reset_received(self, event: StreamReset) -> None:
        stream = event.stream_id
        state = self._streams.pop(stream, None)
        if state is None:
            return
        self._blocked.pop(stream, None)
        code = int(event.error_code or 0)
        unprocessed = event.remote_reset and code == ErrorCode.REFUSED_STREAM
        state.sink.reset(code, unprocessed)
        self._close_if_drained()

    def _goaway_received(self, last: int, code: int) -> None:
        self.peer_error = code
        if self._handler is not None:
            return  # a client that leaves finishes what it began and then closes
        self._draining = True
        for stream in [s for s in self._streams if s > last]:
            state = self._streams.pop(stream, None)
            if state is None:  # reset by what the sink before it did
                continue
            self._blocked.pop(stream, None)
            self._try(lambda stream=stream: self._conn.reset_stream(stream, ErrorCode.CANCEL))  # type: ignore[misc]
            state.sink.reset(ErrorCode.REFUSED_STREAM, True)
        self._close_if_drained()

    def _received_end(self, stream: int, state: OpenStream) -> None:
        state.received_end = True
        self._forget_if_over(stream, state)

    def _forget_if_over(self, stream: int, state: OpenStream) -> None:
        if state.received_end and state.sent_end and self._streams.get(stream) is state:
            del self._streams[stream]
            self._close_if_drained()

    def eof(self) -> None:
        self._end_all(ErrorCode.CANCEL)

    def _fail(self, code: int) -> None:
        """A fault of the connection, or our own wish: say goodbye and end every stream."""
        self.peer_error = code
        self._out += self._conn.data_to_send()
        self._out += goaway_octets(self._conn.highest_inbound_stream_id, code)
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

    # Sending: sinks -> h2 -> bytes

    def take(self) -> bytes:
        self._out += self._conn.data_to_send()
        self._queued = 0
        out = bytes(self._out)
        self._out.clear()
        self._unsent += len(out)
        return out

    def sent(self, unsent: int) -> None:
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
        limit = min(self._conn.remote_settings.max_concurrent_streams, self._limits.streams_per_connection_max)
        return len(self._streams) < limit and self._conn.highest_outbound_stream_id < STREAM_ID_MAX - 2

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
        state = OpenStream(sink)
        state.sent_end = end
        self._streams[stream] = state
        return stream

    def informational(self, stream: int, fields: Fields) -> None:
        if self._can_send(stream):
            check_outgoing(fields)
            self._try(lambda: self._conn.send_headers(stream, header_tuples(fields), False))

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        self._send_fields(stream, fields, end)

    def trailers(self, stream: int, fields: Fields) -> None:
        self._send_fields(stream, fields, True)

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
        self._queued += len(data)
        if end:
            self._sent_end(stream, state)

    def _can_send(self, stream: int) -> OpenStream | None:
        """The stream, if our half of it is open. What is said after it would make `h2` close the other half too."""
        state = self._streams.get(stream)
        return None if state is None or state.sent_end else state

    def _sent_end(self, stream: int, state: OpenStream) -> None:
        state.sent_end = True
        self._blocked.pop(stream, None)
        self._forget_if_over(stream, state)

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

    def _try(self, call: Callable[[], None]) -> None:
        """`h2` refuses frames for a stream the peer has just reset; whoever owns it hears of that from the reset."""
        try:
            call()
        except (H2Error, KeyError):
            pass

    # The end

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
        self._out += goaway_octets(STREAM_ID_MAX, ErrorCode.NO_ERROR)
        self._conn.ping(DRAIN_PING)

    def _drain_confirmed(self) -> None:
        self._last_accepted = self._conn.highest_inbound_stream_id
        self._out += self._conn.data_to_send()
        self._out += goaway_octets(self._last_accepted, ErrorCode.NO_ERROR)
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
