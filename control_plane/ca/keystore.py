"""Where the root is kept, and in which states the control plane starts.

    <data-dir>/               0700
    <data-dir>/ca/            0700
    <data-dir>/ca/root.crt    0600   the certificate, PEM
    <data-dir>/ca/root.key.enc 0600  the private key, encrypted (see `keys`)
    <kek file>                0400   32 random bytes; by default <data-dir>/kek.key, better on another disk or tmpfs,
                                     so that a copy of the data directory alone is worth nothing

There are three states, and the middle ground belongs to none of them:

1. Nothing: neither `ca/` nor the KEK. Only then `load` returns None, and only then may `save` be called.
2. Everything: both files in `ca/` and the KEK, each with the right mode and owner, the key opens, the halves match.
3. Anything else is refused and left as it is, byte for byte. A new root over a state that does not open would cut off
   every workload of the mesh while looking like a success (rows J04, J05, J06).

Creation is all or nothing. `save` fills a directory `ca.new`, then writes the KEK, then renames `ca.new` to `ca`. A
start that was killed in between leaves one of two traces, and the next start knows both: `ca.new` without a KEK was
never used and cannot be opened by anybody, so it is removed (and a half-written KEK with it); `ca.new` with a KEK that
opens it only lacks the rename.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from control_plane.ca import files, keys
from control_plane.ca.errors import CaStateError, EnvelopeError
from control_plane.ca.root import Root

CA_NAME = "ca"
CERTIFICATE_NAME, KEY_NAME = "root.crt", "root.key.enc"
KEK_NAME = "kek.key"
FILE_MODE, KEK_MODE = 0o600, 0o400
_STAGING_NAME = "ca.new"

_RESTORE = "Restore it from a backup; a new root is never made over an old one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Keystore:
    """One data directory's CA files. `owner_uid` is who must own them: us."""

    data_dir: Path
    kek_file: Path
    owner_uid: int

    @contextmanager
    def locked(self) -> Iterator[Session]:
        """Nobody else opens or creates this CA meanwhile. Makes the data directory if there is none.

        Raises CaStateError."""
        try:
            fd = files.open_directory(self.data_dir, self.owner_uid)
        except FileNotFoundError:
            self.data_dir.mkdir(mode=files.DIRECTORY_MODE, parents=True)
            fd = files.open_directory(self.data_dir, self.owner_uid)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as failure:
                remedy = "Wait for it, or give this one a data directory of its own."
                raise CaStateError(self.data_dir, "another control plane is starting on it", remedy) from failure
            yield Session(self, fd)
        finally:
            os.close(fd)


