"""Runs in a process under test before anything else: its wall clock and its resolver do what a file says.

The file is named by FAULTS_FILE and holds JSON: {"clock_s": how far the wall clock is off, "dns": "fails" or "works"}.
It is read again whenever it was replaced. Names ending in .test are this machine while the resolver works.
"""

from __future__ import annotations

import json
import os
import socket
import time

_path = os.environ.get("FAULTS_FILE", "")
_real_time, _real_getaddrinfo = time.time, socket.getaddrinfo
_seen: tuple[int, dict[str, object]] = (0, {})


def _faults() -> dict[str, object]:
    global _seen  # noqa: PLW0603 - a process has one clock
    changed = os.stat(_path).st_mtime_ns
    if changed != _seen[0]:
        with open(_path, encoding="ascii") as file:
            _seen = (changed, json.load(file))
    return _seen[1]


def _time() -> float:
    return _real_time() + float(str(_faults().get("clock_s", 0)))


def _getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> object:
    if isinstance(host, str) and host.endswith(".test"):
        if _faults().get("dns") == "fails":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        host = "127.0.0.1"
    return _real_getaddrinfo(host, port, *args, **kwargs)  # type: ignore[arg-type]  # handed on as it came


if _path:
    time.time = _time
    socket.getaddrinfo = _getaddrinfo  # type: ignore[assignment]  # the same for all who ask here
