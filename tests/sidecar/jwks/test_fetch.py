"""One document by https: over real sockets and real TLS, from servers that do all that they should not."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio

from sidecar.jwks.fetch import DOCUMENT_OCTETS_MAX, Document, FetchFailed, fetch, tls_context
from tests.sidecar.jwks.issuer import Authority, IssuerServer, ok, serving_keys
from tests.trio_support import trio_test

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


async def get(authority: Authority, url: str, *, timeout_s: float = 5.0, allowed: bool = True) -> Document:
    return await fetch(url, tls_context(str(authority.ca_file)), LOOPBACK if allowed else [], timeout_s)


async def failure(authority: Authority, server: IssuerServer, answer: bytes) -> str:
    """Why this answer is none."""
    server.answers["/keys"] = answer
    with pytest.raises(FetchFailed) as caught:
        await get(authority, server.url("/keys"))
    return str(caught.value)


@trio_test
async def test_a_document_is_fetched_with_its_max_age(authority: Authority) -> None:
    """One request, that names the host and wants no coding; with a length, chunked, or to the end."""
    async with serving_keys(authority) as server:
        server.answers["/a?b=c"] = ok("{}", "cache-control: public, max-age=321")
        assert await get(authority, server.url("/a?b=c")) == Document(b"{}", 321.0)
        head = server.heads[0].lower()
        assert head.startswith(b"get /a?b=c http/1.1\r\n")
        assert f"host: localhost:{server.port}\r\n".encode() in head
        assert b"accept-encoding: identity\r\n" in head
        server.answers["/keys"] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        assert (await get(authority, server.url("/keys"))).body == b"{}"
        server.answers["/keys"] = b"HTTP/1.1 200 OK\r\n\r\n{}"
        assert await get(authority, server.url("/keys")) == Document(b"{}", None)


@trio_test
async def test_e23_g28_the_address_is_judged_and_not_the_name(authority: Authority) -> None:
    """Loopback is dialled only if it was allowed, by whatever name; the server never hears of it."""
    async with serving_keys(authority) as server:
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(FetchFailed, match="outside the public Internet"):
                await get(authority, server.url("/keys", host=host), allowed=False)
        assert server.asked == []
    async with serving_keys(None) as server:
        server.answers["/keys"] = ok("{}")
        with pytest.raises(FetchFailed, match="outside the public Internet"):
            await get(authority, server.url("/keys", "http"), allowed=False)
        assert (await get(authority, server.url("/keys", "http"))).body == b"{}"
        with pytest.raises(FetchFailed, match="must be https"):
            await get(authority, server.url("/keys", "http", "localhost.example"))


class Resolver(trio.abc.HostnameResolver):
    """Every name is at these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, host: Any, port: Any, *_: int) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (one, port))
            for one in self._addresses
        ]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


class Sockets(trio.abc.SocketFactory):
    """None may be made."""

    def socket(self, *_: Any) -> Any:
        raise AssertionError("a connection was tried")


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "127.0.0.1",
     "100.100.100.200", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"],
)  # fmt: skip
@trio_test
async def test_g28_e23_metadata_services_and_private_networks_are_not_dialled(
    authority: Authority, address: str
) -> None:
    """Neither written out nor behind a name; that loopback is allowed opens nothing else."""
    context = tls_context(str(authority.ca_file))
    trio.socket.set_custom_socket_factory(Sockets())
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(FetchFailed, match="outside the public Internet"):
        await fetch(f"https://{literal}/keys", context, [], 5)
    trio.socket.set_custom_hostname_resolver(Resolver(address, "192.168.7.7"))
    allowed = [] if address == "127.0.0.1" else LOOPBACK
    with pytest.raises(FetchFailed, match="outside the public Internet"):
        await fetch("https://issuer.example/keys", context, allowed, 5)


@trio_test
async def test_g28_an_internal_issuer_is_asked_where_it_was_allowed_and_nowhere_else(tmp_path: Path) -> None:
    """Of the addresses a name has, only those in `jwks.allow_networks` are tried."""
    authority = Authority(tmp_path, "issuer.internal")
    async with serving_keys(authority) as server:
        server.answers["/keys"] = ok("{}")
        trio.socket.set_custom_hostname_resolver(Resolver("169.254.169.254", "10.0.0.1", "127.0.0.1"))
        assert (await get(authority, server.url("/keys", host="issuer.internal"), timeout_s=2)).body == b"{}"
        assert server.asked == ["/keys"]


@trio_test
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_e23_redirects_are_not_followed(authority: Authority, status: int) -> None:
    """They lead where nobody judged."""
    async with serving_keys(authority) as server:
        location = f"location: {server.url('/other')}"
        answer = f"HTTP/1.1 {status} Go\r\n{location}\r\ncontent-length: 0\r\n\r\n".encode()
        assert f"answered {status}" in await failure(authority, server, answer)
        assert server.asked == ["/keys"]