class Session:
    """The keystore while it is locked."""

    def __init__(self, store: Keystore, data_fd: int) -> None:
        self._store = store
        self._data_fd = data_fd

    def load(self) -> Root | None:
        """The root; None if there is no trace of one. Raises CaStateError."""
        kek = self._read_kek()
        if files.exists(self._data_fd, CA_NAME):
            return self._open(CA_NAME, kek)
        if not files.exists(self._data_fd, _STAGING_NAME):
            if kek is None:
                return None
            raise self._only_the_kek()
        if kek is None:
            self._discard_staging()
            return None
        root = self._open(_STAGING_NAME, kek)
        self._commit()
        return root

    def save(self, root: Root, token_bytes: Callable[[int], bytes]) -> None:
        """Puts a new root where `load` found nothing. Raises CaStateError and OSError; then nothing is committed."""
        kek, nonce = token_bytes(keys.KEK_BYTES), token_bytes(keys.NONCE_BYTES)
        os.mkdir(_STAGING_NAME, files.DIRECTORY_MODE, dir_fd=self._data_fd)
        try:
            with self._staging() as fd:
                files.write_new(fd, CERTIFICATE_NAME, root.certificate.public_bytes(Encoding.PEM), FILE_MODE)
                files.write_new(fd, KEY_NAME, keys.seal(root.private_key, kek=kek, nonce=nonce), FILE_MODE)
                os.fsync(fd)
            os.fsync(self._data_fd)  # what the KEK opens is on disk before the KEK is
            with self._kek_directory() as kek_fd:
                files.write_atomically(kek_fd, self._store.kek_file, kek, KEK_MODE)
        except CaStateError:
            self._forget_staging()
            raise
        except OSError:
            # With the KEK in place (only its fsync failed) everything is there, and the next start completes it.
            if not self._store.kek_file.exists():
                self._forget_staging()
            raise
        self._commit()

    def _commit(self) -> None:
        os.rename(_STAGING_NAME, CA_NAME, src_dir_fd=self._data_fd, dst_dir_fd=self._data_fd)
        os.fsync(self._data_fd)

    def _forget_staging(self) -> None:
        """After a failure of ours. What cannot be removed now is removed by the next start."""
        with suppress(OSError):
            self._empty_staging()
            os.rmdir(_STAGING_NAME, dir_fd=self._data_fd)

    def _discard_staging(self) -> None:
        """After a kill: what the start before this one left."""
        self._empty_staging()
        with self._kek_directory() as kek_fd:
            temporary = files.temporary_name(self._store.kek_file)
            if files.exists(kek_fd, temporary):
                os.unlink(temporary, dir_fd=kek_fd)
        os.rmdir(_STAGING_NAME, dir_fd=self._data_fd)

    def _empty_staging(self) -> None:
        with self._staging() as fd:
            names = os.listdir(fd)
            if not {CERTIFICATE_NAME, KEY_NAME}.issuperset(names):
                staging = self._store.data_dir / _STAGING_NAME
                remedy = f"Look at it, then move it away: {files.quoted(staging)}"
                raise CaStateError(staging, "holds files that an interrupted start does not leave", remedy)
            for name in names:
                os.unlink(name, dir_fd=fd)

    @contextmanager
    def _staging(self) -> Iterator[int]:
        staging = self._store.data_dir / _STAGING_NAME
        fd = files.open_directory(staging, self._store.owner_uid, parent_fd=self._data_fd)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _kek_directory(self) -> Iterator[int]:
        parent = self._store.kek_file.parent
        try:
            fd = files.open_directory(parent, self._store.owner_uid, mode=None)
        except FileNotFoundError as failure:
            remedy = f"Create it first: mkdir -m 700 {files.quoted(parent)}"
            raise CaStateError(parent, "the directory of the key-encryption key is missing", remedy) from failure
        try:
            yield fd
        finally:
            os.close(fd)

    def _read_kek(self) -> bytes | None:
        try:
            with self._kek_directory() as fd:
                return files.read_private(fd, self._store.kek_file, self._store.owner_uid, KEK_MODE)
        except FileNotFoundError:
            return None

    def _open(self, name: str, kek: bytes | None) -> Root:
        ca_dir = self._store.data_dir / name
        fd = files.open_directory(ca_dir, self._store.owner_uid, parent_fd=self._data_fd)
        try:
            found = {path: self._read(fd, path) for path in (ca_dir / CERTIFICATE_NAME, ca_dir / KEY_NAME)} | {
                self._store.kek_file: kek
            }
        finally:
            os.close(fd)
        missing = [path for path, data in found.items() if data is None]
        if missing:
            present = [str(path) for path, data in found.items() if data is not None]
            beside = f"while {' and '.join(present)} is there" if present else "and so is everything beside it"
            raise CaStateError(missing[0], f"is missing, {beside}", _RESTORE, row="J06")
        certificate_pem, envelope, kek_bytes = (data for data in found.values() if data is not None)
        return Root(
            certificate=_read_certificate(ca_dir / CERTIFICATE_NAME, certificate_pem),
            private_key=self._unseal(ca_dir / KEY_NAME, envelope, kek_bytes),
        )

    def _read(self, fd: int, path: Path) -> bytes | None:
        try:
            return files.read_private(fd, path, self._store.owner_uid, FILE_MODE)
        except FileNotFoundError:
            return None

    def _unseal(self, path: Path, envelope: bytes, kek: bytes) -> ec.EllipticCurvePrivateKey:
        kek_file = self._store.kek_file
        if len(kek) != keys.KEK_BYTES:
            raise CaStateError(kek_file, f"has {len(kek)} bytes instead of {keys.KEK_BYTES}", _RESTORE, row="J06")
        try:
            return keys.unseal(envelope, kek=kek)
        except EnvelopeError as failure:
            remedy = f"Is {kek_file} the one it was made with? {_RESTORE}"
            raise CaStateError(path, str(failure), remedy, row="J06") from failure

    def _only_the_kek(self) -> CaStateError:
        ca_dir = self._store.data_dir / CA_NAME
        remedy = (
            f"{_RESTORE} If this data directory never held a CA, move the key-encryption key away:"
            f" {files.quoted(self._store.kek_file)}"
        )
        return CaStateError(ca_dir, f"is missing, while {self._store.kek_file} is there", remedy, row="J06")


def _read_certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception as failure:  # see certs.der: the parser's exceptions are not a closed set
        raise CaStateError(path, "is not a certificate in PEM", _RESTORE, row="J06") from failure
