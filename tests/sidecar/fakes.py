"""Stand-ins that honour the contract of `sidecar.http.session`, and fail whoever breaks it."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.errors import RequestError
from sidecar.http.session import Fields, StreamSink


class FakeSession:
    """One stream of one session. What is said to it is kept; the test says what the peer says.

    Like every engine it ignores calls for a stream that is gone, and hears of credit only through `consumed`."""

    def __init__(self, *, is_server: bool, credit: int = 1_000_000) -> None:
        self.closed = False
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.draining = False
        self.awaits_rest = False
        self.slice_frames = 0
        self.has_more = False
        self.fault: RequestError | None = None
        self.awaits_pong = False
        self.refuses_fields = False
        self.is_server = is_server
        self.sink: StreamSink | None = None
        self.stream = 1
        # What was said to it
        self.calls: list[str] = []
        self.interim: list[Fields] = []
        self.heads: list[Fields] = []
        self.body = bytearray()
        self.trailer_fields: Fields | None = None
        self.sent_end = False
        self.reset_code: int | None = None
        """Of our own reset."""
        # What the peer said
        self.peer_ended = False
        self.peer_reset = False
        self.received = bytearray()
        self.flow_received = 0
        self.flow_returned = 0
        self._credit = credit
        self._wanted = False

    def __hash__(self) -> int:
        return id(self)

    # The peer's side

    @property
    def is_gone(self) -> bool:
        return self.reset_code is not None or self.peer_reset or (self.sent_end and self.peer_ended)

    @property
    def may_speak(self) -> bool:
        """Would an engine still tell what the peer says?"""
        return self.sink is not None and not self.peer_ended and not self.is_gone

    def peer_data(self, data: bytes, *, padding: int = 0, end: bool = False) -> None:
        assert self.may_speak
        assert self.sink is not None
        self.peer_ended = end
        self.received += data
        self.flow_received += len(data) + padding
        self.sink.data(data, len(data) + padding, end)

    def peer_trailers(self, fields: Fields) -> None:
        assert self.may_speak
        assert self.sink is not None
        self.peer_ended = True
        self.sink.trailers(fields)

    def peer_head(self, fields: Fields, *, end: bool = False) -> None:
        assert self.may_speak
        assert self.sink is not None
        self.peer_ended = end
        self.sink.head(fields, end)

    def peer_informational(self, fields: Fields) -> None:
        assert self.may_speak
        assert self.sink is not None
        self.sink.informational(fields)

    def peer_resets(self, code: int, *, unprocessed: bool = False) -> None:
        assert not self.is_gone
        assert self.sink is not None
        self.peer_reset = True
        self.sink.reset(code, unprocessed)

    def grant(self, octets: int) -> None:
        """The peer takes more."""
        self._credit += octets
        if self._wanted and self._credit > 0 and not self.is_gone:
            self._wanted = False
            assert self.sink is not None
            self.sink.writable()

    # Session

    def receive(self, data: bytes) -> None:
        raise AssertionError("the test speaks for the peer")

    def eof(self) -> None:
        raise AssertionError("the test speaks for the peer")

    def take(self) -> bytes:
        return b""

    def sent(self, unsent: int) -> None: ...

    @property
    def can_open(self) -> bool:
        return not self.is_server and self.sink is None

    @property
    def open_streams(self) -> int:
        return 0 if self.is_gone or self.sink is None else 1

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        assert self.can_open
        self.calls.append("request")
        if self.refuses_fields:
            raise ValueError("CR, LF or NUL in a field to be sent")
        self.sink = sink
        self.heads.append(fields)
        self.sent_end = end
        return self.stream

    def _is_heard(self, call: str, stream: int) -> bool:
        assert stream == self.stream
        self.calls.append(call)
        return not self.is_gone

    def ping(self) -> None: ...
    def informational(self, stream: int, fields: Fields) -> None:
        assert self.is_server
        if self._is_heard("informational", stream):
            assert not self.heads, "1xx after the final head"
            self.interim.append(fields)

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        assert self.is_server
        if self._is_heard("head", stream):
            assert not self.heads, "two heads"
            self.heads.append(fields)
            self.sent_end = end

    def data(self, stream: int, data: bytes, end: bool) -> None:
        if self._is_heard("data", stream):
            assert self.heads, "body before the head"
            assert not self.sent_end, "body after the end"
            assert len(data) <= self._credit, "more than the credit there is"
            self._credit -= len(data)
            self.body += data
            self.sent_end = end

    def trailers(self, stream: int, fields: Fields) -> None:
        if self._is_heard("trailers", stream):
            assert self.heads, "trailers before the head"
            assert not self.sent_end, "trailers after the end"
            self.trailer_fields = fields
            self.sent_end = True

    def reset(self, stream: int, code: int) -> None:
        if self._is_heard("reset", stream):
            self.reset_code = code

    def credit(self, stream: int) -> int:
        return 0 if self.is_gone or self.sent_end else max(0, self._credit)

    def want_write(self, stream: int) -> None:
        self._wanted = not self.is_gone

    def consumed(self, stream: int, flow: int) -> None:
        self.flow_returned += flow
        assert self.flow_returned <= self.flow_received, "more credit returned than was received"

    def drain(self) -> None:
        self.draining = True

    def shutdown(self, code: int) -> None:
        raise AssertionError("an exchange never ends a connection")
