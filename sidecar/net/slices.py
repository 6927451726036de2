"""Long computations a slice at a time, so that the requests of others go on meanwhile. There are no threads here."""

from __future__ import annotations

import gc
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

T = TypeVar("T")

SLICE_S = 0.002
"""How long requests may have to wait for one slice, if no single step takes longer."""


async def in_slices(steps: Generator[None, None, T]) -> T:
    """What `steps` returns. Everybody else is let go on after each slice. Raises what it raises."""
    until = time.perf_counter() + SLICE_S
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        if time.perf_counter() >= until:
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + SLICE_S


@contextmanager
def uncollected() -> Iterator[None]:
    """No pauses of the garbage collector meanwhile: what is being made is kept, and it would look at all of it again
    and again while it grows. For a second at most; what is garbage by then is found afterwards."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
