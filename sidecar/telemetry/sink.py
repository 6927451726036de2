"""Writing to a descriptor we did not open (standard error) without ever blocking the event loop, and without a thread.

Theory of operation. Standard error is shared: with the app under `hauberk run`, with the shell, with a container's log
driver. Setting O_NONBLOCK on it would set it for all of them, for the flag belongs to the open file description
(open(2)), and a blocking write to a full pipe would stop the whole sidecar for as long as its reader sleeps. So it
depends on what the descriptor is:

- a pipe or a terminal is opened again through /proc/self/fd/N, which makes a description of our own, non-blocking;
- a socket is written with MSG_DONTWAIT, which concerns one call only;
- anything else (a regular file, /dev/null) is always writable to poll(2) and is written as it is;
- where opening again is not allowed (a pipe of another user), the shared descriptor is written only after poll says
  it takes PIPE_BUF octets, which is what POLLOUT means on a pipe (pipe(7)). Another writer could take the room between
  the poll and the write; that moment is the only one left, and it ends when the pipe's reader reads.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from types import TracebackType

import trio


class Sink:
    """Writes chunks to one descriptor and waits, as a trio task, whenever it is full."""

    def __init__(self, fd: int) -> None:
        """Raises OSError if `fd` is not open. `fd` stays the caller's; what is opened here is closed by `close`."""
        self._own_fd = -1
        self._socket: socket.socket | None = None
        self._is_pollable = True
        self._fd = fd
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
        elif stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)):
            self._reopen(fd)
        else:
            self._is_pollable = False

    def __repr__(self) -> str:
        return f"<Sink fd={self._fd} own={self._own_fd != -1 or self._socket is not None}>"

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _reopen(self, fd: int) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            self._own_fd = self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            pass  # the fourth case above

    async def write(self, chunk: bytes) -> None:
        """Write all of `chunk`; keep it within PIPE_BUF octets so that a pipe takes all of it or nothing.

        Raises OSError when nobody can read it any more (EPIPE) or it cannot be stored (ENOSPC, EIO).
        """
        rest = memoryview(chunk)
        while rest:
            await self._wait_writable()
            try:
                rest = rest[self._write_some(rest) :]
            except BlockingIOError:
                continue

    def _write_some(self, data: memoryview) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self._fd, data[: select.PIPE_BUF])

    async def _wait_writable(self) -> None:
        if self._is_pollable:
            await trio.lowlevel.wait_writable(self._fd)
        else:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close what was opened here; the descriptor it was made from stays open. May be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        elif self._own_fd != -1:
            os.close(self._own_fd)
            self._own_fd = -1
        self._fd = -1
