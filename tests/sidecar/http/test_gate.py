"""sidecar.http.gate: frames pass unchanged however the bytes are cut, and what no peer needs to send is stopped."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Limits
from sidecar.errors import PeerFlood
from sidecar.http.budgets import Budgets
from sidecar.http.frames import PREFACE, goaway
from sidecar.http.gate import FrameGate, GateFault
from sidecar.http.session import ErrorCode
from tests.contract.http2 import frame

LIMITS = Limits(empty_frames_max=1_000)


def gate(limits: Limits = LIMITS, *, expects_preface: bool = False) -> FrameGate:
    return FrameGate(limits, Budgets(limits), lambda: 0.0, expects_preface=expects_preface)


def popped(it: FrameGate, data: bytes) -> list[bytes]:
    it.push(data)
    found = []
    while (one := it.pop()) is not None:
        found.append(one.octets)
    return found


FRAMES = st.lists(
    st.builds(
        frame, st.sampled_from([0, 3, 4, 6, 7, 99]), st.just(0), st.integers(0, 9), st.binary(min_size=1, max_size=40)
    ),
    max_size=8,
)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 400), max_size=10), expects_preface=st.booleans())
def test_frames_pass_in_order_however_the_bytes_are_cut(
    frames: list[bytes], cuts: list[int], expects_preface: bool
) -> None:
    """What comes out is what went in."""
    wire = (PREFACE if expects_preface else b"") + b"".join(frames)
    it = gate(expects_preface=expects_preface)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    passed = [one for start, end in pairwise(edges) for one in popped(it, wire[start:end])]
    assert passed == frames
    assert not it.awaits_rest


def test_a_goaway_is_read_and_made_printable() -> None:
    """RFC 9113 section 6.8; the debug text is cut and cleaned before it may reach a log."""
    it = gate()
    it.push(frame(7, 0, 0, goaway(2**31 - 1, 11)[9:] + b"too_many_pings\n" + b"x" * 500))
    found = it.pop()
    assert found is not None
    assert found.is_goaway
    assert found.goaway == (2**31 - 1, 11)
    assert found.goaway_debug == "too_many_pings?" + "x" * 113


@pytest.mark.parametrize("octets", [frame(7, 0, 0, b"1234567"), frame(7, 0, 3, b"12345678")])
def test_a_goaway_that_is_malformed_is_not_taken_for_one(octets: bytes) -> None:
    """It is left to whoever knows HTTP/2."""
    it = gate()
    it.push(octets)
    found = it.pop()
    assert found is not None
    assert not found.is_goaway


@pytest.mark.parametrize(
    ("octets", "code", "row"),
    [
        (b"\x00\x40\x01\0\0\0\0\0\1", ErrorCode.FRAME_SIZE_ERROR, "A27"),
        (frame(1, 0, 1, b"\x82") + frame(6, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR, "A05"),
        (frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82") * 9, ErrorCode.ENHANCE_YOUR_CALM, "A04"),
        (frame(1, 0, 1, bytes(16_384)) + frame(9, 0, 1, bytes(16_384)) * 4, ErrorCode.ENHANCE_YOUR_CALM, "A04"),
        (frame(4, 0, 0, bytes(6 * 33)), ErrorCode.ENHANCE_YOUR_CALM, "A08"),
    ],
)
def test_what_ends_the_connection_says_how_and_why(octets: bytes, code: int, row: str) -> None:
    """The code for GOAWAY and the row for metrics."""
    with pytest.raises(GateFault) as caught:
        popped(gate(), octets)
    assert (caught.value.code, caught.value.row) == (code, row)


def test_a38_what_is_no_preface_is_refused_at_its_first_wrong_octet() -> None:
    """RFC 9113 section 3.4."""
    with pytest.raises(GateFault) as caught:
        popped(gate(expects_preface=True), PREFACE[:10] + b"X")
    assert caught.value.row == "A38"


def test_numbers_come_from_the_configuration() -> None:
    """Also those of single frames."""
    limits = Limits(continuation_frames_max=1, settings_entries_max=8, empty_frames_max=0)
    for octets in (frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82") * 2, frame(4, 0, 0, bytes(6 * 9))):
        with pytest.raises(GateFault):
            popped(gate(limits), octets)
    with pytest.raises(PeerFlood):
        popped(gate(limits), frame(0, 0, 1))
