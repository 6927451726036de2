"""sidecar.net.backoff: doubling, bounded, jittered."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.control.watcher import RECONNECT_JITTER, RECONNECT_MAX_S
from sidecar.net.backoff import Backoff


@given(seed=st.integers(), failures=st.integers(1, 2000))
def test_every_delay_is_within_a_tenth_of_the_doubled_one_and_below_the_bound(seed: int, failures: int) -> None:
    """0.1, 0.2, 0.4 ... 10 s, each off by at most 10 %, for as long as it takes."""
    backoff = Backoff(random.Random(seed))
    for number in range(failures):
        nominal = min(10.0 / 1.1, 0.1 * 2.0 ** min(number, 30))
        assert 0.9 * nominal <= backoff.next_delay_s() <= min(1.1 * nominal, 10.0)


@given(seed=st.integers(), jitter=st.floats(0.05, 0.9))
def test_r29_the_longest_delay_has_jitter_too(seed: int, jitter: float) -> None:
    """Who has waited for long does not try in step with all others: the bound cuts nothing off."""
    backoff = Backoff(random.Random(seed), max_s=5.0, jitter=jitter)
    delays = [backoff.next_delay_s() for _ in range(60)][20:]
    assert len(set(delays)) == len(delays)
    assert all(5 * (1 - jitter) / (1 + jitter) - 1e-9 <= one <= 5 + 1e-9 for one in delays)


@pytest.mark.parametrize("away_s", [4.0, 10.0, 60.0])
def test_r29_a_fleet_does_not_come_back_at_once(away_s: float) -> None:
    """Of a thousand who lost their control plane in one moment, at most a tenth call in one and the same 0.1 s."""
    calls = []
    for number in range(1_000):
        backoff = Backoff(random.Random(number), max_s=RECONNECT_MAX_S, jitter=RECONNECT_JITTER)
        at_s = 0.0
        while at_s < away_s:
            at_s += backoff.next_delay_s()
        calls.append(at_s)
    assert max(sum(first <= one < first + 0.1 for one in calls) for first in calls) <= 100
    assert max(calls) <= away_s + RECONNECT_MAX_S


@given(seed=st.integers(), at_most_s=st.floats(-5, 20))
def test_a_delay_can_be_bounded_from_outside(seed: int, at_most_s: float) -> None:
    """The remaining life of a certificate may be shorter than the usual bound; never a negative delay."""
    backoff = Backoff(random.Random(seed))
    for _ in range(20):
        assert 0 <= backoff.next_delay_s(at_most_s=at_most_s) <= max(at_most_s, 0)


def test_success_starts_over() -> None:
    """After `reset` the next failure waits the shortest delay again."""
    backoff = Backoff(random.Random(1), jitter=0)
    assert [backoff.next_delay_s() for _ in range(3)] == [0.1, 0.2, 0.4]
    backoff.reset()
    assert backoff.next_delay_s() == 0.1
    assert repr(backoff) == "<Backoff after 1 failures>"


@pytest.mark.parametrize("wrong", [{"base_s": 0}, {"base_s": 2, "max_s": 1}, {"jitter": 1}, {"jitter": -0.1}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    """A back-off that does not back off is a bug at the place where it is made."""
    with pytest.raises(ValueError, match="impossible"):
        Backoff(random.Random(1), **wrong)
