"""Which CPython runs our side: the fastest that is installed, as a user who cares for speed would choose.

How an interpreter was built makes a fifth of its speed: distributions build theirs with profile-guided optimization,
which `configure` leaves out unless it is asked for, and Envoy's makers leave nothing out either. What a build says of
itself differs from one to the next, so it is measured: the same few loops on each.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.tools import ROOT, SBIN, Missing

VENV = ROOT / ".venv-bench-python"
LOCK = ROOT / "requirements.lock"
NAMES = ("python3", "python3.11", "python3.12", "python3.13", "python3.14")
PLACES = ("/usr/bin", "/usr/local/bin", "/opt/python/bin")
BETTER_BY = 0.95
"""Another one than the project's own must be at least so much faster to be worth a venv."""

_LOOPS = """
import sys, time
class Thing:
    __slots__ = ("count",)
    def __init__(self): self.count = 0
    def add(self, key, value): self.count += 1; return (key, value)
def work():
    thing, known, out = Thing(), {}, []
    for number in range(60_000):
        key = b"%d" % (number & 255)
        known[key] = thing.add(key, number)
        if number & 7 == 0: out.append(known.get(key))
        if len(out) > 64: b"".join(pair[0] for pair in out); out.clear()
def took():
    began = time.process_time(); work(); return time.process_time() - began
print(sys.version_info >= (3, 11) and sys.implementation.name == "cpython", min(took() for _ in range(7)))
"""


def seconds(python: str) -> float | None:
    """CPU time of the loops; None if that is no CPython that can run us."""
    try:
        run = subprocess.run([python, "-I", "-c", _LOOPS], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    usable, _, took = run.stdout.partition(" ")
    return float(took) if usable == "True" else None


def candidates() -> list[str]:
    """Every interpreter that is to be found, our own first; each once."""
    found: dict[str, str] = {str(Path(sys.executable).resolve()): sys.executable}
    for name in NAMES:
        for place in (None, *PLACES, *SBIN):
            if path := shutil.which(name, path=place):
                found.setdefault(str(Path(path).resolve()), path)
    return list(found.values())


def choose(times: dict[str, float], own: str) -> str:
    """The fastest of `times` (interpreter -> seconds), `own` unless another one is clearly better."""
    best = min(times, key=lambda python: times[python])
    return best if times[best] < BETTER_BY * times[own] else own


def fastest() -> str:
    """The interpreter to run ours with, as a path."""
    times = {python: took for python in candidates() if (took := seconds(python)) is not None}
    return choose(times, sys.executable)


def equipped(python: str) -> str:
    """A Python with what Hauberk needs, from requirements.lock: `python` itself if it is ours, else in a venv.

    Raises Missing if it cannot be made."""
    if python == sys.executable:
        return python
    if seconds(python) is None:
        raise Missing(f"{python} is no CPython 3.11 or newer that runs; `--python own` runs the project's own")
    made, own = VENV / "made", str(VENV / "bin" / "python")
    stamp = hashlib.sha256(LOCK.read_bytes() + python.encode() + version_of(python).encode()).hexdigest()
    if not made.exists() or made.read_text() != stamp:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", "--python", own]
        try:  # its own pip is not needed, and some distributions do not ship it
            subprocess.run([python, "-m", "venv", "--clear", "--without-pip", str(VENV)], check=True)
            subprocess.run([*pip, "install", "--require-hashes", "-r", str(LOCK)], check=True)
        except (OSError, subprocess.SubprocessError) as e:
            raise Missing(f"{python} cannot be used: {e}; `--python own` runs the project's own") from None
        made.write_text(stamp)
    return own


def version_of(python: str) -> str:
    """Version, and the compiler it was built with."""
    command = [python, "-I", "-c", "import sys; print(sys.version)"]
    return " ".join(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split())
