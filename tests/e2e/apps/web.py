"""An ASGI app for tests, to be served by uvicorn, which nobody here wrote.

GET  /hello                text
ANY  /echo                 JSON: method, path, query, headers as they came, length and SHA-256 of the body
GET  /octets/N             N octets of `pattern`, with their length; /chunked/N the same without it
GET  /status/N             an answer with that status and no body (404 and such: with one)
GET  /events               server-sent events; each but the first waits for a POST /release
PUT  /slow                 reads its body in bursts of BURST octets, each but the first after a POST /release
POST /close                forgets what was released
POST /release              lets one event or burst go; answers how many octets /slow has read so far
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BURST = 1_000_000
PIECE = bytes(range(251)) * 261
"""65,511 octets: a length that no window or record divides."""


def pattern(octets: int) -> Iterator[bytes]:
    """The first `octets` of an endless sequence, in pieces."""
    whole, rest = divmod(octets, len(PIECE))
    for _ in range(whole):
        yield PIECE
    if rest:
        yield PIECE[:rest]


class Gate:
    """Lets as many pass as were released since it was last closed."""

    def __init__(self) -> None:
        self.close()

    def close(self) -> None:
        self.free = asyncio.Semaphore(0)
        self.read = 0


gate = Gate()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    name, _, argument = scope["path"].strip("/").partition("/")
    page = PAGES.get(name)
    if page is None:
        await answer(send, 404, b"no such page\n")
    else:
        await page(scope, receive, send, argument)


async def hello(_scope: Scope, _receive: Receive, send: Send, _argument: str) -> None:
    await answer(send, 200, b"hello\n", [(b"x-answer", b"42")])


async def echo(scope: Scope, receive: Receive, send: Send, _argument: str) -> None:
    digest, size = hashlib.sha256(), 0
    async for data in body_of(receive):
        digest.update(data)
        size += len(data)
    seen = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("ascii"),
        "query": scope["query_string"].decode("ascii"),
        "http": scope["http_version"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "octets": size,
        "sha256": digest.hexdigest(),
    }
    await answer(send, 200, json.dumps(seen).encode(), [(b"content-type", b"application/json")])


async def octets(_scope: Scope, _receive: Receive, send: Send, argument: str) -> None:
    await begin(send, 200, [(b"content-length", argument.encode())])
    await send_pattern(send, int(argument))


async def chunked(_scope: Scope, _receive: Receive, send: Send, argument: str) -> None:
    await begin(send, 200, [])
    await send_pattern(send, int(argument))


async def status(_scope: Scope, _receive: Receive, send: Send, argument: str) -> None:
    code = int(argument)
    await answer(send, code, b"" if code in (204, 304) else b"so it is\n", [(b"etag", b'"1"')])


async def events(_scope: Scope, _receive: Receive, send: Send, argument: str) -> None:
    await begin(send, 200, [(b"content-type", b"text/event-stream")])
    for number in range(int(argument or 3)):
        if number:
            await gate.free.acquire()
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def slow(_scope: Scope, receive: Receive, send: Send, _argument: str) -> None:
    digest, allowed = hashlib.sha256(), BURST
    async for data in body_of(receive):
        digest.update(data)
        gate.read += len(data)
        while gate.read > allowed:
            await gate.free.acquire()
            allowed += BURST
    await answer(send, 200, json.dumps({"octets": gate.read, "sha256": digest.hexdigest()}).encode())


async def release(_scope: Scope, _receive: Receive, send: Send, argument: str) -> None:
    for _ in range(int(argument or 1)):
        gate.free.release()
    await answer(send, 200, b"%d" % gate.read)


async def close(_scope: Scope, _receive: Receive, send: Send, _argument: str) -> None:
    gate.close()
    await answer(send, 200, b"")


PAGES = {
    "hello": hello, "echo": echo, "octets": octets, "chunked": chunked, "status": status, "events": events,
    "slow": slow, "close": close, "release": release,
}  # fmt: skip


async def body_of(receive: Receive) -> Any:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the caller is gone")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def begin(send: Send, code: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": code, "headers": headers})


async def answer(send: Send, code: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    length = [] if code in (204, 304) else [(b"content-length", b"%d" % len(body))]
    await begin(send, code, length + (headers or []))
    await send({"type": "http.response.body", "body": body})


async def send_pattern(send: Send, count: int) -> None:
    for piece in pattern(count):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
