"""What every store must do, whatever is under it. A new back end joins `make_store`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.errors import StoreError
from control_plane.model import IssuedRecord, ResourceKey, ResourceRecord
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, endpoint_record, resource_record, token_record, workload_spec


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = {"sqlite": lambda: SqliteStore.open(tmp_path / "hauberk.db")}[request.param]()
    yield opened
    opened.close()


def issued(serial: int, workload_id: int | None) -> IssuedRecord:
    return IssuedRecord(
        serial=serial,
        spiffe_id=workload_spec().spiffe_id,
        workload_id=workload_id,
        not_before=NOW - 60,
        not_after=NOW + 3_600,
        issued_at=NOW,
    )


# --- rule 1: all or nothing


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    """Nor does what was done in an inner one."""
    before = store.revision
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012  # what it did before it failed matters
        store.apply_resources([resource_record()])
        store.put_token(token_record())
        with store.transaction():
            store.ensure_workload(workload_spec(), NOW)
        raise ZeroDivisionError
    assert (store.resources(), store.workloads(), store.token(token_record().token_id)) == ([], [], None)
    assert store.revision == before


def test_a_fact_is_written_once(store: Store) -> None:
    """The trust domain of a mesh does not change."""
    assert store.fact("trust domain") is None
    store.record_fact("trust domain", "mesh.local")
    store.record_fact("trust domain", "mesh.local")
    with pytest.raises(StoreError, match=r"mesh\.local, not other"):
        store.record_fact("trust domain", "other")
    assert store.fact("trust domain") == "mesh.local"


# --- rule 2: revisions


def test_each_change_makes_a_new_revision_and_nothing_else_does(store: Store) -> None:
    """Snapshots are versioned by it."""
    workload = store.ensure_workload(workload_spec(), NOW)
    endpoint = endpoint_record(workload.workload_id)
    changing = [
        lambda: store.apply_resources([resource_record()]),
        lambda: store.put_endpoint(endpoint),
        lambda: store.put_endpoint(replace(endpoint, address="10.0.0.8:15008")),
        lambda: store.delete_endpoint(*endpoint.key),
        lambda: store.delete_resource(resource_record().key, at=NOW, by="me"),
        lambda: store.ensure_workload(workload_spec("billing"), NOW),
        store.next_revision,
    ]
    for change in changing:
        before = store.revision
        change()
        assert store.revision == before + 1
    before = store.revision
    store.put_endpoint(endpoint)
    assert store.put_endpoint(endpoint) is False
    assert store.delete_endpoint(workload.workload_id, "nobody") is False
    assert store.delete_resource(resource_record().key, at=NOW, by="me") is False
    store.ensure_workload(workload_spec("billing"), NOW)
    store.put_token(token_record())
    assert store.revision == before + 1


def test_documents_applied_together_are_one_revision(store: Store) -> None:
    """Nobody can be sent half of them."""
    before = store.revision
    first = store.apply_resources([resource_record("a"), resource_record("b")])
    assert [one.what for one in first] == ["created", "created"]
    assert store.revision == before + 1
    assert {one.version for one in store.resources()} == {before + 1}
    second = store.apply_resources([resource_record("a"), resource_record("b", yaml="# other"), resource_record("c")])
    assert [one.what for one in second] == ["unchanged", "updated", "created"]
    versions = {one.key.name: one.version for one in store.resources()}
    assert versions == {"a": before + 1, "b": before + 2, "c": before + 2}


def test_a_new_epoch_is_larger_and_not_foreseeable(store: Store) -> None:
    """Sidecars refuse a smaller one on an open stream (security.md J07)."""
    first = store.epoch
    second = store.new_epoch()
    assert first > 0
    assert store.epoch == second > first
    assert second < 2**63


# --- rule 3: join tokens


def test_a_token_is_spent_once(store: Store) -> None:
    """And keeps what it bound."""
    token = token_record()
    store.put_token(token)
    assert store.consume_token(token.token_id, token.secret_sha256, NOW + 1) == replace(token, consumed_at=NOW + 1)
    assert store.consume_token(token.token_id, token.secret_sha256, NOW + 2) is None
    held = store.token(token.token_id)
    assert held is not None
    assert held.consumed_at == NOW + 1


@pytest.mark.parametrize(
    ("token_id", "secret", "at"),
    [
        ("00112233445566aa", b"\x02" * 32, NOW),
        ("00112233445566ab", b"\x01" * 32, NOW),
        ("00112233445566aa", b"\x01" * 32, NOW + 600),
    ],
    ids=["wrong secret", "unknown", "expired"],
)
def test_a_token_that_is_not_right_is_not_spent(store: Store, token_id: str, secret: bytes, at: float) -> None:
    """A wrong guess does not cost the right one its token."""
    store.put_token(token_record())
    assert store.consume_token(token_id, secret, at) is None
    assert store.consume_token("00112233445566aa", b"\x01" * 32, NOW) is not None


def test_g11_of_a_hundred_callers_one_spends_the_token(store: Store) -> None:
    """Exactly one. (That the statement is atomic under real concurrency is each back end's own test.)"""
    token = token_record()
    store.put_token(token)
    wins = [store.consume_token(token.token_id, token.secret_sha256, NOW) for _ in range(100)]
    assert sum(won is not None for won in wins) == 1


# --- rule 4: certificates


def test_j10_a_serial_number_is_recorded_once(store: Store) -> None:
    """A second certificate under it would be indistinguishable from the first."""
    workload = store.ensure_workload(workload_spec(), NOW)
    store.record_issued(issued(2**158 + 1, workload.workload_id))
    with pytest.raises(StoreError):
        store.record_issued(issued(2**158 + 1, workload.workload_id))


def test_a_caller_is_known_by_its_certificate(store: Store) -> None:
    """Two services may share a service account; only the serial number tells them apart."""
    spec = workload_spec()
    one = store.ensure_workload(spec, NOW)
    two = store.ensure_workload(replace(spec, service="orders-worker"), NOW)
    store.record_issued(issued(1, one.workload_id))
    store.record_issued(issued(2, two.workload_id))
    assert store.workload_of_certificate(spec.spiffe_id, 1) == one
    assert store.workload_of_certificate(spec.spiffe_id, 2) == two
    assert store.workload_of_certificate(spec.spiffe_id, 3) is None  # not ours, and two could be meant
    assert store.workload_of_certificate(workload_spec("billing").spiffe_id, 1) is None


def test_j07_a_certificate_younger_than_the_store_still_has_its_workload(store: Store) -> None:
    """After a restore from a backup, if only one workload can be meant."""
    one = store.ensure_workload(workload_spec(), NOW)
    assert store.workload_of_certificate(one.spiffe_id, 77) == one


def test_the_same_description_is_the_same_workload(store: Store) -> None:
    """Replicas each join with a token of their own."""
    one = store.ensure_workload(workload_spec(version="v1", tier="gold"), NOW)
    assert store.ensure_workload(workload_spec(tier="gold", version="v1"), NOW + 9) == one
    assert store.ensure_workload(workload_spec(version="v2", tier="gold"), NOW).workload_id != one.workload_id
    assert store.workload(one.workload_id) == one
    assert [workload.workload_id for workload in store.workloads()] == [1, 2]


def test_g22_a_removed_workload_is_no_member(store: Store) -> None:
    """Neither it, nor its endpoint, nor its certificates; and joining again makes a new one."""
    one = store.ensure_workload(workload_spec(), NOW)
    store.record_issued(issued(1, one.workload_id))
    store.put_endpoint(endpoint_record(one.workload_id))
    before = store.revision
    assert store.remove_workload(one.workload_id, NOW) is True
    assert store.remove_workload(one.workload_id, NOW) is False
    assert store.revision == before + 1
    assert (store.workloads(), store.endpoints(), store.workload(one.workload_id)) == ([], [], None)
    assert store.workload_of_certificate(one.spiffe_id, 1) is None
    again = store.ensure_workload(workload_spec(), NOW)
    assert again.workload_id != one.workload_id
    assert store.workload_of_certificate(one.spiffe_id, 1) is None


def test_what_expired_long_ago_is_forgotten(store: Store) -> None:
    """And nothing else."""
    workload = store.ensure_workload(workload_spec(), NOW)
    store.put_token(token_record())
    store.record_issued(issued(1, workload.workload_id))
    assert store.forget_expired(NOW + 600) == 0
    assert store.forget_expired(NOW + 601) == 1
    assert store.token(token_record().token_id) is None
    assert store.forget_expired(NOW + 3_601) == 1


# --- resources and endpoints


def test_resources_are_listed_in_order_and_by_kind_and_namespace(store: Store) -> None:
    """Everybody sees the same order."""
    mesh = ResourceKey(kind="MeshConfig", namespace="", name="default")
    store.apply_resources(
        [replace(resource_record(), key=mesh), resource_record("b"), resource_record("a"), resource_record("a", "pay")]
    )
    names = [f"{one.key.kind[:4]} {one.key.namespace}/{one.key.name}" for one in store.resources()]
    assert names == ["Auth pay/a", "Auth shop/a", "Auth shop/b", "Mesh /default"]
    assert [one.key.name for one in store.resources("AuthorizationPolicy", "shop")] == ["a", "b"]
    assert [one.key for one in store.resources("MeshConfig")] == [mesh]
    assert store.resource(mesh) == replace(resource_record(), key=mesh, version=store.revision)


# --- rule 5: history


def in_force(records: Sequence[ResourceRecord] | None) -> dict[str, str] | None:
    """Name -> text."""
    return None if records is None else {one.key.name: one.yaml for one in records}


def test_every_change_of_resources_has_one_entry(store: Store) -> None:
    """Who, when, what, and what became of each resource; newest first."""
    assert (store.history(10), store.resources_version) == ([], 0)
    store.apply_resources([resource_record("b"), resource_record("a", applied_at=NOW + 1)])
    store.apply_resources([resource_record("a", yaml="# other", applied_at=NOW + 2, applied_by="anna")])
    store.delete_resource(resource_record("b").key, at=NOW + 3, by="ben")
    told = [
        (one.at - NOW, one.by, one.what, [f"{change.what} {change.key.name}" for change in one.changes])
        for one in store.history(10)
    ]
    assert told == [
        (3.0, "ben", "delete", ["deleted b"]),
        (2.0, "anna", "apply", ["updated a"]),
        (0.0, "local operator", "apply", ["created a", "created b"]),
    ]
    assert store.history(1)[0].version == store.revision == store.resources_version


def test_what_changes_nothing_has_no_entry(store: Store) -> None:
    """Nor has what is no resource."""
    store.apply_resources([resource_record()])
    store.apply_resources([resource_record()])
    store.apply_resources([])
    store.delete_resource(resource_record("nobody").key, at=NOW, by="me")
    workload = store.ensure_workload(workload_spec(), NOW)
    store.put_endpoint(endpoint_record(workload.workload_id))
    assert len(store.history(10)) == 1


def test_history_is_read_in_pages(store: Store) -> None:
    """`before` is the last version of the page before."""
    for number in range(5):
        store.apply_resources([resource_record(f"r{number}")])
    first = store.history(2)
    second = store.history(2, first[-1].version)
    assert [one.changes[0].key.name for one in (*first, *second)] == ["r4", "r3", "r2", "r1"]


def test_what_was_in_force_at_a_version_is_known(store: Store) -> None:
    """Also at one that changed something else; and not at one that is yet to come."""
    start = store.revision
    store.apply_resources([resource_record("a"), resource_record("b")])
    applied = store.revision
    between = store.next_revision()
    store.apply_resources([resource_record("a", yaml="# other")])
    store.delete_resource(resource_record("b").key, at=NOW, by="me")
    both = {"a": resource_record("a").yaml, "b": resource_record("b").yaml}
    held = [in_force(store.resources_at(version)) for version in (start, applied, between, store.revision)]
    assert held == [{}, both, both, {"a": "# other"}]
    assert store.resources_at(store.revision + 1) is None
    assert store.resources_at(applied) == [replace(resource_record(name), version=applied) for name in ("a", "b")]


def test_a_rollback_is_a_new_version_with_the_old_resources(store: Store) -> None:
    """What came since is gone, what went is back, what stayed is as it was."""
    store.apply_resources([resource_record("kept"), resource_record("changed"), resource_record("dropped")])
    wanted = store.revision
    store.apply_resources([resource_record("changed", yaml="# other"), resource_record("new")])
    store.delete_resource(resource_record("dropped").key, at=NOW, by="me")
    before = store.revision
    changes = store.restore_resources(wanted, at=NOW + 9, by="anna")
    assert changes is not None
    assert {one.key.name: one.what for one in changes} == {"changed": "updated", "dropped": "created", "new": "deleted"}
    assert store.revision == before + 1
    assert in_force(store.resources()) == in_force(store.resources_at(wanted))
    assert {one.key.name: one.applied_by for one in store.resources()} == {
        "kept": "local operator",
        "changed": "anna",
        "dropped": "anna",
    }
    entry = store.history(1)[0]
    assert (entry.version, entry.at, entry.by, entry.what) == (before + 1, NOW + 9, "anna", f"rollback to {wanted}")


def test_a_rollback_to_what_is_in_force_changes_nothing(store: Store) -> None:
    """And one to a version nobody knows is told apart."""
    store.apply_resources([resource_record()])
    revision = store.revision
    assert store.restore_resources(revision, at=NOW, by="me") == []
    assert store.restore_resources(revision + 1, at=NOW, by="me") is None
    assert (store.revision, len(store.history(10))) == (revision, 1)


def test_a_change_that_fails_leaves_no_entry(store: Store) -> None:
    """The history is written in the same transaction."""
    store.apply_resources([resource_record("a")])
    held = store.history(10)
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012  # what it did before it failed matters
        store.apply_resources([resource_record("b")])
        raise ZeroDivisionError
    assert store.history(10) == held
    assert in_force(store.resources_at(store.revision)) == {"a": resource_record("a").yaml}


# --- endpoints


def test_an_endpoint_is_kept_as_told(store: Store) -> None:
    """And replaced by what its instance says next."""
    workload = store.ensure_workload(workload_spec(), NOW)
    endpoint = endpoint_record(workload.workload_id)
    assert store.put_endpoint(endpoint) is True
    assert store.endpoints() == [endpoint]
    moved = replace(endpoint, address="10.0.0.8:15008")
    store.put_endpoint(moved)
    assert store.endpoints() == [moved]


def test_a_restarted_sidecar_replaces_itself_but_nobody_else(store: Store) -> None:
    """Same workload at the same address: the old process is gone. Another workload that claims the address cannot
    take it from its owner."""
    orders, billing = (store.ensure_workload(workload_spec(name), NOW) for name in ("orders", "billing"))
    store.put_endpoint(endpoint_record(orders.workload_id, "old"))
    store.put_endpoint(endpoint_record(orders.workload_id, "new"))
    assert [one.instance for one in store.endpoints()] == ["new"]
    store.put_endpoint(endpoint_record(billing.workload_id, "thief"))
    assert [one.instance for one in store.endpoints()] == ["new", "thief"]
