"""The pages say what is so, to whom may know it, and no client can make them stop."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.admin import (
    ADMIN,
    CONNECTIONS_MAX,
    HEAD_OCTETS_MAX,
    HEALTH,
    REQUEST_TIMEOUT_S,
    Surface,
    is_local_host,
    serve_admin,
)
from tests.trio_support import trio_test


@dataclass
class State:
    """A sidecar that is as ready as the test says."""

    missing: list[str] = field(default_factory=list)
    is_live: bool = True
    fails: bool = False

    def ready(self) -> tuple[bool, list[str]]:
        return not self.missing, self.missing

    def live(self) -> bool:
        return self.is_live

    def metrics(self) -> bytes:
        if self.fails:
            raise RuntimeError("secret detail")
        return b"# TYPE up gauge\nup 1.0\n"

    def config(self) -> dict[str, object]:
        return {"service": "orders"}

    def status(self) -> dict[str, object]:
        return {"snapshot": 7}


@asynccontextmanager
async def serving(state: State, surface: Surface = ADMIN) -> AsyncIterator[int]:
    """The server on a free port, until the block ends."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(serve_admin, listeners, state, surface)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def ask(port: int, data: bytes) -> bytes:
    """Send octets, read until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        return b"".join([chunk async for chunk in stream])


def get(path: str, *, method: str = "GET", host: str = "localhost") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@trio_test
async def test_readiness_names_what_is_missing() -> None:
    """503 and one word per line until nothing is missing."""
    state = State(missing=["certificate", "snapshot"])
    async with serving(state) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/ready")
        assert (answer.status_code, answer.text) == (503, "certificate\nsnapshot\n")
        state.missing.clear()
        answer = await client.get("/ready?verbose")
        assert (answer.status_code, answer.text) == (200, "ready\n")
        assert answer.headers["connection"] == "close"
        assert answer.headers["cache-control"] == "no-store"


@trio_test
async def test_every_page_of_the_admin_surface_answers() -> None:
    """A client nobody here wrote reads them."""
    state = State()
    async with serving(state) as port, httpx.AsyncClient(base_url=f"http://localhost:{port}") as client:
        assert (await client.get("/live")).text == "live\n"
        metrics = await client.get("/metrics")
        assert (metrics.text, metrics.headers["content-type"]) == (
            "# TYPE up gauge\nup 1.0\n",
            "text/plain; version=0.0.4; charset=utf-8",
        )
        assert (await client.get("/config")).json() == {"service": "orders"}
        assert (await client.get("/status")).json() == {"snapshot": 7}
        state.is_live = False
        assert (await client.get("/live")).status_code == 503


@trio_test
async def test_g20_strangers_see_health_and_nothing_else() -> None:
    """/config and /status are not on the health listener; by whatever name it is asked."""
    async with serving(State(), HEALTH) as port:
        for path in ("/ready", "/live", "/metrics"):
            assert (await ask(port, get(path, host="orders.shop:15020"))).startswith(b"HTTP/1.1 200 ")
        for path in ("/config", "/status", "/shutdown", "/debug", "//config", "/config/", "/Config"):
            assert (await ask(port, get(path))).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_g20_nothing_can_be_changed_here(method: str) -> None:
    """Reading is all there is."""

    async def main() -> None:
        async with serving(State()) as port:
            answer = await ask(port, get("/config", method=method))
            assert answer.startswith(b"HTTP/1.1 405 ")
            assert b"allow: GET, HEAD\r\n" in answer

    trio.run(main)


@trio_test
async def test_a_head_request_gets_the_head_alone() -> None:
    """With the length the body would have (RFC 9110 section 9.3.2)."""
    async with serving(State()) as port:
        answer = await ask(port, get("/ready", method="HEAD"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 6\r\n" in answer


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:15000", "10.0.0.1", "localhost.evil.example", "[::2]", ""]
)
def test_a_host_that_is_not_this_machine_is_refused_on_the_admin_surface(host: str) -> None:
    """DNS rebinding: a web page's own name made to point at 127.0.0.1."""

    async def main() -> None:
        async with serving(State()) as port:
            answer = await ask(port, get("/config", host=host))
            assert answer.startswith(b"HTTP/1.1 421 ")
            assert b"orders" not in answer

    trio.run(main)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        (b"localhost", True),
        (b"LOCALHOST:15000", True),
        (b"127.0.0.1:15000", True),
        (b"127.8.0.1", True),
        (b"[::1]:15000", True),
        (b"[::1]", True),
        (b"::1", False),
        (b"0.0.0.0", False),
        (b"127.0.0.1.nip.example", False),
        (b"localhost:abc", False),
        (b"localhost:1:2", False),
        (b"[::1", False),
        (b"2130706433", False),
        (b"\xff", False),
    ],
)
def test_which_hosts_are_this_machine(host: bytes, local: bool) -> None:
    """Only what cannot be somebody's DNS name."""
    assert is_local_host(host) is local


