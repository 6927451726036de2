"""A system under test: two sidecars that are started, driven and accounted for in the same way, whoever made them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import work
from benchmarks.certificates import Files
from benchmarks.tools import need

START_S = 60.0
POLL_S = 0.02
STOP_S = 10.0


TOGETHER, APART, FREE = "together", "apart", "free"


class NotStarted(Exception):
    """A process of a system under test ended, or never became ready; the message holds its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which CPUs run what, as lists for taskset, the same for every system."""

    outbound: str
    """Sidecar A."""
    inbound: str
    """Sidecar B."""
    rest: str
    """Load, app, control plane."""

    @classmethod
    def choose(cls, pinning: str = TOGETHER) -> Cores:
        """On two cores: TOGETHER: both sidecars on one, all else on the other. APART: a core for each sidecar, all else
        wherever there is room. FREE: the kernel chooses."""
        available = sorted(os.sched_getaffinity(0))
        first, last, every = str(available[0]), str(available[-1]), ",".join(map(str, available))
        return {
            TOGETHER: cls(outbound=first, inbound=first, rest=last),
            APART: cls(outbound=first, inbound=last, rest=every),
            FREE: cls(outbound=every, inbound=every, rest=every),
        }[pinning]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a system is to be."""

    app: int
    """The app's port on loopback."""
    is_http1: bool = False
    """What the app speaks; else HTTP/2."""
    crowd: bool = False
    """With 500 endpoints and 5,000 rules that match nothing."""
    cores: Cores
    directory: Path
    """Its own, empty; logs stay there."""

    @property
    def rules(self) -> list[work.Rule]:
        """Those that match nothing come first: who looks at one after the other looks at all of them."""
        return [*(work.idle_rules(work.CROWD_RULES) if self.crowd else []), *work.rules()]


class Running(Protocol):
    """Two sidecars that answer."""

    @property
    def port(self) -> int:
        """Where to aim: sidecar A's plaintext listener."""

    @property
    def mesh_port(self) -> int:
        """Sidecar B's, where another member of the mesh could aim as well."""

    @property
    def caller(self) -> Files:
        """A certificate of the caller's, for whoever does."""

    @property
    def outbound(self) -> Sequence[int]:
        """Process ids of sidecar A."""

    @property
    def inbound(self) -> Sequence[int]:
        """Process ids of sidecar B."""


class System(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def start(self, setup: Setup) -> contextlib.AbstractContextManager[Running]:
        """Until both sidecars are ready. Raises NotStarted and Missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`Running` in plain data."""

    port: int
    mesh_port: int
    caller: Files
    outbound: Sequence[int]
    inbound: Sequence[int]


def pinned(core: str, command: Sequence[str]) -> list[str]:
    """`core`: one CPU or several, such as "0,1"."""
    return [need("taskset"), "--cpu-list", core, *command]


def started(
    stack: ExitStack, name: str, command: Sequence[str], *, core: str, directory: Path,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """A process on its core, with a log of its own, ended when `stack` is."""
    with (directory / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            pinned(core, command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, env=environ
        )
    stack.callback(ended, process)
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], bool], what: str, *processes: tuple[subprocess.Popen[bytes], Path]) -> None:
    """`processes`: with their logs, watched meanwhile. Raises NotStarted."""
    deadline = time.monotonic() + START_S
    while not is_so():
        for process, log in processes:
            if process.poll() is not None:
                raise NotStarted(f"{what}: {log.stem} ended with {process.returncode}:\n{log.read_text()[-2_000:]}")
        if time.monotonic() > deadline:
            raise NotStarted(f"not within {START_S:g} s: {what}")
        time.sleep(POLL_S)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
