"""Until when something stands under an authority: what every store must answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.model import IssuedRecord, Node
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, token_record, workload_spec


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = {"sqlite": lambda: SqliteStore.open(tmp_path / "hauberk.db")}[request.param]()
    yield opened
    opened.close()


def issue(store: Store, serial: int, life_s: float, workload_id: int | None = None, node_id: str = "") -> int:
    return store.record_issued(
        IssuedRecord(
            serial=serial,
            spiffe_id=workload_spec().spiffe_id,
            workload_id=workload_id,
            not_before=NOW - 60,
            not_after=NOW + life_s,
            issued_at=NOW,
            node_id=node_id,
            issuer_id="i",
            root_id="r",
        )
    )


def test_certificates_that_were_replaced_count_until_they_end(store: Store) -> None:
    """A connection made with one may be open. Of a node's, those it does not use any more are live no longer."""
    workload = store.ensure_workload(workload_spec(), NOW)
    store.put_node(
        Node(
            node_id="n",
            workload_id=workload.workload_id,
            token_id="",
            public_key_der=b"",
            joined_at=NOW,
            expires_at=NOW,
        )
    )
    issue(store, 1, 100, workload.workload_id, "n")
    second = issue(store, 2, 50, workload.workload_id, "n")
    store.confirm_certificate("n", second)
    assert [one.serial for one in store.live_certificates(NOW)] == [2]
    assert store.unexpired_until(NOW) == {("i", "r"): NOW + 100}
    assert store.unexpired_until(NOW + 100) == {}


def test_of_the_control_planes_own_only_the_newest_counts(store: Store) -> None:
    """Nobody holds the older ones."""
    issue(store, 1, 100)
    issue(store, 2, 50)
    assert store.unexpired_until(NOW) == {("i", "r"): NOW + 50}


def test_tokens_that_may_still_be_used(store: Store) -> None:
    """Not those that were, nor those that have ended, nor those made later."""
    assert store.unspent_tokens_until(NOW + 1, NOW) == 0.0
    for index, (created_at, life_s) in enumerate([(NOW, 60.0), (NOW, 90.0), (NOW + 10, 600.0)]):
        store.put_token(token_record(f"{index:016x}", created_at=created_at, expires_at=NOW + life_s))
    assert store.unspent_tokens_until(NOW + 1, NOW) == NOW + 90
    assert store.unspent_tokens_until(NOW + 11, NOW) == NOW + 600
    assert store.consume_token(f"{1:016x}", token_record().secret_sha256, NOW) is not None
    assert store.unspent_tokens_until(NOW + 1, NOW) == NOW + 60
    assert store.unspent_tokens_until(NOW + 1, NOW + 60) == 0.0
