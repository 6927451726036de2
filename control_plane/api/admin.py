"""CreateToken, ListTokens and Status: who may join, who is there, and is all well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from certs.spiffe_id import TrustDomain
from control_plane import tokens
from control_plane.api.authz import Caller
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.errors import FailedPrecondition
from control_plane.model import IssuedRecord, Node, RevokedKind
from control_plane.push.hub import Hub
from control_plane.push.session import Session
from control_plane.push.snapshot import WorldLoader
from control_plane.registry import Instance, Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import admin_pb2 as pb

TOKENS_MAX = 5_000
"""In one answer, which gRPC bounds at 4 MiB."""

_NO_ROOT = (
    "no sidecar can join yet: this mesh waits for its offline root; have it sign what `hauberk ca prepare intermediate"
    " --csr FILE` writes, then `hauberk ca install FILE` with the signed certificate and the root's behind it"
    " (`hauberk ca status` shows how far that is)"
)


class AdminApi:
    """Handlers of hauberk.v1.Admin."""

    def __init__(
        self,
        *,
        store: Store,
        authority: CertificateAuthority,
        audit: AuditLog,
        registry: Registry,
        hub: Hub,
        loader: WorldLoader,
        trust_domain: TrustDomain,
        join_port: Callable[[], int],
        release: str,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._authority = authority
        self._audit = audit
        self._registry = registry
        self._hub = hub
        self._loader = loader
        self._trust_domain = trust_domain
        self._join_port = join_port
        self._release = release
        self._now = now

    async def create_token(self, caller: Caller, request: pb.CreateTokenRequest) -> pb.CreateTokenResponse:
        """Raises InvalidRequest; FailedPrecondition: there is no root yet whose pin the token could carry."""
        now = self._now()
        spec = tokens.workload_spec(
            self._trust_domain,
            service=request.service,
            namespace=request.namespace,
            service_account=request.service_account,
            labels=request.labels,
        )
        if not self._authority.has_root:
            raise FailedPrecondition(_NO_ROOT)
        with self._store.transaction():
            made = tokens.create(
                self._store,
                spec,
                ttl_s=request.ttl_s,
                created_by=caller.name,
                now=now,
                pin=self._authority.pin,
                join_port=self._join_port(),
            )
            token = made.record
            self._audit.append(
                "token.created",
                at=now,
                by=caller.name,
                token_id=token.token_id,
                spiffe_id=str(spec.spiffe_id),
                service=spec.service,
                namespace=spec.namespace,
                service_account=spec.service_account,
                labels=[f"{key}={value}" for key, value in sorted(spec.labels.items())],
                expires_at=token.expires_at,
            )
        return pb.CreateTokenResponse(
            token=made.text, token_id=token.token_id, spiffe_id=str(spec.spiffe_id), expires_at=token.expires_at
        )

    async def list_tokens(self, _caller: Caller, _request: pb.ListTokensRequest) -> pb.ListTokensResponse:
        """Oldest first; of very many the newest."""
        held = self._store.tokens()
        nodes: defaultdict[str, list[str]] = defaultdict(list)
        for node in self._store.nodes():
            nodes[node.token_id].append(node.node_id)
        revoked = {one.value for one in self._store.revocations() if one.kind is RevokedKind.TOKEN}
        return pb.ListTokensResponse(
            tokens=[
                pb.JoinToken(
                    token_id=one.token_id,
                    spiffe_id=str(one.spec.spiffe_id),
                    service=one.spec.service,
                    namespace=one.spec.namespace,
                    service_account=one.spec.service_account,
                    labels=dict(one.spec.labels),
                    created_at=one.created_at,
                    created_by=one.created_by,
                    expires_at=one.expires_at,
                    used_at=one.consumed_at or 0.0,
                    node_ids=nodes.get(one.token_id, ()),
                    revoked=one.token_id in revoked,
                )
                for one in held[-TOKENS_MAX:]
            ],
            left_off=max(0, len(held) - TOKENS_MAX),
            server_time=self._now(),
        )

    async def status(self, _caller: Caller, _request: pb.StatusRequest) -> pb.StatusResponse:
        world = self._loader.load()
        sessions = {session.key: session for session in self._hub}
        instances = list(self._registry)
        present = {one.workload.workload_id for one in instances}
        workloads: list[pb.WorkloadStatus] = [
            _instance_status(one, sessions.get(one.key), self._held(one)) for one in instances
        ]
        told = {one.node_id for one in workloads}
        by_id = {one.workload_id: one for one in world.workloads}
        workloads += [  # what is not there, and what somebody should look at all the same
            _instance_status(Instance(workload=by_id[one.workload_id], name=""), None, _Held(node=one))
            for one in self._store.nodes()
            if one.alarm and one.node_id not in told
        ]
        present |= {one.workload_id for one in self._store.nodes() if one.alarm}
        workloads += [
            _instance_status(Instance(workload=one, name=""), None, _Held())
            for one in world.workloads
            if one.workload_id not in present
        ]
        workloads.sort(key=lambda one: (one.namespace, one.service, one.spiffe_id, one.instance))
        return pb.StatusResponse(
            trust_domain=self._trust_domain.name,
            epoch=world.epoch,
            version=world.revision,
            default_action=world.mesh.default_action.value,
            server_time=self._now(),
            anchor_sha256=self._authority.pin.hex() if self._authority.has_root else "",
            anchor_not_after=self._authority.anchor_not_after,
            workloads=workloads,
            control_plane_version=self._release,
        )

    def _held(self, instance: Instance) -> _Held:
        """By the serial number it told, if that is one of its workload's."""
        certificate = self._store.certificate(instance.certificate_serial) if instance.certificate_serial else None
        if certificate is None or certificate.workload_id != instance.workload.workload_id:
            return _Held()
        return _Held(certificate=certificate, node=self._store.node(certificate.node_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What an instance has, as far as the store knows."""

    certificate: IssuedRecord | None = None
    node: Node | None = None


def _instance_status(instance: Instance, session: Session | None, held: _Held) -> pb.WorkloadStatus:
    spec = instance.workload.spec
    endpoint = instance.endpoint
    ports = sorted(endpoint.ports.items()) if endpoint else []
    return pb.WorkloadStatus(
        spiffe_id=str(spec.spiffe_id),
        service=spec.service,
        namespace=spec.namespace,
        instance=instance.name,
        connected=instance.is_connected,
        address=endpoint.address if endpoint else "",
        ports=", ".join(f"{port}/{kind.value}" for port, kind in ports),
        acknowledged_version=session.acknowledged_version if session else 0,
        pushed_version=session.sent_version if session else 0,
        rejected_reason=session.rejected_reason if session else "",
        certificate_not_after=instance.certificate_not_after,
        clock_skew_s=instance.clock_skew_s,
        connected_since=instance.connected_since,
        sidecar_version=instance.sidecar_version,
        last_seen=instance.last_seen,
        labels=dict(spec.labels),
        node_id=held.node.node_id if held.node else "",
        alarm=held.node.alarm if held.node else "",
        certificate_not_before=held.certificate.not_before if held.certificate else 0.0,
        certificate_serial=f"{instance.certificate_serial:x}" if instance.certificate_serial else "",
    )
