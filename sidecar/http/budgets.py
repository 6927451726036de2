"""How much of what costs us and is worth nothing one HTTP/2 connection may send (catalogue of bad inputs, section A).

Theory of operation
-------------------
Every flood is a frame that is cheap to send, dear to handle, and legal by itself. So each such frame is paid for out of
a budget, and useful work pays in. One `Budgets` belongs to one connection; both engines feed it and end the connection
with ENHANCE_YOUR_CALM when it raises `PeerFlood`. The numbers are `Limits`; the arithmetic is four shapes:

    bucket     holds `max`, is filled again within a time       glitches
    balance    a bucket into which useful work pays, too        premature resets, tiny DATA
    ratio      at most so many for each stream opened, or for   PRIORITY, WINDOW_UPDATE
               each DATA frame we sent
    queue      at most `max` that the peer has not taken        acknowledgements, resets it elicited

What each bound leaves to an attacker, and why it hurts nobody else:

A01, A02  `premature_resets_max` requests thrown away, 25 more in each second, and one for each that was answered. A
          caller that gives up 10 % of its hedged requests pays them back nine times over. Timeouts are not premature:
          whoever waits PREMATURE_S or longer holds one of its concurrent streams for so long, which bounds the rate by
          itself. It is half of what the shortest common timeout is, because we see the request later than its
          sender did, and the reset may overtake that delay.
A07, A09  PINGs, SETTINGS: a client that measures bandwidth (gRPC's BDP estimate) asks once in a round trip. One answer
          does not have to leave before the next question comes, and a busy socket may never be empty, so answers are
          counted by what the socket has taken in order, not only when it has taken all.
A16       Only what waits: a stream of any number of small messages is free as long as its reader keeps up. The window
          bounds what waits of frames of TINY_OCTETS and more: 2,048 frames a stream.
A17       Clients give back what they took at most once a DATA frame, for stream and connection, and often far less.
A30       Frames that crossed our reset of their stream are late, not wrong, so they cost no more than a glitch; and one
          reset that crossed the end of its stream costs nothing for each stream opened.

Nothing here is called for a frame of an ordinary request, except that the engine adds to three public integers.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config import Limits
from sidecar.errors import PeerFlood

REFILL_S = 30.0
"""In which an empty bucket is full again."""
PREMATURE_REFILL_S = 10.0
PREMATURE_S = 0.5
"""A stream that its client gave up sooner, unanswered, was opened for nothing (row A01)."""
TINY_OCTETS = 32
"""With its head a smaller frame is a quarter overhead and more (row A16)."""
_WINDOW_UPDATES_FREE = 5
_WEIGHTS = {"A07": 10, "A35": 10, "A28": 10}
"""Glitches that cost more than reading a frame: SETTINGS may change every open stream's window, a stream that is
refused has had its header block decoded."""


class _Bucket:
    """Filled with what was spent; drains from `size` to nothing within `refill_s`."""

    __slots__ = ("_at", "_per_s", "_size", "spent")

    def __init__(self, size: int, refill_s: float) -> None:
        self.spent = 0.0
        self._size = size
        self._per_s = size / refill_s
        self._at = 0.0

    def spend(self, cost: float, now: float) -> bool:
        """False: it is overdrawn. A clock that goes back refills nothing."""
        if now > self._at:
            self.spent = max(0.0, self.spent - (now - self._at) * self._per_s)
            self._at = now
        self.spent += cost
        return self.spent <= self._size

    def repay(self, cost: float) -> None:
        self.spent = max(0.0, self.spent - cost)


class Budgets:
    """The accounts of one connection. Methods raise `PeerFlood`, which names the row, unless they give back."""

    __slots__ = (
        "_clock",
        "_empty",
        "_glitches",
        "_limits",
        "_marked",
        "_octets_ahead",
        "_premature",
        "_priorities",
        "_queued",
        "_resets_late",
        "_tiny",
        "_window_updates",
        "answered",
        "data_frames_sent",
        "streams_opened",
    )

    def __init__(self, limits: Limits, clock: Callable[[], float] = lambda: 0.0) -> None:
        """`clock`: monotonic seconds. One that stands still never refills anything."""
        self.streams_opened = 0
        """By either side; the engine counts."""
        self.data_frames_sent = 0
        """By us; the engine counts."""
        self.answered = 0
        """Streams that ended in order since the last premature reset; the engine counts."""
        self._limits = limits
        self._clock = clock
        self._premature = _Bucket(limits.premature_resets_max, PREMATURE_REFILL_S)
        self._glitches = _Bucket(limits.glitches_max, REFILL_S)
        self._tiny = _Bucket(limits.tiny_data_frames_max, REFILL_S)
        self._queued = 0
        self._marked = 0
        """Of the queued replies, those that were among the octets counted in `_octets_ahead`."""
        self._octets_ahead = 0
        """What the socket still has to take until the marked ones are gone."""
        self._resets_late = 0
        self._priorities = 0
        self._window_updates = 0
        self._empty = 0

    def __repr__(self) -> str:
        resets, glitches = self._premature.spent, self._glitches.spent
        return f"<Budgets {self.streams_opened} streams, {resets:.0f} resets, {glitches:.0f} glitches>"

    # Resets

    def reset_received(self, *, age_s: float, was_answered: bool) -> None:
        """RST_STREAM for a request of the peer's that was open (row A01)."""
        if not was_answered and age_s < PREMATURE_S:
            self._throw_away("A01")

    def reset_elicited(self) -> None:
        """The peer's fault made us reset a stream (rows A02, A11, A18)."""
        self._throw_away("A02")

    def _throw_away(self, row: str) -> None:
        """What was answered earlier pays for what is owed and is not saved up for later."""
        self._premature.repay(self.answered)
        self.answered = 0
        if not self._premature.spend(1, self._clock()):
            raise PeerFlood("more streams are thrown away than answered", row=row)

    def reset_late(self, now: float) -> None:
        """RST_STREAM for a stream that is over: it may have crossed the end, but not twice (row A30)."""
        self._resets_late += 1
        if self._resets_late > self.streams_opened:
            self.glitch("A30", now)

    # What must be answered, or changes nothing

    def reply_queued(self, row: str) -> None:
        """An acknowledgement (or RST_STREAM) that the peer elicited waits to be sent (rows A07, A09, A11)."""
        self._queued += 1
        if self._queued > self._limits.control_frames_queued_max:
            raise PeerFlood("answers to control frames are not read", row=row)

    @property
    def has_replies(self) -> bool:
        """`replies_sent` is needed only then."""
        return self._queued > 0

    def replies_sent(self, octets: int = 0, unsent: int = 0) -> None:
        """The socket took `octets` since the last call, and `unsent` that it was offered still wait.

        It takes octets in order: when as many have gone as waited at some time, so have the replies of that time."""
        if not unsent:
            self._queued = self._marked = self._octets_ahead = 0
            return
        self._octets_ahead -= octets
        if self._octets_ahead <= 0:
            self._queued -= self._marked
            self._marked, self._octets_ahead = self._queued, unsent

    def glitch(self, row: str, now: float) -> None:
        """A frame without use: SETTINGS, PING, unknown types, frames for streams long gone (rows A30, A35)."""
        if not self._glitches.spend(_WEIGHTS.get(row, 1), now):
            raise PeerFlood("too many frames of no use", row=row)

    def priority(self) -> None:
        """PRIORITY, which RFC 9113 section 5.3.2 has deprecated, or PRIORITY_UPDATE of RFC 9218 (row A10)."""
        self._priorities += 1
        if self._priorities > self._limits.priority_frames_per_stream_max * (1 + self.streams_opened):
            raise PeerFlood("too many PRIORITY frames", row="A10")

    def window_update(self) -> None:
        """WINDOW_UPDATE of a stream or the connection (row A17)."""
        self._window_updates += 1
        useful = self.streams_opened + self._limits.window_updates_per_data_frame_max * self.data_frames_sent
        if self._window_updates > _WINDOW_UPDATES_FREE + 2 * useful:
            raise PeerFlood("too many WINDOW_UPDATE frames", row="A17")

    # DATA and header blocks that carry nothing

    def empty(self) -> None:
        """An empty DATA, HEADERS or CONTINUATION frame that ends nothing (row A15). Padding is nothing too."""
        self._empty += 1
        if self._empty > self._limits.empty_frames_max:
            raise PeerFlood("empty frames that end nothing", row="A15")

    def not_empty(self) -> None:
        """The run of empty frames is over. Needed only when `has_empty`."""
        self._empty = 0

    @property
    def has_empty(self) -> bool:
        return self._empty > 0

    def tiny_data(self) -> None:
        """DATA below TINY_OCTETS that does not end its stream, while what came before it still waits (row A16)."""
        if not self._tiny.spend(1, self._clock()):
            raise PeerFlood("too many tiny DATA frames", row="A16")

    def tiny_taken(self, frames: int | None = None) -> None:
        """All that waited on a stream was taken: its tiny frames, so many, were worth their while (None: all were)."""
        self._tiny.repay(self._tiny.spent if frames is None else frames)
