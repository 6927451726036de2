"""The contract of `sidecar.http.session`, as one suite, on every engine back to back with itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Limits
from sidecar.http.engines import HTTP2_ENGINES, http2_session
from sidecar.http.session import HEADS_OCTETS_MAX, ErrorCode, Fields, Session
from tests.contract.sessions import (
    ENGINES,
    GET,
    HTTP2,
    LIMITS,
    OK,
    POST,
    Engine,
    Handler,
    Sender,
    StrictSink,
    Wire,
    pseudo,
    regular,
)

every_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)
every_http2 = pytest.mark.parametrize("engine", HTTP2, ids=str)
BIG = bytes(range(256)) * 2_000  # 512,000 octets: beyond every window and the output bound
SMALL = replace(LIMITS, output_octets_max=10_000)


def answer(sink: StrictSink, body: bytes = b"hello", head: Fields = OK) -> None:
    assert sink.session is not None
    sink.session.head(sink.stream, head, not body)
    if body:
        sink.session.data(sink.stream, body, True)


# Messages pass whole


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, Fields | None, bytes, Fields | None, list[int], int]:
    body = st.binary(max_size=300) | st.integers(1, 150_000).map(lambda n: b"x" * n)
    trailers = st.none() | st.just([(b"x-sum", b"1"), (b"grpc-status", b"0")])
    cuts = st.lists(st.integers(1, 40) | st.integers(1, 20_000), max_size=80)
    lazy = draw(st.sampled_from([1, 700, 5_000, 100_000]))
    return draw(body), draw(trailers), draw(body), draw(trailers), draw(cuts), lazy


@every_engine
@given(conversation=conversations())
def test_messages_arrive_whole_however_bytes_are_cut_and_credit_comes_back(
    engine: Engine, conversation: tuple[bytes, Fields | None, bytes, Fields | None, list[int], int]
) -> None:
    """Bodies and trailers of both directions, pieces of any size, credit returned late and little by little."""
    asked, asked_trailers, answered, answered_trailers, cuts, lazy = conversation
    wire = Wire(engine, gives_back=False)
    wire.cut(cuts)
    sink = wire.request(POST, False, gives_back=False)
    if not asked and asked_trailers is None:
        wire.client.data(sink.stream, b"", True)
    Sender(sink, asked, asked_trailers).go()
    wire.pump()
    (server,) = wire.handler.sinks
    while not server.ended:
        server.give_back(lazy)
        wire.pump()
    wire.server.head(server.stream, OK, not answered and answered_trailers is None)
    Sender(server, answered, answered_trailers).go()
    wire.pump()
    while not sink.ended:
        sink.give_back(lazy)
        wire.pump()
    assert (bytes(server.body), server.trailer_fields) == (asked, asked_trailers)
    assert (bytes(sink.body), sink.trailer_fields) == (answered, answered_trailers)
    assert server.reset_code is None
    assert sink.reset_code is None
    assert (wire.client.open_streams, wire.server.open_streams) == (0, 0)
    assert wire.client.can_open


@every_engine
def test_heads_keep_their_fields_and_pseudo_fields(engine: Engine) -> None:
    """What goes in as a head comes out as the same head at the other end."""
    wire = Wire(engine)
    sink = wire.request([*GET, (b"accept", b"*/*"), (b"x-a", b"1"), (b"x-a", b"2")], True)
    wire.pump()
    (server,) = wire.handler.sinks
    assert pseudo(server.fields) == dict(GET)
    assert regular(server.fields) == [(b"accept", b"*/*"), (b"x-a", b"1"), (b"x-a", b"2")]
    answer(server, head=[(b":status", b"418"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    wire.pump()
    assert pseudo(sink.fields) == {b":status": b"418"}
    assert regular(sink.fields) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert sink.ended


@every_engine
def test_interim_heads_come_before_the_final_one(engine: Engine) -> None:
    """1xx heads are told one by one and end nothing."""
    wire = Wire(engine)
    sink = wire.request([*POST, (b"expect", b"100-continue")], False)
    wire.pump()
    (server,) = wire.handler.sinks
    wire.server.informational(server.stream, [(b":status", b"100")])
    wire.server.informational(server.stream, [(b":status", b"103"), (b"link", b"</a>")])
    wire.pump()
    assert [pseudo(f)[b":status"] for f in sink.interim] == [b"100", b"103"]
    assert not sink.over
    wire.client.data(sink.stream, b"now", True)
    wire.pump()
    answer(server)
    wire.pump()
    assert (bytes(server.body), bytes(sink.body), sink.ended) == (b"now", b"hello", True)


@every_engine
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", b"200"), (b"GET", b"204"), (b"GET", b"304")])
def test_what_has_no_body_ends_with_its_head(engine: Engine, method: bytes, status: bytes) -> None:
    """HEAD, 204 and 304, even with a content-length, and the connection goes on."""
    wire = Wire(engine)
    for _ in range(2):
        sink = wire.request([(b":method", method), *GET[1:]], True)
        wire.pump()
        length = [] if status == b"204" else [(b"content-length", b"12")]
        wire.server.head(wire.handler.sinks[-1].stream, [(b":status", status), *length], True)
        wire.pump()
        assert sink.ended
        assert not sink.body
        assert wire.client.can_open


# 2 Every stream ends exactly once (StrictSink checks each call)


@every_engine
def test_a_peer_that_resets_is_heard_once(engine: Engine) -> None:
    """The client gives up: the server's sink hears one reset, the client's nothing more."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.client.data(sink.stream, b"some", False)
    wire.pump()
    (server,) = wire.handler.sinks
    sink.reset_it(ErrorCode.CANCEL)
    wire.pump()
    assert server.reset_code is not None
    assert not server.unprocessed
    assert bytes(server.body) == b"some"
    assert wire.server.open_streams == 0


