"""Dialogues with the HTTP/1.1 client session: calls in, bytes out; bytes in, events out."""

from __future__ import annotations

import pytest

from sidecar.config import Limits
from sidecar.http.http1 import Http1Client
from sidecar.http.session import ErrorCode, Field
from tests.sidecar.http.playback import Recorder, client, get, is_closed

OK_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def sent(*extra: Field, method: bytes = b"GET", end: bool = True) -> tuple[Http1Client, Recorder, bytes]:
    session, sink = client(), Recorder()
    session.request(get(b"/x?y", *extra, method=method), end, sink)
    return session, sink, session.take()


def test_a_request_without_a_body_has_no_framing() -> None:
    """Host comes first."""
    session, _, out = sent((b"accept", b"*/*"))
    assert out == b"GET /x?y HTTP/1.1\r\nhost: app\r\naccept: */*\r\n\r\n"
    assert not session.can_open
    assert session.open_streams == 1


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_a_request_that_could_have_a_body_says_it_has_none(method: bytes) -> None:
    """RFC 9110 section 8.6."""
    assert b"\r\ncontent-length: 0\r\n" in sent(method=method)[2]
    assert sent((b"content-length", b"0"), method=method)[2].count(b"content-length") == 1


def test_a_body_of_known_length_is_sent_as_it_is() -> None:
    """With the length it came with."""
    session, _, out = sent((b"content-length", b"5"), method=b"POST", end=False)
    assert out == b"POST /x?y HTTP/1.1\r\nhost: app\r\ncontent-length: 5\r\n\r\n"
    session.data(1, b"he", False)
    session.data(1, b"llo", True)
    assert session.take() == b"hello"


