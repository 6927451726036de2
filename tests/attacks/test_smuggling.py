"""Heads that mean one thing to us and another to the app: what the app receives must be what was judged.

Each input goes over a real mesh connection through a real data plane to an app that keeps every octet (security.md B,
C, D). Whatever an input does, exactly these are allowed: it is refused and the app hears nothing, or the app receives
one request whose method, target and Host are those that were judged."""

from __future__ import annotations

import pytest
import trio

from sidecar.errors import NotFound
from sidecar.http.session import Fields
from tests.attacks.support import ALLOW_ALL, DENY_ADMIN, Answer, App, attacker, request, settled, target
from tests.trio_support import trio_test

HEAD = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", b"/")]


def replaced(name: bytes, value: bytes) -> Fields:
    return [(n, value if n == name else v) for n, v in HEAD]


REFUSED: dict[str, Fields] = {
    "B01 no method": HEAD[1:],
    "B01 no path": HEAD[:3],
    "B01 two methods": [(b":method", b"POST"), *HEAD],
    "B01 two paths": [*HEAD, (b":path", b"/admin")],
    "B01 late pseudo": [*HEAD, (b"x", b"y"), (b":path", b"/admin")],
    "B01 status": [*HEAD, (b":status", b"200")],
    "B02 method holds a request": replaced(b":method", b"GET /admin HTTP/1.1\r\nx:"),
    "B02 method with a space": replaced(b":method", b"GET /admin"),
    "B02 empty method": replaced(b":method", b""),
    "B03 absolute form": replaced(b":path", b"http://orders.shop/admin"),
    "B03 no slash": replaced(b":path", b"admin"),
    "B03 empty path": replaced(b":path", b""),
    "B03 asterisk": replaced(b":path", b"*"),
    "B04 space in path": replaced(b":path", b"/ HTTP/1.1\r\nhost: x\r\n\r\nGET /admin"),
    "B04 space alone": replaced(b":path", b"/x /admin"),
    "B04 tab": replaced(b":path", b"/\tadmin"),
    "B04 non-ascii": replaced(b":path", b"/\xc0\xafadmin"),
    "B04 query with CRLF": replaced(b":path", b"/?a\r\nx: y"),
    "B05 scheme": replaced(b":scheme", b"https://evil/"),
    "B05 file": replaced(b":scheme", b"file"),
    "B06 empty authority": replaced(b":authority", b""),
    "B06 userinfo": replaced(b":authority", b"admin@orders.shop"),
    "B06 slash": replaced(b":authority", b"orders.shop/admin"),
    "B06 CRLF": replaced(b":authority", b"orders.shop\r\nx: y"),
    "B06 two": replaced(b":authority", b"orders.shop,other"),
    "B07 host differs": [*HEAD, (b"host", b"admin.shop")],
    "B08 two hosts": [*HEAD, (b"host", b"orders.shop"), (b"host", b"orders.shop")],
    "B09 chunked": [*HEAD, (b"transfer-encoding", b"chunked")],
    "B09 connection": [*HEAD, (b"connection", b"close")],
    "B09 upgrade": [*HEAD, (b"upgrade", b"h2c")],
    "B09 keep-alive": [*HEAD, (b"keep-alive", b"1")],
    "B09 te": [*HEAD, (b"te", b"chunked")],
    "B10 upper case": [*HEAD, (b"Transfer-Encoding", b"chunked")],
    "B10 empty name": [*HEAD, (b"", b"x")],
    "B10 colon": [*HEAD, (b"a:b", b"x")],
    "B10 space": [*HEAD, (b"content-length ", b"5")],
    "B11 CRLF in a value": [*HEAD, (b"x", b"y\r\ncontent-length: 5")],
    "B11 LF in a value": [*HEAD, (b"x", b"y\ncontent-length: 5")],
    "B11 NUL in a value": [*HEAD, (b"x", b"y\0z")],
    "B11 CRLF in a name": [*HEAD, (b"x\r\ny", b"z")],
    "B13 control": [*HEAD, (b"x", b"y\x0bz")],
    "B13 name": [*HEAD, (b"x(", b"y")],
    "B14 space before": [*HEAD, (b"content-length", b" 5")],
    "B17 length without body": [*HEAD, (b"content-length", b"5")],
    "B20 plus": [*HEAD, (b"content-length", b"+0")],
    "B20 list": [*HEAD, (b"content-length", b"0, 0")],
    "B20 hex": [*HEAD, (b"content-length", b"0x0")],
    "B34 connect": [(b":method", b"CONNECT"), (b":authority", b"orders.shop:8080")],
    "B34 extended connect": [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"orders.shop"),
        (b":path", b"/admin"),
    ],
    "B40 lower case method": replaced(b":method", b"get"),
    "B41 nominated": [*HEAD, (b"connection", b"x-forwarded-client-cert")],
    "C03 encoded slash": replaced(b":path", b"/x%2fadmin"),
    "C03 encoded backslash": replaced(b":path", b"/x%5Cadmin"),
    "C06 dots with parameters": replaced(b":path", b"/x/..;/admin"),
    "C06 dots with encoded parameters": replaced(b":path", b"/x/..%3b/admin"),
    "C08 NUL": replaced(b":path", b"/admin%00"),
    "C09 fragment": replaced(b":path", b"/#/admin"),
    "C13 broken triplet": replaced(b":path", b"/%zzadmin"),
}

