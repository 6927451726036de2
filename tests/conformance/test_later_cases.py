"""What h2spec 2.3 to 2.6 added to or corrected in the version that `make conformance` installs, as dialogues in frames.

Numbers are those of h2spec 2.6. They need no h2spec.
"""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, SettingsFrame

from sidecar.http.engines import HTTP2_ENGINES, http2_engine
from sidecar.http.session import ErrorCode
from tests.contract.http2 import LIMITS, Peer, frame
from tests.contract.sessions import GET, OK, Handler

pytestmark = pytest.mark.parametrize("engine", HTTP2_ENGINES)

HEADERS, PING = 0x1, 0x6
END_STREAM_AND_HEADERS = 0x5


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"\x7f\x07\x00", id="hpack/2.3.3/2"),  # a literal whose name is at index 70
        # "x-test", and a Huffman-coded value with the EOS symbol between its letters
        pytest.param(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f", id="hpack/5.2/3"),
    ],
)
def test_a24_a_field_that_does_not_decode_ends_the_connection(engine: str, field: bytes) -> None:
    """After the fields of a request that is right."""
    peer = Peer(engine)
    block = peer.encoder.encode(GET) + field
    peer.session.receive(frame(HEADERS, END_STREAM_AND_HEADERS, 1, block))
    assert peer.goodbye() == ErrorCode.COMPRESSION_ERROR


def test_http2_6_7_4_a_ping_of_six_octets_ends_the_connection(engine: str) -> None:
    """On stream 0, where only its length is wrong."""
    peer = Peer(engine)
    peer.session.receive(frame(PING, 0, 0, b"\0" * 6))
    assert peer.goodbye() == ErrorCode.FRAME_SIZE_ERROR


def test_http2_6_9_2_1_a_window_that_opens_lets_the_data_go(engine: str) -> None:
    """Of 0 at first, then of 1: one octet comes, whether or not our acknowledgement was read before."""
    peer = Peer(engine)
    peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}), peer.head(1))
    (sink,) = peer.requests
    peer.session.head(1, OK, False)
    assert peer.session.credit(1) == 0
    peer.session.want_write(1)
    peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1}))
    assert peer.session.credit(1) == 1
    peer.session.data(sink.stream, b"x", False)
    assert [said.data for said in peer.read() if isinstance(said, DataFrame)] == [b"x"]


def test_http2_3_5_2_what_is_not_the_preface_is_told_goodbye(engine: str) -> None:
    """Before the connection is closed, GOAWAY(PROTOCOL_ERROR)."""
    session = http2_engine(engine)(Handler(), LIMITS)
    session.take()
    session.receive(b"INVALID CONNECTION PREFACE\r\n\r\n")
    assert session.closed
    goodbye, length = Frame.parse_frame_header(memoryview(said := session.take())[:9])
    goodbye.parse_body(memoryview(said)[9 : 9 + length])
    assert isinstance(goodbye, GoAwayFrame)
    assert goodbye.error_code == ErrorCode.PROTOCOL_ERROR
