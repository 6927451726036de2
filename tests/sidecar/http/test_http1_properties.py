"""HTTP/1.1 under hypothesis: two machines back to back with bytes cut anywhere, and mutated bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Limits
from sidecar.http.http1 import Http1Client, Http1Server
from sidecar.http.session import Field, Fields, Session
from tests.sidecar.http.playback import Recorder, Requests, client, get, server

BODIES = st.lists(st.binary(max_size=40), max_size=4)
TRAILERS: Fields = [(b"x-sum", b"1"), (b"x-other", b"")]


class Wire:
    """Carries bytes between two sessions, cut where hypothesis says."""

    def __init__(self, near: Session, far: Session, cuts: list[int]) -> None:
        self._ends = (near, far)
        self._cuts = cuts
        self._at = 0

    def settle(self) -> None:
        """Carry until neither has anything to say."""
        moved = True
        while moved:
            moved = False
            for source, target in (self._ends, self._ends[::-1]):
                data = source.take()
                source.sent(0)
                moved = moved or bool(data)
                while data:
                    cut = self._cuts[self._at % len(self._cuts)]
                    self._at += 1
                    target.receive(data[:cut])
                    data = data[cut:]


def framed(pieces: list[bytes], known: bool) -> list[Field]:
    return [(b"content-length", b"%d" % sum(map(len, pieces)))] if known else []


def send(session: Session, stream: int, pieces: list[bytes], trailers: bool) -> None:
    for piece in pieces:
        session.data(stream, piece, False)
    if trailers:
        session.trailers(stream, TRAILERS)
    else:
        session.data(stream, b"", True)


MESSAGE = st.tuples(BODIES, st.booleans(), st.booleans())


@given(
    st.lists(st.tuples(MESSAGE, MESSAGE), min_size=1, max_size=4),
    st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_what_one_machine_says_the_other_hears(
    dialogue: list[tuple[tuple[list[bytes], bool, bool], tuple[list[bytes], bool, bool]]], cuts: list[int]
) -> None:
    """Heads, bodies and trailers arrive whole, in order, and each stream ends once, on one connection."""
    handler = Requests()
    near, far = client(), server(handler)
    wire = Wire(near, far, cuts)
    for number, (asked, answered) in enumerate(dialogue, 1):
        sink = Recorder()
        pieces, known, trailing = asked
        assert near.can_open
        near.request(get(b"/%d" % number, *framed(pieces, known), method=b"POST"), False, sink)
        send(near, number, pieces, trailing)
        wire.settle()
        heard = handler.sinks[-1]
        assert handler.heads[-1] == get(b"/%d" % number, *framed(pieces, known), method=b"POST")
        assert heard.body == b"".join(pieces)
        assert heard.ended == 1
        assert heard.trailer == (TRAILERS if trailing and not known else None)
        pieces, known, trailing = answered
        far.head(number, [(b":status", b"200"), (b"x", b"y"), *framed(pieces, known)], False)
        send(far, number, pieces, trailing)
        wire.settle()
        assert sink.heads == [[(b":status", b"200"), (b"x", b"y"), *framed(pieces, known)]]
        assert (sink.body, sink.ended) == (b"".join(pieces), 1)
        assert sink.trailer == (TRAILERS if trailing and not known else None)
        assert sink.resets == heard.resets == []
    assert (near.open_streams, far.open_streams, near.closed, far.closed) == (0, 0, False, False)


@given(st.integers(1, 5000), st.integers(1, 3000))
def test_what_is_queued_and_what_is_unconsumed_stay_bounded(window: int, room: int) -> None:
    """A sender that honours credit never queues more than its bound, a reader that pauses never holds more than its
    window and one read."""
    limits = Limits(stream_window_octets=window, output_octets_max=room)
    handler = Requests()
    near, far = client(limits), server(handler, limits)
    near.request(get(b"/", (b"content-length", b"20000"), method=b"PUT"), False, Recorder())
    left, held = 20_000, 0
    near.take()
    near.sent(0)
    far.receive(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
    sink = handler.sinks[0]
    while left or held:
        size = min(near.credit(1), left)
        if size:
            near.data(1, b"a" * size, size == left)
            left -= size
        data = near.take()
        assert len(data) <= room
        near.sent(0)
        before = len(sink.body)
        if data:
            far.receive(data)
        held += len(sink.body) - before
        assert held <= window + room
        if not far.wants_read or not left:
            far.consumed(1, held)
            held = 0
            assert far.wants_read
    assert sink.ended == 1
    assert sink.body == b"a" * 20_000


GOOD_REQUESTS = [
    b"GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nTE: trailers\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"POST http://a:8/ HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade, x\r\nX: y\r\n\r\n",
]
GOOD_RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nhello",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
]
SPLICES = [
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b":",
    b"\r\n",
    b"\r\n\r\n",
    b"0",
    b"-",
    b"\x80",
    b"Host: b\r\n",
    b"Content-Length: 3\r\n",
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Good messages with pieces cut out, doubled and spliced in."""
    raw = b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        to = draw(st.integers(at, min(len(raw), at + 12)))
        splice = draw(st.sampled_from([b"", raw[at:to] * 2, *SPLICES]) | st.binary(max_size=4))
        raw = raw[:at] + splice + raw[to:]
    return raw


CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def feed(session: Http1Server | Http1Client, raw: bytes, cuts: list[int]) -> None:
    at = turn = 0
    while at < len(raw):
        session.receive(raw[at : at + cuts[turn % len(cuts)]])
        at += cuts[turn % len(cuts)]
        turn += 1


def check_ends(sink: Recorder) -> None:
    assert sink.ended + len(sink.resets) >= 1
    assert sink.ended <= 1
    assert len(sink.resets) <= 1


@given(mutated(GOOD_REQUESTS), CUTS, st.booleans())
def test_no_request_bytes_raise_and_every_stream_ends(raw: bytes, cuts: list[int], answers: bool) -> None:
    """Whatever is sent, cut anywhere; at most one answer for each request and one for a fault."""

    class Handler(Requests):
        def request(self, session: Session, stream: int, fields: Fields, end: bool) -> Recorder:
            sink = super().request(session, stream, fields, end)
            assert isinstance(sink, Recorder)
            if answers:
                session.head(stream, [(b":status", b"200")], True)
            return sink

    handler = Handler()
    session = server(handler)
    feed(session, raw, cuts)
    session.eof()
    for sink in handler.sinks:
        check_ends(sink)
    out = session.take()
    assert session.closed
    assert out.count(b"HTTP/1.1 ") <= len(handler.heads) + 1


@given(mutated(GOOD_RESPONSES), CUTS, st.sampled_from([b"GET", b"HEAD", b"POST"]), st.booleans())
def test_no_response_bytes_raise_and_every_stream_ends(raw: bytes, cuts: list[int], method: bytes, end: bool) -> None:
    """Whatever is answered, cut anywhere."""
    session, sink = client(), Recorder()
    session.request(get(method=method), end, sink)
    feed(session, raw, cuts)
    session.eof()
    assert session.closed
    check_ends(sink)
    assert len(sink.heads) <= 1


@given(mutated(GOOD_REQUESTS), CUTS)
def test_how_bytes_are_cut_changes_nothing(raw: bytes, cuts: list[int]) -> None:
    """One reading, however it arrives."""

    def outcome(pieces: list[int]) -> object:
        handler = Requests()
        session = server(handler)
        feed(session, raw, pieces)
        sinks = [(sink.trailer, sink.ended, sink.resets) for sink in handler.sinks]
        return handler.heads, sinks, session.closed, session.take()

    assert outcome(cuts) == outcome([len(raw) + 1])


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(raw: bytes) -> None:
    """By both roles."""
    handler = Requests()
    session = server(handler)
    session.receive(raw)
    session.eof()
    asking, sink = client(), Recorder()
    asking.request(get(), True, sink)
    asking.receive(raw)
    asking.eof()
    check_ends(sink)
