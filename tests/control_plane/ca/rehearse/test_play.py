"""Rotations played on copies of meshes: who would fail, and that a rotation done right fails nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.ca.rehearse.model import Question, Report, Sidecar, Topology
from control_plane.ca.rehearse.play import TOLD_MAX, _root_der, rehearse
from control_plane.ca.slots import DAY_S, CaPolicy, Live, Readiness, Step, StepKind, next_steps
from control_plane.model import Authority, Level, Phase

NOW = 1_800_000_000.0
HOUR_S = 3_600.0
ROOT, INTERMEDIATE = "root-of-today", "intermediate-of-today"


def authority(name: str, level: Level, parent: str, **changes: object) -> Authority:
    made = Authority(
        authority_id=name,
        level=level,
        phase=Phase.ACTIVE,
        parent_id=parent,
        public_key_der=b"",
        certificate_der=_root_der() if level is Level.ROOT else b"",
        sealed_key=b"sealed",
        not_before=NOW - DAY_S,
        not_after=NOW + (364 if level is Level.ROOT else 6) * DAY_S,
        prepared_at=NOW - DAY_S,
        activated_at=NOW - DAY_S,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # its own fields


AUTHORITIES = (authority(ROOT, Level.ROOT, ROOT), authority(INTERMEDIATE, Level.INTERMEDIATE, ROOT))


def sidecar(name: str = "web", **changes: object) -> Sidecar:
    made = Sidecar(
        name=name,
        issuer_id=INTERMEDIATE,
        root_id=ROOT,
        issued_at=NOW - 600,
        not_after=NOW + 3_000,
        knows=frozenset({ROOT}),
        rejoins_until=NOW + 30 * DAY_S,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # its own fields


def played(
    *sidecars: Sidecar,
    authorities: Sequence[Authority] = AUTHORITIES,
    policy: CaPolicy | None = None,
    **question: object,
) -> Report:
    topology = Topology(authorities=authorities, sidecars=sidecars, policy=policy or CaPolicy())
    asked = replace(Question(level=Level.ROOT), **question)  # type: ignore[arg-type]  # its own fields
    return rehearse(topology, asked, NOW)


def said(report: Report) -> str:
    return "\n".join(f"{one.at - NOW:.0f} {one.what}" for one in report.steps)


@pytest.mark.parametrize("level", [Level.ROOT, Level.INTERMEDIATE])
def test_a_rotation_in_which_everybody_takes_part_fails_nobody(level: Level) -> None:
    """It ends when the last certificate under the one before has ended, and not sooner."""
    report = played(sidecar("web"), sidecar("orders"), level=level)
    assert report.is_through
    assert report.failures == ()
    (gone,) = [one for one in report.steps if one.what.startswith(f"{level.value} {level.value}-of-today is retired")]
    assert gone.at >= NOW + 3_000


def test_the_steps_come_in_their_order() -> None:
    """Published, acknowledged, activated, renewed, dropped."""
    told = said(played(sidecar("web"), sidecar("orders")))
    marks = [
        "root new-root-1 is prepared",
        "root new-root-1 is activated",
        "intermediate new-intermediate-2 is activated",
        "every connected sidecar has a certificate under the intermediate new-intermediate-2",
        f"root {ROOT} is retired: nothing stands under it (and what stood under it: {INTERMEDIATE})",
        "the rotation is through",
    ]
    places = [told.index(mark) for mark in marks]
    assert places == sorted(places)


def test_one_that_is_away_is_waited_for_until_its_certificate_ends_and_comes_back_by_itself() -> None:
    """It could still use that certificate; after its end it needs its node key, and has it."""
    report = played(sidecar("web"), sidecar("laptop", away_since=NOW - 60))
    activated = next(one.at for one in report.steps if one.what.startswith("root new-root-1 is activated"))
    assert activated >= NOW + 3_000
    (failure,) = report.failures
    assert (failure.who, failure.start) == ("laptop", NOW + 3_000)
    assert failure.until > failure.start
    assert "comes back by itself with its node key" in failure.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rejoins_until": 0.0}, "it has no node key"),
        ({"rejoins_until": NOW + 1}, "its node key was good until"),
        ({"knows": frozenset({"of-long-ago"})}, "nobody it trusts vouches for"),
    ],
)
def test_one_that_cannot_come_back_is_told_to_need_a_token(changes: dict[str, object], why: str) -> None:
    """Until somebody makes one: no end is given."""
    report = played(sidecar("web"), sidecar("laptop", away_since=NOW - 60, **changes))
    (failure,) = report.failures
    assert (failure.who, failure.until) == ("laptop", 0.0)
    assert why in failure.why
    assert failure.why.endswith("needs a new join token")


def test_one_that_returns_in_time_fails_nobody() -> None:
    """Its certificate lives: it is told the new root and renews."""
    report = played(sidecar("web"), sidecar("laptop", away_since=NOW - 60, returns_at=NOW + 1_000))
    assert (report.is_through, report.failures) == (True, ())


def test_a_new_root_that_somebody_refuses_is_never_activated() -> None:
    """The rehearsal says whom it waits for."""
    report = played(sidecar("web"), sidecar("stuck", takes_snapshots=False))
    assert not report.is_through
    assert report.failures == ()
    assert report.steps[-1].what == "the rotation is not through; it waits for stuck"


def test_forced_it_refuses_its_peers_from_then_on() -> None:
    """Who does not know the new root takes nobody under it for a member, until somebody mends it."""
    report = played(sidecar("web"), sidecar("stuck", takes_snapshots=False), force=True)
    assert any("although these have not acknowledged it: " in one.what for one in report.steps)
    failures = [one for one in report.failures if "has not acknowledged the root new-root-1" in one.why]
    assert [(one.who, one.until) for one in failures] == [("stuck", 0.0)]
    assert {one.who for one in report.failures} == {"stuck"}


@pytest.mark.parametrize(("skew_s", "fails"), [(-59.0, False), (-61.0, True), (1_700.0, False), (1_801.0, True)])
def test_a_clock_is_tolerated_to_the_stated_limit(skew_s: float, fails: bool) -> None:
    """A minute behind, half of a certificate's life ahead."""
    report = played(sidecar("web"), sidecar("skewed", clock_skew_s=skew_s))
    assert {one.who for one in report.failures} == ({"skewed"} if fails else set())
    assert all("set it by NTP" in one.why for one in report.failures)


