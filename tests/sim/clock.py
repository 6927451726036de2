"""The time of the simulated mesh."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled


class JumpClock(trio.abc.Clock):
    """trio's MockClock with an autojump threshold of 0, for who waits for nothing but time: when nothing is ready, the
    time is that of the next deadline, or the end of the next pause.

    `pause` is `trio.sleep` without what a sleep on a real clock needs (a cancel scope, a deadline, its delivery): a
    simulated year is mostly waiting, so waiting must cost little."""

    def __init__(self) -> None:
        self._time = 0.0
        self._pauses: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()
        self._given_up: set[int] = set()
        """Numbers of pauses that were cancelled."""

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self._time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """trio asks when nothing is ready."""
        while self._pauses and self._pauses[0][1] in self._given_up:
            self._given_up.discard(heapq.heappop(self._pauses)[1])
        if self._pauses and self._pauses[0][0] <= deadline:
            ends_at, _, task = heapq.heappop(self._pauses)
            self._time = max(self._time, ends_at)
            reschedule(task)
            return 0.0
        if deadline == math.inf:
            return deadline  # the run is over, and trio's own tasks end
        self._time = max(self._time, deadline)
        return 0.0

    async def pause(self, seconds: float) -> None:
        """Stands for `trio.sleep`."""
        if seconds <= 0:
            if seconds < 0 or math.isnan(seconds):
                raise ValueError("`seconds` must be non-negative")
            await checkpoint()
            return
        number = next(self._numbers)
        heapq.heappush(self._pauses, (self._time + seconds, number, current_task()))

        def abort(raise_cancel: Callable[[], object]) -> Abort:
            self._given_up.add(number)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
