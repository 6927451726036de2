"""Snapshots as a control plane sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protos.hauberk.v1 import discovery_pb2 as pb
from tests.sidecar.mesh import ORDERS, WEB, Mesh


def snapshot(mesh: Mesh, version: int = 1, **replaced: Any) -> pb.Snapshot:
    """A legal one for WEB; fields may be replaced."""
    fields: dict[str, Any] = {
        "epoch": 1,
        "version": version,
        "trust_domain": mesh.trust_domain.name,
        "workload": workload(),
        "default_action": pb.DEFAULT_ACTION_DENY,
        "trust_anchors_der": [mesh.root.der],
        "certificate_lifetime_s": 3600,
    }
    return pb.Snapshot(**{**fields, **replaced})


def workload(**replaced: Any) -> pb.Workload:
    fields: Mapping[str, Any] = {"spiffe_id": str(WEB), "service": "web", "namespace": "shop", "labels": {"app": "web"}}
    return pb.Workload(**{**fields, **replaced})


def service(full_name: str, *, known: bool = True, endpoints: int = 1) -> pb.Service:
    name, _, namespace = full_name.partition(".")
    return pb.Service(
        name=name,
        namespace=namespace,
        known=known,
        endpoints=[
            pb.Endpoint(
                address=f"10.0.0.{number + 1}:15008",
                spiffe_id=str(ORDERS),
                instance=f"i{number}",
                ports=[pb.InboundPort(port=8080, protocol=pb.PROTOCOL_HTTP1)],
            )
            for number in range(endpoints if known else 0)
        ],
    )
