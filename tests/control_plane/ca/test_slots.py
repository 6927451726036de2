"""The lives of authorities: the table, and what follows from it in time. Nothing here touches a key or a disk."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from control_plane.ca import slots
from control_plane.ca.slots import (
    DAY_S,
    FOLLOWS,
    PUBLISHED,
    CaPolicy,
    IllegalStep,
    Live,
    LiveUnder,
    Readiness,
    Step,
    StepKind,
    active,
    advance,
    is_distrusted,
    next_steps,
    plan,
)
from control_plane.model import Authority, Level, Phase
from tests.certs.forge import make_ca

NOW = 1_800_000_000.0
_ORDER = [Phase.REQUESTED, Phase.PREPARED, Phase.ACTIVE, Phase.OLD, Phase.TAINTED, Phase.REVOKED]


@functools.cache
def certificate(path_length: int = 1) -> bytes:
    return make_ca(constraints=x509.BasicConstraints(ca=True, path_length=path_length)).der


def authority(
    name: str, level: Level, phase: Phase, *, life_s: float = 90.0, at: float = NOW, **more: object
) -> Authority:
    values: dict[str, object] = {
        "authority_id": name,
        "level": level,
        "phase": phase,
        "parent_id": {Level.ROOT: name, Level.INTERMEDIATE: "root", Level.JWT: ""}[level],
        "public_key_der": b"",
        "certificate_der": b"" if level is Level.JWT or phase is Phase.REQUESTED else certificate(),
        "sealed_key": b"" if phase is Phase.REVOKED else b"sealed",
        "not_before": at,
        "not_after": 0.0 if phase is Phase.REQUESTED else at + life_s,
        "prepared_at": at,
        "activated_at": at if phase in (Phase.ACTIVE, Phase.OLD, Phase.TAINTED) else None,
    }
    return Authority(**values | more)  # type: ignore[arg-type]  # values of its fields


def mesh(**phases: Phase) -> list[Authority]:
    """One of each level, active; or what is said: name -> phase, the name begins with its level."""
    levels = {level.value: level for level in Level}
    named = {"root": Phase.ACTIVE, "intermediate": Phase.ACTIVE, "jwt": Phase.ACTIVE} | phases
    return [authority(name, levels[name.split("_")[0]], phase) for name, phase in named.items()]


def due(authorities: Sequence[Authority], now: float, **more: object) -> list[tuple[str, str, str]]:
    values: dict[str, object] = {"policy": CaPolicy(leaf_lifetime_s=3.0), "readiness": Readiness(), "live": Live()}
    steps = plan(authorities, now, **values | more)  # type: ignore[arg-type]  # values of its parameters
    return [(step.level.value, step.kind.value, step.authority_id) for step in steps]


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("kind", StepKind)
@pytest.mark.parametrize("phase", Phase)
def test_what_the_table_does_not_know_is_illegal(phase: Phase, kind: StepKind, level: Level) -> None:
    """And what it knows only ever goes on: nobody comes back from a later phase."""
    one = authority("x", level, phase)
    if (phase, kind) not in FOLLOWS:
        with pytest.raises(IllegalStep):
            advance([one], "x", kind, NOW + 1)
        return
    (changed,) = advance([one], "x", kind, NOW + 1)
    assert changed.phase is FOLLOWS[phase, kind]
    assert _ORDER.index(changed.phase) > _ORDER.index(phase) or phase is changed.phase is Phase.REVOKED


def test_one_that_was_retired_can_be_distrusted_later() -> None:
    """Its certificate has not ended: whoever has its key could sign."""
    retired = authority("x", Level.INTERMEDIATE, Phase.REVOKED)
    assert not is_distrusted(retired)
    (changed,) = advance([retired], "x", StepKind.REVOKE, NOW + 1)
    assert is_distrusted(changed)


def test_activating_makes_the_one_before_old_first() -> None:
    """In the order in which a store that allows one active can take them."""
    changed = advance(mesh(intermediate_2=Phase.PREPARED), "intermediate_2", StepKind.ACTIVATE, NOW + 5)
    assert [(one.authority_id, one.phase) for one in changed] == [
        ("intermediate", Phase.OLD),
        ("intermediate_2", Phase.ACTIVE),
    ]
    assert changed[1].activated_at == NOW + 5


@pytest.mark.parametrize("kind", [StepKind.REVOKE, StepKind.RETIRE])
def test_what_is_revoked_has_no_key_any_more(kind: StepKind) -> None:
    """A key that signs nothing is only there to be stolen. Retired is not distrusted."""
    (gone,) = advance(mesh(jwt_2=Phase.OLD), "jwt_2", kind, NOW + 5)
    assert (gone.sealed_key, gone.revoked_at) == (b"", NOW + 5)
    assert is_distrusted(gone) == (kind is StepKind.REVOKE)


def test_a_tainted_one_that_is_retired_stays_distrusted() -> None:
    """Somebody said so once."""
    tainted = authority("root_2", Level.ROOT, Phase.TAINTED, tainted_at=NOW)
    (gone,) = advance([tainted], "root_2", StepKind.RETIRE, NOW + 5)
    assert is_distrusted(gone)


@pytest.mark.parametrize(
    ("kind", "phases"),
    [
        (StepKind.TAINT, {Phase.OLD: Phase.TAINTED, Phase.PREPARED: Phase.PREPARED}),
        (StepKind.REVOKE, {Phase.OLD: Phase.REVOKED, Phase.TAINTED: Phase.REVOKED, Phase.PREPARED: Phase.REVOKED}),
    ],
)
def test_a_root_takes_what_stands_under_it_along(kind: StepKind, phases: dict[Phase, Phase]) -> None:
    """Whoever does not trust the root cannot trust what it signed."""
    root = authority("root_2", Level.ROOT, Phase.OLD)
    under = [
        authority(f"i {phase.value}", Level.INTERMEDIATE, phase, parent_id="root_2", tainted_at=NOW) for phase in phases
    ]
    others = mesh()
    after = {one.authority_id: one for one in [*others, root, *under]}
    after |= {one.authority_id: one for one in advance([*others, root, *under], "root_2", kind, NOW + 5)}
    assert {phase: after[f"i {phase.value}"].phase for phase in phases} == phases
    assert [after[one.authority_id] for one in others] == others


def test_a_root_whose_intermediate_signs_is_not_taken_away() -> None:
    """Whatever the caller forgot to ask."""
    for kind in (StepKind.TAINT, StepKind.REVOKE, StepKind.RETIRE):
        with pytest.raises(IllegalStep):
            advance([authority("root", Level.ROOT, Phase.OLD), *mesh()[1:]], "root", kind, NOW)


# --- what is due ---------------------------------------------------------------------------------------------------


def test_a_young_mesh_has_nothing_to_do() -> None:
    """All that is said is when it will."""
    assert due(mesh(), NOW + 1) == []
    steps = next_steps(mesh(), NOW, CaPolicy(leaf_lifetime_s=3.0), Readiness(), Live())
    assert [(one.level, one.kind, one.not_before) for one in steps] == [
        (level, StepKind.PREPARE, NOW + 45.0 if level is not Level.JWT else NOW + 30.0) for level in Level
    ]


def test_successors_are_made_at_half_and_take_over_in_the_last_third() -> None:
    """90 seconds of life each; the tokens of the JWT key live longer than that, so it is early."""
    assert [step[:2] for step in due(mesh(), NOW + 45)] == [(level.value, "prepare") for level in Level]
    prepared = mesh(intermediate_2=Phase.PREPARED)
    assert ("intermediate", "activate", "intermediate_2") not in due(prepared, NOW + 59)
    assert ("intermediate", "activate", "intermediate_2") in due(prepared, NOW + 60)


def test_the_one_that_signs_has_two_leaves_ahead_of_it() -> None:
    """Leaves of 20 seconds: the successor takes over at 50 of 90, and is made before."""
    policy = CaPolicy(leaf_lifetime_s=20.0)
    assert slots.activate_at(mesh()[1], policy) == NOW + 50
    assert slots.prepare_at(mesh()[1], policy) == NOW + 45
    assert slots.prepare_at(mesh()[1], CaPolicy(leaf_lifetime_s=25.0)) == NOW + 40


def test_leaves_longer_than_their_issuer_do_not_make_it_rotate_without_end() -> None:
    """Leaves are cut then; a third of a life is the least."""
    assert slots.activate_at(mesh()[1], CaPolicy(leaf_lifetime_s=3_600.0)) == NOW + 30


def test_a_root_waits_for_everybody() -> None:
    """At its time, and for half of what is left then of the root before."""
    prepared = mesh(root_2=Phase.PREPARED)
    step = ("root", "activate", "root_2")
    assert step not in due(prepared, NOW + 74)
    assert step not in due(prepared, NOW + 74, readiness=Readiness(missing={"root_2": ("web",)}))
    assert step in due(prepared, NOW + 74, readiness=Readiness(missing={"root_2": ()}))
    assert step not in due(prepared, NOW + 50, readiness=Readiness(missing={"root_2": ()}))


@pytest.mark.parametrize("level", ["root", "jwt"])
def test_r06_an_end_is_not_waited_for(level: str) -> None:
    """With the root before, everybody would end; who is away comes back with its node key. A successor that is late has
    half of the time that is left to become known."""
    prepared = mesh(**{f"{level}_2": Phase.PREPARED})
    step = (level, "activate", f"{level}_2")
    told = {
        "readiness": Readiness(missing={f"{level}_2": ("web",)}),
        "policy": CaPolicy(leaf_lifetime_s=3, jwt_lifetime_s=3),
    }
    assert step not in due(prepared, NOW + 74, **told)
    assert step in due(prepared, NOW + 75, **told)
    late = [*mesh(), authority(f"{level}_2", Level(level), Phase.PREPARED, at=NOW + 80)]
    assert step not in due(late, NOW + 84, **told)
    assert step in due(late, NOW + 85, **told)


def test_a_new_root_gets_an_intermediate_at_once() -> None:
    """Prepared, and active as soon as all know the root: which they do."""
    after = [
        authority("root", Level.ROOT, Phase.OLD),
        authority("root_2", Level.ROOT, Phase.ACTIVE, at=NOW + 60),
        *mesh()[1:],
    ]
    assert ("intermediate", "prepare", "") in due(after, NOW + 60)
    second = authority("intermediate_2", Level.INTERMEDIATE, Phase.PREPARED, parent_id="root_2")
    ready = Readiness(missing={"root_2": ()})
    assert ("intermediate", "activate", "intermediate_2") in due([*after, second], NOW + 60, readiness=ready)
    # Forced at the root: nobody signs under it before it is known.
    missing = Readiness(missing={"root_2": ("web",)})
    assert ("intermediate", "activate", "intermediate_2") not in due([*after, second], NOW + 60, readiness=missing)
    # But when half of what the old intermediate has left is over, waiting helps nobody.
    assert ("intermediate", "activate", "intermediate_2") in due([*after, second], NOW + 75, readiness=missing)
    assert ("intermediate", "activate", "intermediate_2") in due([*after, second], NOW + 95, readiness=missing)


def test_an_expired_root_is_not_replaced_by_itself() -> None:
    """A clock that jumped must not make roots; the recovery is a command."""
    assert [step for step in due(mesh(), NOW + 1_000) if step[0] != "jwt"] == []


def test_a_root_of_before_there_were_intermediates_is_replaced_at_once() -> None:
    """It signs leaves itself until all know its successor."""
    old = authority("root", Level.ROOT, Phase.ACTIVE, certificate_der=certificate(0), life_s=365 * DAY_S)
    jwt = authority("jwt", Level.JWT, Phase.ACTIVE, life_s=DAY_S)
    assert due([old, jwt], NOW) == [("root", "prepare", "")]
    new = authority("root_2", Level.ROOT, Phase.PREPARED)
    assert due([old, jwt, new], NOW) == []
    assert due([old, jwt, new], NOW, readiness=Readiness(missing={"root_2": ()})) == [("root", "activate", "root_2")]


@pytest.mark.parametrize("level", [Level.ROOT, Level.INTERMEDIATE])
def test_nothing_is_retired_under_a_certificate_that_has_not_expired(level: Level) -> None:
    """One that was replaced counts: a connection made with it may be open."""
    old = authority("x", level, Phase.OLD, parent_id="x", life_s=1_000.0)
    replaced = LiveUnder(issuer_id="x", root_id="x", count=0, until=0.0, open_until=NOW + 20)
    live = Live(under=(replaced,))
    step = (level.value, "retire", "x")
    assert step not in due([*mesh(), old], NOW + 19, live=live)
    assert step in due([*mesh(), old], NOW + 20, live=live)
    assert step in due([*mesh(), old], NOW)


def test_certificates_nobody_knows_the_issuer_of_hold_everything() -> None:
    """They are of an older release."""
    old = authority("x", Level.ROOT, Phase.OLD, life_s=1_000.0)
    live = Live(under=(LiveUnder(issuer_id="", root_id="", count=1, until=NOW + 20, open_until=NOW + 20),))
    assert ("root", "retire", "x") not in due([*mesh(), old], NOW + 19, live=live)
    assert ("root", "retire", "x") in due([*mesh(), old], NOW + 20, live=live)


def test_an_old_jwt_key_stays_until_the_last_token_has_ended() -> None:
    """And a minute longer, for slow clocks."""
    keys = [
        authority("jwt", Level.JWT, Phase.OLD, life_s=DAY_S),
        authority("jwt_2", Level.JWT, Phase.ACTIVE, at=NOW + 100, life_s=DAY_S),
    ]
    assert ("jwt", "retire", "jwt") not in due([*mesh()[:2], *keys], NOW + 459)
    assert ("jwt", "retire", "jwt") in due([*mesh()[:2], *keys], NOW + 460)
    # No token outlives its key.
    short = [authority("jwt", Level.JWT, Phase.OLD, life_s=150.0), keys[1]]
    assert ("jwt", "retire", "jwt") in due([*mesh()[:2], *short], NOW + 210)


def test_an_offline_root_is_asked_and_waited_for() -> None:
    """One request at a time."""
    policy = CaPolicy(is_root_offline=True, leaf_lifetime_s=3.0)
    root = authority("root", Level.ROOT, Phase.ACTIVE, sealed_key=b"", life_s=1_000.0)
    jwt = authority("jwt", Level.JWT, Phase.ACTIVE, life_s=DAY_S)
    current = authority("intermediate", Level.INTERMEDIATE, Phase.ACTIVE)
    assert due([root, current, jwt], NOW + 45, policy=policy) == [("intermediate", "prepare", "")]
    asked = authority("intermediate_2", Level.INTERMEDIATE, Phase.REQUESTED, at=NOW + 45)
    assert due([root, current, jwt, asked], NOW + 89, policy=policy) == []
    waiting = next_steps([root, current, jwt, asked], NOW + 89, policy, Readiness(), Live())
    assert [step.waits_for for step in waiting if step.kind is StepKind.INSTALL] == [("the offline root's signature",)]


# --- a whole life --------------------------------------------------------------------------------------------------


@dataclass
class Simulated:
    """A mesh on paper: what `operations` does with keys, done with names."""

    policy: CaPolicy
    now: float = NOW
    authorities: dict[str, Authority] = field(default_factory=dict)
    leaves: list[LiveUnder] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)
    """Root -> when everybody knew it."""
    names: count[int] = field(default_factory=count)

    def live(self) -> Live:
        self.leaves = [one for one in self.leaves if one.open_until > self.now]
        return Live(under=tuple(self.leaves))

    def readiness(self) -> Readiness:
        return Readiness(
            missing={
                name: () if self.known.get(name, self.now + 1) <= self.now else ("web",) for name in self.authorities
            }
        )

    def settle(self, delay_s: float) -> None:
        """Does what is due, as a tick does."""
        for _ in range(16):
            steps = plan(list(self.authorities.values()), self.now, self.policy, self.readiness(), self.live())
            if not steps:
                return
            self.do(steps[0], delay_s)
        raise AssertionError("the steps do not come to an end")

    def do(self, step: Step, delay_s: float) -> None:
        everybody = list(self.authorities.values())
        if step.kind is StepKind.PREPARE:
            self.make(step.level, delay_s)
            return
        subject = self.authorities[step.authority_id]
        if step.kind is StepKind.ACTIVATE and step.level is Level.ROOT:
            assert self.known[subject.authority_id] <= self.now, "a root signs that somebody does not know"
        if step.kind is StepKind.RETIRE and self.now < subject.not_after:
            assert not [one for one in self.leaves if subject.authority_id in (one.issuer_id, one.root_id)]
        for one in advance(everybody, step.authority_id, step.kind, self.now):
            self.authorities[one.authority_id] = one

    def make(self, level: Level, delay_s: float) -> Authority:
        root = active(self.authorities.values(), Level.ROOT)
        lifetimes = {
            Level.ROOT: self.policy.root_lifetime_s,
            Level.INTERMEDIATE: self.policy.intermediate_lifetime_s,
            Level.JWT: self.policy.jwt_key_lifetime_s,
        }
        name = f"{level.value} {next(self.names)}"
        life_s = lifetimes[level]
        parent = {} if level is not Level.INTERMEDIATE or root is None else {"parent_id": root.authority_id}
        if root is not None and level is Level.INTERMEDIATE:
            life_s = min(life_s, root.not_after - self.now)
        made = authority(name, level, Phase.PREPARED, life_s=life_s, at=self.now, **parent)
        self.authorities[name] = made
        self.known[name] = self.now + delay_s
        return made

    def issue(self) -> None:
        signer = active(self.authorities.values(), Level.INTERMEDIATE)
        assert signer is not None
        until = min(self.now + self.policy.leaf_lifetime_s, signer.not_after)
        assert until == self.now + self.policy.leaf_lifetime_s, "who signs has not enough life left"
        self.leaves.append(
            LiveUnder(issuer_id=signer.authority_id, root_id=signer.parent_id, count=1, until=until, open_until=until)
        )


@given(
    leaf_s=st.floats(2.0, 30.0),
    ratio=st.floats(6.0, 10.0),
    root_ratio=st.floats(3.0, 10.0),
    rounds=st.lists(st.tuples(st.floats(0.05, 0.4), st.floats(0.0, 0.2)), min_size=20, max_size=120),
)
def test_whatever_the_lifetimes_somebody_signs_and_nobody_is_cut_off(
    leaf_s: float, ratio: float, root_ratio: float, rounds: list[tuple[float, float]]
) -> None:
    """Ticks a good deal more often than leaves end; everybody acknowledges within a fifth of a root's life.
    No leaf is cut short."""
    intermediate_s = leaf_s * ratio
    policy = CaPolicy(
        root_lifetime_s=intermediate_s * root_ratio,
        intermediate_lifetime_s=intermediate_s,
        jwt_key_lifetime_s=intermediate_s,
        leaf_lifetime_s=leaf_s,
        jwt_lifetime_s=leaf_s,
    )
    world = Simulated(policy=policy)
    for level in Level:
        made = world.make(level, 0.0)
        world.authorities[made.authority_id] = replace(made, phase=Phase.ACTIVE, activated_at=NOW)
    for pause, delay in rounds:
        world.settle(delay * policy.root_lifetime_s)
        held = list(world.authorities.values())
        for level in Level:
            assert sum(one.level is level and one.phase is Phase.ACTIVE for one in held) == 1
        signer = active(held, Level.INTERMEDIATE)
        assert signer is not None
        assert world.authorities[signer.parent_id].phase in PUBLISHED
        assert sum(one.level is Level.ROOT and one.phase in PUBLISHED for one in held) <= 4
        world.issue()
        world.now += pause * leaf_s


phases = st.sampled_from(list(Phase))


@st.composite
def any_authorities(draw: st.DrawFn) -> list[Authority]:
    """Whatever a store could hold, sensible or not; at most one active of a level, as the store sees to."""
    found: list[Authority] = []
    for level in Level:
        taken = False
        for index in range(draw(st.integers(0, 4))):
            phase = draw(phases.filter(lambda phase: not (taken and phase is Phase.ACTIVE)))  # noqa: B023
            if phase is Phase.REQUESTED and level is not Level.INTERMEDIATE:
                phase = Phase.PREPARED
            taken = taken or phase is Phase.ACTIVE
            roots = [one.authority_id for one in found if one.level is Level.ROOT] or ["nobody"]
            parent = {"parent_id": draw(st.sampled_from(roots))} if level is Level.INTERMEDIATE else {}
            born = NOW + draw(st.floats(-200, 100))
            life_s = draw(st.floats(1, 300))
            found.append(authority(f"{level.value} {index}", level, phase, at=born, life_s=life_s, **parent))
    return found


@given(any_authorities(), st.floats(NOW - 100, NOW + 400), st.booleans(), st.booleans())
def test_whatever_is_stored_what_is_due_can_be_done(
    authorities: list[Authority], now: float, is_ready: bool, is_offline: bool
) -> None:
    """No step that the table forbids, none twice, and each changes something."""
    readiness = Readiness(missing={one.authority_id: () for one in authorities} if is_ready else {})
    policy = CaPolicy(is_root_offline=is_offline)
    steps = plan(authorities, now, policy, readiness, Live())
    assert len({(step.level, step.kind, step.authority_id) for step in steps}) == len(steps)
    for step in steps:
        if step.kind is StepKind.PREPARE:
            assert step.authority_id == ""
            assert not (step.level is Level.ROOT and is_offline)
            continue
        changed = advance(authorities, step.authority_id, step.kind, now)
        assert all(one not in authorities for one in changed)
