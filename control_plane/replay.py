"""What the audit file says happened after a backup, done again to the store made from it (security.md J07, R26).

Only what takes rights away, or what shows that something was used, can and must be taken over:

- certificates that were issued: their serial numbers are known again, and whose they are; nodes that joined
- join tokens that were used: every token in the store is voided anyhow (`restore`)
- revocations and reinstatements (events that end in `revoked` and `reinstated`, with `kind`, `value` and `reason`)
- authorities that were tainted, revoked, retired or activated
- resources that were deleted

What the audit file does not hold cannot: the text of policies applied since, the keys of authorities made since. That
is said, one sentence each. Records that speak of transactions that did not commit are left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId
from control_plane.audit.chain import Record
from control_plane.audit.opening import not_committed
from control_plane.model import (
    Authority,
    IssuedRecord,
    Node,
    Phase,
    ResourceKey,
    RevocationRecord,
    RevokedKind,
    Workload,
    WorkloadSpec,
)
from control_plane.revocation import reinstate_token, revoke_token, serials_of_token
from control_plane.store.base import Store

BACKDATED_S = 60.0
NAMED_MAX = 20
"""Names of one kind in what is said."""


@dataclass(slots=True, kw_only=True)
class TakenOver:
    """What was done again, and what could not be."""

    certificates: int = 0
    revocations: int = 0
    authorities: int = 0
    deletions: int = 0
    lost: list[str] = field(default_factory=list)
    """Sentences for the operator."""


def replay(store: Store, records: Sequence[Record], *, by: str) -> TakenOver:
    """Inside a transaction of the caller's. Raises StoreError, Unavailable."""
    undone = not_committed(records)
    done = [one for one in records if not _is_in(one.seq, undone)]
    told = TakenOver()
    specs = _specs(done)
    unplaced: set[str] = set()
    for one in done:
        if "serial" in one.fields and "spiffe_id" in one.fields:
            told.certificates += _certificate(store, one, specs, unplaced)
        elif str(one.fields.get("kind")) in {kind.value for kind in RevokedKind} and "value" in one.fields:
            told.revocations += _revocation(store, one)
    told.authorities = _authorities(store, done, told.lost)
    told.deletions = _resources(store, done, told.lost, by)
    if unplaced:
        told.lost.append(f"these have to join again, with new tokens: {_named(unplaced)}")
    return told


# --- certificates ---------------------------------------------------------------------------------------------------


def _certificate(store: Store, one: Record, specs: dict[str, WorkloadSpec], unplaced: set[str]) -> int:
    told = one.fields
    try:
        spiffe_id, serial = SpiffeId.parse(str(told["spiffe_id"])), int(str(told["serial"]), 16)
    except (CertsError, ValueError):
        return 0
    if store.certificate(serial) is not None:
        return 0
    workload = _workload(store, one, spiffe_id, specs) if spiffe_id.is_workload else None
    if workload is None and spiffe_id.is_workload:
        unplaced.add(str(spiffe_id))
    not_after = told.get("not_after")
    store.record_issued(
        IssuedRecord(
            serial=serial,
            spiffe_id=spiffe_id,
            workload_id=None if workload is None else workload.workload_id,
            not_before=one.at - BACKDATED_S,
            not_after=float(not_after) if isinstance(not_after, (int, float)) else one.at,
            issued_at=one.at,
            node_id=str(told.get("node_id") or ""),
            issuer_id=str(told.get("issuer_id") or ""),
            root_id=str(told.get("root_id") or ""),
            token_id=str(told.get("token_id") or ""),
        )
    )
    if workload is not None:
        _node(store, one, workload)
    return 1


def _node(store: Store, one: Record, workload: Workload) -> None:
    """Whose line the certificate belongs to; what it joined with says its key, each renewal how long it may rejoin."""
    node_id, expires_at = str(one.fields.get("node_id") or ""), one.fields.get("node_expires_at")
    if not node_id or not isinstance(expires_at, (int, float)):
        return
    held = store.node(node_id)
    if held is not None:
        token_id = str(one.fields.get("token_id") or "") if "node_key" in one.fields else held.token_id  # joined again
        store.put_node(replace(held, token_id=token_id, expires_at=max(held.expires_at, float(expires_at))))
    elif "node_key" in one.fields:
        store.put_node(
            Node(
                node_id=node_id,
                workload_id=workload.workload_id,
                token_id=str(one.fields.get("token_id") or ""),
                public_key_der=base64.b64decode(str(one.fields["node_key"])),
                joined_at=one.at,
                expires_at=float(expires_at),
            )
        )


def _workload(store: Store, one: Record, spiffe_id: SpiffeId, specs: dict[str, WorkloadSpec]) -> Workload | None:
    """Whose it is: the one workload of that name there is, or the one its join token was for."""
    service = str(one.fields.get("service") or "")
    found = [live for live in store.workloads() if live.spiffe_id == spiffe_id and service in ("", live.service_name)]
    if len(found) == 1:
        return found[0]
    token_id = str(one.fields.get("token_id") or "")
    token = store.token(token_id) if token_id else None
    spec = token.spec if token is not None else specs.get(token_id)
    return None if spec is None or spec.spiffe_id != spiffe_id else store.ensure_workload(spec, one.at)


