"""Tokens that were verified, remembered: a user's next request costs a hash instead of a signature.

A token is found by its SHA-256, and believed only while the rule that took it is in force, the key set that had its key
is its issuer's, and it has not expired. Asking gives the same `Token` each time, which is what the evaluator's own
memory goes by. Refusals are not remembered: a flood of bad tokens would only push good ones out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sidecar.rules.jwt import LEEWAY_S, Keys, Verified
from sidecar.rules.snapshot import JwtRule

TOKENS_MAX = 1_024
OCTETS_MAX = 2_097_152
"""Of the tokens' texts; what is kept of one is some times larger."""


class Memory:
    """Bounded; the one used longest ago goes first."""

    def __init__(self, tokens_max: int = TOKENS_MAX, octets_max: int = OCTETS_MAX) -> None:
        self._tokens_max = tokens_max
        self._octets_max = octets_max
        self._found: dict[bytes, tuple[Verified, int]] = {}
        self._octets = 0

    def __len__(self) -> int:
        return len(self._found)

    def get(self, text: str, rules: Sequence[JwtRule], keys: Keys, now: float) -> Verified | None:
        """`rules`: those that take tokens from where this one was found. `now`: Unix seconds."""
        digest = _digest(text)
        entry = self._found.pop(digest, None)
        if entry is None:
            return None
        verified, octets = entry
        in_force = any(rule is verified.rule for rule in rules)
        if not in_force or now >= verified.token.expires_at + LEEWAY_S or keys(verified.rule) is not verified.keys:
            self._octets -= octets
            return None
        self._found[digest] = entry
        return verified

    def put(self, text: str, verified: Verified) -> None:
        digest, octets = _digest(text), len(text)
        if (former := self._found.pop(digest, None)) is not None:
            self._octets -= former[1]
        self._found[digest] = verified, octets
        self._octets += octets
        while len(self._found) > self._tokens_max or self._octets > self._octets_max:
            self._octets -= self._found.pop(next(iter(self._found)))[1]

    def clear(self) -> None:
        self._found.clear()
        self._octets = 0


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
