"""Long computations in slices: generators that yield about every millisecond and return their result.

Who has requests to serve meanwhile runs them a slice at a time (`sidecar.net.slices`); who has not, at once."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def at_once(steps: Generator[None, None, T]) -> T:
    """What `steps` returns. Raises what it raises."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