def test_a_prepared_root_is_used_and_no_other_made() -> None:
    """The rehearsal goes on from where the mesh is."""
    prepared = authority("next", Level.ROOT, "next", phase=Phase.PREPARED, activated_at=None, predecessor_id=ROOT)
    report = played(sidecar("web"), sidecar("orders"), authorities=(*AUTHORITIES, prepared))
    assert report.is_through
    assert "root next is prepared already" in said(report)
    assert "new-root" not in said(report)


def test_an_offline_root_is_assumed_to_sign() -> None:
    """What a person must do is said, not waited for."""
    report = played(sidecar("web"), sidecar("orders"), level=Level.INTERMEDIATE, policy=CaPolicy(is_root_offline=True))
    assert (report.is_through, report.failures) == (True, ())
    assert "the offline root is assumed to sign intermediate new-intermediate-1 at once" in said(report)


def test_a_horizon_plays_what_is_due_by_itself_too() -> None:
    """Twenty days hold three turns of an intermediate of seven."""
    report = played(sidecar("web"), sidecar("orders"), level=Level.INTERMEDIATE, horizon_s=20 * DAY_S)
    assert report.failures == ()
    assert sum("intermediate" in one.what and "is activated" in one.what for one in report.steps) >= 3


def test_lives_of_seconds_are_played_too() -> None:
    """The new root is replaced by schedule while the rotation goes on, and that does not confuse it."""
    policy = CaPolicy(root_lifetime_s=6, intermediate_lifetime_s=4, leaf_lifetime_s=2)
    authorities = [replace(one, prepared_at=NOW - 1, not_after=NOW + 5) for one in AUTHORITIES]
    report = played(authorities=authorities, policy=policy)
    assert (report.is_through, report.failures) == (True, ())
    assert report.steps[-1].at < NOW + 20


def test_a_report_stays_readable() -> None:
    """However long the time asked for."""
    policy = CaPolicy(root_lifetime_s=6, intermediate_lifetime_s=4, leaf_lifetime_s=2)
    report = played(policy=policy, level=Level.INTERMEDIATE, horizon_s=365 * DAY_S)
    assert len(report.steps) <= TOLD_MAX + 3
    assert any("ask for less time" in one.what for one in report.steps)


def test_nobody_at_all_is_a_mesh_too() -> None:
    """A rotation before the first sidecar has joined."""
    report = played()
    assert (report.is_through, report.failures) == (True, ())


