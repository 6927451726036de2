"""The authorities, in memory and in the store: every change is one transaction with its audit record in it.

The view is made before anything is written, so that what could not be used afterwards is never committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from certs.spiffe_id import TrustDomain
from control_plane.audit import AuditLog
from control_plane.ca.slots import CaPolicy, Live, LiveUnder, superseded_at
from control_plane.ca.vault import Vault
from control_plane.ca.view import View, make_view, nobody
from control_plane.model import Authority, IssuedRecord, Level, Phase
from control_plane.store.base import Store

MADE_FACT = "certificate authority"
SUCCESSIONS_KEPT = 64
FORGOTTEN_AFTER_S = 86_400.0
"""Revoked ones that have ended are shown so long."""


class Book:
    """Reads and writes; decides nothing."""

    def __init__(
        self,
        store: Store,
        audit: AuditLog,
        trust_domain: TrustDomain,
        vault: Vault,
        policy: CaPolicy,
        *,
        now: float,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._audit = audit
        self._trust_domain = trust_domain
        self._vault = vault
        self._policy = policy
        self._token_bytes = token_bytes
        self._nobody_der = nobody(trust_domain, now, token_bytes)
        self.view = self._view_of(store.authorities())

    def begin(self, made: Iterable[Authority], event: str, now: float) -> None:
        """The first authorities, and the fact that there were some: should they ever be gone, no others are made."""
        with self._store.transaction():
            self._store.record_fact(MADE_FACT, "made")
            self.write(made, event, now, "control plane")

    def write(
        self, changed: Iterable[Authority], event: str, now: float, by: str, **fields: str | float | list[str]
    ) -> None:
        """Commits the changes, in an order in which no level has two active ones. Raises ControlPlaneError; then
        nothing has changed."""
        ordered = sorted(changed, key=lambda one: one.phase is Phase.ACTIVE)
        merged = {one.authority_id: one for one in self.view.authorities} | {one.authority_id: one for one in ordered}
        view = self._view_of(sorted(merged.values(), key=lambda one: (one.prepared_at, one.authority_id)))
        with self._store.transaction():
            for one in ordered:
                self._store.put_authority(one)
            about = [f"{one.level.value} {one.authority_id} {one.phase.value}" for one in ordered]
            self._audit.append(f"ca.{event}", at=now, by=by, authorities=about, **fields)
        self.view = view
        self._vault.keep_only(frozenset(one.authority_id for one in view.authorities if one.sealed_key))

    def forget(self, now: float) -> bool:
        """Drops what nobody asks about any more. Roots are kept as long as their successions may be followed."""
        roots = [one for one in self.view.authorities if one.level is Level.ROOT]
        dropped = [
            one
            for one in self.view.authorities
            if one.phase is Phase.REVOKED
            and one.not_after + FORGOTTEN_AFTER_S < now
            and (one.level is not Level.ROOT or one in roots[:-SUCCESSIONS_KEPT])
        ]
        if not dropped:
            return False
        with self._store.transaction():
            for one in dropped:
                self._store.forget_authority(one.authority_id)
        gone = {one.authority_id for one in dropped}
        self.view = self._view_of([one for one in self.view.authorities if one.authority_id not in gone])
        return True

    def ends(self, now: float) -> Live:
        """Until when something hangs on whom, without counting it: for every tick."""
        under = [
            LiveUnder(issuer_id=issuer_id, root_id=root_id, count=0, until=0.0, open_until=until)
            for (issuer_id, root_id), until in self._store.unexpired_until(now).items()
        ]
        return Live(under=(*under, *self._pinned(now)))

    def _pinned(self, now: float) -> Iterable[LiveUnder]:
        """Join tokens carry the pin of the root that was active when they were made: who comes with one looks for that
        root in the chain that the join port shows."""
        for one in self.view.authorities:
            if one.level is Level.ROOT and one.phase is Phase.OLD:
                until = self._store.unspent_tokens_until(superseded_at(one, self.view.authorities), now)
                name = one.authority_id
                yield LiveUnder(issuer_id=name, root_id=name, count=0, until=0.0, open_until=until)

    def live(self, now: float) -> Live:
        """What hangs on whom, with names. Of the control plane's own certificates only the last counts."""
        certificates = self._store.live_certificates(now)
        own = max((one.number for one in certificates if one.workload_id is None), default=0)
        ends = self._store.unexpired_until(now)
        held: dict[tuple[str, str], list[IssuedRecord]] = {pair: [] for pair in ends}
        for one in certificates:
            if one.workload_id is not None or one.number == own:
                held.setdefault((one.issuer_id, one.root_id), []).append(one)
        under = []
        for pair, records in sorted(held.items()):
            until = max((one.not_after for one in records), default=0.0)
            under.append(
                LiveUnder(
                    issuer_id=pair[0],
                    root_id=pair[1],
                    count=len(records),
                    until=until,
                    open_until=max(until, ends.get(pair, 0.0)),
                    holders=tuple(map(_label, records)),
                )
            )
        return Live(under=(*under, *self._pinned(now)))

    def _view_of(self, authorities: Sequence[Authority]) -> View:
        return make_view(
            authorities,
            self._trust_domain,
            self._vault,
            self._policy,
            nobody_der=self._nobody_der,
            token_bytes=self._token_bytes,
        )


def _label(one: IssuedRecord) -> str:
    return f"{one.spiffe_id} (certificate {one.serial:x})"