DENIED = {
    "C01 dots": b"/x/../admin",
    "C01 above the root": b"/../../admin",
    "C01 one dot": b"/./admin",
    "C02 encoded dots": b"/x/%2e%2E/admin",
    "C02 encoded letter": b"/%61dmin",
    "C04 slashes": b"//admin",
    "C04 slashes between": b"/admin//x",
    "C05 backslash": b"\\admin".replace(b"\\", b"/\\"),
    "C05 backslash dots": b"/x\\..\\admin",
    "C06 parameters": b"/admin;a=b",
    "C06 parameters before": b"/;/admin",
    "C06 encoded parameters": b"/admin%3ba=b",
    "C10 query": b"/admin?/x",
    "C10 query with a path": b"/admin?/../x",
}

FORWARDED = {
    "C10 path in the query": (b"/ok?/admin", b"GET /ok?/admin HTTP/1.1"),
    "C11 twice encoded": (b"/%252e%252e/admin", b"GET /%252E%252E/admin HTTP/1.1".replace(b"%252E", b"%252e")),
    "C07 case": (b"/Admin", b"GET /Admin HTTP/1.1"),
    "C01 resolved": (b"/a/./b/../c/", b"GET /a/c/ HTTP/1.1"),
    "braces": (b"/{x}", b"GET /%7Bx%7D HTTP/1.1"),
}


async def sent_through(
    fields: Fields, body: bytes | None = None, trailers: Fields | None = None
) -> tuple[Answer, bytes]:
    """The answer, and what the app received. A second, plain request shows that the connection's rest is sound."""
    app = App()
    async with target(ALLOW_ALL, DENY_ADMIN, app=app) as it, attacker(it) as peer:
        answer = await peer.ask(fields, body, trailers)
        received = app.received
        async with attacker(it) as another:
            assert (await another.ask(request(b"/still-alive"))).status == 200
        assert b"/still-alive" in app.received
    return answer, received


@pytest.mark.parametrize("name", REFUSED)
@trio_test
async def test_b_what_could_be_read_in_two_ways_never_reaches_the_app(name: str) -> None:
    """Refused with a status of its own or by a reset, and not one octet goes to the app."""
    answer, received = await sent_through(REFUSED[name])
    assert received == b""
    assert answer.status in (0, 400, 404, 405), answer


@pytest.mark.parametrize("name", DENIED)
@trio_test
async def test_c_no_spelling_walks_around_a_deny(name: str) -> None:
    """The policy denies /admin and below: so it does in every spelling."""
    answer, received = await sent_through(replaced(b":path", DENIED[name]))
    assert answer.status == 403
    assert received == b""


@pytest.mark.parametrize("name", FORWARDED)
@trio_test
async def test_c_what_is_forwarded_is_what_was_judged(name: str) -> None:
    """One canonical spelling, matched and forwarded."""
    path, line = FORWARDED[name]
    answer, received = await sent_through(replaced(b":path", path))
    assert answer.status == 200
    assert received.split(b"\r\n")[0] == line


SPOOFED = [
    b"x-forwarded-client-cert",
    b"x_forwarded_client_cert",
    b"x-forwarded_client-cert",
    b"x.forwarded.client.cert",
    b"x~forwarded!client'cert",
    b"x-hauberk-peer",
    b"x_hauberk_peer",
    b"x|hauberk|peer",
]


@pytest.mark.parametrize("name", SPOOFED)
@trio_test
async def test_d02_no_spelling_of_our_identity_fields_comes_from_outside(name: bytes) -> None:
    """As field, repeated, in cookies' company, and as trailer: an app behind CGI takes `.` and `_` for `-`."""
    forged = b"By=spiffe://mesh.local/ns/shop/sa/orders;URI=spiffe://mesh.local/ns/shop/sa/root"
    fields = request(b"/", b"POST", (name, forged), (b"cookie", b"a"), (name, forged))
    answer, received = await sent_through(fields, b"body", [(name, forged), (b"x-good", b"trailer")])
    assert answer.status == 200
    assert b"sa/root" not in received
    assert received.count(b"sa/web") == 1
    assert b"x-good: trailer" in received


FORBIDDEN_TRAILERS = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"authorization",
    b"x-forwarded-for",
    b"x_forwarded_for",
    b"cookie",
    b"te",
    b"trailer",
]


