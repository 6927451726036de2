"""What one workload needs of the world, and nothing else. The sidecar's decoder reads what is compiled here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.errors import ControlPlaneError
from control_plane.model import ResourceKey, Workload
from control_plane.push.snapshot import WorldLoader, compile_content
from control_plane.push.trust import Trust
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import discovery_pb2
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.snapshot import Action, Protocol, Snapshot
from tests.certs.forge import make_ca
from tests.control_plane.support import (
    NOW,
    TD,
    endpoint_record,
    mesh_yaml,
    policy_yaml,
    resource_record,
    workload_spec,
)

ANCHOR = make_ca().der
MESH = ResourceKey(kind="MeshConfig", namespace="", name="default")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "hauberk.db")
    yield opened
    opened.close()


@pytest.fixture
def loader(store: SqliteStore) -> WorldLoader:
    return WorldLoader(store, TD, lambda: Trust(anchors_der=(ANCHOR,)), certificate_lifetime_s=600)


def compiled(loader: WorldLoader, workload: Workload, *services: str) -> Snapshot:
    """As the sidecar will read it."""
    world = loader.load()
    message = discovery_pb2.Snapshot()
    message.CopyFrom(compile_content(world, workload, services).message)
    message.epoch, message.version = world.epoch, world.revision
    return snapshot_from_proto(message)


def digest(loader: WorldLoader, workload: Workload, *services: str) -> bytes:
    return compile_content(loader.load(), workload, services).digest


def test_policies_of_the_namespace_that_select_the_labels(store: SqliteStore, loader: WorldLoader) -> None:
    """With the place in the operator's file."""
    orders = store.ensure_workload(workload_spec(), NOW)
    store.apply_resources(
        [
            resource_record("orders", source="a.yaml:7"),
            resource_record("billing"),
            resource_record("orders", "pay", yaml=policy_yaml("orders", "pay")),
        ]
    )
    (policy,) = compiled(loader, orders).policies
    assert (policy.full_name, policy.source, policy.action) == ("shop/orders", "a.yaml:7", Action.ALLOW)


def test_services_asked_for_and_no_other(store: SqliteStore, loader: WorldLoader) -> None:
    """Unknown, known and unserved, served; each endpoint with whom to find there."""
    orders = store.ensure_workload(workload_spec(), NOW)
    billing = store.ensure_workload(workload_spec("billing"), NOW)
    store.put_endpoint(endpoint_record(billing.workload_id))
    snapshot = compiled(loader, orders, "billing.shop", "orders.shop", "none.shop")
    assert sorted(snapshot.services) == ["billing.shop", "none.shop", "orders.shop"]
    assert [snapshot.services[name].known for name in sorted(snapshot.services)] == [True, False, True]
    (endpoint,) = snapshot.services["billing.shop"].endpoints
    assert (endpoint.address, endpoint.identity) == ("10.0.0.7:15008", billing.spiffe_id)
    assert dict(endpoint.ports) == {90: Protocol.HTTP2, 8080: Protocol.HTTP1}


def test_instances_of_two_workloads_may_choose_one_name(store: SqliteStore, loader: WorldLoader) -> None:
    """A sidecar refuses a service with one instance twice, so nobody may be able to cause that."""
    one = store.ensure_workload(workload_spec(version="v1"), NOW)
    two = store.ensure_workload(workload_spec(version="v2"), NOW)
    store.put_endpoint(endpoint_record(one.workload_id, "same"))
    store.put_endpoint(endpoint_record(two.workload_id, "same", "10.0.0.8:15008"))
    assert len(compiled(loader, one, "orders.shop").services["orders.shop"].endpoints) == 2


def test_without_a_mesh_config_the_answer_is_no(store: SqliteStore, loader: WorldLoader) -> None:
    """And the lifetime is the configuration's."""
    orders = store.ensure_workload(workload_spec(), NOW)
    snapshot = compiled(loader, orders)
    assert (snapshot.default_action, snapshot.certificate_lifetime_s) == (Action.DENY, 600)
    store.apply_resources([resource_record(key=MESH, yaml=mesh_yaml(defaultAction="ALLOW", certificateLifetime="2s"))])
    snapshot = compiled(loader, orders)
    assert (snapshot.default_action, snapshot.certificate_lifetime_s) == (Action.ALLOW, 2)


def test_the_digest_changes_with_the_content_only(store: SqliteStore, loader: WorldLoader) -> None:
    """What does not concern the workload leaves it alone, whatever the order of things."""
    orders = store.ensure_workload(workload_spec(b="2", a="1"), NOW)
    first = digest(loader, orders, "x.shop", "y.shop")
    assert digest(loader, orders, "y.shop", "x.shop") == first
    store.apply_resources([resource_record("billing")])
    billing = store.ensure_workload(workload_spec("billing"), NOW)
    store.put_endpoint(endpoint_record(billing.workload_id))
    store.next_revision()
    assert digest(loader, orders, "x.shop", "y.shop") == first
    other = Workload(workload_id=orders.workload_id, spec=workload_spec(a="1", b="2"), joined_at=0.0)
    assert digest(loader, other, "x.shop", "y.shop") == first
    store.apply_resources([resource_record()])
    assert digest(loader, orders, "x.shop", "y.shop") != first


def test_the_world_is_loaded_once_a_revision(store: SqliteStore, loader: WorldLoader) -> None:
    """And follows every change: a policy changed, and deleted."""
    orders = store.ensure_workload(workload_spec(), NOW)
    store.apply_resources([resource_record()])
    assert loader.load() is loader.load()
    store.apply_resources([resource_record(yaml=policy_yaml(action="DENY"))])
    assert compiled(loader, orders).policies[0].action is Action.DENY
    store.delete_resource(resource_record().key, at=NOW, by="local operator")
    assert compiled(loader, orders).policies == ()
    epoch = loader.load().epoch
    store.new_epoch()
    assert loader.load().epoch > epoch


def test_a_stored_policy_that_no_longer_parses_stops_everything(store: SqliteStore, loader: WorldLoader) -> None:
    """Leaving it out could let somebody in; so no snapshot is made, and the last good ones stay."""
    store.ensure_workload(workload_spec(), NOW)
    store.apply_resources([replace(resource_record(), yaml="kind: Future\n")])
    with pytest.raises(ControlPlaneError, match="AuthorizationPolicy shop/orders: is stored but no longer valid"):
        loader.load()


def test_rules_know_their_line_after_the_store_too(store: SqliteStore, loader: WorldLoader) -> None:
    """The document was stored alone; its place in the operator's file was line 100."""
    orders = store.ensure_workload(workload_spec(), NOW)
    store.apply_resources([resource_record("orders", source="a.yaml:100")])
    (policy,) = compiled(loader, orders).policies
    alone = policy_yaml("orders").splitlines()
    lines = [number for number, text in enumerate(alone, 1) if text.lstrip().startswith("- ")]
    assert policy.rules[0].line == 100 + lines[0] - 1
