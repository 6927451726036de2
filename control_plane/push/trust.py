"""Whom the mesh trusts, as every snapshot says it."""

from __future__ import annotations

from dataclasses import dataclass

from certs.revocation import NOTHING_REVOKED, Revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The same for every workload. Compared by value: a change of it is a change of every snapshot."""

    anchors_der: tuple[bytes, ...]
    revocations: Revocations = NOTHING_REVOKED
    jwt_keys: str = ""
    """JSON Web Key Set; empty: no JWT-SVIDs are signed."""
