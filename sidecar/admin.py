"""The sidecar's own small web server: is it ready, is it alive, how is it doing.

Two surfaces. `ADMIN` (loopback or a unix socket) has everything; `HEALTH` (any address, for kubelet and Prometheus) has
only what may be known to strangers: /ready, /live, /metrics. There is nothing here that changes anything (row G20).

    /ready    200 "ready", or 503 and what is missing, one word per line
    /live     200 "live", or 503
    /metrics  Prometheus text
    /config   the configuration in use, JSON, no secrets           admin only
    /status   identity, certificate, snapshot, connections, JSON   admin only

A request that names a Host other than a loopback address or "localhost" is refused on the admin surface: else a web
page could point a name of its own at 127.0.0.1 and read what is here through the browser of whoever works on this
machine (DNS rebinding). Each connection serves one request, has 10 s and 8 KiB for it, and there are 64 at a time.

httptools (MIT, llhttp; kept by MagicStack for uvicorn) reads the request, as in the data plane.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httptools
import trio

from sidecar.telemetry.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE

log = logging.getLogger(__name__)

HEAD_OCTETS_MAX = 8_192
REQUEST_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 64
LINGER_TIMEOUT_S = 1.0
LINGER_OCTETS_MAX = 65_536

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class AdminState(Protocol):
    """What the pages show. Every call is quick, synchronous and without effect."""

    def ready(self) -> tuple[bool, list[str]]:
        """Whether traffic may come, and if not, what is missing ("certificate", "snapshot", "listeners", ...)."""

    def live(self) -> bool:
        """False: only a restart helps."""

    def metrics(self) -> bytes:
        """Prometheus text format."""

    def config(self) -> dict[str, object]:
        """JSON-able, without secrets."""

    def status(self) -> dict[str, object]:
        """JSON-able, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    body: bytes
    content_type: str = _TEXT

    def encode(self, *, has_body: bool) -> bytes:
        """The whole answer on the wire; a HEAD request gets the head alone (RFC 9110 section 9.3.2)."""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\n"
            f"content-type: {self.content_type}\r\n"
            f"content-length: {len(self.body)}\r\n"
            "cache-control: no-store\r\n"
            "x-content-type-options: nosniff\r\n"
            + ("allow: GET, HEAD\r\n" if self.status == 405 else "")
            + "connection: close\r\n\r\n"
        )
        return head.encode("ascii") + (self.body if has_body else b"")


Page = Callable[[AdminState], Response]


def _ready(state: AdminState) -> Response:
    is_ready, missing = state.ready()
    if is_ready:
        return Response(status=200, body=b"ready\n")
    return Response(status=503, body="".join(f"{word}\n" for word in missing).encode())


def _live(state: AdminState) -> Response:
    return Response(status=200, body=b"live\n") if state.live() else Response(status=503, body=b"stuck\n")


def _metrics(state: AdminState) -> Response:
    return Response(status=200, body=state.metrics(), content_type=METRICS_CONTENT_TYPE)


def _config(state: AdminState) -> Response:
    return _json(state.config())


def _status(state: AdminState) -> Response:
    return _json(state.status())


def _json(value: dict[str, object]) -> Response:
    return Response(status=200, body=json.dumps(value, indent=2).encode() + b"\n", content_type=_JSON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What one listener shows."""

    name: str
    pages: dict[str, Page]
    checks_host: bool


HEALTH = Surface(name="health", pages={"/ready": _ready, "/live": _live, "/metrics": _metrics}, checks_host=False)
ADMIN = Surface(name="admin", pages={**HEALTH.pages, "/config": _config, "/status": _status}, checks_host=True)


@dataclass(slots=True)
class _Request:
    """One request head, filled by httptools' callbacks."""

    url: bytes = b""
    hosts: list[bytes] = field(default_factory=list)
    is_complete: bool = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"host":
            self.hosts.append(value)

    def on_headers_complete(self) -> None:
        self.is_complete = True


async def serve_admin(
    listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
    state: AdminState,
    surface: Surface = ADMIN,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `surface` on `listeners` until cancelled. One bad client or one failing page ends nothing else."""
    open_count = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal open_count
        if open_count >= CONNECTIONS_MAX:
            return  # closed by serve_listeners; whoever is over the limit may come again
        open_count += 1
        try:
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                await _serve_one(stream, state, surface)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away
        finally:
            open_count -= 1

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started()


async def _serve_one(stream: trio.SocketStream, state: AdminState, surface: Surface) -> None:
    request = _Request()
    parser = httptools.HttpRequestParser(request)
    refusal = await _read_head(stream, request, parser)
    if refusal is None and not request.is_complete:
        return  # it left without asking
    method = parser.get_method() if request.is_complete else b"GET"
    response = refusal or _answer(method, request, parser.get_http_version(), state, surface)
    await stream.send_all(response.encode(has_body=method != b"HEAD"))
    await _linger(stream)


async def _read_head(
    stream: trio.SocketStream, request: _Request, parser: httptools.HttpRequestParser
) -> Response | None:
    """Read until the head is complete or the client is done; the refusal if it is no request."""
    received = 0
    while not request.is_complete:
        if received >= HEAD_OCTETS_MAX:
            return Response(status=431, body=b"the request's head is too large\n")
        data = await stream.receive_some(HEAD_OCTETS_MAX - received)
        if not data:
            return None
        received += len(data)
        try:
            parser.feed_data(bytes(data))
        except httptools.HttpParserUpgrade:
            return None  # it asks for another protocol; the head is complete and is answered as HTTP/1.1
        except httptools.HttpParserError:
            if not request.is_complete:  # else the fault is in a body, which nobody reads
                return Response(status=400, body=b"not a valid HTTP request\n")
    return None


def _answer(method: bytes, request: _Request, version: str, state: AdminState, surface: Surface) -> Response:
    if len(request.hosts) != 1 and (request.hosts or version != "1.0"):
        return Response(status=400, body=b"a request has one Host\n")  # RFC 9112 section 3.2
    if surface.checks_host and request.hosts and not is_local_host(request.hosts[0]):
        return Response(status=421, body=b"ask by a loopback address or localhost\n")
    path = request.url.split(b"?", 1)[0].decode("latin-1")
    page = surface.pages.get(path)
    if page is None:
        return Response(status=404, body="".join(f"{known}\n" for known in surface.pages).encode())
    if method not in (b"GET", b"HEAD"):
        return Response(status=405, body=b"pages here can only be read\n")
    try:
        return page(state)
    except Exception:
        log.exception("a page failed", extra={"surface": surface.name, "page": path})
        return Response(status=500, body=b"this page failed; see the sidecar's log\n")


def is_local_host(host: bytes) -> bool:
    """Whether a Host value names this machine from within: localhost or a loopback IP address, with or without port."""
    text = host.decode("latin-1").strip().lower()
    name, separator, port = text.rpartition(":")
    if separator and port.isdecimal() and port.isascii():
        text = name
    if text == "localhost":
        return True
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    elif ":" in text:
        return False
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


async def _linger(stream: trio.SocketStream) -> None:
    """Let the client read the answer: closing over unread octets would make the kernel reset it (RFC 9112 9.6)."""
    await stream.send_eof()
    received = 0
    with trio.move_on_after(LINGER_TIMEOUT_S):
        while received < LINGER_OCTETS_MAX:
            data = await stream.receive_some(4_096)
            if not data:
                break
            received += len(data)
