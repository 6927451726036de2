# ruff: noqa: S608  # SQL is put together from constants of this package only; values are always bound
"""The embedded store: one SQLite file, nothing to install.

How it keeps the rules of `base`:

- One connection, in autocommit mode, used from one thread. `transaction()` is BEGIN IMMEDIATE ... COMMIT; inside it,
  inner calls join the outer one. WAL with synchronous=FULL: what was committed survives a power cut.
- Statements are short (indexed look-ups and single rows, tens of microseconds, one fsync a commit), so they run right
  in the event loop: a thread would add more delay than it takes away, and would let other tasks in between.
- The file is ours alone: an flock on `<file>.lock`, held as long as the store is open, turns a second control plane
  away (security.md J08). The kernel drops it when we die, so it can never be left behind.
- Before anything is read, PRAGMA integrity_check must say "ok" (J04). Nothing is repaired: a damaged store is restored
  by a person, who is told how.
- Schema: `migrations/NNNN_*.sql`, each applied in one transaction with PRAGMA user_version = NNNN. A file from a newer
  release is refused, not guessed at.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from certs.spiffe_id import SpiffeId
from control_plane.errors import StoreError
from control_plane.model import (
    Authority,
    Change,
    EndpointRecord,
    HistoryEntry,
    IssuedRecord,
    JoinTokenRecord,
    Node,
    ResourceKey,
    ResourceRecord,
    RevocationRecord,
    RevokedKind,
    Workload,
    WorkloadSpec,
)
from control_plane.store import rows, sqlite_file
from control_plane.store.base import HISTORY_VERSIONS_MAX, Journal, what_changes
from control_plane.store.rows import SPEC_COLUMNS, WORKLOAD_COLUMNS
from control_plane.store.sqlite_endpoints import EndpointTable
from control_plane.store.sqlite_history import ResourceTables
from control_plane.store.sqlite_identity import IdentityTables
from control_plane.store.sqlite_reads import IdentityReads
from control_plane.store.sqlite_tokens import TokenTable
from control_plane.store.sqlite_transaction import Transactions
from control_plane.store.sqlite_trust import TrustSeal
from control_plane.store.trust import FACTS


class SqliteStore(IdentityReads):
    """`control_plane.store.base.Store` on one SQLite file."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock_fd: int,
        path: Path,
        token_bytes: Callable[[int], bytes],
        history_versions_max: int = HISTORY_VERSIONS_MAX,
    ) -> None:
        self._connection = connection
        self._resources = ResourceTables(connection, history_versions_max)
        self._trust = TrustSeal(connection, path)
        self._identity = IdentityTables(connection, self._trust)
        self._tokens = TokenTable(connection, self._trust)
        self._endpoints = EndpointTable(connection)
        self._lock_fd = lock_fd
        self._path = path
        self._token_bytes = token_bytes
        self._transactions = Transactions(connection, path, self._trust)
        self._revocation_changes = 0

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path.name} epoch={self.epoch} revision={self.revision}>"

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        token_bytes: Callable[[int], bytes] = os.urandom,
        history_versions_max: int = HISTORY_VERSIONS_MAX,
    ) -> SqliteStore:
        """Opens the file or makes it (mode 0600). `token_bytes(n)` gives n random bytes.

        Raises StoreLocked, StoreDamaged, StoreError."""
        lock_fd = sqlite_file.lock(path)
        connection: sqlite3.Connection | None = None
        try:
            sqlite_file.check_file(path)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            sqlite_file.configure(connection, path)
            store = cls(connection, lock_fd, path, token_bytes, history_versions_max)
            sqlite_file.migrate(connection, path, store.transaction, token_bytes)
        except BaseException as error:
            if connection is not None:
                connection.close()
            os.close(lock_fd)
            if isinstance(error, sqlite3.DatabaseError):
                raise sqlite_file.damaged(path, str(error)) from error
            raise
        return store

    def close(self) -> None:
        if self._lock_fd < 0:
            return
        self._connection.close()
        os.close(self._lock_fd)
        self._lock_fd = -1

    def transaction(self) -> AbstractContextManager[None]:
        return self._transactions.begin()

    def batch(self) -> AbstractContextManager[None]:
        return self._transactions.batch()

    def attach(self, journal: Journal) -> None:
        self._transactions.journal = journal

    def _one(self, sql: str, *values: object) -> tuple[int, ...]:
        return tuple(self._connection.execute(sql, values).fetchone())

    # --- the clock ---------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._one("SELECT epoch FROM clock")[0]

    @property
    def revision(self) -> int:
        return self._one("SELECT revision FROM clock")[0]

    @property
    def revocation_changes(self) -> int:
        return self._revocation_changes + self._transactions.undone

    def new_epoch(self) -> int:
        # Larger, because sidecars refuse a smaller one on a stream that is open; by how much nobody can foretell, so
        # that two restores of one backup do not begin the same epoch.
        step = 1 + int.from_bytes(self._token_bytes(4), "big")
        with self.transaction(), self._trust.change():
            return self._one("UPDATE clock SET epoch = epoch + ?, revision = revision + 1 RETURNING epoch", step)[0]

    def next_revision(self) -> int:
        with self.transaction():
            return self._one("UPDATE clock SET revision = revision + 1 RETURNING revision")[0]

    # --- facts -------------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def record_fact(self, name: str, value: str) -> None:
        with self.transaction():
            held = self.fact(name)
            if held is None:
                self.change_fact(name, value)
            elif held != value:
                raise StoreError(f"{self._path}: belongs to a mesh whose {name} is {held}, not {value}")

    def change_fact(self, name: str, value: str) -> None:
        with self.transaction(), self._trust.change() if name in FACTS else contextlib.nullcontext():
            self._connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    # --- whom the mesh trusts ----------------------------------------------------------------------------------------

    @property
    def is_vouched_for(self) -> bool:
        return self._trust.is_there

    @property
    def trust_number(self) -> int:
        return self._trust.number

    def open_trust(self, key: bytes) -> None:
        self._trust.open(key)

    def doubts(self, key: bytes) -> Sequence[str]:
        return self._trust.doubts(key)

    def vouch(self, key: bytes, *, after: int = 0) -> None:
        with self.transaction():
            assert not self._transactions.is_batch, "what is undone within one cannot take a key back"
            self._trust.vouch(key, after)

    # --- join tokens -------------------------------------------------------------------------------------------------

    def put_token(self, token: JoinTokenRecord) -> None:
        with self.transaction():
            self._tokens.put(token)

    def consume_token(self, token_id: str, secret_sha256: bytes, now: float) -> JoinTokenRecord | None:
        with self.transaction():
            return self._tokens.consume(token_id, secret_sha256, now)

    def void_tokens(self, now: float) -> int:
        with self.transaction():
            return self._tokens.void(now)

    # --- workloads and certificates ----------------------------------------------------------------------------------

    def ensure_workload(self, spec: WorkloadSpec, now: float) -> Workload:
        where = "spiffe_id = ? AND service = ? AND labels = ? AND removed_at IS NULL"
        look = f"SELECT {WORKLOAD_COLUMNS} FROM workload WHERE {where}"
        key = (str(spec.spiffe_id), spec.service, rows.labels_text(spec.labels))
        with self.transaction():
            row = self._connection.execute(look, key).fetchone()
            if row is None:
                insert = f"INSERT INTO workload ({SPEC_COLUMNS}, joined_at) VALUES ({rows.marks(SPEC_COLUMNS)}, ?)"
                self._connection.execute(insert, (*rows.spec_row(spec), now))
                self._bump()  # a service that was unknown is known now
                row = self._connection.execute(look, key).fetchone()
        return rows.workload_from(row)

    def workload(self, workload_id: int) -> Workload | None:
        sql = f"SELECT {WORKLOAD_COLUMNS} FROM workload WHERE workload_id = ? AND removed_at IS NULL"
        row = self._connection.execute(sql, (workload_id,)).fetchone()
        return None if row is None else rows.workload_from(row)

    def workloads(self) -> Sequence[Workload]:
        sql = f"SELECT {WORKLOAD_COLUMNS} FROM workload WHERE removed_at IS NULL ORDER BY workload_id"
        return [rows.workload_from(row) for row in self._connection.execute(sql)]

    def workload_of_certificate(self, spiffe_id: SpiffeId, serial: int) -> Workload | None:
        same = "LEFT JOIN workload AS w ON w.workload_id = c.workload_id AND w.spiffe_id = c.spiffe_id"
        sql = f"SELECT c.spiffe_id, w.workload_id FROM certificate AS c {same} WHERE c.serial = ?"
        row = self._connection.execute(sql, (f"{serial:x}",)).fetchone()
        if row is not None:
            return self.workload(row[1]) if row[0] == str(spiffe_id) and row[1] is not None else None
        matches = [one for one in self.workloads() if one.spiffe_id == spiffe_id]
        return matches[0] if len(matches) == 1 else None

    def remove_workload(self, workload_id: int, now: float) -> bool:
        with self.transaction():
            sql = "UPDATE workload SET removed_at = ? WHERE workload_id = ? AND removed_at IS NULL"
            changed = self._connection.execute(sql, (now, workload_id)).rowcount == 1
            if changed:
                self._connection.execute("DELETE FROM endpoint WHERE workload_id = ?", (workload_id,))
                self._bump()
        return changed

    def record_issued(self, record: IssuedRecord) -> int:
        with self.transaction():
            return self._identity.record(record)

    def forget_expired(self, before: float) -> int:
        self._revocation_changes += 1
        with self.transaction():
            return self._tokens.forget_expired(before) + self._identity.forget_expired(before)

    # --- nodes, authorities, revocations -----------------------------------------------------------------------------

    def put_node(self, node: Node) -> None:
        with self.transaction():
            self._identity.put_node(node)

    def confirm_certificate(self, node_id: str, number: int) -> bool:
        with self.transaction():
            return self._identity.confirm(node_id, number)

    def forget_node(self, node_id: str) -> bool:
        with self.transaction():
            return self._identity.forget_node(node_id)

    def put_authority(self, authority: Authority) -> bool:
        return self._bumping(lambda: self._identity.put_authority(authority))

    def authorities(self) -> Sequence[Authority]:
        self._trust.check()
        return self._identity.authorities()

    def forget_authority(self, authority_id: str) -> bool:
        return self._bumping(lambda: self._identity.forget_authority(authority_id))

    def put_revocation(self, revocation: RevocationRecord) -> bool:
        self._revocation_changes += 1
        return self._bumping(lambda: self._identity.put_revocation(revocation))

    def delete_revocation(self, kind: RevokedKind, value: str) -> bool:
        self._revocation_changes += 1
        return self._bumping(lambda: self._identity.delete_revocation(kind, value))

    def revocations(self) -> Sequence[RevocationRecord]:
        self._trust.check()
        return self._identity.revocations()

    def _bumping(self, change: Callable[[], bool]) -> bool:
        with self.transaction():
            changed = change()
            if changed:
                self._bump()
        return changed

    # --- resources ---------------------------------------------------------------------------------------------------

    def apply_resources(self, records: Sequence[ResourceRecord]) -> Sequence[Change]:
        if not records:
            return []
        return self._change(records, (), records[0].applied_at, records[0].applied_by, "apply")

    def delete_resource(self, key: ResourceKey, *, at: float, by: str) -> bool:
        return bool(self._change((), (key,), at, by, "delete"))

    def restore_resources(self, version: int, *, at: float, by: str) -> Sequence[Change] | None:
        with self.transaction():
            then = self._resources.at(version) if version <= self.revision else None
            if then is None:
                return None
            wanted = [replace(one, applied_at=at, applied_by=by) for one in then]
            gone = {one.key for one in self._resources.list("", "")} - {one.key for one in then}
            changes = self._change(wanted, sorted(gone, key=str), at, by, f"rollback to {version}")
        return [one for one in changes if one.what != "unchanged"]

    def resource(self, key: ResourceKey) -> ResourceRecord | None:
        return self._resources.get(key)

    def resources(self, kind: str = "", namespace: str = "") -> Sequence[ResourceRecord]:
        return self._resources.list(kind, namespace)

    def history(self, count_max: int, before: int = 0) -> Sequence[HistoryEntry]:
        return self._resources.history(count_max, before)

    def resources_at(self, version: int) -> Sequence[ResourceRecord] | None:
        return self._resources.at(version) if version <= self.revision else None

    @property
    def resources_version(self) -> int:
        return self._resources.newest()

    @property
    def history_floor(self) -> int:
        return self._resources.floor()

    def _change(
        self, puts: Sequence[ResourceRecord], drops: Sequence[ResourceKey], at: float, by: str, what: str
    ) -> Sequence[Change]:
        """One version and its entry in the history, or nothing if nothing changes."""
        changes: list[Change] = []
        with self.transaction():
            version = self.revision + 1
            for record in puts:
                did = what_changes(self._resources.get(record.key), record)
                changes.append(Change(key=record.key, what=did))
                if did != "unchanged":
                    self._resources.put(record, version, did)
            changes += [Change(key=key, what="deleted") for key in drops if self._resources.drop(key, version, at, by)]
            if any(change.what != "unchanged" for change in changes):
                self._bump()
                self._resources.record(version, at, by, what)
        return changes

    # --- endpoints ---------------------------------------------------------------------------------------------------

    def put_endpoint(self, endpoint: EndpointRecord) -> bool:
        return self._bumping(lambda: self._endpoints.put(endpoint))

    def delete_endpoint(self, workload_id: int, instance: str) -> bool:
        return self._bumping(lambda: self._endpoints.delete(workload_id, instance))

    def endpoints(self) -> Sequence[EndpointRecord]:
        return self._endpoints.list()

    def _bump(self) -> None:
        self._connection.execute("UPDATE clock SET revision = revision + 1")
