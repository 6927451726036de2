"""The simulated clock.

Theory of operation. Things that happen at a known time (a sidecar renews, a snapshot has arrived, a certificate of one
that is away ends) lie in a heap. Before each of them the CA does what `slots.next_steps` says is due, which may be
earlier than the first in the heap; what depends on the sidecars (who acknowledged, what hangs on whom) is looked up
again only when it can have changed, since a renewal under the same intermediate changes none of it.

The rotation in question is not waited for but begun at once, as an operator would: prepare, then activate as soon as
`refusals.refuse_step` allows it (with `force`: at once). All that follows from it is done by the plan.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from certs.spiffe_id import TrustDomain
from control_plane.ca.refusals import listed, refuse_step
from control_plane.ca.rehearse.judge import Judge
from control_plane.ca.rehearse.mesh import PUSH_S, Copy, Member
from control_plane.ca.rehearse.model import Question, RehearsedStep, Report, Topology
from control_plane.ca.root import make_root
from control_plane.ca.slots import (
    CaPolicy,
    Live,
    Readiness,
    Step,
    StepKind,
    active,
    advance,
    is_distrusted,
    newest,
    next_steps,
)
from control_plane.model import Authority, Level, Phase

EVENTS_MAX = 500_000
TOLD_MAX = 2_000
"""Steps in a report."""
RETRY_S = 10.0
"""How soon a sidecar tries again after nobody could sign for it."""
PATIENCE = 3.0
"""Times the longest certificate: a rotation that is not through by then waits for something that does not come."""
PATIENCE_MORE_S = 3_600.0
STEPS_MAX = 32
"""At one moment."""

NextSteps = Callable[[Sequence[Authority], float, CaPolicy, Readiness, Live], Sequence[Step]]


def rehearse(topology: Topology, question: Question, now: float, *, steps: NextSteps = next_steps) -> Report:
    """Plays it from `now` on. `steps` says what comes next (another one: to see that a wrong one is noticed)."""
    return _Play(topology, question, now, steps).run()


class _Play:
    def __init__(self, topology: Topology, question: Question, now: float, steps: NextSteps) -> None:
        self._question = question
        self._policy = topology.policy
        self._next_steps = steps
        self._now = now
        patience_s = PATIENCE * max([self._policy.leaf_lifetime_s, *(one.not_after - now for one in topology.sidecars)])
        self._end = now + (question.horizon_s or patience_s + PATIENCE_MORE_S)
        self._authorities = tuple(one for one in topology.authorities if one.level is not Level.JWT)
        self._copy = Copy(topology.sidecars)
        self._judge = Judge(self._copy, self._policy.leaf_lifetime_s)
        self._told: list[RehearsedStep] = []
        self._said_waits: tuple[str, ...] = ()
        self._events: list[tuple[float, int, Callable[[], bool]]] = []
        self._order = itertools.count()
        self._names = itertools.count(1)
        current, prepared = active(self._authorities, question.level), self._prepared()
        self._old_id = current.authority_id if current is not None else ""
        self._new_id = prepared.authority_id if prepared is not None else ""
        self._ca_at = now
        self._through_at = float("inf")

    def run(self) -> Report:
        self._begin()
        for _ in range(EVENTS_MAX):
            at = min(self._events[0][0] if self._events else float("inf"), self._ca_at)
            if len(self._told) >= TOLD_MAX:
                self._say(f"the rehearsal stops here: more than {TOLD_MAX} steps; ask for less time")
                break
            if (self._is_over and not self._question.horizon_s) or at > self._end:
                break
            self._now = max(self._now, at)
            changed = at == self._ca_at
            while self._events and self._events[0][0] <= self._now:
                changed = heapq.heappop(self._events)[2]() or changed
            if changed:
                self._run_due()
                self._judge.look(self._authorities, self._now)
        else:
            self._say(f"the rehearsal stops here: more than {EVENTS_MAX} things have happened; ask for less time")
        return self._finish()

    # the beginning and the end

    def _begin(self) -> None:
        if not self._new_id:
            self._new_id = self._prepare(self._question.level)
        else:
            self._say(f"the {self._question.level.value} {self._new_id} is prepared already")
        for member in self._copy.members:
            self._schedule(member)
        self._push()
        self._run_due()
        self._judge.look(self._authorities, self._now)

    def _finish(self) -> Report:
        is_through = self._is_through
        if is_through:
            self._say("the rotation is through")
            self._return_all()
        else:
            self._now = max(self._now, min(self._end, self._ca_at)) if self._question.horizon_s else self._now
            waits = listed(self._waits()) or "its time"
            self._say(f"the rotation is not through; it waits for {waits}")
        self._judge.look(self._authorities, self._now)
        failures = self._judge.report(self._now)
        return Report(steps=tuple(self._told), failures=failures, is_through=is_through)

    def _return_all(self) -> None:
        """Whoever is still away comes back now, when nothing is as it was."""
        away = [one for one in self._copy.members if not one.is_connected and one.origin.returns_at is None]
        for member in away:
            self._back(member)
        if away:
            names = listed(sorted(one.name for one in away))
            self._say(f"who was away is assumed to come back now: {names}")

    @property
    def _is_over(self) -> bool:
        """It is through, everybody has heard of that, and what mends itself has."""
        if not self._is_through:
            return False
        self._through_at = min(self._through_at, self._now)
        has_arrived = self._now >= self._through_at + PUSH_S
        return has_arrived and not self._judge.expects_more

    @property
    def _is_through(self) -> bool:
        """The new one has signed (a root: something under it has), and the one before is gone."""
        by_id = {one.authority_id: one for one in self._authorities}
        new, old = by_id.get(self._new_id), by_id.get(self._old_id)
        if new is None or not new.activated_at or (old is not None and old.phase is not Phase.REVOKED):
            return False
        below = (one for one in self._authorities if one.level is Level.INTERMEDIATE)
        return new.level is not Level.ROOT or any(
            one.parent_id == self._new_id and bool(one.activated_at) for one in below
        )

    # what sidecars do

    def _schedule(self, member: Member) -> None:
        if not member.is_connected:
            self._at(member.not_after, lambda: True)
            if member.origin.returns_at is not None:
                self._at(member.origin.returns_at, lambda: self._back(member))
        elif member.can_renew:
            self._at(max(self._now, member.renews_at), lambda: self._renew(member))
        else:
            self._at(member.not_after, lambda: True)

    def _renew(self, member: Member) -> bool:
        """True: something else than this sidecar's certificate is another now."""
        before, ended = member.chain, self._now >= member.not_after
        may = not ended or self._now <= member.origin.rejoins_until
        lifetime_s = self._policy.leaf_lifetime_s
        if not may or not self._copy.renew(member, self._authorities, self._now, lifetime_s):
            if not ended:
                self._at(min(self._now + RETRY_S, member.not_after), lambda: self._renew(member))
            elif may:
                self._at(self._now + RETRY_S, lambda: self._renew(member))
            return ended
        self._at(member.renews_at, lambda: self._renew(member))
        return before != member.chain and self._left(before, member)

    def _left(self, chain: tuple[str, str], member: Member) -> bool:
        """Is this the first under its chain, or the last under the one before?"""
        connected = self._copy.connected
        if not any(one.chain == chain for one in connected):
            self._say(f"every connected sidecar has a certificate under the intermediate {member.chain[0]}")
            return True
        return sum(one.chain == member.chain for one in connected) == 1

    def _back(self, member: Member) -> bool:
        ended = self._now >= member.not_after
        is_back = self._copy.come_back(member, self._authorities, self._now, self._policy.leaf_lifetime_s)
        if ended:
            self._judge.missed(member, self._authorities, self._now, is_back=is_back)
        if is_back:
            self._schedule(member)
        return True

    def _push(self) -> None:
        self._at(self._now + PUSH_S, self._pushed)

    def _pushed(self) -> bool:
        self._copy.push(self._authorities)
        return True

    # what the CA does

    def _run_due(self) -> None:
        """Everything that is due, then when to look again."""
        for _ in range(STEPS_MAX):
            step = self._due()
            if step is None:
                break
            self._do(step)
        waits = self._waits()
        if waits and waits != self._said_waits:
            self._say(f"activating {self._question.level.value} {self._new_id} waits for {listed(waits)}")
        self._said_waits = waits
        dates = [step.waits_until if step.waits_for else step.not_before for step in self._steps()]
        self._ca_at = min((one for one in dates if one > self._now), default=float("inf"))

    def _due(self) -> Step | None:
        for one in self._authorities:
            is_meant = one.authority_id == self._new_id or (
                one.level is Level.INTERMEDIATE and one.parent_id == self._new_id and self._question.force
            )
            if is_meant and one.phase is Phase.PREPARED and self._may_activate(one):
                return Step(
                    level=one.level, kind=StepKind.ACTIVATE, authority_id=one.authority_id, not_before=self._now
                )
        due = (step for step in self._steps() if step.is_due(self._now) or step.kind is StepKind.INSTALL)
        return next(due, None)

    def _may_activate(self, one: Authority) -> bool:
        readiness = self._copy.readiness(self._authorities, self._now)
        live, force = self._copy.live(self._now), self._question.force
        kind = StepKind.ACTIVATE
        return refuse_step(self._authorities, one.authority_id, kind, self._now, readiness, live, force=force) is None

    def _steps(self) -> list[Step]:
        readiness, live = self._copy.readiness(self._authorities, self._now), self._copy.live(self._now)
        found = self._next_steps(self._authorities, self._now, self._policy, readiness, live)
        return [step for step in found if step.level is not Level.JWT]

    def _waits(self) -> tuple[str, ...]:
        """Whom the activation in question, or of what stands under it, waits for."""
        phases = {one.authority_id: one for one in self._authorities}
        for step in self._steps():
            about = phases.get(step.authority_id)
            if step.kind is StepKind.ACTIVATE and about and self._new_id in (about.authority_id, about.parent_id):
                return step.waits_for
        return ()

    def _do(self, step: Step) -> None:
        if step.kind is StepKind.PREPARE:
            self._prepare(step.level)
            return
        before = {one.authority_id: one for one in self._authorities}
        if step.kind is StepKind.INSTALL:
            self._authorities = _replaced(before, [self._signed_offline(before[step.authority_id])])
            self._say(f"the offline root is assumed to sign {step.level.value} {step.authority_id} at once")
        else:
            waits = self._copy.readiness(self._authorities, self._now).waits_for(before[step.authority_id].parent_id)
            changed = advance(self._authorities, step.authority_id, step.kind, self._now)
            self._authorities = tuple(filter(self._is_of_interest, _replaced(before, changed)))
            is_forced = step.kind is StepKind.ACTIVATE and step.authority_id == self._new_id and waits
            although = f" although these have not acknowledged it: {listed(waits)}" if is_forced else ""
            self._say(f"{step.level.value} {step.authority_id} is {_PAST[step.kind]}{although}{_along(step, changed)}")
        self._push()

    def _is_of_interest(self, one: Authority) -> bool:
        """Whatever has been retired is not: a long rehearsal would drag it along. Roots vouch for others."""
        is_over = one.phase is Phase.REVOKED and not is_distrusted(one) and one.level is Level.INTERMEDIATE
        return not is_over or one.authority_id in (self._old_id, self._new_id) or one.parent_id == self._new_id

    def _prepare(self, level: Level) -> str:
        """A new one, as production makes it, but for its key. Its id."""
        name = f"new-{level.value}-{next(self._names)}"
        root = active(self._authorities, Level.ROOT)
        made = _authority(name, level, self._now, self._policy, root)
        self._authorities = (*self._authorities, made)
        what = "requested" if made.phase is Phase.REQUESTED else "prepared"
        brought = ", brought by install" if level is Level.ROOT and self._policy.is_root_offline else ""
        self._say(f"{level.value} {name} is {what}{brought}")
        self._push()
        return name

    def _signed_offline(self, one: Authority) -> Authority:
        root = active(self._authorities, Level.ROOT) or newest(self._authorities, Level.ROOT, Phase.PREPARED)
        ends = root.not_after if root is not None else float("inf")
        not_after = min(self._now + self._policy.intermediate_lifetime_s, ends)
        parent_id = root.authority_id if root is not None else one.parent_id
        return replace(one, phase=Phase.PREPARED, not_before=self._now, not_after=not_after, parent_id=parent_id)

    def _prepared(self) -> Authority | None:
        """The one that is there to be activated."""
        found = newest(self._authorities, self._question.level, Phase.PREPARED)
        root = active(self._authorities, Level.ROOT)
        if found is not None and found.level is Level.INTERMEDIATE and root and found.parent_id != root.authority_id:
            return None
        return found

    def _at(self, at: float, happens: Callable[[], bool]) -> None:
        heapq.heappush(self._events, (at, next(self._order), happens))

    def _say(self, what: str) -> None:
        self._told.append(RehearsedStep(at=self._now, what=what))


