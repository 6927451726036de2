"""Frames that were on their way when a stream was reset: nobody's fault, and no other request's end.

All requests between two sidecars share one connection. If a cancelled request could end it, one caller could end every
other caller's (security.md section 0, finding 8)."""

from __future__ import annotations

import struct

import pytest
from hpack import Encoder

from sidecar.config import Limits
from sidecar.http.engines import HTTP2_ENGINES, http2_engine
from sidecar.http.session import ErrorCode, Fields
from tests.attacks.support import request

pytestmark = pytest.mark.parametrize("engine", HTTP2_ENGINES)

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0x0, 0x1, 0x2, 0x3, 0x4, 0x8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def head(flags: int, stream: int, *fields: tuple[bytes, bytes]) -> bytes:
    return frame(HEADERS, flags, stream, Encoder().encode(list(fields)))


CROSSING = {
    "interim head": head(0x4, 1, (b":status", b"103")),
    "head": head(0x4, 1, (b":status", b"200")),
    "whole answer": head(0x5, 1, (b":status", b"200")),
    "trailers": head(0x5, 1, (b"grpc-status", b"0")),
    "body": frame(DATA, 0, 1, b"x" * 100),
    "end of body": frame(DATA, 1, 1, b"x"),
    "credit": frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 5)),
    "too much credit": frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 2**31 - 1)),
    "reset": frame(RST_STREAM, 0, 1, struct.pack(">L", 8)),
    "priority": frame(PRIORITY, 0, 1, b"\0\0\0\0\1"),
}


class Sink:
    def __init__(self) -> None:
        self.said: list[str] = []

    def informational(self, fields: Fields) -> None:
        self.said.append("informational")

    def head(self, fields: Fields, end: bool) -> None:
        self.said.append("head")

    def data(self, data: bytes, flow: int, end: bool) -> None:
        self.said.append("data")

    def trailers(self, fields: Fields) -> None:
        self.said.append("trailers")

    def reset(self, code: int, unprocessed: bool) -> None:
        self.said.append("reset")

    def writable(self) -> None: ...


@pytest.mark.parametrize("name", CROSSING)
@pytest.mark.parametrize("later", [0, 1, 5])
def test_a_frame_that_crosses_our_reset_ends_nothing_else(engine: str, name: str, later: int) -> None:
    """Whatever an answer is made of, and however many requests were begun since the reset."""
    session = http2_engine(engine)(None, Limits())
    session.receive(frame(SETTINGS, 0, 0))
    gone, other = Sink(), Sink()
    session.request(request(), True, gone)
    open_stream = session.request(request(), True, other)
    session.reset(1, ErrorCode.CANCEL)
    for _ in range(later):
        session.request(request(), True, Sink())
    session.receive(CROSSING[name])
    assert not session.closed
    assert gone.said == []
    session.receive(head(0x5, open_stream, (b":status", b"200")))
    assert other.said == ["head"]


@pytest.mark.parametrize("flags", [0x4, 0x5])
@pytest.mark.parametrize("stream", [2, 2**31 - 2])
def test_a29_a_server_that_begins_a_stream_is_said_goodbye(engine: str, stream: int, flags: int) -> None:
    """A malicious upstream asks us something: the connection ends in order, nothing escapes from `receive`."""
    session, sink = http2_engine(engine)(None, Limits()), Sink()
    session.receive(frame(SETTINGS, 0, 0))
    session.request(request(), True, sink)
    session.receive(head(flags, stream, *request(b"/admin")))
    assert session.closed
    assert session.fault is not None
    assert vars(session)["peer_error"] == ErrorCode.PROTOCOL_ERROR
    assert sink.said == ["reset"]
