"""Rows of the catalogue of bad inputs that HTTP/1.1 must refuse: raw bytes in, one fixed answer out."""

from __future__ import annotations

import pytest

from sidecar.config import Limits
from sidecar.errors import UpstreamFailed
from sidecar.http.http1_core import DISCARD_OCTETS_MAX
from sidecar.http.http1_write import write_request, write_response
from sidecar.http.session import ErrorCode
from tests.sidecar.http.playback import LIMITS, OK, Answers, Recorder, Requests, asked, client, get, is_closed, server

HOST = b"Host: a\r\n"


def refused(raw: bytes, status: int, row: str) -> None:
    """The request never reaches the handler, the answer is one fixed text, the connection ends."""
    for piece in (len(raw), 1):
        handler = Requests()
        session = server(handler)
        for at in range(0, len(raw), piece):
            session.receive(raw[at : at + piece])
        answer = session.take()
        assert handler.heads == []
        assert session.closed
        assert session.fault is not None
        assert session.fault.row == row
        head, _, body = answer.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close" in head
        assert b"content-length: %d" % len(body) in head
        session.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert session.take() == b""


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"G ET / HTTP/1.1", "B04"),
        (b"GET  / HTTP/1.1", "B04"),
        (b"GET /\t HTTP/1.1", "B04"),
        (b"GET /\xe9 HTTP/1.1", "B04"),
        (b"GET / HTTP/1.1 ", "B29"),
        (b"G(T / HTTP/1.1", "B02"),
        (b" GET / HTTP/1.1", "B02"),
        (b"\x16\x03\x01\x02\x00", "B02"),
        (b"GET example.org HTTP/1.1", "B03"),
        (b"GET https://a/ HTTP/1.1", "B03"),
        (b"GET HTTP://a/ HTTP/1.1", "B03"),
        (b"GET /a#b HTTP/1.1", "C09"),
        (b"GET http://a#b HTTP/1.1", "C09"),
    ],
)
def test_b02_b03_b04_malformed_request_lines_are_refused(line: bytes, row: str) -> None:
    """RFC 9112 section 3."""
    refused(line + b"\r\n" + HOST + b"\r\n", 400, row)


@pytest.mark.parametrize("name", [b":", b": x", b"noline"])
def test_b10_lines_that_are_no_fields_are_refused(name: bytes) -> None:
    """A line without a name."""
    refused(b"GET / HTTP/1.1\r\n" + HOST + name + b"\r\n\r\n", 400, "B10")


@pytest.mark.parametrize("line", [b"x(: y", b"x y: z", b"X: a\x01", b"X: \x7f", b"n\xc3\xa4me: x"])
def test_b13_names_and_values_without_delimiters_and_controls(line: bytes) -> None:
    """RFC 9110 sections 5.1 and 5.5."""
    refused(b"GET / HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n", 400, "B13")


def test_b11_nul_is_refused() -> None:
    """In a value as in a name."""
    refused(b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400, "B11")


def test_b14_white_space_around_values_is_trimmed() -> None:
    """Before policy sees them."""
    _, handler = asked(b"GET / HTTP/1.1\r\nHost:  a \r\nX-Role: \t admin \t\r\nX-Empty:\r\n\r\n")
    assert handler.heads[0][2:] == [(b":authority", b"a"), (b":path", b"/"), (b"x-role", b"admin"), (b"x-empty", b"")]


@pytest.mark.parametrize("lengths", [b"Content-Length: 5\r\nContent-Length: 6\r\n"])
def test_b18_conflicting_content_lengths_are_refused(lengths: bytes) -> None:
    """RFC 9112 section 6.3."""
    refused(b"POST / HTTP/1.1\r\n" + HOST + lengths + b"\r\nabcdef", 400, "B18")


def test_b19_equal_content_lengths_become_one() -> None:
    """httptools refuses them; they are collapsed before it is asked again."""
    _, handler = asked(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + b"content-length: 3\r\n\r\nabc")
    assert handler.heads[0].count((b"content-length", b"3")) == 1
    assert handler.sinks[0].body == b"abc"


