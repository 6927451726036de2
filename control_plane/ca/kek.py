"""The key-encryption key (KEK): 32 random bytes in a file of their own, mode 0400.

It is kept beside the database unless the configuration says otherwise; better on another disk or tmpfs, so that a copy
of the data directory alone is worth nothing. The store remembers which KEK its keys are sealed with (`kek_id`), so that
a wrong one is known by name and a change of it that was interrupted can be completed or undone. Keys that vouch for
what is stored are made from it, one for each purpose.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.ca import files, keys
from control_plane.ca.errors import CaStateError

KEK_NAME = "kek.key"
KEK_MODE = 0o400
_DISTINCT_MIN = 8
"""Different bytes in a KEK. Fewer are somebody's placeholder: 32 random ones have that few once in 10**40."""
RESTORE = "Restore it from a backup; a new root is never made over an old one."


def trust_key(kek: bytes) -> bytes:
    """Vouches for what decides whom the mesh trusts (`control_plane.store.trust`)."""
    return _derived(kek, b"hauberk trust v1")


def backup_key(kek: bytes) -> bytes:
    """Vouches for backups (`control_plane.backup`)."""
    return _derived(kek, b"hauberk backup v1")


def _derived(kek: bytes, label: bytes) -> bytes:
    """HKDF-SHA256, RFC 5869: one key of 32 bytes for each purpose."""
    return HKDF(algorithm=SHA256(), length=keys.KEK_BYTES, salt=None, info=label).derive(kek)


def kek_id(kek: bytes) -> str:
    """32 hexadecimal digits that tell nothing of the key."""
    return hashlib.sha256(b"hauberk kek id v1\0" + kek).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class KekFile:
    """Where it is, and who must own it: us. All methods raise CaStateError (row J05: links, owners, modes)."""

    path: Path
    owner_uid: int

    @property
    def next_path(self) -> Path:
        """The one that takes its place, while it is being changed."""
        return self.path.with_name(f"{self.path.name}.next")

    @property
    def temporary_path(self) -> Path:
        return self.path.with_name(files.temporary_name(self.path))

    @property
    def next_temporary_path(self) -> Path:
        return self.path.with_name(files.temporary_name(self.next_path))

    def read(self) -> bytes | None:
        """None: there is none."""
        return self._read(self.path)

    def read_next(self) -> bytes | None:
        return self._read(self.next_path)

    def write(self, kek: bytes) -> None:
        """All or nothing, and never over another one. Raises OSError too."""
        with self._directory() as fd:
            files.write_atomically(fd, self.path, kek, KEK_MODE)

    def write_next(self, kek: bytes) -> None:
        with self._directory() as fd:
            files.write_atomically(fd, self.next_path, kek, KEK_MODE)

    def is_half_written(self) -> bool:
        with self._directory() as fd:
            return files.exists(fd, self.temporary_path.name)

    def discard(self, path: Path) -> None:
        """One of these paths, if it is there."""
        with self._directory() as fd:
            if files.exists(fd, path.name):
                os.unlink(path.name, dir_fd=fd)
                os.fsync(fd)

    def swap(self) -> None:
        """The next one takes its place."""
        with self._directory() as fd:
            os.rename(self.next_path.name, self.path.name, src_dir_fd=fd, dst_dir_fd=fd)
            os.fsync(fd)

    def _read(self, path: Path) -> bytes | None:
        with self._directory() as fd:
            try:
                kek = files.read_private(fd, path, self.owner_uid, KEK_MODE)
            except FileNotFoundError:
                return None
        if len(kek) != keys.KEK_BYTES:
            raise CaStateError(path, f"has {len(kek)} bytes instead of {keys.KEK_BYTES}", RESTORE, row="J06")
        if len(set(kek)) < _DISTINCT_MIN:
            problem = "is a placeholder and no key: it has hardly two different bytes"
            remedy = "Remove it, and the control plane makes one at its first start."
            raise CaStateError(path, problem, remedy, row="G21")
        return kek

    @contextmanager
    def _directory(self) -> Iterator[int]:
        parent = self.path.parent
        try:
            fd = files.open_directory(parent, self.owner_uid, mode=None)
        except FileNotFoundError as failure:
            remedy = f"Create it first: mkdir -m 700 {files.quoted(parent)}"
            raise CaStateError(parent, "the directory of the key-encryption key is missing", remedy) from failure
        try:
            yield fd
        finally:
            os.close(fd)
