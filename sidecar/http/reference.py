"""HTTP/2 on the `h2` package: the strict and simple engine, and the oracle for a faster one.

Theory of operation
-------------------
`h2` does frames, HPACK, stream states and windows (`h2_connection` sets it up). Three things it cannot do, so a gate
(`gate`) stands in front of it: received bytes are cut into whole frames and handed over one at a time. This file
listens; `reference_core` speaks and ends.

1. Draining. `h2` closes its state machine on any GOAWAY, sent or received, and streams in flight then fail. So received
   GOAWAY frames are kept from it and ours are written by hand, and streams at or below the last id finish (RFC 9113
   section 6.8). Our own goodbye is the graceful one: GOAWAY 2^31-1 and a PING; when the PING comes back, every stream
   the peer had opened before it read our GOAWAY is here, and GOAWAY with the true last id follows.
2. Limits. What is too large ends the connection before it is buffered. One stream too many is refused alone. Floods
   spend the connection's budgets (`budgets`): what a frame's kind tells is charged by the gate, what takes the stream's
   state to tell is charged here, the resets that `h2` writes by itself among it.
3. Events before a fault. `h2` loses the events of earlier frames in a read when a later frame is wrong; frame by frame
   nothing is lost.

`h2` judges no header here (all its validation is off): a head is judged in one place, `sidecar.http.headers`, where a
bad one costs its own stream only, and bodies are counted against content-length by the exchange.
"""

from __future__ import annotations

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
from h2.exceptions import ProtocolError

from sidecar.errors import BadRequest, PeerFlood, UpstreamFailed
from sidecar.http.budgets import TINY_OCTETS
from sidecar.http.frames import DATA, DRAIN_PING, HEADERS, KEEP_ALIVE_PING, RST_STREAM
from sidecar.http.gate import Frame, GateFault
from sidecar.http.h2_connection import OpenStream, cap_encoder, fault_of, received_fields
from sidecar.http.reference_core import ReferenceCore
from sidecar.http.session import ErrorCode


class ReferenceSession(ReferenceCore):
    """`sidecar.http.session.Session` on `h2`. A server session has a `handler`, a client session has none."""

    # Receiving: bytes -> frames -> h2 -> sinks

    def receive(self, data: bytes) -> None:
        self._gate.push(data)
        self.has_more = False
        left = self.slice_frames
        try:
            while not self.closed and (frame := self._gate.pop()) is not None:
                self._frame(frame)
                left -= 1
                if not left:
                    self.has_more = True
                    break
        except GateFault as e:
            self._faulty(e.code, e.row, e.detail)
        except PeerFlood as e:
            self._flood(e)

    def _frame(self, frame: Frame) -> None:
        """What `h2` must not see is taken here. Raises PeerFlood."""
        if frame.is_goaway:
            self._goaway_received(*frame.goaway)
            return
        if frame.stream and frame.stream not in self._streams:
            self._charge_late(frame)
        self._feed(frame)

    def _charge_late(self, frame: Frame) -> None:
        """The stream is over, or this begins it. What crossed its end is no fault, but endless it may not be."""
        if frame.kind == RST_STREAM:
            self._budgets.reset_late(self._clock())
        elif frame.kind == DATA or (frame.kind == HEADERS and not self._begins(frame.stream)):
            self._budgets.glitch("A30", self._clock())

    def _begins(self, stream: int) -> bool:
        return self._handler is not None and stream > self._conn.highest_inbound_stream_id

    def _feed(self, frame: Frame) -> None:
        """Raises PeerFlood."""
        resets = self._conn.resets_elicited
        try:
            events = self._conn.receive_data(frame.octets)
        except ProtocolError as e:
            self._faulty(*fault_of(e), detail=str(e))
            return
        for event in events:
            if self.closed:
                return
            self._event(event)
        for _ in range(self._conn.resets_elicited - resets):
            self._budgets.reply_queued("A11")
            self._budgets.reset_elicited()

    def _faulty(self, code: int, row: str, detail: str) -> None:
        kind = UpstreamFailed if self._handler is None else BadRequest
        self.fault = kind(detail, row=row)
        self._fail(code)

    def _flood(self, flood: PeerFlood) -> None:
        self.fault = flood
        self._fail(ErrorCode.ENHANCE_YOUR_CALM)

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
            self._faulty(ErrorCode.PROTOCOL_ERROR, "A29", "a server began a stream")
            return
        if len(self._streams) >= self._limits.streams_per_connection_max or stream > self._last_accepted:
            self._conn.reset_stream(stream, ErrorCode.REFUSED_STREAM)
            self._budgets.reply_queued("A28")
            self._budgets.glitch("A28", self._clock())
            return
        end = event.stream_ended is not None
        state = OpenStream(None, self._clock())
        state.received_end = end
        self._streams[stream] = state
        self._count_stream(stream)
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
        elif 0 < len(event.data) < TINY_OCTETS and state.waiting > 0:
            state.tiny += 1
            self._budgets.tiny_data()
        state.waiting += flow
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
        if event.remote_reset and self._handler is not None:
            age_s = self._clock() - state.opened_at
            self._budgets.reset_received(age_s=age_s, was_answered=state.is_answered)

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
