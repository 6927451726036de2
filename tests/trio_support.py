"""Trio tests without a plugin: a decorator that runs an async test in its own loop.

    @trio_test
    async def test_a_thing_happens(tmp_path: Path) -> None: ...

    @trio_test(autojump=True)
    async def test_a_thing_times_out_after_an_hour() -> None: ...

Fixtures work as usual. With `autojump` the clock jumps whenever every task waits, so that hours cost nothing; it must
not be used with real sockets, whose data would arrive "too late". Without it a test that hangs fails after `timeout_s`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, overload

import trio
import trio.testing

P = ParamSpec("P")


@overload
def trio_test(test: Callable[P, Awaitable[None]], /) -> Callable[P, None]: ...
@overload
def trio_test(
    *, autojump: bool = False, timeout_s: float = 30.0
) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, None]]: ...
def trio_test(
    test: Callable[..., Awaitable[None]] | None = None, /, *, autojump: bool = False, timeout_s: float = 30.0
) -> Any:
    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            clock = trio.testing.MockClock(autojump_threshold=0) if autojump else None
            limit_s = float("inf") if autojump else timeout_s

            async def main() -> None:
                with trio.fail_after(limit_s):
                    await test(*args, **kwargs)

            trio.run(main, clock=clock)

        return run

    return decorate if test is None else decorate(test)
