"""Who may call what: one table, deny by default.

Every method the server knows is listed, and nothing else: `check_complete` compares the table with the service
descriptors at every start. A method that is not listed cannot be called, a caller without a role cannot call anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from certs.spiffe_id import SpiffeId
from control_plane.errors import PermissionDenied


class Role(Enum):
    ANONYMOUS = "anonymous"
    """Showed no certificate: came through the join port."""
    WORKLOAD = "workload"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as the connection proved it. Nothing here comes from a message or from metadata."""

    role: Role
    name: str
    """For records: a SPIFFE ID, "local operator" or "anonymous"."""
    peer: str
    """IP address, or "unix"."""
    spiffe_id: SpiffeId | None = None
    serial: int = 0
    """Of the caller's certificate; 0: it has none."""
    not_after: float = float("inf")
    """When what the connection proved ceases to hold."""
    issuer_ids: tuple[str, ...] = ()
    """`certs.authority_id.key_id` of what stands above the certificate."""


_WORKLOAD = frozenset({Role.WORKLOAD})
_OPERATOR = frozenset({Role.OPERATOR})
_MEMBERS = _WORKLOAD | _OPERATOR

TABLE: Mapping[str, frozenset[Role]] = {
    "/hauberk.v1.Identity/Join": frozenset({Role.ANONYMOUS}),
    "/hauberk.v1.Identity/Challenge": frozenset({Role.ANONYMOUS}),
    "/hauberk.v1.Identity/Rejoin": frozenset({Role.ANONYMOUS}),
    "/hauberk.v1.Identity/Anchors": frozenset({Role.ANONYMOUS}),
    "/hauberk.v1.Identity/Renew": _WORKLOAD,
    "/hauberk.v1.Identity/Confirm": _WORKLOAD,
    "/hauberk.v1.Identity/IssueJwtSvid": _WORKLOAD,
    "/hauberk.v1.Discovery/Watch": _WORKLOAD,
    "/hauberk.v1.Config/Apply": _OPERATOR,
    "/hauberk.v1.Config/Get": _OPERATOR,
    "/hauberk.v1.Config/List": _OPERATOR,
    "/hauberk.v1.Config/Delete": _OPERATOR,
    "/hauberk.v1.Config/Explain": _OPERATOR,
    "/hauberk.v1.Config/History": _OPERATOR,
    "/hauberk.v1.Config/Rollback": _OPERATOR,
    "/hauberk.v1.Config/Inventory": _OPERATOR,
    "/hauberk.v1.Admin/CreateToken": _OPERATOR,
    "/hauberk.v1.Admin/ListTokens": _OPERATOR,
    "/hauberk.v1.Admin/Status": _OPERATOR,
    "/hauberk.v1.Admin/CaStatus": _OPERATOR,
    "/hauberk.v1.Admin/CaStep": _OPERATOR,
    "/hauberk.v1.Admin/CaInstall": _OPERATOR,
    "/hauberk.v1.Admin/CaRehearse": _OPERATOR,
    "/hauberk.v1.Admin/Revoke": _OPERATOR,
    "/hauberk.v1.Admin/Reinstate": _OPERATOR,
    "/hauberk.v1.Admin/ListRevocations": _OPERATOR,
    "/grpc.health.v1.Health/Check": _MEMBERS,
    "/grpc.health.v1.Health/List": _MEMBERS,
    "/grpc.health.v1.Health/Watch": _MEMBERS,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _OPERATOR,
}


def check_complete(methods: Iterable[str], table: Mapping[str, Collection[Role]] = TABLE) -> None:
    """Raises RuntimeError, naming them, if the server knows methods the table does not, or the other way round, or if
    nobody may call a method. A bug, so not an error for an operator to read."""
    known = set(methods)
    faults = [f"{method} is not in the table" for method in sorted(known - table.keys())]
    faults += [f"{method} is in the table but does not exist" for method in sorted(table.keys() - known)]
    faults += [f"{method} has no role" for method, roles in sorted(table.items()) if not roles]
    if faults:
        raise RuntimeError("who may call what is incomplete: " + "; ".join(faults))


def authorize(caller: Caller, method: str) -> None:
    """Raises PermissionDenied."""
    if caller.role not in TABLE.get(method, ()):
        raise PermissionDenied(f"{caller.name} may not call {method.rpartition('/')[2]}; it is for {_whom(method)}")


def _whom(method: str) -> str:
    roles = sorted(f"{role.value}s" for role in TABLE.get(method, ()) if role is not Role.ANONYMOUS)
    return " and ".join(roles) or "the join port"
