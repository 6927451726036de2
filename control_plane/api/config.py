"""Apply, Get, List, Delete, Explain: what an operator manages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.api.authz import Caller
from control_plane.audit import AuditLog
from control_plane.errors import FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted
from control_plane.model import Change, ResourceKey, ResourceRecord, Workload
from control_plane.policy.explain import explain
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicyErrors
from control_plane.policy.parse import DEFAULT_NAMESPACE, MESH_KIND, POLICY_KIND, parse_documents
from control_plane.push.hub import Hub, Propagation
from control_plane.push.snapshot import WorldLoader, compile_content
from control_plane.registry import Registry
from control_plane.store.base import Store, what_changes
from protos.hauberk.v1 import config_pb2 as pb
from sidecar.rules.authz import Facts
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.errors import RoutingError
from sidecar.rules.explain import Explanation
from sidecar.rules.routing import ServiceName, pick_port, resolve

WAIT_S_DEFAULT = 10.0
WAIT_S_MAX = 300.0
FILES_MAX = 1_000
_KINDS = (POLICY_KIND, MESH_KIND)


class ConfigApi:
    """Handlers of hauberk.v1.Config."""

    def __init__(
        self,
        *,
        store: Store,
        audit: AuditLog,
        registry: Registry,
        hub: Hub,
        loader: WorldLoader,
        trust_domain: TrustDomain,
        file_octets_max: int,
        resources_max: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._audit = audit
        self._registry = registry
        self._hub = hub
        self._loader = loader
        self._trust_domain = trust_domain
        self._file_octets_max = file_octets_max
        self._resources_max = resources_max
        self._now = now

    async def apply(self, caller: Caller, request: pb.ApplyRequest) -> pb.ApplyResponse:
        parsed = await self._parse(request.files)
        records = [self._record(one, caller) for one in parsed]
        if request.dry_run:
            changes: Sequence[Change] = [
                Change(key=one.key, what=what_changes(self._store.resource(one.key), one)) for one in records
            ]
            return pb.ApplyResponse(
                version=self._store.revision, changes=map(_change, changes), warnings=_warnings(parsed)
            )
        changes = self._store_all(parsed, records, caller)
        version = self._store.revision
        self._hub.notify()
        response = pb.ApplyResponse(version=version, changes=map(_change, changes), warnings=_warnings(parsed))
        if request.wait:
            response.propagation.CopyFrom(await self._propagation(version, request.wait_timeout_s))
        return response

    async def get(self, _caller: Caller, request: pb.GetRequest) -> pb.GetResponse:
        key = _key(request.kind, request.namespace, request.name)
        record = self._store.resource(key)
        if record is None:
            raise NotFound(f"there is no {key}; list what there is with: hauberk get {key.kind}")
        return pb.GetResponse(resource=resource_message(record))

    async def list_all(self, _caller: Caller, request: pb.ListRequest) -> pb.ListResponse:
        if request.kind:
            _check_kind(request.kind)
        records = self._store.resources(request.kind, request.namespace)
        return pb.ListResponse(resources=map(resource_message, records))

    async def delete(self, caller: Caller, request: pb.DeleteRequest) -> pb.DeleteResponse:
        key = _key(request.kind, request.namespace, request.name)
        with self._store.transaction():
            if not self._store.delete_resource(key):
                raise NotFound(f"there is no {key}, so nothing was deleted")
            self._audit.append("resource.deleted", at=self._now(), by=caller.name, resource=str(key))
        version = self._store.revision
        self._hub.notify()
        response = pb.DeleteResponse(version=version)
        if request.wait:
            response.propagation.CopyFrom(await self._propagation(version, request.wait_timeout_s))
        return response

    async def explain(self, _caller: Caller, request: pb.ExplainRequest) -> pb.ExplainResponse:
        principal = self._principal(request.from_identity)
        name, workload = self._target(request.to_service)
        world = self._loader.load()
        message = compile_content(world, workload, ()).message
        message.epoch, message.version = world.epoch, world.revision
        snapshot = snapshot_from_proto(message)  # as the sidecar does: what it would refuse cannot be explained either
        facts = Facts(
            principal=principal,
            host=(request.host or str(name)).lower(),
            port=self._port(name, request.port),
            method=request.method or "GET",
            path=request.path or "/",
        )
        return _explained(explain(snapshot, facts), principal, workload)

    # --- apply, in parts ---------------------------------------------------------------------------------------------

    async def _parse(self, files: Sequence[pb.SourceFile]) -> list[ParsedResource]:
        """All documents of all files, or every problem of every file. Raises InvalidRequest."""
        if not 1 <= len(files) <= FILES_MAX:
            raise InvalidRequest(f"give 1 to {FILES_MAX} files")
        parsed: list[ParsedResource] = []
        problems: list[str] = []
        for file in files:
            if len(file.text.encode()) > self._file_octets_max:
                problems.append(f"{file.name}:0:0: is larger than {self._file_octets_max} octets; split it")
                continue
            try:
                # A thread, because a large file takes seconds: sidecars must be heard meanwhile.
                parsed += await asyncio.to_thread(parse_documents, file.text, file.name)
            except PolicyErrors as error:
                problems += map(str, error.problems)
        problems += self._faults(parsed)
        if problems:
            raise InvalidRequest("\n".join(problems))
        return parsed

    def _faults(self, parsed: Iterable[ParsedResource]) -> list[str]:
        """What no document shows alone."""
        faults: list[str] = []
        first: dict[tuple[str, str, str], str] = {}
        for one in parsed:
            if one.key in first:
                faults.append(f"{one.source}:1: metadata.name: {_named(one)} is there twice, first at {first[one.key]}")
            first.setdefault(one.key, one.source)
            if isinstance(one.spec, MeshConfigSpec) and one.spec.trust_domain not in (None, self._trust_domain.name):
                faults.append(
                    f"{one.source}:1: spec.trustDomain: is {one.spec.trust_domain}, but this mesh is"
                    f" {self._trust_domain.name}; a running mesh cannot change its trust domain, leave the field out"
                )
        return faults

    def _record(self, parsed: ParsedResource, caller: Caller) -> ResourceRecord:
        return ResourceRecord(
            key=ResourceKey(kind=parsed.kind, namespace=parsed.namespace, name=parsed.name),
            yaml=parsed.yaml,
            source=parsed.source,
            version=0,
            applied_at=self._now(),
            applied_by=caller.name,
        )

    def _store_all(
        self, parsed: Sequence[ParsedResource], records: Sequence[ResourceRecord], caller: Caller
    ) -> Sequence[Change]:
        with self._store.transaction():
            changes = self._store.apply_resources(records)
            if len(self._store.resources()) > self._resources_max:
                raise ResourceExhausted(
                    f"the mesh would hold more than {self._resources_max} resources; nothing was stored"
                )
            made = [f"{one.what} {one.key}" for one in changes if one.what != "unchanged"]
            if made:
                self._audit.append("resources.applied", at=self._now(), by=caller.name, changes=made)
        for change, one in zip(changes, parsed, strict=True):
            if change.what != "unchanged":
                self._loader.remember(change.key, self._store.revision, one.spec)
        return changes

    async def _propagation(self, version: int, timeout_s: float) -> pb.Propagation:
        timeout_s = timeout_s if timeout_s > 0 else WAIT_S_DEFAULT
        report = await self._hub.wait_acknowledged(
            version, min(timeout_s, WAIT_S_MAX), lambda key: key in self._registry
        )
        return _propagation(report)

    # --- explain, in parts -------------------------------------------------------------------------------------------

    def _principal(self, text: str) -> SpiffeId:
        try:
            if text.startswith("spiffe://"):
                return SpiffeId.parse(text)
            namespace, slash, service_account = text.partition("/")
            if not slash:
                raise InvalidRequest(f'from: {text[:80]!r} has no namespace; write "namespace/service-account"')
            return SpiffeId.for_workload(self._trust_domain, namespace, service_account)
        except CertsError as error:
            raise InvalidRequest(
                f'from: {error}; write "namespace/service-account" or a SPIFFE ID such as'
                f" spiffe://{self._trust_domain}/ns/shop/sa/web"
            ) from error

    def _target(self, text: str) -> tuple[ServiceName, Workload]:
        try:
            name = resolve(text.lower(), None, DEFAULT_NAMESPACE)
        except RoutingError as error:
            raise InvalidRequest(f"to: {error}") from error
        for workload in self._store.workloads():
            if workload.service_name == str(name):
                return name, workload
        raise NotFound(
            f"nobody ever joined as {name}; see who did with: hauberk status (a name without a namespace is in"
            f' "{DEFAULT_NAMESPACE}")'
        )

    def _port(self, name: ServiceName, port: int) -> int:
        """As a caller's sidecar would pick it, if a sidecar of the service told its ports."""
        if port > 65_535:
            raise InvalidRequest(f"port: {port} is no port")
        if port:
            return port
        ports = {
            number
            for one in self._registry
            if one.endpoint and one.workload.service_name == str(name)
            for number in one.endpoint.ports
        }
        if not ports:
            raise FailedPrecondition(
                f"no sidecar of {name} is connected, so its ports are not known; name one with --port"
            )
        try:
            return pick_port(ports, None)
        except RoutingError as error:
            raise FailedPrecondition(f"port: {error}") from error


