"""Rows of the SQL stores to the nouns of `control_plane.model` and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from certs.spiffe_id import SpiffeId
from control_plane.model import (
    Authority,
    EndpointRecord,
    IssuedRecord,
    JoinTokenRecord,
    Level,
    Node,
    Phase,
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
CERTIFICATE_COLUMNS = (
    "serial, spiffe_id, workload_id, not_before, not_after, issued_at, node_id, issuer_id, root_id, token_id"
)
NODE_COLUMNS = "node_id, workload_id, token_id, public_key_der, joined_at, expires_at, confirmed_number, alarm"
AUTHORITY_COLUMNS = (
    "authority_id, level, phase, parent_id, public_key_der, certificate_der, sealed_key, not_before, not_after,"
    " prepared_at, activated_at, tainted_at, revoked_at, predecessor_id, succession"
)


def marks(columns: str) -> str:
    """One "?" a column."""
    return ", ".join("?" for _ in columns.split(","))


_identity = lru_cache(maxsize=4_096)(SpiffeId.parse)
"""The same few are read at every call."""


def labels_text(labels: Mapping[str, str]) -> str:
    """One text for one set of labels: it is part of a workload's key."""
    return json.dumps(dict(sorted(labels.items())), separators=(",", ":"), ensure_ascii=True)


def spec_row(spec: WorkloadSpec) -> Row:
    return (str(spec.spiffe_id), spec.service, spec.namespace, spec.service_account, labels_text(spec.labels))


def spec_from(row: Row) -> WorkloadSpec:
    spiffe_id, service, namespace, service_account, labels = row
    return WorkloadSpec(
        spiffe_id=_identity(spiffe_id),
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


def token_fields(token: JoinTokenRecord) -> Row:
    """What of it never changes."""
    times = float(token.created_at), float(token.expires_at)
    return (token.token_id, token.secret_sha256, *spec_row(token.spec), token.created_by, *times)


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


def certificate_row(record: IssuedRecord) -> Row:
    return (
        f"{record.serial:x}",
        str(record.spiffe_id),
        record.workload_id,
        record.not_before,
        record.not_after,
        record.issued_at,
        record.node_id,
        record.issuer_id,
        record.root_id,
        record.token_id,
    )


@lru_cache(maxsize=8_192)
def certificate_from(row: Row) -> IssuedRecord:
    """Its number first. The certificates of the whole mesh are listed again and again while a rotation waits."""
    number, serial, spiffe_id, workload_id, not_before, not_after, issued_at, *origin = row
    node_id, issuer_id, root_id, token_id = origin
    return IssuedRecord(
        number=number,
        serial=int(serial, 16),
        spiffe_id=_identity(spiffe_id),
        workload_id=workload_id,
        not_before=float(not_before),
        not_after=float(not_after),
        issued_at=float(issued_at),
        node_id=node_id,
        issuer_id=issuer_id,
        root_id=root_id,
        token_id=token_id,
    )


def node_row(node: Node) -> Row:
    return (
        node.node_id,
        node.workload_id,
        node.token_id,
        node.public_key_der,
        node.joined_at,
        node.expires_at,
        node.confirmed_number,
        node.alarm,
    )


def node_fields(node: Node, spec: Row) -> Row:
    """What of it never changes, and whom it stands for (`SPEC_COLUMNS` of its workload)."""
    return (node.node_id, node.workload_id, node.token_id, node.public_key_der, float(node.joined_at), *spec)


def node_from(row: Row) -> Node:
    node_id, workload_id, token_id, public_key_der, joined_at, expires_at, confirmed_number, alarm = row
    return Node(
        node_id=node_id,
        workload_id=workload_id,
        token_id=token_id,
        public_key_der=bytes(public_key_der),
        joined_at=float(joined_at),
        expires_at=float(expires_at),
        confirmed_number=confirmed_number,
        alarm=alarm,
    )


def authority_row(authority: Authority) -> Row:
    return (
        authority.authority_id,
        authority.level.value,
        authority.phase.value,
        authority.parent_id,
        authority.public_key_der,
        authority.certificate_der,
        authority.sealed_key,
        authority.not_before,
        authority.not_after,
        authority.prepared_at,
        authority.activated_at,
        authority.tainted_at,
        authority.revoked_at,
        authority.predecessor_id,
        authority.succession,
    )


def authority_from(row: Row) -> Authority:
    authority_id, level, phase, parent_id, public_key_der, certificate_der, sealed_key, *times = row
    not_before, not_after, prepared_at, activated_at, tainted_at, revoked_at, predecessor_id, succession = times
    return Authority(
        authority_id=authority_id,
        level=Level(level),
        phase=Phase(phase),
        parent_id=parent_id,
        public_key_der=bytes(public_key_der),
        certificate_der=bytes(certificate_der),
        sealed_key=bytes(sealed_key),
        not_before=float(not_before),
        not_after=float(not_after),
        prepared_at=float(prepared_at),
        activated_at=_at(activated_at),
        tainted_at=_at(tainted_at),
        revoked_at=_at(revoked_at),
        predecessor_id=predecessor_id,
        succession=bytes(succession),
    )


def _at(value: Any) -> float | None:
    return None if value is None else float(value)
