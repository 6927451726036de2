"""Revoke, Reinstate and ListRevocations: rights taken away at once, and given back.

What is revoked is written down with who did it and why; the push that follows ends the connections of whoever it hits,
at this control plane and at every sidecar. Authorities are revoked by `hauberk ca revoke`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

from certs.errors import CertsError
from certs.revocation import SERIALS_MAX
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.api.authz import Caller
from control_plane.audit import AuditLog
from control_plane.errors import FailedPrecondition, InvalidRequest, NotFound
from control_plane.model import RevocationRecord, RevokedKind
from control_plane.push.hub import Hub
from control_plane.registry import Registry
from control_plane.revocation import reinstate_token, revoke_token, serials_of_token
from control_plane.store.base import Store
from protos.hauberk.v1 import admin_pb2 as pb
from sidecar.rules.decode_trust import IDENTITIES_MAX

ALARM = "alarm"
"""A kind that is only reinstated: somebody has looked at a node's alarm."""
KINDS = tuple(one.value for one in RevokedKind)
REASON_CHARS_MAX = 300
WAIT_S_MAX = 300.0
SERIALS_TOLD_MAX = 100
"""In one audit record."""

_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_TOKEN_ID = re.compile(r"[0-9a-f]{16}")
_NODE_ID = re.compile(r"[0-9a-f]{32}")


