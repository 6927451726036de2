"""Who could not talk to the others, from when to when, and why.

Two sidecars can talk when each takes the other's certificate: it has not ended, its root is among those the other
knows, and its intermediate is not among those the other was told to refuse. When they cannot, the one to blame is the
one that lags: whoever has not acknowledged a root that is published refuses others; whoever stands under one that is
not published any more is refused by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from control_plane.ca.refusals import date
from control_plane.ca.rehearse.mesh import Copy, Member, reaches, trusted_roots
from control_plane.ca.rehearse.model import RehearsedFailure
from control_plane.ca.slots import SKEW_S
from control_plane.model import Authority


@dataclass(frozen=True, slots=True)
class _Fault:
    why: str
    heals: bool
    """False: not without somebody doing something, if it is still there at the end."""


class Judge:
    """Remembers since when whom something is wrong with."""

    def __init__(self, copy: Copy, lifetime_s: float) -> None:
        self._copy = copy
        self._lifetime_s = lifetime_s
        self._open: dict[tuple[str, str], tuple[float, bool]] = {}
        """(who, why) -> since when, and whether it heals by itself."""
        self._done: list[RehearsedFailure] = []

    def look(self, authorities: Sequence[Authority], now: float, only: Iterable[Member] | None = None) -> None:
        """At all who are connected, or at some. What is not so any more is closed."""
        members = self._copy.connected if only is None else list(only)
        published = trusted_roots(authorities)
        everybody = _Everybody(self._copy.connected)
        for member in members:
            found = {fault.why: fault for fault in self._faults(member, everybody, published, now)}
            for who, why in [key for key in self._open if key[0] == member.name]:
                if why not in found:
                    self._close(who, why, now)
            for fault in found.values():
                self._open.setdefault((member.name, fault.why), (now, fault.heals))

    @property
    def expects_more(self) -> bool:
        """Something is wrong that mends itself, so its end is to be seen."""
        return any(heals for _, heals in self._open.values())

    def missed(self, member: Member, authorities: Sequence[Authority], back_at: float, *, is_back: bool) -> None:
        """One that was away when its certificate ended: did it come back?"""
        since = f"away since {date(member.origin.away_since or 0.0)}, longer than its certificate lives"
        if is_back:
            why = f"{since}: comes back by itself with its node key"
        elif not member.origin.rejoins_until:
            why = f"{since}, and it has no node key (no state_dir): needs a new join token"
        elif back_at > member.origin.rejoins_until:
            why = (
                f"{since}, and its node key was good until {date(member.origin.rejoins_until)}: needs a new join token"
            )
        elif not reaches(member.knows, authorities):
            why = f"{since}, and nobody it trusts vouches for the root of then: needs a new join token"
        else:
            why = f"{since}, and nobody can sign for it: see `hauberk ca status`"
        until = back_at if is_back else 0.0
        self._done.append(RehearsedFailure(who=member.name, start=member.origin.not_after, until=until, why=why))

    def report(self, now: float) -> tuple[RehearsedFailure, ...]:
        for (who, why), (start, heals) in self._open.items():
            until = now if heals else 0.0
            self._done.append(RehearsedFailure(who=who, start=start, until=until, why=why))
        self._open.clear()
        return tuple(sorted(self._done, key=lambda one: (one.start, one.who, one.why)))

    def _close(self, who: str, why: str, now: float) -> None:
        start, _ = self._open.pop((who, why))
        if now > start:
            self._done.append(RehearsedFailure(who=who, start=start, until=now, why=why))

    def _faults(self, member: Member, everybody: _Everybody, published: frozenset[str], now: float) -> Iterator[_Fault]:
        if clock := list(self._clock_faults(member)):
            yield from clock  # the rest follows from it
            return
        if now >= member.not_after:
            yield _Fault("its certificate has ended and it could not renew it", heals=False)
        issuer_id, root_id = member.chain
        for root in sorted(everybody.roots_of_others(member) & published - member.knows):
            yield _Fault(f"it has not acknowledged the root {root} and refuses everybody under it", heals=False)
        if everybody.is_alone:
            return
        if root_id not in published and root_id not in everybody.known_to_all:
            yield _Fault(f"its certificate stands under the root {root_id}, which is trusted no more", heals=True)
        if issuer_id in everybody.revoked_by_any:
            yield _Fault(f"its certificate stands under the intermediate {issuer_id}, which was revoked", heals=True)

    def _clock_faults(self, member: Member) -> Iterator[_Fault]:
        skew_s = member.origin.clock_skew_s
        if skew_s < -SKEW_S:
            yield _Fault(
                f"its clock is {-skew_s:.0f} s behind, more than the {SKEW_S:.0f} s that certificates are backdated:"
                " it refuses new ones, its own among them; set it by NTP",
                heals=False,
            )
        elif skew_s > self._lifetime_s / 2:
            yield _Fault(
                f"its clock is {skew_s:.0f} s ahead, more than half of a certificate's life: it takes the others'"
                " certificates for ended; set it by NTP",
                heals=False,
            )


class _Everybody:
    """What is true of all who are connected, counted once."""

    def __init__(self, connected: Sequence[Member]) -> None:
        self.is_alone = len(connected) < 2
        self._users: dict[str, int] = {}
        for one in connected:
            self._users[one.chain[1]] = self._users.get(one.chain[1], 0) + 1
        knowledge = {one.knows for one in connected}
        self.known_to_all = frozenset.intersection(*knowledge) if knowledge else frozenset()
        self.revoked_by_any = frozenset().union(*{one.revoked for one in connected})

    def roots_of_others(self, member: Member) -> frozenset[str]:
        own = member.chain[1] if member.is_connected else ""
        return frozenset(root for root, count in self._users.items() if count > (root == own))