_PAST = {
    StepKind.ACTIVATE: "activated",
    StepKind.TAINT: "tainted",
    StepKind.REVOKE: "revoked",
    StepKind.RETIRE: "retired: nothing stands under it",
}


def _along(step: Step, changed: Sequence[Authority]) -> str:
    names = [one.authority_id for one in changed if one.authority_id != step.authority_id]
    return f" (and what stood under it: {', '.join(names)})" if names and step.kind is not StepKind.ACTIVATE else ""


def _replaced(before: dict[str, Authority], changed: Sequence[Authority]) -> tuple[Authority, ...]:
    return tuple((before | {one.authority_id: one for one in changed}).values())


def _authority(name: str, level: Level, now: float, policy: CaPolicy, root: Authority | None) -> Authority:
    is_root, is_here = level is Level.ROOT, not policy.is_root_offline and (root is None or bool(root.sealed_key))
    is_requested = not is_root and not is_here
    lifetime_s = policy.root_lifetime_s if is_root else policy.intermediate_lifetime_s
    not_after = now + lifetime_s
    if not is_root and root is not None:
        not_after = min(not_after, root.not_after)
    vouches = is_root and root is not None and bool(root.sealed_key)
    return Authority(
        authority_id=name,
        level=level,
        phase=Phase.REQUESTED if is_requested else Phase.PREPARED,
        parent_id=name if is_root else root.authority_id if root is not None else "",
        public_key_der=b"",
        certificate_der=_root_der() if is_root else b"",
        sealed_key=b"" if is_root and policy.is_root_offline else b"assumed",
        not_before=0.0 if is_requested else now,
        not_after=0.0 if is_requested else not_after,
        prepared_at=now,
        predecessor_id=root.authority_id if is_root and root is not None else "",
        succession=b"assumed" if vouches else b"",
    )


@lru_cache(maxsize=1)
def _root_der() -> bytes:
    """Some root's certificate: the plan looks whether it may sign intermediates."""
    return make_root(TrustDomain.parse("rehearsal"), lifetime_s=1e6, now=0.0, token_bytes=b"\1".__mul__).der
