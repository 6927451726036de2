"""Nonces for those who come back: good once, for a minute, and nothing is kept for who only asks for one.

    nonce = time (8 octets, milliseconds)  random (8 octets)  tag (16 octets of HMAC-SHA-256 over both)

The key is drawn at every start, so a nonce of before a restart is no good; asking for another costs nothing. What was
used is remembered until it would have expired, and how much that can be is bounded: only who proved a node key uses one
up, so strangers cannot fill it.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from collections.abc import Callable

from control_plane.errors import InvalidRequest, ResourceExhausted

NONCE_OCTETS = 32
GOOD_S = 60.0
USED_MAX = 100_000


class Challenges:
    """One per process. Times are Unix seconds."""

    def __init__(self, token_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._token_bytes = token_bytes
        self._key = token_bytes(32)
        self._used: OrderedDict[bytes, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Challenges used={len(self._used)}>"

    def make(self, now: float) -> bytes:
        body = int(now * 1_000).to_bytes(8) + self._token_bytes(8)
        return body + self._tag(body)

    def check(self, nonce: bytes, now: float) -> None:
        """Before anything is believed. Raises InvalidRequest for one that is not ours, is too old, or was used."""
        body, tag = nonce[:16], nonce[16:]
        if len(nonce) != NONCE_OCTETS or not hmac.compare_digest(tag, self._tag(body)):
            raise InvalidRequest("nonce: not one of this control plane's; ask for a challenge")
        made_at = _made_at(nonce)
        if not made_at - 1.0 <= now < made_at + GOOD_S:
            raise InvalidRequest(f"nonce: is good for {GOOD_S:.0f} s; ask for another challenge")
        if nonce in self._used:
            raise InvalidRequest("nonce: was used before; ask for another challenge")

    def spend(self, nonce: bytes, now: float) -> None:
        """Uses one up that was checked and signed. Raises InvalidRequest as `check`, ResourceExhausted."""
        self.check(nonce, now)
        self._forget(now)
        if len(self._used) >= USED_MAX:
            raise ResourceExhausted("too many nodes come back at once; try again in a minute")
        self._used[nonce] = _made_at(nonce) + GOOD_S

    def _forget(self, now: float) -> None:
        while self._used and next(iter(self._used.values())) <= now:
            self._used.popitem(last=False)

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:16]


def _made_at(nonce: bytes) -> float:
    return int.from_bytes(nonce[:8]) / 1_000
