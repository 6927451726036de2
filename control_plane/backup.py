"""A backup: one file that a running control plane's state can be made from again.

A tar archive (POSIX pax, mode 0600) of plain files, in this order:

    manifest.json    what is here: format, release, time, trust domain, epoch, head of the audit file, and of each other
                     part its octets and SHA-256; and a MAC of all that
    hauberk.db       the database as of one moment (SQLite's online backup)
    audit.jsonl      the audit file, up to the record that database knows last

The key-encryption key is never inside: the keys of the authorities are in the database, sealed with it, so whoever has
the backup alone can sign nothing. It holds no secret of a join token either, only hashes. Audit files that were full
and set aside are not inside; they do not change, so copy them once.

The MAC (HMAC-SHA256, under a key made from the KEK) says that a control plane of this mesh made the backup: who keeps
it can read it, and cannot change it. Whom the mesh trusts is vouched for in the database besides
(`control_plane.store.trust`).

Nothing of the archive is ever unpacked by name: `read` takes the three members it knows, each once, in this order.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from control_plane.audit import files
from control_plane.audit.chain import Head
from control_plane.audit.opening import HEAD_FACT
from control_plane.audit.verify import files_of
from control_plane.ca.kek import backup_key, kek_id
from control_plane.errors import StoreError

FORMAT = "hauberk backup v1"
STORE_PART, AUDIT_PART, MANIFEST = "hauberk.db", "audit.jsonl", "manifest.json"
_MANIFEST_OCTETS_MAX = 65_536
_PIECE = 1 << 20


class BackupDamaged(StoreError):
    """The file is no backup of ours, or not as it was made. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    octets: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    release: str
    made_at: float
    """Unix seconds."""
    trust_domain: str
    epoch: int
    revision: int
    audit_head: str
    """Of the audit file as the database knows it: "seq sha256"; empty: there was none yet."""
    kek_id: str
    """Which key-encryption key opens the authorities in it; tells nothing of the key."""
    parts: Mapping[str, Part]
    mac: str = ""
    """Hexadecimal, of all the others; empty: who made it did not have the KEK."""

    def mac_with(self, kek: bytes) -> str:
        told = {"format": FORMAT, **asdict(self)}
        del told["mac"]
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hmac.digest(backup_key(kek), text.encode("ascii"), "sha256").hex()

    def is_made_with(self, kek: bytes) -> bool:
        return hmac.compare_digest(self.mac.encode("utf-8"), self.mac_with(kek).encode("ascii"))

    @property
    def head(self) -> Head | None:
        return Head.parse(self.audit_head) if self.audit_head else None


def make(data_dir: Path, target: Path, *, release: str, now: float, kek: bytes | None = None) -> Manifest:
    """Writes a backup of `data_dir`, whose control plane may be running, to a new file. `now`: Unix seconds. `kek`: the
    one of that database; None: nobody can tell later whether the backup is as it was made.

    Raises StoreError; then there is no file."""
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        store, audit = Path(scratch) / STORE_PART, Path(scratch) / AUDIT_PART
        facts = _copy_store(data_dir / STORE_PART, store)
        audit.write_bytes(_audit_up_to(data_dir, facts["head"]))
        manifest = Manifest(
            release=release,
            made_at=round(now, 3),
            trust_domain=facts["trust_domain"],
            epoch=facts["epoch"],
            revision=facts["revision"],
            audit_head=facts["head"],
            kek_id=facts["kek_id"],
            parts={path.name: _part(path) for path in (store, audit)},
        )
        if kek is not None:
            if manifest.kek_id not in ("", kek_id(kek)):  # a root that was adopted names none at first
                raise StoreError(
                    f"{data_dir}: its database needs the key-encryption key {manifest.kek_id}, the one at hand is"
                    f" {kek_id(kek)}; name the right one: --kek-file FILE"
                )
            manifest = replace(manifest, kek_id=kek_id(kek))
            manifest = replace(manifest, mac=manifest.mac_with(kek))
        packed = Path(scratch) / "packed"
        _pack(packed, manifest, [store, audit])
        try:
            os.link(packed, target)  # never over a file that is there
        except FileExistsError as error:
            raise StoreError(f"{target}: exists already and is left as it is; choose another name") from error
        files.sync_directory(target.parent.absolute())
    return manifest


