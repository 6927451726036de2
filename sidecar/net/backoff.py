"""How long to wait before trying again. Sans-IO: says how long, sleeps nowhere."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `base_s`, each delay off by up to `jitter` (a share) either way, so that a fleet that lost its
    control plane in one moment does not come back in one moment. No delay exceeds `max_s`, jitter included: it doubles
    until the longest is just that, for delays that are cut off there would have no jitter any more."""

    def __init__(self, rng: random.Random, *, base_s: float = 0.1, max_s: float = 10.0, jitter: float = 0.1) -> None:
        if not 0 < base_s <= max_s or not 0 <= jitter < 1:
            raise ValueError(f"impossible back-off: base {base_s} s, max {max_s} s, jitter {jitter}")
        self._rng = rng
        self._base_s = base_s
        self._nominal_max_s = max_s / (1 + jitter)
        self._jitter = jitter
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Backoff after {self._failures} failures>"

    def next_delay_s(self, *, at_most_s: float | None = None) -> float:
        """Seconds until the next try; never above `at_most_s`, should that be shorter than the usual bound."""
        # 2**30 is past every bound; an exponent without one would overflow after a thousand failures.
        delay = min(self._nominal_max_s, self._base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        delay *= self._rng.uniform(1 - self._jitter, 1 + self._jitter)
        return delay if at_most_s is None else min(delay, max(at_most_s, 0.0))

    def reset(self) -> None:
        """It worked: begin again at the shortest delay."""
        self._failures = 0
