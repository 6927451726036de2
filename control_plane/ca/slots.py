"""Where authorities are in their lives, and what comes next. Pure functions of `now`; nothing is done here.

Theory of operation
-------------------
Each level (root, intermediate, JWT key) has at most one ACTIVE authority, which signs. Its successor is made before it
is needed (PREPARED), becomes ACTIVE later, and the one before stays trusted (OLD) until nothing hangs on it:

    requested -> prepared -> active -> old -> tainted -> revoked         FOLLOWS is the table, `advance` reads it

`next_steps` says what the control plane will do by itself, not before when, and what that waits for; `plan` is what of
it is due. Three rules keep a rotation from breaking anybody:

1. Nothing is signed under a root before every node with a live certificate has said that it knows it (`Readiness`);
   but an end is not waited for: see `waits_until`.
2. An authority is retired only when no certificate that has not expired stands under it (`Live`). Certificates that
   were replaced count too: connections made with them may be open.
3. Whoever signs has at least two lifetimes of a leaf ahead of it.

A retired authority and one that an operator revoked are both REVOKED; the latter was tainted first, so `tainted_at`
tells them apart (`is_distrusted`). Only the latter are pushed to the sidecars as revoked, and only they lose the right
to vouch for their successors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache

from cryptography import x509

from control_plane.model import Authority, Level, Phase

DAY_S = 86_400.0
SKEW_S = 60.0
"""How far clocks in the mesh may be apart."""
PUBLISHED = frozenset({Phase.PREPARED, Phase.ACTIVE, Phase.OLD, Phase.TAINTED})
"""Phases in which an authority is trusted."""
NOT_TOLD = ("the mesh, which has not been told of it yet",)
LEAVES_AHEAD = 2.0


class StepKind(Enum):
    """What can be done to an authority."""

    PREPARE = "prepare"
    """A new one is made; with an offline root: requested."""
    INSTALL = "install"
    """The certificate that was requested is there."""
    ACTIVATE = "activate"
    SUPERSEDE = "supersede"
    """Part of activating another one."""
    TAINT = "taint"
    REVOKE = "revoke"
    """By an operator: it is not to be trusted."""
    RETIRE = "retire"
    """By time: nothing hangs on it."""


FOLLOWS: Mapping[tuple[Phase, StepKind], Phase] = {
    (Phase.REQUESTED, StepKind.INSTALL): Phase.PREPARED,
    (Phase.PREPARED, StepKind.ACTIVATE): Phase.ACTIVE,
    (Phase.ACTIVE, StepKind.SUPERSEDE): Phase.OLD,
    (Phase.OLD, StepKind.TAINT): Phase.TAINTED,
    (Phase.REQUESTED, StepKind.REVOKE): Phase.REVOKED,
    (Phase.PREPARED, StepKind.REVOKE): Phase.REVOKED,
    (Phase.OLD, StepKind.REVOKE): Phase.REVOKED,
    (Phase.TAINTED, StepKind.REVOKE): Phase.REVOKED,
    (Phase.REVOKED, StepKind.REVOKE): Phase.REVOKED,  # retired, and then found to have leaked: it has not ended yet
    (Phase.REQUESTED, StepKind.RETIRE): Phase.REVOKED,
    (Phase.PREPARED, StepKind.RETIRE): Phase.REVOKED,
    (Phase.OLD, StepKind.RETIRE): Phase.REVOKED,
    (Phase.TAINTED, StepKind.RETIRE): Phase.REVOKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaPolicy:
    """How long each level lives. Seconds; at least 2 each."""

    root_lifetime_s: float = 365 * DAY_S
    intermediate_lifetime_s: float = 7 * DAY_S
    jwt_key_lifetime_s: float = 7 * DAY_S
    leaf_lifetime_s: float = 3_600.0
    """Of the certificates issued now."""
    leaf_lifetime_max_s: float = DAY_S
    jwt_lifetime_s: float = 300.0
    """Of one JWT-SVID."""
    is_root_offline: bool = False
    """No root key is made here: intermediates are requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Who has not yet said that it knows an authority: labels for people, by authority id."""

    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """An id that is not in here has not been told to anybody."""

    def waits_for(self, authority_id: str) -> tuple[str, ...]:
        return self.missing.get(authority_id, NOT_TOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveUnder:
    """The certificates of one issuer under one root that have not expired."""

    issuer_id: str
    root_id: str
    count: int
    """In use: not replaced, as far as is known."""
    until: float
    """Unix seconds: the last of those in use ends; 0: none is in use."""
    open_until: float
    """The same of all, those replaced included."""
    holders: tuple[str, ...] = ()
    """Of those in use, for people; empty where nobody asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What hangs on whom."""

    under: tuple[LiveUnder, ...] = ()

    def of(self, authority_id: str) -> tuple[LiveUnder, ...]:
        """Those of which nobody wrote down who signed them (of an older release) count for everybody."""
        return tuple(one for one in self.under if authority_id in (one.issuer_id, one.root_id) or not one.issuer_id)

    def count(self, authority_id: str) -> int:
        return sum(one.count for one in self.of(authority_id))

    def until(self, authority_id: str) -> float:
        return max((one.until for one in self.of(authority_id)), default=0.0)

    def open_until(self, authority_id: str) -> float:
        return max((one.open_until for one in self.of(authority_id)), default=0.0)

    def holders(self, authority_id: str) -> tuple[str, ...]:
        return tuple(label for one in self.of(authority_id) for label in one.holders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to do."""

    level: Level
    kind: StepKind
    authority_id: str
    """Empty: of one that is not there yet."""
    not_before: float
    """Unix seconds."""
    waits_for: tuple[str, ...] = ()
    """For people; empty: nothing but time."""
    waits_until: float = math.inf
    """Unix seconds: then it is done without them."""

    def is_due(self, now: float) -> bool:
        return now >= self.not_before and (not self.waits_for or now >= self.waits_until)


