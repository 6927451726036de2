"""Frames as the other end of a session writes and reads them, without a line of the engines' own code.

Written by `struct`, because much of what is sent here no library would write; read by hyperframe and hpack.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias, cast

from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

Field: TypeAlias = tuple[bytes, bytes]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_OCTETS_MAX = 16_384
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)
KINDS = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)
SETTINGS_DEFAULTS = {1: 4_096, 2: 1, 3: 2**32 - 1, 4: 65_535, 5: 16_384, 6: 2**32 - 1, 8: 0}


# Writing


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(entries: Iterable[tuple[int, int]] = (), *, ack: bool = False) -> bytes:
    return frame(SETTINGS, ACK if ack else 0, 0, b"".join(struct.pack(">HI", *entry) for entry in entries))


def long(value: int) -> bytes:
    return struct.pack(">I", value)


def padded(payload: bytes, octets: int) -> bytes:
    """Payload of a frame with the PADDED flag."""
    return bytes((octets,)) + payload + bytes(octets)


def header_frames(stream: int, block: bytes, flags: int, splits: Sequence[int], *, pad: int = 0) -> list[bytes]:
    """HEADERS and a CONTINUATION for each further piece of `block`; `splits`: where it is cut.

    `flags` may hold END_STREAM; with `pad` octets of padding in the first frame."""
    bounds = [0, *sorted(splits), len(block)]
    pieces = [block[start:end] for start, end in pairwise(bounds)]
    kind = HEADERS
    out = []
    for index, piece in enumerate(pieces):
        last = END_HEADERS if index == len(pieces) - 1 else 0
        if kind == HEADERS and pad:
            out.append(frame(kind, flags | last | PADDED, stream, padded(piece, pad)))
        else:
            out.append(frame(kind, flags | last, stream, piece))
        kind, flags = CONTINUATION, 0
    return out


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """RFC 7541 section 5.1; `first`: the bits before the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def literal(fields: Iterable[Field], first: int = 0x00, prefix_bits: int = 4) -> bytes:
    """Literal fields with new names, no Huffman (RFC 7541 section 6.2). `first`: 0x00 not indexed, 0x10 never, 0x40
    (with 6 bits) indexed."""
    out = b""
    for name, value in fields:
        out += integer(0, prefix_bits, first) + integer(len(name), 7) + name + integer(len(value), 7) + value
    return out


# What the peer sent, seen as frames again


class PeerFrame(NamedTuple):
    """A frame as the engine is to read it."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    length: int
    """As its head says; the payload of one that is too large is not waited for."""

    def __str__(self) -> str:
        kind = KINDS[self.kind] if self.kind < len(KINDS) else f"kind {self.kind}"
        return f"{kind} flags={self.flags:#x} stream={self.stream} length={self.length}"

    @property
    def depends_on(self) -> int | None:
        """Of PRIORITY, or HEADERS with that flag: the stream it names."""
        payload = self.payload
        if self.kind == HEADERS:
            if not self.flags & HAS_PRIORITY:
                return None
            payload = payload[1:] if self.flags & PADDED else payload
        return int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF if len(payload) >= 4 else None

    @property
    def content(self) -> bytes | None:
        """Of DATA or HEADERS, without padding and priority; None: malformed."""
        payload = self.payload
        if self.flags & PADDED:
            if not payload or payload[0] >= len(payload):
                return None
            payload = payload[1 : len(payload) - payload[0]]
        if self.kind == HEADERS and self.flags & HAS_PRIORITY:
            return payload[5:] if len(payload) >= 5 else None
        return payload


class Splitter:
    """Cuts the peer's bytes where frames end, whatever a mutation did to their lengths."""

    def __init__(self, *, expects_preface: bool) -> None:
        self._left = b""
        self._preface = expects_preface

    def push(self, data: bytes) -> list[tuple[bytes, PeerFrame | None]]:
        """The bytes, in pieces that each complete a frame; the last may complete none."""
        out: list[tuple[bytes, PeerFrame | None]] = []
        while data:
            size = self._missing(data)
            piece, data = data[:size], data[size:]
            self._left += piece
            out.append((piece, self._pop()))
        return out

    def _missing(self, data: bytes) -> int:
        if self._preface:
            return len(PREFACE) - len(self._left)
        if len(self._left) < 9:
            head = (self._left + data)[:9]
            if len(head) < 9:
                return len(data)
            length = int.from_bytes(head[:3], "big")
            return 9 + (length if length <= FRAME_OCTETS_MAX else 0) - len(self._left)
        return 9 + int.from_bytes(self._left[:3], "big") - len(self._left)

    def _pop(self) -> PeerFrame | None:
        whole = self._left
        if self._preface:
            if len(whole) == len(PREFACE):
                self._preface, self._left = False, b""
            return None
        if len(whole) < 9:
            return None
        length = int.from_bytes(whole[:3], "big")
        if length <= FRAME_OCTETS_MAX and len(whole) < 9 + length:
            return None
        self._left = b""
        stream = int.from_bytes(whole[5:9], "big") & 0x7FFF_FFFF
        return PeerFrame(whole[3], whole[4], stream, whole[9:], length)


