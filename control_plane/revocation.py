"""What is revoked now, for whoever has to refuse it: the calls of this process, and every sidecar.

Operators revoke identities, serial numbers and join tokens. A token stands for all that came of it: revoking one writes
down the serial numbers of the certificates it led to, so that they stay revoked whatever the node does next, and nobody
has to look for them again at every call. Authorities are revoked and tainted by their phase.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from certs.errors import CertsError
from certs.revocation import NOTHING_REVOKED, Revocations
from certs.spiffe_id import SpiffeId
from control_plane.ca.authority import CertificateAuthority
from control_plane.errors import TrustBroken
from control_plane.model import Node, RevocationRecord, RevokedKind
from control_plane.store.base import Store

log = logging.getLogger(__name__)


class RevokedView:
    """Made anew when the store has changed, and the same value as long as it says the same."""

    def __init__(self, store: Store, authority: CertificateAuthority) -> None:
        self._store = store
        self._authority = authority
        self._as_of: tuple[object, ...] = ()
        self._held = NOTHING_REVOKED
        self._tokens: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<RevokedView identities={len(self._held.identities)} serials={len(self._held.serials)}>"

    def current(self) -> Revocations:
        """As of now."""
        as_of = (
            self._store.revocation_changes,
            self._authority.revoked_intermediates,
            self._authority.tainted,
        )
        if as_of != self._as_of:
            self._read()
            self._as_of = as_of
        return self._held

    def is_revoked_token(self, token_id: str) -> bool:
        """Whoever came with it does not come back."""
        self.current()
        return token_id in self._tokens

    def _read(self) -> None:
        try:
            records = self._store.revocations()
        except TrustBroken:
            if not self._as_of:
                raise
            # What was read before was vouched for, this is not. Nothing can be revoked meanwhile: that raises, too.
            log.exception(
                "the revocations in the database are not those that were written; the last ones stay in force"
            )
            return
        found = Revocations(
            identities=frozenset(
                identity for one in records if one.kind is RevokedKind.IDENTITY and (identity := _identity(one.value))
            ),
            serials=frozenset(int(one.value, 16) for one in records if one.kind is RevokedKind.SERIAL),
            authorities=self._authority.revoked_intermediates,
            tainted_authorities=self._authority.tainted,
        )
        if found != self._held:
            self._held = found
        self._tokens = frozenset(one.value for one in records if one.kind is RevokedKind.TOKEN)


# --- what a join token stands for ------------------------------------------------------------------------------------


def serials_of_token(store: Store, token_id: str, now: float) -> tuple[int, ...]:
    """Of every certificate that has not expired and came of that token, whatever its node joined with since; and of
    what its node had before."""
    return tuple(one.serial for one in store.certificates_of_token(token_id, now))


def serials_of_node(store: Store, node_id: str, now: float) -> tuple[int, ...]:
    """The same of one node; those it has replaced included, for somebody may have kept them."""
    return tuple(one.serial for one in store.certificates_of_node(node_id, now))


def revoke_token(store: Store, token_id: str, serials: Iterable[int], *, now: float, by: str, reason: str) -> bool:
    """The token and the serial numbers of what came of it. Inside a transaction. False: the token was revoked before,
    and no new certificate came of it."""
    told = _of_token(token_id) + (f": {reason}" if reason else "")
    meant = [(RevokedKind.TOKEN, token_id, reason)]
    meant += [(RevokedKind.SERIAL, f"{serial:x}", told) for serial in serials]
    has_changed = False
    for kind, value, why in meant:
        has_changed |= store.put_revocation(RevocationRecord(kind=kind, value=value, at=now, by=by, reason=why))
    return has_changed


def reinstate_token(store: Store, token_id: str) -> bool:
    """The reverse; what was revoked by its own serial number stays revoked. Inside a transaction. False: it was not
    revoked."""
    if not store.delete_revocation(RevokedKind.TOKEN, token_id):
        return False
    for one in store.revocations():
        if one.kind is RevokedKind.SERIAL and (one.reason + ":").startswith(_of_token(token_id) + ":"):
            store.delete_revocation(RevokedKind.SERIAL, one.value)
    return True


def revoke_node(store: Store, node: Node, *, now: float, by: str, reason: str) -> tuple[tuple[RevokedKind, str], ...]:
    """Its token, so that it cannot come back, and its certificates. What was revoked, a token standing for all that
    came of it. Inside a transaction."""
    serials = serials_of_node(store, node.node_id, now)
    if node.token_id:
        revoke_token(store, node.token_id, serials, now=now, by=by, reason=reason)
        return ((RevokedKind.TOKEN, node.token_id),)
    told = tuple((RevokedKind.SERIAL, f"{serial:x}") for serial in serials)
    for kind, value in told:  # it was a member before this store knew of it
        store.put_revocation(RevocationRecord(kind=kind, value=value, at=now, by=by, reason=reason))
    return told


def _of_token(token_id: str) -> str:
    return f"join token {token_id}"


def _identity(value: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(value)
    except CertsError:
        return None
