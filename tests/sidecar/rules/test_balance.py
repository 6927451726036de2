"""sidecar/rules/balance.py"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.balance import pick


def test_nobody_cannot_be_picked() -> None:
    """The caller answers that no endpoint is there; it is not for chance to decide."""
    with pytest.raises(ValueError, match="no candidate"):
        pick([], load=len, rng=random.Random(1))


def test_the_only_one_is_picked_without_asking() -> None:
    """Neither its load nor chance matters."""
    assert pick(["a"], load=lambda _: 1 // 0, rng=random.Random(1)) == "a"


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_the_busiest_of_all_is_never_picked(loads: list[int], rng: random.Random) -> None:
    """Two distinct ones are drawn, so there is always a less busy one beside the busiest."""
    assert pick(loads, load=lambda load: load, rng=rng) != max(loads)


def test_of_two_the_less_loaded_is_always_picked() -> None:
    """Both are drawn."""
    rng = random.Random(2)
    assert {pick([3, 1], load=lambda load: load, rng=rng) for _ in range(50)} == {1}


def test_equals_are_picked_evenly() -> None:
    """Nobody is stormed when all are idle."""
    rng = random.Random(3)
    counts = Counter(pick("abcde", load=lambda _: 0, rng=rng) for _ in range(10_000))
    assert set(counts) == set("abcde")
    assert max(counts.values()) - min(counts.values()) < 300


def test_loads_stay_within_a_few_of_each_other() -> None:
    """What two choices are for: 10,000 requests over 10 endpoints, none finished."""
    rng, loads = random.Random(4), [0] * 10
    for _ in range(10_000):
        loads[pick(range(10), load=loads.__getitem__, rng=rng)] += 1
    assert max(loads) - min(loads) <= 5


def test_one_seed_gives_one_sequence() -> None:
    """A printed seed replays a failure."""

    def picks() -> list[int]:
        rng = random.Random(5)
        return [pick(range(9), load=lambda n: n % 3, rng=rng) for _ in range(100)]

    assert picks() == picks()
