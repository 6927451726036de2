"""Runs in a process under test: its disk does what the file named by FAULTS_DISK says, JSON like {"fsync_s": 5}.

fsync_s    so long every fsync of Python code takes; the thread waits in it as in the real one
read_only  the kernel answers EROFS to every pwrite, as on a file system that an error has made read-only. SQLite
           writes with nothing else. A seccomp filter does it, so it holds until the process ends
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
import threading
import time
from typing import Any

POLL_S = 0.05
_NUMBERS = {"x86_64": (18, 317), "aarch64": (68, 277)}
"""Of pwrite64 and of seccomp."""
_LOAD, _IS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ERRNO, _ALLOW = 0x0005_0000, 0x7FFF_0000
_NO_NEW_PRIVS, _SET_FILTER, _ALL_THREADS = 38, 1, 1


def install(path: str) -> None:
    """`path` is read at every fsync, and again and again until the disk is read-only."""
    real = os.fsync

    def fsync(fd: Any) -> None:
        time.sleep(_told(path).get("fsync_s", 0))
        real(fd)

    os.fsync = fsync
    threading.Thread(target=_wait_read_only, args=(path,), daemon=True).start()


def _told(path: str) -> dict[str, Any]:
    with open(path, encoding="ascii") as file:
        told: dict[str, Any] = json.load(file)
    return told


def _wait_read_only(path: str) -> None:
    while not _told(path).get("read_only"):
        time.sleep(POLL_S)
    _refuse_pwrite()


def _refuse_pwrite() -> None:
    """In all threads (seccomp(2), SECCOMP_FILTER_FLAG_TSYNC)."""
    pwrite, seccomp = _NUMBERS[platform.machine()]
    steps = [
        (_LOAD, 0, 0, 0),  # the number of the system call: the first field of struct seccomp_data
        (_IS_EQUAL, 0, 1, pwrite),
        (_RETURN, 0, 0, _ERRNO | errno.EROFS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(seccomp, _SET_FILTER, _ALL_THREADS, program):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set here")
