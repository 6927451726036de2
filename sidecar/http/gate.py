"""The gate in front of an HTTP/2 engine: bytes are cut into whole frames, and what no peer needs to send is stopped.

Sans-IO, and knows nothing of streams or HPACK: it reads the nine octets of each frame's head (RFC 9113 section 4.1).
A frame larger than we allow ends the connection before its body is buffered, so at most one frame is held here. Frames
whose kind alone tells that they are of little use are charged to the connection's `Budgets` before anybody works on
them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from sidecar.config import Limits
from sidecar.http.budgets import Budgets
from sidecar.http.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_OCTETS_MAX,
    GOAWAY,
    HAS_PRIORITY,
    HEAD,
    HEAD_OCTETS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MAX,
    WINDOW_UPDATE,
)
from sidecar.http.session import ErrorCode

DEBUG_OCTETS_MAX = 128
HEADER_BLOCK = frozenset({HEADERS, PUSH_PROMISE, CONTINUATION})


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    octets: bytes
    """Head included."""

    @property
    def payload_octets(self) -> int:
        return len(self.octets) - HEAD_OCTETS

    @property
    def content_octets(self) -> int:
        """Of DATA or HEADERS: without padding and priority; at most 0 for what is nothing else, or malformed."""
        overhead = 5 if self.flags & HAS_PRIORITY and self.kind == HEADERS else 0
        if self.flags & PADDED and self.payload_octets:
            overhead += 1 + self.octets[HEAD_OCTETS]
        return self.payload_octets - overhead

    @property
    def is_goaway(self) -> bool:
        """One that can be understood; a malformed one is for the engine to refuse."""
        return self.kind == GOAWAY and self.stream == 0 and len(self.octets) >= HEAD_OCTETS + 8

    @property
    def goaway(self) -> tuple[int, int]:
        """Last stream and error code of a GOAWAY (RFC 9113 section 6.8)."""
        last, code = struct.unpack_from(">LL", self.octets, HEAD_OCTETS)
        return last & STREAM_ID_MAX, code

    @property
    def goaway_debug(self) -> str:
        """At most 128 printable characters of what a GOAWAY says beside its code."""
        start = HEAD_OCTETS + 8
        text = self.octets[start : start + DEBUG_OCTETS_MAX].decode("ascii", "replace")
        return "".join(c if c.isprintable() else "?" for c in text)


class GateFault(Exception):
    """The connection must end. `code`: what its GOAWAY says; `row` of the catalogue of bad inputs, if there is one."""

    def __init__(self, code: int, detail: str, row: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.row = row


class FrameGate:
    """Cuts what was received into frames, in order."""

    def __init__(self, limits: Limits, budgets: Budgets, clock: Callable[[], float], *, expects_preface: bool) -> None:
        """`clock`: monotonic seconds."""
        self._limits = limits
        self._budgets = budgets
        self._clock = clock
        self._block_octets_max = 4 * limits.header_list_octets_max
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
        """The next whole frame, None if there is none yet. Raises GateFault, and PeerFlood when a budget is spent."""
        if self._preface_left and not self._strip_preface():
            return None
        if len(self._in) < HEAD_OCTETS:
            return None
        high, low, kind, flags, stream = HEAD.unpack_from(self._in)
        end = HEAD_OCTETS + (high << 8 | low)
        if end > HEAD_OCTETS + FRAME_OCTETS_MAX:
            raise GateFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large", "A27")
        if len(self._in) < end:
            return None
        frame = Frame(kind, flags, stream & STREAM_ID_MAX, bytes(self._in[:end]))
        del self._in[:end]
        if kind in HEADER_BLOCK:
            self._check_block(frame)
        elif self._block_octets:
            raise GateFault(ErrorCode.PROTOCOL_ERROR, "another frame inside a header block", "A05")
        if kind == DATA or kind in HEADER_BLOCK:
            self._charge_empty(frame)
        else:
            self._charge_control(frame)
        return frame

    def _strip_preface(self) -> bool:
        """RFC 9113 section 3.4. True when it is complete."""
        size = min(len(self._in), len(self._preface_left))
        if self._in[:size] != self._preface_left[:size]:
            raise GateFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface", "A38")
        self._preface_left = self._preface_left[size:]
        del self._in[:size]
        return not self._preface_left

    def _check_block(self, frame: Frame) -> None:
        """Collecting a header block has a bound in frames and in octets (row A04)."""
        if frame.kind == CONTINUATION and not self._block_octets:  # h2 lets one pass on a stream that was reset
            raise GateFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS", "A06")
        self._continuations = self._continuations + 1 if frame.kind == CONTINUATION else 0
        self._block_octets += len(frame.octets)
        too_large = self._block_octets > self._block_octets_max
        if too_large or self._continuations > self._limits.continuation_frames_max:
            raise GateFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large", "A04")
        if frame.flags & END_HEADERS:
            self._block_octets = 0

    def _charge_empty(self, frame: Frame) -> None:
        """Frames of messages that carry nothing and end nothing (row A15)."""
        if frame.kind == CONTINUATION:
            if not frame.payload_octets and not frame.flags & END_HEADERS:
                self._budgets.empty()
        elif frame.content_octets > 0:
            if self._budgets.has_empty:
                self._budgets.not_empty()
        elif not frame.flags & END_STREAM:
            self._budgets.empty()

    def _charge_control(self, frame: Frame) -> None:
        kind, budgets = frame.kind, self._budgets
        if kind == WINDOW_UPDATE:
            budgets.window_update()
        elif kind in (PRIORITY, PRIORITY_UPDATE):
            budgets.priority()
        elif kind == SETTINGS and not frame.flags & ACK:
            self._charge_settings(frame)
        elif kind == PING and not frame.flags & ACK:
            budgets.reply_queued("A09")
            budgets.glitch("A09", self._clock())
        elif kind != RST_STREAM:  # acknowledgements, GOAWAY, unknown kinds: more than a few have no use (row A30)
            budgets.glitch("A30", self._clock())

    def _charge_settings(self, frame: Frame) -> None:
        if frame.payload_octets // 6 > self._limits.settings_entries_max:
            raise GateFault(ErrorCode.ENHANCE_YOUR_CALM, "too many settings", "A08")
        names = {high << 8 | low for high, low in zip(frame.octets[9::6], frame.octets[10::6], strict=False)}
        self._budgets.reply_queued("A07")
        self._budgets.glitch("A35" if INITIAL_WINDOW_SIZE in names else "A07", self._clock())
