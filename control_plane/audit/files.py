"""The file that grows, and those it was before.

    <data dir>/audit.jsonl                                   what is written now
    <data dir>/audit-<first>-<last>.jsonl                    full ones, by the numbers of their records; for ever
    <data dir>/audit-unchained-<Unix seconds>.jsonl          from before there was a chain
    <data dir>/audit-broken-<Unix seconds>.jsonl             set aside by `hauberk audit restart`

All are ours alone (0600); nothing here removes one.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from control_plane.errors import StoreError

NAME = "audit.jsonl"
_FULL = re.compile(r"audit-([0-9]{1,18})-([0-9]{1,18})\.jsonl")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class FullFile:
    """A file that is not written any more."""

    path: Path
    first: int
    last: int


def full_files(directory: Path) -> Sequence[FullFile]:
    """In the order of their records."""
    found = []
    for path in directory.iterdir():
        match = _FULL.fullmatch(path.name)
        if match:
            found.append(FullFile(path=path, first=int(match[1]), last=int(match[2])))
    return sorted(found, key=lambda one: one.first)


def full_name(first: int, last: int) -> str:
    return f"audit-{first:012d}-{last:012d}.jsonl"


def open_private(path: Path) -> int:
    """A descriptor of the file, made if need be. Raises StoreError for a link, another owner or a wider mode."""
    try:
        fd = os.open(path, _OPEN, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: the audit file cannot be opened ({error.strerror})") from error
    held = os.fstat(fd)
    if not stat.S_ISREG(held.st_mode) or held.st_uid != os.geteuid() or held.st_mode & 0o077:
        os.close(fd)
        raise StoreError(f"{path}: must be a plain file of the user the control plane runs as; run: chmod 600 {path}")
    return fd


def sync_directory(directory: Path) -> None:
    """What was made or renamed in it lasts. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(path: Path, name: str) -> Path:
    """Renames it to `name`, or with a number if there is one of that name. Raises OSError."""
    target, number = path.with_name(f"{name}.jsonl"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{name}-{number}.jsonl")
    path.rename(target)
    sync_directory(path.parent)
    return target
