"""Apply, Get, List, Delete: what an operator manages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from certs.spiffe_id import TrustDomain
from control_plane.api.authz import Caller
from control_plane.api.changes import ResourceChanges, change_message
from control_plane.audit import AuditLog
from control_plane.errors import InvalidRequest, NotFound, ResourceExhausted
from control_plane.model import Change, ResourceKey, ResourceRecord
from control_plane.policy.across import key_of
from control_plane.policy.check import told_once
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicyErrors
from control_plane.policy.parse import DEFAULT_NAMESPACE, KINDS, MESH_KIND, parse_documents
from control_plane.push.hub import Hub
from control_plane.push.snapshot import WorldLoader
from control_plane.store.base import Store, what_changes
from protos.hauberk.v1 import config_pb2 as pb

FILES_MAX = 1_000


class ConfigApi:
    """Handlers of hauberk.v1.Config."""

    def __init__(
        self,
        *,
        store: Store,
        audit: AuditLog,
        changes: ResourceChanges,
        hub: Hub,
        loader: WorldLoader,
        trust_domain: TrustDomain,
        file_octets_max: int,
        resources_max: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._audit = audit
        self._changes = changes
        self._hub = hub
        self._loader = loader
        self._trust_domain = trust_domain
        self._file_octets_max = file_octets_max
        self._resources_max = resources_max
        self._now = now
        self._read: dict[tuple[str, str], list[ParsedResource]] = {}
        """The files of the last apply, by name and text: what a dry run read need not be read again to be applied."""

    async def apply(self, caller: Caller, request: pb.ApplyRequest) -> pb.ApplyResponse:
        parsed = await self._parse(request.files)
        if not parsed:
            raise InvalidRequest("no document was sent, so nothing was applied; look at what wrote the files")
        async with self._changes.one_at_a_time:
            self._changes.check_base(request.base_version)
            together = self._loader.together(parsed)
            if faults := await asyncio.to_thread(together.faults):
                raise InvalidRequest("\n".join(faults))
            warnings = _warnings(parsed) + await asyncio.to_thread(together.warnings, self._now())
            response = pb.ApplyResponse(warnings=warnings)
            if not request.skip_impact:
                response.impact.CopyFrom(await self._changes.impact(self._loader.imagined(together.specs)))
            records = [self._record(one, caller) for one in parsed]
            if request.dry_run:
                changes: Sequence[Change] = [
                    Change(key=one.key, what=what_changes(self._store.resource(one.key), one)) for one in records
                ]
            else:
                changes = self._store_all(parsed, records, caller)
            response.version = self._store.revision
        response.changes.extend(map(change_message, changes))
        if not request.dry_run:
            self._hub.notify()
            if request.wait:
                propagation = await self._changes.propagation(response.version, request.wait_timeout_s)
                response.propagation.CopyFrom(propagation)
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
        async with self._changes.one_at_a_time:
            self._changes.check_base(request.base_version)
            if self._store.resource(key) is None:
                raise NotFound(
                    f"there is no {key}, so nothing was deleted; list what there is with: hauberk get {key.kind}"
                )
            response = pb.DeleteResponse()
            if not request.skip_impact:
                gone = (key.kind, key.namespace, key.name)
                rest = [one for one in self._loader.load().specs if key_of(one) != gone]
                response.impact.CopyFrom(await self._changes.impact(self._loader.imagined(rest)))
            if not request.dry_run:
                at = self._now()
                with self._store.transaction():
                    self._store.delete_resource(key, at=at, by=caller.name)
                    self._audit.append("resource.deleted", at=at, by=caller.name, resource=str(key))
            response.version = self._store.revision
        if not request.dry_run:
            self._hub.notify()
            if request.wait:
                propagation = await self._changes.propagation(response.version, request.wait_timeout_s)
                response.propagation.CopyFrom(propagation)
        return response

    # --- apply, in parts ---------------------------------------------------------------------------------------------

    async def _parse(self, files: Sequence[pb.SourceFile]) -> list[ParsedResource]:
        """All documents of all files, or every problem of every file. Raises InvalidRequest."""
        if not 1 <= len(files) <= FILES_MAX:
            raise InvalidRequest(f"give 1 to {FILES_MAX} files")
        parsed: list[ParsedResource] = []
        problems: list[str] = []
        read: dict[tuple[str, str], list[ParsedResource]] = {}
        for file in files:
            if len(file.text.encode()) > self._file_octets_max:
                problems.append(f"{file.name}:0:0: is larger than {self._file_octets_max} octets; split it")
                continue
            try:
                resources = self._read.get((file.name, file.text))
                if resources is None:
                    # A thread, because a large file takes seconds: sidecars must be heard meanwhile.
                    resources = await asyncio.to_thread(parse_documents, file.text, file.name)
            except PolicyErrors as error:
                problems += map(str, error.problems)
                continue
            read[file.name, file.text] = resources
            parsed += resources
        self._read = read
        problems += mesh_faults(parsed, self._trust_domain)
        if problems:
            raise InvalidRequest("\n".join(problems))
        return parsed

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


def mesh_faults(parsed: Iterable[ParsedResource], trust_domain: TrustDomain) -> list[str]:
    """What no document shows alone."""
    faults: list[str] = []
    first: dict[tuple[str, str, str], str] = {}
    for one in parsed:
        if one.key in first:
            faults.append(f"{one.source}:1: metadata.name: {_named(one)} is there twice, first at {first[one.key]}")
        first.setdefault(one.key, one.source)
        if isinstance(one.spec, MeshConfigSpec) and one.spec.trust_domain not in (None, trust_domain.name):
            faults.append(
                f"{one.source}:1: spec.trustDomain: is {one.spec.trust_domain}, but this mesh is"
                f" {trust_domain.name}; a running mesh cannot change its trust domain, leave the field out"
            )
    return faults


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InvalidRequest(f"kind: {kind[:80]!r} is not known; known are {', '.join(KINDS)}")


def _key(kind: str, namespace: str, name: str) -> ResourceKey:
    _check_kind(kind)
    namespace = "" if kind == MESH_KIND else namespace or DEFAULT_NAMESPACE
    return ResourceKey(kind=kind, namespace=namespace, name=name)


def _warnings(parsed: Iterable[ParsedResource]) -> list[str]:
    """What is legal and probably not meant, or means more in Istio, with its places."""
    return told_once((one.source, sentence) for one in parsed for sentence in (*one.warnings, *one.notes))


def _named(resource: ParsedResource) -> str:
    return f"{resource.kind} {'/'.join(filter(None, (resource.namespace, resource.name)))}"


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
