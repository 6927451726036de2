"""From sampled stacks to where the time goes."""

from __future__ import annotations

import pytest

from benchmarks.profile import at_work, parse_collapsed, summed, table


def test_collapsed_stacks_are_frames_and_a_count() -> None:
    """Frames have spaces in them; the same stack in two lines is one."""
    stacks = parse_collapsed(["main (a.py:1);work (b.py:2) 3", "main (a.py:1) 1", "main (a.py:1);work (b.py:2) 2"])
    assert stacks == {("main (a.py:1)", "work (b.py:2)"): 5, ("main (a.py:1)",): 1}
    with pytest.raises(ValueError, match="invalid literal"):
        parse_collapsed(["main (a.py:1)"])


def test_a_function_is_charged_once_for_a_stack_it_is_in_twice() -> None:
    """Recursion is no more than all of the time."""
    found = {name: (own, total) for name, own, total in summed(parse_collapsed(["a;b;a 3", "a;c 1"]))}
    assert found == {"a": (0.75, 1.0), "b": (0.0, 0.75), "c": (0.25, 0.25)}


def test_waiting_is_no_work() -> None:
    """A sidecar that shares its core waits to run as well as for sockets."""
    stacks = parse_collapsed(["run;EpollIOManager.get_events (trio/_core/_io_epoll.py:238) 90", "run;work 10"])
    assert at_work(stacks) == {("run", "work"): 10}


def test_the_table_begins_with_what_takes_most_itself() -> None:
    """As many rows as asked for."""
    lines = list(table(parse_collapsed(["a;b 9", "a;c 1"]), 1))
    assert len(lines) == 2
    assert lines[1].split() == ["90.0%", "90.0%", "b"]
