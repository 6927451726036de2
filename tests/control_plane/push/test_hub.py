"""Who is told what, when; with sessions that are spoken to directly and no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.errors import PermissionDenied, Unavailable
from control_plane.model import Workload
from control_plane.push.hub import Hub, Subscriber
from control_plane.push.session import ANSWER_S, Session
from control_plane.push.snapshot import WorldLoader
from control_plane.push.trust import Trust
from control_plane.store.sqlite import SqliteStore
from tests.certs.forge import make_ca
from tests.control_plane.support import (
    NOW,
    TD,
    Clock,
    asyncio_test,
    policy_yaml,
    resource_record,
    workload_spec,
)

ANCHOR = make_ca().der


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "hauberk.db")
    yield opened
    opened.close()


def hub_on(store: SqliteStore) -> Hub:
    return Hub(
        store, WorldLoader(store, TD, lambda: Trust(anchors_der=(ANCHOR,)), certificate_lifetime_s=600), debounce_s=0.0
    )


def subscribed(hub: Hub, store: SqliteStore, workload: Workload, instance: str = "one") -> Subscriber:
    session = Session(workload=workload, instance=instance, epoch_held=0, version_held=0, epoch=store.epoch)
    return hub.add(session)


async def taken(subscriber: Subscriber, clock: Clock | None = None) -> int:
    """Version of the next snapshot, acknowledged."""
    message = await subscriber.wait_next(clock or Clock())
    subscriber.session.acknowledge(message.epoch, message.version)
    return message.version


def is_waiting(subscriber: Subscriber) -> bool:
    return subscriber.session.take(NOW + ANSWER_S) is None


@asyncio_test
async def test_a_change_wakes_only_whom_it_concerns(tmp_path: Path) -> None:
    """The other one's snapshot is what it was."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    hub = hub_on(store)
    orders, web = (
        subscribed(hub, store, store.ensure_workload(workload_spec(name), NOW)) for name in ("orders", "web")
    )
    await taken(orders)
    await taken(web)
    store.apply_resources([resource_record("orders")])
    hub.flush()
    assert await taken(orders) == store.revision
    assert is_waiting(web)
    store.close()


@asyncio_test
async def test_changes_in_a_burst_are_offered_once(tmp_path: Path) -> None:
    """`run` gathers them."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    hub = hub_on(store)
    orders = subscribed(hub, store, store.ensure_workload(workload_spec(), NOW))
    await taken(orders)
    running = asyncio.create_task(hub.run())
    for n in range(10):
        store.apply_resources([resource_record(yaml=policy_yaml(principal=f"mesh.local/ns/a/sa/s{n}"))])
        hub.notify()
    assert await taken(orders) == store.revision
    assert is_waiting(orders)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    store.close()


@asyncio_test
async def test_a_held_back_snapshot_goes_out_when_the_answer_is_overdue(tmp_path: Path) -> None:
    """A subscriber that never answers still hears of a revoked right."""
    store = SqliteStore.open(tmp_path / "hauberk.db")
    hub, clock = hub_on(store), Clock()
    orders = subscribed(hub, store, store.ensure_workload(workload_spec(), NOW))
    await orders.wait_next(clock)
    store.apply_resources([resource_record()])
    hub.flush()
    waiting = asyncio.create_task(orders.wait_next(clock))
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.at += ANSWER_S
    orders.woken.set()
    assert (await waiting).version == store.revision
    store.close()


def test_everybody_is_compiled_from_one_world(store: SqliteStore) -> None:
    """H13: nothing can come between the first and the last subscriber."""

    @asyncio_test
    async def main() -> None:
        hub = hub_on(store)
        workloads = [store.ensure_workload(workload_spec(f"s{n}"), NOW) for n in range(20)]
        subscribers = [subscribed(hub, store, one) for one in workloads]
        for one in subscribers:
            await taken(one)
        store.apply_resources([resource_record(f"s{n}") for n in range(20)])
        hub.flush()
        assert {await taken(one) for one in subscribers} == {store.revision}

    main()


def test_a_removed_workload_loses_its_stream(store: SqliteStore) -> None:
    """The others keep theirs."""

    @asyncio_test
    async def main() -> None:
        hub = hub_on(store)
        orders, web = (store.ensure_workload(workload_spec(name), NOW) for name in ("orders", "web"))
        gone, stays = subscribed(hub, store, orders), subscribed(hub, store, web)
        await taken(stays)
        store.remove_workload(orders.workload_id, NOW)
        hub.flush()
        with pytest.raises(PermissionDenied, match="removed from the mesh"):
            await gone.wait_next(Clock())
        assert stays.end is None

    main()


def test_a_closed_hub_ends_those_that_are_there_and_those_that_come(store: SqliteStore) -> None:
    """UNAVAILABLE: come back later."""

    @asyncio_test
    async def main() -> None:
        hub = hub_on(store)
        workload = store.ensure_workload(workload_spec(), NOW)
        there = subscribed(hub, store, workload)
        hub.close()
        comes = subscribed(hub, store, workload, "two")
        for one in (there, comes):
            with pytest.raises(Unavailable):
                await one.wait_next(Clock())

    main()


def test_waiting_counts_whom_it_concerns(store: SqliteStore) -> None:
    """Acknowledged, rejected, pending; and who left for good is not waited for."""

    @asyncio_test
    async def main() -> None:
        hub = hub_on(store)
        workload = store.ensure_workload(workload_spec(), NOW)
        bystander = subscribed(hub, store, store.ensure_workload(workload_spec("web"), NOW))
        yes, no, late, left = (subscribed(hub, store, workload, name) for name in ("yes", "no", "late", "left"))
        for one in (bystander, yes, no, late, left):
            await taken(one)
        store.apply_resources([resource_record()])
        version = store.revision
        present = {left.session.key}
        waiting = asyncio.create_task(hub.wait_acknowledged(version, 0.2, lambda key: key in present))
        await asyncio.sleep(0)
        await taken(yes)
        message = await no.wait_next(Clock())
        no.session.reject(message.epoch, message.version, "no")
        hub.remove(left)
        hub.answered()
        report = await waiting
        names = [label.rpartition("#")[2] for label in report.pending]
        assert names == ["late", "left"]
        present.clear()
        await taken(late)
        report = await hub.wait_acknowledged(version, 5, lambda key: key in present)
        assert [label.rpartition("#")[2] for label in report.acknowledged] == ["late", "yes"]
        assert [(label.rpartition("#")[2], why) for label, why in report.rejected] == [("no", "no")]
        assert report.pending == ()

    main()
