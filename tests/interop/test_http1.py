"""HTTP/1.1 octet by octet: a client and an app of plain sockets, two sidecars and their HTTP/2 between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.clients import Wire
from tests.interop.conftest import Shop
from tests.interop.raw_app import Request


@pytest.fixture
def wire(shop: Shop) -> Iterator[Wire]:
    with Wire(shop.port("raw")) as wire:
        yield wire


def get(path: str, *fields: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "host: raw", *fields, "", ""]).encode()


def last(shop: Shop) -> Request:
    return shop.raw.script.seen[-1]


def test_connections_are_kept_alive(wire: Wire) -> None:
    """One request after the other."""
    for _ in range(5):
        wire.send(get("/"))
        status, fields, body = wire.response()
        assert (status, body) == (200, b"ok\n")
        assert fields.get("connection") != "close"


def test_connection_close_is_heeded(wire: Wire) -> None:
    """The answer says so, and the connection ends after it."""
    wire.send(get("/", "connection: close"))
    status, fields, _ = wire.response()
    assert (status, fields["connection"]) == (200, "close")
    assert wire.rest() == b""


def test_http_1_0_gets_its_answer_and_the_end(wire: Wire) -> None:
    """No chunks for a client that does not know them."""
    wire.send(get("/", version="1.0"))
    assert wire.response()[::2] == (200, b"ok\n")
    assert wire.rest() == b""


def test_http_1_0_with_an_answer_of_unknown_length(shop: Shop, wire: Wire) -> None:
    """It ends where the connection ends."""
    shop.raw.script.answers["/long"] = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    wire.send(get("/long", version="1.0"))
    head = wire.until(b"\r\n\r\n")
    assert b"chunked" not in head
    assert wire.rest() == b"abcde"


def test_pipelined_requests_are_answered_in_order(shop: Shop, wire: Wire) -> None:
    """All sent before the first answer is read; one of them with a body."""
    for number in range(8):
        shop.raw.script.answers[f"/{number}"] = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number
    requests = [get(f"/{number}") for number in range(8)]
    requests[3] = b"POST /3 HTTP/1.1\r\nhost: raw\r\ncontent-length: 5\r\n\r\nGET /"
    wire.send(b"".join(requests))
    assert [wire.response()[2] for _ in range(8)] == [b"%d" % number for number in range(8)]


def test_one_octet_at_a_time_is_understood(wire: Wire) -> None:
    """Requests have no boundaries in a stream of octets."""
    for octet in b"POST / HTTP/1.1\r\nhost: raw\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n":
        wire.send(bytes([octet]))
    assert wire.response()[0] == 200


def test_trailers_cross_both_ways(shop: Shop, wire: Wire) -> None:
    """From a chunked request to the app, and from a chunked answer back."""
    shop.raw.script.answers["/trailers"] = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 532\r\n\r\n"
    )
    wire.send(
        b"POST /trailers HTTP/1.1\r\nhost: raw\r\nte: trailers\r\ntransfer-encoding: chunked\r\n"
        b"trailer: x-check\r\n\r\n"
        b"3\r\nabc\r\n1;ext=1\r\nd\r\n0\r\nx-check: yes\r\n\r\n"
    )
    assert b"transfer-encoding: chunked" in wire.until(b"\r\n\r\n").lower()
    body = wire.until(b"\r\n\r\n")
    assert b"hello" in body
    assert body.endswith(b"0\r\nx-sum: 532\r\n\r\n")
    assert (last(shop).body, last(shop).trailers) == (b"abcd", {"x-check": "yes"})


def test_early_hints_and_other_1xx_are_passed_on(shop: Shop, wire: Wire) -> None:
    """Before the answer, as the app sent them."""
    shop.raw.script.answers["/hints"] = (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    )
    wire.send(get("/hints"))
    hint = wire.until(b"\r\n\r\n")
    assert hint.startswith(b"HTTP/1.1 103")
    assert b"link: </a.css>" in hint
    assert wire.response()[::2] == (200, b"ok")


def test_expect_100_continue_is_the_app_s_to_answer(shop: Shop, wire: Wire) -> None:
    """It crosses both sidecars, its answer comes back, and only then the body is sent."""
    wire.send(b"PUT /e HTTP/1.1\r\nhost: raw\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
    wire.send(b"body")
    assert wire.response()[0] == 200
    assert last(shop).body == b"body"


def test_an_answer_that_ends_with_its_connection_is_whole(shop: Shop, wire: Wire) -> None:
    """The oldest way to end a body. What goes on keeps the client's connection."""
    shop.raw.script.answers["/old"] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end"
    wire.send(get("/old"))
    assert b"transfer-encoding: chunked" in wire.until(b"\r\n\r\n").lower()
    assert wire.until(b"0\r\n\r\n") == b"a\r\nto the end\r\n0\r\n\r\n"
    wire.send(get("/"))
    assert wire.response()[0] == 200


def test_an_answer_that_breaks_off_does_not_look_whole(shop: Shop, wire: Wire) -> None:
    """Ten octets promised, three sent: the client must be able to tell."""
    shop.raw.script.answers["/broken"] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nabc"
    wire.send(get("/broken"))
    wire.until(b"\r\n\r\n")
    assert len(wire.rest()) < 10


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 200 OK\r\nx\r\n\r\n"]
)
def test_an_app_that_does_not_speak_http_is_a_502(shop: Shop, wire: Wire, garbage: bytes) -> None:
    """And is not passed on."""
    shop.raw.script.answers["/garbage"] = garbage
    wire.send(get("/garbage"))
    assert wire.response()[0] == 502


def test_hop_by_hop_fields_stay_on_their_hop(shop: Shop, wire: Wire) -> None:
    """What `connection` names, and what is such by itself (RFC 9110 section 7.6.1)."""
    wire.send(get("/", "connection: x-private", "x-private: 1", "keep-alive: timeout=5", "x-public: 2"))
    assert wire.response()[0] == 200
    fields = last(shop).headers
    assert "x-private" not in fields
    assert "keep-alive" not in fields
    assert fields["x-public"] == "2"


@pytest.mark.parametrize(
    "request_octets",
    [
        b"POST / HTTP/1.1\r\nhost: raw\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: raw\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: raw\r\nhost: other\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: raw\r\nx : 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: raw\r\nx: a\0b\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_b_what_two_parties_could_read_differently_is_refused(shop: Shop, wire: Wire, request_octets: bytes) -> None:
    """400 and the end of the connection; the app sees nothing of it (security.md, section B)."""
    seen = len(shop.raw.script.seen)
    wire.send(request_octets)
    assert wire.response()[0] == 400
    assert wire.rest() == b""
    assert len(shop.raw.script.seen) == seen