@every_engine
def test_a_reset_is_heard_by_a_client_that_waits_for_the_answer(engine: Engine) -> None:
    """The server breaks off after the head: the client's sink hears a reset and never an end."""
    wire = Wire(engine)
    sink = wire.request(GET, True)
    wire.pump()
    (server,) = wire.handler.sinks
    wire.server.head(server.stream, OK, False)
    wire.server.data(server.stream, b"part", False)
    server.reset_it(ErrorCode.INTERNAL_ERROR)
    wire.pump()
    assert bytes(sink.body) == b"part"
    assert sink.reset_code is not None
    assert not sink.ended
    assert not sink.unprocessed


@every_engine
@pytest.mark.parametrize("who", ["client", "server"])
def test_shutdown_ends_every_stream_and_closes(engine: Engine, who: str) -> None:
    """Both sinks hear a reset, both sessions are closed, and nothing can be opened."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.pump()
    session: Session = getattr(wire, who)
    session.shutdown(ErrorCode.NO_ERROR)
    assert session.closed
    wire.pump()
    assert sink.reset_code is not None
    assert wire.handler.sinks[0].reset_code is not None
    assert wire.client.closed
    assert not wire.client.can_open
    session.shutdown(ErrorCode.NO_ERROR)  # once more changes nothing
    assert session.take() == b""


@every_engine
def test_a_lost_connection_ends_every_stream(engine: Engine) -> None:
    """`eof` at both ends: one reset each, however often it is told."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.pump()
    wire.lose()
    wire.lose()
    assert sink.reset_code is not None
    assert wire.handler.sinks[0].reset_code is not None
    assert wire.client.closed
    assert wire.server.closed


@every_engine
def test_eof_of_an_idle_session_closes_it(engine: Engine) -> None:
    """Nothing to end, nothing more to do."""
    wire = Wire(engine)
    wire.pump()
    wire.lose()
    assert wire.client.closed
    assert wire.server.closed
    assert wire.client.draining


