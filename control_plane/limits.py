"""How often one peer may do a thing: a token bucket per peer, sans-IO."""

from __future__ import annotations

from collections import OrderedDict


class RateLimit:
    """`burst` at once, then `rate_per_s`. Remembers at most `peers_max` peers: the one unseen longest is forgotten."""

    def __init__(self, *, rate_per_s: float, burst: int, peers_max: int = 4_096) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._peers_max = peers_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Peer -> (what is left, when that was true)."""

    def __repr__(self) -> str:
        return f"<RateLimit {self._rate_per_s}/s burst={self._burst} peers={len(self._buckets)}>"

    def take(self, peer: str, now: float) -> float:
        """0.0: go ahead. Else how many seconds until the next may go."""
        left, then = self._buckets.pop(peer, (float(self._burst), now))
        left = min(float(self._burst), left + max(0.0, now - then) * self._rate_per_s)
        wait_s = 0.0 if left >= 1.0 else (1.0 - left) / self._rate_per_s
        self._buckets[peer] = (left if wait_s else left - 1.0, now)
        while len(self._buckets) > self._peers_max:
            self._buckets.popitem(last=False)
        return wait_s
