"""Sinks and handlers that write down what a session tells them, for dialogues in tests."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config import Limits
from sidecar.http.http1 import Http1Client, Http1Server
from sidecar.http.session import Fields, ServerHandler, Session, StreamSink

LIMITS = Limits()
OK: Fields = [(b":status", b"200")]


class Recorder:
    """A StreamSink that keeps what it hears, and the rules of its interface."""

    def __init__(self) -> None:
        self.heads: list[Fields] = []
        self.interim: list[Fields] = []
        self.body = b""
        self.calls = 0
        self.trailer: Fields | None = None
        self.ended = 0
        self.resets: list[tuple[int, bool]] = []
        self.woken = 0
        self.on_data: Callable[[int], None] = lambda flow: None

    def informational(self, fields: Fields) -> None:
        assert not self.heads
        self._alive()
        self.interim.append(fields)

    def head(self, fields: Fields, end: bool) -> None:
        self._alive()
        assert not self.heads
        self.heads.append(fields)
        self.ended += end

    def data(self, data: bytes, flow: int, end: bool) -> None:
        self._alive()
        assert flow == len(data)
        self.calls += 1
        self.body += data
        self.ended += end
        self.on_data(flow)

    def trailers(self, fields: Fields) -> None:
        self._alive()
        self.trailer = fields
        self.ended += 1

    def reset(self, code: int, unprocessed: bool) -> None:
        assert not self.resets
        self.resets.append((code, unprocessed))

    def writable(self) -> None:
        self.woken += 1

    def _alive(self) -> None:
        assert not self.ended
        assert not self.resets


class Requests:
    """A ServerHandler that answers nothing by itself."""

    def __init__(self) -> None:
        self.heads: list[Fields] = []
        self.ends: list[bool] = []
        self.sinks: list[Recorder] = []
        self.streams: list[int] = []

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        self.heads.append(fields)
        self.ends.append(end)
        self.streams.append(stream)
        sink = Recorder()
        sink.ended += end
        self.sinks.append(sink)
        return sink


class Answers:
    """A ServerHandler that answers every request at once, from within `request`."""

    def __init__(self, fields: Fields = OK, body: bytes = b"") -> None:
        self.heads: list[Fields] = []
        self._fields = fields
        self._body = body

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        self.heads.append(fields)
        session.head(stream, self._fields, not self._body)
        if self._body:
            session.data(stream, self._body, True)
        if not end:
            session.reset(stream, 0)
        return Recorder()


def server(handler: ServerHandler, limits: Limits = LIMITS) -> Http1Server:
    return Http1Server(handler, limits=limits)


def asked(raw: bytes) -> tuple[Http1Server, Requests]:
    """A server that has received `raw` in one piece."""
    handler = Requests()
    session = server(handler)
    session.receive(raw)
    return session, handler


def get(path: bytes = b"/", *extra: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"app"), (b":path", path), *extra]


def client(limits: Limits = LIMITS) -> Http1Client:
    return Http1Client(limits=limits)


def is_closed(session: Session) -> bool:
    """`session.closed`, without the type checker believing that it stays so."""
    return session.closed
