"""The token bucket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.limits import RateLimit
from tests.control_plane.support import NOW


def test_g12_a_burst_then_one_a_second() -> None:
    """And each peer for itself."""
    limit = RateLimit(rate_per_s=1.0, burst=20)
    assert [limit.take("a", NOW) for _ in range(20)] == [0.0] * 20
    assert limit.take("a", NOW) == 1.0
    assert limit.take("b", NOW) == 0.0
    assert limit.take("a", NOW + 0.5) == 0.5
    assert limit.take("a", NOW + 1) == 0.0
    assert limit.take("a", NOW + 1) > 0


def test_it_remembers_a_bounded_number_of_peers() -> None:
    """An attacker with many addresses must not fill our memory."""
    limit = RateLimit(rate_per_s=1.0, burst=1, peers_max=100)
    for n in range(10_000):
        limit.take(f"peer {n}", NOW)
    assert repr(limit) == "<RateLimit 1.0/s burst=1 peers=100>"


@given(st.lists(st.integers(-50, 50), max_size=100))
def test_however_the_clock_moves_it_never_allows_more_than_burst_and_rate(tenths: list[int]) -> None:
    """A clock that goes back gives nothing."""
    limit = RateLimit(rate_per_s=2.0, burst=5)
    now, forward_s, allowed = NOW, 0.0, 0
    for step in (tenth / 10 for tenth in tenths):
        now += step
        forward_s += max(0.0, step)
        allowed += limit.take("a", now) == 0.0
    assert allowed <= 5 + forward_s * 2.0 + 1e-6
