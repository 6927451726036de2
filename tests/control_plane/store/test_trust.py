"""What vouches for whom the mesh trusts is never out of step with the rows, whatever is done, undone or fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import StoreError, TrustBroken
from control_plane.model import Phase, RevocationRecord, RevokedKind
from control_plane.store import trust
from control_plane.store.sqlite import SqliteStore
from tests.contract.test_store_identity import authority
from tests.control_plane.support import NOW

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(tmp_path / "hauberk.db")) as opened:
        yield opened


def revocation(value: str = "1f", kind: RevokedKind = RevokedKind.SERIAL, at: float = NOW) -> RevocationRecord:
    return RevocationRecord(kind=kind, value=value, at=at, by="ann", reason="x")


class Undone(Exception):
    """What was done in the transaction is not to be."""


NAMES, VALUES = st.sampled_from("abc"), st.sampled_from(["1", "2", "3"])
CHANGES = st.one_of(
    st.tuples(st.just("put authority"), NAMES, st.sampled_from([Phase.PREPARED, Phase.OLD, Phase.REVOKED])),
    st.tuples(st.just("forget authority"), NAMES),
    st.tuples(st.just("revoke"), VALUES),
    st.tuples(st.just("reinstate"), VALUES),
    st.tuples(st.just("forget"), st.floats(NOW - 200_000, NOW + 200_000)),
    st.tuples(st.just("fact"), st.sampled_from(["audit key", "x"]), VALUES),
    st.tuples(st.just("epoch")),
    st.tuples(st.just("vouch"), st.sampled_from([KEY, OTHER])),
)


def change(store: SqliteStore, what: str, *told: Any) -> None:
    if what == "put authority":
        store.put_authority(replace(authority(told[0]), phase=told[1]))
    elif what == "forget authority":
        store.forget_authority(told[0] * 32)
    elif what == "revoke":
        store.put_revocation(revocation(told[0]))
    elif what == "reinstate":
        store.delete_revocation(RevokedKind.SERIAL, told[0])
    elif what == "forget":
        store.forget_expired(told[0])
    elif what == "fact":
        store.change_fact(*told)
    elif what == "epoch":
        store.new_epoch()
    else:
        store.vouch(told[0])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.lists(CHANGES, max_size=4), st.booleans()), max_size=6),
    st.sampled_from(["transactions", "batch"]),
)
def test_j06_whatever_is_done_or_undone_all_is_vouched_for(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[tuple[Any, ...]], bool]], how: str
) -> None:
    """After every transaction, committed or not, within batches too; and for whoever opens the file next."""
    path = tmp_path_factory.mktemp("trust") / "hauberk.db"
    key, number = KEY, 0
    with closing(SqliteStore.open(path)) as store:
        store.vouch(key)
        outer = store.batch() if how == "batch" else None
        if outer is not None:
            outer.__enter__()
        for told, is_kept in steps:
            changes = [one for one in told if outer is None or one[0] != "vouch"]
            try:
                with store.transaction():
                    for one in changes:
                        change(store, *one)
                    if not is_kept:
                        raise Undone
            except Undone:
                changes = []
            key = next((one[1] for one in reversed(changes) if one[0] == "vouch"), key)
            if outer is None:
                assert store.doubts(key) == []
                assert store.trust_number >= number
                number = store.trust_number
                store.authorities(), store.revocations()
        if outer is not None:
            outer.__exit__(None, None, None)
        assert store.doubts(key) == []
    with closing(SqliteStore.open(path)) as store:
        store.open_trust(key)
        store.put_revocation(revocation("9"))
        assert store.doubts(key) == []
        with pytest.raises(TrustBroken, match="was not made with this key-encryption key"):
            store.open_trust(bytes(32))


def test_j06_without_the_key_nothing_that_is_vouched_for_can_be_changed(store: SqliteStore, tmp_path: Path) -> None:
    """All else can; and without anybody's word a store is as open as any."""
    store.put_authority(authority("a"))
    assert not store.is_vouched_for
    assert store.trust_number == 0
    assert store.doubts(KEY) == ["nothing in it is vouched for"]
    store.vouch(KEY)
    store.close()
    with closing(SqliteStore.open(tmp_path / "hauberk.db")) as again:
        for refused in (
            lambda: again.put_authority(authority("b")),
            lambda: again.forget_authority("a" * 32),
            lambda: again.put_revocation(revocation()),
            again.new_epoch,
            lambda: again.change_fact("audit key", "x"),
        ):
            with pytest.raises(StoreError, match="cannot be changed without the key-encryption key"):
                refused()
        again.change_fact("x", "y")
        again.next_revision()
        assert again.doubts(KEY) == []


def test_j06_what_somebody_else_wrote_is_not_vouched_for_with_the_next_change(store: SqliteStore) -> None:
    """Neither read nor changed; only whoever says so takes it."""
    store.put_authority(authority("a"))
    store.vouch(KEY)
    path = store._path
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE authority SET phase = 'old'")
    for refused in (
        store.authorities,
        store.revocations,
        lambda: store.put_revocation(revocation()),
        lambda: store.forget_authority("a" * 32),
        store.new_epoch,
        lambda: store.forget_expired(NOW),
    ):
        with pytest.raises(TrustBroken, match=r"authority a{32} was changed"):
            refused()
    store.vouch(KEY, after=41)
    assert (store.doubts(KEY), store.trust_number) == ([], 42)
    assert store.put_revocation(revocation())
    assert store.trust_number == 43


def test_the_number_of_what_was_rolled_back_is_given_again(store: SqliteStore) -> None:
    """So that it is that of what is in the file."""
    store.vouch(KEY)

    class Full:
        def flush(self) -> None:
            assert store.trust_number == 2
            raise Undone

        def settled(self, *, committed: bool) -> None: ...

        def mark(self) -> int:
            return 0

        def undo(self, mark: int) -> None: ...

    store.attach(Full())
    with pytest.raises(Undone):
        store.put_revocation(revocation())
    assert (store.trust_number, store.doubts(KEY)) == (1, [])


ROWS = st.lists(
    st.tuples(
        st.text(max_size=3),
        st.one_of(st.binary(max_size=3), st.text(max_size=3), st.none(), st.floats(allow_nan=False), st.integers()),
    ),
    max_size=3,
    unique_by=lambda row: row[0],
)


@given(ROWS, ROWS, st.integers(1, 3), st.integers(1, 3))
def test_two_statements_are_equal_only_if_what_they_speak_of_is(a: Any, b: Any, one: int, other: int) -> None:
    """No two kinds of value, and no two places for one, are taken for each other."""

    def made(authorities: Any, revocations: Any, epoch: int) -> trust.Statement:
        return trust.statement(number=1, epoch=epoch, authorities=authorities, revocations=revocations, facts=[])

    first, second = made(a, b, one), made(b, a, other)
    same = [[(type(value), value) for value in row] for row in a] == [
        [(type(value), value) for value in row] for row in b
    ]
    assert trust.Statement.parse(first.text()) == first
    assert (first == second) == (trust.differences(first, second) == [])
    if same and one == other:
        assert first == second
    elif first == second:
        # 0.0 and -0.0, 1 and 1.0: a row is what the database gives, and that has one kind a column.
        assert (a, one) == (b, other)