class IllegalStep(Exception):
    """The table knows no such step from that phase."""


def advance(authorities: Sequence[Authority], authority_id: str, kind: StepKind, now: float) -> tuple[Authority, ...]:
    """Those that change by a step, in the order to write them down. Raises IllegalStep, KeyError (no such id).

    What ceases to be trusted takes the intermediates under it along, and loses its key."""
    by_id = {one.authority_id: one for one in authorities}
    subject = by_id[authority_id]
    changed = [_moved(subject, kind, now)]
    if kind is StepKind.ACTIVATE:
        active = [one for one in authorities if one.level is subject.level and one.phase is Phase.ACTIVE]
        changed = [_moved(one, StepKind.SUPERSEDE, now) for one in active] + changed
    elif subject.level is Level.ROOT and kind in (StepKind.TAINT, StepKind.REVOKE, StepKind.RETIRE):
        for one in authorities:
            if one.level is not Level.INTERMEDIATE or one.parent_id != authority_id or one.phase is Phase.REVOKED:
                continue
            if kind is not StepKind.TAINT or one.phase is Phase.OLD:
                changed.append(_moved(one, kind, now))
            elif one.phase is Phase.ACTIVE:
                raise IllegalStep(f"{one.authority_id} is under it and signs")
    return tuple(changed)


def _moved(one: Authority, kind: StepKind, now: float) -> Authority:
    phase = FOLLOWS.get((one.phase, kind))
    if phase is None:
        raise IllegalStep(f"{one.level.value} {one.authority_id} is {one.phase.value}: no {kind.value} from there")
    if phase is Phase.ACTIVE:
        return replace(one, phase=phase, activated_at=now)
    if phase is Phase.TAINTED:
        return replace(one, phase=phase, tainted_at=now)
    if phase is Phase.REVOKED:
        tainted_at = now if kind is StepKind.REVOKE and one.tainted_at is None else one.tainted_at
        return replace(one, phase=phase, revoked_at=now, tainted_at=tainted_at, sealed_key=b"")
    return replace(one, phase=phase)


# --- what is -------------------------------------------------------------------------------------------------------


def active(authorities: Iterable[Authority], level: Level) -> Authority | None:
    return next((one for one in authorities if one.level is level and one.phase is Phase.ACTIVE), None)


def is_valid(one: Authority, now: float) -> bool:
    """A clock that was ahead leaves behind what is not valid yet; that signs as little as what has expired."""
    return one.not_before <= now < one.not_after


