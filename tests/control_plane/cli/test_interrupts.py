"""When SIGINT and SIGTERM may strike."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from control_plane.cli.interrupts import Interrupts

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Interrupts()
    for number, handler in before.items():
        signal.signal(number, handler)


def run(interrupts: Interrupts, *steps: Callable[[], object]) -> int:
    """How many steps were taken in a block that may be interrupted, before it was."""
    taken = 0
    try:
        with interrupts.allowed():
            for step in steps:
                step()
                taken += 1
    except KeyboardInterrupt:
        return taken
    raise AssertionError("it was not interrupted")


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@BOTH
def test_where_it_is_allowed_it_strikes_at_once(interrupts: Interrupts, number: signal.Signals) -> None:
    """As KeyboardInterrupt."""
    assert run(interrupts, int, lambda: signal.raise_signal(number), int) == 1


@BOTH
def test_what_came_before_strikes_at_the_beginning(interrupts: Interrupts, number: signal.Signals) -> None:
    """Nothing is begun after it."""
    signal.raise_signal(number)
    assert run(interrupts, int) == 0


def test_what_is_held_is_finished_first(interrupts: Interrupts) -> None:
    """Then it strikes."""
    finished = []

    def hold() -> None:
        with interrupts.held():
            ctrl_c()
            finished.append(True)

    assert run(interrupts, hold, int) == 0
    assert finished == [True]


def test_it_strikes_once(interrupts: Interrupts) -> None:
    """Whoever presses again finds us stopping already, inside and outside."""
    cleaned = []

    def clean_up() -> None:
        try:
            ctrl_c()
        finally:
            ctrl_c()
            cleaned.append(True)

    assert run(interrupts, clean_up) == 0
    assert cleaned == [True]
    ctrl_c()
    assert interrupts.came


def test_an_error_of_what_is_held_goes_before(interrupts: Interrupts) -> None:
    """The block did not finish, so there is nothing to strike after."""

    def fail() -> None:
        with interrupts.held():
            ctrl_c()
            raise LookupError

    with pytest.raises(LookupError):
        run(interrupts, fail)


def test_held_outside_stays_outside(interrupts: Interrupts) -> None:
    """It does not allow what was not allowed."""
    with interrupts.held():
        ctrl_c()
    assert interrupts.came
