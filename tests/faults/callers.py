"""Load from clients nobody here wrote, for as long as a fault lasts: httpx on trio, curl, grpcio.

    with calling(web.ports["orders"], grpc_port=web.ports["greeter"]) as callers:
        ...
    callers.assert_unharmed()

Each kind of client counts for itself. Short requests must all be answered. Streams that would go on for ever are cut
when the certificates of their connection end, by design: `Callers.streams` holds how long each lasted.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import httpx
import trio

from tests.e2e.clients import BODY, Load, grpc_channel

TIMEOUT_S = 20.0
CURL_REQUESTS = 4
CURL_PAUSE_S = 0.5
NUMBERS = 40
"""Messages of a short gRPC stream."""
BEAT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream that was open until somebody ended it."""

    kind: str
    lasted_s: float
    ending: str


@dataclass(slots=True)
class Callers:
    """What they have seen so far."""

    httpx: Load = field(default_factory=Load)
    httpx_http2: Load = field(default_factory=Load)
    curl: Load = field(default_factory=Load)
    grpc: Load = field(default_factory=Load)
    streams: list[Stream] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, Load]:
        return {"httpx": self.httpx, "httpx_http2": self.httpx_http2, "curl": self.curl, "grpc": self.grpc}

    @property
    def answered(self) -> int:
        return sum(one.answered for one in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(one.failed for one in self.kinds.values())

    def __repr__(self) -> str:
        counted = {name: dict(one.counted) for name, one in self.kinds.items() if one.counted}
        return f"<Callers {counted}, {len(self.streams)} streams ended>"

    def assert_unharmed(self) -> None:
        assert self.failed == 0, (self, [one.failures for one in self.kinds.values()])


@contextmanager
def calling(
    port: int, *, grpc_port: int | None = None, pause_s: float = 0.05, streams: bool = False
) -> Iterator[Callers]:
    """`port`: where `apps/web.py` is reached; `grpc_port`: `apps/greeter.py`. `streams`: long ones too."""
    callers, stop = Callers(), threading.Event()
    jobs: list[Callable[[], None]] = [
        lambda: trio.run(_httpx, callers, stop, port, pause_s, streams),
        lambda: _curl(callers.curl, stop, port),
    ]
    if grpc_port is not None:
        jobs.append(lambda: _grpc(callers.grpc, stop, grpc_port, pause_s))
        if streams:
            jobs.append(lambda: _chat(callers, stop, grpc_port))
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def _httpx(callers: Callers, stop: threading.Event, port: int, pause_s: float, streams: bool) -> None:
    url = f"http://127.0.0.1:{port}"
    async with (
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http1,
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False, http1=False, http2=True) as http2,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(_ask, http1, callers.httpx, stop, pause_s)
            nursery.start_soon(_ask, http2, callers.httpx_http2, stop, pause_s)
        if streams:
            nursery.start_soon(_listen, http1, callers, stop, nursery.cancel_scope)


async def _ask(client: httpx.AsyncClient, seen: Load, stop: threading.Event, pause_s: float) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        try:
            if number % 2:
                answer = await client.post("/echo", content=BODY)
            else:
                answer = await client.get("/octets/20000")
            seen.note(answer.status_code, f"{number} {answer.text[:200]!r}")
        except httpx.HTTPError as error:
            seen.note(type(error).__name__, f"{number} {error}")
        await trio.sleep(pause_s)


async def _listen(client: httpx.AsyncClient, callers: Callers, stop: threading.Event, scope: trio.CancelScope) -> None:
    """An event stream whose second event nobody releases, again and again."""

    async def end_with_the_rest() -> None:
        while not stop.is_set():
            await trio.sleep(BEAT_S)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_the_rest)
        while True:
            began, ending = trio.current_time(), "complete"
            try:
                async with client.stream("GET", "/events/2", timeout=None) as answer:
                    if answer.status_code != 200:
                        callers.httpx.note(answer.status_code, "event stream")
                    async for _ in answer.aiter_bytes():
                        began = trio.current_time()
            except httpx.HTTPError as error:
                ending = type(error).__name__
            callers.streams.append(Stream(kind="http", lasted_s=trio.current_time() - began, ending=ending))
            await trio.sleep(BEAT_S)


def _curl(seen: Load, stop: threading.Event, port: int) -> None:
    """A process with a connection of its own each time: some requests on HTTP/1.1, or one on HTTP/2 (some curls fail to
    use such a connection again when HTTP/2 was prior knowledge)."""
    url = f"http://127.0.0.1:{port}/hello"
    ways = [
        ["--http1.1", *["-o", "/dev/null", url] * CURL_REQUESTS],
        ["--http2-prior-knowledge", "-o", "/dev/null", url],
    ]
    number = 0
    while not stop.wait(CURL_PAUSE_S):
        number += 1
        command = ["curl", "-sS", "-q", "--noproxy", "*", "-m", str(TIMEOUT_S), "-w", "%{http_code}\n"]
        run = subprocess.run([*command, *ways[number % 2]], capture_output=True, text=True, timeout=60, check=False)
        for line in run.stdout.split():
            seen.note(int(line), f"curl {ways[number % 2][0]} {run.stderr[:200]!r}")
        if run.returncode:
            seen.note(f"curl {run.returncode}", run.stderr[:200])


def _grpc(seen: Load, stop: threading.Event, port: int, pause_s: float) -> None:
    """Unary calls and short streams on one channel that is kept."""
    with grpc_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary("/test.Greeter/Echo")
        count = channel.unary_stream("/test.Greeter/Count")
        number = 0
        while not stop.wait(pause_s):
            number += 1
            text = b"%d" % number
            try:
                if number % 2:
                    is_right = echo(text, timeout=TIMEOUT_S) == text
                else:
                    is_right = len(list(count(b"%d" % NUMBERS, timeout=TIMEOUT_S))) == NUMBERS
                seen.note(200 if is_right else "wrong answer", f"grpc {number}")
            except grpc.RpcError as error:
                seen.note(str(error.code()), f"grpc {number} {error.details()}")


def _chat(callers: Callers, stop: threading.Event, port: int) -> None:
    """A bidirectional stream with a word to and fro every `BEAT_S`, again and again."""
    with grpc_channel(f"127.0.0.1:{port}") as channel:
        chat = channel.stream_stream("/test.Greeter/Chat")
        while not stop.wait(BEAT_S):
            said: list[bytes] = []

            def words(said: list[bytes] = said) -> Iterator[bytes]:
                while not stop.wait(BEAT_S):
                    said.append(b"%d" % len(said))
                    yield said[-1]

            began, heard, ending = time.monotonic(), 0, "complete"
            try:
                for word in chat(words()):
                    if word != said[heard]:
                        callers.grpc.note("wrong answer", f"chat: {word!r} for {said[heard]!r}")
                    heard += 1
            except grpc.RpcError as error:
                ending = str(error.code())
            if not stop.is_set():
                callers.streams.append(Stream(kind="grpc", lasted_s=time.monotonic() - began, ending=ending))
