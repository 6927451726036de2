"""sidecar.control.gate: frames pass unchanged however the bytes are cut, GOAWAY is taken out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.control.gate import FrameGate, GateError, GoAway


def frame(kind: int, payload: bytes, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + stream.to_bytes(4) + payload


def goaway(last_stream: int, code: int, debug: bytes = b"") -> bytes:
    return frame(7, last_stream.to_bytes(4) + code.to_bytes(4) + debug)


frames = st.lists(
    st.one_of(
        st.builds(frame, st.sampled_from([0, 1, 3, 4, 6, 8, 99]), st.binary(max_size=40), st.integers(0, 9)),
        st.builds(goaway, st.integers(0, 2**31 - 1), st.integers(0, 13), st.binary(max_size=20)),
    ),
    max_size=8,
)


@given(frames=frames, cuts=st.lists(st.integers(0, 400), max_size=10))
def test_frames_pass_in_order_however_the_bytes_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    """What comes out is what went in, without the GOAWAYs, and every GOAWAY is reported."""
    wire = b"".join(frames)
    gate, passed, seen = FrameGate(16_384), b"", 0
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    for start, end in pairwise(edges):
        out, goaways = gate.receive(wire[start:end])
        passed += out
        seen += len(goaways)
    assert passed == b"".join(one for one in frames if one[3] != 7)
    assert seen == sum(one[3] == 7 for one in frames)


def test_a_goaway_is_read_and_made_printable() -> None:
    """RFC 9113 section 6.8; the debug text is cut and cleaned before it may reach a log."""
    _, (found,) = FrameGate(16_384).receive(goaway(2**31 - 1, 11, b"too_many_pings\n" + b"x" * 500))
    assert found == GoAway(last_stream=2**31 - 1, code=11, debug="too_many_pings?" + "x" * 113)


@pytest.mark.parametrize(
    "wire",
    [frame(7, b"1234567"), frame(7, b"12345678", stream=3), (16_385).to_bytes(3) + b"\0\0\0\0\0\1"],
    ids=["too short", "on a stream", "frame too large"],
)
def test_what_is_no_http2_is_refused(wire: bytes) -> None:
    """Malformed GOAWAY and oversized frames end the connection before anything is buffered for them."""
    with pytest.raises(GateError):
        FrameGate(16_384).receive(wire)


@given(st.binary(max_size=300))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    """Nothing else is ever raised."""
    try:
        passed, _ = FrameGate(16_384).receive(data)
    except GateError:
        return
    assert len(passed) <= len(data)
