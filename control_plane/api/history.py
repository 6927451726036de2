"""History, Rollback, Inventory: what was in force when, going back to it, and who there is."""

from __future__ import annotations

from certs.spiffe_id import TrustDomain
from control_plane.api.authz import Caller
from control_plane.api.config import resource_message
from control_plane.errors import FailedPrecondition
from control_plane.registry import Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import config_pb2 as pb


class HistoryApi:
    """Handlers of hauberk.v1.Config, the part that looks back."""

    def __init__(self, *, store: Store, registry: Registry, trust_domain: TrustDomain) -> None:
        self._store = store
        self._registry = registry
        self._trust_domain = trust_domain

    async def history(self, _caller: Caller, _request: pb.HistoryRequest) -> pb.HistoryResponse:
        raise FailedPrecondition("this store keeps no history yet")

    async def rollback(self, _caller: Caller, _request: pb.RollbackRequest) -> pb.RollbackResponse:
        raise FailedPrecondition("this store keeps no history yet")

    async def inventory(self, _caller: Caller, _request: pb.InventoryRequest) -> pb.InventoryResponse:
        """All members, also those with no sidecar up; ports are those told by the sidecars that are."""
        ports: dict[int, set[int]] = {}
        for instance in self._registry:
            if instance.endpoint is not None:
                ports.setdefault(instance.workload.workload_id, set()).update(instance.endpoint.ports)
        members = [
            pb.Member(
                spiffe_id=str(one.spiffe_id),
                service=one.spec.service,
                namespace=one.spec.namespace,
                labels=dict(one.spec.labels),
                ports=sorted(ports.get(one.workload_id, ())),
            )
            for one in self._store.workloads()
        ]
        return pb.InventoryResponse(
            members=members,
            resources=map(resource_message, self._store.resources()),
            version=self._store.revision,
            trust_domain=self._trust_domain.name,
        )
