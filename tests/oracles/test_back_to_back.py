"""Real conversations between every pair of: our engines, and `h2` by itself with its validation on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.http.session import ErrorCode, Fields, ServerHandler, Session
from tests.contract.sessions import GET, HTTP2, LIMITS, OK, POST, Engine, Sender, StrictSink, Wire, pseudo, regular
from tests.oracles.h2_peer import H2Peer

H2 = Engine("h2", lambda handler, limits: H2Peer(handler), lambda limits: H2Peer(None), is_multiplexed=True)
PAIRS = [(server, client) for server in (*HTTP2, H2) for client in (*HTTP2, H2) if not server is client is H2]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} serves {pair[1]}")
Pair = tuple[Engine, Engine]


def mixed(server: Engine, client: Engine) -> Engine:
    return Engine(f"{server} and {client}", server.server, client.client, is_multiplexed=True)


def wire_of(pair: Pair, *, gives_back: bool = False, serve: ServerHandler | None = None) -> Wire:
    return Wire(mixed(*pair), limits=LIMITS, gives_back=gives_back, serve=serve)


@dataclass
class Talk:
    """One exchange of a conversation."""

    asked: int
    """Octets of body."""
    asked_trailers: Fields | None
    interim: int
    answered: int
    answered_trailers: Fields | None
    lazy: int
    """Octets given back at a time."""
    cancelled: str
    """Who resets it: "", "client" or "server"; after its request was sent, and before all of the answer was."""
    sink: StrictSink | None = None
    server: StrictSink | None = None
    senders: list[Sender] = field(default_factory=list)

    @property
    def is_bodiless(self) -> bool:
        return not self.asked and self.asked_trailers is None


trailers = st.none() | st.just([(b"x-sum", b"1"), (b"grpc-status", b"0")])
sizes = st.sampled_from([0, 1, 100, 16_384, 16_385, 65_535, 65_536, 200_000]) | st.integers(0, 70_000)
talks = st.builds(
    Talk,
    asked=sizes,
    asked_trailers=trailers,
    interim=st.integers(0, 2),
    answered=sizes,
    answered_trailers=trailers,
    lazy=st.sampled_from([3_000, 40_000, 1 << 20]),
    cancelled=st.sampled_from(["", "", "", "client", "server"]),
)
cuts = st.lists(st.integers(1, 40) | st.integers(1, 20_000), max_size=60)


def _body(octets: int, seed: int) -> bytes:
    return bytes((seed + n) & 0xFF for n in range(256)) * (octets // 256 + 1)


def _ask(wire: Wire, talk: Talk, index: int) -> None:
    fields = [*POST, (b"x-talk", str(index).encode())]
    talk.sink = wire.request(fields, talk.is_bodiless, gives_back=False)
    if not talk.is_bodiless:
        talk.senders.append(Sender(talk.sink, _body(talk.asked, 1)[: talk.asked], talk.asked_trailers))
        talk.senders[0].go()
        if not talk.asked and talk.asked_trailers is None:
            wire.client.data(talk.sink.stream, b"", True)


def _answer(wire: Wire, talk: Talk) -> None:
    assert talk.server is not None
    stream = talk.server.stream
    for _ in range(talk.interim):
        wire.server.informational(stream, [(b":status", b"103"), (b"link", b"</a>")])
    is_bare = not talk.answered and talk.answered_trailers is None
    wire.server.head(stream, OK, is_bare)
    if not is_bare:
        talk.senders.append(Sender(talk.server, _body(talk.answered, 2)[: talk.answered], talk.answered_trailers))
        talk.senders[-1].go()


def _cancel(talk: Talk) -> None:
    assert talk.sink is not None
    assert talk.server is not None
    sink = talk.sink if talk.cancelled == "client" else talk.server
    if sink.reset_code is None:
        sink.reset_it(ErrorCode.CANCEL)


def _give_back(wire: Wire, all_talks: list[Talk]) -> None:
    """Everybody takes what came, a little at a time, until nothing more comes."""
    wire.pump()
    while any(sink is not None and sink.owed for talk in all_talks for sink in (talk.sink, talk.server)):
        for talk in all_talks:
            for sink in (talk.sink, talk.server):
                if sink is not None and sink.owed:
                    sink.give_back(talk.lazy)
        wire.pump()


def _check(talk: Talk) -> None:
    sink, server = talk.sink, talk.server
    assert sink is not None
    assert server is not None
    if talk.cancelled:
        assert sink.over or sink.silenced
        assert server.over or server.silenced
        assert _body(talk.asked, 1)[: talk.asked].startswith(bytes(server.body))
        assert _body(talk.answered, 2)[: talk.answered].startswith(bytes(sink.body))
        return
    assert (len(server.body), bytes(server.body)) == (talk.asked, _body(talk.asked, 1)[: talk.asked])
    assert server.trailer_fields == talk.asked_trailers
    assert (len(sink.body), bytes(sink.body)) == (talk.answered, _body(talk.answered, 2)[: talk.answered])
    assert sink.trailer_fields == talk.answered_trailers
    assert len(sink.interim) == talk.interim
    assert (pseudo(sink.fields), regular(sink.fields)) == ({b":status": b"200"}, regular(OK))
    assert sink.ended
    assert server.ended


@every_pair
@settings(max_examples=40)
@given(talking=st.lists(talks, min_size=1, max_size=6), sizes=cuts)
def test_many_exchanges_at_once_arrive_whole(pair: Pair, talking: list[Talk], sizes: list[int]) -> None:
    """Bodies beyond every window, trailers, 1xx, slow readers and resets of either side, pieces of any size."""
    wire = wire_of(pair)
    wire.cut(sizes)
    for index, talk in enumerate(talking):
        if talk.cancelled == "client" and pair[1] is H2:
            talk.interim = 0  # h2 has no row for a 1xx head that crossed its reset
        _ask(wire, talk, index)
    wire.pump()
    by_name = {dict(regular(sink.fields))[b"x-talk"]: sink for sink in wire.handler.sinks}
    for index, talk in enumerate(talking):
        talk.server = by_name[str(index).encode()]
        if talk.cancelled == "server":
            _cancel(talk)
        else:
            _answer(wire, talk)
        if talk.cancelled == "client":
            _cancel(talk)
    _give_back(wire, talking)
    for talk in talking:
        _check(talk)
    assert (wire.client.open_streams, wire.server.open_streams) == (0, 0)
    assert not wire.client.closed
    assert not wire.server.closed
    assert wire.client.can_open


@every_pair
@settings(max_examples=15)
@given(sizes=cuts)
def test_a_hundred_exchanges_one_after_another_leave_nothing_behind(pair: Pair, sizes: list[int]) -> None:
    """Tables, windows and stream numbers go on: the last is as the first."""
    wire = wire_of(pair, gives_back=True)
    wire.cut(sizes)
    for number in range(100):
        fields = [*GET, (b"x-number", str(number % 7).encode()), (b"cookie", str(number).encode() * 3)]
        sink = wire.request(fields, True)
        wire.pump()
        server = wire.handler.sinks[-1]
        assert regular(server.fields) == regular(fields)
        wire.server.head(server.stream, [*OK, (b"x-answer", str(number).encode())], False)
        wire.server.data(server.stream, b"a" * 2_000, True)
        wire.pump()
        assert (len(sink.body), sink.ended) == (2_000, True)
        assert regular(sink.fields)[-1] == (b"x-answer", str(number).encode())
    assert (wire.client.open_streams, wire.server.open_streams) == (0, 0)


@pytest.mark.parametrize("pair", [p for p in PAIRS if H2 not in p], ids=lambda p: f"{p[0]} drains {p[1]}")
@settings(max_examples=30)
@given(sizes=cuts, open_before=st.integers(0, 3), crossing=st.booleans())
def test_a_server_that_drains_lets_what_is_open_finish(
    pair: Pair, sizes: list[int], open_before: int, crossing: bool
) -> None:
    """Also a request that crossed the first GOAWAY; then no more, and the connection closes in order."""
    wire = wire_of(pair, gives_back=True)
    wire.cut(sizes)
    wire.pump()
    sinks = [wire.request(GET, True) for _ in range(open_before)]
    wire.pump()
    wire.server.drain()
    if crossing:
        sinks.append(wire.request(GET, True))
    wire.pump()
    assert not wire.client.can_open
    assert wire.server.draining
    for server in wire.handler.sinks:
        wire.server.head(server.stream, OK, False)
        wire.server.data(server.stream, b"bye", True)
    wire.pump()
    assert [bytes(sink.body) for sink in sinks] == [b"bye"] * len(sinks)
    assert wire.server.closed
    assert wire.server.fault is None
    assert wire.client.open_streams == 0


def test_h2_by_itself_is_not_tolerant() -> None:
    """What our engines never send would fail the test that sends it."""
    wire = wire_of((H2, HTTP2[0]))
    client: Session = wire.client
    assert isinstance(wire.server, H2Peer)
    wire.pump()
    client.request([*GET, (b"Upper", b"1")], True, StrictSink(is_client=True))
    with pytest.raises(Exception, match="uppercase"):
        wire.pump()
