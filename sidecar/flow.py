"""One direction of an exchange's body: from a stream of one session to a stream of another. Sans-IO.

Bytes that the other side cannot take yet wait here; the credit they came with is returned to their sender only when
they were handed on. So what waits is bounded by the window we gave the sender, and a slow reader slows its sender and
nobody else.
"""

from __future__ import annotations

from collections import deque

from sidecar.http.session import Fields, Session

MERGE_OCTETS = 1_024
"""Pieces that wait are joined until they are so large, so that many small ones do not cost more than a few large."""


class Flow:
    """One direction of body: from a stream of `source` to a stream of `target`, as fast as the target takes it."""

    __slots__ = (
        "_queue",
        "_source",
        "_source_stream",
        "_stopped",
        "_target",
        "_target_stream",
        "ended",
        "octets",
        "touched",
    )

    def __init__(self, source: Session, source_stream: int, touched: set[Session]) -> None:
        self._source = source
        self._source_stream = source_stream
        self._target: Session | None = None
        self._target_stream = 0
        self._queue: deque[tuple[bytes, int, bool, Fields | None]] = deque()
        """(data, credit to return, last, trailers)"""
        self.touched = touched
        self.octets = 0
        """Handed on so far."""
        self.ended = False
        """The last byte (or the trailers) was handed on."""
        self._stopped = False

    @property
    def held(self) -> int:
        """Octets waiting here."""
        return sum(len(item[0]) for item in self._queue)

    @property
    def is_empty(self) -> bool:
        return not self._queue

    @property
    def is_whole(self) -> bool:
        """Nothing was handed on yet, so all of it could go elsewhere."""
        return self.octets == 0 and not self.ended

    def open(self, target: Session, stream: int) -> None:
        self._target, self._target_stream = target, stream
        self.pump()

    def rewind(self) -> None:
        """The target is gone before anything was handed to it."""
        assert self.is_whole
        self._target = None

    def push(self, data: bytes, flow: int, end: bool) -> None:
        target = self._target
        if target is not None and data and not self._queue and len(data) <= target.credit(self._target_stream):
            self.octets += len(data)  # the usual case: nothing waits, and there is room for all of it
            self.ended = end
            target.data(self._target_stream, data, end)
            self.touched.add(target)
            if flow:
                self._source.consumed(self._source_stream, flow)
                self.touched.add(self._source)
            return
        if self._stopped:
            self.swallow(flow)
            return
        if not data and not end:  # nothing but padding: it would wait at no cost to its sender (row A15)
            if flow:
                self.swallow(flow)
            return
        if self._queue and len(self._queue[-1][0]) < MERGE_OCTETS:  # row A16; what waits is never the last piece
            last, last_flow, _, _ = self._queue[-1]
            self._queue[-1] = (last + data, last_flow + flow, end, None)
        else:
            self._queue.append((data, flow, end, None))
        self.pump()

    def finish(self, trailers: Fields) -> None:
        self._queue.append((b"", 0, True, trailers or None))
        self.pump()

    def pump(self) -> None:
        target = self._target
        if target is None or not self._queue:
            return
        queue, stream, given = self._queue, self._target_stream, 0
        while queue:
            data, flow, end, trailers = queue[0]
            if data:
                credit = target.credit(stream)
                if credit <= 0:
                    target.want_write(stream)
                    break
                if credit < len(data):
                    # The queue first: the call may end the exchange, and that empties it.
                    queue[0] = (data[credit:], flow - credit, end, trailers)
                    self.octets += credit
                    given += credit
                    target.data(stream, data[:credit], False)
                    continue
            queue.popleft()
            self.octets += len(data)
            given += flow
            self.ended = end
            if trailers is not None:
                target.trailers(stream, trailers)
            elif data or end:
                target.data(stream, data, end)
        self.touched.add(target)
        if given:
            self._source.consumed(self._source_stream, given)
            self.touched.add(self._source)

    def drop(self) -> None:
        """Throw away what waits and give its credit back: the sender's connection is shared."""
        self._target = None
        self._stopped = True
        if not self._queue:
            return
        given = sum(item[1] for item in self._queue)
        self._queue.clear()
        if given:
            self._source.consumed(self._source_stream, given)
            self.touched.add(self._source)

    def swallow(self, flow: int) -> None:
        """Bytes that arrive after the end."""
        self._source.consumed(self._source_stream, flow)
        self.touched.add(self._source)


class _NoBody(Flow):
    """Of a message that ended with its head: all of it is handed on, and nothing ever waits. There is only one."""

    __slots__ = ()

    def __init__(self) -> None:
        self._queue = deque()
        self._target = None
        self.octets = 0
        self.ended = True

    @property
    def is_whole(self) -> bool:
        return True

    def push(self, data: bytes, flow: int, end: bool) -> None:
        raise AssertionError("there is no body")

    def finish(self, trailers: Fields) -> None:
        raise AssertionError("there is no body")

    def rewind(self) -> None:
        pass

    def drop(self) -> None:
        pass


NO_BODY = _NoBody()
