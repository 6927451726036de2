"""The file under the embedded store: taking it for ourselves, checking it, and the steps of its schema."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path

from control_plane.errors import StoreDamaged, StoreError, StoreLocked, Unavailable

_BUSY_TIMEOUT_MS = 5_000
"""Only a backup tool can be in the way: the lock keeps everybody else out."""


def lock(path: Path) -> int:
    """Takes `<path>.lock` for this process; the descriptor that holds it. Raises StoreLocked, StoreError."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"{lock_path}: cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StoreLocked(
            f"{path.parent}: another control plane uses this data directory; stop it first, or give this one"
            " its own --data-dir"
        ) from error
    return fd


def check_file(path: Path) -> None:
    """Makes the file with mode 0600 if there is none. Raises StoreError for a link, another owner or a wider mode."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); it must be a plain file of ours") from error
    try:
        held = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(held.st_mode) or held.st_uid != os.geteuid():
        raise StoreError(f"{path}: must be a plain file owned by the user the control plane runs as")
    if held.st_nlink != 1:
        raise StoreError(
            f"{path}: has {held.st_nlink} names (hard links), so another control plane could use it under another one;"
            " keep one name, or copy the file"
        )
    if held.st_mode & 0o077:
        raise StoreError(f"{path}: others may read it; run: chmod 600 {path}")


def configure(connection: sqlite3.Connection, path: Path) -> None:
    """Durable, strict, and whole, or not at all. Raises StoreDamaged or sqlite3.DatabaseError."""
    wait_for_others(connection, patiently=True)
    faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    if faults != ["ok"]:
        raise damaged(path, "; ".join(faults))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
    if orphans:
        raise damaged(path, f"{len(orphans)} rows refer to rows that are not there")


def wait_for_others(connection: sqlite3.Connection, *, patiently: bool) -> None:
    """How long a write waits while somebody else holds the file: some seconds, or not at all."""
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS if patiently else 0:d}")


def damaged(path: Path, why: str) -> StoreDamaged:
    """The refusal, with the way out."""
    return StoreDamaged(
        f"{path}: is damaged ({why}). Nothing was changed. Restore it from a backup: keep this file, put the copy in"
        f" its place, remove {path.name}-wal and {path.name}-shm, and start again"
    )


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    transaction: Callable[[], AbstractContextManager[None]],
    token_bytes: Callable[[int], bytes],
) -> None:
    """Applies what this file lacks, one transaction a step. Raises StoreError; then the file is as it was."""
    (held,) = connection.execute("PRAGMA user_version").fetchone()
    steps = migrations()
    if held > len(steps):
        raise StoreError(
            f"{path}: was written by a newer hauberk (schema {held}, this one knows {len(steps)});"
            " start that version, or restore a backup made by this one"
        )
    for number, script in enumerate(steps[held:], start=held + 1):
        try:
            with transaction():
                for statement in statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number:d}")
                if number == 1:
                    epoch = int.from_bytes(token_bytes(8), "big") >> 2 or 1
                    connection.execute("INSERT INTO clock VALUES (1, ?, 1)", (epoch,))
        except (Unavailable, sqlite3.Error) as error:
            raise StoreError(f"{path}: cannot be brought to schema {number} ({error}); it is as it was") from error


def migrations() -> Sequence[str]:
    """The steps' SQL, in order: step n is the file whose name begins with n, four digits."""
    folder = resources.files("control_plane.store") / "migrations"
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".sql"))
    for number, name in enumerate(names, start=1):
        assert name.startswith(f"{number:04d}_"), f"migration {name} is out of order"
    return [(folder / name).read_text("utf-8") for name in names]


def statements(script: str) -> Sequence[str]:
    """One script's statements. `executescript` would commit the transaction we are in."""
    found: list[str] = []
    held = ""
    for line in script.splitlines(keepends=True):
        held += line
        if sqlite3.complete_statement(held):
            found.append(held)
            held = ""
    assert not held.strip(), "a migration ends in the middle of a statement"
    return found
