"""Transactions of the embedded store: one at a time, nested ones join the outermost, and a journal goes before each.

A batch is one transaction of SQLite, in which those of its callers are savepoints.

Who waits for the file holds the event loop. So only one writer waits while somebody else has it: when that was in vain,
those after it are refused at once, until one gets through (security.md R25).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from control_plane.errors import Unavailable
from control_plane.store import sqlite_file
from control_plane.store.base import Journal
from control_plane.store.sqlite_trust import TrustSeal


class Transactions:
    """BEGIN IMMEDIATE ... COMMIT on a connection in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection, path: Path, trust: TrustSeal) -> None:
        self._connection = connection
        self._trust = trust
        self._path = path
        self._is = _identity(path)
        self._depth = 0
        self._is_patient = True
        self.is_batch = False
        self._broken: sqlite3.OperationalError | None = None
        self.journal: Journal | None = None
        self.undone = 0
        """How often what was done was undone."""

    @contextlib.contextmanager
    def begin(self) -> Iterator[None]:
        """See `Store.transaction`. Raises Unavailable."""
        if not self._depth:
            with self._outermost():
                yield
        elif self._depth == 1 and self.is_batch:
            with self._savepoint():
                yield
        else:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """See `Store.batch`. Raises Unavailable."""
        assert not self._depth, "a batch is the outermost transaction"
        self.is_batch, self._broken = True, None
        try:
            with self._outermost():
                yield
                if self._broken is not None:
                    raise self._broken
        finally:
            self.is_batch = False

    @contextlib.contextmanager
    def _outermost(self) -> Iterator[None]:
        committed = False
        if _identity(self._path) != self._is:
            # SQLite would go on with the file that has lost its name, and what it acknowledged would be gone with us.
            raise Unavailable(
                "the database file was moved or removed while the control plane runs; nothing was changed. Put it back,"
                " or stop the control plane and restore a backup"
            )
        before, unchanged = self._connection.total_changes, False
        try:
            self._take()
            self._depth = 1
            yield
            # A batch of calls that were all refused, for instance, owes the disk nothing.
            unchanged = self.is_batch and self._connection.total_changes == before and not self._mark()
            if not unchanged:
                self._trust.before_commit()
                if self.journal is not None:
                    self.journal.flush()
                self._connection.execute("COMMIT")
                committed = True
        except sqlite3.OperationalError as error:  # a full or broken disk (security.md J03, R25)
            raise _unavailable(error) from error
        finally:
            self._depth = 0
            self.undone += not (committed or unchanged)
            if self._connection.in_transaction:  # SQLite has rolled back by itself after some errors
                self._connection.execute("ROLLBACK")
            self._trust.ended(committed=committed)
            if self.journal is not None:
                self.journal.settled(committed=committed)

    def _take(self) -> None:
        """Nobody else may write from here on. Raises sqlite3.OperationalError."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                self._wait_for_others(patiently=False)
            raise
        self._wait_for_others(patiently=True)

    def _wait_for_others(self, *, patiently: bool) -> None:
        if self._is_patient != patiently:
            sqlite_file.wait_for_others(self._connection, patiently=patiently)
            self._is_patient = patiently

    @contextlib.contextmanager
    def _savepoint(self) -> Iterator[None]:
        """One transaction of a batch. Once the disk has failed nothing of the batch is to be relied on: SQLite may have
        rolled all of it back, and what came after would be written at once, outside of any transaction."""
        if self._broken is not None:
            raise _unavailable(self._broken)
        mark = self._mark()
        self._depth = 2
        released = False
        try:
            self._connection.execute("SAVEPOINT one")
            yield
            self._connection.execute("RELEASE one")
            released = True
        except sqlite3.OperationalError as error:
            self._broken = error
            raise _unavailable(error) from error
        finally:
            self._depth = 1
            if not released:
                self.undone += 1
                if self.journal is not None:
                    self.journal.undo(mark)
                self._roll_back_one()

    def _mark(self) -> int:
        return self.journal.mark() if self.journal is not None else 0

    def _roll_back_one(self) -> None:
        if self._broken is None:
            try:
                self._connection.execute("ROLLBACK TO one")
                self._connection.execute("RELEASE one")
            except sqlite3.OperationalError as error:
                self._broken = error


def _unavailable(error: sqlite3.OperationalError) -> Unavailable:
    return Unavailable(f"the store cannot be written now ({error}); nothing was changed, try again")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has that name. None: none has."""
    try:
        held = os.stat(path)
    except OSError:
        return None
    return held.st_dev, held.st_ino
