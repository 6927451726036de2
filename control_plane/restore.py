"""A data directory made again from a backup. It never gives back what was used or taken away since (J07, R26).

Theory of operation. All of it happens beside what is there, in `restore.new/`; the last step puts one file in place.

1. Nobody else may be on the directory: we hold the store's lock.
2. The archive is unpacked and each part checked; the KEK says whether a control plane of this mesh made it; the
   database is opened as at a start (integrity, schema, and what the KEK vouches for in it). What could not be verified
   is refused, unless the operator says otherwise, and told in any case.
3. The audit file that survived in the directory says what happened since, if it holds the record the backup knows
   last. It is kept and goes on; what it says is done again (`replay`). If it does not hold that record, it is set aside
   and the backup's own goes on: then nothing is known of what happened since, and that is said.
4. Every join token that was not used is voided: it may have been. A new epoch begins, larger than any before, so
   sidecars take what comes although its version is smaller than what they have.
5. The record `store.restored` is written, then the database takes its place; the one that was there stays beside it.

Killed before the last step, the directory is as it was, but for that record, which the next start finds was not
committed; or there is no database, a start is refused, and `restore` can be done again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.audit import AuditLog, files
from control_plane.audit.chain import Field, Head, Record, Walk, walk
from control_plane.audit.opening import HEAD_FACT, trust_of
from control_plane.audit.verify import files_of
from control_plane.backup import AUDIT_PART, STORE_PART, BackupDamaged, Manifest, unpack
from control_plane.ca.kek import kek_id, trust_key
from control_plane.errors import StoreError
from control_plane.replay import TakenOver, replay
from control_plane.store import sqlite_file
from control_plane.store.sqlite import SqliteStore

STAGING = "restore.new"
RESTORED = "store.restored"
_SIDE_FILES = ("", "-wal", "-shm")


@dataclass(slots=True, kw_only=True)
class Restored:
    """What became of it."""

    manifest: Manifest
    epoch: int
    voided_tokens: int
    taken_over: TakenOver
    replaced: Path | None
    """Where the state that was there is kept."""
    audit_set_aside: Path | None
    knows_since: bool
    """False: nothing is known of what happened after the backup."""
    unverified: Sequence[str]
    """What nobody can say is as it was made; sentences."""
    notes: list[str] = field(default_factory=list)


def restore(
    data_dir: Path,
    backup: Path,
    *,
    replace: bool,
    by: str,
    now: float,
    kek: bytes | None = None,
    unverified: bool = False,
) -> Restored:
    """Makes the state in `data_dir`, which exists and is ours. `replace`: over a state that is there. `kek`: the one
    the backup needs. `unverified`: also if nothing shows that the backup is as it was made.

    Raises StoreLocked (a control plane runs there), BackupDamaged, StoreError, Unavailable, OSError; unless the last
    step was reached, nothing has changed."""
    path = data_dir / STORE_PART
    lock_fd = sqlite_file.lock(path)
    try:
        if os.path.lexists(path) and not replace:
            raise StoreError(
                f"{path}: there is a state already; --replace puts the backup in its place and keeps it beside"
            )
        with _staging(data_dir) as staging:
            manifest = unpack(backup, staging)
            open_questions = _verify_manifest(backup, manifest, kek, unverified=unverified)
            with contextlib.closing(SqliteStore.open(staging / STORE_PART)) as store:
                open_questions += _verify_trust(backup, store, kek, unverified=unverified)
                done = _make(store, data_dir, staging, manifest, kek, by, now)
            done.unverified = open_questions
            done.replaced = _put_in_place(data_dir, staging, now)
    finally:
        os.close(lock_fd)
    return done


def _verify_manifest(backup: Path, manifest: Manifest, kek: bytes | None, *, unverified: bool) -> list[str]:
    """What stays open about it. Raises BackupDamaged, StoreError."""
    if kek is None:
        if unverified:
            return ["the key-encryption key is not at hand, so nothing shows that the backup is as it was made"]
        raise StoreError(
            f"{backup}: cannot be verified: the key-encryption key {manifest.kek_id} it was made with is not at hand."
            " Nothing was changed. Put it into the data directory (kek.key, mode 0400), or name it: --kek-file FILE"
        )
    if manifest.kek_id != kek_id(kek):
        raise StoreError(
            f"{backup}: needs the key-encryption key {manifest.kek_id or '(it names none)'}, the one at hand is"
            f" {kek_id(kek)}. Nothing was changed. Name the one of its time: --kek-file FILE"
        )
    if manifest.mac:
        if not manifest.is_made_with(kek):
            raise BackupDamaged(
                f"{backup}: is not as a control plane of this mesh made it: somebody without the key-encryption key has"
                " changed it. Nothing was changed here. Take another backup"
            )
        return []
    if unverified:
        return ["the backup was made without the key-encryption key, so nothing shows that it is as it was made"]
    raise StoreError(
        f"{backup}: was made without the key-encryption key, so nothing shows that policies, members and tokens in it"
        " are as they were. Nothing was changed. Take another backup; or, if only you could write it: --unverified"
    )


def _verify_trust(backup: Path, store: SqliteStore, kek: bytes | None, *, unverified: bool) -> list[str]:
    """The same of whom the mesh trusts, and from now on the KEK vouches for what changes. Raises as that."""
    if not store.is_vouched_for:
        if not unverified:
            raise StoreError(
                f"{backup}: nothing vouches for the authorities in it: an older hauberk made it, or somebody changed it"
                ". Nothing was changed. Take another backup; or, if only you could write it: --unverified"
            )
        return ["nothing vouches for the authorities in it: before the start, look at them with hauberk ca vouch"]
    if kek is None:
        raise StoreError(
            f"{backup}: cannot be restored without its key-encryption key, which vouches for whom the mesh trusts."
            " Nothing was changed. Put it into the data directory (kek.key, mode 0400), or name it: --kek-file FILE"
        )
    if doubts := store.doubts(trust_key(kek)):
        raise BackupDamaged(
            f"{backup}: whom the mesh trusts is not what its control plane wrote: {'; '.join(doubts)}. Nothing was"
            " changed here. Take another backup"
        )
    store.open_trust(trust_key(kek))
    return []


def _largest_epoch(since: Sequence[Record]) -> int:
    """Of those there were after the backup: another restore of it, say."""
    return max((epoch for one in since if isinstance(epoch := one.fields.get("epoch"), int)), default=0)


@contextlib.contextmanager
def _staging(data_dir: Path) -> Iterator[Path]:
    staging = data_dir / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _make(
    store: SqliteStore, data_dir: Path, staging: Path, manifest: Manifest, kek: bytes | None, by: str, now: float
) -> Restored:
    """Everything but putting it in place."""
    survived = _survived(data_dir, manifest.head)
    aside: Path | None = None
    path = data_dir / files.NAME
    told = TakenOver()
    with store.transaction():
        if survived is not None:
            told = replay(store, survived.since, by=by)
            store.change_fact(HEAD_FACT, str(survived.head))
            if kek is not None and store.is_vouched_for:
                store.vouch(trust_key(kek), after=trust_of(survived.since))
        epoch = store.new_epoch()
        while epoch <= _largest_epoch(survived.since if survived is not None else ()):
            epoch = store.new_epoch()
        voided = store.void_tokens(now)
    if survived is None:
        aside = _take_backups_audit(data_dir, staging, manifest, now)
        told.lost.append(
            "no audit file here goes on from the backup, so nothing is known of what happened since: tokens are void,"
            " but revoke again what was revoked since, and delete what was deleted"
        )
    elif survived.why:
        for one in survived.beyond:
            aside = files.set_aside(one, f"audit-broken-{int(now)}-{one.stem}")
        told.lost.append(f"the audit file could be read up to record {survived.head.seq} only: {survived.why}")
    fields: dict[str, Field] = {
        "made_at": manifest.made_at,
        "backup_head": manifest.audit_head,
        "epoch": epoch,
        "voided_tokens": voided,
        "certificates": told.certificates,
        "revocations": told.revocations,
        "authorities": told.authorities,
        "deletions": told.deletions,
        "lost": told.lost,
    }
    with contextlib.closing(AuditLog.open(path, store, now=now)) as audit:
        audit.append(RESTORED, at=now, by=by, **fields)
    return Restored(
        manifest=manifest,
        epoch=epoch,
        voided_tokens=voided,
        taken_over=told,
        replaced=None,
        audit_set_aside=aside,
        knows_since=survived is not None,
        unverified=(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survived:
    head: Head
    since: Sequence[Record]
    """The records after the one the backup knows last."""
    why: str
    """Why no more of it could be read; empty: all was."""
    beyond: Sequence[Path]
    """Files after the place where it breaks."""


def _survived(data_dir: Path, known: Head | None) -> _Survived | None:
    """The audit files in the directory, if they hold the record the backup knows last."""
    if known is None:
        return None
    since: list[Record] | None = None
    head: Head | None = None
    why = ""
    paths = [path for path in files_of(data_dir) if path.exists()]
    beyond: list[Path] = []
    for number, path in enumerate(paths):
        found: Walk = walk(path.read_bytes())
        if head is not None and found.before is not None and found.before != head:
            why, beyond = f"{path.name} does not continue the file before it", paths[number:]
            break
        if found.before == known and since is None:
            since = []
        for record in found.records:
            if since is not None:
                since.append(record)
            elif record.head == known:
                since = []
        head = found.head or head
        if found.fault is not None:
            why, beyond = f"{path.name}:{found.fault.line}: {found.fault.why}", paths[number + 1 :]
            break
    if since is None or head is None:
        return None
    return _Survived(head=head, since=since, why=why, beyond=beyond)


def _take_backups_audit(data_dir: Path, staging: Path, manifest: Manifest, now: float) -> Path | None:
    """The audit file that came with the backup takes the place of the one here. Raises OSError."""
    path = data_dir / files.NAME
    aside = None
    if path.exists():
        aside = files.set_aside(path, f"audit-broken-{int(now)}")
    first = walk((staging / AUDIT_PART).read_bytes()).records
    for one in files.full_files(data_dir):
        if not first or one.last >= first[0].seq:
            files.set_aside(one.path, f"audit-broken-{int(now)}-{one.first}")
    if manifest.head is not None:
        shutil.copyfile(staging / AUDIT_PART, staging / "audit.copy")
        (staging / "audit.copy").chmod(0o600)
        with (staging / "audit.copy").open("rb") as copied:
            os.fsync(copied.fileno())
        (staging / "audit.copy").rename(path)
    files.sync_directory(data_dir)
    return aside


def _put_in_place(data_dir: Path, staging: Path, now: float) -> Path | None:
    """Raises OSError."""
    replaced: Path | None = None
    for name in [f"{STORE_PART}{side}" for side in _SIDE_FILES]:
        if os.path.lexists(data_dir / name):
            if replaced is None:
                replaced = _new_directory(data_dir, f"replaced-{int(now)}")
            (data_dir / name).rename(replaced / name)
    if replaced is not None:
        files.sync_directory(replaced)
        files.sync_directory(data_dir)
    # Closed, a database is one file: its log was taken up into it.
    assert not (staging / f"{STORE_PART}-wal").exists(), "the database was closed"
    (staging / STORE_PART).rename(data_dir / STORE_PART)
    files.sync_directory(data_dir)
    return replaced


def _new_directory(data_dir: Path, name: str) -> Path:
    path, number = data_dir / name, 1
    while path.exists():
        number += 1
        path = data_dir / f"{name}-{number}"
    path.mkdir(mode=0o700)
    return path
