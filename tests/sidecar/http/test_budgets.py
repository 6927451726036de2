"""The arithmetic of the budgets: what each costs, what pays it back, and that no order of events gets around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Limits
from sidecar.errors import PeerFlood
from sidecar.http.budgets import PREMATURE_REFILL_S, PREMATURE_S, REFILL_S, Budgets
from sidecar.http.session import ErrorCode

LIMITS = replace(
    Limits(),
    premature_resets_max=20,
    glitches_max=30,
    control_frames_queued_max=10,
    priority_frames_per_stream_max=5,
    tiny_data_frames_max=30,
)


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def ends_at(call: Callable[[], None], most: int = 10_000) -> tuple[int, str]:
    """The how-manieth call is one too many, and the row it names."""
    for number in range(1, most):
        try:
            call()
        except PeerFlood as flood:
            return number, flood.row
    raise AssertionError("no end")


def test_a_flood_is_told_to_calm_down() -> None:
    """The code that GOAWAY carries."""
    assert PeerFlood().h2_code == ErrorCode.ENHANCE_YOUR_CALM


def test_each_budget_ends_one_beyond_its_number() -> None:
    """The row of the catalogue goes with it."""
    b = Budgets(LIMITS)
    assert ends_at(lambda: b.reset_received(age_s=0, was_answered=False)) == (21, "A01")
    assert ends_at(Budgets(LIMITS).reset_elicited) == (21, "A02")
    b = Budgets(LIMITS)
    assert ends_at(lambda: b.reply_queued("A07")) == (11, "A07")
    b = Budgets(LIMITS)
    assert ends_at(lambda: b.glitch("A30", 0.0)) == (31, "A30")
    b = Budgets(LIMITS)
    assert ends_at(lambda: b.glitch("A35", 0.0)) == (4, "A35")
    assert ends_at(Budgets(LIMITS).priority) == (6, "A10")
    assert ends_at(Budgets(LIMITS).window_update) == (6, "A17")
    assert ends_at(Budgets(LIMITS).empty) == (2, "A15")
    assert ends_at(Budgets(LIMITS).tiny_data) == (31, "A16")


@pytest.mark.parametrize(("age_s", "was_answered"), [(PREMATURE_S, False), (60.0, False), (0.0, True)])
def test_resets_that_are_not_premature_cost_nothing(age_s: float, was_answered: bool) -> None:
    """Late ones hold a stream for so long; answered ones were worth their while."""
    b = Budgets(LIMITS)
    for _ in range(1_000):
        b.reset_received(age_s=age_s, was_answered=was_answered)


def test_received_and_elicited_resets_share_one_account() -> None:
    """Or an attacker would have two."""
    b = Budgets(LIMITS)
    for _ in range(10):
        b.reset_received(age_s=0, was_answered=False)
        b.reset_elicited()
    with pytest.raises(PeerFlood):
        b.reset_elicited()


def test_empty_frames_count_in_a_row_only() -> None:
    """What is not empty ends the run."""
    b = Budgets(LIMITS)
    for _ in range(100):
        b.empty()
        assert b.has_empty
        b.not_empty()
    assert not b.has_empty


def test_late_resets_are_free_once_for_each_stream() -> None:
    """Then they are glitches."""
    b = Budgets(LIMITS)
    b.streams_opened = 100
    assert ends_at(lambda: b.reset_late(0.0)) == (131, "A30")


def test_replies_leave_in_order() -> None:
    """A socket that always has something to send has still sent what was queued a while ago."""
    b = Budgets(LIMITS)
    for _ in range(1_000):
        b.reply_queued("A09")
        b.replies_sent(octets=500, unsent=1_000)


def test_replies_that_do_not_leave_are_not_forgotten() -> None:
    """The socket takes an octet now and then: that is no reading."""
    b = Budgets(LIMITS)

    def one() -> None:
        b.reply_queued("A09")
        b.replies_sent(octets=1, unsent=100_000)

    assert ends_at(one) == (11, "A09")


def test_tiny_frames_that_were_taken_are_paid_back_and_no_more() -> None:
    """Those of other streams still wait."""
    b = Budgets(LIMITS)
    for _ in range(20):
        b.tiny_data()
    b.tiny_taken(5)
    assert ends_at(b.tiny_data) == (16, "A16")
    b.tiny_taken()
    assert ends_at(b.tiny_data) == (31, "A16")


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Nor does it take."""
    b = Budgets(LIMITS)
    times = iter([100.0, 0.0] * 1_000)
    assert ends_at(lambda: b.glitch("A30", next(times)))[0] == 31


