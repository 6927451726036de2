"""What an operator is refused, in words; and what somebody should look at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.ca.refusals import alarms, breaks, listed, refuse_prepare, refuse_step
from control_plane.ca.slots import FOLLOWS, CaPolicy, Live, LiveUnder, Readiness, StepKind, advance
from control_plane.model import Authority, Level, Phase
from tests.control_plane.ca.test_slots import NOW, any_authorities, authority, mesh

OPERATORS = (StepKind.ACTIVATE, StepKind.TAINT, StepKind.REVOKE)
READY = Readiness()
POLICY = CaPolicy(leaf_lifetime_s=3.0)


def live(*names: str, issuer_id: str = "x", root_id: str = "x") -> Live:
    one = LiveUnder(
        issuer_id=issuer_id, root_id=root_id, count=len(names), until=NOW + 9, open_until=NOW + 9, holders=names
    )
    return Live(under=(one,))


def test_revoking_what_is_in_use_lists_who_breaks() -> None:
    """With the way out; forced it is done."""
    held = [*mesh(), authority("x", Level.ROOT, Phase.OLD)]
    refusal = refuse_step(held, "x", StepKind.REVOKE, NOW, READY, live("web", "orders"))
    assert refusal is not None
    assert refusal.breaks == ("web", "orders")
    assert refusal.can_force
    assert "2 live certificates stand under root x, the last until 2027-01-15T08:00:09Z" in refusal.reason
    assert "taint it" in refusal.reason
    assert refuse_step(held, "x", StepKind.REVOKE, NOW, READY, live("web"), force=True) is None
    assert refuse_step(held, "x", StepKind.REVOKE, NOW, READY, Live()) is None
    assert breaks(held[-1], StepKind.REVOKE, READY, live("web")) == ("web",)
    assert breaks(held[-1], StepKind.TAINT, READY, live("web")) == ()


def test_activating_an_intermediate_under_a_root_that_is_not_active() -> None:
    """First the root."""
    held = [*mesh(), authority("x", Level.INTERMEDIATE, Phase.PREPARED, parent_id="root_2")]
    refusal = refuse_step(held, "x", StepKind.ACTIVATE, NOW, READY, Live(), force=True)
    assert refusal is not None
    assert "the root root_2, which is not active" in refusal.reason


def test_activating_what_has_expired() -> None:
    """Nobody would accept what it signs."""
    held = [*mesh(), authority("x", Level.ROOT, Phase.PREPARED)]
    refusal = refuse_step(held, "x", StepKind.ACTIVATE, NOW + 91, READY, Live(), force=True)
    assert refusal is not None
    assert "expired at 2027-01-15T08:01:30Z; prepare another one" in refusal.reason


def test_activating_what_the_mesh_was_not_told_of() -> None:
    """It is not that nobody is missing: nobody was asked."""
    held = [*mesh(), authority("x", Level.ROOT, Phase.PREPARED)]
    refusal = refuse_step(held, "x", StepKind.ACTIVATE, NOW, READY, Live())
    assert refusal is not None
    assert "has not been told" in refusal.reason
    assert breaks(held[-1], StepKind.ACTIVATE, READY, Live()) == ()
    assert breaks(held[-1], StepKind.ACTIVATE, Readiness(missing={"x": ("web",)}), Live()) == ("web",)


def test_preparing_too_many_roots() -> None:
    """A bundle holds sixteen anchors."""
    roots = [authority(f"root {index}", Level.ROOT, Phase.OLD) for index in range(15)]
    refusal = refuse_prepare([*mesh(), *roots], Level.ROOT, NOW, POLICY, force=True)
    assert refusal is not None
    assert "16 roots are trusted already" in refusal.reason
    assert refuse_prepare([*mesh(), *roots[1:]], Level.ROOT, NOW, POLICY, force=False) is None


def test_preparing_an_intermediate_without_a_root() -> None:
    """Recovery is the way out."""
    for held, now in ((mesh()[1:], NOW), (mesh(), NOW + 91)):
        refusal = refuse_prepare(held, Level.INTERMEDIATE, now, POLICY, force=True)
        assert refusal is not None
        assert "hauberk ca recover" in refusal.reason


@given(any_authorities(), st.floats(NOW - 100, NOW + 400), st.booleans(), st.booleans(), st.booleans())
def test_what_is_not_refused_can_be_done(
    authorities: list[Authority], now: float, is_ready: bool, force: bool, is_used: bool
) -> None:
    """The table agrees with the words, force or not; and force never widens what the table allows."""
    readiness = Readiness(missing={one.authority_id: () for one in authorities} if is_ready else {})
    held = live("web", issuer_id="", root_id="") if is_used else Live()
    for one in authorities:
        for kind in OPERATORS:
            refusal = refuse_step(authorities, one.authority_id, kind, now, readiness, held, force=force)
            if refusal is None:
                assert (one.phase, kind) in FOLLOWS
                assert advance(authorities, one.authority_id, kind, now)
            else:
                assert refusal.reason
                assert not (force and refusal.can_force)


@pytest.mark.parametrize("level", Level)
def test_the_last_tenth_and_the_end_of_a_life_are_alarms(level: Level) -> None:
    """With its date; of a root's end with the command."""
    held = [
        one if one.level is level else authority(one.authority_id, one.level, one.phase, life_s=1e6) for one in mesh()
    ]
    assert not [one for one in alarms(held, NOW + 80, POLICY, READY, Live()) if "last tenth" in one]
    assert [one for one in alarms(held, NOW + 82, POLICY, READY, Live()) if "last tenth" in one]
    ended = [one for one in alarms(held, NOW + 90, POLICY, READY, Live()) if "expired" in one]
    assert len(ended) == 1
    assert ("hauberk ca recover" in ended[0]) == (level is Level.ROOT)


def test_a_step_that_waits_is_an_alarm_with_names() -> None:
    """Some of them."""
    held = mesh(root_2=Phase.PREPARED)
    waiting = Readiness(missing={"root_2": tuple(f"sidecar {index}" for index in range(9))})
    assert alarms(held, NOW + 59, POLICY, waiting, Live()) == ()
    found = alarms(held, NOW + 61, POLICY, waiting, Live())
    assert [
        one for one in found if "has waited since 2027-01-15T08:01:00Z for sidecar 0" in one and "and 4 more" in one
    ]


def test_a_list_names_some() -> None:
    """And says how many there are besides."""
    assert listed(("a", "b")) == "a, b"
    assert listed(tuple("abcdefg")) == "a, b, c, d, e and 2 more"
