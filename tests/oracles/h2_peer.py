"""`h2` by itself as the other end of a wire: its own validation on, every byte ours and read as strictly as it can.

Not a third engine: it raises where an engine would answer a fault, so that whatever our engines say is either valid to
`h2` or fails the test. It gives credit back at once for what is consumed, and knows no limits of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from sidecar.errors import RequestError
from sidecar.http.session import ErrorCode, Fields, ServerHandler, StreamSink


class H2Peer:
    """The calls of `sidecar.http.session.Session` that a conversation needs, on a plain `H2Connection`."""

    def __init__(self, handler: ServerHandler | None) -> None:
        self.closed = False
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.slice_frames = 0
        self.has_more = False
        self.fault: RequestError | None = None
        self.draining = False
        self.awaits_pong = self.awaits_rest = False
        self.settings_acknowledged = False
        self._handler = handler
        config = H2Configuration(client_side=handler is None, header_encoding=None)
        self.conn = H2Connection(config)
        self.conn.initiate_connection()
        self._sinks: dict[int, StreamSink] = {}
        self._half_ended: set[int] = set()
        self._blocked: dict[int, None] = {}

    # Receiving

    def receive(self, data: bytes) -> None:
        events = self.conn.receive_data(data)
        ended = {event.stream_id for event in events if isinstance(event, StreamEnded)}
        for event in events:
            self._event(event, ended)
        self._wake()

    def _event(self, event: Event, ended: set[int]) -> None:
        if isinstance(event, RequestReceived):
            assert self._handler is not None
            end = event.stream_ended is not None
            sink = self._handler.request(self, event.stream_id, _fields(event.headers), end)
            self._sinks[event.stream_id] = sink
            self._ended(event.stream_id, end)
        elif isinstance(event, ConnectionTerminated):
            self.draining = True
        elif isinstance(event, SettingsAcknowledged):
            self.settings_acknowledged = True
        elif isinstance(event, WindowUpdated):
            pass  # `_wake` follows
        else:
            self._stream_event(event)

    def _stream_event(self, event: Event) -> None:
        stream = getattr(event, "stream_id", None)
        sink = self._sinks.get(stream) if isinstance(stream, int) else None
        if sink is None or not isinstance(stream, int):
            return
        if isinstance(event, InformationalResponseReceived):
            sink.informational(_fields(event.headers))
        elif isinstance(event, ResponseReceived):
            self._ended(stream, event.stream_ended is not None)
            sink.head(_fields(event.headers), event.stream_ended is not None)
        elif isinstance(event, TrailersReceived):
            self._ended(stream, True)
            sink.trailers(_fields(event.headers))
        elif isinstance(event, DataReceived):
            self._ended(stream, event.stream_ended is not None)
            sink.data(event.data, event.flow_controlled_length, event.stream_ended is not None)
        elif isinstance(event, StreamReset):
            del self._sinks[stream]
            self._blocked.pop(stream, None)
            sink.reset(int(event.error_code or 0), event.error_code == ErrorCode.REFUSED_STREAM)

    def _ended(self, stream: int, end: bool) -> None:
        """One more half is over."""
        if end and stream in self._half_ended:
            del self._sinks[stream]
        elif end:
            self._half_ended.add(stream)

    def eof(self) -> None:
        self._end_all(ErrorCode.CANCEL)

    def _end_all(self, code: int) -> None:
        self.closed = True
        while self._sinks:
            _, sink = self._sinks.popitem()
            sink.reset(code, False)

    # Sending

    def take(self) -> bytes:
        return self.conn.data_to_send()

    def sent(self, unsent: int) -> None:
        self._wake()

    @property
    def can_open(self) -> bool:
        return (
            not self.draining
            and not self.closed
            and self.open_streams < self.conn.remote_settings.max_concurrent_streams
        )

    @property
    def open_streams(self) -> int:
        return len(self._sinks)

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        stream = self.conn.get_next_available_stream_id()
        self.conn.send_headers(stream, fields, end)
        self._sinks[stream] = sink
        self._ended(stream, end)
        return stream

    def informational(self, stream: int, fields: Fields) -> None:
        if stream in self._sinks:
            self.conn.send_headers(stream, fields)

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        if stream in self._sinks:
            self.conn.send_headers(stream, fields, end)
            self._ended(stream, end)

    def data(self, stream: int, data: bytes, end: bool) -> None:
        if stream not in self._sinks:
            return
        size = self.conn.max_outbound_frame_size
        for start in range(0, max(1, len(data)), size):
            self.conn.send_data(stream, data[start : start + size], end and start + size >= len(data))
        self._ended(stream, end)

    def trailers(self, stream: int, fields: Fields) -> None:
        if stream in self._sinks:
            self.conn.send_headers(stream, fields, True)
            self._ended(stream, True)

    def reset(self, stream: int, code: int) -> None:
        if self._sinks.pop(stream, None) is not None:
            self._blocked.pop(stream, None)
            self.conn.reset_stream(stream, code)

    def credit(self, stream: int) -> int:
        return max(0, self.conn.local_flow_control_window(stream)) if stream in self._sinks else 0

    def want_write(self, stream: int) -> None:
        if stream in self._sinks:
            self._blocked[stream] = None

    def _wake(self) -> None:
        for stream in list(self._blocked):
            if stream in self._blocked and self.credit(stream) > 0:
                del self._blocked[stream]
                self._sinks[stream].writable()

    def consumed(self, stream: int, flow: int) -> None:
        if flow and not self.closed:
            self.conn.acknowledge_received_data(flow, stream)

    def ping(self) -> None:
        self.conn.ping(b"h2h2h2h2")

    def drain(self) -> None:
        self.draining = True

    def shutdown(self, code: int) -> None:
        self.conn.close_connection(code)
        self._end_all(code)


def _fields(headers: object) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in cast("list[tuple[bytes, bytes]]", headers)]
