"""Issuing a certificate to a node: signed, written down with its line, audited, and only then told.

All of it happens in one transaction of the caller's: killed at any point, either nothing was issued, or all of it is
written down (security.md J10). The audit record is durable before the transaction commits (G30).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from certs.csr import CsrFacts, read_csr
from certs.errors import InvalidCsr
from control_plane.api.authz import Caller
from control_plane.audit import AuditLog, Field
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError, IdentityMismatch
from control_plane.ca.signer import IssuedSvid
from control_plane.errors import InvalidRequest, PermissionDenied, Unavailable
from control_plane.model import IssuedRecord, Node, Workload
from control_plane.store.base import Store
from protos.hauberk.v1 import identity_pb2 as pb

log = logging.getLogger(__name__)


def _of_node(node: Node | None, event: str) -> dict[str, Field]:
    """What a restore needs to know it again (`control_plane.replay`); the key is a public one."""
    if node is None:
        return {}
    told: dict[str, Field] = {"node_expires_at": node.expires_at}
    if event == "joined":
        told["node_key"] = base64.b64encode(node.public_key_der).decode("ascii")
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """See the module's docstring."""

    store: Store
    authority: CertificateAuthority
    audit: AuditLog
    lifetime_s: Callable[[], float]
    """Of certificates issued now."""
    node_lifetime_s: float
    """How long after its last certificate a node may come back."""

    def issue(
        self,
        caller: Caller,
        workload: Workload,
        node: Node | None,
        csr: CsrFacts,
        now: float,
        event: str,
        *,
        token_id: str = "",
    ) -> pb.SvidResponse:
        """Inside a transaction. `event`: joined | renewed | rejoined. `token_id`: the join token it comes of, if not
        the node's. Raises PermissionDenied, Unavailable."""
        token_id = token_id or (node.token_id if node else "")
        issued = self._signed(workload, csr, now)
        self.store.record_issued(
            IssuedRecord(
                serial=issued.serial,
                spiffe_id=workload.spiffe_id,
                workload_id=workload.workload_id,
                not_before=issued.not_before,
                not_after=issued.not_after,
                issued_at=now,
                node_id=node.node_id if node else "",
                issuer_id=issued.issuer_id,
                root_id=issued.root_id,
                token_id=token_id,
            )
        )
        if node is not None:
            node = replace(node, expires_at=max(node.expires_at, now + self.node_lifetime_s))
            self.store.put_node(node)
        self.audit.append(
            f"identity.{event}",
            at=now,
            by=caller.name,
            peer=caller.peer,
            spiffe_id=str(workload.spiffe_id),
            service=workload.service_name,
            serial=f"{issued.serial:x}",
            not_after=issued.not_after,
            node_id=node.node_id if node else "",
            token_id=token_id,
            issuer_id=issued.issuer_id,
            root_id=issued.root_id,
            **_of_node(node, event),
        )
        return self._response(workload, node, issued, now)

    def _signed(self, workload: Workload, csr: CsrFacts, now: float) -> IssuedSvid:
        try:
            return self.authority.issue_for_request(workload.spiffe_id, csr, self.lifetime_s(), now)
        except IdentityMismatch as error:
            raise PermissionDenied(
                f"the certificate request names somebody else; you are {workload.spiffe_id}, leave the name out"
            ) from error
        except CaError as error:
            log.exception("the CA cannot issue")
            raise Unavailable("the CA cannot issue certificates now; see the control plane's log") from error

    def _response(self, workload: Workload, node: Node | None, issued: IssuedSvid, now: float) -> pb.SvidResponse:
        spec = workload.spec
        return pb.SvidResponse(
            spiffe_id=str(spec.spiffe_id),
            certificate_chain_der=issued.chain_der,
            trust_anchors_der=self.authority.bundle.anchors_der,
            service=spec.service,
            namespace=spec.namespace,
            labels=dict(spec.labels),
            server_time=now,
            node_id=node.node_id if node else "",
            node_expires_at=node.expires_at if node and node.public_key_der else 0.0,
        )


def csr_of(csr_der: bytes) -> CsrFacts:
    """Before anything is spent on a request. Raises InvalidRequest."""
    try:
        return read_csr(csr_der)
    except InvalidCsr as error:
        row = f" ({error.row})" if error.row else ""
        raise InvalidRequest(f"the certificate request is refused{row}: {error}") from error
