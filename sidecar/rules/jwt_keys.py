"""JSON Web Key Sets (RFC 7517): the public keys an issuer signs with, and the one place that asks the JOSE library.

The algorithm belongs to the key, not to the token (security.md E01 to E03, RFC 8725 section 3.1): `Key.algorithms` is
what its type and curve allow, narrowed by its own `alg`. Only asymmetric ones exist here, so a public key can never be
taken for a shared secret.

What verifies is joserfc, for three reasons: RSA, EC and OKP keys are types of their own there, which no algorithm of
another type takes; it loads no HTTP client, as PyJWT does for its own key fetching, beside every service; and its
releases follow each other closely, with types and few open reports. Of it only the import of single public keys and the
raw verification are used; headers, claims and sets are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from sidecar.rules.facts import Json
from sidecar.rules.jwt_json import Refused, read_base64url, read_object

KEY_SET_OCTETS_MAX = 1_048_576
KEYS_MAX = 100
KEY_ID_CHARS_MAX = 1_024
RSA_BITS_MIN, RSA_BITS_MAX = 2_048, 8_192
"""Below is unsafe (RFC 7518 section 3.3), above costs a caller nothing and us much."""
RSA_EXPONENT_OCTETS_MAX = 4

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_OF_CURVE = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),  # RFC 8037 section 3.1, RFC 9864 section 2.2
}
ALGORITHMS = RSA_ALGORITHMS.union(*_OF_CURVE.values())
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeySetRefused(ValueError):
    """Not a key set, or none of its keys can be used. The text quotes nothing of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One public key for signatures."""

    kid: str
    """Empty: the set gives it no name."""
    algorithms: frozenset[str]
    """What it may be used with."""
    _key: RSAKey | ECKey | OKPKey

    def verifies(self, signing_input: bytes, signature: bytes, algorithm: str) -> bool:
        """Whether `signature` was made with the private half of this key. Never raises."""
        if algorithm not in self.algorithms:
            return False
        model = JWSRegistry.algorithms["Ed25519" if algorithm == "EdDSA" else algorithm]
        try:
            return model.verify(signing_input, signature, self._key) is True
        except (JoseError, ValueError, TypeError, UnsupportedAlgorithm):
            return False


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """What an issuer published. Two are equal only if they are the same object."""

    keys: tuple[Key, ...]
    by_kid: Mapping[str, tuple[Key, ...]]
    """Names are looked up, never interpreted (E04). "" has those without a name."""
    skipped: int = 0
    """Keys that cannot be used: of another type or use, too weak, or with their private half."""

    def candidates(self, kid: str | None) -> tuple[Key, ...]:
        """The keys a token may be signed with: of that name, or else without one; all, if the token names none."""
        if kid is None:
            return self.keys
        return self.by_kid.get(kid) or self.by_kid.get("", ())


def read_key_set(text: bytes | str) -> KeySet:
    """A JWK Set as published. Keys that we cannot use are passed over (RFC 7517 section 5). Raises KeySetRefused."""
    octets = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(octets) > KEY_SET_OCTETS_MAX:
        raise KeySetRefused(f"is larger than {KEY_SET_OCTETS_MAX} octets")
    try:
        found = read_object(octets)
    except Refused as e:
        raise KeySetRefused(str(e)) from None
    members = found.get("keys")
    if not isinstance(members, tuple):
        raise KeySetRefused("has no list `keys`")
    if len(members) > KEYS_MAX:
        raise KeySetRefused(f"has more than {KEYS_MAX} keys")
    keys = tuple(key for key in map(_key, members) if key is not None)
    if not keys:
        raise KeySetRefused("has no key that verifies signatures (RSA from 2048 bits, EC P-256/384/521, Ed25519)")
    by_kid: dict[str, tuple[Key, ...]] = {}
    for key in keys:
        by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
    return KeySet(keys, by_kid, len(members) - len(keys))


def _key(member: Json) -> Key | None:
    """None: not one that we can use."""
    if not isinstance(member, Mapping) or not _SECRET.isdisjoint(member):
        return None  # a private key that is published is nobody's any more
    kid, kty, use, operations = (member.get(name) for name in ("kid", "kty", "use", "key_ops"))
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= KEY_ID_CHARS_MAX):
        return None
    if use not in (None, "sig") or (operations is not None and not _may_verify(operations)):
        return None
    curve = member.get("crv")
    allowed = RSA_ALGORITHMS if kty == "RSA" else frozenset()
    if isinstance(kty, str) and isinstance(curve, str):
        allowed = _OF_CURVE.get((kty, curve), allowed)
    if (algorithm := member.get("alg")) is not None:
        allowed &= {algorithm} if isinstance(algorithm, str) else set()
    if not allowed:
        return None
    assert isinstance(kty, str)
    try:
        return Key(kid or "", allowed, _imported(kty, member))
    except (JoseError, ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm):
        return None


def _may_verify(operations: Json) -> bool:
    return isinstance(operations, tuple) and "verify" in operations


def _imported(kty: str, member: Mapping[str, Json]) -> RSAKey | ECKey | OKPKey:
    """Its public members and no others. Raises ValueError, or what the library raises."""
    names = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}[kty]
    public: dict[str, Any] = {"kty": kty}
    for name in names:
        value = member[name]
        if not isinstance(value, str):
            raise TypeError(name)
        octets = value.encode() if name == "crv" else read_base64url(value)
        if name == "e" and len(octets) > RSA_EXPONENT_OCTETS_MAX:
            raise ValueError(name)
        if name == "n" and not RSA_BITS_MIN <= int.from_bytes(octets, "big").bit_length() <= RSA_BITS_MAX:
            raise ValueError(name)
        public[name] = value
    if kty == "RSA":
        return RSAKey.import_key(public)
    return ECKey.import_key(public) if kty == "EC" else OKPKey.import_key(public)
