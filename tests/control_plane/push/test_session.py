"""Dialogues with one subscriber: content in, snapshots out. No sockets, no clock."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidRequest
from control_plane.model import Workload
from control_plane.push.session import ANSWER_S, Content, Session
from protos.hauberk.v1 import discovery_pb2
from tests.control_plane.support import NOW, workload_spec

EPOCH = 7
WORKLOAD = Workload(workload_id=1, spec=workload_spec(), joined_at=NOW)


def content(name: str) -> Content:
    return Content(own=discovery_pb2.Snapshot(trust_domain=name), digest=name.encode())


def session(epoch_held: int = 0, version_held: int = 0) -> Session:
    return Session(workload=WORKLOAD, instance="one", epoch_held=epoch_held, version_held=version_held, epoch=EPOCH)


def sent(one: Session, at: float = NOW) -> tuple[str, int] | None:
    """What goes out now: (content, version)."""
    message = one.take(at)
    return None if message is None else (message.trust_domain, message.version)


def test_content_is_sent_once_and_acknowledged() -> None:
    """With epoch and version stamped on it."""
    one = session()
    assert sent(one) is None
    one.offer(content("a"), epoch=EPOCH, version=5)
    message = one.take(NOW)
    assert message is not None
    assert (message.epoch, message.version, message.trust_domain) == (EPOCH, 5, "a")
    assert sent(one) is None
    assert not one.has_settled(5)
    one.acknowledge(EPOCH, 5)
    assert one.has_settled(5)
    assert repr(one).endswith("sent=5 acknowledged=5>")


def test_the_same_content_is_not_new() -> None:
    """Nobody is told what they know (rule 2)."""
    one = session()
    assert one.is_new(content("a"), EPOCH)
    one.offer(content("a"), epoch=EPOCH, version=5)
    assert not one.is_new(content("a"), EPOCH)
    sent(one)
    assert not one.is_new(content("a"), EPOCH)
    assert one.is_new(content("b"), EPOCH)
    assert one.is_new(content("a"), EPOCH + 1)


def test_a_slow_subscriber_skips_to_the_newest() -> None:
    """One snapshot is unanswered at most, one waits at most (rule 3)."""
    one = session()
    for version in range(1, 100):
        one.offer(content(f"c{version}"), epoch=EPOCH, version=version)
        if version == 1:
            assert sent(one) == ("c1", 1)
    assert sent(one) is None
    one.acknowledge(EPOCH, 1)
    assert sent(one) == ("c99", 99)


def test_a_subscriber_that_never_answers_still_hears_of_a_revoked_right() -> None:
    """After ANSWER_S, not before."""
    one = session()
    one.offer(content("a"), epoch=EPOCH, version=1)
    sent(one)
    one.offer(content("b"), epoch=EPOCH, version=2)
    assert one.wait_s(NOW + 1) == ANSWER_S - 1
    assert sent(one, NOW + ANSWER_S - 0.1) is None
    assert sent(one, NOW + ANSWER_S) == ("b", 2)


def test_a_change_and_its_undoing_within_a_burst_leave_nothing_to_send() -> None:
    """What was sent last still holds; waiting for the change to be acknowledged ends."""
    one = session()
    one.offer(content("a"), epoch=EPOCH, version=1)
    sent(one)
    one.acknowledge(EPOCH, 1)
    one.offer(content("b"), epoch=EPOCH, version=2)
    assert not one.has_settled(2)
    one.offer(content("a"), epoch=EPOCH, version=3)
    assert sent(one) is None
    assert one.has_settled(2)
    assert one.has_settled(3)


def test_h16_a_rejection_keeps_its_reason_until_something_newer_is_acknowledged() -> None:
    """And what was rejected is not repeated."""
    one = session()
    one.offer(content("bad"), epoch=EPOCH, version=4)
    sent(one)
    one.reject(EPOCH, 4, "policies[0]: unknown field\n\x1b[31m")
    assert one.rejected_reason == "policies[0]: unknown field  [31m"
    assert one.has_settled(4)
    assert one.acknowledged_version == 0
    assert not one.is_new(content("bad"), EPOCH)
    one.offer(content("good"), epoch=EPOCH, version=5)
    assert sent(one) == ("good", 5)
    assert one.rejected_reason
    one.acknowledge(EPOCH, 5)
    assert one.rejected_reason == ""


def test_h14_a_version_the_subscriber_holds_is_not_given_to_something_else() -> None:
    """The first version of a stream is larger than what hello named."""
    one = session(EPOCH, 40)
    assert one.newest_version == 40
    assert one.acknowledged_version == 40
    with pytest.raises(AssertionError):
        one.offer(content("a"), epoch=EPOCH, version=40)
    one.offer(content("a"), epoch=EPOCH, version=41)
    assert sent(one) == ("a", 41)


def test_what_a_subscriber_holds_of_another_epoch_counts_for_nothing() -> None:
    """Its versions are of another history."""
    one = session(EPOCH - 1, 40)
    assert (one.newest_version, one.acknowledged_version) == (0, 0)


def test_a_new_epoch_begins_anew() -> None:
    """Versions may be small again, the same content is sent again, and old answers count for nothing."""
    one = session()
    one.offer(content("a"), epoch=EPOCH, version=9)
    sent(one)
    one.offer(content("a"), epoch=EPOCH + 1, version=2)
    assert sent(one, NOW + ANSWER_S) == ("a", 2)
    one.acknowledge(EPOCH, 9)
    assert one.acknowledged_version == 0
    one.acknowledge(EPOCH + 1, 2)
    assert one.acknowledged_version == 2


@pytest.mark.parametrize("answer", ["acknowledge", "reject"])
def test_an_answer_to_what_was_never_sent_is_refused(answer: str) -> None:
    """Else a sidecar could claim to enforce what it has not seen."""
    one = session()
    one.offer(content("a"), epoch=EPOCH, version=9)
    with pytest.raises(InvalidRequest):
        one.acknowledge(EPOCH, 9) if answer == "acknowledge" else one.reject(EPOCH, 9, "")


STEPS = st.lists(st.tuples(st.sampled_from(["offer", "take", "ack", "nack"]), st.sampled_from("abc")), max_size=60)


@given(STEPS)
def test_whatever_happens_versions_grow_and_nothing_is_repeated(steps: list[tuple[str, str]]) -> None:
    """Rules 1 to 3 over all sequences; and what was offered last is what is sent last."""
    one = session()
    version, now = 0, NOW
    taken: list[tuple[str, int]] = []
    last_offered = ""
    for step, name in steps:
        now += 1
        if step == "offer" and one.is_new(content(name), EPOCH):
            version += 1
            one.offer(content(name), epoch=EPOCH, version=version)
        if step == "offer":
            last_offered = name
        if step == "take" and (out := sent(one, now)):
            taken.append(out)
        if step == "ack" and taken:
            one.acknowledge(EPOCH, taken[-1][1])
        if step == "nack" and taken:
            one.reject(EPOCH, taken[-1][1], "no")
    if out := sent(one, now + ANSWER_S):
        taken.append(out)
    versions = [number for _, number in taken]
    assert versions == sorted(set(versions))
    assert all(before[0] != after[0] for before, after in itertools.pairwise(taken))
    assert not last_offered or taken[-1][0] == last_offered
