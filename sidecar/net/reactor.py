"""Which sockets have something to read: one task and one epoll for all connections of the process.

Theory of operation
-------------------
A task for each connection, each waiting for its own socket, pays for a registration with the kernel and a turn of the
scheduler at every wake-up, and every wake-up sends its answers alone. Here all sockets are registered once, with one
epoll; one task waits, through trio, until that epoll has news. Then everything that is ready is run, synchronously, as
is what becomes ready meanwhile, and what it had to say is flushed once: requests that arrived on eight connections
leave on the ninth in one TLS record.

Registration is level-triggered, so a callback may read as little as it likes and is called again. What the kernel
cannot see, octets that a TLS socket has decrypted and not handed out, the callback must report: `again`.

No peer owns the loop (row A39): a callback reads a bounded slice, a round calls at most ROUND_MAX of them, and after
ROUNDS_MAX rounds what was said is sent and every other task of the process has its turn.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)

ROUND_MAX = 64
ROUNDS_MAX = 4

Callback = Callable[[], None]


class Reactor:
    """Calls back when sockets are readable. Callbacks must not raise; one that does is logged and called again."""

    def __init__(self, before: Callback, after: Callback) -> None:
        """`before` and `after` are called around the callbacks of each turn."""
        self._epoll = select.epoll()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Ends the wait for the epoll when somebody else has work for it."""
        self._epoll.register(self._alarm, select.EPOLLIN)
        self._in_round = False
        self._callbacks: dict[int, Callback] = {}
        self._again: dict[int, Callback] = {}
        self._before = before
        self._after = after

    def __repr__(self) -> str:
        return f"<Reactor {len(self._callbacks)} sockets>"

    def add(self, fd: int, callback: Callback) -> None:
        """Call `callback` whenever `fd` has something to read, has ended or has failed, until `remove`."""
        if not self._epoll.closed:
            self._callbacks[fd] = callback
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Before the descriptor is closed. Harmless when it is not there, or `run` is over."""
        self._again.pop(fd, None)
        if self._callbacks.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)

    def again(self, fd: int) -> None:
        """Call its callback in the next round, whatever the kernel says. Harmless when `run` is over."""
        callback = self._callbacks.get(fd)
        if callback is not None:
            self._again[fd] = callback
            if not self._in_round and not self._epoll.closed:  # closed with it, the alarm's number may be another's
                os.eventfd_write(self._alarm, 1)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                if self._again:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._rounds()
        finally:
            self._epoll.close()
            os.close(self._alarm)

    def _rounds(self) -> None:
        """Call whoever is ready, and whoever became so meanwhile, and only then send what they had to say: under load
        that makes few large sends of many small ones. Nobody waits for one who has more to do than a slice."""
        self._in_round = True
        self._before()
        for _ in range(ROUNDS_MAX):
            if not self._round() or self._again:
                break
        self._after()
        self._in_round = False

    def _round(self) -> bool:
        """Call whoever is ready. False: nobody was."""
        again, self._again = self._again, {}
        ready = self._epoll.poll(0, ROUND_MAX)
        if not ready and not again:
            return False
        callbacks = self._callbacks
        for fd, _ in ready:
            callback = callbacks.get(fd)
            if callback is not None:  # else removed by a callback before it
                again.pop(fd, None)
                self._call(callback)
            elif fd == self._alarm:
                os.eventfd_read(fd)
        for fd, callback in again.items():
            if callbacks.get(fd) is callback:
                self._call(callback)
        return True

    @staticmethod
    def _call(callback: Callback) -> None:
        try:
            callback()
        except Exception:
            log.exception("unexpected error on a connection")