def newest(authorities: Iterable[Authority], level: Level, phase: Phase) -> Authority | None:
    found = [one for one in authorities if one.level is level and one.phase is phase]
    return max(found, key=lambda one: one.prepared_at, default=None)


def is_distrusted(one: Authority) -> bool:
    """It was revoked because somebody does not trust it, not because its time was over."""
    return one.phase is Phase.REVOKED and one.tainted_at is not None


@lru_cache(maxsize=64)
def _path_length(certificate_der: bytes) -> int | None:
    extensions = x509.load_der_x509_certificate(certificate_der).extensions
    return extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


def signs_leaves_only(root: Authority) -> bool:
    """A root of before there were intermediates: path length 0."""
    return _path_length(root.certificate_der) == 0


def prepare_at(one: Authority, policy: CaPolicy) -> float:
    """When its successor is to be made: at half of its life, and before it is needed."""
    half = one.prepared_at + (one.not_after - one.prepared_at) / 2
    return min(half, activate_at(one, policy))


def activate_at(one: Authority, policy: CaPolicy) -> float:
    """When its successor takes over: after two thirds of its life, sooner if its end would cut leaves short, but not in
    its first third (leaves may be configured to live longer than who signs them)."""
    life_s = one.not_after - one.prepared_at
    ahead_s = LEAVES_AHEAD * (policy.jwt_lifetime_s if one.level is Level.JWT else policy.leaf_lifetime_s)
    return max(one.prepared_at + life_s / 3, min(one.prepared_at + life_s * 2 / 3, one.not_after - ahead_s))


def waits_until(successor: Authority, current: Authority | None, policy: CaPolicy) -> float:
    """How long it is waited for who does not know the successor: half of the time that is left when it is due, or made.

    Whoever is away then is cut off, and comes back with its node key. If everybody waited for the last one until the
    end, everybody would be cut off."""
    if current is None:
        return math.inf
    return (max(activate_at(current, policy), successor.prepared_at) + current.not_after) / 2


# --- what comes next -----------------------------------------------------------------------------------------------


def plan(
    authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness, live: Live
) -> tuple[Step, ...]:
    """What is due now. After each step ask again: the next may follow from it."""
    return tuple(step for step in next_steps(authorities, now, policy, readiness, live) if step.is_due(now))


def next_steps(
    authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness, live: Live
) -> tuple[Step, ...]:
    """What the control plane will do by itself, by level; what makes comes before what ends."""
    makes = [
        *_root_steps(authorities, now, policy, readiness),
        *_intermediate_steps(authorities, now, policy, readiness),
        *_jwt_steps(authorities, now, policy, readiness),
    ]
    return (*makes, *_retirements(authorities, now, policy, live))


def _root_steps(authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness) -> Iterable[Step]:
    current = active(authorities, Level.ROOT)
    prepared = newest(authorities, Level.ROOT, Phase.PREPARED)
    if prepared is not None:
        # Nothing stands under a root that is not active, unless it was brought from outside: that is to be used.
        is_asked_for = any(one.parent_id == prepared.authority_id for one in authorities if one is not prepared)
        hurries = current is None or now >= current.not_after or signs_leaves_only(current) or is_asked_for
        not_before = prepared.prepared_at if hurries or current is None else activate_at(current, policy)
        waits_for = readiness.waits_for(prepared.authority_id)
        until = waits_until(prepared, current, policy)
        not_before = max(not_before, prepared.not_before)
        yield _step(Level.ROOT, StepKind.ACTIVATE, prepared.authority_id, not_before, waits_for, until)
    elif current is not None and now < current.not_after and not policy.is_root_offline:
        not_before = current.prepared_at if signs_leaves_only(current) else prepare_at(current, policy)
        yield _step(Level.ROOT, StepKind.PREPARE, "", not_before)


