"""Dialogues with the HTTP/1.1 server session: bytes in, events out; calls in, bytes out."""

from __future__ import annotations

import pytest

from sidecar.config import Limits
from sidecar.http.session import ErrorCode
from tests.sidecar.http.playback import OK, Answers, Requests, asked, is_closed, server

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_request_without_a_body_ends_with_its_head() -> None:
    """The shape is that of HTTP/2."""
    session, handler = asked(b"GET /a?b HTTP/1.1\r\nhOsT: App:80\r\nAccept: */*\r\n\r\n")
    assert handler.heads == [
        [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"App:80"),
            (b":path", b"/a?b"),
            (b"accept", b"*/*"),
        ]
    ]
    assert handler.ends == [True]
    assert session.open_streams == 1


def test_an_empty_body_ends_with_its_head_and_keeps_its_length() -> None:
    """Content-Length: 0."""
    _, handler = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    assert handler.ends == [True]
    assert (b"content-length", b"0") in handler.heads[0]


def test_a_body_of_known_length_arrives_as_it_comes() -> None:
    """And its end with its last octet."""
    session, handler = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    sink = handler.sinks[0]
    assert (sink.body, sink.ended) == (b"hello", 0)
    session.receive(b"world")
    assert (sink.body, sink.ended) == (b"helloworld", 1)


def test_a_chunked_body_arrives_with_its_trailers() -> None:
    """Trailers are the end."""
    session, handler = asked(CHUNKED + b"5\r\nhello\r\n")
    session.receive(b"A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nx-other:2\r\n\r\n")
    sink = handler.sinks[0]
    assert (sink.body, sink.ended) == (b"hello0123456789", 1)
    assert sink.trailer == [(b"x-sum", b"1"), (b"x-other", b"2")]


def test_trailers_are_as_strict_as_heads_and_as_bounded() -> None:
    """RFC 9112 section 7.1.2."""
    for bad in (b"X : y\r\n\r\n", b" X: y\r\n\r\n", b"X: \x01\r\n\r\n", b"nonsense\r\n\r\n", b"X: " + b"a" * 20_000):
        session, handler = asked(CHUNKED + b"0\r\n" + bad)
        assert session.closed
        assert handler.sinks[0].resets == [(ErrorCode.PROTOCOL_ERROR, False)]


def test_an_answer_without_a_length_is_chunked() -> None:
    """With its trailers, and the connection lives on."""
    session, _ = asked(GET)
    session.head(1, [*OK, (b"x", b"y")], False)
    session.data(1, b"hello", False)
    session.data(1, b"", False)
    session.trailers(1, [(b"x-sum", b"1")])
    assert session.take() == (
        b"HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
    )
    assert (session.closed, session.open_streams) == (False, 0)


def test_an_answer_with_a_length_is_sent_as_it_is() -> None:
    """Trailers have no place in it."""
    session, _ = asked(GET)
    session.head(1, [*OK, (b"content-length", b"5")], False)
    session.data(1, b"hello", False)
    session.trailers(1, [(b"x", b"y")])
    assert session.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    assert not is_closed(session)


def test_an_empty_answer_says_so() -> None:
    """Else its end would be unknown."""
    session, _ = asked(GET)
    session.head(1, OK, True)
    assert session.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("body", [b"toolong", b"shor"])
def test_an_answer_of_the_wrong_length_ends_the_connection(body: bytes) -> None:
    """The next answer must not be taken for its rest, nor its rest for the next answer."""
    session, handler = asked(GET)
    session.head(1, [*OK, (b"content-length", b"5")], False)
    session.data(1, body, True)
    assert session.closed
    assert handler.sinks[0].resets == [(ErrorCode.INTERNAL_ERROR, False)]
    assert not session.take().endswith(b"toolong")


def test_http_1_0_is_answered_until_close() -> None:
    """It knows no chunks."""
    session, handler = asked(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    session.informational(1, [(b":status", b"103")])
    session.head(1, OK, False)
    session.data(1, b"hello", False)
    session.trailers(1, [(b"x", b"y")])
    assert session.take() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"
    assert session.closed
    assert handler.sinks[0].resets == []


def test_http_1_0_lives_on_only_by_request_and_with_a_length() -> None:
    """RFC 9112 section 9.3."""
    keep = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    session, _ = asked(keep)
    session.head(1, [*OK, (b"content-length", b"2")], False)
    session.data(1, b"ok", True)
    assert session.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok"
    assert not is_closed(session)
    session.receive(keep)
    session.head(2, OK, False)
    assert session.take() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


def test_http_1_0_may_come_without_host_and_cannot_expect() -> None:
    """Whether there must be an authority is for `headers` to say."""
    _, handler = asked(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert handler.heads[0] == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b"content-length", b"2"),
    ]