def test_a_body_of_unknown_length_is_chunked_with_its_trailers() -> None:
    """Each piece one chunk."""
    session, _, out = sent((b"te", b"trailers"), end=False)
    assert out == (
        b"GET /x?y HTTP/1.1\r\nhost: app\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    session.data(1, b"a" * 26, False)
    session.trailers(1, [(b"x-sum", b"1")])
    assert session.take() == b"1a\r\n" + b"a" * 26 + b"\r\n0\r\nx-sum: 1\r\n\r\n"
    assert session.credit(1) == 0


def test_the_last_piece_and_the_end_go_together() -> None:
    """Or alone."""
    session, _, _ = sent(end=False)
    session.data(1, b"hi", True)
    assert session.take() == b"2\r\nhi\r\n0\r\n\r\n"
    session, _, _ = sent(end=False)
    session.data(1, b"", True)
    assert session.take() == b"0\r\n\r\n"


@pytest.mark.parametrize("body", [b"toolong", b"shor"])
def test_a_body_of_the_wrong_length_is_never_sent(body: bytes) -> None:
    """The app would take the rest for a request."""
    session, sink, _ = sent((b"content-length", b"5"), method=b"POST", end=False)
    session.data(1, body, True)
    assert session.closed
    assert len(sink.resets) == 1
    assert session.take() == b""


def test_an_announced_body_that_is_not_there_is_a_fault_of_ours() -> None:
    """`headers` refuses such requests (row B17); here the connection ends."""
    session, sink, _ = sent((b"content-length", b"5"), method=b"POST", end=True)
    assert session.closed
    assert len(sink.resets) == 1


def test_a_response_of_known_length() -> None:
    """And the connection is free again."""
    session, sink, _ = sent()
    session.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nServer: x\r\n\r\nhel")
    assert sink.heads == [[(b":status", b"200"), (b"server", b"x"), (b"content-length", b"5")]]
    assert (sink.body, sink.ended) == (b"hel", 0)
    session.receive(b"lo")
    assert (sink.body, sink.ended) == (b"hello", 1)
    assert session.can_open


def test_a_chunked_response_with_trailers() -> None:
    """Keep-Alive and Transfer-Encoding stay here."""
    session, sink, _ = sent()
    session.receive(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nKeep-Alive: timeout=5\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    assert sink.heads == [[(b":status", b"200")]]
    assert (sink.body, sink.trailer, sink.ended) == (b"hello", [(b"x-sum", b"1")], 1)
    assert session.can_open


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"])
def test_a_response_without_a_length_lasts_until_the_connection_closes(head: bytes) -> None:
    """RFC 9112 section 6.3, case 8."""
    session, sink, _ = sent()
    session.receive(head + b"hel")
    session.receive(b"lo")
    assert session.draining
    assert (sink.body, sink.ended) == (b"hello", 0)
    session.eof()
    assert (sink.body, sink.ended, sink.resets) == (b"hello", 1, [])
    assert session.closed


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (OK_EMPTY, True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", True),
    ],
)
def test_the_connection_is_used_again_when_both_sides_may(head: bytes, reusable: bool) -> None:
    """RFC 9112 section 9.3."""
    session, sink, _ = sent()
    session.receive(head)
    assert sink.ended == 1
    assert session.can_open is reusable
    assert session.closed is not reusable


def test_interim_responses_come_before_the_final_one() -> None:
    """100 and 103 are passed on."""
    session, sink, _ = sent(end=False)
    session.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: 5\r\n\r\n")
    session.data(1, b"hi", True)
    session.receive(OK_EMPTY)
    assert sink.interim == [[(b":status", b"100")], [(b":status", b"103"), (b"link", b"a")]]
    assert sink.ended == 1
    assert session.can_open


def test_an_answer_before_the_request_is_over_leaves_it_open() -> None:
    """If the connection lives, the request may still be finished."""
    session, sink, _ = sent(end=False)
    session.receive(OK_EMPTY)
    assert sink.ended == 1
    assert not session.can_open
    session.data(1, b"rest", True)
    assert session.can_open


def test_an_answer_that_closes_takes_no_more_of_the_request() -> None:
    """The sink learns that its request is not wanted."""
    session, sink, _ = sent(end=False)
    session.receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert (sink.ended, sink.resets) == (1, [(ErrorCode.NO_ERROR, False)])
    assert session.closed
    session.data(1, b"rest", True)
    assert b"rest" not in session.take()


@pytest.mark.parametrize("junk", [b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n"])
def test_bytes_nobody_asked_for_end_the_connection(junk: bytes) -> None:
    """Else they would answer the next request."""
    session, sink, _ = sent()
    session.receive(OK_EMPTY + junk)
    assert (sink.ended, sink.resets) == (1, [])
    assert session.closed
    idle = client()
    idle.receive(junk)
    assert idle.closed


UNPROCESSED = [(ErrorCode.REFUSED_STREAM, True)]
BROKEN = [(ErrorCode.INTERNAL_ERROR, False)]


@pytest.mark.parametrize(
    ("method", "end", "received", "resets"),
    [
        (b"GET", True, b"", UNPROCESSED),
        (b"HEAD", True, b"", UNPROCESSED),
        (b"DELETE", True, b"", UNPROCESSED),
        (b"PUT", True, b"", UNPROCESSED),
        (b"POST", True, b"", BROKEN),
        (b"PATCH", True, b"", BROKEN),
        (b"FROB", True, b"", BROKEN),
        (b"PUT", False, b"", BROKEN),
        (b"GET", True, b"H", BROKEN),
        (b"GET", True, b"HTTP/1.1 100 Continue\r\n\r\n", BROKEN),
        (b"GET", True, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", BROKEN),
        (b"GET", True, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", BROKEN),
    ],
)
def test_only_what_may_be_repeated_is_unprocessed(
    method: bytes, end: bool, received: bytes, resets: list[tuple[int, bool]]
) -> None:
    """RFC 9112 section 9.3.1: idempotent, no body, a used connection, and not one byte of an answer."""
    session, _, _ = sent()
    session.receive(OK_EMPTY)
    sink = Recorder()
    session.request(get(method=method), end, sink)
    session.receive(received)
    session.eof()
    assert sink.resets == resets
    assert session.closed
    session.eof()


def test_on_a_fresh_connection_nothing_is_certain() -> None:
    """A server that dies of each request must not get it twice."""
    session, sink, _ = sent()
    session.eof()
    assert sink.resets == BROKEN


def test_an_idle_connection_that_the_server_closes_is_closed() -> None:
    """And takes no request."""
    session = client()
    session.eof()
    assert session.closed
    assert not session.can_open


def test_a_request_broken_off_takes_the_connection_with_it() -> None:
    """HTTP/1.1 has no other way."""
    session, sink, _ = sent(end=False)
    session.reset(1, ErrorCode.CANCEL)
    assert session.closed
    assert sink.resets == []
    session.receive(OK_EMPTY)
    assert sink.heads == []


def test_a_reset_of_a_stream_that_is_over_does_nothing() -> None:
    """Contract 3."""
    session, _, _ = sent()
    session.receive(OK_EMPTY)
    session.reset(1, ErrorCode.CANCEL)
    assert session.can_open


def test_a_slow_reader_slows_the_server() -> None:
    """As towards clients."""
    session, sink = client(Limits(stream_window_octets=1000)), Recorder()
    session.request(get(), True, sink)
    session.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"a" * 1001)
    assert not session.wants_read
    session.consumed(1, 1)
    assert session.wants_read


def test_drain_waits_for_the_answer() -> None:
    """No new request meanwhile."""
    session, sink, _ = sent()
    session.drain()
    assert not is_closed(session)
    session.receive(OK_EMPTY)
    assert sink.ended == 1
    assert session.closed
    idle = client()
    idle.drain()
    assert idle.closed


def test_a_sink_may_call_back_from_inside_a_call() -> None:
    """The next request is sent from within the end of this one."""
    session, first, second = client(), Recorder(), Recorder()
    session.request(get(b"/1"), True, first)
    first.on_data = lambda flow: session.consumed(1, flow)
    session.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    first.on_data = lambda flow: None
    session.receive(b"k")
    session.request(get(b"/2"), True, second)
    second.on_data = lambda flow: session.reset(2, ErrorCode.CANCEL)
    session.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n")
    assert session.closed
    assert (second.body, second.trailer, second.resets) == (b"ok", None, [])
