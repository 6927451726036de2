"""What every store must do with transactions that become durable together."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import Unavailable
from control_plane.model import RevocationRecord, RevokedKind
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore
from tests.contract.test_store_identity import Notes, store
from tests.control_plane.support import NOW, resource_record

__all__ = ["store"]


def test_transactions_of_a_batch_are_durable_together(store: Store) -> None:
    """The journal is asked once, before the one commit."""
    notes = Notes(store)
    store.attach(notes)
    with store.batch():
        for value in ("1", "2"):
            with store.transaction():
                store.change_fact("x", value)
        assert notes.told == []
    assert (store.fact("x"), notes.told) == ("2", ["flush 2", "committed"])


def test_one_that_fails_takes_nothing_away_from_the_others(store: Store) -> None:
    """All of it is undone, what was nested in it and what it told the journal too; the rest is there."""
    notes = Notes(store)
    store.attach(notes)
    with store.batch():
        with store.transaction():
            store.change_fact("x", "1")
            notes.note("first")
        with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012  # what it did before it failed matters
            store.change_fact("x", "2")
            with store.transaction():
                store.apply_resources([resource_record()])
            notes.note("second")
            raise ZeroDivisionError
        with store.transaction():
            store.change_fact("y", "3")
            notes.note("third")
    assert (store.fact("x"), store.fact("y"), store.resources()) == ("1", "3", [])
    assert notes.held == ["first", "third"]


def test_a_batch_that_cannot_be_made_durable_did_not_happen(store: Store) -> None:
    """None of its transactions, and what comes next is as if it had not been."""
    notes = Notes(store)
    store.attach(notes)
    notes.fails = True
    with pytest.raises(Unavailable), store.batch():  # noqa: PT012  # it fails when it ends
        for value in ("1", "2"):
            with store.transaction():
                store.change_fact("x", value)
    assert (store.fact("x"), notes.told) == (None, ["flush 2", "not committed"])
    notes.fails = False
    with store.batch(), store.transaction():
        store.change_fact("x", "3")
    assert store.fact("x") == "3"


def test_a_batch_that_changed_nothing_costs_the_disk_nothing(store: Store) -> None:
    """Neither store nor journal is asked to make anything durable: calls that are refused come by the thousand."""
    notes = Notes(store)
    store.attach(notes)
    with store.batch():
        with store.transaction():
            assert store.fact("x") is None
        with pytest.raises(ZeroDivisionError), store.transaction():
            raise ZeroDivisionError
    assert notes.told == ["not committed"]


def test_what_the_journal_has_is_committed_although_the_tables_are_as_before(store: Store) -> None:
    """A record of something that leaves no row."""
    notes = Notes(store)
    store.attach(notes)
    with store.batch(), store.transaction():
        notes.note("told")
    assert notes.told == ["flush None", "committed"]


def test_a_batch_stands_alone(store: Store) -> None:
    """Inside a transaction it could promise nothing."""
    with pytest.raises(AssertionError), store.transaction(), store.batch():
        pass
    with pytest.raises(AssertionError), store.batch(), store.batch():
        pass
    with store.transaction():
        store.change_fact("x", "1")
    assert store.fact("x") == "1"


def test_whoever_remembers_revocations_hears_of_every_change_and_of_what_was_undone(store: Store) -> None:
    """The revision alone does not tell: it goes back with what is undone, and comes to the same number again."""
    one = RevocationRecord(kind=RevokedKind.SERIAL, value="1f", at=NOW, by="me", reason="")
    seen = [store.revocation_changes]

    def is_new() -> bool:
        seen.append(store.revocation_changes)
        return seen[-1] > seen[-2]

    store.put_revocation(one)
    assert is_new()
    store.delete_revocation(one.kind, one.value)
    assert is_new()
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012  # what it did before it failed matters
        store.put_revocation(one)
        assert is_new()
        raise ZeroDivisionError
    assert is_new()
    with store.batch():
        with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012  # the same
            store.put_revocation(one)
            assert is_new()
            raise ZeroDivisionError
        assert is_new()
    assert store.revocations() == []


def test_j03_a_disk_that_is_full_in_the_middle_of_a_batch_undoes_all_of_it(tmp_path: Path) -> None:
    """SQLite may have rolled all of it back by itself: what comes after in the batch must not be written on its own."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    outcomes: list[str] = []
    with pytest.raises(Unavailable, match="disk is full"), store.batch():  # noqa: PT012  # it fails when it ends
        for yaml in ("", "#" * 500_000, ""):
            try:
                with store.transaction():
                    store.change_fact("x", str(len(outcomes)))
                    if yaml:
                        store.apply_resources([resource_record(yaml=yaml)])
            except Unavailable:
                outcomes.append("unavailable")
            else:
                outcomes.append("done")
    assert outcomes == ["done", "unavailable", "unavailable"]
    assert (store.fact("x"), store.resources()) == (None, [])
    store._connection.execute("PRAGMA max_page_count = 1000000")
    with store.batch(), store.transaction():
        store.change_fact("x", "later")
    store.close()
    again = SqliteStore.open(tmp_path / "hauberk.db")
    assert again.fact("x") == "later"
    again.close()