@pytest.mark.parametrize("name", FORBIDDEN_TRAILERS)
@trio_test
async def test_b37_no_trailer_changes_what_the_head_said(name: bytes) -> None:
    """Dropped or refused, never passed on."""
    answer, received = await sent_through(request(b"/", b"POST"), b"body", [(name, b"chunked")])
    assert answer.status in (0, 200, 400)
    assert name + b": chunked" not in received.partition(b"\r\n\r\n")[2]


BODIES = {
    "B16 longer": (request(b"/", b"POST", (b"content-length", b"3")), b"GET /admin HTTP/1.1\r\nhost: x\r\n\r\n"),
    "B16 shorter": (request(b"/", b"POST", (b"content-length", b"300")), b"abc"),
    "B18 conflicting": (request(b"/", b"POST", (b"content-length", b"3"), (b"content-length", b"4")), b"abc"),
    "B16 zero": (request(b"/", b"POST", (b"content-length", b"0")), b"GET /admin HTTP/1.1\r\n\r\n"),
}


@pytest.mark.parametrize("name", BODIES)
@trio_test
async def test_b16_a_body_is_as_long_as_it_says_or_its_connection_to_the_app_ends(name: str) -> None:
    """What is more than announced never reaches the app, and what is less ends the connection it would be read on."""
    fields, body = BODIES[name]
    app = App()
    async with target(ALLOW_ALL, DENY_ADMIN, app=app) as it, attacker(it) as peer:
        app.reads = False  # its answer must not come before the fault
        answer = await peer.ask(fields, body)
        app.reads = True
        assert answer.status == 400, answer
        assert (await peer.ask(request(b"/next"))).status == 200
        await settled(lambda: b"/next" in app.received)
        holding_next = [bytes(one) for one in app.connections if b"/next" in one]
    assert b"GET /admin" not in app.received
    assert [one.split(b"\r\n")[0] for one in holding_next] == [b"GET /next HTTP/1.1"]


@trio_test
async def test_b19_the_same_length_twice_is_said_once() -> None:
    """Identical lengths are collapsed before the app sees them."""
    length = (b"content-length", b"3")
    answer, received = await sent_through(request(b"/", b"POST", length, length), b"abc")
    assert answer.status == 200
    assert received.count(b"content-length: 3\r\n") == 1


@trio_test
async def test_b21_an_http2_body_that_looks_like_a_request_stays_a_body() -> None:
    """Chunk framing is ours: a body that ends a chunk early is content."""
    smuggled = b"0\r\n\r\nGET /admin HTTP/1.1\r\nhost: orders.shop\r\n\r\n"
    answer, received = await sent_through(request(b"/", b"POST"), smuggled)
    assert answer.status == 200
    assert b"%x\r\n%s\r\n" % (len(smuggled), smuggled) in received


ABSOLUTE = {
    "B31 host of the target counts": (b"GET http://nobody.shop/x HTTP/1.1\r\nhost: orders.shop\r\n\r\n", b"404"),
    "B31 userinfo": (b"GET http://orders.shop@evil/x HTTP/1.1\r\nhost: orders.shop\r\n\r\n", b"400"),
    "B21 both": (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
    "B22 coding": (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n", b"501"),
    "B22 tab": (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n", b"400"),
    "B22 twice": (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n", b"501"),
    "B23 in 1.0": (b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
    "B24 bare LF": (b"GET / HTTP/1.1\nhost: a\n\n", b"400"),
    "B25 folded": (b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", b"400"),
    "B22 space before colon": (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n", b"400"),
    "B29 version": (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", b"505"),
    "B29 0.9": (b"GET /\r\n\r\n", b"400"),
    "B30 two hosts": (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", b"400"),
    "B30 none": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    "B34 connect elsewhere": (b"CONNECT www.example.com:443 HTTP/1.1\r\nhost: www.example.com:443\r\n\r\n", b"404"),
}


@pytest.mark.parametrize("name", ABSOLUTE)
@trio_test
async def test_b_http1_that_is_not_certain_is_refused_and_its_connection_closed(name: str) -> None:
    """The outbound port: one answer, nothing more is read from the connection where framing is in doubt."""
    octets, status = ABSOLUTE[name]
    app = App()
    async with target(ALLOW_ALL, app=app, timeouts=None) as it:
        stream = await trio.open_tcp_stream(*it.outbound_address)
        it.plane._outbound.look_up = refuse_look_up  # type: ignore[method-assign]  # the control plane knows nobody
        async with stream:
            await stream.send_all(octets + b"GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
            got = await stream.receive_some(65_536)
        assert got.split(b" ")[1] == status
        assert b"/second" not in got
    assert app.received == b""


def refuse_look_up(name: str, call: object) -> None:
    raise NotFound(name)
