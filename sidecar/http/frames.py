"""Frames as they are on the wire (RFC 9113 sections 4 and 6): kinds, flags, settings, and how one is written.

Both engines and the gate in front of one of them read this page.

Nothing here is an object per frame: a frame is nine octets packed by one precompiled `struct`, and its payload.
"""

from __future__ import annotations

import struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

PRIORITY_UPDATE = 0x10
"""RFC 9218 section 7.1."""

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
ENABLE_CONNECT_PROTOCOL = 0x8
"""RFC 8441 section 3."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_OCTETS = 9
FRAME_OCTETS_MAX = 16_384
"""What we accept."""
DATA_OCTETS_MAX = FRAME_OCTETS_MAX - HEAD_OCTETS
"""Of the pieces into which larger data is cut, even if the peer would take more: fair to the other streams, and with
its head exactly one TLS record, where nine octets more would need a record and a system call of their own."""
WINDOW_DEFAULT = 65_535
WINDOW_MAX = STREAM_ID_MAX = 2**31 - 1

DRAIN_PING = b"hbkdrain"
KEEP_ALIVE_PING = b"hbkalive"
"""Payloads of our own PINGs, by which their answers are told apart (RFC 9113 section 6.7)."""

HEAD = struct.Struct(">HBBBL")
"""Length as 16 + 8 bits, type, flags, stream id."""
_long = struct.Struct(">L")
_two_longs = struct.Struct(">LL")
_setting = struct.Struct(">HL")

read_long = _long.unpack_from
read_two_longs = _two_longs.unpack_from


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A whole frame. The payload is within FRAME_OCTETS_MAX."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def rst_stream(stream: int, code: int) -> bytes:
    return HEAD.pack(0, 4, RST_STREAM, 0, stream) + _long.pack(code)


def window_update(stream: int, increment: int) -> bytes:
    return HEAD.pack(0, 4, WINDOW_UPDATE, 0, stream) + _long.pack(increment)


def goaway(last_stream: int, code: int) -> bytes:
    return HEAD.pack(0, 8, GOAWAY, 0, 0) + _two_longs.pack(last_stream, code)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """`payload`: eight octets."""
    return frame(PING, ACK if ack else 0, 0, payload)


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(name, value) for name, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0, b"")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Identifier and value, in order; a length that is no multiple of six is the caller's to refuse."""
    return list(_setting.iter_unpack(payload))
