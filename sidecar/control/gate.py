"""What stands between the socket and the `h2` package: GOAWAY is taken out, everything else goes through. Sans-IO.

h2 closes its whole state machine on a GOAWAY, so that calls which the server promised to finish would fail. Here the
frame headers (RFC 9113 section 4.1) are read first, GOAWAY frames are handed to us, and h2 never sees them.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEADER_OCTETS = 9
_GOAWAY = 0x7
_DEBUG_OCTETS_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class GoAway:
    """RFC 9113 section 6.8."""

    last_stream: int
    """Streams above this were not and will not be processed."""
    code: int
    debug: str
    """At most 128 printable characters."""


class GateError(ValueError):
    """The bytes are no HTTP/2."""


class FrameGate:
    """Cuts the byte stream into whole frames."""

    def __init__(self, frame_octets_max: int) -> None:
        self._frame_octets_max = frame_octets_max
        self._buffer = bytearray()

    def receive(self, data: bytes) -> tuple[bytes, list[GoAway]]:
        """The complete frames for h2, and the GOAWAYs that stood between them. Raises GateError.

        At most one incomplete frame is kept: 9 octets and `frame_octets_max`."""
        self._buffer += data
        passed = bytearray()
        goaways: list[GoAway] = []
        at = 0
        while len(self._buffer) - at >= _HEADER_OCTETS:
            length = int.from_bytes(self._buffer[at : at + 3])
            if length > self._frame_octets_max:
                raise GateError("a frame is larger than was allowed")
            end = at + _HEADER_OCTETS + length
            if end > len(self._buffer):
                break
            if self._buffer[at + 3] == _GOAWAY:
                goaways.append(_goaway(bytes(self._buffer[at:end])))
            else:
                passed += self._buffer[at:end]
            at = end
        del self._buffer[:at]
        return bytes(passed), goaways


def _goaway(frame: bytes) -> GoAway:
    payload = frame[_HEADER_OCTETS:]
    stream = int.from_bytes(frame[5:9]) & 0x7FFF_FFFF
    if stream != 0 or len(payload) < 8:
        raise GateError("a GOAWAY frame is malformed")
    debug = payload[8 : 8 + _DEBUG_OCTETS_MAX].decode("ascii", "replace")
    return GoAway(
        last_stream=int.from_bytes(payload[:4]) & 0x7FFF_FFFF,
        code=int.from_bytes(payload[4:8]),
        debug="".join(c if c.isprintable() else "?" for c in debug),
    )
