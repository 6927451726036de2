# ruff: noqa: S608  # SQL is put together from constants of this package only; values are always bound
"""The MAC over whom the mesh trusts (`trust`), kept in step with the rows by the embedded store.

Within a transaction that changes what is vouched for: before its first such change what is there is checked, with the
write lock held, so that nothing of somebody else's is ever vouched for; right before the commit, and before the audit
record is written, the new set is vouched for. Killed anywhere, both are there or neither is.

Join tokens and nodes have a MAC each. One that is not right counts as not there; an operator's word (`vouch` without a
key before) does not make it right, for it is given for authorities and revocations.

Without a key nothing that is vouched for can be changed. A store that nobody has vouched for yet is as open as any.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from control_plane.errors import StoreError, TrustBroken
from control_plane.logs import fields as log_fields
from control_plane.store import trust
from control_plane.store.rows import AUTHORITY_COLUMNS
from control_plane.store.trust import Statement

log = logging.getLogger(__name__)

_NUMBER_MAX = 1 << 52
"""Nobody gets there by counting."""


class VouchedTable(Protocol):
    def vouch(self) -> None:
        """Makes the MACs of its rows anew, with another key, of those that are right with the one of before."""


class TrustSeal:
    """One store's. `before_change`, then `changed`, by whoever changes such a row, within a transaction."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._key: bytes | None = None
        self._next_key: bytes | None = None
        self._is_checked = self._has_changed = False
        self.tables: list[VouchedTable] = []
        """Those whose rows have a MAC each."""
        self._number_min = self._committed = 0
        self.number = 0
        """Of the last statement that was made or checked; 0: none was."""

    @property
    def is_there(self) -> bool:
        return self._connection.execute("SELECT 1 FROM trust_seal").fetchone() is not None

    # by whoever has the key

    def open(self, key: bytes) -> None:
        """From now on what is changed is vouched for with it. Raises TrustBroken: what is there is not."""
        try:
            self._check(key)
        except sqlite3.DatabaseError as error:
            raise self._broken([f"it cannot be read ({error})"]) from error
        self._key = key

    def vouch(self, key: bytes, after: int) -> None:
        """What is there when the transaction commits is right, whatever was vouched for; in one."""
        self._next_key, self._number_min = key, after + 1
        self._is_checked = self._has_changed = True

    def check(self) -> None:
        """Is what is there what was vouched for? Raises TrustBroken. Not asked while it is being changed."""
        if self._key is not None and not self._has_changed:
            self._check(self._key)

    def doubts(self, key: bytes) -> list[str]:
        """What of what is there the key does not vouch for, one clause each; none: all is well."""
        row = self._connection.execute("SELECT statement, mac FROM trust_seal").fetchone()
        if row is None:
            return ["nothing in it is vouched for"]
        text, found = str(row[0]), bytes(row[1])
        if not trust.is_mac(key, text, found):
            return ["what vouches for it was not made with this key-encryption key"]
        try:
            vouched = Statement.parse(text)
        except (ValueError, TypeError, KeyError) as error:
            return [f"what vouches for it cannot be read ({error})"]
        self.number = self._committed = vouched.number
        return trust.differences(vouched, self._found(vouched.number))

    # rows by themselves: join tokens and nodes

    def mac_of(self, kind: str, *fields: object) -> bytes:
        """Empty: there is no key."""
        key = self._next_key or self._key
        return trust.row_mac(key, kind, *fields) if key is not None else b""

    def is_vouched(self, mac: bytes, kind: str, *fields: object) -> bool:
        """Without a key nobody can tell, so nothing is doubted."""
        if self._key is None or hmac.compare_digest(trust.row_mac(self._key, kind, *fields), mac):
            return True
        log.error(
            "a join token or node in the database is not as this control plane wrote it; it counts as not there",
            extra=log_fields(row=kind, id=str(fields[0])),
        )
        return False

    # around a change

    def before_change(self) -> None:
        """Raises TrustBroken, StoreError (there is no key)."""
        if self._is_checked:
            return
        if self._key is not None:
            self._check(self._key)
        elif self.is_there:
            raise StoreError(
                f"{self._path}: whom the mesh trusts cannot be changed without the key-encryption key that vouches for"
                " it; nothing was changed"
            )
        self._is_checked = True

    def changed(self) -> None:
        self._has_changed = True

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Around what certainly is one."""
        self.before_change()
        yield
        self.changed()

    def before_commit(self) -> None:
        """Vouches for what there is now."""
        key = self._next_key or self._key
        if not self._has_changed or key is None:
            return
        if self._next_key not in (None, self._key) and self._key is not None:
            for table in self.tables:
                table.vouch()
        made = self._found(max(self._held_number() + 1, self._number_min))
        text = made.text()
        sql = "INSERT OR REPLACE INTO trust_seal VALUES (1, ?, ?)"
        self._connection.execute(sql, (text, trust.mac(key, text)))
        self.number = made.number

    def ended(self, *, committed: bool) -> None:
        """The outermost transaction is over."""
        if committed:
            self._key = self._next_key or self._key
            self._committed = self.number
        self.number = self._committed
        self._next_key, self._number_min = None, 0
        self._is_checked = self._has_changed = False

    # what there is

    def _check(self, key: bytes) -> None:
        if doubts := self.doubts(key):
            raise self._broken(doubts)

    def _broken(self, doubts: Iterable[str]) -> TrustBroken:
        return TrustBroken(
            f"{self._path}: whom the mesh trusts is not what this control plane wrote: {'; '.join(doubts)}. Nothing was"
            " changed now. Somebody without the key-encryption key has changed the database: restore a backup (hauberk"
            " restore --replace FILE). If it was you, look at all of it, and vouch for it: hauberk ca vouch --data-dir"
            f" {self._path.parent}"
        )

    def _held_number(self) -> int:
        """Of the statement that is replaced; of one that nobody vouched for, if it makes sense."""
        row = self._connection.execute("SELECT statement FROM trust_seal").fetchone()
        if row is not None:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                number = json.loads(row[0])["number"]
                return number if type(number) is int and 0 < number < _NUMBER_MAX else 0
        return 0

    def _found(self, number: int) -> Statement:
        run = self._connection.execute
        marks = ", ".join("?" for _ in trust.FACTS)
        facts = run(f"SELECT name, value FROM fact WHERE name IN ({marks}) ORDER BY name", sorted(trust.FACTS))
        return trust.statement(
            number=number,
            epoch=int(run("SELECT epoch FROM clock").fetchone()[0]),
            authorities=run(f"SELECT {AUTHORITY_COLUMNS} FROM authority ORDER BY authority_id").fetchall(),
            revocations=run("SELECT kind, value, at, by, reason FROM revocation ORDER BY kind, value").fetchall(),
            facts=facts.fetchall(),
        )
