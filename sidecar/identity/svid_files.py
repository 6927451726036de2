"""The certificate, its key and the bundle as files, for apps that read files: replaced together, never mixed.

Theory of operation
-------------------
    DIR/..<generation>/svid.pem svid.key bundle.pem jwt_bundle.json
    DIR/..data        -> ..<generation>
    DIR/svid.pem      -> ..data/svid.pem         and so on for each of them

A generation is written into a directory of its own, each file and the directory brought to the disk (fsync), and then
one rename puts a new link over `..data`: the one moment at which all of them change, and the way Kubernetes fills its
volumes, which apps and their libraries know. A crash before it leaves the last set in force, one after it the new set;
what it leaves lying about is removed at the next start.

Whoever reads several of the files resolves `..data` once and reads through what it found, because two opens through the
links may fall on both sides of the rename. The generation that was replaced stays for `GRACE_S`, so that a reader which
has resolved it can finish.

The key is 0600, the rest 0644; the directory must be ours, and nobody else may be able to write in it: else they could
put another key under our name. Nothing is ever removed because a certificate has ended: that is logged, and an app that
holds an old certificate fails where it should, in its handshakes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import trio

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.svid import X509Svid
from sidecar.errors import ConfigError
from sidecar.identity.source import IdentitySource

log = logging.getLogger(__name__)

SVID, KEY, BUNDLE, JWT_BUNDLE = "svid.pem", "svid.key", "bundle.pem", "jwt_bundle.json"
NAMES = (SVID, KEY, BUNDLE, JWT_BUNDLE)
CURRENT = "..data"
_NEXT = "..data_next"
GRACE_S = 10.0
REPLACED_MAX = 4
"""However fast certificates follow each other, no more old ones than that lie about."""
RETRY_S = 5.0
NO_KEYS = '{"keys": []}'


class SvidFiles:
    """Of one directory."""

    def __init__(self, path: str, random_name: Callable[[], str]) -> None:
        """Makes the directory if it is missing. `random_name`: never twice the same. Raises ConfigError."""
        self.path = path
        self._random_name = random_name
        self._directory = _open_directory(path)
        self._written: Mapping[str, bytes] = {}
        self._stale: list[str] = []

    def __repr__(self) -> str:
        return f"<SvidFiles {self.path}>"

    def close(self) -> None:
        os.close(self._directory)

    def replacing(self, svid: X509Svid, bundle: TrustBundle, jwt_keys: str) -> Iterator[None]:
        """Write a generation and put it into force, in steps between which others may run. Raises OSError; then, and
        when it is not run to its end, the one before stays in force."""
        contents = {
            SVID: svid.chain_pem(),
            KEY: svid.key_pem(),
            BUNDLE: replace(bundle, anchors_der=tuple(sorted(bundle.anchors_der))).pem(),  # another order is no change
            JWT_BUNDLE: (jwt_keys or NO_KEYS).encode(),
        }
        if contents == self._written:
            return
        name = f"..{self._random_name()}"
        try:
            os.mkdir(name, 0o755, dir_fd=self._directory)
            generation = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._directory)
            try:
                os.fchmod(generation, 0o755)  # whatever the umask
                for file, octets in contents.items():
                    _write(generation, file, octets, 0o600 if file == KEY else 0o644)
                    yield
                os.fsync(generation)
            finally:
                os.close(generation)
            yield
            self._put_into_force(name)
        except OSError:
            if self._current() != name:
                self._remove(name)
            raise
        self._written = contents
        log.info("certificate files replaced", extra={"path": self.path, "serial": f"{svid.serial:x}"})

    def _put_into_force(self, name: str) -> None:
        directory = self._directory
        before = self._current()
        for file in NAMES:
            _link(directory, file)
        try:
            os.unlink(_NEXT, dir_fd=directory)
        except FileNotFoundError:
            pass
        os.symlink(name, _NEXT, dir_fd=directory)
        os.fsync(directory)
        os.rename(_NEXT, CURRENT, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        if before:
            self._stale.append(before)

    def tidy(self, keep: int = 0) -> None:
        """Remove what was replaced, all but the last `keep`. Errors are for the log: nothing depends on it."""
        while len(self._stale) > keep:
            self._remove(self._stale.pop(0))

    def tidy_all(self) -> None:
        """Remove every generation but the one in force: what earlier processes left."""
        current = self._current()
        for name in os.listdir(self._directory):
            if name.startswith("..") and name not in (CURRENT, _NEXT, current):
                self._remove(name)

    def _current(self) -> str:
        """The generation in force; empty: none."""
        try:
            return os.readlink(CURRENT, dir_fd=self._directory)
        except OSError:
            return ""

    def _remove(self, name: str) -> None:
        """A generation. A file in it that is none of ours keeps it."""
        try:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=self._directory).st_mode):
                return
            generation = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._directory)
            try:
                for file in NAMES:
                    try:
                        os.unlink(file, dir_fd=generation)
                    except FileNotFoundError:
                        pass
            finally:
                os.close(generation)
            os.rmdir(name, dir_fd=self._directory)
        except OSError as error:
            log.warning("cannot remove old certificate files", extra={"name": name, "error": error.strerror})


class FileKeeper:
    """Writes what the source has, as long as `run` runs."""

    def __init__(self, files: SvidFiles, source: IdentitySource, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self._files = files
        self._source = source
        self._clock = clock
        self._changed = trio.Event()
        self._jwt_keys = ""
        self._said = ""

    def changed(self) -> None:
        """The source has something else."""
        self._changed.set()

    def jwt_keys_changed(self, jwt_keys: str) -> None:
        """The JSON Web Key Set of a snapshot; "" is none."""
        if jwt_keys != self._jwt_keys:
            self._jwt_keys = jwt_keys
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._files.tidy_all()
        await self._source.wait_ready()
        self._changed.set()
        while True:
            with trio.move_on_after(GRACE_S) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught:
                self._files.tidy()
                self._say_if_useless()
                continue
            self._changed = trio.Event()
            self._say_if_useless()
            if await self._replace():
                self._files.tidy(keep=REPLACED_MAX)
            else:
                await trio.sleep(RETRY_S)
                self._changed.set()

    async def _replace(self) -> bool:
        svid, bundle = self._source.svid, self._source.bundle
        assert svid is not None
        assert bundle is not None
        try:
            for _ in self._files.replacing(svid, bundle, self._jwt_keys):
                await trio.lowlevel.checkpoint()
        except OSError as error:
            facts = {"path": self._files.path, "error": error.strerror, "retry_in_s": RETRY_S}
            log.error("cannot write the certificate files; those of before stay", extra=facts)  # noqa: TRY400
            return False
        return True

    def _say_if_useless(self) -> None:
        """Once: the files hold what is worth nothing any more."""
        svid = self._source.svid
        if svid is None:
            return
        why = self._source.revocations.refusal(svid.spiffe_id, svid.serial, authority_ids(svid.chain_der[1:]))
        why = why or self._source.denied or ("expired" if self._clock() >= svid.not_after else "")
        if why and f"{why} {svid.serial}" != self._said:
            self._said = f"{why} {svid.serial}"
            log.error("the certificate in the files is worth nothing any more; they stay", extra={"why": why})


def _open_directory(path: str) -> int:
    """A descriptor. Raises ConfigError."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"svid_dir: {path} cannot be made: {os.strerror(error.errno or 0)}") from None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"svid_dir: {path} cannot be used: {os.strerror(error.errno or 0)}") from None
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise ConfigError(
            f"svid_dir: {path}: others may write there (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}) "
            "and could put another key in place of ours; give it a directory of our own, of mode 0755 or less"
        )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"svid_dir: {path}: another sidecar writes there; give each one its own") from None
    return descriptor


def _write(directory: int, name: str, octets: bytes, mode: int) -> None:
    """A new file, on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=directory)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask
        left = memoryview(octets)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(directory: int, name: str) -> None:
    """`name` -> `..data/name`, unless it is so already. Raises OSError if something else is there."""
    target = f"{CURRENT}/{name}"
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        if not stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode) or os.readlink(name, dir_fd=directory) != target:
            raise