def _check_kind(kind: str) -> None:
    if kind not in _KINDS:
        raise InvalidRequest(f"kind: {kind[:80]!r} is not known; known are {', '.join(_KINDS)}")


def _key(kind: str, namespace: str, name: str) -> ResourceKey:
    _check_kind(kind)
    namespace = "" if kind == MESH_KIND else namespace or DEFAULT_NAMESPACE
    return ResourceKey(kind=kind, namespace=namespace, name=name)


def _warnings(parsed: Iterable[ParsedResource]) -> list[str]:
    """What is legal and probably not meant, with its place."""
    return [f"{one.source}: {warning}" for one in parsed for warning in one.warnings]


def _named(resource: ParsedResource) -> str:
    return f"{resource.kind} {'/'.join(filter(None, (resource.namespace, resource.name)))}"


def _change(change: Change) -> pb.Change:
    key = change.key
    return pb.Change(kind=key.kind, namespace=key.namespace, name=key.name, what=change.what)


def resource_message(record: ResourceRecord) -> pb.Resource:
    return pb.Resource(
        kind=record.key.kind,
        namespace=record.key.namespace,
        name=record.key.name,
        yaml=record.yaml,
        source=record.source,
        version=record.version,
        applied_at=record.applied_at,
        applied_by=record.applied_by,
    )


def _propagation(report: Propagation) -> pb.Propagation:
    return pb.Propagation(
        acknowledged=report.acknowledged,
        pending=report.pending,
        rejected=[pb.Rejection(workload=who, reason=why) for who, why in report.rejected],
    )


def _explained(explanation: Explanation, principal: SpiffeId, workload: Workload) -> pb.ExplainResponse:
    return pb.ExplainResponse(
        allowed=explanation.allowed,
        rule=explanation.rule,
        reason=explanation.reason,
        source=explanation.source,
        version=explanation.version,
        from_identity=str(principal),
        to_identity=str(workload.spiffe_id),
        near_misses=[
            pb.NearMiss(
                rule=miss.rule,
                source=miss.source,
                conditions=[
                    pb.Condition(field=one.field, wanted=one.wanted, got=one.got, matched=one.matched)
                    for one in miss.conditions
                ],
            )
            for miss in explanation.near_misses
        ],
    )