@given(st.binary(max_size=40))
def test_no_host_makes_the_check_fail(host: bytes) -> None:
    """It is local or it is not."""
    assert is_local_host(host) in (True, False)


@pytest.mark.parametrize(
    ("request_octets", "status"),
    [
        (b"GET /ready HTTP/1.1\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /ready HTTP/1.0\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET  /ready\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * HEAD_OCTETS_MAX + b"\r\n\r\n", 431),
        (b"GET /ready HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 200),
        (b"POST /ready HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + b"a" * 50_000, 405),
        (b"GET /ready HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200),
    ],
)
def test_what_is_not_a_plain_request_is_answered_all_the_same(request_octets: bytes, status: int) -> None:
    """A clear status, and the whole answer arrives although the client sent more than was read."""

    async def main() -> None:
        async with serving(State()) as port:
            answer = await ask(port, request_octets)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            head, _, body = answer.partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head

    trio.run(main)


@trio_test
async def test_a_page_that_fails_answers_500_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """The reason goes to the log, not to the client."""
    caplog.set_level(logging.ERROR)
    async with serving(State(fails=True)) as port:
        answer = await ask(port, get("/metrics"))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret detail" not in answer
        assert (await ask(port, get("/ready"))).startswith(b"HTTP/1.1 200 ")
    assert "a page failed" in caplog.text


@trio_test
async def test_clients_over_the_limit_are_turned_away_and_room_is_made_again() -> None:
    """64 that say nothing do not keep the 65th waiting, and when they go others may come."""
    async with serving(State()) as port:
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await stream.receive_some() == b""
        for stream in silent:
            await stream.aclose()
        answer = b""
        while not answer:  # the server sees each of them go in its own time
            try:
                answer = await ask(port, get("/ready"))
            except trio.BrokenResourceError:
                continue
        assert answer.startswith(b"HTTP/1.1 200 ")


class FakeListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts one stream of the test's, then nothing more."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.SocketStream:
        if not self._streams:
            await trio.sleep_forever()
        return self._streams.pop()  # type: ignore[return-value]  # a memory stream does what a socket's does

    async def aclose(self) -> None:
        """Nothing to close."""


@trio_test(autojump=True)
async def test_a_client_that_never_finishes_its_request_is_cut_off() -> None:
    """Ten seconds for everything (slowloris)."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_admin, [FakeListener(theirs)], State())
        await ours.send_all(b"GET /ready HTT")
        started = trio.current_time()
        assert await ours.receive_some() == b""
        assert trio.current_time() - started == pytest.approx(REQUEST_TIMEOUT_S)
        nursery.cancel_scope.cancel()


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_octets_end_the_server(chunks: list[bytes]) -> None:
    """Whatever comes first, the next client is answered."""

    async def main() -> None:
        async with serving(State()) as port:
            with trio.move_on_after(5):
                await ask_and_leave(port, chunks)
            assert json.loads((await ask(port, get("/status"))).partition(b"\r\n\r\n")[2]) == {"snapshot": 7}

    trio.run(main)


async def ask_and_leave(port: int, chunks: list[bytes]) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            for chunk in chunks:
                await stream.send_all(chunk)
            await stream.send_eof()
            async for _ in stream:
                pass
        except trio.BrokenResourceError:
            pass
