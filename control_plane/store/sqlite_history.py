# ruff: noqa: S608  # SQL is put together from constants of this package only; values are always bound
"""Resources and their history, in the embedded store.

Theory of operation. `resource` holds what is in force. `history_change` holds, for every version that changed a
resource, what that resource became; so what was in force at version V is, for each resource, its newest row at or
before V, unless that row says "deleted". When a version is pruned, only rows that a newer one at or before the new
oldest version covers can go: the rest is the ground that version stands on. Everything happens in the caller's
transaction, so a crash leaves a change with its entry, or neither.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence

from control_plane.model import Change, HistoryEntry, ResourceKey, ResourceRecord
from control_plane.store import rows
from control_plane.store.rows import RESOURCE_COLUMNS, Row

_CHANGE_COLUMNS = "kind, namespace, name, version, what, yaml, source, by, at"
_KEY = "kind = ? AND namespace = ? AND name = ?"


class ResourceTables:
    """The statements. Whoever calls what changes something is inside a transaction."""

    def __init__(self, connection: sqlite3.Connection, versions_max: int) -> None:
        assert versions_max >= 1
        self._connection = connection
        self._versions_max = versions_max

    def get(self, key: ResourceKey) -> ResourceRecord | None:
        sql = f"SELECT {RESOURCE_COLUMNS} FROM resource WHERE {_KEY}"
        row = self._connection.execute(sql, _key(key)).fetchone()
        return None if row is None else rows.resource_from(row)

    def list(self, kind: str, namespace: str) -> Sequence[ResourceRecord]:
        sql = (
            f"SELECT {RESOURCE_COLUMNS} FROM resource WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR namespace = ?2)"
            " ORDER BY kind, namespace, name"
        )
        return [rows.resource_from(row) for row in self._connection.execute(sql, (kind, namespace))]

    def put(self, record: ResourceRecord, version: int, what: str) -> None:
        """`what`: created | updated."""
        upsert = f"INSERT OR REPLACE INTO resource ({RESOURCE_COLUMNS}) VALUES ({rows.marks(RESOURCE_COLUMNS)})"
        self._connection.execute(upsert, rows.resource_row(record, version))
        text = (record.yaml, record.source, record.applied_by, record.applied_at)
        self._insert_change((*_key(record.key), version, what, *text))

    def drop(self, key: ResourceKey, version: int, at: float, by: str) -> bool:
        """False: there was none."""
        if self._connection.execute(f"DELETE FROM resource WHERE {_KEY}", _key(key)).rowcount != 1:
            return False
        self._insert_change((*_key(key), version, "deleted", None, None, by, at))
        return True

    def record(self, version: int, at: float, by: str, what: str) -> None:
        """The entry of a version whose changes are written; the oldest entries go if there are too many."""
        self._connection.execute("INSERT INTO history VALUES (?, ?, ?, ?)", (version, at, by, what))
        oldest = self._connection.execute(
            "SELECT version FROM history ORDER BY version DESC LIMIT 1 OFFSET ?", (self._versions_max - 1,)
        ).fetchone()
        if oldest is not None and oldest[0] > self.floor():
            self._prune(oldest[0])

    def floor(self) -> int:
        """The oldest version of which it is known what was in force."""
        (version,) = self._connection.execute("SELECT version FROM history_floor").fetchone()
        return int(version)

    def newest(self) -> int:
        """The last version that changed a resource; 0: none did."""
        (version,) = self._connection.execute("SELECT coalesce(max(version), 0) FROM history").fetchone()
        return int(version)

    def history(self, count_max: int, before: int) -> Sequence[HistoryEntry]:
        sql = "SELECT version, at, by, what FROM history WHERE ?1 = 0 OR version < ?1 ORDER BY version DESC LIMIT ?2"
        entries = self._connection.execute(sql, (before, count_max)).fetchall()
        changes: defaultdict[int, list[Change]] = defaultdict(list)
        if entries:
            sql = (
                "SELECT version, kind, namespace, name, what FROM history_change WHERE version BETWEEN ? AND ?"
                " ORDER BY kind, namespace, name"
            )
            for version, *key, what in self._connection.execute(sql, (entries[-1][0], entries[0][0])):
                changes[version].append(Change(key=_key_from(key), what=what))
        return [
            HistoryEntry(version=version, at=float(at), by=by, what=what, changes=tuple(changes[version]))
            for version, at, by, what in entries
        ]

    def at(self, version: int) -> Sequence[ResourceRecord] | None:
        if version < self.floor():
            return None
        sql = (
            "SELECT kind, namespace, name, yaml, source, max(version), at, by FROM history_change WHERE version <= ?"
            " GROUP BY kind, namespace, name ORDER BY kind, namespace, name"
        )  # beside max() SQLite takes the other columns from the row that has it (its documentation, lang_select, 2.5)
        return [rows.resource_from(row) for row in self._connection.execute(sql, (version,)) if row[3] is not None]

    def _insert_change(self, row: Row) -> None:
        self._connection.execute(
            f"INSERT INTO history_change ({_CHANGE_COLUMNS}) VALUES ({rows.marks(_CHANGE_COLUMNS)})", row
        )

    def _prune(self, oldest: int) -> None:
        """Forgets what was in force before `oldest`. Looks only at resources that changed since the floor before."""
        changed = "SELECT kind, namespace, name FROM history_change WHERE version > ?2 AND version <= ?1"
        covered = (
            "DELETE FROM history_change AS old WHERE old.version < ?1"
            f" AND (old.kind, old.namespace, old.name) IN ({changed})"
            " AND (old.what = 'deleted' OR EXISTS (SELECT 1 FROM history_change AS new WHERE new.kind = old.kind"
            " AND new.namespace = old.namespace AND new.name = old.name"
            " AND new.version > old.version AND new.version <= ?1))"
        )
        self._connection.execute(covered, (oldest, self.floor()))
        self._connection.execute("DELETE FROM history WHERE version < ?", (oldest,))
        self._connection.execute("UPDATE history_floor SET version = ?", (oldest,))


def _key(key: ResourceKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _key_from(row: Sequence[str]) -> ResourceKey:
    kind, namespace, name = row
    return ResourceKey(kind=kind, namespace=namespace, name=name)
