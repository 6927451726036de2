"""The world as the store has it at one revision, and the one snapshot a workload needs of it.

A workload gets the policies that select it, the endpoints of the services it subscribed to, and what holds for the
whole mesh. Nothing else: what it does not need it is not told (security.md G18).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from certs.revocation import Revocations
from certs.spiffe_id import TrustDomain
from control_plane.errors import ControlPlaneError
from control_plane.model import ResourceKey, ResourceRecord, Workload
from control_plane.policy.across import Served, Together
from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PeerAuthenticationSpec,
    PolicyErrors,
    PolicySpec,
    RequestAuthenticationSpec,
    Spec,
)
from control_plane.policy.parse import parse_documents
from control_plane.push import encode
from control_plane.push.selected import Selected
from control_plane.push.session import Content
from control_plane.push.trust import Trust
from control_plane.store.base import Store
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.snapshot import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything snapshots are made from, at one revision."""

    epoch: int
    revision: int
    trust_domain: TrustDomain
    trust: Trust
    mesh: MeshConfigSpec
    specs: tuple[Spec, ...]
    """Of all resources, MeshConfig included."""
    selected: Selected = field(repr=False)
    workloads: tuple[Workload, ...]
    services: Mapping[str, tuple[pb.Endpoint, ...]]
    """Of every service anybody ever joined as, by "name.namespace"."""


class WorldLoader:
    """Loads the world, once a revision; parses a resource once a version."""

    def __init__(
        self,
        store: Store,
        trust_domain: TrustDomain,
        trust: Callable[[], Trust],
        *,
        certificate_lifetime_s: int,
    ) -> None:
        self._store = store
        self._trust_domain = trust_domain
        self._trust = trust
        self._mesh_default = MeshConfigSpec(certificate_lifetime_s=certificate_lifetime_s)
        self._world: World | None = None
        self._parsed: dict[ResourceKey, tuple[int, Spec]] = {}

    def load(self) -> World:
        """Raises ControlPlaneError if a stored resource no longer parses: then no snapshot can be made, and everybody
        keeps the last good one."""
        held = self._world
        trust = self._trust()
        now_at = (self._store.epoch, self._store.revision)
        if held is None or (held.epoch, held.revision) != now_at or held.trust != trust:
            held = self._world = self._read(*now_at, trust)
        return held

    def as_of(self, version: int) -> World | None:
        """The world with the resources of a revision gone by; who there is is as now. None: not known any more.

        Raises ControlPlaneError if what was valid then no longer parses."""
        world = self.load()
        if version == world.revision:
            return world
        records = self._store.resources_at(version)
        if records is None:
            return None
        return self._world_of([_parse(one) for one in records], world.epoch, version, world.trust)

    def advanced(self, revision: int) -> World:
        """The world just loaded, under a newer revision that changed nothing."""
        assert self._world is not None
        self._world = replace(self._world, revision=revision)
        return self._world

    def imagined(self, specs: Sequence[Spec]) -> World:
        """The world as it would be with these resources and no others. Raises ControlPlaneError as `load` does."""
        world = self.load()
        return self._world_of(specs, world.epoch, world.revision, world.trust)

    def together(self, applied: Sequence[ParsedResource], beside: Sequence[Spec] | None = None) -> Together:
        """All resources as they would be with these, `beside` those (None: those there are). Raises ControlPlaneError
        as `load` does."""
        world = self.load()
        served = [Served(member=one.spec, ports=_ports(world, one)) for one in world.workloads]
        return Together(applied, world.specs if beside is None else beside, default=self._mesh_default, served=served)

    def remember(self, key: ResourceKey, version: int, spec: Spec) -> None:
        """Saves parsing what was parsed just now to validate it."""
        self._parsed[key] = (version, spec)

    def _read(self, epoch: int, revision: int, trust: Trust) -> World:
        return self._world_of(self._specs(self._store.resources()), epoch, revision, trust)

    def _world_of(self, given: Sequence[Spec], epoch: int, revision: int, trust: Trust) -> World:
        specs = tuple(given)
        workloads = tuple(self._store.workloads())
        mesh = next((one for one in specs if isinstance(one, MeshConfigSpec)), self._mesh_default)
        return World(
            epoch=epoch,
            revision=revision,
            trust_domain=self._trust_domain,
            trust=trust,
            mesh=mesh,
            specs=specs,
            selected=Selected(specs, mesh, self._trust_domain, None if self._world is None else self._world.selected),
            workloads=workloads,
            services=self._services(workloads, trust.revocations),
        )

    def _specs(self, records: Iterable[ResourceRecord]) -> list[Spec]:
        parsed: dict[ResourceKey, tuple[int, Spec]] = {}
        for record in records:
            held = self._parsed.get(record.key)
            if held is None or held[0] != record.version:
                held = (record.version, _parse(record))
            parsed[record.key] = held
        self._parsed = parsed  # what was deleted is forgotten
        return [spec for _, spec in parsed.values()]

    def _services(self, workloads: Sequence[Workload], revoked: Revocations) -> Mapping[str, tuple[pb.Endpoint, ...]]:
        by_id = {one.workload_id: one for one in workloads}
        services: dict[str, list[pb.Endpoint]] = defaultdict(list)
        for workload in workloads:
            services[workload.service_name] = []
        for record in self._store.endpoints():
            workload = by_id[record.workload_id]
            if workload.spiffe_id in revoked.identities:
                continue  # nobody would talk to it
            services[workload.service_name].append(encode.endpoint(record, workload))
        return {name: tuple(endpoints) for name, endpoints in services.items()}


