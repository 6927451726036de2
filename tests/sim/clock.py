"""The time of the simulated mesh."""

from __future__ import annotations

import math

import trio


class JumpClock(trio.abc.Clock):
    """trio's MockClock with an autojump threshold of 0, for who waits for nothing but time: when nothing is ready, the
    time is that of the next deadline."""

    def __init__(self) -> None:
        self._time = 0.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """trio asks when nothing is ready."""
        if deadline == math.inf:
            return deadline  # the run is over, and trio's own tasks end
        self._time = max(self._time, deadline)
        return 0.0
