"""What is revoked now, for whoever has to refuse it: the calls of this process, and every sidecar.

Operators revoke identities, serial numbers and join tokens. A token stands for all that came of it: revoking one writes
down the serial numbers of the certificates it led to (`serials_of_token`), so that nobody has to look for them again at
every call. Authorities are revoked and tainted by their phase.
"""

from __future__ import annotations

from certs.errors import CertsError
from certs.revocation import NOTHING_REVOKED, Revocations
from certs.spiffe_id import SpiffeId
from control_plane.ca.authority import CertificateAuthority
from control_plane.model import RevokedKind
from control_plane.store.base import Store


class RevokedView:
    """Made anew when the store has changed, and the same value as long as it says the same."""

    def __init__(self, store: Store, authority: CertificateAuthority) -> None:
        self._store = store
        self._authority = authority
        self._as_of: object = None
        self._held = NOTHING_REVOKED

    def current(self) -> Revocations:
        """As of the store's revision."""
        as_of = (
            self._store.epoch,
            self._store.revision,
            self._authority.revoked_intermediates,
            self._authority.tainted,
        )
        if as_of != self._as_of:
            found = self._read()
            if found != self._held:
                self._held = found
            self._as_of = as_of
        return self._held

    def is_revoked_token(self, token_id: str) -> bool:
        return any(one.kind is RevokedKind.TOKEN and one.value == token_id for one in self._store.revocations())

    def _read(self) -> Revocations:
        records = self._store.revocations()
        return Revocations(
            identities=frozenset(
                identity for one in records if one.kind is RevokedKind.IDENTITY and (identity := _identity(one.value))
            ),
            serials=frozenset(int(one.value, 16) for one in records if one.kind is RevokedKind.SERIAL),
            authorities=self._authority.revoked_intermediates,
            tainted_authorities=self._authority.tainted,
        )


def serials_of_token(store: Store, token_id: str, now: float) -> tuple[int, ...]:
    """Of every certificate that has not expired and belongs to what joined with that token."""
    return tuple(
        serial
        for node in store.nodes()
        if node.token_id == token_id
        for serial in serials_of_node(store, node.node_id, now)
    )


def serials_of_node(store: Store, node_id: str, now: float) -> tuple[int, ...]:
    """The same of one node; those it has replaced included, for somebody may have kept them."""
    return tuple(one.serial for one in store.certificates_of_node(node_id, now))


def _identity(value: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(value)
    except CertsError:
        return None