def _copy_store(path: Path, target: Path) -> dict[str, Any]:
    """One moment of the database; what the manifest says of it. Raises StoreError."""
    if not path.exists():
        raise StoreError(f"{path}: is not there; check --data-dir")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            faults = [str(row[0]) for row in copy.execute("PRAGMA integrity_check(3)")]
            if faults != ["ok"]:
                raise StoreError(f"{path}: is damaged ({'; '.join(faults)}); this is no state to keep")
            facts = dict(copy.execute("SELECT name, value FROM fact").fetchall())
            epoch, revision = copy.execute("SELECT epoch, revision FROM clock").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be copied ({error})") from error
    return {
        "trust_domain": facts.get("trust domain", ""),
        "head": facts.get(HEAD_FACT, ""),
        "kek_id": facts.get("kek", ""),
        "epoch": epoch,
        "revision": revision,
    }


def _audit_up_to(data_dir: Path, head_text: str) -> bytes:
    """The file that has that record, without what was written after it. Raises StoreError."""
    if not head_text:
        return b""
    head = Head.parse(head_text)
    for path in reversed(files_of(data_dir)):
        octets = path.read_bytes() if path.exists() else b""
        end = 0
        for line in octets.splitlines(keepends=True):
            end += len(line)
            if hashlib.sha256(line).hexdigest() == head.sha256:
                return octets[:end]
    raise StoreError(
        f"{data_dir}: the audit file has no record {head.seq} as the database knows it; see: hauberk audit verify"
    )


def _pack(target: Path, manifest: Manifest, parts: list[Path]) -> None:
    told = {"format": FORMAT, **asdict(manifest)}
    text = json.dumps(told, indent=2).encode("ascii")
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, MANIFEST, io.BytesIO(text), len(text), manifest.made_at)
            for path in parts:
                with path.open("rb") as content:
                    _add(archive, path.name, content, path.stat().st_size, manifest.made_at)
        file.flush()
        os.fsync(file.fileno())


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], octets: int, at: float) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = octets, 0o600, int(at)
    archive.addfile(member, content)


def _part(path: Path) -> Part:
    with path.open("rb") as file:
        return Part(octets=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[Manifest, tarfile.TarFile]]:
    """The manifest and the archive, which stands before its parts. Raises BackupDamaged."""
    try:
        with tarfile.open(path, mode="r:") as archive:
            member = archive.next()
            if member is None or member.name != MANIFEST or not member.isreg() or member.size > _MANIFEST_OCTETS_MAX:
                raise BackupDamaged(f"{path}: is no backup of hauberk's: it does not begin with its manifest")
            content = archive.extractfile(member)
            assert content is not None
            yield _manifest(content.read(), path), archive
    except (tarfile.TarError, EOFError) as error:
        raise BackupDamaged(f"{path}: is no backup of hauberk's, or cut short ({error})") from error
    except OSError as error:
        raise BackupDamaged(
            f"{path}: cannot be read or unpacked ({error.strerror or error}); give a file that `hauberk backup` wrote"
        ) from error


def unpack(path: Path, directory: Path) -> Manifest:
    """Puts the parts into an empty directory of ours, each checked against the manifest. Raises BackupDamaged."""
    with reading(path) as (manifest, archive):
        for name in (STORE_PART, AUDIT_PART):
            member = archive.next()
            if member is None or member.name != name or not member.isreg():
                raise BackupDamaged(f"{path}: the part {name} is missing")
            content = archive.extractfile(member)
            assert content is not None
            fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                while piece := content.read(_PIECE):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if _part(directory / name) != manifest.parts.get(name):
                raise BackupDamaged(f"{path}: the part {name} is not as the manifest says: damaged, or cut short")
    return manifest


def _manifest(text: bytes, path: Path) -> Manifest:
    try:
        told = json.loads(text)
        if told.pop("format") != FORMAT:
            raise BackupDamaged(f"{path}: is of another format than {FORMAT!r}; restore it with the release it is of")
        parts = {str(name): Part(**part) for name, part in told.pop("parts").items()}
        return Manifest(**told, parts=parts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupDamaged(f"{path}: its manifest cannot be read ({error})") from error