def _specs(records: Iterable[Record]) -> dict[str, WorkloadSpec]:
    """By join token, as far as the records of their making say all of it."""
    found: dict[str, WorkloadSpec] = {}
    for one in records:
        told = one.fields
        labels = told.get("labels")
        if one.event != "token.created" or not isinstance(labels, list):
            continue
        try:
            found[str(told["token_id"])] = WorkloadSpec(
                spiffe_id=SpiffeId.parse(str(told["spiffe_id"])),
                service=str(told["service"]),
                namespace=str(told["namespace"]),
                service_account=str(told["service_account"]),
                labels=dict(_pair(label) for label in labels),
            )
        except (KeyError, CertsError):
            continue
    return found


def _pair(label: str) -> tuple[str, str]:
    key, _, value = label.partition("=")
    return key, value


# --- revocations and authorities ------------------------------------------------------------------------------------


def _revocation(store: Store, one: Record) -> bool:
    kind, value = RevokedKind(str(one.fields["kind"])), str(one.fields["value"])
    is_token = kind is RevokedKind.TOKEN
    if one.event.endswith("reinstated"):
        return reinstate_token(store, value) if is_token else store.delete_revocation(kind, value)
    if not one.event.endswith("revoked"):
        return False
    reason = str(one.fields.get("reason") or "")
    if is_token:
        serials = serials_of_token(store, value, one.at)
        return revoke_token(store, value, serials, now=one.at, by=one.by, reason=reason)
    return store.put_revocation(RevocationRecord(kind=kind, value=value, at=one.at, by=one.by, reason=reason))


def _authorities(store: Store, records: Iterable[Record], lost: list[str]) -> int:
    """Their phases as the records leave them, as far as they are known and something is left that signs."""
    last: dict[str, tuple[str, Phase, float]] = {}
    for one in records:
        about = one.fields.get("authorities")
        for text in about if isinstance(about, list) and one.event.startswith("ca.") else []:
            level, _, rest = text.partition(" ")
            name, _, became = rest.partition(" ")
            if became in {known.value for known in Phase}:
                last[name] = (level, Phase(became), one.at)
    after: list[Authority] = []
    for name, (made_as, phase, at) in last.items():
        held = store.authority(name)
        if held is not None:
            after.append(_in_phase(held, phase, at))
        elif phase is not Phase.REVOKED:
            lost.append(f"the {made_as} {name} was made since and its key is lost: it signs no more")
        else:
            lost.append(f"the {made_as} {name} was made and revoked since: what it signed is good until it ends")
    after = _with_one_that_signs(store, after, lost)
    return sum(store.put_authority(one) for one in sorted(after, key=lambda one: one.phase is Phase.ACTIVE))


def _with_one_that_signs(store: Store, after: Sequence[Authority], lost: list[str]) -> list[Authority]:
    """An authority that was followed by one that is lost goes on signing, unless it was tainted or revoked."""
    kept = list(after)
    for active in [one for one in store.authorities() if one.phase is Phase.ACTIVE]:
        now = next((one for one in after if one.authority_id == active.authority_id), active)
        if any(one.level is active.level and one.phase is Phase.ACTIVE for one in after):
            continue
        if now.phase is Phase.OLD:
            kept.remove(now)
        elif now.phase is not Phase.ACTIVE:
            lost.append(f"no {active.level.value} is left that may sign: see `hauberk ca status`")
    return kept


def _in_phase(held: Authority, phase: Phase, at: float) -> Authority:
    if phase is Phase.ACTIVE:
        return replace(held, phase=phase, activated_at=held.activated_at or at)
    if phase is Phase.TAINTED:
        return replace(held, phase=phase, tainted_at=held.tainted_at or at)
    if phase is Phase.REVOKED:
        return replace(held, phase=phase, revoked_at=held.revoked_at or at)
    return replace(held, phase=phase)


# --- resources ------------------------------------------------------------------------------------------------------


def _resources(store: Store, records: Iterable[Record], lost: list[str], by: str) -> int:
    """Deletions are done again; of what was applied the text is not known."""
    last: dict[str, tuple[str, float]] = {}
    for one in records:
        changes = one.fields.get("changes")
        for text in changes if isinstance(changes, list) and one.event.startswith("resources.") else []:
            what, _, key = text.partition(" ")
            last[key] = (what, one.at)
        if one.event == "resource.deleted":
            last[str(one.fields.get("resource"))] = ("deleted", one.at)
    deleted = 0
    for text, (what, at) in last.items():
        if what == "deleted":
            deleted += store.delete_resource(_key(text), at=at, by=by)
    applied = {text for text, (what, _) in last.items() if what in ("created", "updated")}
    if applied:
        lost.append(f"applied since, so their text is not known or is older; apply them again: {_named(applied)}")
    return deleted


def _key(text: str) -> ResourceKey:
    kind, _, rest = text.partition(" ")
    namespace, _, name = rest.partition("/")
    return ResourceKey(kind=kind, namespace=namespace, name=name)


# --- what did not happen --------------------------------------------------------------------------------------------


def _is_in(seq: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= seq <= last for first, last in ranges)


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED_MAX} more" if len(ordered) > NAMED_MAX else ""
    return ", ".join(ordered[:NAMED_MAX]) + more
