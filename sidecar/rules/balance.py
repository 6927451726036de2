"""Which endpoint: the power of two choices.

Take two at random, use the one with less to do. Nearly as even as asking all of them, and a newcomer with no load is
not stormed by everybody at once (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Chance(Protocol):
    """What of `random.Random` is needed."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


def pick(candidates: Sequence[T], load: Callable[[T], int], rng: Chance) -> T:
    """The less loaded of two distinct random candidates; the first drawn of equals. ValueError if there is none."""
    count = len(candidates)
    if count == 0:
        raise ValueError("there is no candidate to pick from")
    if count == 1:
        return candidates[0]
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    if second >= first:
        second += 1
    one, other = candidates[first], candidates[second]
    return other if load(other) < load(one) else one
