"""httpx, which nobody here wrote: HTTP/1.1 and HTTP/2 with prior knowledge, through two sidecars to uvicorn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest
import trio

from tests.e2e.apps.web import pattern
from tests.interop.conftest import Shop


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def client(shop: Shop, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    is_http2 = request.param == "HTTP/2"
    base = f"http://127.0.0.1:{shop.port('orders')}"
    with httpx.Client(base_url=base, http1=not is_http2, http2=is_http2, timeout=20, trust_env=False) as client:
        assert client.get("/hello").http_version == request.param
        yield client


def test_httpx_gets_an_answer(client: httpx.Client) -> None:
    """With the app's own headers."""
    answer = client.get("/hello")
    assert (answer.status_code, answer.text, answer.headers["x-answer"]) == (200, "hello\n", "42")
    assert "connection" not in answer.headers
    assert "transfer-encoding" not in answer.headers


def test_cookies_and_repeated_headers_arrive(client: httpx.Client) -> None:
    """HTTP/2 splits cookies into crumbs; the app gets one field (RFC 9113 section 8.2.3)."""
    headers = [("x-a", "1"), ("x-a", "2"), ("cookie", "a=1; b=2; c=3")]
    seen = client.get("/echo", headers=headers).json()["headers"]
    assert [value for name, value in seen if name == "cookie"] == ["a=1; b=2; c=3"]
    assert ",".join(value.replace(" ", "") for name, value in seen if name == "x-a") == "1,2"


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_methods_go_through(client: httpx.Client, method: str) -> None:
    """And a HEAD's answer has no body but tells its length."""
    answer = client.request(method, "/echo")
    assert answer.status_code == 200
    if method == "HEAD":
        assert answer.content == b""
        assert int(answer.headers["content-length"]) > 100
    else:
        assert answer.json()["method"] == method


@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_bodies_arrive_intact_both_ways(client: httpx.Client, size: int) -> None:
    """With a length, and without one (chunked, or HTTP/2's own framing)."""
    content = b"".join(pattern(size))
    for body in (content, iter([content[: size // 2], content[size // 2 :]])):
        seen = client.post("/echo", content=body).json()
        assert (seen["octets"], seen["sha256"]) == (size, hashlib.sha256(content).hexdigest())
    assert client.get(f"/octets/{size}").content == content
    assert client.get(f"/chunked/{size}").content == content


@pytest.mark.parametrize("code", [201, 204, 304, 404, 410, 500])
def test_statuses_arrive(client: httpx.Client, code: int) -> None:
    """And the connection goes on after those that have no body."""
    answer = client.get(f"/status/{code}")
    assert (answer.status_code, answer.headers["etag"]) == (code, '"1"')
    assert client.get("/hello").text == "hello\n"


def test_server_sent_events_arrive_as_they_are_sent(client: httpx.Client) -> None:
    """The app sends the next only when it was told, on another request, that the last one was seen."""
    client.post("/close")
    with client.stream("GET", "/events/4") as answer:
        lines = (line for line in answer.iter_lines() if line)
        for number in range(4):
            assert next(lines) == f"data: {number}"
            if number < 3:
                assert client.post("/release").status_code == 200
        assert list(lines) == []


def test_a_client_that_leaves_frees_the_app(client: httpx.Client, shop: Shop) -> None:
    """Leaving half way ends the exchange in both sidecars. (With HTTP/2 httpx resets no stream it stops reading, so
    it is the connection that must go.)"""
    with client.stream("GET", "/octets/50000000") as answer:
        next(answer.iter_bytes(1_000))
    client.close()
    for member in (shop.web, shop.orders):
        shop.eventually_idle(member)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_many_requests_at_once_on_few_connections(shop: Shop, version: str) -> None:
    """Each answer goes to who asked. (On trio: httpx's HTTP/2 for threads loses its own streams now and then.)"""
    base, is_http2 = f"http://127.0.0.1:{shop.port('orders')}", version == "HTTP/2"
    right: list[int] = []

    async def main() -> None:
        few, at_once = httpx.Limits(max_connections=16), trio.CapacityLimiter(16)
        async with httpx.AsyncClient(
            base_url=base, http1=not is_http2, http2=is_http2, timeout=20, trust_env=False, limits=few
        ) as client:

            async def ask(number: int) -> None:
                async with at_once:
                    answer = await client.get(f"/echo/{number}")
                    assert answer.http_version == version
                    if answer.json()["path"] == f"/echo/{number}":
                        right.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(ask, number)

    trio.run(main)
    assert sorted(right) == list(range(200))


def test_httpx_goes_through_the_sidecar_as_its_proxy(shop: Shop) -> None:
    """`hauberk run` sets HTTP_PROXY for this."""
    with httpx.Client(proxy=f"http://127.0.0.1:{shop.web.proxy}", trust_env=False) as client:
        assert client.get("http://orders.shop:8080/hello").text == "hello\n"
        assert client.get("http://orders/hello").text == "hello\n"
        assert client.get("http://orders.shop:81/hello").status_code == 404
        assert client.get("http://example.com/").status_code == 404
