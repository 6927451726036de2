"""CPU time and memory of a process, as the kernel tells them."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks import account

ROLLUP = """\
55d0a0000000-7ffd5e3fe000 ---p 00000000 00:00 0                          [rollup]
Rss:               41236 kB
Pss:               31022 kB
Pss_Dirty:         20100 kB
Swap:                  0 kB
"""


def test_schedstat_begins_with_nanoseconds_on_a_cpu() -> None:
    """Then time spent waiting, and how often it ran."""
    assert account.parse_schedstat("77695 57877 2\n") == 77_695
    with pytest.raises(ValueError, match="unpack"):
        account.parse_schedstat("77695 57877")


def test_smaps_rollup_is_in_kibibytes() -> None:
    """Rss and Pss are what is kept."""
    found = account.parse_smaps_rollup(ROLLUP)
    assert (found.rss_octets, found.pss_octets) == (41_236 * 1024, 31_022 * 1024)
    with pytest.raises(KeyError, match="Pss"):
        account.parse_smaps_rollup("Rss:               41236 kB\n")


def test_a_process_that_works_uses_cpu_time_and_memory() -> None:
    """This one. What it is charged agrees with what it is told itself."""
    began, own = account.cpu_s(os.getpid()), time.process_time()
    while time.process_time() - own < 0.05:
        pass
    assert account.cpu_s(os.getpid()) - began >= 0.04
    one = account.memory(os.getpid())
    assert 0 < one.pss_octets <= one.rss_octets
    both = account.memory_of_all([os.getpid(), os.getpid()])
    assert both.rss_octets >= 1.5 * one.rss_octets