@every_engine
def test_an_answer_before_the_end_of_the_request_reaches_the_client(engine: Engine) -> None:
    """A refusal does not wait for the upload; then the server resets what is left of it (RFC 9113 section 8.1)."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.client.data(sink.stream, b"some", False)
    wire.pump()
    (server,) = wire.handler.sinks
    answer(server, b"no", [(b":status", b"403"), (b"content-length", b"2")])
    server.reset_it(ErrorCode.NO_ERROR)
    wire.pump()
    assert (pseudo(sink.fields), bytes(sink.body), sink.ended) == ({b":status": b"403"}, b"no", True)
    wire.client.data(sink.stream, b"more", True)
    wire.pump()
    assert bytes(server.body) == b"some"
    assert wire.server.open_streams == 0


# Credit


@every_engine
def test_what_a_slow_reader_holds_is_bounded(engine: Engine) -> None:
    """Nothing is given back: the sender stops at the window (HTTP/1.1: at the bound, plus what was read at once).

    For a reader that then takes all of it the window may grow, and that has a bound too."""
    wire = Wire(engine, gives_back=False)
    sink = wire.request(POST, False)
    sender = Sender(sink, BIG)
    sender.go()
    wire.pump()
    (server,) = wire.handler.sinks
    assert 0 < server.owed_max <= LIMITS.stream_window_octets + 65_536
    assert not sender.done or not engine.is_multiplexed
    held = server.owed_max
    while not server.ended:
        server.give_back()
        wire.pump()
    assert bytes(server.body) == BIG
    assert server.owed_max <= max(held, LIMITS.stream_window_octets_max) + 65_536


@every_engine
def test_giving_credit_back_resumes_reading(engine: Engine) -> None:
    """`wants_read` turns False only while something is owed, and `resume_reading` is called when it turns back."""
    wire = Wire(engine, gives_back=False)
    resumed: list[bool] = []
    wire.server.resume_reading = lambda: resumed.append(wire.server.wants_read)
    sink = wire.request(POST, False)
    Sender(sink, BIG).go()
    wire.pump()
    (server,) = wire.handler.sinks
    stopped = not wire.server.wants_read
    assert stopped is not engine.is_multiplexed
    server.give_back()
    assert wire.server.wants_read
    assert resumed == ([True] if stopped else [])


@pytest.mark.parametrize("http2", HTTP2_ENGINES)
def test_a14_no_stream_is_opened_while_too_many_heads_wait_to_be_read(http2: str) -> None:
    """A connection that many share must not end because one of them has heads queued on it: its caller waits."""
    session = http2_session(http2, None, Limits(header_list_octets_max=65_536, output_octets_max=16_384), lambda: 0.0)
    bound = 16_384 + HEADS_OCTETS_MAX
    session.receive(b"\0\0\0\x04\0\0\0\0\0")
    session.take()
    session.sent(0)
    large = [*GET, (b"etag", b"x" * 60_000)]
    opened = 0
    while session.can_open:
        session.request(large, True, StrictSink(is_client=True))
        opened += 1
        assert opened <= bound // 60_000 + 1
    out = session.take()
    assert len(out) < bound + 80_000  # one engine counts before compression
    session.sent(bound + 1)
    assert not session.can_open
    session.sent(bound)
    assert session.can_open


@every_engine
def test_what_the_socket_has_not_taken_counts_against_credit(engine: Engine) -> None:
    """The bytes queued in a session are bounded whatever the peer's windows say; `sent` wakes the writer once."""
    wire = Wire(engine, client_limits=SMALL)
    wire.pump()
    sink = wire.request(POST, False)
    sender = Sender(sink, BIG)
    sender.go()
    assert sender.wanted == 1
    out = wire.client.take()
    assert 10_000 <= len(out) <= 11_000
    assert wire.client.credit(sink.stream) == 0
    wire.client.sent(len(out))  # the kernel took nothing
    assert sink.writable_count == 0
    wire.client.sent(4_000)
    assert sink.writable_count == 1
    assert wire.client.credit(sink.stream) == 0  # the sender has used it all and asked again
    assert len(wire.client.take()) <= 7_000
    wire.client.sent(10_000)
    assert sink.writable_count == 1


@every_engine
def test_writable_is_called_once_for_each_time_it_was_wanted(engine: Engine) -> None:
    """Not without being asked, not twice."""
    wire = Wire(engine, client_limits=SMALL)
    wire.pump()
    sink = wire.request(POST, False)
    wire.client.data(sink.stream, b"x" * wire.client.credit(sink.stream), False)
    for _ in range(2):
        wire.client.sent(len(wire.client.take()))
        assert sink.writable_count == 0
        wire.client.sent(0)
        assert sink.writable_count == 0
    wire.client.data(sink.stream, b"x" * wire.client.credit(sink.stream), False)
    wire.client.want_write(sink.stream)
    wire.client.want_write(sink.stream)
    wire.client.take()
    wire.client.sent(0)
    assert sink.writable_count == 1
    wire.client.take()
    wire.client.sent(0)
    assert sink.writable_count == 1


@every_engine
def test_an_empty_end_needs_no_credit(engine: Engine) -> None:
    """A body that filled the queue to the brim can still be ended."""
    wire = Wire(engine, client_limits=SMALL)
    wire.pump()
    sink = wire.request(POST, False)
    sent = b"x" * wire.client.credit(sink.stream)
    wire.client.data(sink.stream, sent, False)
    assert wire.client.credit(sink.stream) == 0
    wire.client.data(sink.stream, b"", True)
    wire.pump()
    (server,) = wire.handler.sinks
    assert bytes(server.body) == sent
    assert server.ended


