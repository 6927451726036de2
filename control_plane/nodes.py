"""The rules of nodes: what joins, which of its certificates counts, and who may come back. Pure; the API does the rest.

Theory of operation
-------------------
A node joins once and then has a line of certificates, each asked for with the one before it. The store numbers them.
The newest one the node was seen to use is *confirmed*: from then on it needs none of those before. Issued but never
used ones are allowed to get lost, so a node that did not hear our answer simply asks again.

    asked with                          what it is
    the confirmed one, or a newer one   the node; a newer one becomes confirmed
    an older one                        somebody who kept a key that the node has put away: a second holder (G24)
    one we know nothing of              a certificate of before a restore of the store: taken, as its identity's

A second holder is refused, whichever of the two is the thief: it is the line that says which certificate counts, and
the honest one comes back with its node key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import Enum

from certs.authority_id import key_id
from certs.node_key import load
from control_plane.model import IssuedRecord, Node, Workload

CLONED = "renewed from two places"


class Standing(Enum):
    """Of the certificate a node calls with."""

    CURRENT = "current"
    NEWER = "newer"
    """Issued after the confirmed one: now it is that."""
    PUT_AWAY = "put away"
    """Older than the confirmed one."""
    UNKNOWN = "unknown"
    """Of no node."""


def standing(certificate: IssuedRecord | None, node: Node | None) -> Standing:
    """What a call with that certificate says. `node`: whose line it belongs to; None: nobody's that we know."""
    if certificate is None or node is None:
        return Standing.UNKNOWN
    if certificate.number < node.confirmed_number:
        return Standing.PUT_AWAY
    return Standing.NEWER if certificate.number > node.confirmed_number else Standing.CURRENT


def new_node(
    workload: Workload,
    token_id: str,
    node_key_der: bytes,
    *,
    now: float,
    lifetime_s: float,
    token_hex: Callable[[int], str] = secrets.token_hex,
) -> Node:
    """Of what just joined. `node_key_der`: its key, whose possession was proved; empty: it has none and cannot rejoin.

    Raises certs.errors.InvalidCsr."""
    return Node(
        node_id=key_id(load(node_key_der)) if node_key_der else token_hex(16),
        workload_id=workload.workload_id,
        token_id=token_id,
        public_key_der=node_key_der,
        joined_at=now,
        expires_at=now + lifetime_s,
    )


def refusal_to_rejoin(node: Node | None, workload: Workload | None, *, now: float, is_revoked: bool) -> str:
    """Why a node that has proved its key may not come back; empty: it may.

    `is_revoked`: its identity, or the token it came with."""
    if node is None:
        return "this node is not known here"
    if workload is None:
        return "its workload was removed from the mesh"
    if is_revoked:
        return "its identity or its join token was revoked"
    if now >= node.expires_at:
        return "it was away for too long"
    return ""
