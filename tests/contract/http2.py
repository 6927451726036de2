"""The other end of an HTTP/2 session, speaking frames: for dialogues with every engine.

Frames are built by hyperframe and read by it, so that neither side of a dialogue is an engine's own code. `frame`
builds those that hyperframe refuses to.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from sidecar.config import Limits
from sidecar.http.engines import http2_engine
from sidecar.http.frames import PREFACE
from sidecar.http.session import Fields
from tests.contract.sessions import GET, OK, POST, Handler, StrictSink

LIMITS = Limits()
RESPONSE = Encoder().encode([(b":status", b"200")])


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame's octets (RFC 9113 section 4.1), whatever they mean."""
    size = len(payload)
    return struct.pack(">HBBBL", size >> 8, size & 0xFF, kind, flags, stream) + payload


class Peer:
    """The other end of one session, speaking frames."""

    def __init__(
        self,
        engine: str,
        *,
        is_client: bool = True,
        limits: Limits = LIMITS,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.handler = Handler()
        self.session = http2_engine(engine)(self.handler if is_client else None, limits, clock)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.greeting = self.read()
        if is_client:
            self.session.receive(PREFACE)
        self.send(SettingsFrame(0))

    def send(self, *frames: Frame) -> None:
        self.session.receive(b"".join(frame.serialize() for frame in frames))

    def read(self) -> list[Frame]:
        """What the session said since."""
        data = self.session.take()
        self.session.sent(0)
        if data.startswith(PREFACE):
            data = data[len(PREFACE) :]
        frames = []
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            frames.append(frame)
            data = data[9 + length :]
        return frames

    def head(self, stream: int, fields: Fields = GET, *flags: str) -> HeadersFrame:
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags or ["END_HEADERS", "END_STREAM"])

    def goodbye(self) -> int:
        """The code of the GOAWAY that ended the connection."""
        frames = self.read()
        last = frames[-1]
        assert isinstance(last, GoAwayFrame), frames
        assert sum(isinstance(frame, GoAwayFrame) for frame in frames) == 1
        assert self.session.closed
        return last.error_code

    def resets(self) -> dict[int, int]:
        return {f.stream_id: f.error_code for f in self.read() if isinstance(f, RstStreamFrame)}

    @property
    def requests(self) -> list[StrictSink]:
        return self.handler.sinks


def served(peer: Peer, stream: int) -> None:
    """The connection lives: a request on `stream` is told and answered."""
    before = len(peer.requests)
    peer.send(peer.head(stream))
    assert len(peer.requests) == before + 1
    sink = peer.requests[-1]
    peer.session.head(sink.stream, OK, True)
    heads = [f for f in peer.read() if isinstance(f, HeadersFrame) and f.stream_id == stream]
    assert len(heads) == 1


def asking(engine: str, *, limits: Limits = LIMITS, count: int = 1, end: bool = False) -> tuple[Peer, list[StrictSink]]:
    """A client session with open streams, and the server at its other end."""
    peer = Peer(engine, is_client=False, limits=limits)
    sinks = []
    for _ in range(count):
        sink = StrictSink(is_client=True)
        sink.attach(peer.session, peer.session.request(GET if end else POST, end, sink))
        sinks.append(sink)
    peer.read()
    return peer, sinks
