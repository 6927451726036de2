"""How many refused calls are written down one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.audit.refusals import ALL, EACH_PEER, HOUR, Refusals
from tests.control_plane.support import NOW


def test_of_one_peer_ten_a_second_and_of_all_a_hundred() -> None:
    """In the next second as many again."""
    refusals = Refusals()
    assert sum(refusals.admit("a", NOW) for _ in range(50)) == EACH_PEER
    assert sum(refusals.admit(f"peer {number}", NOW) for number in range(500)) == ALL - EACH_PEER
    assert refusals.admit("a", NOW + 1)


def test_in_an_hour_ten_thousand() -> None:
    """So that a flood that lasts does not fill the disk either; then sums come once a minute."""
    refusals = Refusals()
    start = NOW - NOW % 3_600
    admitted = sum(refusals.admit(f"peer {number}", start + second) for second in range(200) for number in range(100))
    assert admitted == HOUR
    assert refusals.due(start + 130) is None
    assert refusals.due(start + 300) is not None
    assert refusals.admit("a", start + 3_600)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1e9)), max_size=300))
def test_every_call_is_written_down_or_counted(calls: list[tuple[str, float]]) -> None:
    """None is passed over, in whatever order the clock has it."""
    refusals = Refusals()
    written = counted = 0
    for peer, now in calls:
        told = refusals.due(now)
        counted += told.count if told is not None else 0
        written += refusals.admit(peer, now)
    told = refusals.take()
    counted += told.count if told is not None else 0
    assert written + counted == len(calls)


def test_what_could_not_be_told_is_told_with_the_next() -> None:
    """The sum is put back."""
    refusals = Refusals()
    refusals.leave_out("a", NOW)
    told = refusals.due(NOW + 2)
    assert told is not None
    refusals.put_back(told)
    refusals.leave_out("b", NOW + 3)
    again = refusals.due(NOW + 5)
    assert again is not None
    assert (again.count, again.since) == (2, NOW)
