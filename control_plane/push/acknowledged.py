"""Who knows which authority: what rotations wait for.

A node that acknowledged a snapshot knows the anchors and the keys that were in it. A node counts while it holds a
certificate that has not ended, unless it left in good order or was revoked. After a restart of ours nobody has said
anything yet, so nothing happens until everybody has said it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from certs.authority_id import authority_ids
from certs.revocation import Revocations
from control_plane.ca.slots import Readiness
from control_plane.model import Authority, IssuedRecord, Level, Phase
from control_plane.store.base import Store

LOOKED_AT_EVERY_S = 1.0


class Acknowledged:
    """By `holder`."""

    def __init__(
        self,
        store: Store,
        authorities: Callable[[], Sequence[Authority]],
        revoked: Callable[[], Revocations],
    ) -> None:
        self._store = store
        self._authorities = authorities
        self._revoked = revoked
        self._known: dict[str, frozenset[str]] = {}
        self._jwt_keys: dict[str, str] = {}
        self._left: set[str] = set()
        self._changes = 0
        self._held: tuple[tuple[object, ...], float, Readiness] = ((), float("-inf"), Readiness())

    def __repr__(self) -> str:
        return f"<Acknowledged nodes={len(self._known)}>"

    def said(self, certificate: IssuedRecord, anchors_der: Sequence[bytes], jwt_keys: str) -> None:
        """Whoever has that certificate has a snapshot with these in force."""
        node_id = holder(certificate)
        known = frozenset(_authority_id(der) for der in anchors_der)
        if self._known.get(node_id) != known or self._jwt_keys.get(node_id) != jwt_keys or node_id in self._left:
            self._known[node_id] = known
            self._jwt_keys[node_id] = jwt_keys
            self._left.discard(node_id)
            self._changes += 1

    def left(self, certificate: IssuedRecord) -> None:
        """In good order: it calls nobody and takes no calls, whatever its certificate says."""
        self._left.add(holder(certificate))
        self._changes += 1

    def forget(self, now: float) -> None:
        """Those whose last certificate has ended. `now`: Unix seconds."""
        live = {holder(one) for one in self._store.live_certificates(now)}
        self._known = {node_id: known for node_id, known in self._known.items() if node_id in live}
        self._jwt_keys = {node_id: keys for node_id, keys in self._jwt_keys.items() if node_id in live}
        self._left &= live

    def readiness(self, now: float) -> Readiness:
        """Of every authority that something may wait for; `now` in Unix seconds."""
        wanted = [one for one in self._authorities() if self._is_wanted(one)]
        if not wanted:
            return Readiness()
        as_of = (self._changes, self._store.revision, tuple(one.authority_id for one in wanted))
        if as_of != self._held[0] or not 0 <= now - self._held[1] < LOOKED_AT_EVERY_S:
            self._held = as_of, now, self._look(wanted, now)
        return self._held[2]

    def _is_wanted(self, one: Authority) -> bool:
        if one.phase is Phase.PREPARED:
            return one.level is not Level.INTERMEDIATE
        is_active_root = one.level is Level.ROOT and one.phase is Phase.ACTIVE
        return is_active_root and not any(
            other.parent_id == one.authority_id and other.level is Level.INTERMEDIATE and other.activated_at
            for other in self._authorities()
        )

    def _look(self, wanted: Sequence[Authority], now: float) -> Readiness:
        revoked = self._revoked()
        labels: dict[str, str] = {}
        for one in self._store.live_certificates(now):
            who = holder(one)
            is_away = who in self._left or revoked.refusal(one.spiffe_id, one.serial, (one.issuer_id,))
            if one.workload_id is not None and not is_away:
                labels[who] = f"{one.spiffe_id} ({f'node {one.node_id[:8]}' if one.node_id else who})"
        return Readiness(
            missing={
                one.authority_id: tuple(label for node_id, label in labels.items() if not self._knows(node_id, one))
                for one in wanted
            }
        )

    def _knows(self, node_id: str, one: Authority) -> bool:
        if one.level is Level.JWT:
            return one.authority_id in self._jwt_keys.get(node_id, "")
        return one.authority_id in self._known.get(node_id, ())


def holder(certificate: IssuedRecord) -> str:
    """Who has it: its node, or, for one that an older release issued, whoever shows it."""
    return certificate.node_id or f"serial {certificate.serial:x}"


@lru_cache(maxsize=64)
def _authority_id(der: bytes) -> str:
    (found,) = authority_ids((der,))
    return found
