"""Rows of the SQL stores to the nouns of `control_plane.model` and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from certs.spiffe_id import SpiffeId
from control_plane.model import (
    EndpointRecord,
    JoinTokenRecord,
    ResourceKey,
    ResourceRecord,
    Workload,
    WorkloadSpec,
)
from sidecar.rules.snapshot import Protocol

Row = tuple[Any, ...]
"""As a database driver gives it; each function here gives its columns their types."""

SPEC_COLUMNS = "spiffe_id, service, namespace, service_account, labels"
TOKEN_COLUMNS = f"token_id, secret_sha256, {SPEC_COLUMNS}, created_at, created_by, expires_at, consumed_at"
WORKLOAD_COLUMNS = f"workload_id, {SPEC_COLUMNS}, joined_at"
RESOURCE_COLUMNS = "kind, namespace, name, yaml, source, version, applied_at, applied_by"
ENDPOINT_COLUMNS = "workload_id, instance, address, ports"


def marks(columns: str) -> str:
    """One "?" a column."""
    return ", ".join("?" for _ in columns.split(","))


def labels_text(labels: Mapping[str, str]) -> str:
    """One text for one set of labels: it is part of a workload's key."""
    return json.dumps(dict(sorted(labels.items())), separators=(",", ":"), ensure_ascii=True)


def spec_row(spec: WorkloadSpec) -> Row:
    return (str(spec.spiffe_id), spec.service, spec.namespace, spec.service_account, labels_text(spec.labels))


def spec_from(row: Row) -> WorkloadSpec:
    spiffe_id, service, namespace, service_account, labels = row
    return WorkloadSpec(
        spiffe_id=SpiffeId.parse(spiffe_id),
        service=service,
        namespace=namespace,
        service_account=service_account,
        labels=json.loads(labels),
    )


def token_row(token: JoinTokenRecord) -> Row:
    return (
        token.token_id,
        token.secret_sha256,
        *spec_row(token.spec),
        token.created_at,
        token.created_by,
        token.expires_at,
        token.consumed_at,
    )


def token_from(row: Row) -> JoinTokenRecord:
    token_id, secret_sha256, *spec, created_at, created_by, expires_at, consumed_at = row
    return JoinTokenRecord(
        token_id=token_id,
        secret_sha256=bytes(secret_sha256),
        spec=spec_from(tuple(spec)),
        created_at=float(created_at),  # SQLite keeps a whole REAL as an integer, and RETURNING shows it as one
        created_by=created_by,
        expires_at=float(expires_at),
        consumed_at=None if consumed_at is None else float(consumed_at),
    )


def workload_from(row: Row) -> Workload:
    workload_id, *spec, joined_at = row
    return Workload(workload_id=workload_id, spec=spec_from(tuple(spec)), joined_at=joined_at)


def resource_row(record: ResourceRecord, version: int) -> Row:
    key = record.key
    return (
        key.kind,
        key.namespace,
        key.name,
        record.yaml,
        record.source,
        version,
        record.applied_at,
        record.applied_by,
    )


def resource_from(row: Row) -> ResourceRecord:
    kind, namespace, name, yaml, source, version, applied_at, applied_by = row
    return ResourceRecord(
        key=ResourceKey(kind=kind, namespace=namespace, name=name),
        yaml=yaml,
        source=source,
        version=version,
        applied_at=applied_at,
        applied_by=applied_by,
    )


def endpoint_row(endpoint: EndpointRecord) -> Row:
    ports = json.dumps({str(port): kind.value for port, kind in sorted(endpoint.ports.items())})
    return (endpoint.workload_id, endpoint.instance, endpoint.address, ports)


def endpoint_from(row: Row) -> EndpointRecord:
    workload_id, instance, address, ports = row
    return EndpointRecord(
        workload_id=workload_id,
        instance=instance,
        address=address,
        ports={int(port): Protocol(kind) for port, kind in json.loads(ports).items()},
    )