@pytest.mark.parametrize("length", [b"+5", b"-5", b"0x5", b"5, 5", b"5 5", b"9" * 40, b"5_0", b"", b"5.0", b"\xd9\xa3"])
def test_b20_a_content_length_is_digits(length: bytes) -> None:
    """And at most eighteen of them."""
    refused(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + length + b"\r\n\r\nabcde", 400, "B20")


@pytest.mark.parametrize(
    "both",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
    ],
)
def test_b21_content_length_and_transfer_encoding_exclude_each_other(both: bytes) -> None:
    """Never "transfer-encoding wins"."""
    refused(b"POST / HTTP/1.1\r\n" + HOST + both + b"\r\n0\r\n\r\n", 400, "B21")


@pytest.mark.parametrize(
    "coding",
    [
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b"Transfer-Encoding: 'chunked'\r\n",
        b"Transfer-Encoding:\r\n",
    ],
)
def test_b22_only_exactly_chunked_is_implemented(coding: bytes) -> None:
    """RFC 9112 section 6.1."""
    refused(b"POST / HTTP/1.1\r\n" + HOST + coding + b"\r\n0\r\n\r\n", 501, "B22")


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"Transfer-Encoding : chunked", "B22"),
        (b"Transfer-Encoding\t: chunked", "B22"),
        (b"Transfer-Encoding: \x0bchunked", "B13"),
    ],
)
def test_b22_disguised_codings_are_refused(line: bytes, row: str) -> None:
    """RFC 9112 section 5.1."""
    refused(b"POST / HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n0\r\n\r\n", 400, row)


def test_b23_http_1_0_has_no_transfer_encoding() -> None:
    """RFC 9112 section 6.1."""
    refused(b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "B23")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: w\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: w\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
    ],
)
def test_b24_only_crlf_ends_a_line(raw: bytes) -> None:
    """RFC 9112 section 2.2 lets a recipient forgive; we do not."""
    refused(raw, 400, "B24")


@pytest.mark.parametrize(
    "lines", [b"X: a\r\n b\r\n", b"X: a\r\n\tb\r\n", b"Transfer-Encoding:\r\n chunked\r\n", b" X: a\r\n"]
)
def test_b25_folded_lines_are_refused(lines: bytes) -> None:
    """RFC 9112 section 5.2."""
    refused(b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n", 400, "B25")
    refused(b"GET / HTTP/1.1\r\n" + b" X: a\r\n" + HOST + b"\r\n", 400, "B25")


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

BAD_CHUNKS = [
    b"3\r\nabcX\r\n0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"3\r\nabc\r0\r\n\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"3_0\r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"\r\nabc\r\n0\r\n\r\n",
    b"g\r\nabc\r\n0\r\n\r\n",
    b"0" * 30 + b"3\r\nabc\r\n0\r\n\r\n",
    b"f" * 16 + b"\r\nabc\r\n",
    b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    b"3;\0\r\nabc\r\n0\r\n\r\n",
    b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n",
    b"3;" + b"a" * 1000,
    b"3\r\nabc\r\n0\r\nX: y\n\r\n\r\n",
]


@pytest.mark.parametrize("body", BAD_CHUNKS)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_b26_malformed_chunks_end_the_connection(body: bytes, piece: int) -> None:
    """What was read before is passed on, the stream is reset, the answer is 400, once."""
    session, handler = asked(CHUNKED)
    for at in range(0, len(body), piece):
        session.receive(body[at : at + piece])
    assert session.closed
    assert session.fault is not None
    assert session.fault.row in ("B26", "B24")
    assert handler.sinks[0].resets == [(ErrorCode.PROTOCOL_ERROR, False)]
    assert not handler.sinks[0].ended
    assert session.take().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("body", BAD_CHUNKS)
def test_b26_malformed_chunks_in_a_response_are_the_upstreams_fault(body: bytes) -> None:
    """The same reader, another one to blame."""
    session, sink = client(), Recorder()
    session.request(get(), True, sink)
    session.receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert session.closed
    assert isinstance(session.fault, UpstreamFailed)
    assert sink.resets == [(ErrorCode.PROTOCOL_ERROR, False)]


@pytest.mark.parametrize("extension", [b";a=b", b" ;a", b'\t; a = "b c"', b";", b";" + b"a" * 200])
def test_b27_chunk_extensions_are_dropped(extension: bytes) -> None:
    """RFC 9112 section 7.1.1."""
    _, handler = asked(CHUNKED + b"3" + extension + b"\r\nabc\r\n0" + extension + b"\r\n\r\n")
    assert (handler.sinks[0].body, handler.sinks[0].ended) == (b"abc", 1)


def test_b28_tiny_chunks_become_one_call() -> None:
    """And reading pauses when nobody takes them."""
    session, handler = asked(CHUNKED)
    session.receive(b"1\r\na\r\n" * 10_000)
    assert handler.sinks[0].calls == 1
    assert session.wants_read
    session.receive(b"1\r\na\r\n" * 60_000)
    assert not session.wants_read


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/3\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 505),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
    ],
)
def test_b29_versions_other_than_1_0_and_1_1_are_refused(raw: bytes, status: int) -> None:
    """Among them the preface of HTTP/2, and HTTP/0.9."""
    refused(raw, status, "B29")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_b30_host_is_there_once(raw: bytes) -> None:
    """RFC 9112 section 3.2."""
    refused(raw, 400, "B30")


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        (b"http://orders.shop/a?b", b"orders.shop", b"/a?b"),
        (b"http://orders.shop:8080", b"orders.shop:8080", b"/"),
        (b"http://orders.shop?x=/y", b"orders.shop", b"/?x=/y"),
        (b"http://user@orders.shop/", b"user@orders.shop", b"/"),
        (b"http:///x", b"", b"/x"),
    ],
)
def test_b31_the_authority_of_an_absolute_target_wins(target: bytes, authority: bytes, path: bytes) -> None:
    """RFC 9112 section 3.2.2; whether it is one is for `headers` to judge."""
    _, handler = asked(b"GET " + target + b" HTTP/1.1\r\nHost: evil\r\n\r\n")
    assert handler.heads == [
        [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]
    ]


