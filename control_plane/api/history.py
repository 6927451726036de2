"""History, Rollback, Inventory: what was in force when, going back to it, and who there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from certs.spiffe_id import TrustDomain
from control_plane.api.authz import Caller
from control_plane.api.changes import ResourceChanges, change_message
from control_plane.api.config import mesh_faults, resource_message
from control_plane.audit import AuditLog
from control_plane.errors import FailedPrecondition, InvalidRequest, NotFound
from control_plane.model import Change, HistoryEntry, ResourceKey, ResourceRecord
from control_plane.policy.across import key_of
from control_plane.policy.model import ParsedResource, PolicyErrors, Spec
from control_plane.policy.parse import parse_documents
from control_plane.push.hub import Hub
from control_plane.push.snapshot import WorldLoader, with_source
from control_plane.registry import Registry
from control_plane.store.base import Store, what_changes
from protos.hauberk.v1 import config_pb2 as pb

ENTRIES_DEFAULT = 50
ENTRIES_MAX = 1_000
"""In one answer."""


class HistoryApi:
    """Handlers of hauberk.v1.Config, the part that looks back."""

    def __init__(
        self,
        *,
        store: Store,
        audit: AuditLog,
        changes: ResourceChanges,
        registry: Registry,
        hub: Hub,
        loader: WorldLoader,
        trust_domain: TrustDomain,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._audit = audit
        self._changes = changes
        self._registry = registry
        self._hub = hub
        self._loader = loader
        self._trust_domain = trust_domain
        self._now = now

    async def history(self, _caller: Caller, request: pb.HistoryRequest) -> pb.HistoryResponse:
        """Entries, newest first; or the one in force at a version, with all its documents."""
        if not request.version:
            count_max = min(request.count_max or ENTRIES_DEFAULT, ENTRIES_MAX)
            return pb.HistoryResponse(entries=map(_entry, self._store.history(count_max, request.before)))
        records = self._known(request.version)
        entries = [_entry(one) for one in self._store.history(1, request.version + 1)]
        if not entries:  # before anything was applied
            entries = [pb.HistoryEntry(version=request.version)]
        entries[0].resources.extend(map(resource_message, records))
        return pb.HistoryResponse(entries=entries)

    async def rollback(self, caller: Caller, request: pb.RollbackRequest) -> pb.RollbackResponse:
        """All of it or nothing; what is no longer valid is not brought back."""
        async with self._changes.one_at_a_time:
            self._changes.check_base(request.base_version)
            records = self._known(request.to_version)
            parsed, rest = await self._understood(request.to_version, records)
            together = self._loader.together(parsed, rest)
            faults = mesh_faults(parsed, self._trust_domain) + await asyncio.to_thread(together.faults)
            if faults:
                raise self._invalid(request.to_version, faults)
            response = pb.RollbackResponse(warnings=together.warnings(self._now()))
            if not request.skip_impact:
                response.impact.CopyFrom(await self._changes.impact(self._loader.imagined(together.specs)))
            if request.dry_run:
                changes: Sequence[Change] = self._would_change(records)
            else:
                changes = self._restore(request.to_version, parsed, caller)
            response.version = self._store.revision
        response.changes.extend(map(change_message, changes))
        if not request.dry_run:
            self._hub.notify()
            if request.wait:
                propagation = await self._changes.propagation(response.version, request.wait_timeout_s)
                response.propagation.CopyFrom(propagation)
        return response

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

    # --- rollback, in parts -------------------------------------------------------------------------------------------

    def _known(self, version: int) -> Sequence[ResourceRecord]:
        """Raises NotFound, with what there is."""
        records = self._store.resources_at(version)
        if records is None:
            raise NotFound(
                f"what was in force at version {version} is not known; known are versions {self._store.history_floor}"
                f" to {self._store.revision}, see: hauberk policy history"
            )
        return records

    async def _understood(
        self, version: int, records: Sequence[ResourceRecord]
    ) -> tuple[list[ParsedResource], list[Spec]]:
        """What must be read anew, and what is in force as it was then. Raises FailedPrecondition."""
        in_force = {key_of(one): one for one in self._loader.load().specs}
        changed: list[ResourceRecord] = []
        rest: list[Spec] = []
        for record in records:
            key = (record.key.kind, record.key.namespace, record.key.name)
            if what_changes(self._store.resource(record.key), record) == "unchanged" and key in in_force:
                rest.append(in_force[key])
            else:
                changed.append(record)
        parsed, problems = await asyncio.to_thread(_parse_all, changed)
        if problems:
            raise self._invalid(version, problems)
        return parsed, rest

    @staticmethod
    def _invalid(version: int, problems: Sequence[str]) -> FailedPrecondition:
        return FailedPrecondition(
            f"version {version} cannot be brought back, for not all of it is valid under today's rules; nothing was"
            f" changed. See it with `hauberk policy history {version}`, mend it and apply it:\n" + "\n".join(problems)
        )

    def _would_change(self, records: Sequence[ResourceRecord]) -> list[Change]:
        changes = [Change(key=one.key, what=what_changes(self._store.resource(one.key), one)) for one in records]
        then = {one.key for one in records}
        gone = [one.key for one in self._store.resources() if one.key not in then]
        return [one for one in changes if one.what != "unchanged"] + [Change(key=key, what="deleted") for key in gone]

    def _restore(self, version: int, parsed: Sequence[ParsedResource], caller: Caller) -> Sequence[Change]:
        at = self._now()
        with self._store.transaction():
            changes = self._store.restore_resources(version, at=at, by=caller.name)
            if changes is None:
                raise InvalidRequest(f"version {version} is not known any more; nothing was changed")
            if changes:
                made = [f"{one.what} {one.key}" for one in changes]
                self._audit.append("resources.rolled_back", at=at, by=caller.name, to_version=version, changes=made)
        for one in parsed:
            key = ResourceKey(kind=one.kind, namespace=one.namespace, name=one.name)
            self._loader.remember(key, self._store.revision, one.spec)
        return changes


def _parse_all(records: Sequence[ResourceRecord]) -> tuple[list[ParsedResource], list[str]]:
    parsed: list[ParsedResource] = []
    problems: list[str] = []
    for record in records:
        try:
            (one,) = parse_documents(record.yaml, record.source)
        except PolicyErrors as error:
            problems += map(str, error.problems)
        else:
            parsed.append(replace(one, spec=with_source(one.spec, record.source), source=record.source))
    return parsed, problems


def _entry(entry: HistoryEntry) -> pb.HistoryEntry:
    return pb.HistoryEntry(
        version=entry.version,
        at=entry.at,
        by=entry.by,
        what=entry.what,
        changes=map(change_message, entry.changes),
    )
