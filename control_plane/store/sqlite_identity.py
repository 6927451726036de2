# ruff: noqa: S608  # SQL is put together from constants of this package only; values are always bound
"""Certificates, nodes, authorities and revocations, in the embedded store. Whoever calls what changes something is
inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from control_plane.errors import StoreError
from control_plane.model import Authority, IssuedRecord, Node, RevocationRecord, RevokedKind
from control_plane.store import rows
from control_plane.store.rows import AUTHORITY_COLUMNS, CERTIFICATE_COLUMNS, NODE_COLUMNS, SPEC_COLUMNS, Row
from control_plane.store.sqlite_trust import TrustSeal

_ORDER = "prepared_at, authority_id"


class IdentityTables:
    """The statements."""

    def __init__(self, connection: sqlite3.Connection, trust: TrustSeal) -> None:
        self._connection = connection
        self._trust = trust
        trust.tables.append(self)

    # certificates

    def record(self, record: IssuedRecord) -> int:
        sql = f"INSERT INTO certificate ({CERTIFICATE_COLUMNS}) VALUES ({rows.marks(CERTIFICATE_COLUMNS)})"
        try:
            number = self._connection.execute(sql, rows.certificate_row(record)).lastrowid
        except sqlite3.IntegrityError as error:
            raise StoreError("a serial number was issued twice; nothing was handed out") from error
        assert number is not None
        return number

    def certificate(self, serial: int) -> IssuedRecord | None:
        sql = f"SELECT number, {CERTIFICATE_COLUMNS} FROM certificate WHERE serial = ?"
        row = self._connection.execute(sql, (f"{serial:x}",)).fetchone()
        return None if row is None else rows.certificate_from(row)

    def live(self, now: float) -> Sequence[IssuedRecord]:
        columns = ", ".join(f"c.{one.strip()}" for one in CERTIFICATE_COLUMNS.split(","))
        sql = (
            f"SELECT c.number, {columns} FROM certificate AS c LEFT JOIN node AS n ON n.node_id = c.node_id"
            " WHERE c.not_after > ? AND c.number >= coalesce(n.confirmed_number, 0) ORDER BY c.number"
        )
        return [rows.certificate_from(row) for row in self._connection.execute(sql, (now,))]

    def unexpired_until(self, now: float) -> Mapping[tuple[str, str], float]:
        sql = (
            "SELECT issuer_id, root_id, max(not_after) FROM certificate WHERE not_after > ?"
            " AND (workload_id IS NOT NULL OR number ="
            " (SELECT number FROM certificate WHERE workload_id IS NULL ORDER BY number DESC LIMIT 1))"
            " GROUP BY issuer_id, root_id"
        )
        rows_found = self._connection.execute(sql, (now,))
        return {(issuer_id, root_id): float(until) for issuer_id, root_id, until in rows_found}

    def of_node(self, node_id: str, now: float) -> Sequence[IssuedRecord]:
        where = "node_id = ? AND not_after > ?"
        sql = f"SELECT number, {CERTIFICATE_COLUMNS} FROM certificate WHERE {where} ORDER BY number"
        return [rows.certificate_from(row) for row in self._connection.execute(sql, (node_id, now))]

    def of_token(self, token_id: str, now: float) -> Sequence[IssuedRecord]:
        of_node = "node_id IN (SELECT node_id FROM node WHERE token_id = ?1)"
        where = f"not_after > ?2 AND (token_id = ?1 OR {of_node})"
        sql = f"SELECT number, {CERTIFICATE_COLUMNS} FROM certificate WHERE {where} ORDER BY number"
        return [rows.certificate_from(row) for row in self._connection.execute(sql, (token_id, now))]

    # nodes

    def put_node(self, node: Node) -> None:
        sql = f"INSERT OR REPLACE INTO node ({NODE_COLUMNS}, mac) VALUES ({rows.marks(NODE_COLUMNS)}, ?)"
        mac = self._trust.mac_of("node", *self._node_fields(node))
        self._connection.execute(sql, (*rows.node_row(node), mac))

    def node(self, node_id: str) -> Node | None:
        sql = f"SELECT {NODE_COLUMNS}, mac FROM node WHERE node_id = ?"
        row = self._connection.execute(sql, (node_id,)).fetchone()
        if row is None:
            return None
        node = rows.node_from(row[:-1])
        return node if self._trust.is_vouched(row[-1], "node", *self._node_fields(node)) else None

    def vouch(self) -> None:
        """See `VouchedTable`."""
        for *row, held in self._connection.execute(f"SELECT {NODE_COLUMNS}, mac FROM node").fetchall():
            node = rows.node_from(tuple(row))
            fields = self._node_fields(node)
            mac = self._trust.mac_of("node", *fields) if self._trust.is_vouched(held, "node", *fields) else b""
            self._connection.execute("UPDATE node SET mac = ? WHERE node_id = ?", (mac, node.node_id))

    def _node_fields(self, node: Node) -> Row:
        sql = f"SELECT {SPEC_COLUMNS} FROM workload WHERE workload_id = ?"
        return rows.node_fields(node, self._connection.execute(sql, (node.workload_id,)).fetchone() or ())

    def nodes(self) -> Sequence[Node]:
        sql = (
            f"SELECT {NODE_COLUMNS} FROM node WHERE workload_id IN (SELECT workload_id FROM workload"
            " WHERE removed_at IS NULL) ORDER BY joined_at, node_id"
        )
        return [rows.node_from(row) for row in self._connection.execute(sql)]

    def confirm(self, node_id: str, number: int) -> bool:
        sql = "UPDATE node SET confirmed_number = ?2 WHERE node_id = ?1 AND confirmed_number < ?2"
        return self._connection.execute(sql, (node_id, number)).rowcount == 1

    def forget_node(self, node_id: str) -> bool:
        return self._connection.execute("DELETE FROM node WHERE node_id = ?", (node_id,)).rowcount == 1

    # authorities

    def put_authority(self, authority: Authority) -> bool:
        if self.authority(authority.authority_id) == authority:
            return False
        sql = f"INSERT OR REPLACE INTO authority ({AUTHORITY_COLUMNS}) VALUES ({rows.marks(AUTHORITY_COLUMNS)})"
        clash = "SELECT 1 FROM authority WHERE level = ? AND phase = 'active' AND authority_id <> ?"
        asked = (authority.level.value, authority.authority_id)
        if authority.phase.value == "active" and self._connection.execute(clash, asked).fetchone():
            raise StoreError(
                f"two active authorities of the level {authority.level.value}: retire the one before first"
            )
        return self._change(sql, rows.authority_row(authority)) == 1

    def authority(self, authority_id: str) -> Authority | None:
        sql = f"SELECT {AUTHORITY_COLUMNS} FROM authority WHERE authority_id = ?"
        row = self._connection.execute(sql, (authority_id,)).fetchone()
        return None if row is None else rows.authority_from(row)

    def authorities(self) -> Sequence[Authority]:
        sql = f"SELECT {AUTHORITY_COLUMNS} FROM authority ORDER BY {_ORDER}"
        return [rows.authority_from(row) for row in self._connection.execute(sql)]

    def forget_authority(self, authority_id: str) -> bool:
        return self._change("DELETE FROM authority WHERE authority_id = ?", (authority_id,)) == 1

    # revocations

    def put_revocation(self, one: RevocationRecord) -> bool:
        sql = "INSERT OR IGNORE INTO revocation VALUES (?, ?, ?, ?, ?)"
        return self._change(sql, (one.kind.value, one.value, one.at, one.by, one.reason)) == 1

    def delete_revocation(self, kind: RevokedKind, value: str) -> bool:
        sql = "DELETE FROM revocation WHERE kind = ? AND value = ?"
        return self._change(sql, (kind.value, value)) == 1

    def revocations(self) -> Sequence[RevocationRecord]:
        sql = "SELECT kind, value, at, by, reason FROM revocation ORDER BY at, kind, value"
        return [
            RevocationRecord(kind=RevokedKind(kind), value=value, at=float(at), by=by, reason=reason)
            for kind, value, at, by, reason in self._connection.execute(sql)
        ]

    # time

    def forget_expired(self, before: float) -> int:
        """See `Store.forget_expired`; tokens have gone already."""
        run = self._connection.execute
        certificates = run("DELETE FROM certificate WHERE not_after < ?", (before,)).rowcount
        nodes = run(
            "DELETE FROM node WHERE expires_at < ? AND node_id NOT IN (SELECT node_id FROM certificate)", (before,)
        ).rowcount
        serials = self._change(
            "DELETE FROM revocation WHERE kind = 'serial' AND at < ? AND value NOT IN (SELECT serial FROM certificate)",
            (before - 86_400.0,),
        )
        tokens = self._change(
            "DELETE FROM revocation WHERE kind = 'token' AND at < ? AND value NOT IN (SELECT token_id FROM join_token)"
            " AND value NOT IN (SELECT token_id FROM node) AND value NOT IN (SELECT token_id FROM certificate)",
            (before,),
        )
        return certificates + nodes + serials + tokens

    def _change(self, sql: str, values: Row) -> int:
        """Of what is vouched for (`sqlite_trust`); how many rows."""
        self._trust.before_change()
        count = self._connection.execute(sql, values).rowcount
        if count:
            self._trust.changed()
        return count
