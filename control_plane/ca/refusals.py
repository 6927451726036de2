"""What an operator may not do, with the reason and the list of who would lose by it; and what somebody should look at.

Pure functions, like `slots`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from certs.bundle import ANCHORS_MAX
from control_plane.ca.slots import (
    FOLLOWS,
    NOT_TOLD,
    PUBLISHED,
    CaPolicy,
    Live,
    Readiness,
    StepKind,
    active,
    newest,
    next_steps,
)
from control_plane.model import Authority, Level, Phase

NAMED_MAX = 5
"""How many of those who are waited for a sentence names."""
RECOVER = "run `hauberk ca recover`"
RECOVER_OFFLINE = (
    "prepare an intermediate, have it signed by a root with another key that has not expired, and install both"
)
FORCED_RECOVERY = "set this machine's clock; if it is right, and was ahead before: `hauberk ca recover --force`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    reason: str
    """A sentence with the way out."""
    breaks: tuple[str, ...] = ()
    """Who would lose by the step, for people."""
    can_force: bool = False


def refuse_prepare(
    authorities: Sequence[Authority], level: Level, now: float, policy: CaPolicy, *, force: bool
) -> Refusal | None:
    """Why no new one is made."""
    prepared = newest(authorities, level, Phase.PREPARED)
    if level is Level.ROOT:
        if policy.is_root_offline:
            return Refusal(reason="the root is kept offline: prepare an intermediate, and install what the root signs")
        if (full := refuse_another_root(authorities)) is not None:
            return full
    elif level is Level.INTERMEDIATE:
        root = active(authorities, Level.ROOT)
        if root is not None and now >= root.not_after and not policy.is_root_offline:
            return Refusal(reason=f"the root {root.authority_id} has expired; {RECOVER}")
        if root is not None and now < root.not_before:
            reason = f"the root {root.authority_id} is not valid before {date(root.not_before)}; {FORCED_RECOVERY}"
            return Refusal(reason=reason)
        if root is None and not policy.is_root_offline:
            return Refusal(reason=f"there is no root to sign it; {RECOVER}")
        if root is not None and prepared is not None and prepared.parent_id != root.authority_id:
            prepared = None
    if prepared is not None and not force:
        name = f"{level.value} {prepared.authority_id}"
        reason = f"{name} is prepared already; activate it, or force another one in its place"
        return Refusal(reason=reason, can_force=True)
    return None


def refuse_another_root(authorities: Sequence[Authority]) -> Refusal | None:
    """No bundle holds more."""
    if sum(one.level is Level.ROOT and one.phase in PUBLISHED for one in authorities) < ANCHORS_MAX:
        return None
    return Refusal(reason=f"{ANCHORS_MAX} roots are trusted already; revoke one that nobody needs")


def refuse_recovery(authorities: Sequence[Authority], now: float, policy: CaPolicy) -> Refusal | None:
    """Why no other root takes the place of the one there is."""
    root = active(authorities, Level.ROOT)
    if policy.is_root_offline or (root is not None and not root.sealed_key):
        # Its key could not vouch for the new one, so nobody would find the way from the one to the other.
        return Refusal(reason=f"the root is kept offline, its key is not here: {RECOVER_OFFLINE}")
    if root is None or now >= root.not_after:
        return None
    if now < root.not_before:
        reason = f"the root {root.authority_id} is not valid before {date(root.not_before)}: {FORCED_RECOVERY}"
        return Refusal(reason=reason, can_force=True)
    reason = f"the root {root.authority_id} has not expired: prepare and activate another one instead"
    return Refusal(reason=reason, can_force=True)


def refuse_step(
    authorities: Sequence[Authority],
    authority_id: str,
    kind: StepKind,
    now: float,
    readiness: Readiness,
    live: Live,
    *,
    force: bool = False,
) -> Refusal | None:
    """Why activate, taint or revoke is not done to one that exists. None: it can be.

    With `force` only what can never work is refused."""
    subject = next(one for one in authorities if one.authority_id == authority_id)
    name = f"{subject.level.value} {authority_id}"
    if subject.phase is Phase.ACTIVE and kind is not StepKind.ACTIVATE:
        reason = f"{name} is active: prepare and activate another {subject.level.value} first"
        return Refusal(reason=reason)
    if (subject.phase, kind) not in FOLLOWS:
        return Refusal(reason=f"{name} is {subject.phase.value}; {_possible(subject.phase)}")
    if kind is StepKind.ACTIVATE:
        return _refuse_activation(authorities, subject, now, readiness, force=force)
    if subject.level is Level.ROOT:
        signing = active(authorities, Level.INTERMEDIATE)
        if signing is not None and signing.parent_id == authority_id:
            reason = f"the active intermediate {signing.authority_id} stands under {name}: activate another one first"
            return Refusal(reason=reason)
    if kind is StepKind.REVOKE and not force:
        breaks = live.holders(authority_id)
        count = live.count(authority_id)
        if count:
            reason = (
                f"{count} live certificates stand under {name}, the last until {date(live.until(authority_id))};"
                " taint it and wait until they are replaced, or force it"
            )
            return Refusal(reason=reason, breaks=breaks, can_force=True)
    return None


def breaks(authority: Authority, kind: StepKind, readiness: Readiness, live: Live) -> tuple[str, ...]:
    """Who would lose by the step, forced or not."""
    if kind is StepKind.REVOKE:
        return live.holders(authority.authority_id)
    if kind is StepKind.ACTIVATE and authority.level is not Level.JWT:
        return tuple(one for one in readiness.waits_for(authority.parent_id) if (one,) != NOT_TOLD)
    return ()


def _refuse_activation(
    authorities: Sequence[Authority], subject: Authority, now: float, readiness: Readiness, *, force: bool
) -> Refusal | None:
    name = f"{subject.level.value} {subject.authority_id}"
    if now >= subject.not_after:
        return Refusal(reason=f"{name} expired at {date(subject.not_after)}; prepare another one")
    if now < subject.not_before:
        return Refusal(reason=f"{name} is not valid before {date(subject.not_before)}: is this machine's clock right?")
    root = active(authorities, Level.ROOT)
    if subject.level is Level.INTERMEDIATE and (root is None or root.authority_id != subject.parent_id):
        return Refusal(reason=f"{name} stands under the root {subject.parent_id}, which is not active: activate that")
    if subject.level is Level.JWT or force:
        return None
    is_known = subject.level is Level.INTERMEDIATE and any(
        one.parent_id == subject.parent_id and one.level is Level.INTERMEDIATE and one.activated_at
        for one in authorities
    )
    missing = () if is_known else readiness.waits_for(subject.parent_id)
    if not missing:
        return None
    reason = f"{name} is not known to everybody yet: {listed(missing)}; wait for them, or force it and cut them off"
    return Refusal(reason=reason, breaks=missing, can_force=True)


def _possible(phase: Phase) -> str:
    steps = sorted(
        kind.value
        for held, kind in FOLLOWS
        if held is phase and kind in (StepKind.ACTIVATE, StepKind.TAINT, StepKind.REVOKE, StepKind.INSTALL)
    )
    return f"what can be done with it: {', '.join(steps)}" if steps else "nothing can be done with it any more"


def alarms(
    authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness, live: Live
) -> tuple[str, ...]:
    """What somebody should look at, one sentence each."""
    return tuple(_alarms(authorities, now, policy, readiness, live))


def _alarms(
    authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness, live: Live
) -> Iterable[str]:
    for level in Level:
        one = active(authorities, level)
        name = f"{level.value} {one.authority_id}" if one is not None else level.value
        if one is None:
            if level is Level.INTERMEDIATE or policy.is_root_offline:
                yield f"there is no active {level.value}: nothing can be issued"
        elif now >= one.not_after:
            recovery = RECOVER if one.sealed_key else RECOVER_OFFLINE
            way_out = f"; {recovery}" if level is Level.ROOT else ""
            yield f"{name} expired at {date(one.not_after)}: nothing can be issued{way_out}"
        elif now < one.not_before and level is not Level.JWT:
            way_out = f"; {FORCED_RECOVERY}" if level is Level.ROOT and one.sealed_key else ""
            yield f"{name} is not valid before {date(one.not_before)}: nothing can be issued{way_out}"
        elif now >= one.not_after - (one.not_after - one.prepared_at) / 10:
            yield f"{name} is in the last tenth of its life and ends at {date(one.not_after)}"
    for step in next_steps(authorities, now, policy, readiness, live):
        if now >= step.not_before and step.waits_for and step.waits_for != NOT_TOLD:
            subject = f"{step.level.value} {step.authority_id or '(new)'}"
            yield f"{step.kind.value} {subject} has waited since {date(step.not_before)} for {listed(step.waits_for)}"


def listed(names: Sequence[str]) -> str:
    """Some of them, and how many more."""
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


def date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
