"""Frames that cost their sender nothing must not cost us memory (security.md A15, A16, B28)."""

from __future__ import annotations

import sys

from sidecar.flow import MERGE_OCTETS, Flow
from sidecar.http.session import Fields, Session
from tests.sidecar.fakes import FakeSession


def waiting_flow() -> tuple[Flow, FakeSession, FakeSession]:
    """A body whose target takes nothing yet."""
    source, target = FakeSession(is_server=True), FakeSession(is_server=False, credit=0)
    touched: set[Session] = set()
    flow = Flow(source, 1, touched)
    target.request([], False, _Sink())
    flow.open(target, 1)
    return flow, source, target


class _Sink:
    """Where the target tells of its stream; nothing is listened to here."""

    def informational(self, fields: Fields) -> None: ...
    def head(self, fields: Fields, end: bool) -> None: ...
    def data(self, data: bytes, flow: int, end: bool) -> None: ...
    def trailers(self, fields: Fields) -> None: ...
    def reset(self, code: int, unprocessed: bool) -> None: ...
    def writable(self) -> None: ...


def held_memory(flow: Flow) -> int:
    queue = flow._queue
    return sys.getsizeof(queue) + sum(sys.getsizeof(item) + sys.getsizeof(item[0]) for item in queue)


def test_a15_empty_frames_for_a_blocked_body_are_not_kept() -> None:
    """A DATA frame without content takes no credit, so nothing bounds how many may wait but us."""
    flow, _, _ = waiting_flow()
    flow.push(b"x" * MERGE_OCTETS, MERGE_OCTETS, False)
    for _ in range(10_000):
        flow.push(b"", 0, False)
    assert held_memory(flow) < 4_096


def test_a15_the_credit_of_padding_goes_back_at_once() -> None:
    """A frame of nothing but padding holds nothing, so nobody has to wait for its credit."""
    flow, source, _ = waiting_flow()
    flow.push(b"x", 1, False)
    source.flow_received = 1 + 10 * 256
    for _ in range(10):
        flow.push(b"", 256, False)
    assert source.flow_returned == 10 * 256


def test_a16_one_octet_frames_for_a_blocked_body_cost_little_more_than_their_octets() -> None:
    """A window of 64 KiB sent octet by octet would otherwise be held as 65,536 objects, a hundred times its size."""
    flow, source, target = waiting_flow()
    sent = bytes(n % 251 for n in range(65_535))
    source.flow_received = len(sent)
    for n in range(len(sent)):
        flow.push(sent[n : n + 1], 1, False)
    assert held_memory(flow) < 2 * len(sent)
    flow.push(b"", 0, True)
    target.grant(len(sent))
    flow.pump()
    assert bytes(target.body) == sent
    assert target.sent_end
    assert source.flow_returned == len(sent)


def test_a16_merging_keeps_padding_credit_and_order() -> None:
    """What is merged is handed on in order, and every octet of credit goes back, padding included."""
    flow, source, target = waiting_flow()
    pieces = [(b"ab", 10), (b"c", 1), (b"x" * 5_000, 5_000), (b"d", 300), (b"", 7), (b"e", 1)]
    source.flow_received = sum(flow_octets for _, flow_octets in pieces)
    for data, credit in pieces:
        flow.push(data, credit, False)
    target.grant(3)
    flow.pump()
    target.grant(100_000)
    flow.pump()
    assert bytes(target.body) == b"".join(data for data, _ in pieces)
    assert source.flow_returned == source.flow_received
