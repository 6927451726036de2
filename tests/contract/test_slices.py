"""How much one peer may have done before others have their turn (row A39), for every HTTP/2 engine."""

from __future__ import annotations

import pytest
from hyperframe.frame import PingFrame

from sidecar.http.engines import HTTP2_ENGINES
from tests.contract.http2 import Peer

every_engine = pytest.mark.parametrize("engine", HTTP2_ENGINES)


@every_engine
def test_a39_a_slice_runs_so_many_frames_and_says_that_there_are_more(engine: str) -> None:
    """Nothing is lost, nothing is run twice, and the order is kept; a frame cut in two does not matter."""
    peer = Peer(engine)
    peer.read()
    peer.session.slice_frames = 10
    octets = b"".join(PingFrame(0, b"%08d" % number).serialize() for number in range(35))
    answered: list[int] = []
    peer.session.receive(octets[:-5])
    while True:
        answered.append(sum(isinstance(frame, PingFrame) for frame in peer.read()))
        if not peer.session.has_more:
            break
        peer.session.receive(b"")
    peer.session.receive(octets[-5:])
    assert answered == [10, 10, 10, 4]
    (last,) = peer.read()
    assert isinstance(last, PingFrame)
    assert last.opaque_data == b"00000034"


@every_engine
def test_a39_a_peer_may_go_on_before_its_slice_is_done(engine: str) -> None:
    """Bytes that come in between are run after those that wait."""
    peer = Peer(engine)
    peer.read()
    peer.session.slice_frames = 2
    peer.send(*(PingFrame(0, b"%08d" % number) for number in range(5)))
    peer.send(PingFrame(0, b"00000005"))
    while peer.session.has_more:
        peer.session.receive(b"")
    assert [f.opaque_data for f in peer.read() if isinstance(f, PingFrame)] == [b"%08d" % n for n in range(6)]
