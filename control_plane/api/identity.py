"""Join and Renew: who a workload is, and keeping it so.

The identity issued comes from the join token or from the caller's certificate, never from the request (security.md
G01). A certificate is recorded with its serial number, in the transaction that spends the token, before anybody sees
it: killed at any point, either the token is good and nobody has a certificate, or both are written down (J10).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from certs.csr import read_csr
from certs.errors import InvalidCsr
from control_plane import tokens
from control_plane.api.authz import Caller
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError, IdentityMismatch
from control_plane.ca.signer import IssuedSvid
from control_plane.errors import InvalidRequest, PermissionDenied, ResourceExhausted, Unavailable
from control_plane.limits import RateLimit
from control_plane.logs import fields
from control_plane.model import IssuedRecord, Workload, WorkloadSpec
from control_plane.store.base import Store
from protos.hauberk.v1 import identity_pb2 as pb

log = logging.getLogger(__name__)


class IdentityApi:
    """Handlers of hauberk.v1.Identity."""

    def __init__(
        self,
        *,
        store: Store,
        authority: CertificateAuthority,
        audit: AuditLog,
        lifetime_s: Callable[[], float],
        changed: Callable[[], None],
        join_limit: RateLimit,
        renew_limit: RateLimit,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._authority = authority
        self._audit = audit
        self._lifetime_s = lifetime_s
        self._changed = changed
        self._join_limit = join_limit
        self._renew_limit = renew_limit
        self._now = now

    async def join(self, caller: Caller, request: pb.JoinRequest) -> pb.SvidResponse:
        now = self._now()
        _within(self._join_limit, caller, now)
        # Read before the token is spent: a mistake in a request should not cost a token.
        _check_csr(request.csr_der)
        with self._store.transaction():
            token = tokens.consume(self._store, request.token_id, request.token_secret, now)
            _check_binding(token.spec, request)  # what is raised in here gives the token back
            workload = self._store.ensure_workload(token.spec, now)
            issued = self._issue(caller, workload, request.csr_der, now, event="joined", token_id=token.token_id)
        self._changed()  # who asked for this service by a name that was unknown wants to hear
        log.info("workload joined", extra=fields(spiffe_id=str(workload.spiffe_id), token_id=token.token_id))
        return self._response(workload, issued, now)

    async def renew(self, caller: Caller, request: pb.RenewRequest) -> pb.SvidResponse:
        now = self._now()
        _within(self._renew_limit, caller, now)
        workload = workload_of(self._store, caller)
        _check_csr(request.csr_der)
        with self._store.transaction():
            issued = self._issue(caller, workload, request.csr_der, now, event="renewed")
        return self._response(workload, issued, now)

    def _issue(
        self, caller: Caller, workload: Workload, csr_der: bytes, now: float, *, event: str, token_id: str = ""
    ) -> IssuedSvid:
        try:
            issued = self._authority.issue(workload.spiffe_id, csr_der, self._lifetime_s(), now)
        except IdentityMismatch as error:
            raise PermissionDenied(
                f"the certificate request names somebody else; you are {workload.spiffe_id}, leave the name out"
            ) from error
        except CaError as error:
            log.exception("the CA cannot issue")
            raise Unavailable("the CA cannot issue certificates now; see the control plane's log") from error
        self._store.record_issued(
            IssuedRecord(
                serial=issued.serial,
                spiffe_id=workload.spiffe_id,
                workload_id=workload.workload_id,
                not_before=issued.not_before,
                not_after=issued.not_after,
                issued_at=now,
                issuer_id=issued.issuer_id,
                root_id=issued.root_id,
            )
        )
        self._audit.append(
            f"identity.{event}",
            at=now,
            by=caller.name,
            peer=caller.peer,
            spiffe_id=str(workload.spiffe_id),
            service=workload.service_name,
            serial=f"{issued.serial:x}",
            not_after=issued.not_after,
            token_id=token_id,
        )
        return issued

    def _response(self, workload: Workload, issued: IssuedSvid, now: float) -> pb.SvidResponse:
        spec = workload.spec
        return pb.SvidResponse(
            spiffe_id=str(spec.spiffe_id),
            certificate_chain_der=issued.chain_der,
            trust_anchors_der=self._authority.bundle.anchors_der,
            service=spec.service,
            namespace=spec.namespace,
            labels=dict(spec.labels),
            server_time=now,
        )


def workload_of(store: Store, caller: Caller) -> Workload:
    """The workload a caller's certificate was issued for. Raises PermissionDenied if it is no member (any more)."""
    assert caller.spiffe_id is not None, "only workloads get here"
    workload = store.workload_of_certificate(caller.spiffe_id, caller.serial)
    if workload is None:
        raise PermissionDenied(f"{caller.spiffe_id} is not a member of this mesh (any more); join with a new token")
    return workload


def _check_binding(spec: WorkloadSpec, request: pb.JoinRequest) -> None:
    asked = (request.service or spec.service, request.namespace or spec.namespace)
    if asked != (spec.service, spec.namespace):
        raise InvalidRequest(
            f"this join token is for {spec.service}.{spec.namespace}, but the sidecar is configured as"
            f" {asked[0]}.{asked[1]}; correct the service and namespace, or create a token for them. The token is still"
            " good"
        )


def _check_csr(csr_der: bytes) -> None:
    try:
        read_csr(csr_der)
    except InvalidCsr as error:
        row = f" ({error.row})" if error.row else ""
        raise InvalidRequest(f"the certificate request is refused{row}: {error}") from error


def _within(limit: RateLimit, caller: Caller, now: float) -> None:
    wait_s = limit.take(caller.peer, now)
    if wait_s:
        raise ResourceExhausted(f"too many requests from {caller.peer}; try again in {wait_s:.1f} s")
