"""Endpoints and revocations as messages of `protos/hauberk/v1/discovery.proto`.

For policies see `policy.compile`; the way back is `sidecar.rules.decode`."""

from __future__ import annotations

from collections.abc import Mapping

from certs.revocation import Revocations
from control_plane.model import EndpointRecord, Workload
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.snapshot import Action, Protocol

DEFAULT_ACTIONS: Mapping[Action, pb.DefaultAction] = {
    Action.ALLOW: pb.DEFAULT_ACTION_ALLOW,
    Action.DENY: pb.DEFAULT_ACTION_DENY,
}
PROTOCOLS: Mapping[Protocol, pb.Protocol] = {
    Protocol.HTTP1: pb.PROTOCOL_HTTP1,
    Protocol.HTTP2: pb.PROTOCOL_HTTP2,
    Protocol.TCP: pb.PROTOCOL_TCP,
}
PROTOCOL_OF: Mapping[int, Protocol] = {number: protocol for protocol, number in PROTOCOLS.items()}


def endpoint(value: EndpointRecord, workload: Workload) -> pb.Endpoint:
    return pb.Endpoint(
        address=value.address,
        spiffe_id=str(workload.spiffe_id),
        instance=f"{value.workload_id}.{value.instance}",  # unique: instances name themselves only within a workload
        ports=[pb.InboundPort(port=port, protocol=PROTOCOLS[kind]) for port, kind in sorted(value.ports.items())],
    )


def revocations(value: Revocations) -> pb.Revocations:
    return pb.Revocations(
        identities=sorted(map(str, value.identities)),
        serials=[f"{serial:x}" for serial in sorted(value.serials)],
        authorities=sorted(value.authorities),
        tainted_authorities=sorted(value.tainted_authorities),
    )