def _ports(world: World, workload: Workload) -> Mapping[int, Protocol]:
    """Of all endpoints of its service."""
    endpoints = world.services.get(workload.service_name, ())
    return {one.port: encode.PROTOCOL_OF[one.protocol] for endpoint in endpoints for one in endpoint.ports}


def _parse(record: ResourceRecord) -> Spec:
    try:
        (resource,) = parse_documents(record.yaml, record.source)
    except PolicyErrors as error:
        raise ControlPlaneError(f"{record.key}: is stored but no longer valid: {error}") from error
    return with_source(resource.spec, record.source)


def with_source(spec: Spec, source: str) -> Spec:
    """The document was parsed alone; messages must name the places it had in the operator's file."""
    match spec:
        case PolicySpec(policy=policy):
            shift = _line(source) - _line(policy.source) if _line(source) else 0
            rules = policy.rules
            if shift:
                rules = tuple(replace(one, line=max(one.line + shift, 0)) for one in rules)
            return replace(spec, policy=replace(policy, source=source, rules=rules))
        case PeerAuthenticationSpec():
            return replace(spec, source=source)
        case RequestAuthenticationSpec(authentication=authentication):
            return replace(spec, authentication=replace(authentication, source=source))
        case MeshConfigSpec():
            return spec


def _line(source: str) -> int:
    """Of "file:line"; 0 if it names none."""
    line = source.rpartition(":")[2]
    return int(line) if line.isascii() and line.isdigit() else 0


def compile_content(world: World, workload: Workload, subscriptions: Iterable[str]) -> Content:
    """The workload's snapshot, but for its epoch and version."""
    spec = workload.spec
    part = world.selected.part_for(spec)
    message = pb.Snapshot(
        trust_domain=world.trust_domain.name,
        workload=pb.Workload(
            spiffe_id=str(spec.spiffe_id), service=spec.service, namespace=spec.namespace, labels=dict(spec.labels)
        ),
        default_action=encode.DEFAULT_ACTIONS[world.mesh.default_action],
        services=[_service(world, name) for name in sorted(subscriptions)],
        trust_anchors_der=world.trust.anchors_der,
        revocations=encode.revocations(world.trust.revocations),
        jwt_keys=world.trust.jwt_keys,
        certificate_lifetime_s=world.mesh.certificate_lifetime_s,
    )
    # Deterministic means: map entries sorted. Equal snapshots give equal octets within one build of protobuf, which is
    # all a digest that never leaves this process needs.
    digest = hashlib.sha256(part.digest + message.SerializeToString(deterministic=True)).digest()
    return Content(own=message, shared=part.message, digest=digest)


def _service(world: World, full_name: str) -> pb.Service:
    name, _, namespace = full_name.partition(".")
    endpoints = world.services.get(full_name)
    return pb.Service(name=name, namespace=namespace, endpoints=endpoints or (), known=endpoints is not None)
