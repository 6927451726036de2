"""Private keys of authorities: sealed as they are stored, opened when they are needed."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority_id import key_id
from control_plane.ca import keys
from control_plane.ca.errors import EnvelopeError
from control_plane.model import Authority


class Vault:
    """Holds the key-encryption key. Opens a key once and keeps it while it may be needed."""

    def __init__(self, kek: bytes, *, token_bytes: Callable[[int], bytes]) -> None:
        self._kek = kek
        self._token_bytes = token_bytes
        self._opened: dict[str, ec.EllipticCurvePrivateKey] = {}

    def __repr__(self) -> str:
        return f"<Vault, {len(self._opened)} keys opened>"

    def seal(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        return keys.seal(key, kek=self._kek, nonce=self._token_bytes(keys.NONCE_BYTES))

    def unseal(self, authority: Authority) -> ec.EllipticCurvePrivateKey:
        """Raises EnvelopeError: damaged, sealed with another KEK, another authority's, or not kept here."""
        found = self._opened.get(authority.authority_id)
        if found is None:
            if not authority.sealed_key:
                raise EnvelopeError("its private key is not kept here", row="J06")
            found = keys.unseal(authority.sealed_key, kek=self._kek)
            if key_id(found.public_key()) != authority.authority_id:
                raise EnvelopeError("holds another authority's key", row="J06")
            self._opened[authority.authority_id] = found
        return found

    def keep_only(self, authority_ids: frozenset[str]) -> None:
        """Forgets the keys of all others."""
        for name in self._opened.keys() - authority_ids:
            del self._opened[name]
