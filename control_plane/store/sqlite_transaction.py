"""Transactions of the embedded store: one at a time, nested ones join the outermost, and a journal goes before each."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from control_plane.errors import Unavailable
from control_plane.store.base import Journal


class Transactions:
    """BEGIN IMMEDIATE ... COMMIT on a connection in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._is = _identity(path)
        self._depth = 0
        self.journal: Journal | None = None

    @contextlib.contextmanager
    def begin(self) -> Iterator[None]:
        """See `Store.transaction`. Raises Unavailable."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        committed = False
        if _identity(self._path) != self._is:
            # SQLite would go on with the file that has lost its name, and what it acknowledged would be gone with us.
            raise Unavailable(
                "the database file was moved or removed while the control plane runs; nothing was changed. Put it back,"
                " or stop the control plane and restore a backup"
            )
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            yield
            if self.journal is not None:
                self.journal.flush()
            self._connection.execute("COMMIT")
            committed = True
        except sqlite3.OperationalError as error:  # a full or broken disk (security.md J03, R25)
            raise Unavailable(f"the store cannot be written now ({error}); nothing was changed, try again") from error
        finally:
            self._depth = 0
            if self._connection.in_transaction:  # SQLite has rolled back by itself after some errors
                self._connection.execute("ROLLBACK")
            if self.journal is not None:
                self.journal.settled(committed=committed)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has that name. None: none has."""
    try:
        held = os.stat(path)
    except OSError:
        return None
    return held.st_dev, held.st_ino
