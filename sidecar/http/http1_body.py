"""HTTP/1.1 bodies as they are received: one reader for each way in which a body may be delimited.

A reader eats its octets from the front of a buffer and gives back the content; what it leaves there belongs to
whatever comes next. Chunked coding is read by the grammar of RFC 9112 section 7.1 with no leniency: CRLF after the size
and after the data, hexadecimal digits and nothing around them. Extensions are bounded and dropped (row B27).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from sidecar.config import Limits
from sidecar.errors import RequestError
from sidecar.http.fields import Fault
from sidecar.http.http1_head import CHUNKED, UNTIL_CLOSE, parse_trailers
from sidecar.http.session import Fields

CHUNK_EXTENSION_OCTETS_MAX = 256
CHUNK_SIZE_DIGITS_MAX = 15
_SIZE_LINE_OCTETS_MAX = CHUNK_SIZE_DIGITS_MAX + CHUNK_EXTENSION_OCTETS_MAX
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e]*)?")


class BodyReader(Protocol):
    """Reads one body off a buffer."""

    done: bool
    trailers: Fields

    def read(self, buffer: bytearray) -> bytes:
        """Take what there is of this body off the front of `buffer`. Raises what it was told malformed bodies are."""


class LengthReader:
    """A body of a known length."""

    __slots__ = ("done", "left", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.trailers: Fields = []

    def read(self, buffer: bytearray) -> bytes:
        data = _cut(buffer, self.left)
        self.left -= len(data)
        self.done = self.left == 0
        return data


class UntilCloseReader:
    """A response that lasts as long as its connection."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Fields = []

    def read(self, buffer: bytearray) -> bytes:
        return _cut(buffer, len(buffer))


class _Await(Enum):
    SIZE = auto()
    DATA = auto()
    CRLF = auto()
    TRAILERS = auto()


class ChunkedReader:
    """A body in chunked transfer coding, with its trailer section."""

    __slots__ = ("_await", "_fault", "_left", "_limits", "done", "trailers")

    def __init__(self, limits: Limits, fault: Fault) -> None:
        self.done = False
        self.trailers: Fields = []
        self._limits = limits
        self._fault = fault
        self._await = _Await.SIZE
        self._left = 0

    def read(self, buffer: bytearray) -> bytes:
        """All chunks that are there in one piece, so that tiny chunks do not become tiny calls (row B28)."""
        pieces: list[bytes] = []
        while buffer and not self.done and self._step(buffer, pieces):
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _step(self, buffer: bytearray, pieces: list[bytes]) -> bool:
        """One element off the buffer; False: it is not there as a whole yet."""
        if self._await is _Await.DATA:
            piece = _cut(buffer, self._left)
            pieces.append(piece)
            self._left -= len(piece)
            if self._left == 0:
                self._await = _Await.CRLF
            return True
        if self._await is _Await.CRLF:
            return self._read_crlf(buffer)
        if self._await is _Await.SIZE:
            return self._read_size(buffer)
        return self._read_trailers(buffer)

    def _read_crlf(self, buffer: bytearray) -> bool:
        if not b"\r\n".startswith(buffer[:2]):
            raise self._malformed("chunk is not ended by CRLF")
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self._await = _Await.SIZE
        return True

    def _read_size(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n", 0, _SIZE_LINE_OCTETS_MAX + 2)
        if end < 0:
            # The line is checked before it is complete, else it would be waited for in vain.
            if len(buffer) > _SIZE_LINE_OCTETS_MAX + 1 or buffer.find(b"\n", 0, _SIZE_LINE_OCTETS_MAX + 2) >= 0:
                raise self._malformed("chunk size line")
            return False
        match = _SIZE_LINE.fullmatch(buffer, 0, end)
        if match is None:
            raise self._malformed("chunk size line")
        self._left = int(match[1], 16)
        del buffer[: end + 2]
        self._await = _Await.DATA if self._left else _Await.TRAILERS
        return True

    def _read_trailers(self, buffer: bytearray) -> bool:
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            self.done = True
            return True
        end = buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(buffer)) > self._limits.header_list_octets_max:
            raise self._fault("trailer section is too large", row="B39")
        if end < 0:
            if buffer.count(b"\n") != buffer.count(b"\r\n"):
                raise self._malformed("bare LF in trailers")
            return False
        self.trailers = parse_trailers(bytes(buffer[: end + 2]), self._fault)
        del buffer[: end + 4]
        self.done = True
        return True

    def _malformed(self, detail: str) -> RequestError:
        return self._fault(detail, row="B26")


def body_reader(framing: int, limits: Limits, fault: Fault) -> BodyReader:
    """The reader for what `http1_head` found; `fault` is what a malformed body raises."""
    if framing == CHUNKED:
        return ChunkedReader(limits, fault)
    if framing == UNTIL_CLOSE:
        return UntilCloseReader()
    return LengthReader(framing)


def _cut(buffer: bytearray, octets: int) -> bytes:
    if octets >= len(buffer):
        data = bytes(buffer)
        buffer.clear()
        return data
    data = bytes(buffer[:octets])
    del buffer[:octets]
    return data
