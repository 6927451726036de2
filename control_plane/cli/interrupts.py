"""SIGINT and SIGTERM as KeyboardInterrupt where it may strike, and nowhere else.

Python raises KeyboardInterrupt between any two instructions: also between starting a process and noting that it was
started, or half way through cleaning up. What must not be cut in two runs outside `allowed`, or inside `held`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """The process's handler of both signals. The first that may strikes; those after it find us stopping already."""

    def __init__(self) -> None:
        self.came = False
        self._armed = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heard)

    def _heard(self, _number: int, _frame: object) -> None:
        self.came = True
        self._strike()

    def _strike(self) -> None:
        if self._armed and self.came:
            self._armed = False
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """The block may be interrupted, at its beginning by what came before it."""
        self._armed = True
        try:
            self._strike()
            yield
        finally:
            self._armed = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """The block is finished first; what came meanwhile strikes at its end."""
        was, self._armed = self._armed, False
        try:
            yield
        finally:
            self._armed = was
        self._strike()