def test_its_repr_tells_what_is_spent() -> None:
    """For whoever debugs a connection that was ended."""
    b = Budgets(LIMITS)
    b.reset_elicited()
    b.glitch("A30", 0.0)
    assert repr(b) == "<Budgets 0 streams, 1 resets, 1 glitches>"


STEPS = st.lists(st.tuples(st.sampled_from(["answer", "reset", "wait"]), st.floats(0, 2)), max_size=300)


@given(STEPS)
def test_a01_no_order_of_events_throws_away_more_than_the_bound(steps: list[tuple[str, float]]) -> None:
    """At most the number of the configuration, what was answered, and what time has forgiven."""
    clock = Clock()
    b = Budgets(LIMITS, clock)
    thrown = answered = 0
    began = clock.now
    for what, value in steps:
        if what == "answer":
            b.answered += 1
            answered += 1
        elif what == "wait":
            clock.now += value
        else:
            thrown += 1
            try:
                b.reset_received(age_s=0.0, was_answered=False)
            except PeerFlood:
                return
        forgiven = (clock.now - began) * LIMITS.premature_resets_max / PREMATURE_REFILL_S
        assert thrown <= LIMITS.premature_resets_max + answered + forgiven + 1e-6


@given(st.lists(st.integers(1, 20), min_size=1, max_size=100))
def test_a01_whoever_is_answered_as_often_as_it_resets_is_never_ended(runs: list[int]) -> None:
    """In runs shorter than the bound, however long it goes on and though no time passes."""
    b = Budgets(LIMITS)
    for run in runs:
        for _ in range(run):
            b.reset_received(age_s=0.0, was_answered=False)
        b.answered += run


@given(st.lists(st.floats(0, 5), max_size=300))
def test_a30_glitches_never_exceed_burst_and_rate(waits: list[float]) -> None:
    """The bucket: its size, and its size again in each REFILL_S."""
    b = Budgets(LIMITS)
    now = 0.0
    for passed, wait in enumerate(waits, 1):
        now += wait
        try:
            b.glitch("A30", now)
        except PeerFlood:
            return
        assert passed <= LIMITS.glitches_max * (1 + now / REFILL_S) + 1e-6


@given(st.lists(st.floats(REFILL_S / LIMITS.glitches_max, 10), max_size=300))
def test_a30_at_the_rate_of_the_refill_nobody_is_ended(waits: list[float]) -> None:
    """One in each thirtieth of it, or fewer."""
    b = Budgets(LIMITS)
    now = 0.0
    for wait in waits:
        now += wait
        b.glitch("A30", now)


@given(st.lists(st.sampled_from(["stream", "data", "update", "priority"]), max_size=400))
def test_a10_a17_ratios_hold_whatever_the_order(events: list[str]) -> None:
    """Never more than the streams and frames so far allow."""
    b = Budgets(LIMITS)
    updates = priorities = 0
    for event in events:
        try:
            if event == "stream":
                b.streams_opened += 1
            elif event == "data":
                b.data_frames_sent += 1
            elif event == "update":
                b.window_update()
                updates += 1
            else:
                b.priority()
                priorities += 1
        except PeerFlood:
            return
        assert updates <= 5 + 2 * (b.streams_opened + 10 * b.data_frames_sent)
        assert priorities <= 5 * (1 + b.streams_opened)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3)), max_size=200))
def test_a07_replies_that_wait_are_never_more_than_the_bound(moves: list[tuple[int, int]]) -> None:
    """Against a model of the socket: a queue of octets, each reply of 17 at its end.

    The account may lag behind the socket by what waited at one time, and is never ahead of it."""
    b = Budgets(LIMITS)
    queue: list[int] = []  # octets of each reply that still waits
    for taken, replies in moves:
        try:
            for _ in range(replies):
                b.reply_queued("A09")
                queue.append(17)
        except PeerFlood:
            return
        left = taken = min(taken, sum(queue))
        while left:
            part = min(left, queue[0])
            queue[0] -= part
            left -= part
            if not queue[0]:
                queue.pop(0)
        if b.has_replies:
            b.replies_sent(taken, sum(queue))
        assert len(queue) <= b._queued <= LIMITS.control_frames_queued_max
