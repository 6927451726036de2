"""The embedded store's history: pruning, old databases, sudden death."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, resource_record

MIGRATIONS = Path(__file__).parents[3] / "control_plane/store/migrations"
NAMES = ("a", "b", "c")

Step = tuple[str, str]
"""(name, text); an empty text deletes."""
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(("", "# 1", "# 2"))), max_size=30)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, kept=st.integers(1, 6))
def test_what_is_kept_answers_as_if_all_were(steps: list[Step], kept: int) -> None:
    """Held against a list of every state there was: pruning loses old versions and nothing of the others."""
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore.open(Path(directory) / "hauberk.db", history_versions_max=kept)
        state: dict[str, str] = {}
        states = {store.revision: state}
        changes = 0
        for name, text in steps:
            if text:
                store.apply_resources([resource_record(name, yaml=text)])
            else:
                store.delete_resource(resource_record(name).key, at=NOW, by="me")
            changed = {key: value for key, value in {**state, name: text}.items() if value}
            changes += changed != state
            state = states[store.revision] = changed
        assert len(store.history(100)) == min(kept, changes)
        for version, wanted in states.items():
            held = store.resources_at(version)
            if version < store.history_floor:
                assert held is None
            else:
                assert {one.key.name: one.yaml for one in held or ()} == wanted
        rows = store._connection.execute("SELECT count(*) FROM history_change").fetchone()[0]
        assert rows <= kept + len(NAMES), "rows nobody needs stay behind"
        store.close()


def old_store(path: Path, steps: int) -> None:
    """A database with the schema of an earlier release, one resource in it."""
    connection = sqlite3.connect(path)
    for number, script in enumerate(sorted(MIGRATIONS.iterdir())[:steps], start=1):
        connection.executescript(script.read_text())
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("INSERT INTO clock VALUES (1, 77, 9)")
    connection.execute("INSERT INTO resource VALUES ('AuthorizationPolicy', 'shop', 'a', '# 1', 'f:1', 8, 5.0, 'anna')")
    connection.commit()
    connection.close()
    path.chmod(0o600)


def test_a_store_from_before_begins_with_what_it_holds(tmp_path: Path) -> None:
    """One entry, "imported"; the revision stays, so that no sidecar is told anything new."""
    path = tmp_path / "hauberk.db"
    old_store(path, 1)
    store = SqliteStore.open(path)
    assert (store.epoch, store.revision) == (77, 9)
    (entry,) = store.history(10)
    assert (entry.version, entry.at, entry.what, [one.what for one in entry.changes]) == (
        9,
        5.0,
        "imported",
        ["created"],
    )
    assert store.resources_at(8) is None
    store.apply_resources([resource_record("a", yaml="# 2")])
    assert [one.yaml for one in store.resources_at(9) or ()] == ["# 1"]
    assert [one.what for one in store.restore_resources(9, at=NOW, by="me") or ()] == ["updated"]
    store.close()


@pytest.mark.parametrize("at", range(1, 9))
def test_r10_a_death_in_the_middle_leaves_no_half(tmp_path: Path, at: int) -> None:
    """Killed at its n-th statement, a change with its entry is there whole or not at all."""
    path = tmp_path / "hauberk.db"
    store = SqliteStore.open(path, history_versions_max=1)
    store.apply_resources([resource_record("a", yaml="# 1"), resource_record("b", yaml="# 1")])
    revision = store.revision
    store.close()
    code = f"""
import os, signal
from pathlib import Path
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import resource_record

store = SqliteStore.open(Path({str(path)!r}), history_versions_max=1)
written = 0

def died(statement):
    global written
    written += statement.split()[0] in ("INSERT", "UPDATE", "DELETE", "COMMIT")
    if written == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

store._connection.set_trace_callback(died)
store.apply_resources([resource_record("a", yaml="# 2"), resource_record("b", yaml="# 2")])
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3])
    assert ended.returncode == -signal.SIGKILL
    store = SqliteStore.open(path)
    assert store.revision == revision
    assert {one.yaml for one in store.resources()} == {"# 1"}
    assert [one.version for one in store.history(10)] == [revision]
    assert {one.yaml for one in store.resources_at(revision) or ()} == {"# 1"}
    store.close()