class RevokeApi:
    """Handlers of hauberk.v1.Admin that take rights away."""

    def __init__(
        self,
        *,
        store: Store,
        audit: AuditLog,
        registry: Registry,
        hub: Hub,
        trust_domain: TrustDomain,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._audit = audit
        self._registry = registry
        self._hub = hub
        self._trust_domain = trust_domain
        self._now = now

    async def revoke(self, caller: Caller, request: pb.RevokeRequest) -> pb.RevokeResponse:
        """Raises InvalidRequest, NotFound (a token that never was), FailedPrecondition (too many)."""
        kind, value = self._meant(request.kind, request.value)
        reason = _reason(request.reason)
        if not (math.isfinite(request.wait_s) and request.wait_s >= 0):
            raise InvalidRequest("wait_s: must be 0 or more")
        now = self._now()
        serials = self._serials(kind, value, now)
        with self._store.transaction():
            if kind is RevokedKind.TOKEN:
                changed = revoke_token(self._store, value, serials, now=now, by=caller.name, reason=reason)
            else:
                record = RevocationRecord(kind=kind, value=value, at=now, by=caller.name, reason=reason)
                changed = self._store.put_revocation(record)
            if changed:
                self._check_count(kind)
                self._audit.append(
                    "revoked",
                    at=now,
                    by=caller.name,
                    kind=kind.value,
                    value=value,
                    reason=reason,
                    serials=[f"{one:x}" for one in serials[:SERIALS_TOLD_MAX]],
                    serials_count=len(serials),
                )
        answer = pb.RevokeResponse(changed=changed, serials=[f"{one:x}" for one in serials])
        if changed:
            self._hub.notify()
        if request.wait_s:
            await self._wait(answer, min(request.wait_s, WAIT_S_MAX))
        return answer

    async def reinstate(self, caller: Caller, request: pb.ReinstateRequest) -> pb.ReinstateResponse:
        """Raises InvalidRequest."""
        now = self._now()
        if request.kind == ALARM:
            return pb.ReinstateResponse(changed=self._looked_at(caller, request.value, now))
        kind, value = self._meant(request.kind, request.value)
        with self._store.transaction():
            changed = (
                reinstate_token(self._store, value)
                if kind is RevokedKind.TOKEN
                else self._store.delete_revocation(kind, value)
            )
            if changed:
                self._audit.append("reinstated", at=now, by=caller.name, kind=kind.value, value=value)
        if changed:
            self._hub.notify()
        return pb.ReinstateResponse(changed=changed)

    async def list_revocations(
        self, _caller: Caller, _request: pb.ListRevocationsRequest
    ) -> pb.ListRevocationsResponse:
        """Oldest first."""
        return pb.ListRevocationsResponse(
            revocations=[
                pb.Revocation(kind=one.kind.value, value=one.value, at=one.at, by=one.by, reason=one.reason)
                for one in self._store.revocations()
            ]
        )

    async def _wait(self, answer: pb.RevokeResponse, wait_s: float) -> None:
        """Until every sidecar that is told has answered, or time is up. One that refused it does not know it."""
        found = await self._hub.wait_acknowledged(self._store.revision, wait_s, lambda key: key in self._registry)
        answer.acknowledged.extend(found.acknowledged)
        answer.pending.extend(sorted({*found.pending, *(who for who, _ in found.rejected)}))

    def _meant(self, kind: str, value: str) -> tuple[RevokedKind, str]:
        """As it is stored. Raises InvalidRequest."""
        match kind:
            case "identity":
                return RevokedKind.IDENTITY, self._identity(value)
            case "serial":
                return RevokedKind.SERIAL, self._serial(value)
            case "token":
                if not _TOKEN_ID.fullmatch(value):
                    raise InvalidRequest(
                        "value: is no id of a join token; it is the 16 hexadecimal digits that `hauberk token create`"
                        " told, never the token itself"
                    )
                return RevokedKind.TOKEN, value
        raise InvalidRequest(f"kind: {kind[:80]!a} is none; one of {', '.join(KINDS)}")

    def _identity(self, value: str) -> str:
        namespace, slash, account = value.partition("/")
        try:
            if slash and account and not account.startswith("/") and "/" not in account:
                identity = SpiffeId.for_workload(self._trust_domain, namespace, account)
            else:
                identity = SpiffeId.parse(value)
        except CertsError as error:
            how = "write it as `hauberk status` shows it, or as namespace/service-account"
            raise InvalidRequest(f"value: {error}; {how}") from error
        if identity.trust_domain != self._trust_domain:
            raise InvalidRequest(f"value: {identity} is not of this mesh, which is {self._trust_domain}")
        if not identity.is_workload:
            raise InvalidRequest(
                f"value: {identity} is no workload: the control plane and operators are not revoked by name. Replace"
                " what signed the certificate (hauberk ca taint), or revoke its serial number"
            )
        return str(identity)

    def _serial(self, value: str) -> str:
        digits = value.lower().replace(":", "")
        if not _SERIAL.fullmatch(digits) or not int(digits, 16):
            raise InvalidRequest(
                f"value: {value[:80]!a} is no serial number; write it in hexadecimal, as `openssl x509 -serial` does"
            )
        serial = int(digits, 16)
        held = self._store.certificate(serial)
        if held is not None and held.workload_id is None:
            raise InvalidRequest(
                "value: that is the control plane's own certificate; every sidecar would leave it. To replace it, taint"
                " what signed it: hauberk ca taint"
            )
        return f"{serial:x}"

    def _serials(self, kind: RevokedKind, value: str, now: float) -> tuple[int, ...]:
        """Of the certificates that are hit. Raises NotFound."""
        match kind:
            case RevokedKind.SERIAL:
                held = self._store.certificate(int(value, 16))
                return (held.serial,) if held is not None and held.not_after > now else ()
            case RevokedKind.IDENTITY:
                live = self._store.live_certificates(now)
                return tuple(one.serial for one in live if str(one.spiffe_id) == value)
        serials = serials_of_token(self._store, value, now)
        is_known = serials or self._store.token(value) or any(one.token_id == value for one in self._store.nodes())
        if not is_known:
            raise NotFound(f"there is no join token {value}, and nothing came of one; nothing was revoked")
        return serials

    def _check_count(self, kind: RevokedKind) -> None:
        """More than sidecars take would keep every later snapshot from them. Raises FailedPrecondition."""
        kind, most = (kind, IDENTITIES_MAX) if kind is RevokedKind.IDENTITY else (RevokedKind.SERIAL, SERIALS_MAX)
        if sum(one.kind is kind for one in self._store.revocations()) > most:
            raise FailedPrecondition(
                f"more than {most} revocations by {kind.value}; reinstate what is over (hauberk revocations), or revoke"
                " the authority that signed them (hauberk ca revoke). Nothing was changed"
            )

    def _looked_at(self, caller: Caller, node_id: str, now: float) -> bool:
        if not _NODE_ID.fullmatch(node_id):
            raise InvalidRequest(f"value: {node_id[:80]!a} is no node's id; `hauberk status -o json` has them")
        node = self._store.node(node_id)
        if node is None or not node.alarm:
            return False
        with self._store.transaction():
            self._store.put_node(replace(node, alarm=""))
            self._audit.append("identity.alarm_cleared", at=now, by=caller.name, node_id=node_id, alarm=node.alarm)
        return True


def _reason(text: str) -> str:
    if len(text) > REASON_CHARS_MAX or not (text.isprintable() or not text):
        raise InvalidRequest(f"reason: at most {REASON_CHARS_MAX} printable characters")
    return text