# 3 Calls for a stream that is gone


def speak(session: Session, stream: int, *, is_server: bool) -> None:
    """Everything that can be said of a stream."""
    if is_server:
        session.informational(stream, [(b":status", b"103")])
        session.head(stream, OK, False)
    session.data(stream, b"late", False)
    session.data(stream, b"", True)
    session.trailers(stream, [(b"x-sum", b"1")])
    session.want_write(stream)
    session.reset(stream, ErrorCode.CANCEL)
    session.consumed(stream, 0)
    assert session.credit(stream) == 0


@every_engine
def test_calls_for_a_stream_that_is_over_are_ignored(engine: Engine) -> None:
    """The peer may have ended it in the same slice; nothing is sent, nothing raised, the connection goes on."""
    wire = Wire(engine)
    for _ in range(2):
        sink = wire.request(GET, True)
        wire.pump()
        server = wire.handler.sinks[-1]
        answer(server)
        wire.pump()
        speak(wire.client, sink.stream, is_server=False)
        speak(wire.server, server.stream, is_server=True)
        assert wire.client.take() == b""
        assert wire.server.take() == b""


@every_engine
def test_calls_for_a_stream_the_peer_reset_are_ignored(engine: Engine) -> None:
    """Also while the answer is being written."""
    wire = Wire(engine)
    sink = wire.request(GET, True)
    wire.pump()
    (server,) = wire.handler.sinks
    wire.server.head(server.stream, OK, False)
    sink.reset_it(ErrorCode.CANCEL)
    wire.pump()
    speak(wire.server, server.stream, is_server=True)
    assert wire.server.take() == b""


@every_engine
def test_calls_on_a_closed_session_are_ignored(engine: Engine) -> None:
    """Whoever holds a stream may hear of the end only later."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.pump()
    (server,) = wire.handler.sinks
    wire.lose()
    speak(wire.client, sink.stream, is_server=False)
    speak(wire.server, server.stream, is_server=True)
    for session in (wire.client, wire.server):
        session.receive(b"GET / HTTP/1.1\r\n\r\n")
        session.drain()
        session.shutdown(ErrorCode.NO_ERROR)
        session.eof()
        assert session.closed
        assert session.take() == b""


# 4 Nothing that is not HTTP is sent

EVIL = (b"a\rb", b"a\nb", b"a\0b", b"a\r\nx-evil: 1")


@every_engine
@pytest.mark.parametrize("evil", EVIL)
def test_b12_line_breaks_in_a_field_are_refused_before_a_byte_is_queued(engine: Engine, evil: bytes) -> None:
    """ValueError from every call that takes fields, for names and values alike; the stream can still be used."""
    wire = Wire(engine)
    wire.pump()
    bad: Fields = [(b"x-a", evil)]
    for fields in ([*GET, *bad], [*GET, (evil, b"1")], [*GET[:3], (b":path", evil)]):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            wire.client.request(fields, True, StrictSink(is_client=True))
    assert wire.client.take() == b""
    assert wire.client.can_open
    sink = wire.request(POST, False)
    wire.pump()
    (server,) = wire.handler.sinks
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        wire.server.informational(server.stream, [(b":status", b"103"), *bad])
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        wire.server.head(server.stream, [*OK, *bad], True)
    assert wire.server.take() == b""
    wire.server.head(server.stream, OK, False)
    wire.pump()
    for session, stream in ((wire.server, server.stream), (wire.client, sink.stream)):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            session.trailers(stream, bad)
        assert session.take() == b""
    wire.client.data(sink.stream, b"", True)
    wire.server.data(server.stream, b"fine", True)
    wire.pump()
    assert bytes(sink.body) == b"fine"
    assert sink.ended


# Drain


@every_engine
@pytest.mark.parametrize("who", ["client", "server"])
def test_r14_draining_lets_what_is_open_finish_and_then_closes(engine: Engine, who: str) -> None:
    """No new stream after it; the open one is served to its end, whoever drains."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.pump()
    session: Session = getattr(wire, who)
    session.drain()
    session.drain()  # twice is once
    assert session.draining
    wire.pump()
    assert not wire.client.can_open or not engine.is_multiplexed
    assert "closed" not in repr(session)
    wire.client.data(sink.stream, b"rest", True)
    wire.pump()
    (server,) = wire.handler.sinks
    answer(server)
    wire.pump()
    assert (bytes(server.body), bytes(sink.body), sink.ended) == (b"rest", b"hello", True)
    assert session.closed
    assert wire.client.closed


