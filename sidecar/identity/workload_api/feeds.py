"""A stream of answers that all who ask get alike: the whole of it at once, and again whenever it has changed."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.control.errors import RpcError
from sidecar.control.wire import frame_message
from sidecar.identity.workload_api.calls import Call


class Feed:
    """One method that answers with a stream. What it says is made once per change, whatever the number of callers."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        """`make`: the message of now, in its wire form; equal ones mean that nothing has changed. Raises RpcError while
        there is nothing to say, which ends the calls that are open: a client asks again, with a back-off."""
        self._make = make
        self._calls: set[Call] = set()
        self._last: bytes | None = None

    def __repr__(self) -> str:
        return f"<Feed to {len(self._calls)} callers>"

    def begin(self, call: Call, _request: bytes) -> None:
        """`Answer` of the method; its message has no fields. Raises RpcError."""
        framed = self._renewed()
        self._calls.add(call)
        call.abandoned = lambda: self._calls.discard(call)
        call.send(framed)

    def changed(self) -> None:
        """Something may have changed: tell everybody, if it has."""
        if self._calls:
            try:
                self._renewed()
            except RpcError as error:
                for call in list(self._calls):
                    call.finish(error)
        else:
            self._last = None

    def _renewed(self) -> bytes:
        """The message of now, which everybody has been sent."""
        try:
            framed = frame_message(self._make())
        except RpcError:
            self._last = None
            raise
        if framed != self._last:
            self._last = framed
            for call in list(self._calls):
                call.send(framed)
        return framed
