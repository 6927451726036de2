"""Join, Renew, Confirm and Rejoin: who a workload is, and keeping it so.

The identity issued comes from the join token, from the caller's certificate or from the node that proved its key, never
from the request (security.md G01). `nodes` holds the rules, `issuing` what happens when a certificate is given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from certs import node_key
from certs.bundle import pin
from certs.errors import InvalidCsr
from control_plane import tokens
from control_plane.api.authz import Caller
from control_plane.api.clones import CloneAlarm
from control_plane.api.issuing import Issuer, csr_of
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError
from control_plane.ca.jwt import check_audiences
from control_plane.challenges import Challenges
from control_plane.errors import InvalidRequest, PermissionDenied, ResourceExhausted, Unavailable
from control_plane.limits import RateLimit
from control_plane.logs import fields
from control_plane.model import IssuedRecord, Node, Workload, WorkloadSpec
from control_plane.nodes import Standing, new_node, refusal_to_rejoin, standing
from control_plane.revocation import RevokedView
from control_plane.store.base import Store
from protos.hauberk.v1 import identity_pb2 as pb

log = logging.getLogger(__name__)

HELD_ANCHORS_MAX = 16
_REFUSED = "this node may not come back; join with a new token, made by: hauberk token create"


class IdentityApi:
    """Handlers of hauberk.v1.Identity."""

    def __init__(
        self,
        *,
        store: Store,
        authority: CertificateAuthority,
        audit: AuditLog,
        revoked: RevokedView,
        issuer: Issuer,
        clones: CloneAlarm,
        changed: Callable[[], None],
        join_limit: RateLimit,
        rejoin_limit: RateLimit,
        renew_limit: RateLimit,
        now: Callable[[], float],
    ) -> None:
        """`rejoin_limit` is for all that strangers may ask besides Join: they must not use up what members have."""
        self._store = store
        self._authority = authority
        self._audit = audit
        self._revoked = revoked
        self._issuer = issuer
        self._clones = clones
        self._changed = changed
        self._join_limit = join_limit
        self._rejoin_limit = rejoin_limit
        self._renew_limit = renew_limit
        self._challenges = Challenges()
        self._now = now

    # Through the join port

    async def join(self, caller: Caller, request: pb.JoinRequest) -> pb.SvidResponse:
        now = self._now()
        _within(self._join_limit, caller, now)
        # Read before the token is spent: a mistake in a request should not cost a token.
        csr = csr_of(request.csr_der)
        _check_node_key(request)
        with self._store.transaction():
            token = tokens.consume(self._store, request.token_id, request.token_secret, now)
            _check_binding(token.spec, request)  # what is raised in here gives the token back
            self._check_not_revoked(token.spec, token.token_id)
            workload = self._store.ensure_workload(token.spec, now)
            node = new_node(
                workload, token.token_id, request.node_key_der, now=now, lifetime_s=self._issuer.node_lifetime_s
            )
            answer = self._issuer.issue(caller, workload, self._continued(node), csr, now, "joined")
        self._changed()  # who asked for this service by a name that was unknown wants to hear
        log.info("workload joined", extra=fields(spiffe_id=str(workload.spiffe_id), token_id=token.token_id))
        return answer

    async def challenge(self, caller: Caller, request: pb.ChallengeRequest) -> pb.ChallengeResponse:
        now = self._now()
        _within(self._rejoin_limit, caller, now)
        return pb.ChallengeResponse(nonce=self._challenges.make(now))

    async def rejoin(self, caller: Caller, request: pb.RejoinRequest) -> pb.SvidResponse:
        now = self._now()
        _within(self._rejoin_limit, caller, now)
        csr = csr_of(request.csr_der)
        self._challenges.check(request.nonce, now)
        node = self._store.node(request.node_id)
        if node is None or not node.public_key_der or not _has_signed(node, request):
            # Who did not prove the key learns nothing about the node.
            raise PermissionDenied(_REFUSED)
        self._challenges.spend(request.nonce, now)
        workload = self._store.workload(node.workload_id)
        is_revoked = workload is not None and self._is_revoked(workload.spec, node.token_id)
        if why := refusal_to_rejoin(node, workload, now=now, is_revoked=is_revoked):
            raise PermissionDenied(f"{why}: {_REFUSED}")
        assert workload is not None
        with self._store.transaction():
            answer = self._issuer.issue(caller, workload, node, csr, now, "rejoined")
        log.info("workload came back", extra=fields(spiffe_id=str(workload.spiffe_id), node_id=node.node_id))
        return answer

    async def anchors(self, caller: Caller, request: pb.AnchorsRequest) -> pb.AnchorsResponse:
        """All statements that lead on from one of the anchors held, which are few."""
        _within(self._rejoin_limit, caller, self._now())
        if len(request.held_sha256) > HELD_ANCHORS_MAX:
            raise InvalidRequest(f"held_sha256: at most {HELD_ANCHORS_MAX}")
        known = set(request.held_sha256)
        answer = pb.AnchorsResponse()
        for one in self._authority.successions():
            if one.predecessor_sha256 in known:
                known.add(pin(one.successor_der))
                answer.successions.add(
                    predecessor_sha256=one.predecessor_sha256,
                    successor_der=one.successor_der,
                    signature=one.signature,
                )
        return answer

    # With a certificate

    async def renew(self, caller: Caller, request: pb.RenewRequest) -> pb.SvidResponse:
        now = self._now()
        _within(self._renew_limit, caller, now)
        workload = workload_of(self._store, caller)
        certificate, node = self._line_of(caller, now)
        self._check_not_revoked(workload.spec, node.token_id if node is not None else "")
        csr = csr_of(request.csr_der)
        if node is None:  # a member of before a restore of the store, or of an older release
            node = new_node(workload, "", b"", now=now, lifetime_s=self._issuer.node_lifetime_s)
        with self._store.transaction():
            token_id = certificate.token_id if certificate is not None else ""
            return self._issuer.issue(caller, workload, node, csr, now, "renewed", token_id=token_id)

    async def confirm(self, caller: Caller, request: pb.ConfirmRequest) -> pb.ConfirmResponse:
        now = self._now()
        _within(self._renew_limit, caller, now)
        workload_of(self._store, caller)
        self._line_of(caller, now)
        return pb.ConfirmResponse()

    async def issue_jwt_svid(self, caller: Caller, request: pb.JwtSvidRequest) -> pb.JwtSvidResponse:
        now = self._now()
        _within(self._renew_limit, caller, now)
        workload = workload_of(self._store, caller)
        certificate, node = self._held_by(caller)
        if standing(certificate, node) is Standing.PUT_AWAY:
            # A token would outlive it. No alarm: our own sidecar may ask while it moves to the newer one.
            raise Unavailable("this certificate was replaced by a newer one; ask over a connection made with that")
        audiences = _audiences(request.audiences)
        try:
            issued = self._authority.issue_jwt(workload.spiffe_id, audiences, now)
        except CaError as error:
            log.exception("the CA cannot sign a JWT-SVID")
            raise Unavailable("the CA cannot sign JWT-SVIDs now; see the control plane's log") from error
        self._audit.append(
            "identity.jwt_issued",
            at=now,
            by=caller.name,
            peer=caller.peer,
            spiffe_id=str(workload.spiffe_id),
            audiences=list(audiences),
            not_after=issued.expires_at,
        )
        return pb.JwtSvidResponse(
            token=issued.token,
            spiffe_id=str(workload.spiffe_id),
            issued_at=issued.issued_at,
            expires_at=issued.expires_at,
        )

    def _line_of(self, caller: Caller, now: float) -> tuple[IssuedRecord | None, Node | None]:
        """What it calls with, confirmed now, and the node that calls. Raises PermissionDenied for a second holder
        (G24)."""
        certificate, node = self._held_by(caller)
        match standing(certificate, node):
            case Standing.NEWER:
                assert certificate is not None
                assert node is not None
                self._store.confirm_certificate(node.node_id, certificate.number)
                return certificate, replace(node, confirmed_number=certificate.number)
            case Standing.PUT_AWAY:
                assert node is not None
                self._clones.seen(caller, node, now, "a certificate was renewed from two places")
                raise PermissionDenied(
                    "this certificate was replaced by a newer one that is in use, so two hold its key; come back with"
                    " the node key, or join with a new token"
                )
        return certificate, node

    def _held_by(self, caller: Caller) -> tuple[IssuedRecord | None, Node | None]:
        """What it calls with, and whose line that belongs to."""
        certificate = self._store.certificate(caller.serial)
        return certificate, self._store.node(certificate.node_id) if certificate is not None else None

    def _continued(self, node: Node) -> Node:
        """A node that joins again with the key it had goes on with its line. Raises PermissionDenied if the key is
        another workload's."""
        held = self._store.node(node.node_id)
        if held is None:
            return node
        if held.workload_id != node.workload_id:
            raise PermissionDenied("this node key belongs to another workload; a sidecar makes its own")
        return replace(node, confirmed_number=held.confirmed_number)

    def _check_not_revoked(self, spec: WorkloadSpec, token_id: str) -> None:
        if self._is_revoked(spec, token_id):
            raise PermissionDenied(f"{spec.spiffe_id} or this join token was revoked; see: hauberk revocations")

    def _is_revoked(self, spec: WorkloadSpec, token_id: str) -> bool:
        return spec.spiffe_id in self._revoked.current().identities or self._revoked.is_revoked_token(token_id)


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


def _check_node_key(request: pb.JoinRequest) -> None:
    """Raises InvalidRequest: no key of ours is registered for somebody who does not hold it."""
    if not request.node_key_der:
        return
    try:
        key = node_key.load(request.node_key_der)
        node_key.check(key, request.node_signature, node_key.JOIN, request.token_id.encode("utf-8"), request.csr_der)
    except InvalidCsr as error:
        raise InvalidRequest(f"node_key_der: {error}") from error


def _has_signed(node: Node, request: pb.RejoinRequest) -> bool:
    try:
        key = node_key.load(node.public_key_der)
        node_key.check(key, request.node_signature, node_key.REJOIN, request.nonce, request.csr_der)
    except InvalidCsr:
        return False
    return True


def _audiences(given: Sequence[str]) -> tuple[str, ...]:
    """Each once. Raises InvalidRequest."""
    try:
        return tuple(dict.fromkeys(check_audiences(given)))
    except ValueError as error:
        raise InvalidRequest(f"audiences: {error}") from error


def _within(limit: RateLimit, caller: Caller, now: float) -> None:
    wait_s = limit.take(caller.peer, now)
    if wait_s:
        raise ResourceExhausted(f"too many requests from {caller.peer}; try again in {wait_s:.1f} s")
