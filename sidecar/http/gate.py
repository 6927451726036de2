"""The gate in front of an HTTP/2 engine: bytes are cut into whole frames, and what no peer needs to send is stopped.

Sans-IO, and knows nothing of streams or HPACK: it reads the nine octets of each frame's head (RFC 9113 section 4.1).
A frame larger than we allow ends the connection before its body is buffered, so at most one frame is held here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from sidecar.http.session import ErrorCode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_OCTETS = 9
FRAME_OCTETS_MAX = 16_384
CONTINUATION_FRAMES_MAX = 8
SETTINGS_ENTRIES_MAX = 32
STREAM_ID_MAX = 2**31 - 1

HEADERS, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION = 0x1, 0x4, 0x5, 0x7, 0x9
FLAG_END_HEADERS = 0x4
HEADER_BLOCK = frozenset({HEADERS, PUSH_PROMISE, CONTINUATION})
_head = struct.Struct(">HBBBL")  # length (16 + 8 bits), type, flags, stream id


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    octets: bytes
    """Head included."""

    @property
    def is_goaway(self) -> bool:
        """One that can be understood; a malformed one is for the engine to refuse."""
        return self.kind == GOAWAY and self.stream == 0 and len(self.octets) >= HEAD_OCTETS + 8

    @property
    def goaway(self) -> tuple[int, int]:
        """Last stream and error code of a GOAWAY (RFC 9113 section 6.8)."""
        last, code = struct.unpack_from(">LL", self.octets, HEAD_OCTETS)
        return last & STREAM_ID_MAX, code


class GateFault(Exception):
    """The connection must end. `code`: what its GOAWAY says."""

    def __init__(self, code: int) -> None:
        super().__init__(f"HTTP/2 error {code}")
        self.code = code


class FrameGate:
    """Cuts what was received into frames, in order."""

    def __init__(self, *, header_block_octets_max: int, expects_preface: bool) -> None:
        self._header_block_octets_max = header_block_octets_max
        self._preface_left = PREFACE if expects_preface else b""
        self._in = bytearray()
        self._continuations = 0
        self._block_octets = 0
        """Of the header block that is not complete yet; 0 between blocks."""

    @property
    def awaits_rest(self) -> bool:
        return bool(self._in or self._preface_left or self._block_octets)

    def push(self, data: bytes) -> None:
        self._in += data

    def pop(self) -> Frame | None:
        """The next whole frame, None if there is none yet. Raises GateFault."""
        if self._preface_left and not self._strip_preface():
            return None
        if len(self._in) < HEAD_OCTETS:
            return None
        high, low, kind, flags, stream = _head.unpack_from(self._in)
        end = HEAD_OCTETS + (high << 8 | low)
        if end > HEAD_OCTETS + FRAME_OCTETS_MAX:
            raise GateFault(ErrorCode.FRAME_SIZE_ERROR)
        if len(self._in) < end:
            return None
        frame = Frame(kind, flags, stream & STREAM_ID_MAX, bytes(self._in[:end]))
        del self._in[:end]
        self._check(frame)
        return frame

    def _strip_preface(self) -> bool:
        """RFC 9113 section 3.4. True when it is complete."""
        size = min(len(self._in), len(self._preface_left))
        if self._in[:size] != self._preface_left[:size]:
            raise GateFault(ErrorCode.PROTOCOL_ERROR)
        self._preface_left = self._preface_left[size:]
        del self._in[:size]
        return not self._preface_left

    def _check(self, frame: Frame) -> None:
        if frame.kind in HEADER_BLOCK:
            self._continuations = self._continuations + 1 if frame.kind == CONTINUATION else 0
            self._block_octets += len(frame.octets)
            too_large = self._block_octets > self._header_block_octets_max
            if too_large or self._continuations > CONTINUATION_FRAMES_MAX:
                raise GateFault(ErrorCode.ENHANCE_YOUR_CALM)
            if frame.flags & FLAG_END_HEADERS:
                self._block_octets = 0
        elif self._block_octets:
            raise GateFault(ErrorCode.PROTOCOL_ERROR)
        elif frame.kind == SETTINGS and (len(frame.octets) - HEAD_OCTETS) // 6 > SETTINGS_ENTRIES_MAX:
            raise GateFault(ErrorCode.ENHANCE_YOUR_CALM)


def frame_octets(kind: int, stream: int, payload: bytes) -> bytes:
    """A frame without flags."""
    return _head.pack(len(payload) >> 8, len(payload) & 0xFF, kind, 0, stream) + payload


def goaway_octets(last_stream: int, code: int) -> bytes:
    return frame_octets(GOAWAY, 0, struct.pack(">LL", last_stream, code))