def _intermediate_steps(
    authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness
) -> Iterable[Step]:
    root = active(authorities, Level.ROOT)
    if root is not None and (not is_valid(root, now) or signs_leaves_only(root)):
        return
    current = active(authorities, Level.INTERMEDIATE)
    root_id = root.authority_id if root is not None else ""
    is_good = current is not None and current.parent_id == root_id and is_valid(current, now)
    prepared = [
        one
        for one in authorities
        if one.level is Level.INTERMEDIATE and one.phase is Phase.PREPARED and one.parent_id == root_id
        if is_good or one.not_before <= now
    ]
    if prepared:
        new = max(prepared, key=lambda one: one.prepared_at)
        not_before = activate_at(current, policy) if current is not None and is_good else new.prepared_at
        not_before = max(not_before, new.not_before)
        waits_for: tuple[str, ...] = ()
        if current is not None and now < current.not_after and not _has_signed(authorities, root_id):
            waits_for = readiness.waits_for(root_id)
        until = waits_until(new, current, policy)
        yield _step(Level.INTERMEDIATE, StepKind.ACTIVATE, new.authority_id, not_before, waits_for, until)
        return
    not_before = prepare_at(current, policy) if current is not None and is_good else now
    requested = newest(authorities, Level.INTERMEDIATE, Phase.REQUESTED)
    if requested is not None:
        waits_for = ("the offline root's signature",)
        yield _step(Level.INTERMEDIATE, StepKind.INSTALL, requested.authority_id, requested.prepared_at, waits_for)
    elif root is not None or policy.is_root_offline:
        yield _step(Level.INTERMEDIATE, StepKind.PREPARE, "", not_before)


def _jwt_steps(authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness) -> Iterable[Step]:
    current = active(authorities, Level.JWT)
    is_good = current is not None and now < current.not_after
    prepared = newest(authorities, Level.JWT, Phase.PREPARED)
    if prepared is not None:
        not_before = activate_at(current, policy) if current is not None and is_good else prepared.prepared_at
        waits_for = readiness.missing.get(prepared.authority_id, ()) if is_good else ()
        until = waits_until(prepared, current, policy)
        yield _step(Level.JWT, StepKind.ACTIVATE, prepared.authority_id, not_before, waits_for, until)
    else:
        not_before = prepare_at(current, policy) if current is not None and is_good else now
        yield _step(Level.JWT, StepKind.PREPARE, "", not_before)


def _retirements(authorities: Sequence[Authority], now: float, policy: CaPolicy, live: Live) -> Iterable[Step]:
    signing = {one.parent_id for one in authorities if one.phase is Phase.ACTIVE and one.level is Level.INTERMEDIATE}
    gone = {one.authority_id for one in authorities if one.level is Level.ROOT and one.phase not in _MAY_SIGN}
    for one in authorities:
        if one.phase in (Phase.ACTIVE, Phase.REVOKED) or (one.level is Level.ROOT and one.authority_id in signing):
            continue
        if one.level is Level.INTERMEDIATE and one.phase in (Phase.REQUESTED, Phase.PREPARED):
            not_before = now if one.parent_id in gone else one.not_after
        elif one.phase is Phase.PREPARED:
            not_before = one.not_after
        elif one.level is Level.JWT:
            # No token outlives its key.
            not_before = min(one.not_after, superseded_at(one, authorities) + policy.jwt_lifetime_s) + SKEW_S
        else:
            not_before = min(one.not_after, live.open_until(one.authority_id))
        if not_before > 0.0 or one.phase in (Phase.OLD, Phase.TAINTED):
            yield _step(one.level, StepKind.RETIRE, one.authority_id, not_before)


_MAY_SIGN = frozenset({Phase.PREPARED, Phase.ACTIVE})


def _has_signed(authorities: Sequence[Authority], root_id: str) -> bool:
    """Did anything under that root ever sign?"""
    return any(one.parent_id == root_id and one.level is Level.INTERMEDIATE and one.activated_at for one in authorities)


def superseded_at(one: Authority, authorities: Sequence[Authority]) -> float:
    """When the next one took over; its own end, if none did."""
    after = [
        other.activated_at
        for other in authorities
        if other.level is one.level and other.activated_at and other.activated_at > (one.activated_at or 0.0)
    ]
    return min(after, default=one.not_after)


def _step(
    level: Level,
    kind: StepKind,
    authority_id: str,
    not_before: float,
    waits_for: tuple[str, ...] = (),
    until: float = math.inf,
) -> Step:
    return Step(
        level=level,
        kind=kind,
        authority_id=authority_id,
        not_before=not_before,
        waits_for=waits_for,
        waits_until=until,
    )
