"""What a process used, by the kernel's own accounting: CPU time from schedstat, memory from smaps_rollup.

`schedstat` counts nanoseconds on a CPU for each thread; `utime` and `stime` count ticks of 10 ms, too coarse for a
short run. Threads that ended meanwhile are not counted; none of the systems measured here ends one under load.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    rss_octets: int
    """Resident, shared pages counted whole."""
    pss_octets: int
    """Resident, each shared page divided by how many processes share it."""


def parse_schedstat(text: str) -> int:
    """Nanoseconds on a CPU: the first of three numbers. ValueError for anything else."""
    on_cpu, _waiting, _slices = text.split()
    return int(on_cpu)


def parse_smaps_rollup(text: str) -> Memory:
    """KeyError without `Rss` and `Pss`; the kernel's kB are 1,024 octets."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and value.endswith(" kB"):
            found[name] = int(value[:-3]) * 1024
    return Memory(rss_octets=found["Rss"], pss_octets=found["Pss"])


def cpu_s(pid: int) -> float:
    """Seconds on a CPU, of all threads of a process, user and system."""
    tasks = (PROC / str(pid) / "task").iterdir()
    return sum(parse_schedstat((task / "schedstat").read_text()) for task in tasks) / 1e9


def memory(pid: int) -> Memory:
    return parse_smaps_rollup((PROC / str(pid) / "smaps_rollup").read_text())


def memory_of_all(pids: Iterable[int]) -> Memory:
    each = [memory(pid) for pid in pids]
    return Memory(rss_octets=sum(one.rss_octets for one in each), pss_octets=sum(one.pss_octets for one in each))
