"""Calls that come at the same time share one commit.

What a call changes is durable before it is answered, and that costs the disk the same for one change as for sixteen. So
calls that wait for nothing but the store run one after the other in one batch of the store, and are answered when that
is on the disk. A call that comes alone does not wait for others. Right after a batch it does, for some milliseconds:
gRPC hands over one call at a time, and would never have two of them ready in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from control_plane.store.base import Store

T = TypeVar("T")

AT_ONCE_MAX = 16
"""Of a batch: so long may everybody else wait for the event loop, some 20 ms."""
WAIT_S = 0.005
LOAD_S = 0.020
"""Who comes so soon after a batch is probably not alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    call: Callable[[], Coroutine[Any, Any, Any]]
    answer: asyncio.Future[Any]


class Together:
    """See the module's docstring. Of one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._due: asyncio.Handle | None = None
        self._ended = -LOAD_S

    def __repr__(self) -> str:
        return f"<Together waiting={len(self._waiting)}>"

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine of `call` returns or raises; it must not wait for anything. Not run at all if this is
        cancelled before. Raises Unavailable if what it did could not be made durable."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Waiting(call=call, answer=answer))
        if self._due is None:
            is_alone = loop.time() - self._ended >= LOAD_S
            self._due = loop.call_soon(self._turn) if is_alone else loop.call_later(WAIT_S, self._turn)
        elif len(self._waiting) == AT_ONCE_MAX:
            self._due.cancel()
            self._due = loop.call_soon(self._turn)
        return await answer

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        batch = [self._waiting.popleft() for _ in range(min(AT_ONCE_MAX, len(self._waiting)))]
        self._due = loop.call_soon(self._turn) if self._waiting else None
        self._run(batch)
        self._ended = loop.time()

    def _run(self, batch: Sequence[_Waiting]) -> None:
        # Who has gone away meanwhile wants nothing to be spent.
        batch = [one for one in batch if not one.answer.done()]
        if not batch:
            return
        outcomes: list[tuple[Any, Exception | None]] = []
        failure: Exception | None = None
        try:
            with self._store.batch():
                outcomes += (_outcome(one.call()) for one in batch)
        except Exception as error:  # of the commit, so of everybody who was told yes
            failure = error
            outcomes += [(None, error)] * (len(batch) - len(outcomes))
        for one, (result, refusal) in zip(batch, outcomes, strict=True):
            if one.answer.done():
                continue
            why_not = refusal or failure
            if why_not is None:
                one.answer.set_result(result)
            else:
                one.answer.set_exception(why_not)


def _outcome(call: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    """Its result, or what it raised."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value, None
    except Exception as error:  # handed to who called
        return None, error
    call.close()
    return None, RuntimeError("a call that runs together with others must not wait")