@every_engine
@pytest.mark.parametrize("who", ["client", "server"])
def test_draining_an_idle_session_closes_it(engine: Engine, who: str) -> None:
    """There is nothing to wait for (a server of HTTP/2 first hears its PING back)."""
    wire = Wire(engine)
    wire.pump()
    session: Session = getattr(wire, who)
    session.drain()
    assert session.draining
    wire.pump()
    assert session.closed
    assert not wire.client.can_open


@every_engine
def test_r14_a_request_that_crosses_the_drain_is_served_or_comes_back_unprocessed(engine: Engine) -> None:
    """Zero failed requests: HTTP/2 still serves it, HTTP/1.1 tells that it was never acted upon."""
    wire = Wire(engine)
    first = wire.request(GET, True)
    wire.pump()
    answer(wire.handler.sinks[0])
    wire.pump()
    assert first.ended
    crossing = wire.request(GET, True)  # on its way while the server decides to go
    wire.server.drain()
    wire.pump()
    if engine.is_multiplexed:
        answer(wire.handler.sinks[1])
        wire.pump()
        assert crossing.ended
    else:
        assert crossing.unprocessed
        assert len(wire.handler.sinks) == 1
    assert wire.server.closed


# 5 Re-entrance


@every_engine
def test_a_handler_may_answer_before_it_returns(engine: Engine) -> None:
    """As every refusal does."""
    wire = Wire(engine)
    wire.handler.on_request = lambda session, sink: answer(sink)
    for _ in range(3):
        sink = wire.request(GET, True)
        wire.pump()
        assert sink.ended
        assert bytes(sink.body) == b"hello"
        assert wire.server.open_streams == 0


@every_engine
@pytest.mark.parametrize("end", [True, False])
def test_a_handler_may_reset_before_it_returns(engine: Engine, end: bool) -> None:
    """Its sink then hears nothing, the client a reset."""
    wire = Wire(engine)
    wire.handler.on_request = lambda session, sink: sink.reset_it(ErrorCode.REFUSED_STREAM)
    sink = wire.request(POST, end)
    wire.pump()
    assert sink.reset_code is not None
    assert wire.server.open_streams == 0


@every_engine
@pytest.mark.parametrize("end", [True, False])
def test_a_session_shut_down_by_its_own_handler_still_ends_the_stream(engine: Engine, end: bool) -> None:
    """The sink that the handler returns hears a reset, once."""
    wire = Wire(engine)
    wire.handler.on_request = lambda session, sink: session.shutdown(ErrorCode.NO_ERROR)
    sink = wire.request(POST, end)
    wire.pump()
    assert wire.handler.sinks[0].reset_code is not None
    assert sink.reset_code is not None


REACTIONS: dict[str, Callable[[StrictSink], None]] = {
    "reset": lambda sink: sink.reset_it(ErrorCode.CANCEL),
    "shutdown": lambda sink: sink.session.shutdown(ErrorCode.NO_ERROR) if sink.session else None,
    "drain": lambda sink: sink.session.drain() if sink.session else None,
    "end": lambda sink: sink.session.data(sink.stream, b"", True) if sink.session else None,
}


@every_engine
@pytest.mark.parametrize("reaction", REACTIONS)
@pytest.mark.parametrize("event", ["head", "data", "trailers"])
def test_a_client_sink_may_call_back_from_inside_any_event(engine: Engine, event: str, reaction: str) -> None:
    """Whatever it does, each sink ends once and nothing is raised."""
    wire = Wire(engine)
    sink = wire.request(POST, False)

    def react(name: str) -> None:
        if name == event:
            REACTIONS[reaction](sink)

    sink.on_event = react
    wire.pump()
    (server,) = wire.handler.sinks
    wire.server.head(server.stream, OK, False)
    wire.server.data(server.stream, b"a", False)
    wire.server.data(server.stream, b"b", False)
    wire.server.trailers(server.stream, [(b"x-sum", b"1")])
    wire.pump()
    assert sink.over or sink.silenced
    if reaction == "end":
        assert sink.ended
        assert server.ended or server.reset_code is not None
    else:
        wire.lose()
        assert server.over or server.silenced