@pytest.mark.parametrize(
    ("target", "path"), [(b"*", b"*"), (b"http://a", b"*"), (b"http://a/", b"/"), (b"http://a?", b"/?")]
)
def test_the_asterisk_of_options_crosses(target: bytes, path: bytes) -> None:
    """RFC 9112 section 3.2.4."""
    _, handler = asked(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (b":path", path) in handler.heads[0]


def test_b32_after_a_framing_error_nothing_is_answered() -> None:
    """One answer to the good request, one refusal, no more."""
    handler = Answers()
    session = server(handler)
    session.receive(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + b"GARBAGE\r\n\r\n" * 500 + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert len(handler.heads) == 1
    assert session.take().count(b"HTTP/1.1 ") == 2
    assert session.closed


def test_b34_connect_is_refused() -> None:
    """No byte after it is looked at (row B33)."""
    raw = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"
    refused(raw, 405, "B34")
    session, _ = asked(raw + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert session.take().count(b"HTTP/1.1 ") == 1


BAD_RESPONSES = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "B21"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "B18"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", "B20"),
    (b"HTTP/1.1 200 OK\r\nX: a\x01b\r\n\r\n", "B13"),
    (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "B11"),
    (b"HTTP/1.1 200 OK\nX: a\n\n", "B24"),
    (b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "B24"),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "B25"),
    (b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "B22"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "B22"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "B22"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "B23"),
    (b"HTTP/1.1 0xC OK\r\n\r\n", "B35"),
    (b"HTTP/1.1 20 OK\r\n\r\n", "B35"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "B35"),
    (b"HTTP/1.1 099 OK\r\n\r\n", "B35"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "B35"),
    (b"HTTP/2.0 200 OK\r\n\r\n", "B35"),
    (b"HTTP/1.2 200 OK\r\n\r\n", "B35"),
    (b"ICY 200 OK\r\n\r\n", "B35"),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "B35"),
    (b"HTTP/1.1 200 OK\r\nConnection: x-hauberk-id\r\n\r\n", "B41"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", "B39"),
    (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n", "B38"),
]


@pytest.mark.parametrize(("raw", "row"), BAD_RESPONSES)
@pytest.mark.parametrize("piece", [1, 100_000])
def test_b35_malformed_responses_cost_their_connection(raw: bytes, row: str, piece: int) -> None:
    """502 for the stream, which the exchange makes of the reset."""
    session, sink = client(), Recorder()
    session.request(get(), True, sink)
    for at in range(0, len(raw), piece):
        session.receive(raw[at : at + piece])
    assert session.closed
    assert sink.heads == []
    assert sink.resets == [(ErrorCode.PROTOCOL_ERROR, False)]
    assert isinstance(session.fault, UpstreamFailed)
    assert session.fault.row == row


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ],
)
def test_b36_responses_that_have_no_body_have_none(method: bytes, head: bytes) -> None:
    """What comes after belongs to nobody, and the connection is not used again."""
    session, sink = client(), Recorder()
    session.request(get(method=method), True, sink)
    session.receive(head)
    assert sink.ended == 1
    assert session.can_open
    session.receive(b"hello")
    assert session.closed
    assert (sink.body, sink.resets) == (b"", [])


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", b"200"), (b"GET", b"204"), (b"GET", b"304")])
def test_b36_no_body_is_sent_where_there_may_be_none(method: bytes, status: bytes) -> None:
    """Whatever the other side gave us."""
    session, _ = asked(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    session.head(1, [(b":status", status)], False)
    session.data(1, b"hello", False)
    session.data(1, b"hello", True)
    out = session.take()
    assert out.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in out
    assert not session.closed
    assert session.open_streams == 0


def test_b36_a_head_response_keeps_its_content_length() -> None:
    """It says how long the body would have been."""
    session, _ = asked(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    session.head(1, [*OK, (b"content-length", b"12345")], True)
    assert b"\r\ncontent-length: 12345\r\n" in session.take()
    assert not session.closed


def test_b38_too_many_fields_are_refused() -> None:
    """At most a hundred lines."""
    refused(b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 5000 + b"\r\n", 431, "B39")
    refused(b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 100 + b"\r\n", 431, "B38")
    _, handler = asked(b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 99 + b"\r\n")
    assert len(handler.heads) == 1


def test_b39_too_large_heads_are_refused() -> None:
    """Before they are complete, too."""
    big = b"a" * 17_000
    refused(b"GET /" + big + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "B39")
    refused(b"GET / HTTP/1.1\r\n" + HOST + b"X: " + big + b"\r\n\r\n", 431, "B39")
    for raw, status in ((b"GET /" + big, 414), (b"GET / HTTP/1.1\r\nX: " + big * 2, 431)):
        refused(raw, status, "B39")


@pytest.mark.parametrize(
    "name",
    [
        b"content-length",
        b"Host",
        b"x-hauberk-identity",
        b"X_Hauberk_Identity",
        b"X-Forwarded-Client-Cert",
        b"authorization",
        b"cookie",
        b"x-forwarded-for",
        b"traceparent",
    ],
)
def test_b41_connection_may_not_take_our_fields_away(name: bytes) -> None:
    """Nor those that policy, routing or framing rest on."""
    refused(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, " + name + b"\r\n\r\n", 400, "B41")


def test_b41_fields_that_connection_names_are_removed() -> None:
    """RFC 9110 section 7.6.1."""
    _, handler = asked(
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"Connection: X-One, close\r\nconnection:x-two\r\nX-One: 1\r\nx-two: 2\r\nX-Three: 3\r\n\r\n"
    )
    assert handler.heads[0][4:] == [(b"x-three", b"3")]


def test_a37_upgrade_to_h2c_is_stripped() -> None:
    """The request is served as HTTP/1.1."""
    session, handler = asked(
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nX: y\r\n\r\n"
    )
    assert handler.heads[0][4:] == [(b"x", b"y")]
    session.head(1, OK, True)
    assert session.take().startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        b"Keep-Alive: timeout=5\r\n",
        b"Proxy-Connection: keep-alive\r\n",
        b"Upgrade: websocket\r\n",
        b"TE: gzip\r\n",
        b"TE: deflate;q=0.5\r\nConnection: TE\r\n",
        b"HTTP2-Settings: x\r\n",
    ],
)
def test_fields_of_the_connection_never_cross(lines: bytes) -> None:
    """In either direction."""
    _, handler = asked(b"GET / HTTP/1.1\r\n" + HOST + lines + b"\r\n")
    assert handler.heads[0][4:] == []


def test_te_trailers_crosses() -> None:
    """Alone or among others."""
    _, handler = asked(b"GET / HTTP/1.1\r\n" + HOST + b"TE: gzip;q=0.1, Trailers\r\n\r\n")
    assert handler.heads[0][4:] == [(b"te", b"trailers")]


def test_b12_what_would_split_a_head_is_not_sent() -> None:
    """ValueError, and not a byte is queued."""
    session, sink = client(), Recorder()
    for fields in (
        get(b"/", (b"x", b"a\r\nb: c")),
        get(b"/", (b"x\r\ny", b"a")),
        get(b"/a b"),
        get(b"/", method=b"GET /x"),
        [(b":method", b"GET"), (b":path", b"/")],
    ):
        with pytest.raises(ValueError, match=r"."):
            session.request(fields, True, sink)
    assert session.take() == b""
    assert session.can_open
    answering, _ = asked(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        answering.head(1, [*OK, (b"x", b"a\nb")], False)
    assert answering.take() == b""
    answering.head(1, OK, False)
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        answering.trailers(1, [(b"x", b"a\0")])


def test_fields_of_the_connection_are_never_written() -> None:
    """Even if somebody hands them to us."""
    hop = [(b"connection", b"x"), (b"keep-alive", b"5"), (b"upgrade", b"h2c"), (b"transfer-encoding", b"gzip")]
    assert write_request(get(b"/", *hop), None) == b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"
    assert write_response([*OK, *hop], []) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert write_response([(b":status", b"299")], []) == b"HTTP/1.1 299 \r\n\r\n"


def test_a32_the_eleventh_interim_response_is_one_too_many() -> None:
    """Else a backend could hold a request for ever."""
    session, sink = client(), Recorder()
    session.request(get(), True, sink)
    session.receive(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 10)
    assert len(sink.interim) == 10
    assert sink.interim[0] == [(b":status", b"103"), (b"link", b"x")]
    assert not is_closed(session)
    session.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert session.closed
    assert len(sink.resets) == 1


def test_i16_an_error_answer_repeats_nothing() -> None:
    """Not the target, not a field, not the method."""
    session, _ = asked(b"SECRET /s3cr3t HTTP/1.1\r\nHost: s3cr3t\r\nX : s3cr3t\r\n\r\n")
    answer = session.take().lower()
    assert answer
    assert b"s3cr3t" not in answer
    assert b"secret" not in answer


def test_pipelined_bytes_are_bounded() -> None:
    """More than 64 KiB that cannot be looked at yet, and reading pauses."""
    session, handler = asked(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    session.receive(b"x" * 65_536)
    reading = [session.wants_read]
    session.receive(b"x")
    assert [*reading, session.wants_read] == [True, False]
    assert len(handler.heads) == 1
    session.head(1, OK, True)
    assert session.closed  # x is no request
    assert session.take().count(b"HTTP/1.1 ") == 2


def test_an_unwanted_body_is_discarded_up_to_a_bound() -> None:
    """After an early answer the connection lives if the rest is small, and does not if it is not."""
    answers = Answers([(b":status", b"403")], b"no")
    small = server(answers)
    small.receive(CHUNKED + b"5\r\nhello\r\n")
    assert not small.closed
    assert small.open_streams == 0
    assert small.awaits_rest
    small.receive(b"0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(answers.heads) == 2
    assert b"connection: close" not in small.take()
    large = server(Answers([(b":status", b"403")], b"no"))
    large.receive(CHUNKED)
    block = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    for _ in range(DISCARD_OCTETS_MAX // 65_536):
        assert large.wants_read
        large.receive(block)
    assert not is_closed(large)
    large.receive(block)
    assert large.closed


def test_a_limit_is_that_of_the_configuration() -> None:
    """Not a constant of ours."""
    session = server(Requests(), Limits(header_list_octets_max=100))
    session.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100 + b"\r\n\r\n")
    assert session.take().startswith(b"HTTP/1.1 431 ")
    assert LIMITS.header_list_octets_max == 16_384
