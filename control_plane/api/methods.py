"""What the server serves: each method's path, messages and handler, taken from the service descriptors.

A service whose descriptor names a method nobody handles stops the start: nothing is half served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from control_plane.api.admin import AdminApi
from control_plane.api.authz import Caller
from control_plane.api.ca import CaApi
from control_plane.api.config import ConfigApi
from control_plane.api.discovery import DiscoveryApi
from control_plane.api.explain import ExplainApi
from control_plane.api.history import HistoryApi
from control_plane.api.identity import IdentityApi
from control_plane.api.revoke import RevokeApi
from protos.hauberk.v1 import admin_pb2, config_pb2, discovery_pb2, identity_pb2

UnaryHandler = Callable[[Caller, Any], Awaitable[Message]]
StreamHandler = Callable[[Caller, AsyncIterator[Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""(caller, messages in, send one message out). Any: each handler knows its own message type."""

FILES: tuple[FileDescriptor, ...] = (
    identity_pb2.DESCRIPTOR,
    discovery_pb2.DESCRIPTOR,
    config_pb2.DESCRIPTOR,
    admin_pb2.DESCRIPTOR,
)


TOGETHER = frozenset(f"hauberk.v1.Identity/{one}" for one in ("Join", "Rejoin", "Renew", "Confirm", "IssueJwtSvid"))
"""What a whole fleet may ask in one moment, and what is written down durably each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC. Exactly one of the handlers is there."""

    service: str
    """ "hauberk.v1.Identity" """
    name: str
    request: type[Message]
    unary: UnaryHandler | None = None
    stream: StreamHandler | None = None
    is_together: bool = False
    """It waits for nothing, and shares its commit with others (`together`)."""

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


def methods(
    identity: IdentityApi,
    discovery: DiscoveryApi,
    config: ConfigApi,
    explain: ExplainApi,
    history: HistoryApi,
    admin: AdminApi,
    ca: CaApi,
    revoke: RevokeApi,
) -> tuple[Method, ...]:
    """Every method of our services. Raises RuntimeError if descriptors and handlers do not match."""
    unary: Mapping[str, UnaryHandler] = {
        "hauberk.v1.Identity/Join": identity.join,
        "hauberk.v1.Identity/Challenge": identity.challenge,
        "hauberk.v1.Identity/Rejoin": identity.rejoin,
        "hauberk.v1.Identity/Anchors": identity.anchors,
        "hauberk.v1.Identity/Renew": identity.renew,
        "hauberk.v1.Identity/Confirm": identity.confirm,
        "hauberk.v1.Identity/IssueJwtSvid": identity.issue_jwt_svid,
        "hauberk.v1.Config/Apply": config.apply,
        "hauberk.v1.Config/Get": config.get,
        "hauberk.v1.Config/List": config.list_all,
        "hauberk.v1.Config/Delete": config.delete,
        "hauberk.v1.Config/Explain": explain.explain,
        "hauberk.v1.Config/History": history.history,
        "hauberk.v1.Config/Rollback": history.rollback,
        "hauberk.v1.Config/Inventory": history.inventory,
        "hauberk.v1.Admin/CreateToken": admin.create_token,
        "hauberk.v1.Admin/ListTokens": admin.list_tokens,
        "hauberk.v1.Admin/Status": admin.status,
        "hauberk.v1.Admin/CaStatus": ca.status,
        "hauberk.v1.Admin/CaStep": ca.step,
        "hauberk.v1.Admin/CaInstall": ca.install,
        "hauberk.v1.Admin/CaRehearse": ca.rehearse,
        "hauberk.v1.Admin/Revoke": revoke.revoke,
        "hauberk.v1.Admin/Reinstate": revoke.reinstate,
        "hauberk.v1.Admin/ListRevocations": revoke.list_revocations,
    }
    stream: Mapping[str, StreamHandler] = {"hauberk.v1.Discovery/Watch": discovery.watch}
    found: list[Method] = []
    for file in FILES:
        for service in file.services_by_name.values():
            for one in service.methods:
                key = f"{service.full_name}/{one.name}"
                handlers = stream if one.client_streaming or one.server_streaming else unary
                if key not in handlers:
                    raise RuntimeError(f"{key} is declared but nobody handles it")
                found.append(
                    Method(
                        service=service.full_name,
                        name=one.name,
                        request=GetMessageClass(one.input_type),
                        unary=unary.get(key),
                        stream=stream.get(key),
                        is_together=key in TOGETHER,
                    )
                )
    if len(found) != len(unary) + len(stream):
        raise RuntimeError("a handler belongs to no declared method")
    return tuple(found)
