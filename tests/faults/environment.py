"""Faults of the machine a process runs on: its clocks, its resolver, its disk.

    machine = Machine(tmp_path)
    web = mesh.sidecar("web", environ=machine.environ)
    machine.set(clock_s=3_600)

Clocks are libfaketime's to set, below Python: OpenSSL and grpcio look at certificates by what the C library says.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import libfaketime

from tests.e2e.harness import Process

PRELOAD = Path(__file__).parent / "preload"
CLOCK_KNOWN_S = 2.0
"""The clock is looked up once a second."""


class Machine:
    """What processes started with `environ` believe of the time, and of names."""

    def __init__(self, directory: Path, name: str = "machine", *, ages: bool = False) -> None:
        """`ages`: monotonic time jumps with the wall clock, as if hours had gone by; else somebody set the clock."""
        self._names, self._clock = directory / f"{name}.json", directory / f"{name}.clock"
        self.set()
        (library,) = Path(libfaketime.__file__).parent.rglob("libfaketime.so.1")
        path = os.pathsep.join(filter(None, [str(PRELOAD), os.environ.get("PYTHONPATH", "")]))
        self.environ = {
            "FAULTS_FILE": str(self._names),
            "PYTHONPATH": path,
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": str(int(not ages)),
        }

    def set(self, *, clock_s: int = 0, dns: str = "works") -> None:
        """`clock_s`: how far the clock is off. `dns`: "works" | "fails"."""
        _replace(self._clock, f"{clock_s:+d}\n")
        _replace(self._names, json.dumps({"dns": dns}))


class Disk:
    """What the disk of processes started with `environ` does (`preload/faulty_disk.py`)."""

    def __init__(self, directory: Path, name: str = "disk") -> None:
        self._file = directory / f"{name}.json"
        self.set()
        path = os.pathsep.join(filter(None, [str(PRELOAD), os.environ.get("PYTHONPATH", "")]))
        self.environ = {"FAULTS_DISK": str(self._file), "PYTHONPATH": path}

    def set(self, *, fsync_s: float = 0, read_only: bool = False) -> None:
        """`read_only` soon holds for the processes that run now, until they end."""
        _replace(self._file, json.dumps({"fsync_s": fsync_s, "read_only": read_only}))


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


def fill_disk(process: Process) -> None:
    """From now on no file it writes to grows: EFBIG, which is as good as a full disk."""
    _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (0, hard))


def free_disk(process: Process) -> None:
    _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (hard, hard))
