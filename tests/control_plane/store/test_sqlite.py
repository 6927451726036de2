"""What is particular to the embedded store: the file, its lock, its damage, its migrations."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from control_plane import tokens
from control_plane.errors import StoreDamaged, StoreError, StoreLocked, Unavailable
from control_plane.store import sqlite_file
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, resource_record, token_record, workload_spec


def filled(path: Path) -> tuple[int, int]:
    """A store with something in it, closed; (epoch, revision)."""
    store = SqliteStore.open(path)
    store.ensure_workload(workload_spec(), NOW)
    store.apply_resources([resource_record(f"policy-{n}") for n in range(200)])
    held = store.epoch, store.revision
    store.close()
    return held


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    """Epoch and revision too."""
    held = filled(tmp_path / "hauberk.db")
    store = SqliteStore.open(tmp_path / "hauberk.db")
    assert (store.epoch, store.revision) == held
    assert len(store.resources()) == 200
    store.close()


def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    """Mode 0600, as are the files SQLite puts beside it."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    store.put_token(token_record())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    store.close()
    assert set(modes.values()) == {0o600}
    assert "hauberk.db-wal" in modes


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    """WAL, synchronous=FULL, foreign keys."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    asked = {name: store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    store.close()
    assert asked == PRAGMAS


PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_file_others_may_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    path = tmp_path / "hauberk.db"
    filled(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        SqliteStore.open(path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    """O_NOFOLLOW: what it leads to is somebody else's to choose."""
    filled(tmp_path / "real.db")
    (tmp_path / "hauberk.db").symlink_to(tmp_path / "real.db")
    with pytest.raises(StoreError, match="plain file"):
        SqliteStore.open(tmp_path / "hauberk.db")