# Reading what an engine said


class Sent(NamedTuple):
    """One thing an engine sent. `body` is what its kind is about: fields, octets, codes."""

    kind: str
    stream: int
    body: object
    end: bool = False


class Reader:
    """Parses all that one engine sends. AssertionError, or an error of hyperframe or hpack: that was not HTTP/2."""

    def __init__(self, *, is_server: bool) -> None:
        """`is_server`: the engine is one, so it sends no preface."""
        self._preface = not is_server
        self._hpack = Decoder(max_header_list_size=2**24)
        self._settings_sent: deque[dict[int, int]] = deque()
        self._frame_octets_max = FRAME_OCTETS_MAX
        self._block: tuple[int, bool, bytes] | None = None
        self.goaways = 0

    def peer_settings(self, settings: dict[int, int]) -> None:
        """The peer sent SETTINGS. They hold from the acknowledgement on."""
        self._settings_sent.append(settings)

    def read(self, data: bytes) -> list[Sent]:
        if self._preface and data:
            assert data.startswith(PREFACE)
            data, self._preface = data[len(PREFACE) :], False
        out: list[Sent] = []
        view = memoryview(data)
        at = 0
        while at < len(data):
            parsed, length = Frame.parse_frame_header(view[at : at + 9])
            assert length <= self._frame_octets_max, "more than the peer allows"
            assert at + 9 + length <= len(data), "part of a frame"
            parsed.parse_body(view[at + 9 : at + 9 + length])
            at += 9 + length
            sent = self._sent(parsed)
            if sent is not None:
                out.append(sent)
        return out

    def _sent(self, parsed: Frame) -> Sent | None:
        stream = parsed.stream_id
        if isinstance(parsed, (HeadersFrame, ContinuationFrame)):
            return self._headers(parsed)
        assert self._block is None, "another frame within a header block"
        if isinstance(parsed, DataFrame):
            return Sent("DATA", stream, bytes(parsed.data), "END_STREAM" in parsed.flags)
        if isinstance(parsed, WindowUpdateFrame):
            return Sent("WINDOW_UPDATE", stream, parsed.window_increment)
        if isinstance(parsed, RstStreamFrame):
            return Sent("RST_STREAM", stream, parsed.error_code)
        if isinstance(parsed, PingFrame):
            return Sent("PING", 0, ("ACK" in parsed.flags, bytes(parsed.opaque_data)))
        if isinstance(parsed, GoAwayFrame):
            self.goaways += 1
            return Sent("GOAWAY", 0, (parsed.last_stream_id, parsed.error_code))
        if isinstance(parsed, SettingsFrame):
            return self._settings(parsed)
        raise AssertionError(f"an engine has no reason to send {parsed!r}")

    def _settings(self, parsed: SettingsFrame) -> Sent:
        if "ACK" not in parsed.flags:
            return Sent("SETTINGS", 0, {int(name): value for name, value in parsed.settings.items()})
        assert self._settings_sent, "acknowledges SETTINGS that never came"
        settings = self._settings_sent.popleft()
        if HEADER_TABLE_SIZE in settings:
            self._hpack.max_allowed_table_size = settings[HEADER_TABLE_SIZE]
        self._frame_octets_max = settings.get(MAX_FRAME_SIZE, self._frame_octets_max)
        return Sent("SETTINGS_ACK", 0, None)

    def _headers(self, parsed: HeadersFrame | ContinuationFrame) -> Sent | None:
        if isinstance(parsed, HeadersFrame):
            assert self._block is None
            self._block = (parsed.stream_id, "END_STREAM" in parsed.flags, b"")
        assert self._block is not None
        stream, end, block = self._block
        assert stream == parsed.stream_id
        block += bytes(parsed.data)
        if "END_HEADERS" not in parsed.flags:
            self._block = (stream, end, block)
            return None
        self._block = None
        headers = cast("list[tuple[bytes, bytes]]", self._hpack.decode(block, raw=True))
        assert self._hpack.header_table_size <= 4_096, "a larger table than any engine is to keep (row A25)"
        return Sent("HEADERS", stream, [(bytes(name), bytes(value)) for name, value in headers], end)
