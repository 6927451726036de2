"""Which refused calls are written down one by one, and which are only counted, so that nobody fills the disk with them.

In any second at most EACH_PEER of one peer and ALL of all; in any hour at most HOUR. What is above is counted, and told
in one record when the second is over: nothing is passed over in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

EACH_PEER = 10
ALL = 100
HOUR = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Refused calls that were counted only."""

    count: int
    since: float
    """Unix seconds: when the first of them was."""
    peers: int
    """How many addresses they came from, as far as they were told apart."""


@dataclass(slots=True, kw_only=True)
class Refusals:
    """The count of the current second and hour."""

    _second: int = 0
    _hour: int = 0
    _in_hour: int = 0
    _in_second: int = 0
    _of_peer: dict[str, int] = field(default_factory=dict)
    _left_out: int = 0
    _left_out_since: float = 0.0
    _left_out_peers: set[str] = field(default_factory=set)

    def admit(self, peer: str, now: float) -> bool:
        """Whether this one is written down. `now`: Unix seconds."""
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
            self._of_peer.clear()
        if int(now) // 3_600 != self._hour:
            self._hour, self._in_hour = int(now) // 3_600, 0
        of_peer = self._of_peer.get(peer, 0)
        if of_peer < EACH_PEER and self._in_second < ALL and self._in_hour < HOUR:
            self._of_peer[peer] = of_peer + 1
            self._in_second += 1
            self._in_hour += 1
            return True
        self.leave_out(peer, now)
        return False

    def leave_out(self, peer: str, now: float) -> None:
        """Counted only (it could not be written)."""
        if not self._left_out:
            self._left_out_since = now
        self._left_out += 1
        if len(self._left_out_peers) < ALL:
            self._left_out_peers.add(peer)

    def due(self, now: float) -> Summary | None:
        """What was left out, if that second is over: in an hour that is full, once a minute."""
        wait_s = 1.0 if self._in_hour < HOUR else 60.0
        # A clock set back must not keep it for ever.
        if not self._left_out or 0 <= now - self._left_out_since < wait_s:
            return None
        return self.take()

    def take(self) -> Summary | None:
        """What was left out, now."""
        if not self._left_out:
            return None
        told = Summary(count=self._left_out, since=self._left_out_since, peers=len(self._left_out_peers))
        self._left_out = 0
        self._left_out_peers.clear()
        return told

    def put_back(self, told: Summary) -> None:
        """It could not be written: it is told with the next."""
        self._left_out += told.count
        self._left_out_since = told.since
