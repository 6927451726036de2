"""What is kept of the decisions that sidecars report: bounded, checked, and nobody's but who reported it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.decisions import (
    ALL_MAX,
    ALL_OCTETS_MAX,
    BATCH_MAX,
    BURST,
    CLOCK_S_MAX,
    KEPT_S,
    OCTETS_MAX,
    PER_WORKLOAD_MAX,
    PER_WORKLOAD_OCTETS_MAX,
    RATE_PER_S,
    WORKLOADS_MAX,
    DecisionLog,
    problem_with,
)
from control_plane.model import Workload
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.decisions import describe
from sidecar.rules.authz import Authorizer
from sidecar.rules.facts import Facts
from tests.control_plane.support import NOW, workload_spec
from tests.sidecar.test_decisions import WEB, policy, snapshot, token

ID = "00c0ffee00c0ffee"


def workload(number: int = 1) -> Workload:
    return Workload(workload_id=number, spec=workload_spec(f"w{number}"), joined_at=NOW)


def decision(number: int = 0, **changes: Any) -> pb.Decision:
    asked: dict[str, Any] = {"principal": str(WEB), "host": "orders.shop", "port": 80, "method": "GET", "path": "/x"}
    asked |= changes.pop("asked", {})
    values: dict[str, Any] = {"id": f"{number:016x}", "at": NOW, "epoch": 1, "version": 7, "rule": "default"}
    return pb.Decision(**values | changes, asked=pb.Asked(**asked))


def report(*decisions: pb.Decision, dropped: int = 0) -> pb.Decisions:
    return pb.Decisions(decisions=decisions, dropped_count=dropped)


def fill(log: DecisionLog, who: Workload, count: int, now: float = NOW, first: int = 0) -> None:
    """As fast as may be."""
    for start in range(first, first + count, BATCH_MAX):
        assert log.report(who, report(*map(decision, range(start, min(start + BATCH_MAX, first + count)))), now) == ""


def test_a_decision_is_found_by_its_id_in_any_case() -> None:
    """With who reported it."""
    log = DecisionLog()
    assert log.report(workload(), report(decision(0xC0FFEE, rule="shop/a#0")), NOW) == ""
    (found,) = log.find("0000000000C0FFEE", NOW)
    assert (found.workload, found.message.rule) == (workload(), "shop/a#0")
    assert log.find("0000000000c0ffed", NOW) == []


def test_another_workload_cannot_replace_what_was_reported() -> None:
    """Nor can the same one say something else later. Who asks sees both workloads, whichever was faster."""
    log = DecisionLog()
    for who, rule in ((2, "forged/b#0"), (1, "shop/a#0"), (1, "shop/later#0"), (2, "forged/later#0")):
        log.report(workload(who), report(decision(rule=rule)), NOW)
    found = log.find(decision().id, NOW)
    assert {one.workload.workload_id: one.message.rule for one in found} == {1: "shop/a#0", 2: "forged/b#0"}


def test_a_flood_pushes_out_nobody_elses() -> None:
    """The newest of each workload are kept."""
    log = DecisionLog()
    fill(log, workload(1), 10, first=10_000_000)
    for second in range(20):
        fill(log, workload(2), 200, NOW + 1_000 * second, first=200 * second)
    assert len(log) == 10 + PER_WORKLOAD_MAX
    assert log.find(f"{10_000_000:016x}", NOW)
    assert log.find(f"{3_999:016x}", NOW)
    assert not log.find(f"{2_999:016x}", NOW)


def test_when_many_report_each_has_its_share() -> None:
    """And all of them together a bound, as has the number of workloads."""
    log = DecisionLog()
    for number in range(40):
        fill(log, workload(number), PER_WORKLOAD_MAX, first=number * PER_WORKLOAD_MAX)
    assert ALL_MAX - 1_000 <= len(log) <= ALL_MAX
    for number in range(40, WORKLOADS_MAX + 40):
        fill(log, workload(number), 1, first=number * PER_WORKLOAD_MAX)
    assert len(log) <= ALL_MAX
    assert not log.find(f"{PER_WORKLOAD_MAX - 1:016x}", NOW)  # of the one that reported longest ago
    assert log.find(f"{(WORKLOADS_MAX + 39) * PER_WORKLOAD_MAX:016x}", NOW)


def test_large_decisions_are_bounded_by_their_size() -> None:
    """20,000 of the largest would be half a gigabyte. One workload that reports such keeps its newest."""
    log, headers = DecisionLog(), [pb.Header(name=f"x-{n}", value="v" * 512) for n in range(32)]
    for number in range(20):
        for start in range(0, 3 * BATCH_MAX, BATCH_MAX):
            ids = range(number * PER_WORKLOAD_MAX + start, number * PER_WORKLOAD_MAX + start + BATCH_MAX)
            large = [decision(one, asked={"path": "/" * 2_000, "headers": headers}) for one in ids]
            assert log.report(workload(number), report(*large), NOW) == ""
        assert sum(ring.octets for ring in log._rings.values()) <= ALL_OCTETS_MAX
        assert log._rings[number].octets <= PER_WORKLOAD_OCTETS_MAX
        assert log.find(f"{ids[-1]:016x}", NOW)
    assert not log.find(f"{0:016x}", NOW)
    assert OCTETS_MAX <= ALL_OCTETS_MAX // WORKLOADS_MAX  # the newest of each always has its place


def test_decisions_are_forgotten_after_a_day() -> None:
    """Whether or not there is room."""
    log = DecisionLog()
    fill(log, workload(), 1)
    assert log.find(f"{0:016x}", NOW + KEPT_S)
    assert not log.find(f"{0:016x}", NOW + KEPT_S + 1)
    fill(log, workload(), 1, NOW + KEPT_S + 1, first=1)
    assert len(log) == 1


def test_more_than_a_workload_may_report_is_counted_and_dropped() -> None:
    """Here as at the sidecar, whose count is believed up to a bound."""
    log = DecisionLog()
    fill(log, workload(), BURST + 500)
    assert log.dropped == 500
    fill(log, workload(), 500, NOW + 1.0, first=100_000)
    assert log.dropped == 500 + 500 - RATE_PER_S
    log.report(workload(), report(dropped=2**63), NOW)
    assert log.dropped < 2_000_000


BAD: dict[str, dict[str, Any]] = {
    "no id": {"id": ""},
    "an id in capitals": {"id": "00C0FFEE00C0FFEE"},
    "a longer id": {"id": ID + "0"},
    "an id with a newline": {"id": ID + "\n"},
    "no time": {"at": 0.0},
    "no number": {"at": float("nan")},
    "never": {"at": float("inf")},
    "the day after tomorrow": {"at": NOW + CLOCK_S_MAX + 1},
    "no version": {"version": 0},
    "no rule": {"rule": ""},
    "a long rule": {"rule": "r" * 513},
    "a rule for a terminal": {"rule": "shop/\x1b[2J#0"},
    "a line more": {"reason": "a\nb"},
    "a denial in shadow": {"shadow": True, "allowed": False},
    "a port that is none": {"asked": {"port": 65_536}},
    "a long path": {"asked": {"path": "/" * 2_049}},
    "a path with DEL": {"asked": {"path": "/\x7f"}},
    "many headers": {"asked": {"headers": [pb.Header(name="a", value="b")] * 33}},
    "a long header": {"asked": {"headers": [pb.Header(name="a", value="b" * 513)]}},
    "a header in capitals": {"asked": {"headers": [pb.Header(name="A")]}},
    "a header with a long name": {"asked": {"headers": [pb.Header(name="a" * 129)]}},
    "a hidden header that is told": {"asked": {"headers": [pb.Header(name="a", value="b", hidden=True)]}},
    "a secret that is told": {"asked": {"headers": [pb.Header(name="authorization", value="Bearer x")]}},
    "long claims": {"asked": {"claims_json": "x" * 4_097}},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_what_no_sidecar_would_report_is_refused_and_the_rest_kept(changes: dict[str, Any]) -> None:
    """One bad decision says nothing about the others."""
    log = DecisionLog()
    assert log.report(workload(), report(decision(1), decision(**changes), decision(2)), NOW) != ""
    assert (len(log), log.refused) == (2, 1)


def test_a_message_of_too_many_is_refused_whole() -> None:
    """A sidecar sends a hundred at most."""
    log = DecisionLog()
    assert "more than" in log.report(workload(), report(*map(decision, range(BATCH_MAX + 1))), NOW)
    assert (len(log), log.refused) == (0, BATCH_MAX + 1)


def test_what_this_version_does_not_know_is_not_kept() -> None:
    """A newer sidecar may say more; nobody would bound it."""
    more = pb.Decision.FromString(decision().SerializeToString() + b"\xfa\x7f\x03abc")
    log = DecisionLog()
    assert log.report(workload(), report(more), NOW) == ""
    assert log.find(decision().id, NOW)[0].octets == decision().SerializeToString()


@given(st.binary(max_size=400), st.floats(1.0, 2e9))
@example(decision().SerializeToString(), NOW)
def test_any_octets_that_are_a_decision_are_kept_or_refused(octets: bytes, now: float) -> None:
    """Nothing raises, and what is kept is small."""
    try:
        message = pb.Decision.FromString(octets)
    except DecodeError:
        return
    log = DecisionLog()
    problem = log.report(workload(), report(message), now)
    assert bool(problem) == (len(log) == 0)
    assert all(len(one.octets) <= OCTETS_MAX for one in log.find(message.id, now))


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=3_000)


@given(st.lists(st.tuples(st.sampled_from(["a", "x-key"]), TEXT), max_size=50), TEXT, st.dictionaries(TEXT, TEXT))
def test_whatever_a_sidecar_reports_is_taken(headers: list[tuple[str, str]], text: str, claims: dict[str, str]) -> None:
    """Both ends have the same bounds."""
    held = snapshot(policy("request.headers[a]"), policy("request.headers[x-key]", name="k"))
    facts = Facts(
        principal=WEB, host=text, port=80, method="GET", path="/" + text, sni=text, headers=tuple(headers),
        token=token(dict(claims)),
    )  # fmt: skip
    authorizer = Authorizer(held)
    told = describe(facts, authorizer.authorize(facts), held, authorizer, decision_id=ID, at=NOW)
    assert problem_with(told, NOW) == ""


def test_rings_and_index_agree() -> None:
    """Whatever was reported by whom and forgotten since."""
    rng, log = random.Random(4), DecisionLog()
    for step in range(3_000):
        log.report(workload(rng.randrange(30)), report(decision(rng.randrange(2_000))), NOW + 40.0 * step)
    assert len(log) == sum(map(len, log._by_id.values()))
    assert all(log._by_id.values())
    for ring in log._rings.values():
        assert ring.octets == sum(len(decided.octets) for _, decided in ring.decisions)
