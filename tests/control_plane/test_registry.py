"""The life of an instance, told with a clock that moves when told. The store is the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.errors import ResourceExhausted
from control_plane.model import Workload
from control_plane.registry import Registry
from control_plane.store.sqlite import SqliteStore
from sidecar.rules.snapshot import Protocol
from tests.control_plane.support import NOW, workload_spec

PORTS = {8080: Protocol.HTTP1}
ADDRESS = "10.0.0.7:15008"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "hauberk.db")
    yield opened
    opened.close()


@pytest.fixture
def workload(store: SqliteStore) -> Workload:
    return store.ensure_workload(workload_spec(), NOW)


def registry_on(store: SqliteStore, now: float = NOW, streams_per_identity_max: int = 1_000) -> Registry:
    registry = Registry(store, lost_s=5.0, restart_s=30.0, streams_per_identity_max=streams_per_identity_max)
    registry.start(now)
    return registry


def connect(registry: Registry, workload: Workload, name: str = "one", now: float = NOW) -> int:
    return registry.connected(workload, name, sidecar_version="0.1.0", now=now)


def endpoints(store: SqliteStore) -> list[str]:
    return [f"{one.instance}@{one.address}" for one in store.endpoints()]


def test_an_endpoint_is_there_from_advertise_to_withdraw(store: SqliteStore, workload: Workload) -> None:
    """The orderly way: gone at once, while the stream stays for the drain."""
    registry = registry_on(store)
    stream = connect(registry, workload)
    assert endpoints(store) == []
    assert registry.advertise(stream, ADDRESS, PORTS, NOW) is True
    assert registry.advertise(stream, ADDRESS, PORTS, NOW) is False
    assert endpoints(store) == ["one@10.0.0.7:15008"]
    assert registry.withdraw(stream, NOW) is True
    assert registry.withdraw(stream, NOW) is False
    assert endpoints(store) == []
    assert workload_keys(registry) == [(workload.workload_id, "one")]
    registry.disconnected(stream, NOW)
    assert workload_keys(registry) == []


def workload_keys(registry: Registry) -> list[tuple[int, str]]:
    return [one.key for one in registry]


def test_a_lost_sidecar_keeps_its_endpoint_five_seconds(store: SqliteStore, workload: Workload) -> None:
    """The abrupt way: it may only be reconnecting."""
    registry = registry_on(store)
    stream = connect(registry, workload)
    registry.advertise(stream, ADDRESS, PORTS, NOW)
    registry.disconnected(stream, NOW + 10)
    assert registry.sweep(NOW + 14.9) is False
    assert endpoints(store)
    assert registry.sweep(NOW + 15) is True
    assert endpoints(store) == []
    assert workload_keys(registry) == []


def test_a_sidecar_that_reconnects_and_advertises_loses_nothing(store: SqliteStore, workload: Workload) -> None:
    """Its callers never notice: not one revision is made."""
    registry = registry_on(store)
    stream = connect(registry, workload)
    registry.advertise(stream, ADDRESS, PORTS, NOW)
    revision = store.revision
    registry.disconnected(stream, NOW)
    again = connect(registry, workload, now=NOW + 3)
    registry.advertise(again, ADDRESS, PORTS, NOW + 4)
    assert registry.sweep(NOW + 1_000) is False
    assert endpoints(store)
    assert store.revision == revision


def test_a_sidecar_that_reconnects_and_says_nothing_loses_its_endpoint(store: SqliteStore, workload: Workload) -> None:
    """Its app may be gone; but the sidecar is still there."""
    registry = registry_on(store)
    stream = connect(registry, workload)
    registry.advertise(stream, ADDRESS, PORTS, NOW)
    registry.disconnected(stream, NOW)
    connect(registry, workload, now=NOW + 3)
    assert registry.sweep(NOW + 8) is True
    assert endpoints(store) == []
    assert workload_keys(registry)


def test_a_restart_empties_nothing_for_thirty_seconds(store: SqliteStore, workload: Workload) -> None:
    """Sidecars must be back by then."""
    before = registry_on(store)
    for name, address in (("back", ADDRESS), ("gone", "10.0.0.8:15008")):
        before.advertise(connect(before, workload, name), address, PORTS, NOW)
    after = registry_on(store, NOW + 100)
    assert after.sweep(NOW + 129) is False
    assert len(endpoints(store)) == 2
    after.advertise(connect(after, workload, "back", NOW + 129), ADDRESS, PORTS, NOW + 129)
    assert after.sweep(NOW + 130) is True
    assert endpoints(store) == ["back@10.0.0.7:15008"]


def test_the_newer_of_two_streams_speaks_for_the_instance(store: SqliteStore, workload: Workload) -> None:
    """A sidecar moves to a new certificate on a second stream; what the first says late changes nothing."""
    registry = registry_on(store)
    old = connect(registry, workload)
    registry.advertise(old, ADDRESS, PORTS, NOW)
    new = connect(registry, workload)
    registry.advertise(new, ADDRESS, PORTS, NOW)
    assert registry.withdraw(old, NOW) is False
    assert registry.advertise(old, "10.9.9.9:1", PORTS, NOW) is False
    registry.disconnected(old, NOW)
    assert registry.sweep(NOW + 100) is False
    assert endpoints(store) == ["one@10.0.0.7:15008"]


def test_when_the_newer_stream_breaks_first_the_older_speaks_again(store: SqliteStore, workload: Workload) -> None:
    """The sidecar is connected as long as one stream is."""
    registry = registry_on(store)
    old = connect(registry, workload)
    registry.advertise(old, ADDRESS, PORTS, NOW)
    new = connect(registry, workload)
    registry.advertise(new, ADDRESS, PORTS, NOW)
    registry.disconnected(new, NOW)
    registry.disconnected(new, NOW)
    assert registry.sweep(NOW + 100) is False
    assert registry.withdraw(old, NOW) is True


def test_a_restarted_sidecar_replaces_itself_at_its_address(store: SqliteStore, workload: Workload) -> None:
    """Killed and started again within five seconds: callers are not sent to one endpoint twice."""
    registry = registry_on(store)
    old = connect(registry, workload, "old")
    registry.advertise(old, ADDRESS, PORTS, NOW)
    registry.disconnected(old, NOW)
    new = connect(registry, workload, "new", NOW + 1)
    registry.advertise(new, ADDRESS, PORTS, NOW + 1)
    assert endpoints(store) == ["new@10.0.0.7:15008"]
    assert workload_keys(registry) == [(workload.workload_id, "new")]


def test_g25_an_identity_has_a_bounded_number_of_streams(store: SqliteStore, workload: Workload) -> None:
    """Instance names are chosen by the sidecar, so they cannot be what bounds it."""
    registry = registry_on(store, streams_per_identity_max=3)
    streams = [connect(registry, workload, f"i{n}") for n in range(3)]
    with pytest.raises(ResourceExhausted):
        connect(registry, workload, "i4")
    registry.disconnected(streams[0], NOW)
    connect(registry, workload, "i4")


def test_clock_and_certificate_are_as_last_heard(store: SqliteStore, workload: Workload) -> None:
    """The skew is the sidecar's clock minus ours; zero says nothing."""
    registry = registry_on(store)
    stream = connect(registry, workload)
    registry.heard(stream, clock=NOW + 3, certificate_not_after=NOW + 60, now=NOW + 1)
    registry.heard(stream, clock=0, certificate_not_after=0, now=NOW + 2)
    (instance,) = registry
    assert (instance.clock_skew_s, instance.certificate_not_after, instance.last_seen) == (2.0, NOW + 60, NOW + 2)