def drops_at_once(
    authorities: Sequence[Authority], now: float, policy: CaPolicy, readiness: Readiness, live: Live
) -> Sequence[Step]:
    """A planted bug: an authority goes as soon as another signs."""
    steps = [one for one in next_steps(authorities, now, policy, readiness, live) if one.kind is not StepKind.RETIRE]
    signing = {one.parent_id for one in authorities if one.phase is Phase.ACTIVE and one.level is Level.INTERMEDIATE}
    gone = [one for one in authorities if one.phase is Phase.OLD and one.authority_id not in signing]
    return steps + [
        Step(level=one.level, kind=StepKind.RETIRE, authority_id=one.authority_id, not_before=now) for one in gone
    ]


def test_an_anchor_dropped_early_is_noticed() -> None:
    """The judge can find somebody guilty: those who have not renewed yet are refused by the others."""
    topology = Topology(
        authorities=AUTHORITIES, sidecars=[sidecar("web"), sidecar("orders", issued_at=NOW)], policy=CaPolicy()
    )
    report = rehearse(topology, Question(level=Level.ROOT), NOW, steps=drops_at_once)
    assert any("which is trusted no more" in one.why for one in report.failures)


@st.composite
def meshes(draw: st.DrawFn) -> tuple[Topology, Question]:
    leaf_s = draw(st.sampled_from([60.0, HOUR_S, DAY_S]))
    sidecars = []
    for number in range(draw(st.integers(1, 6))):
        age = draw(st.floats(0, 0.99))
        is_away = draw(st.booleans()) and draw(st.booleans())
        sidecars.append(
            sidecar(
                f"sidecar-{number}",
                issued_at=NOW - age * leaf_s,
                not_after=NOW + (1 - age) * leaf_s,
                away_since=NOW - 1 if is_away else None,
                returns_at=NOW + draw(st.floats(1, 2 * leaf_s)) if is_away and draw(st.booleans()) else None,
                rejoins_until=draw(st.sampled_from([0.0, NOW + 30 * DAY_S])),
                clock_skew_s=draw(st.floats(-60, 29)),
                takes_snapshots=draw(st.integers(0, 7)) > 0,
            )
        )
    level = draw(st.sampled_from([Level.ROOT, Level.INTERMEDIATE]))
    policy = CaPolicy(leaf_lifetime_s=leaf_s, intermediate_lifetime_s=draw(st.sampled_from([3 * leaf_s, 7 * DAY_S])))
    return Topology(authorities=AUTHORITIES, sidecars=sidecars, policy=policy), Question(level=level)


@settings(max_examples=150, deadline=None)
@given(meshes())
def test_without_force_nobody_who_is_connected_ever_fails(mesh: tuple[Topology, Question]) -> None:
    """Whatever the mesh looks like when it begins."""
    topology, question = mesh
    report = rehearse(topology, question, NOW)
    connected = {one.name for one in topology.sidecars if one.away_since is None}
    assert [one for one in report.failures if one.who in connected] == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 0.4), min_size=2, max_size=6), st.sampled_from([60.0, HOUR_S, DAY_S]))
def test_an_early_drop_fails_somebody_whenever_two_talk(ages: list[float], leaf_s: float) -> None:
    """With the planted bug: nobody's certificate is old enough to be renewed before the root is gone."""
    sidecars = [
        sidecar(f"sidecar-{n}", issued_at=NOW - age * leaf_s, not_after=NOW + (1 - age) * leaf_s)
        for n, age in enumerate(ages)
    ]
    topology = Topology(authorities=AUTHORITIES, sidecars=sidecars, policy=CaPolicy(leaf_lifetime_s=leaf_s))
    report = rehearse(topology, Question(level=Level.ROOT), NOW, steps=drops_at_once)
    found = {one.who: one for one in report.failures if "which is trusted no more" in one.why}
    assert found
    assert all(NOW < one.start < one.until <= NOW + leaf_s / 2 for one in found.values())


def test_a_large_mesh_is_played_in_a_moment() -> None:
    """A thousand sidecars at every age: bounded by what happens, not by the clock."""
    sidecars = [
        sidecar(f"sidecar-{n}", issued_at=NOW - n * 1.5, not_after=NOW - n * 1.5 + HOUR_S) for n in range(1_000)
    ]
    report = played(*sidecars)
    assert (report.is_through, report.failures) == (True, ())