@every_engine
@pytest.mark.parametrize("reaction", ["reset", "shutdown", "drain"])
def test_a_server_sink_may_call_back_from_inside_data(engine: Engine, reaction: str) -> None:
    """As a body that is too long does."""
    wire = Wire(engine)
    sink = wire.request(POST, False)
    wire.pump()
    (server,) = wire.handler.sinks
    server.on_event = lambda name: REACTIONS[reaction](server) if name == "data" else None
    wire.client.data(sink.stream, b"a", False)
    wire.client.data(sink.stream, b"b", False)
    wire.pump()
    if reaction == "drain":
        assert bytes(server.body) == b"ab"
        wire.lose()
    assert sink.over
    assert server.over or server.silenced


@every_engine
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_a_sink_may_open_the_next_stream_from_inside_its_own_end(engine: Engine, body: bytes) -> None:
    """As a pool does that gives the connection to whoever waits; else they would wait for ever."""
    wire = Wire(engine)
    wire.handler.on_request = lambda session, sink: answer(sink, body)
    second: list[StrictSink] = []
    first = wire.request(GET, True)

    def next_one(name: str) -> None:
        if first.ended and not second:
            second.append(wire.request(GET, True))

    first.on_event = next_one
    wire.pump()
    assert second[0].ended


@every_engine
@pytest.mark.parametrize("trailers", [None, [(b"x-sum", b"1")]])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_a_reset_from_inside_the_end_changes_nothing(engine: Engine, body: bytes, trailers: Fields | None) -> None:
    """Both halves are over, so the stream is gone (contract 3): the connection serves the next request."""
    wire = Wire(engine)
    for _ in range(2):
        sink = wire.request(GET, True)

        def give_up(name: str, sink: StrictSink = sink) -> None:
            if sink.ended and sink.session is not None:
                sink.session.reset(sink.stream, ErrorCode.CANCEL)

        sink.on_event = give_up
        wire.pump()
        server = wire.handler.sinks[-1]
        wire.server.head(server.stream, OK, not body and trailers is None)
        if body or trailers:
            Sender(server, body, trailers).go()
        wire.pump()
        assert sink.ended
        assert wire.client.can_open


# 1 The peer's faults


