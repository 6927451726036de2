"""sidecar.identity.skew: measured from every answer that carries the time, and warned of once."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.skew import WARN_S, ClockSkew
from tests.certs.forge import NOW


@given(skew_s=st.floats(-1e5, 1e5), way_s=st.floats(0, 10), back_s=st.floats(0, 10))
def test_the_error_is_at_most_half_of_the_way(skew_s: float, way_s: float, back_s: float) -> None:
    """However the time on the wire was spent."""
    skew = ClockSkew()
    skew.heard(NOW, before=NOW + skew_s - way_s, after=NOW + skew_s + back_s)
    assert skew.skew_s is not None
    assert abs(skew.skew_s - skew_s) <= (way_s + back_s) / 2 + 1e-6


def test_an_answer_without_the_time_measures_nothing() -> None:
    """An older control plane."""
    skew = ClockSkew()
    skew.heard(0.0, before=NOW, after=NOW)
    assert skew.skew_s is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_clock_that_is_far_off_is_warned_of_once_until_it_is_right_again(
    caplog: pytest.LogCaptureFixture, sign: int
) -> None:
    """Either way; a second warning needs a second trouble."""
    skew = ClockSkew()
    caplog.set_level(logging.WARNING)
    for off_s in (WARN_S - 1, WARN_S + 1, WARN_S + 50, 0, WARN_S + 1):
        skew.heard(NOW, before=NOW + sign * off_s, after=NOW + sign * off_s)
    assert len(caplog.records) == 2
