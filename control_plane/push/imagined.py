"""Called workloads whose snapshots would change, for `policy.impact`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from control_plane.model import Workload
from control_plane.policy.impact.compute import Target
from control_plane.push import encode
from control_plane.push.snapshot import World, compile_content
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.snapshot import Protocol, Snapshot


def targets(before: World, after: World) -> Iterator[Target]:
    """Those that what is said of policy differs for; the others cannot gain or lose anything."""
    for workload in before.workloads:
        key = tuple(
            (world.selected.part_for(workload.spec).digest, world.mesh.default_action) for world in (before, after)
        )
        if key[0] != key[1]:
            yield Target(
                service=workload.service_name,
                ports=_ports(before, workload),
                key=key,
                snapshots=_Snapshots(before, after, workload),
            )


class _Snapshots:
    """Made when they are asked for: most targets are like one that was looked at."""

    def __init__(self, before: World, after: World, workload: Workload) -> None:
        self._worlds = before, after
        self._workload = workload

    def __call__(self) -> tuple[Snapshot, Snapshot]:
        """As a sidecar reads them. Raises DecodeError for what sidecars would refuse."""
        before, after = (_snapshot(world, self._workload) for world in self._worlds)
        return before, after


def _snapshot(world: World, workload: Workload) -> Snapshot:
    message = compile_content(world, workload, ()).message
    message.epoch, message.version = world.epoch, world.revision
    return snapshot_from_proto(message)


def _ports(world: World, workload: Workload) -> Mapping[int, Protocol]:
    endpoints = world.services.get(workload.service_name, ())
    return {one.port: encode.PROTOCOL_OF[one.protocol] for endpoint in endpoints for one in endpoint.ports}
