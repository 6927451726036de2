"""What went before, and what happened: all that a rule about a difference may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from tests.oracles.observe import Outcome
from tests.oracles.scripts import Act, Piece, Script
from tests.oracles.wire import ACK, CONTINUATION, END_HEADERS, HEADERS, SETTINGS, PeerFrame


class Past(Enum):
    """The state of a stream as both engines have it, in the words of RFC 9113 section 5.1."""

    IDLE = auto()
    SKIPPED = auto()
    """Never opened, and closed since the peer opened a higher one (section 5.1.1)."""
    OPEN = auto()
    """In the peer's direction."""
    HALF_CLOSED_REMOTE = auto()
    """The peer has ended its half."""
    ENDED = auto()
    RESET_BY_PEER = auto()
    RESET_BY_US = auto()


@dataclass(slots=True)
class _Stream:
    peer_ended: bool = False
    we_ended: bool = False
    reset: Past | None = None
    is_connect: bool = False
    headed: bool = False
    """Clients: the final head of the answer came."""
    peer_reset: bool = False


@dataclass(slots=True)
class Stage:
    """What both engines have done alike up to now."""

    script: Script = field(repr=False)
    streams: dict[int, _Stream] = field(default_factory=dict)
    greeted: bool = False
    """The peer's first frame has come."""
    settled: bool = False
    """The peer has acknowledged our SETTINGS."""
    head: PeerFrame | None = None
    """HEADERS whose block has not ended."""

    def past(self, stream: int) -> Past:
        known = self.streams.get(stream)
        if known is None:
            is_skipped = self.script.role == "server" and stream % 2 and stream < max(self.streams, default=0)
            return Past.SKIPPED if is_skipped else Past.IDLE
        if known.reset is not None:
            return known.reset
        if known.peer_ended:
            return Past.ENDED if known.we_ended else Past.HALF_CLOSED_REMOTE
        return Past.OPEN

    def update(self, unit: Piece | Act, frame: PeerFrame | None, outcome: Outcome) -> None:
        if frame is not None:
            self.greeted = True
            self.settled |= frame.kind == SETTINGS and bool(frame.flags & ACK)
            if frame.kind == HEADERS:
                self.head = frame
            if frame.kind in (HEADERS, CONTINUATION) and frame.flags & END_HEADERS:
                self.head = None
        for call in outcome.calls:
            if call.name == "request":
                known = self.streams.setdefault(call.stream, _Stream())
                known.peer_ended = call.end
                assert isinstance(call.body, list)
                known.is_connect = (b":method", b"CONNECT") in call.body
            elif call.name in ("data", "head", "trailers"):
                known = self.streams[call.stream]
                known.headed = True
                known.peer_ended |= call.end or call.name == "trailers"
            elif call.name == "reset":
                known = self.streams.setdefault(call.stream, _Stream())
                known.reset = known.reset or Past.RESET_BY_PEER
                known.peer_reset = True
        for one in outcome.sent:
            if one.kind == "HEADERS" and self.script.role == "client" and one.stream not in self.streams:
                assert isinstance(one.body, list)
                self.streams[one.stream] = _Stream(is_connect=(b":method", b"CONNECT") in one.body)
            if one.kind in ("HEADERS", "DATA") and one.end:
                self.streams.setdefault(one.stream, _Stream()).we_ended = True
            elif one.kind == "RST_STREAM":
                known = self.streams.setdefault(one.stream, _Stream())
                known.reset = Past.RESET_BY_US


@dataclass(frozen=True, slots=True)
class Scene:
    """One step at which two engines did not do the same."""

    stage: Stage
    """Before it."""
    unit: Piece | Act
    frame: PeerFrame | None
    """That this step completed."""
    ours: Outcome
    theirs: Outcome
    exceeds_ours: bool
    """The step is DATA beyond what the engine had announced."""
    exceeds_theirs: bool

    def is_frame(self, *kinds: int) -> bool:
        return self.frame is not None and self.frame.kind in kinds

    @property
    def head(self) -> PeerFrame | None:
        """HEADERS of the block that ends with this frame."""
        if self.frame is None or not self.frame.flags & END_HEADERS:
            return None
        if self.frame.kind == HEADERS:
            return self.frame
        return self.stage.head if self.frame.kind == CONTINUATION else None

    @property
    def past(self) -> Past:
        assert self.frame is not None
        return self.stage.past(self.frame.stream)


def goodbye(outcome: Outcome) -> int | None:
    """Code of the GOAWAY with which the connection was ended for a fault; None: it was not."""
    if not (outcome.state.closed and outcome.state.fault):
        return None
    codes = [one.body[1] for one in outcome.sent if one.kind == "GOAWAY" and isinstance(one.body, tuple)]
    return int(codes[-1]) if codes else None


def resets(outcome: Outcome) -> list[tuple[int, int]]:
    """Streams and codes of the RST_STREAM frames sent."""
    return [(one.stream, one.body) for one in outcome.sent if one.kind == "RST_STREAM" and isinstance(one.body, int)]


def lives(outcome: Outcome) -> bool:
    return not outcome.state.closed


def silent(outcome: Outcome) -> bool:
    """Nothing was said of it to anybody."""
    return lives(outcome) and not outcome.calls and all(one.kind == "WINDOW_UPDATE" for one in outcome.sent)
