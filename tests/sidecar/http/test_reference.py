"""What is peculiar to the engine on `h2`. What every engine owes: tests/contract/test_http2_dialogues.py."""

from __future__ import annotations

import struct

from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame

from sidecar.errors import BadRequest
from sidecar.http.session import ErrorCode
from tests.contract.http2 import Peer, asking, served
from tests.contract.sessions import GET, POST


def test_h2_does_not_reset_a_stream_again_for_every_frame_that_crossed_our_reset() -> None:
    """It would answer each DATA frame in flight with RST_STREAM; RFC 9113 section 5.1 wants silence for a while."""
    peer = Peer("reference")
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.requests[0].reset_it(ErrorCode.CANCEL)
    peer.read()
    peer.send(*[DataFrame(1, b"x") for _ in range(600)], HeadersFrame(1, b"", flags=["END_HEADERS", "END_STREAM"]))
    assert peer.resets() == {}
    assert not peer.session.closed
    served(peer, 3)


def test_h2_still_refuses_what_follows_the_peers_own_reset() -> None:
    """RFC 9113 section 5.1: STREAM_CLOSED, of the stream."""
    peer = Peer("reference")
    peer.send(peer.head(1, POST, "END_HEADERS"), RstStreamFrame(1, ErrorCode.CANCEL))
    peer.read()
    peer.send(DataFrame(1, b"x"))
    assert peer.resets() == {1: ErrorCode.STREAM_CLOSED}
    served(peer, 3)


def test_a_head_that_crossed_our_reset_is_ignored() -> None:
    """A server could not know yet; `h2` alone would end the connection over a 1xx head."""
    peer, (sink,) = asking("reference")
    sink.reset_it(ErrorCode.CANCEL)
    peer.send(HeadersFrame(1, peer.encoder.encode([(b":status", b"103")]), flags=["END_HEADERS"]))
    assert not peer.session.closed


def test_a_goaway_that_is_malformed_is_refused() -> None:
    """The gate takes out only those it understands."""
    peer = Peer("reference")
    peer.session.receive(struct.pack(">HBBBLL", 0, 4, 7, 0, 0, 0))
    assert peer.goodbye() in (ErrorCode.FRAME_SIZE_ERROR, ErrorCode.PROTOCOL_ERROR)


def test_faults_name_their_row() -> None:
    """For metrics: what ended the connection, and which row of the catalogue that is."""
    peer = Peer("reference")
    peer.send(HeadersFrame(1, b"\x80", flags=["END_HEADERS"]))
    assert isinstance(peer.session.fault, BadRequest)
    assert peer.session.fault.row == "A24"


def test_its_repr_tells_its_state() -> None:
    """Role, state, streams."""
    peer = Peer("reference")
    peer.send(peer.head(1, GET))
    assert repr(peer.session) == "<http2 reference server, open, 1 streams>"
    peer.session.shutdown(ErrorCode.NO_ERROR)
    assert isinstance(peer.read()[-1], GoAwayFrame)
    assert repr(peer.session) == "<http2 reference server, closed, 0 streams>"
