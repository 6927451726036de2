"""The copy of the mesh: what each sidecar holds and knows, and what it does by itself.

It does what sidecars do: renews at half of a certificate's life, takes snapshots `PUSH_S` after they change, and comes
back with its node key when its certificate has ended (`sidecar.identity.rotator` in one breath).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.ca.rehearse.model import Sidecar
from control_plane.ca.slots import PUBLISHED, SKEW_S, Live, LiveUnder, Readiness, active, is_distrusted
from control_plane.model import Authority, Level

PUSH_S = 2.0
"""From a change until a connected sidecar has acknowledged it: longer than it takes."""

Chain = tuple[str, str]
"""(issuer, root) of a certificate, by their ids."""


@dataclass(slots=True, kw_only=True)
class Member:
    """One sidecar while the rehearsal runs."""

    origin: Sidecar
    is_connected: bool
    chain: Chain
    issued_at: float
    not_after: float
    knows: frozenset[str]
    revoked: frozenset[str] = frozenset()
    """Intermediates it has been told not to trust."""
    used: Counter[Chain] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def renews_at(self) -> float:
        return self.issued_at + (self.not_after - self.issued_at) / 2

    @property
    def can_renew(self) -> bool:
        """A clock that lags by more than certificates are backdated refuses every new one as not valid yet."""
        return self.is_connected and self.origin.clock_skew_s >= -SKEW_S


class Copy:
    """Members, and what has been signed for them."""

    def __init__(self, sidecars: Iterable[Sidecar]) -> None:
        self.members = [
            Member(
                origin=one,
                is_connected=one.away_since is None,
                chain=(one.issuer_id, one.root_id),
                issued_at=one.issued_at,
                not_after=one.not_after,
                knows=one.knows,
            )
            for one in sidecars
        ]
        self._open_until: dict[Chain, float] = {}
        for one in self.members:
            self._signed(one.chain, one.not_after)

    @property
    def connected(self) -> list[Member]:
        return [one for one in self.members if one.is_connected]

    def renew(self, member: Member, authorities: Sequence[Authority], now: float, lifetime_s: float) -> bool:
        """A new certificate from whoever signs. False: nobody can."""
        signer = active(authorities, Level.INTERMEDIATE)
        if signer is None or now >= signer.not_after:
            return False
        ends = [signer.not_after, *(one.not_after for one in authorities if one.authority_id == signer.parent_id)]
        member.chain = (signer.authority_id, signer.parent_id)
        member.issued_at, member.not_after = now, min(now + lifetime_s, *ends)
        self._signed(member.chain, member.not_after)
        return True

    def push(self, authorities: Sequence[Authority]) -> None:
        """Every connected sidecar has taken what is published."""
        published = trusted_roots(authorities)
        revoked = frozenset(
            one.authority_id for one in authorities if one.level is Level.INTERMEDIATE and is_distrusted(one)
        )
        for one in self.connected:
            if one.origin.takes_snapshots:
                one.knows, one.revoked = published, revoked

    def come_back(self, member: Member, authorities: Sequence[Authority], now: float, lifetime_s: float) -> bool:
        """One that was away connects again. False: it cannot without a new join token."""
        if now >= member.not_after and not self._rejoin(member, authorities, now, lifetime_s):
            return False
        member.is_connected = True
        if member.origin.takes_snapshots:
            member.knows = trusted_roots(authorities)
        return True

    def live(self, now: float) -> Live:
        """As the store has it: what has not ended, in use or replaced."""
        held = Counter(one.chain for one in self.members if now < one.not_after)
        until: dict[Chain, float] = {}
        for one in self.members:
            until[one.chain] = max(until.get(one.chain, 0.0), one.not_after)
        return Live(
            under=tuple(
                LiveUnder(
                    issuer_id=chain[0],
                    root_id=chain[1],
                    count=held[chain],
                    until=until.get(chain, 0.0) if held[chain] else 0.0,
                    open_until=ends,
                    holders=tuple(one.name for one in self.members if one.chain == chain and now < one.not_after),
                )
                for chain, ends in sorted(self._open_until.items())
                if now < ends
            )
        )

    def readiness(self, authorities: Sequence[Authority], now: float) -> Readiness:
        """Who holds a live certificate and has not acknowledged a root. Intermediates travel with every leaf."""
        holders = [one for one in self.members if now < one.not_after]
        missing: dict[str, tuple[str, ...]] = {}
        for one in authorities:
            if one.level is Level.ROOT and one.phase in PUBLISHED:
                unaware = (member.name for member in holders if one.authority_id not in member.knows)
                missing[one.authority_id] = tuple(unaware)
        return Readiness(missing=missing)

    def _rejoin(self, member: Member, authorities: Sequence[Authority], now: float, lifetime_s: float) -> bool:
        if now > member.origin.rejoins_until or not reaches(member.knows, authorities):
            return False
        return self.renew(member, authorities, now, lifetime_s)

    def _signed(self, chain: Chain, not_after: float) -> None:
        self._open_until[chain] = max(self._open_until.get(chain, 0.0), not_after)


def trusted_roots(authorities: Iterable[Authority]) -> frozenset[str]:
    return frozenset(one.authority_id for one in authorities if one.level is Level.ROOT and one.phase in PUBLISHED)


def reaches(knows: frozenset[str], authorities: Sequence[Authority]) -> bool:
    """Does somebody who knows those roots find the one that signs today, by statements (`certs.succession`)?"""
    by_id: Mapping[str, Authority] = {one.authority_id: one for one in authorities}
    signer = active(authorities, Level.INTERMEDIATE)
    current = by_id.get(signer.parent_id) if signer is not None else None
    for _ in range(len(by_id)):
        if current is None:
            return False
        if current.authority_id in knows:
            return current.authority_id in trusted_roots(authorities)
        predecessor = by_id.get(current.predecessor_id) if current.succession else None
        if predecessor is not None and is_distrusted(predecessor):
            return False
        if predecessor is not None and predecessor.authority_id in knows:
            return True
        current = predecessor
    return False
