"""A second holder of a node's key was seen: what becomes of the node (security.md G24). `nodes` says who is one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from control_plane.api.authz import Caller
from control_plane.audit import AuditLog
from control_plane.audit.log import WE
from control_plane.logs import fields
from control_plane.model import Node
from control_plane.nodes import CLONED
from control_plane.revocation import revoke_node
from control_plane.store.base import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneAlarm:
    """`is_revoked`: what such a node is, besides being told of. `changed`: the mesh is to hear of it."""

    store: Store
    audit: AuditLog
    is_revoked: bool
    changed: Callable[[], None]

    def seen(self, caller: Caller, node: Node, now: float, text: str) -> None:
        """`caller` holds a certificate that the node has put away, and `node` has it still. `text` is for the log.

        Told once, until somebody has looked at it; whoever is refused may come again and again."""
        if node.alarm == CLONED and not self.is_revoked:
            return
        facts = {"node_id": node.node_id, "peer": caller.peer, "serial": f"{caller.serial:x}"}
        with self.store.transaction():
            self.audit.append("identity.cloned", at=now, by=caller.name, **facts)
            self.store.put_node(replace(node, alarm=CLONED))
            if self.is_revoked:
                for kind, value in revoke_node(self.store, node, now=now, by=WE, reason=CLONED):
                    told = {"kind": kind.value, "value": value, "reason": CLONED}
                    self.audit.append("revoked", at=now, by=WE, **told)
        self.changed()
        log.error(text, extra=fields(spiffe_id=caller.name, **facts))
