"""Killing a process at its n-th durable operation.

A durable operation is what changes a disk: opening with O_CREAT or O_TRUNC, write and pwrite to a regular file, fsync,
rename, unlink, mkdir, link, truncate, and, in SQLite, BEGIN and COMMIT. `install` puts a counter before each, in this
process only; nothing of it is in the code that runs. Three ways to die:

    before   right before the operation
    torn     a write has put half of its octets into the file
    power    right before the operation, and what no fsync had reached in the audit file is lost: the power failed

(That SQLite's own writes are atomic is SQLite's to prove; that the two files agree whatever was reached, is ours.)
"""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from typing import Any

WAYS = ("before", "torn", "power")
_PLAIN = ("fsync", "rename", "replace", "unlink", "mkdir", "link", "ftruncate", "truncate", "rmdir")


class Points:
    """The counter. `kill_at` 0: nobody dies, they are only counted."""

    def __init__(self, kill_at: int, way: str) -> None:
        self.count = 0
        self.names: list[str] = []
        self._kill_at = kill_at
        self._way = way
        self._synced: dict[str, int] = {}
        self._real_write, self._real_pwrite, self._real_truncate = os.write, os.pwrite, os.truncate

    def reached(self, name: str) -> bool:
        """Counts one; dies if it is the one, but for a torn write: then true."""
        self.count += 1
        self.names.append(name)
        if self.count != self._kill_at:
            return False
        if self._way == "torn" and name in ("write", "pwrite"):
            return True
        if self._way == "power":
            for path, octets in self._synced.items():
                if os.path.exists(path) and os.path.getsize(path) > octets:
                    self._real_truncate(path, octets)
        die()
        return False

    def install(self) -> None:
        for name in _PLAIN:
            self._wrap(name)
        self._wrap_open()
        self._wrap_writes()
        self._wrap_sqlite()

    def _wrap(self, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reached(name)
            answer = real(*args, **kwargs)
            if name == "fsync" and isinstance(args[0], int):
                path = os.readlink(f"/proc/self/fd/{args[0]}")
                if "audit" in os.path.basename(path) and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    self._synced[path] = os.fstat(args[0]).st_size
            if name == "rename":
                # What was known of it goes with the file.
                old, new = (os.path.abspath(os.fspath(one)) for one in args[:2])
                if old in self._synced:
                    self._synced[new] = self._synced.pop(old)
            return answer

        setattr(os, name, wrapped)

    def _wrap_open(self) -> None:
        real = os.open

        def wrapped(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & (os.O_CREAT | os.O_TRUNC):
                self.reached("open")
            fd = real(path, flags, *args, **kwargs)
            if "audit" in os.path.basename(os.fspath(path)) and stat.S_ISREG(os.fstat(fd).st_mode):
                self._synced.setdefault(os.path.abspath(os.fspath(path)), os.fstat(fd).st_size)
            return fd

        os.open = wrapped

    def _wrap_writes(self) -> None:
        def write(fd: int, data: bytes) -> int:
            if stat.S_ISREG(os.fstat(fd).st_mode) and self.reached("write"):
                self._real_write(fd, bytes(data)[: len(data) // 2])
                die()
            return self._real_write(fd, data)

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            if self.reached("pwrite"):
                self._real_pwrite(fd, bytes(data)[: len(data) // 2], offset)
                die()
            return self._real_pwrite(fd, data, offset)

        os.write, os.pwrite = write, pwrite  # type: ignore[assignment]  # narrower than the real ones

    def _wrap_sqlite(self) -> None:
        points = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                if sql.startswith(("BEGIN", "COMMIT")):
                    points.reached(sql.split()[0])
                return super().execute(sql, *args)

        real = sqlite3.connect

        def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            made: sqlite3.Connection = real(*args, **{"factory": Connection, **kwargs})
            return made

        sqlite3.connect = connect  # type: ignore[assignment]  # one of its overloads


def die() -> None:
    """At once: nothing is flushed, no finally runs."""
    os.kill(os.getpid(), signal.SIGKILL)
