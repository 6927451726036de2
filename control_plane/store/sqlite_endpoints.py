# ruff: noqa: S608  # SQL is put together from constants of this package only; values are always bound
"""Endpoints, in the embedded store. Whoever calls what changes something is inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from control_plane.model import EndpointRecord
from control_plane.store import rows
from control_plane.store.rows import ENDPOINT_COLUMNS


class EndpointTable:
    """The statements; what they mean is said in `Store`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def put(self, endpoint: EndpointRecord) -> bool:
        row = rows.endpoint_row(endpoint)
        look = f"SELECT {ENDPOINT_COLUMNS} FROM endpoint WHERE workload_id = ? AND instance = ?"
        if self._connection.execute(look, row[:2]).fetchone() == row:
            return False
        # Same workload, same address, another instance: that process is gone, this is its successor.
        gone = "DELETE FROM endpoint WHERE workload_id = ? AND address = ? AND instance <> ?"
        self._connection.execute(gone, (row[0], row[2], row[1]))
        self._connection.execute("INSERT OR REPLACE INTO endpoint VALUES (?, ?, ?, ?)", row)
        return True

    def delete(self, workload_id: int, instance: str) -> bool:
        sql = "DELETE FROM endpoint WHERE workload_id = ? AND instance = ?"
        return self._connection.execute(sql, (workload_id, instance)).rowcount == 1

    def list(self) -> Sequence[EndpointRecord]:
        sql = f"SELECT {ENDPOINT_COLUMNS} FROM endpoint ORDER BY workload_id, instance"
        return [rows.endpoint_from(row) for row in self._connection.execute(sql)]