@trio_test
async def test_e23_an_answer_has_a_bound(authority: Authority) -> None:
    """1 MiB, whatever was announced; also in pieces, also without a length."""
    async with serving_keys(authority) as server:
        fits = b" " * (DOCUMENT_OCTETS_MAX - 2) + b"{}"
        server.answers["/keys"] = ok(fits)
        assert (await get(authority, server.url("/keys"))).body == fits
        for answer in (
            ok(fits + b" "),
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + b" " * 2_000_000,
            b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2_000_000,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 65_536 + b"\r\n"
            + (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 20,
        ):  # fmt: skip
            assert "more than 1048576 octets" in await failure(authority, server, answer)


@trio_test
async def test_e23_a_fetch_has_an_end(authority: Authority) -> None:
    """Whoever does not answer is not waited for."""
    async with serving_keys(authority) as server:
        server.hold = trio.Event()
        with pytest.raises(FetchFailed, match=r"did not answer within 0\.2 s"):
            await get(authority, server.url("/keys"), timeout_s=0.2)


@trio_test
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "broke off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}", "broke off"),
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 204 None\r\n\r\n", "answered 204"),
        (ok("x", "content-encoding: gzip"), "coding"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", "not HTTP"),
    ],
)
async def test_e23_what_is_no_answer_is_told_and_not_believed(authority: Authority, answer: bytes, why: str) -> None:
    """In words that quote nothing of it."""
    async with serving_keys(authority) as server:
        assert why in await failure(authority, server, answer)


@trio_test
async def test_e23_the_servers_certificate_is_checked(authority: Authority, tmp_path: Path) -> None:
    """Against the configured authorities or the system's, and for the host that was asked."""
    async with serving_keys(authority) as server:
        server.answers["/keys"] = ok("{}")
        with pytest.raises(FetchFailed, match=r"certificate of localhost:\d+ was refused"):
            await fetch(server.url("/keys"), tls_context(str(Authority(tmp_path).ca_file)), LOOPBACK, 5.0)
        with pytest.raises(FetchFailed, match="was refused"):
            await fetch(server.url("/keys"), tls_context(""), LOOPBACK, 5.0)
        with pytest.raises(FetchFailed, match="was refused"):
            await get(authority, server.url("/keys", host="127.0.0.1"))
        assert server.asked == []
    async with serving_keys(None) as server:
        with pytest.raises(FetchFailed, match=r"cannot be reached|broke"):
            await get(authority, server.url("/keys"))


@trio_test
async def test_who_is_not_there_is_told(authority: Authority) -> None:
    """A port nobody listens on, a name nobody has."""
    async with serving_keys(authority) as server:
        port = server.port
    for url in (f"https://localhost:{port}/keys", "https://nobody.invalid/keys"):
        with pytest.raises(FetchFailed, match="cannot be reached"):
            await get(authority, url)


def test_the_context_checks_who_is_there() -> None:
    """Nothing can turn that off."""
    context = tls_context("")
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


class Loopback(trio.abc.HostnameResolver):
    """Every name is this machine."""

    # Its type is a long one, and with its names trio's business.
    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # type: ignore[no-untyped-def]  # noqa: A002
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: tuple[object, ...], flags: int) -> tuple[str, str]:
        raise OSError("nobody asks")


@trio_test
@pytest.mark.parametrize(
    ("certified", "host", "is_taken"),
    [
        ("*.example.test", "keys.example.test", True),
        ("*.example.test", "a.keys.example.test", False),
        ("*.example.test", "b.a.keys.example.test", False),
        ("*.example.test", "example.test", False),
        ("*.keys.example.test", "a.keys.example.test", True),
        ("*.keys.example.test", "b.a.keys.example.test", False),
        ("k*.example.test", "keys.example.test", False),
        ("*.*.example.test", "a.keys.example.test", False),
        ("*.test", "example.test", False),
    ],
)
async def test_c19_a_wildcard_in_a_certificate_is_one_label(
    tmp_path: Path, certified: str, host: str, is_taken: bool
) -> None:
    """The leftmost one, whole (RFC 9525 section 6.3). In a policy `*.example.test` is another thing, a suffix."""
    trio.socket.set_custom_hostname_resolver(Loopback())
    authority = Authority(tmp_path, certified)
    async with serving_keys(authority) as server:
        server.answers["/keys"] = ok("{}")
        if is_taken:
            assert (await get(authority, server.url("/keys", host=host))).body == b"{}"
        else:
            with pytest.raises(FetchFailed, match=f"certificate of {host}:{server.port} was refused"):
                await get(authority, server.url("/keys", host=host))
            assert server.asked == []
