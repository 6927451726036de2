"""Directories and files that only their owner may touch, and refusals that say what to type.

Everything is done relative to an open directory, never by walking a path twice, and symbolic links are never followed
(row J05): what was checked is what is read. A file is judged through its open descriptor.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from control_plane.ca.errors import CaStateError

FILE_BYTES_MAX = 64 * 1024
DIRECTORY_MODE = 0o700


def open_directory(
    path: Path, owner_uid: int, *, mode: int | None = DIRECTORY_MODE, parent_fd: int | None = None
) -> int:
    """A descriptor of a directory that is ours alone. `parent_fd`: look only at the last component, there.

    Raises CaStateError (a link, not a directory, another owner, another mode unless `mode` is None) and
    FileNotFoundError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path if parent_fd is None else path.name, flags, dir_fd=parent_fd)
    except FileNotFoundError:
        raise
    except OSError as failure:
        if path.is_symlink():
            raise _is_symlink(path) from failure
        raise _unreadable(path, failure) from failure
    try:
        if mode is not None:
            _check(os.fstat(fd), path, owner_uid, mode)
    except CaStateError:
        os.close(fd)
        raise
    return fd


def read_private(parent_fd: int, path: Path, owner_uid: int, mode: int) -> bytes:
    """The whole of a file, `path.name` in `parent_fd`. Raises CaStateError and FileNotFoundError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # NONBLOCK: a FIFO must not hold us
    try:
        fd = os.open(path.name, flags, dir_fd=parent_fd)
    except FileNotFoundError:
        raise
    except OSError as failure:
        if path.is_symlink():
            raise _is_symlink(path) from failure
        raise _unreadable(path, failure) from failure
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise CaStateError(path, "is not a regular file", "Move it away and restore the file.", row="J05")
        _check(facts, path, owner_uid, mode)
        with open(fd, "rb", closefd=False) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > FILE_BYTES_MAX:
        raise CaStateError(path, f"is larger than {FILE_BYTES_MAX} bytes", "Restore it from a backup.", row="J06")
    return data


def write_new(parent_fd: int, name: str, data: bytes, mode: int) -> None:
    """Creates a file that must not exist, and has it on disk before it returns. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode, dir_fd=parent_fd)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)  # whatever the umask took away
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError:
        os.unlink(name, dir_fd=parent_fd)  # a full disk: leave nothing half written
        raise


def exists(parent_fd: int, name: str) -> bool:
    """Is there anything of that name, a dangling link included?"""
    try:
        os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_atomically(parent_fd: int, path: Path, data: bytes, mode: int) -> None:
    """Creates `path.name` in `parent_fd` all or nothing, and never over another file.

    The temporary name is fixed and made with O_EXCL, so it is also the lock between two writers: whoever holds it looks
    for the final name afterwards, and nobody else can have made it since. Raises CaStateError and OSError."""
    temporary = temporary_name(path)
    try:
        write_new(parent_fd, temporary, data, mode)
    except FileExistsError as failure:
        left = path.with_name(temporary)
        remedy = f"If no other control plane is starting now: rm {quoted(left)}"
        raise CaStateError(left, "is left from a start that was interrupted", remedy) from failure
    if exists(parent_fd, path.name):
        os.unlink(temporary, dir_fd=parent_fd)
        raise CaStateError(path, "appeared while this start was creating it", "Start only one control plane on it.")
    try:
        os.rename(temporary, path.name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
    except OSError:
        os.unlink(temporary, dir_fd=parent_fd)
        raise
    os.fsync(parent_fd)


def temporary_name(path: Path) -> str:
    return f".{path.name}.new"


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _check(facts: os.stat_result, path: Path, owner_uid: int, mode: int) -> None:
    if facts.st_uid != owner_uid:
        problem = f"belongs to uid {facts.st_uid}, but the control plane runs as uid {owner_uid}"
        remedy = f"If you trust what is in it: chown {owner_uid} {quoted(path)}"
        raise CaStateError(path, problem, remedy, row="J05")
    actual = stat.S_IMODE(facts.st_mode)
    if actual != mode:
        problem = f"has mode {actual:04o}; it must be {mode:04o}, for its owner alone"
        remedy = f"If nobody else has read or changed it: chmod {mode:o} {quoted(path)}"
        raise CaStateError(path, problem, remedy, row="J05")


def _is_symlink(path: Path) -> CaStateError:
    remedy = "Give the control plane the real path, or put the real file there."
    return CaStateError(path, "is a symbolic link, and those are not followed here", remedy, row="J05")


def _unreadable(path: Path, failure: OSError) -> CaStateError:
    return CaStateError(
        path, f"cannot be opened ({failure.strerror})", "See to it that its owner can read it.", row="J05"
    )
