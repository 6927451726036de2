"""What is not to be trusted although its time has not run out yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from certs.spiffe_id import SpiffeId

SERIALS_MAX = 100_000
"""Of one set: those whose certificates still live. More than that is an authority to be revoked, not a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """A set as it is in force, replaced whole. Looked at after a chain has been verified, never instead."""

    identities: frozenset[SpiffeId] = frozenset()
    serials: frozenset[int] = frozenset()
    authorities: frozenset[str] = frozenset()
    """`certs.authority_id.key_id` of intermediates. A root is revoked by leaving the bundle."""
    tainted_authorities: frozenset[str] = frozenset()
    """Still trusted: nobody is refused for them. Who holds a certificate under one renews at once."""

    def refusal(self, identity: SpiffeId, serial: int, authority_ids: Iterable[str]) -> str:
        """Why a certificate is worth nothing: "identity", "serial" or "authority"; empty: it is not in here.

        `authority_ids` are those of the certificates between the leaf and the anchor."""
        if identity in self.identities:
            return "identity"
        if serial in self.serials:
            return "serial"
        if self.authorities and not self.authorities.isdisjoint(authority_ids):
            return "authority"
        return ""


NOTHING_REVOKED = Revocations()