@every_engine
@given(data=st.data())
def test_garbage_never_raises_and_never_leaves_a_stream_open_on_a_closed_session(
    engine: Engine, data: st.DataObject
) -> None:
    """A real conversation with some of its bytes changed, dropped or added, in pieces of any size."""
    source = Wire(engine)
    source.request([*POST, (b"content-length", b"300")], False)
    source.client.data(1, b"y" * 300, True)
    if engine.is_multiplexed:
        source.request(GET, True)
    transcript = bytearray(source.client.take())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(transcript) - 1))
        transcript[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    handler = Handler()
    session = engine.server(handler, LIMITS)
    while transcript:
        size = data.draw(st.integers(1, 200))
        session.receive(bytes(transcript[:size]))
        del transcript[:size]
        session.take()
        session.sent(0)
    if not session.closed:
        session.eof()
    assert session.closed
    assert session.open_streams == 0
    assert all(sink.reset_code is not None for sink in handler.sinks)


@every_engine
@given(data=st.data())
def test_a_garbled_answer_never_raises_and_always_ends_the_stream(engine: Engine, data: st.DataObject) -> None:
    """The same for a client: its sink ends, in order or by reset."""
    source = Wire(engine)
    source.handler.on_request = lambda session, sink: answer(sink, b"z" * 300, [*OK, (b"content-length", b"300")])
    request = source.client.request(GET, True, StrictSink(is_client=True))
    source.server.receive(source.client.take())
    transcript = bytearray(source.server.take())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(transcript) - 1))
        transcript[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    session = engine.client(LIMITS)
    sink = StrictSink(is_client=True)
    sink.attach(session, session.request(GET, True, sink))
    assert sink.stream == request
    while transcript:
        size = data.draw(st.integers(1, 200))
        session.receive(bytes(transcript[:size]))
        del transcript[:size]
        session.take()
        session.sent(0)
    session.eof()
    assert sink.over
    assert session.closed


@every_engine
def test_i01_a_message_that_has_begun_is_waited_for(engine: Engine) -> None:
    """`awaits_rest` is what the sweep asks before it ends a connection that dribbles."""
    wire = Wire(engine)
    wire.pump()
    waits = [wire.server.awaits_rest]
    wire.request(GET, True)
    out = wire.client.take()
    for piece in (out[:7], out[7:]):
        wire.server.receive(piece)
        waits.append(wire.server.awaits_rest)
    assert waits == [False, True, False]


@every_engine
def test_repr_tells_role_state_and_streams(engine: Engine) -> None:
    """What one sees in a log or a failed assertion."""
    wire = Wire(engine)
    wire.request(POST, False)
    wire.pump()
    assert "open, 1 streams" in repr(wire.server)
    wire.server.drain()
    assert "draining" in repr(wire.server)
    wire.server.shutdown(ErrorCode.NO_ERROR)
    assert "closed" in repr(wire.server)


# Many streams on one connection


@every_http2
def test_streams_do_not_wait_for_each_other(engine: Engine) -> None:
    """One that is not read from stops alone; another on the same connection goes on."""
    wire = Wire(engine, gives_back=False)
    stuck, other = wire.request(POST, False), wire.request(POST, False)
    Sender(stuck, BIG).go()
    wire.pump()
    Sender(other, b"small").go()
    wire.pump()
    first, second = wire.handler.sinks
    assert first.owed == LIMITS.stream_window_octets
    assert bytes(second.body) == b"small"
    assert second.ended


@every_http2
def test_credit_thrown_away_after_the_end_still_feeds_the_connection(engine: Engine) -> None:
    """Contract 3: the connection's window is shared, so `consumed` counts for streams that are over too."""
    limits = replace(LIMITS, connection_window_octets=65_535)
    wire = Wire(engine, limits=limits, gives_back=False)
    first = wire.request(POST, False)
    Sender(first, b"x" * 65_535).go()
    wire.pump()
    (server,) = wire.handler.sinks
    answer(server)
    wire.pump()
    assert server.owed == 65_535
    second = wire.request(POST, False)
    assert wire.client.credit(second.stream) == 0
    server.give_back()
    wire.pump()
    assert wire.client.credit(second.stream) == 65_535


@every_http2
def test_a_sink_may_reset_a_sibling_from_inside_its_own_end(engine: Engine) -> None:
    """The sibling then hears nothing: it was reset by us before its turn came."""
    wire = Wire(engine)
    first, second, third = (wire.request(POST, False) for _ in range(3))
    wire.pump()
    first.on_event = lambda name: second.reset_it(ErrorCode.CANCEL)
    wire.client.eof()
    assert first.reset_code is not None
    assert second.reset_code is None
    assert third.reset_code is not None


@every_http2
@given(
    plan=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["open", "send", "end", "answer", "reset", "refuse", "give"])),
        max_size=60,
    ),
    cuts=st.lists(st.integers(1, 400), max_size=30),
)
def test_any_interleaving_of_streams_ends_each_once(
    engine: Engine, plan: list[tuple[int, str]], cuts: list[int]
) -> None:
    """The sinks check every call; at the end all are over and all bytes that came are a prefix of those sent."""
    wire = Wire(engine, gives_back=False)
    wire.cut(cuts)
    sinks: list[StrictSink] = []
    sent: dict[int, bytes] = {}
    for index, action in plan:
        if action == "open" and wire.client.can_open:
            sinks.append(wire.request(POST, False))
            sent[sinks[-1].stream] = b""
        elif action in ("send", "end", "reset") and index < len(sinks) and not sinks[index].silenced:
            sink = sinks[index]
            if action == "reset":
                sink.reset_it(ErrorCode.CANCEL)
                continue
            piece = b"p" * min(wire.client.credit(sink.stream), 9_000)
            wire.client.data(sink.stream, piece, action == "end")
            sent[sink.stream] += piece
        elif index < len(wire.handler.sinks):
            server = wire.handler.sinks[index]
            if action == "give":
                server.give_back(5_000)
            elif action == "answer" and not server.silenced:
                answer(server)
            elif action == "refuse" and not server.silenced:
                server.reset_it(ErrorCode.REFUSED_STREAM)
        wire.pump()
    wire.lose()
    for server in wire.handler.sinks:
        assert sent[server.stream].startswith(bytes(server.body))
        assert server.over or server.silenced
    assert all(sink.over or sink.silenced for sink in sinks)
    assert wire.client.open_streams == wire.server.open_streams == 0
