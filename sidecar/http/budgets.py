"""How much of what costs us and is worth nothing one HTTP/2 connection may send (catalogue of bad inputs, section A).

Theory of operation
-------------------
Every flood is a frame that is cheap to send, dear to handle, and legal by itself. So each such frame is paid for out of
a budget, and useful work pays in. One `Budgets` belongs to one connection; both engines feed it and end the connection
with ENHANCE_YOUR_CALM when it raises `PeerFlood`. The numbers are `Limits`; the arithmetic is three shapes:

    bucket     holds `max`, refills within REFILL_S seconds      glitches
    balance    costs 1, an answered request gives 1 back         premature resets
    ratio      at most so many for each stream opened, or for    PRIORITY, WINDOW_UPDATE
               each DATA frame we sent

Nothing here is called for a frame of an ordinary request, except that the engine adds to three public integers.
"""

from __future__ import annotations

from sidecar.config import Limits
from sidecar.errors import PeerFlood

REFILL_S = 30.0
PREMATURE_S = 1.0
"""A stream that its client gave up sooner, unanswered, was opened for nothing (row A01)."""
TINY_OCTETS = 256
_WINDOW_UPDATES_FREE = 5


class Budgets:
    """The accounts of one connection. Every method may raise `PeerFlood`, which names the row."""

    __slots__ = (
        "_balance",
        "_empty",
        "_glitches",
        "_limits",
        "_priorities",
        "_queued",
        "_refilled_at",
        "_tiny",
        "_window_updates",
        "answered",
        "data_frames_sent",
        "streams_opened",
    )

    def __init__(self, limits: Limits) -> None:
        self.streams_opened = 0
        """By either side; the engine counts."""
        self.data_frames_sent = 0
        """By us; the engine counts."""
        self.answered = 0
        """Streams that ended in order; the engine counts, a reset takes one off to be forgiven."""
        self._limits = limits
        self._balance = 0
        self._glitches = 0.0
        self._refilled_at = 0.0
        self._queued = 0
        self._priorities = 0
        self._window_updates = 0
        self._empty = 0
        self._tiny = 0

    def __repr__(self) -> str:
        return f"<Budgets {self.streams_opened} streams, {self._balance} resets, {self._glitches:.0f} glitches>"

    # Resets

    def reset_received(self, *, age_s: float, was_answered: bool) -> None:
        """RST_STREAM for a request of the peer's (row A01)."""
        if not was_answered and age_s < PREMATURE_S:
            self._premature("A01")

    def reset_elicited(self) -> None:
        """The peer's fault made us reset a stream (rows A02, A11, A18)."""
        self._premature("A02")

    def _premature(self, row: str) -> None:
        forgiven = min(self.answered, self._balance)
        self.answered = 0
        self._balance += 1 - forgiven
        if self._balance > self._limits.premature_resets_max:
            raise PeerFlood("more streams are thrown away than answered", row=row)

    # What must be answered, or changes nothing

    def reply_queued(self, row: str) -> None:
        """An acknowledgement (or RST_STREAM) that the peer elicited waits to be sent (rows A07, A09, A11)."""
        self._queued += 1
        if self._queued > self._limits.control_frames_queued_max:
            raise PeerFlood("answers to control frames are not read", row=row)

    def replies_sent(self) -> None:
        """The socket took all that was queued."""
        self._queued = 0

    def glitch(self, row: str, now: float) -> None:
        """A frame without use: SETTINGS, PING, unknown types, frames for streams long gone (rows A30, A35)."""
        elapsed = now - self._refilled_at
        if elapsed > 0:
            self._refilled_at = now
            self._glitches = max(0.0, self._glitches - elapsed * self._limits.glitches_max / REFILL_S)
        self._glitches += 1
        if self._glitches > self._limits.glitches_max:
            raise PeerFlood("too many frames of no use", row=row)

    def priority(self) -> None:
        """PRIORITY, which RFC 9113 section 5.3.2 has deprecated (row A10)."""
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
        self._tiny += 1
        if self._tiny > self._limits.tiny_data_frames_max:
            raise PeerFlood("too many tiny DATA frames", row="A16")

    def tiny_taken(self) -> None:
        """All that waited on a stream was taken: its tiny frames were worth their while."""
        self._tiny = 0