@pytest.mark.parametrize("option", [b"close", b"Close", b"keep-alive, CLOSE", b"close\r\nConnection: keep-alive"])
def test_a_client_that_wants_to_close_is_closed(option: bytes) -> None:
    """After its answer, and what it pipelined is not looked at."""
    session, handler = asked(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + option + b"\r\n\r\n" + GET)
    assert session.draining
    session.head(1, OK, True)
    assert session.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert session.closed
    assert len(handler.heads) == 1


def test_b32_pipelined_requests_wait_their_turn() -> None:
    """The next one is parsed when the answer to this one is finished."""
    session, handler = asked(GET + b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok" + GET)
    assert handler.streams == [1]
    session.head(1, OK, False)
    assert handler.streams == [1]
    session.data(1, b"", True)
    assert handler.streams == [1, 2]
    assert handler.sinks[1].body == b"ok"
    session.head(2, OK, True)
    assert handler.streams == [1, 2, 3]


def test_a_hundred_pipelined_requests_are_answered_in_order() -> None:
    """Without a call stack of a hundred."""
    session = server(Answers())
    session.receive(GET * 2000)
    assert session.take().count(b"HTTP/1.1 200 OK\r\n") == 2000
    assert not is_closed(session)


def test_expect_crosses_and_continue_comes_back() -> None:
    """RFC 9110 section 10.1.1: the proxy forwards both."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    session, handler = asked(head)
    assert (b"expect", b"100-continue") in handler.heads[0]
    session.informational(1, [(b":status", b"100")])
    assert session.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    session.receive(b"ok")
    session.head(1, OK, True)
    assert session.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_a_refused_expectation_closes() -> None:
    """Whether the body will still come is unknown."""
    session, _ = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    session.head(1, [(b":status", b"403")], True)
    assert b"connection: close" in session.take()
    session.reset(1, ErrorCode.NO_ERROR)
    assert session.closed


def test_an_early_answer_to_a_large_upload_announces_the_close() -> None:
    """More than we would throw away."""
    session, _ = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    session.head(1, [(b":status", b"413")], True)
    session.reset(1, ErrorCode.NO_ERROR)
    assert b"connection: close" in session.take()
    assert session.closed


def test_both_bodies_may_flow_at_once() -> None:
    """An echo answers before the request is over; nothing is closed for that."""
    session, handler = asked(CHUNKED + b"2\r\nhi\r\n")
    session.head(1, OK, False)
    session.data(1, b"hi", False)
    session.receive(b"2\r\nho\r\n0\r\n\r\n")
    session.data(1, b"ho", True)
    assert session.take().endswith(b"2\r\nhi\r\n2\r\nho\r\n0\r\n\r\n")
    assert (handler.sinks[0].body, session.closed, session.open_streams) == (b"hiho", False, 0)


def test_a_reset_before_the_answer_is_whole_cuts_it_off() -> None:
    """Without the last chunk the client knows."""
    session, handler = asked(GET)
    session.head(1, OK, False)
    session.data(1, b"half", False)
    session.reset(1, ErrorCode.CANCEL)
    assert session.closed
    assert session.take().endswith(b"4\r\nhalf\r\n")
    assert handler.sinks[0].resets == []
    session.data(1, b"more", True)
    session.trailers(1, [])
    session.head(1, OK, True)
    session.informational(1, [(b":status", b"100")])
    assert session.take() == b""


def test_a_client_that_goes_away_is_told_to_the_sink_once() -> None:
    """Waiting for an answer or sending a body."""
    for raw in (GET, CHUNKED + b"5\r\nhel"):
        session, handler = asked(raw)
        session.eof()
        session.eof()
        assert session.closed
        assert handler.sinks[0].resets == [(ErrorCode.CANCEL, False)]
    idle = server(Requests())
    idle.receive(b"GET / HTT")
    assert idle.awaits_rest
    idle.eof()
    assert idle.take() == b""


def test_a_slow_reader_slows_the_client() -> None:
    """Reading pauses beyond the window and resumes when the other side took the bytes."""
    session, handler = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
    resumed: list[bool] = []
    session.resume_reading = lambda: resumed.append(session.wants_read)
    session.receive(b"a" * 65_535)
    assert session.wants_read
    session.receive(b"a" * 65_536)
    paused = [session.wants_read]
    for stream, flow in ((1, 65_535), (2, 65_536), (1, 65_536)):
        session.consumed(stream, flow)
        paused.append(session.wants_read)
    assert paused == [False, False, False, True]
    assert resumed == [True]
    assert len(handler.sinks[0].body) == 131_071


def test_bytes_nobody_took_yet_do_not_hold_up_the_next_request() -> None:
    """The bound is that of one message."""
    session, handler = asked(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000)
    reading = [session.wants_read]
    session.head(1, OK, True)
    assert [*reading, session.wants_read] == [False, True]
    session.receive(GET)
    assert len(handler.heads) == 2


def test_credit_is_the_room_left_in_the_output() -> None:
    """Queued here and not yet taken by the socket, both count."""
    handler = Requests()
    session = server(handler, Limits(output_octets_max=1000))
    session.receive(GET)
    assert session.credit(1) == 0
    session.head(1, [*OK, (b"content-length", b"5000")], False)
    head = len(session.take())
    assert session.credit(1) == 1000 - head
    session.sent(0)
    assert session.credit(1) == 1000
    session.data(1, b"a" * 1000, False)
    assert (session.credit(1), session.credit(2)) == (0, 0)
    session.want_write(1)
    assert len(session.take()) == 1000
    session.sent(1000)
    assert handler.sinks[0].woken == 0
    session.sent(400)
    session.sent(0)
    assert handler.sinks[0].woken == 1


def test_drain_waits_for_the_answer_and_says_close() -> None:
    """And an idle connection goes at once."""
    session, _ = asked(GET)
    session.drain()
    assert session.draining
    assert not is_closed(session)
    session.head(1, OK, True)
    assert b"\r\nconnection: close\r\n" in session.take()
    assert session.closed
    idle = server(Requests())
    idle.drain()
    assert idle.closed


def test_drain_still_answers_a_head_that_has_begun_to_arrive() -> None:
    """A request under way is not thrown away."""
    handler = Answers()
    session = server(handler)
    session.receive(GET[:10])
    session.drain()
    assert not is_closed(session)
    session.receive(GET[10:])
    assert b"\r\nconnection: close\r\n" in session.take()
    assert session.closed


def test_shutdown_ends_the_stream_through_its_sink() -> None:
    """Also while the handler has not returned yet."""
    session, handler = asked(GET)
    session.shutdown(ErrorCode.INTERNAL_ERROR)
    assert handler.sinks[0].resets == [(ErrorCode.INTERNAL_ERROR, False)]
    session.shutdown(ErrorCode.NO_ERROR)

    class ShutsDown(Requests):
        def request(self, session, stream, fields, end):  # type: ignore[no-untyped-def]
            session.shutdown(ErrorCode.NO_ERROR)
            return super().request(session, stream, fields, end)

    early = ShutsDown()
    server(early).receive(GET)
    assert early.sinks[0].resets == [(ErrorCode.NO_ERROR, False)]


def test_one_empty_line_before_a_request_is_forgiven() -> None:
    """RFC 9112 section 2.2; two are not."""
    handler = Requests()
    session = server(handler)
    for at in range(len(GET) + 2):
        session.receive((b"\r\n" + GET)[at : at + 1])
    session.head(1, OK, True)
    session.receive(b"\r\n" + GET)
    assert len(handler.heads) == 2
    session.head(2, OK, True)
    session.take()
    session.receive(b"\r\n\r\n" + GET)
    assert session.closed


def test_methods_httptools_does_not_know_cross() -> None:
    """Policy decides what may be asked."""
    _, handler = asked(b"FROB /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")
    assert handler.heads[0][0] == (b":method", b"FROB")
    assert handler.heads[0][4:] == [(b"x", b"y")]


def test_repr_tells_the_state() -> None:
    """For logs and for tests."""
    session, _ = asked(GET)
    assert repr(session) == "<Http1Server, open, 1 streams>"
    session.drain()
    assert repr(session) == "<Http1Server, draining, 1 streams>"
    session.eof()
    assert repr(session) == "<Http1Server, closed, 0 streams>"
    assert not session.can_open
