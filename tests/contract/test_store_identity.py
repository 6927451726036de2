"""What every store must do with certificates, nodes, authorities, revocations, and with what is written down first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.errors import StoreError, Unavailable
from control_plane.model import Authority, IssuedRecord, Level, Node, Phase, RevocationRecord, RevokedKind
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, resource_record, token_record, workload_spec


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = {"sqlite": lambda: SqliteStore.open(tmp_path / "hauberk.db")}[request.param]()
    yield opened
    opened.close()


def issued(serial: int, workload_id: int | None = None, node_id: str = "", ends_s: float = 3_600.0) -> IssuedRecord:
    return IssuedRecord(
        serial=serial,
        spiffe_id=workload_spec().spiffe_id,
        workload_id=workload_id,
        not_before=NOW - 60,
        not_after=NOW + ends_s,
        issued_at=NOW,
        node_id=node_id,
        issuer_id="i" * 32,
        root_id="r" * 32,
    )


def node(store: Store, node_id: str = "a" * 32, **changes: object) -> Node:
    workload = store.ensure_workload(workload_spec(), NOW)
    made = Node(
        node_id=node_id,
        workload_id=workload.workload_id,
        token_id="00112233445566aa",
        public_key_der=b"key",
        joined_at=NOW,
        expires_at=NOW + 86_400,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # each its own type


def authority(name: str, phase: Phase = Phase.PREPARED, level: Level = Level.INTERMEDIATE) -> Authority:
    return Authority(
        authority_id=name * 32,
        level=level,
        phase=phase,
        parent_id="r" * 32,
        public_key_der=b"public",
        certificate_der=b"certificate",
        sealed_key=b"sealed",
        not_before=NOW,
        not_after=NOW + 86_400,
        prepared_at=NOW,
        activated_at=NOW + 1 if phase is not Phase.PREPARED else None,
        succession=b"signature",
    )


def revocation(value: str = "1f", kind: RevokedKind = RevokedKind.SERIAL, at: float = NOW) -> RevocationRecord:
    return RevocationRecord(kind=kind, value=value, at=at, by="ann", reason="stolen")


# --- certificates and nodes


def test_numbers_of_certificates_grow_and_are_never_used_again(store: Store) -> None:
    """Not even when the last was forgotten: a node is known by what it confirmed."""
    first = store.record_issued(issued(0xA, ends_s=-90_000))
    second = store.record_issued(issued(2**158 + 1))
    assert second > first
    held = store.certificate(2**158 + 1)
    assert held == replace(issued(2**158 + 1), number=second)
    store.record_issued(issued(0xC, ends_s=-90_000))
    assert store.forget_expired(NOW - 86_400) == 2
    assert store.record_issued(issued(0xD)) > second + 1
    assert store.certificate(0xA) is None


def test_live_are_those_that_have_not_ended_and_are_not_older_than_what_was_confirmed(store: Store) -> None:
    """In the order issued."""
    store.put_node(node(store))
    numbers = [store.record_issued(issued(serial, node_id="a" * 32)) for serial in (1, 2, 3)]
    store.record_issued(issued(4, ends_s=-1))
    store.record_issued(issued(5))
    assert [one.serial for one in store.live_certificates(NOW)] == [1, 2, 3, 5]
    assert store.confirm_certificate("a" * 32, numbers[1])
    assert [one.serial for one in store.live_certificates(NOW)] == [2, 3, 5]
    assert store.live_certificates(NOW + 3_600) == []


def test_g24_what_a_node_has_confirmed_never_goes_back(store: Store) -> None:
    """An older certificate of the same line says nothing new."""
    store.put_node(node(store))
    assert store.confirm_certificate("a" * 32, 7)
    assert not store.confirm_certificate("a" * 32, 7)
    assert not store.confirm_certificate("a" * 32, 3)
    assert not store.confirm_certificate("b" * 32, 9)
    held = store.node("a" * 32)
    assert held is not None
    assert held.confirmed_number == 7


def test_nodes_are_those_of_members(store: Store) -> None:
    """In the order they joined; replaced whole; forgotten when told."""
    first, second = node(store, "b" * 32), node(store, "a" * 32, joined_at=NOW + 1)
    for one in (second, first):
        store.put_node(one)
    assert store.nodes() == [first, second]
    store.put_node(replace(first, alarm="renewed from two places"))
    assert [one.alarm for one in store.nodes()] == ["renewed from two places", ""]
    assert store.forget_node("b" * 32)
    assert not store.forget_node("b" * 32)
    assert store.node("b" * 32) is None
    store.remove_workload(second.workload_id, NOW)
    assert store.nodes() == []


def test_certificates_are_found_by_the_token_they_came_of(store: Store) -> None:
    """And by the token their node has now; not those that have ended."""
    store.put_node(node(store, token_id="b" * 16))
    store.record_issued(replace(issued(1, node_id="a" * 32), token_id="a" * 16))
    store.record_issued(replace(issued(2, node_id="a" * 32), token_id="b" * 16))
    store.record_issued(replace(issued(3, node_id="a" * 32, ends_s=-1), token_id="a" * 16))
    store.record_issued(issued(4))
    assert [one.serial for one in store.certificates_of_token("a" * 16, NOW)] == [1]
    assert [one.serial for one in store.certificates_of_token("b" * 16, NOW)] == [1, 2]
    assert store.certificates_of_token("c" * 16, NOW) == []


def test_a_revoked_token_is_remembered_while_a_certificate_of_it_is(store: Store) -> None:
    """Else it could not be given back."""
    store.put_revocation(revocation("a" * 16, RevokedKind.TOKEN, at=NOW - 90_000))
    store.record_issued(replace(issued(1), token_id="a" * 16))
    store.forget_expired(NOW - 3_600)
    assert [one.value for one in store.revocations()] == ["a" * 16]
    store.forget_expired(NOW + 90_000)
    assert store.revocations() == []


def test_tokens_are_listed_oldest_first(store: Store) -> None:
    """Whether they were used or not."""
    first, second = token_record("b" * 16, created_at=NOW - 1), token_record("a" * 16)
    for one in (second, first):
        store.put_token(one)
    store.consume_token("a" * 16, second.secret_sha256, NOW)
    assert store.tokens() == [first, replace(second, consumed_at=NOW)]
    store.forget_expired(NOW + 601)
    assert store.tokens() == []


def test_a_node_that_can_neither_renew_nor_come_back_is_forgotten(store: Store) -> None:
    """One that has a certificate still is not."""
    store.put_node(node(store, "a" * 32, expires_at=NOW - 1))
    store.put_node(node(store, "b" * 32, expires_at=NOW - 1))
    store.record_issued(issued(1, node_id="b" * 32))
    store.forget_expired(NOW)
    assert [one.node_id for one in store.nodes()] == ["b" * 32]


# --- authorities and revocations (rule 5)


def test_an_authority_is_kept_as_told(store: Store) -> None:
    """Whole, oldest first."""
    one, two = authority("b"), replace(authority("a"), prepared_at=NOW + 1)
    for each in (two, one):
        assert store.put_authority(each)
    assert store.authorities() == [one, two]
    assert store.authority("b" * 32) == one
    assert store.authority("c" * 32) is None
    assert store.forget_authority("a" * 32)
    assert not store.forget_authority("a" * 32)


def test_r09_of_a_level_one_authority_is_active(store: Store) -> None:
    """Two that sign would be two roots; the first stays."""
    store.put_authority(authority("a", Phase.ACTIVE))
    with pytest.raises(StoreError, match="two active"):
        store.put_authority(authority("b", Phase.ACTIVE))
    store.put_authority(authority("c", Phase.ACTIVE, Level.ROOT))
    assert [one.authority_id[0] for one in store.authorities()] == ["a", "c"]


def test_every_change_of_whom_to_trust_is_a_new_revision_and_nothing_else_is(store: Store) -> None:
    """All snapshots may change by it."""
    changing: list[Callable[[], bool]] = [
        lambda: store.put_authority(authority("a")),
        lambda: store.put_authority(authority("a", Phase.ACTIVE)),
        lambda: store.put_revocation(revocation()),
        lambda: store.delete_revocation(RevokedKind.SERIAL, "1f"),
        lambda: store.forget_authority("a" * 32),
    ]
    for change in changing:
        before = store.revision
        assert change()
        assert store.revision > before
    still: list[Callable[[], bool]] = [
        lambda: store.forget_authority("a" * 32),
        lambda: store.delete_revocation(RevokedKind.SERIAL, "1f"),
    ]
    store.put_authority(authority("b"))
    store.put_revocation(revocation("2"))
    still += [lambda: store.put_authority(authority("b")), lambda: store.put_revocation(revocation("2", at=NOW + 9))]
    for change in still:
        before = store.revision
        assert not change()
        assert store.revision == before


def test_a_revocation_is_made_once_and_keeps_who_made_it(store: Store) -> None:
    """The same again does not say that it was somebody else."""
    store.put_revocation(revocation())
    store.put_revocation(replace(revocation(at=NOW + 5), by="bob"))
    store.put_revocation(revocation("1f", RevokedKind.TOKEN, NOW - 1))
    assert store.revocations() == [revocation("1f", RevokedKind.TOKEN, NOW - 1), revocation()]


def test_revocations_last_as_long_as_what_they_take_away(store: Store) -> None:
    """Of an identity for ever; of a serial number or a token until nothing is left of it, a day at least."""
    store.put_token(token_record("00000000000000aa", expires_at=NOW + 10 * 86_400))
    store.record_issued(issued(0x1F, ends_s=10 * 86_400))
    store.put_revocation(revocation("spiffe://mesh.local/ns/shop/sa/web", RevokedKind.IDENTITY))
    for value, kind in [("1f", RevokedKind.SERIAL), ("2f", RevokedKind.SERIAL)]:
        store.put_revocation(revocation(value, kind))
    for value in ("00000000000000aa", "00000000000000bb"):
        store.put_revocation(revocation(value, RevokedKind.TOKEN))
    store.forget_expired(NOW)
    assert len(store.revocations()) == 5
    store.forget_expired(NOW + 2 * 86_400)
    left = {one.value for one in store.revocations()}
    assert left == {"spiffe://mesh.local/ns/shop/sa/web", "1f", "00000000000000aa"}


def test_j07_voided_tokens_cannot_be_used_and_used_ones_stay_used(store: Store) -> None:
    """After a restore nobody knows which were."""
    store.put_token(token_record("00000000000000aa"))
    store.put_token(token_record("00000000000000bb"))
    store.put_token(token_record("00000000000000cc", expires_at=NOW - 1))
    store.consume_token("00000000000000aa", b"\x01" * 32, NOW)
    assert store.void_tokens(NOW) == 1
    assert store.void_tokens(NOW) == 0
    assert store.consume_token("00000000000000bb", b"\x01" * 32, NOW) is None


# --- what is written down first


class Notes:
    """A journal that says when it was asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.told: list[str] = []
        self.held: list[str] = []
        self.fails = False

    def note(self, word: str) -> None:
        """Of a transaction, as a record of it would be."""
        self.held.append(word)

    def mark(self) -> int:
        return len(self.held)

    def undo(self, mark: int) -> None:
        del self.held[mark:]

    def flush(self) -> None:
        self.told.append(f"flush {self._store.fact('x')}")
        if self.fails:
            raise Unavailable("no space")
        self._store.change_fact("head", str(len(self.told)))

    def settled(self, *, committed: bool) -> None:
        self.told.append("committed" if committed else "not committed")


def test_g30_a_journal_goes_before_every_commit_and_its_own_changes_with_it(store: Store) -> None:
    """Once for a transaction, however many are inside it."""
    notes = Notes(store)
    store.attach(notes)
    with store.transaction():
        store.change_fact("x", "1")
        store.apply_resources([resource_record()])
    assert notes.told == ["flush 1", "committed"]
    assert store.fact("head") == "1"


def test_g30_a_journal_that_fails_stops_the_commit(store: Store) -> None:
    """Nothing of the transaction is there."""
    notes = Notes(store)
    store.attach(notes)
    notes.fails = True
    with pytest.raises(Unavailable):
        store.apply_resources([resource_record()])
    assert (store.resources(), store.fact("head")) == ([], None)
    assert notes.told == ["flush None", "not committed"]
    notes.fails = False
    store.apply_resources([resource_record()])
    assert len(store.resources()) == 1


def test_a_journal_hears_of_what_was_rolled_back(store: Store) -> None:
    """And is not asked before."""
    notes = Notes(store)
    store.attach(notes)
    with pytest.raises(ZeroDivisionError), store.transaction():
        raise ZeroDivisionError
    assert notes.told == ["not committed"]
