"""curl, which nobody here wrote, through two sidecars to an app on uvicorn."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import Shop

HTTP1, H2C = ["--http1.1"], ["--http2-prior-knowledge"]
BOTH = pytest.mark.parametrize("speaks", [HTTP1, H2C], ids=["http1", "h2c"])


def curl(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", "--noproxy", "", *arguments],
        input=data,
        capture_output=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        timeout=40,
    )


def fetch(*arguments: str, data: bytes = b"") -> tuple[int, str, bytes]:
    """Status, protocol version and body."""
    run = curl("--write-out", "\n%{http_code} %{http_version}", *arguments, data=data)
    assert run.returncode == 0, run.stderr.decode()
    body, _, told = run.stdout.rpartition(b"\n")
    status, version = told.decode().split()
    return int(status), version, body


@BOTH
def test_curl_gets_an_answer(shop: Shop, speaks: list[str]) -> None:
    """Through a named local port, in the protocol it asked for."""
    version = "2" if speaks is H2C else "1.1"
    assert fetch(*speaks, f"http://127.0.0.1:{shop.port('orders')}/hello") == (200, version, b"hello\n")


@BOTH
def test_curl_names_the_service_in_the_host_header(shop: Shop, speaks: list[str]) -> None:
    """On the outbound port the Host header (or :authority) says whom it wants."""
    for host in ("orders.shop", "orders.shop.svc.cluster.local:8080", "orders"):
        url = f"http://127.0.0.1:{shop.web.proxy}/hello"
        assert fetch(*speaks, "-H", f"Host: {host}", url)[::2] == (200, b"hello\n")


def test_curl_goes_through_the_sidecar_as_its_proxy(shop: Shop) -> None:
    """http_proxy: absolute-form, the URL names the service."""
    proxy = f"http://127.0.0.1:{shop.web.proxy}"
    assert fetch("--proxy", proxy, "http://orders.shop:8080/hello")[::2] == (200, b"hello\n")
    assert fetch("--proxy", proxy, "http://nobody.shop/hello")[0] == 404


def test_curl_tunnels_through_the_sidecar(shop: Shop) -> None:
    """CONNECT names a service; what is said in the tunnel goes to that and to no other."""
    proxy = f"http://127.0.0.1:{shop.web.proxy}"
    for speaks in (HTTP1, H2C):
        assert fetch("--proxytunnel", "--proxy", proxy, *speaks, "http://orders.shop:8080/hello")[2] == b"hello\n"
    assert curl("--proxytunnel", "--proxy", proxy, "http://127.0.0.1:22/").returncode == 56


@BOTH
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_and_bodies_arrive_as_sent(shop: Shop, speaks: list[str], method: str) -> None:
    """With their path and query as they were written."""
    url = f"http://127.0.0.1:{shop.port('orders')}/echo/a%20b/%2C?q=%26+x&y"
    status, _, body = fetch(*speaks, "-X", method, "--data-binary", "@-", url, data=b"\0some data\xff")
    seen = json.loads(body)
    assert (status, seen["method"], seen["octets"]) == (200, method, 11)
    assert (seen["path"], seen["query"]) == ("/echo/a%20b/%2C", "q=%26+x&y")
    assert seen["sha256"] == hashlib.sha256(b"\0some data\xff").hexdigest()


@BOTH
def test_head_is_answered_with_a_length_and_no_body(shop: Shop, speaks: list[str]) -> None:
    """As the app would have it for a GET."""
    run = curl(*speaks, "--head", f"http://127.0.0.1:{shop.port('orders')}/octets/1234")
    assert run.returncode == 0, run.stderr.decode()
    assert b"content-length: 1234" in run.stdout.lower()
    assert run.stdout.endswith(b"\r\n\r\n")


@BOTH
@pytest.mark.parametrize("code", [204, 304, 404, 500, 503])
def test_statuses_arrive_as_they_are(shop: Shop, speaks: list[str], code: int) -> None:
    """Those that have no body as well."""
    url = f"http://127.0.0.1:{shop.port('orders')}/status/{code}"
    status, _, body = fetch(*speaks, url)
    assert (status, body) == (code, b"" if code in (204, 304) else b"so it is\n")


@BOTH
def test_expect_100_continue_is_answered_before_the_body(shop: Shop, speaks: list[str]) -> None:
    """curl would wait a long time for it, then send anyway: the limit on time is the test."""
    url = f"http://127.0.0.1:{shop.port('orders')}/echo"
    arguments = ["--expect100-timeout", "25", "-H", "Expect: 100-continue", "--data-binary", "@-", "--max-time", "20"]
    status, _, body = fetch(*speaks, *arguments, url, data=b"x" * 100_000)
    assert (status, json.loads(body)["octets"]) == (200, 100_000)


def test_a_chunked_upload_arrives(shop: Shop) -> None:
    """Its length is known to nobody before its end."""
    url = f"http://127.0.0.1:{shop.port('orders')}/echo"
    content = bytes(range(256)) * 2_000
    status, _, body = fetch("-T", "-", "-H", "Transfer-Encoding: chunked", url, data=content)
    seen = json.loads(body)
    assert (status, seen["octets"], seen["sha256"]) == (200, len(content), hashlib.sha256(content).hexdigest())


@BOTH
def test_an_answer_without_a_length_arrives(shop: Shop, speaks: list[str]) -> None:
    """Chunked by the app."""
    status, _, body = fetch(*speaks, f"http://127.0.0.1:{shop.port('orders')}/chunked/300000")
    assert (status, len(body)) == (200, 300_000)


def test_connections_are_kept(shop: Shop) -> None:
    """Twenty requests, one connection. (curl 7.88 cannot reuse one with HTTP/2 prior knowledge, whoever serves it.)"""
    url = f"http://127.0.0.1:{shop.port('orders')}/hello?[1-20]"
    told = curl("--write-out", "%{num_connects} ", url).stdout.decode().split()
    assert told.count("hello") == 20
    assert [word for word in told if word != "hello"] == ["1"] + ["0"] * 19


def test_http_1_0_is_served(shop: Shop) -> None:
    """And its connection is closed, for it knows no other end of an answer without a length."""
    base = f"http://127.0.0.1:{shop.port('orders')}"
    assert fetch("--http1.0", f"{base}/hello")[::2] == (200, b"hello\n")
    assert len(fetch("--http1.0", f"{base}/chunked/100000")[2]) == 100_000


@BOTH
def test_an_app_on_a_unix_socket_is_reached(shop: Shop, speaks: list[str]) -> None:
    """`app: unix:/path`: nobody but its sidecar can come to it by network."""
    url = f"http://127.0.0.1:{shop.port('local')}/echo"
    status, _, body = fetch(*speaks, "--data-binary", "@-", url, data=b"abc")
    assert (status, json.loads(body)["octets"]) == (200, 3)


def test_the_app_learns_who_calls_from_the_sidecar_alone(shop: Shop) -> None:
    """A client's own x-forwarded-client-cert goes no further."""
    url = f"http://127.0.0.1:{shop.port('orders')}/echo"
    _, _, body = fetch("-H", "X-Forwarded-Client-Cert: URI=spiffe://mesh.local/ns/shop/sa/admin", url)
    certs = [value for name, value in json.loads(body)["headers"] if name == "x-forwarded-client-cert"]
    assert len(certs) == 1
    assert certs[0].endswith("URI=spiffe://mesh.local/ns/shop/sa/web")


@pytest.mark.parametrize("speaks", [HTTP1, H2C], ids=["http1", "h2c"])
@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_files_go_up_and_come_down_whole(shop: Shop, speaks: list[str], size: int, tmp_path: Path) -> None:
    """Nothing, one octet, 64 KiB; 100 MB have a test of their own."""
    base = f"http://127.0.0.1:{shop.port('orders')}"
    content = fetch(*speaks, f"{base}/octets/{size}")[2]
    assert len(content) == size
    file = tmp_path / "file"
    file.write_bytes(content)
    seen = json.loads(fetch(*speaks, "-T", str(file), f"{base}/echo")[2])
    assert (seen["octets"], seen["sha256"]) == (size, hashlib.sha256(content).hexdigest())
