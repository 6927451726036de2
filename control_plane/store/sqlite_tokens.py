# ruff: noqa: S608  # SQL is put together from constants of this package only; values are always bound
"""Join tokens, in the embedded store. Whoever calls what changes something is inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from control_plane.model import JoinTokenRecord
from control_plane.store import rows
from control_plane.store.rows import TOKEN_COLUMNS
from control_plane.store.sqlite_trust import TrustSeal


class TokenTable:
    """The statements; what they mean is said in `Store`."""

    def __init__(self, connection: sqlite3.Connection, trust: TrustSeal) -> None:
        self._connection = connection
        self._trust = trust
        trust.tables.append(self)

    def put(self, token: JoinTokenRecord) -> None:
        sql = f"INSERT INTO join_token ({TOKEN_COLUMNS}, mac) VALUES ({rows.marks(TOKEN_COLUMNS)}, ?)"
        mac = self._trust.mac_of("token", *rows.token_fields(token))
        self._connection.execute(sql, (*rows.token_row(token), mac))

    def token(self, token_id: str) -> JoinTokenRecord | None:
        sql = f"SELECT {TOKEN_COLUMNS} FROM join_token WHERE token_id = ?"
        row = self._connection.execute(sql, (token_id,)).fetchone()
        return None if row is None else rows.token_from(row)

    def list(self) -> Sequence[JoinTokenRecord]:
        sql = f"SELECT {TOKEN_COLUMNS} FROM join_token ORDER BY created_at, token_id"
        return [rows.token_from(row) for row in self._connection.execute(sql)]

    def consume(self, token_id: str, secret_sha256: bytes, now: float) -> JoinTokenRecord | None:
        # One statement looks and spends, so that of many callers one wins (G11). The hash is of 128 random bits:
        # how long its comparison takes tells nothing that helps to guess the secret.
        sql = (
            "UPDATE join_token SET consumed_at = ? WHERE token_id = ? AND secret_sha256 = ?"
            f" AND consumed_at IS NULL AND expires_at > ? RETURNING {TOKEN_COLUMNS}, mac"
        )
        row = self._connection.execute(sql, (now, token_id, secret_sha256, now)).fetchone()
        if row is None:
            return None
        token = rows.token_from(row[:-1])
        return token if self._trust.is_vouched(row[-1], "token", *rows.token_fields(token)) else None

    def unspent_until(self, created_before: float, now: float) -> float:
        sql = "SELECT max(expires_at) FROM join_token WHERE consumed_at IS NULL AND created_at < ? AND expires_at > ?"
        return float(self._connection.execute(sql, (created_before, now)).fetchone()[0] or 0.0)

    def void(self, now: float) -> int:
        sql = "UPDATE join_token SET consumed_at = ? WHERE consumed_at IS NULL AND expires_at > ?"
        return self._connection.execute(sql, (now, now)).rowcount

    def forget_expired(self, before: float) -> int:
        return self._connection.execute("DELETE FROM join_token WHERE expires_at < ?", (before,)).rowcount

    def vouch(self) -> None:
        """See `VouchedTable`."""
        sql = f"SELECT {TOKEN_COLUMNS}, mac FROM join_token WHERE consumed_at IS NULL"
        for *row, held in self._connection.execute(sql).fetchall():
            token = rows.token_from(tuple(row))
            fields = rows.token_fields(token)
            mac = self._trust.mac_of("token", *fields) if self._trust.is_vouched(held, "token", *fields) else b""
            self._connection.execute("UPDATE join_token SET mac = ? WHERE token_id = ?", (mac, token.token_id))
