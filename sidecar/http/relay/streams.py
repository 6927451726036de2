"""The states of a stream (RFC 9113 section 5.1), and what a frame means that arrives in the wrong one.

A stream that is open in at least one direction has a `Stream`. Its state is two bits, one for each direction that is
over, so that the commonest transitions are an `|=`:

    state               bits                        DATA, HEADERS from the peer      we may send
    open                0                           yes                              yes
    half-closed remote  REMOTE_ENDED                no: STREAM_CLOSED                yes
    half-closed local   LOCAL_ENDED                 yes                              no
    closed              both; then it is forgotten  see `MISPLACED`                  no

Of closed streams nothing is kept, except for some time which of them ended by RST_STREAM and whose that was: what the
peer sent before it read ours is nobody's fault. Streams so long gone that even this is forgotten get the same excuse.
"""

from __future__ import annotations

from enum import Enum, auto

from sidecar.http.frames import DATA, HEADERS, RST_STREAM, WINDOW_UPDATE
from sidecar.http.session import ErrorCode, StreamSink

REMOTE_ENDED = 1
LOCAL_ENDED = 2
CLOSED = REMOTE_ENDED | LOCAL_ENDED
HEADED = 4
"""The final response head was received (clients) or sent (servers)."""
TUNNEL = 8
"""CONNECT: nothing but DATA follows (RFC 9113 section 8.5)."""

GONE_MAX = 1_024
"""Streams ended by RST_STREAM that a connection remembers."""


class Stream:
    """A stream that is not closed."""

    __slots__ = ("grown", "in_window", "opened_at", "out_window", "owed", "reset_early", "sink", "state", "tiny")

    def __init__(self, sink: StreamSink, state: int, in_window: int, out_window: int, opened_at: float) -> None:
        self.sink = sink
        self.state = state
        self.in_window = in_window
        """Octets the peer may still send; below zero after we shrank it."""
        self.out_window = out_window
        """Octets we may still send; below zero after the peer shrank it (RFC 9113 section 6.9.2)."""
        self.owed = 0
        """Octets given back by the sink that the peer has not been told of."""
        self.grown = 0
        """Octets lent to its window because its reader keeps up."""
        self.tiny = 0
        """Tiny DATA frames that wait for the sink (row A16)."""
        self.opened_at = opened_at
        """Monotonic seconds."""
        self.reset_early: int | None = None
        """Code with which the session was shut down by the very handler that had yet to return its sink."""


class Past(Enum):
    """What became of a stream that has no `Stream`, or why a frame does not fit the one it has."""

    IDLE = auto()
    """Not opened yet."""
    HALF_CLOSED_REMOTE = auto()
    """The peer ended its half."""
    ENDED = auto()
    """Both halves ended in order."""
    RESET_BY_PEER = auto()
    RESET_BY_US = auto()
    FORGOTTEN = auto()
    """Closed so long ago that nobody remembers how."""


class Cost(Enum):
    """What a misplaced frame costs its sender."""

    NOTHING = auto()
    STREAM = auto()
    CONNECTION = auto()


MISPLACED: dict[tuple[Past, int], tuple[Cost, int]] = {
    (Past.IDLE, DATA): (Cost.CONNECTION, ErrorCode.PROTOCOL_ERROR),
    (Past.IDLE, HEADERS): (Cost.CONNECTION, ErrorCode.PROTOCOL_ERROR),  # from a server: it begins no streams
    (Past.IDLE, RST_STREAM): (Cost.CONNECTION, ErrorCode.PROTOCOL_ERROR),
    (Past.IDLE, WINDOW_UPDATE): (Cost.CONNECTION, ErrorCode.PROTOCOL_ERROR),
    (Past.HALF_CLOSED_REMOTE, DATA): (Cost.STREAM, ErrorCode.STREAM_CLOSED),
    (Past.HALF_CLOSED_REMOTE, HEADERS): (Cost.STREAM, ErrorCode.STREAM_CLOSED),
    (Past.ENDED, DATA): (Cost.CONNECTION, ErrorCode.STREAM_CLOSED),
    (Past.ENDED, HEADERS): (Cost.CONNECTION, ErrorCode.STREAM_CLOSED),
    (Past.ENDED, RST_STREAM): (Cost.NOTHING, 0),
    (Past.ENDED, WINDOW_UPDATE): (Cost.NOTHING, 0),
    (Past.RESET_BY_PEER, DATA): (Cost.STREAM, ErrorCode.STREAM_CLOSED),
    (Past.RESET_BY_PEER, HEADERS): (Cost.STREAM, ErrorCode.STREAM_CLOSED),
    (Past.RESET_BY_PEER, RST_STREAM): (Cost.NOTHING, 0),
    (Past.RESET_BY_PEER, WINDOW_UPDATE): (Cost.NOTHING, 0),
    (Past.RESET_BY_US, DATA): (Cost.NOTHING, 0),
    (Past.RESET_BY_US, HEADERS): (Cost.NOTHING, 0),
    (Past.RESET_BY_US, RST_STREAM): (Cost.NOTHING, 0),
    (Past.RESET_BY_US, WINDOW_UPDATE): (Cost.NOTHING, 0),
    (Past.FORGOTTEN, DATA): (Cost.NOTHING, 0),
    (Past.FORGOTTEN, HEADERS): (Cost.NOTHING, 0),
    (Past.FORGOTTEN, RST_STREAM): (Cost.NOTHING, 0),
    (Past.FORGOTTEN, WINDOW_UPDATE): (Cost.NOTHING, 0),
}
"""Every frame that belongs to a stream, in every state that has no use for it. What costs nothing is still a glitch,
except for WINDOW_UPDATE, which has a budget of its own."""


class Gone:
    """The streams that ended by RST_STREAM lately. Holds at most GONE_MAX."""

    __slots__ = ("_by", "_forgotten")

    def __init__(self) -> None:
        self._by: dict[int, Past] = {}
        self._forgotten = 0
        """The highest stream id that was dropped from `_by`."""

    def add(self, stream: int, past: Past) -> None:
        by = self._by
        by[stream] = past
        if len(by) > GONE_MAX:
            oldest = next(iter(by))
            del by[oldest]
            self._forgotten = max(self._forgotten, oldest)

    def past(self, stream: int) -> Past:
        """Of a stream that was opened and is closed."""
        known = self._by.get(stream)
        if known is not None:
            return known
        return Past.FORGOTTEN if stream <= self._forgotten else Past.ENDED
