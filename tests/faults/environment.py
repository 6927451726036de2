"""Faults of the machine a process runs on: its wall clock, its resolver, its disk."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

from tests.e2e.harness import Process

PRELOAD = Path(__file__).parent / "preload"


class Machine:
    """What processes started with `environ` believe of the time, and of names."""

    def __init__(self, directory: Path, name: str = "machine") -> None:
        self._file = directory / f"{name}.json"
        self._is: dict[str, object] = {"clock_s": 0, "dns": "works"}
        self.set()
        path = os.pathsep.join(filter(None, [str(PRELOAD), os.environ.get("PYTHONPATH", "")]))
        self.environ = {"FAULTS_FILE": str(self._file), "PYTHONPATH": path}

    def set(self, **changes: object) -> None:
        """`clock_s`: how far the wall clock is off. `dns`: "works" | "fails"."""
        self._is |= changes
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._is))
        new.replace(self._file)


def fill_disk(process: Process) -> None:
    """From now on no file it writes to grows: EFBIG, which is as good as a full disk."""
    _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (0, hard))


def free_disk(process: Process) -> None:
    _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (hard, hard))