@pytest.mark.parametrize("damage", ["header", "middle", "truncated", "garbage"])
def test_j04_a_damaged_store_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    """With how to restore it; not one octet is changed, so that a rescue is still possible."""
    path = tmp_path / "hauberk.db"
    filled(path)
    whole = path.read_bytes()
    broken = {
        "header": b"\xff" * 100 + whole[100:],
        "middle": whole[:4_096] + b"\xff" * 8_192 + whole[12_288:],
        "truncated": whole[: len(whole) // 2],
        "garbage": os.urandom(len(whole)),
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(StoreDamaged, match="Restore it from a backup"):
        SqliteStore.open(path)
    assert path.read_bytes() == broken
    path.write_bytes(whole)
    SqliteStore.open(path).close()  # the refusal left nothing in the way of the restored copy


def test_j08_a_second_control_plane_on_the_file_is_refused(tmp_path: Path) -> None:
    """In this process or another; and the lock dies with its holder."""
    path = tmp_path / "hauberk.db"
    store = SqliteStore.open(path)
    with pytest.raises(StoreLocked, match="another control plane"):
        SqliteStore.open(path)
    code = (
        "import sys; from pathlib import Path; from control_plane.store.sqlite import SqliteStore;"
        "from control_plane.errors import StoreLocked\n"
        "try: SqliteStore.open(Path(sys.argv[1]))\n"
        "except StoreLocked: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 7
    store.close()
    SqliteStore.open(path).close()


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    """Its schema is not guessed at."""
    path = tmp_path / "hauberk.db"
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreError, match="newer hauberk"):
        SqliteStore.open(path)


def test_a_migration_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails half-way leaves the schema, and the version, it found."""
    path = tmp_path / "hauberk.db"
    filled(path)
    steps = list(sqlite_file.migrations())
    broken = [*steps, "CREATE TABLE half (x INTEGER) STRICT;\nINSERT INTO nowhere VALUES (1);\n"]
    monkeypatch.setattr("control_plane.store.sqlite_file.migrations", lambda: broken)
    with pytest.raises(StoreError):
        SqliteStore.open(path)
    mended = [*steps, "CREATE TABLE half (x INTEGER) STRICT;\n"]
    monkeypatch.setattr("control_plane.store.sqlite_file.migrations", lambda: mended)
    store = SqliteStore.open(path)
    assert store._connection.execute("PRAGMA user_version").fetchone() == (len(mended),)
    assert len(store.resources()) == 200
    store.close()


def test_j03_a_full_disk_changes_nothing_and_reading_goes_on(tmp_path: Path) -> None:
    """UNAVAILABLE; and when there is room again, so is the store."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    store.apply_resources([resource_record()])
    revision = store.revision
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="disk is full"):
        store.apply_resources([resource_record(f"large-{n}", yaml="#" * 50_000) for n in range(10)])
    assert (store.revision, len(store.resources())) == (revision, 1)
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.apply_resources([resource_record("large", yaml="#" * 50_000)])
    assert store.revision == revision + 1
    store.close()


def test_secrets_are_not_in_the_file(tmp_path: Path) -> None:
    """Of a join token only the hash is kept."""
    path = tmp_path / "hauberk.db"
    store = SqliteStore.open(path)
    secret = b"sixteen secret b"
    sizes = iter([b"\x01" * 8, secret])
    made = tokens.create(
        store,
        workload_spec(),
        ttl_s=0,
        created_by="me",
        now=NOW,
        pin=bytes(32),
        join_port=1,
        token_bytes=lambda _n: next(sizes),
    )
    store.close()
    assert secret not in path.read_bytes()
    assert made.text.split(".")[2] not in repr(made)


def test_g11_of_a_hundred_connections_one_spends_the_token(tmp_path: Path) -> None:
    """A hundred threads, each with a connection of its own, at once: the statement itself picks the winner."""
    path = tmp_path / "hauberk.db"
    store = SqliteStore.open(path)
    token = token_record()
    store.put_token(token)
    wins: list[object] = []
    gate = threading.Barrier(100)

    def spend() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=60)
        beside = SqliteStore(connection, -1, path, os.urandom)  # past the lock, as another process could not be
        gate.wait()
        won = beside.consume_token(token.token_id, token.secret_sha256, NOW)
        connection.close()
        if won is not None:
            wins.append(won)

    threads = [threading.Thread(target=spend) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert len(wins) == 1


def test_certificates_of_before_they_knew_their_token_have_their_nodes(tmp_path: Path) -> None:
    """What was issued to nobody's node has none."""
    path = tmp_path / "hauberk.db"
    connection = sqlite3.connect(path)
    for number, script in enumerate(sqlite_file.migrations()[:4], start=1):
        connection.executescript(script)
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("INSERT INTO clock VALUES (1, 77, 9)")
    connection.execute("INSERT INTO workload VALUES (1, 'spiffe://mesh.local/ns/a/sa/b', 'b', 'a', 'b', '{}', 1, NULL)")
    connection.execute("INSERT INTO node VALUES (?, 1, ?, x'', 1, 2, 0, '', x'')", ("a" * 32, "b" * 16))
    for serial, node_id in (("1f", "a" * 32), ("2f", "")):
        values = (serial, "spiffe://mesh.local/ns/a/sa/b", 1, 1, NOW + 60, 1, node_id, "", "")
        connection.execute("INSERT INTO certificate VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.commit()
    connection.close()
    path.chmod(0o600)
    store = SqliteStore.open(path)
    found = [store.certificate(serial) for serial in (0x1F, 0x2F)]
    store.close()
    assert [one.token_id for one in found if one is not None] == ["b" * 16, ""]


def test_r25_who_holds_the_file_keeps_only_one_writer_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next are refused at once, until one gets through: waiting holds the event loop."""
    monkeypatch.setattr(sqlite_file, "_BUSY_TIMEOUT_MS", 50)
    store = SqliteStore.open(tmp_path / "hauberk.db")

    def waits_ms() -> int:
        return int(store._connection.execute("PRAGMA busy_timeout").fetchone()[0])

    with contextlib.closing(sqlite3.connect(tmp_path / "hauberk.db", isolation_level=None)) as beside:
        beside.execute("BEGIN IMMEDIATE")
        before = store.revision
        assert waits_ms() == 50
        for _ in range(3):
            with pytest.raises(Unavailable, match="nothing was changed"):
                store.next_revision()
            assert waits_ms() == 0
        beside.execute("ROLLBACK")
    assert store.next_revision() == before + 1
    assert waits_ms() == 50
    store.close()
