"""Ways to call: one HTTP request, a raw connection, constant load, a gRPC channel."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


def ask(
    port: int,
    path: str = "/hello",
    method: str = "GET",
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 20.0,
) -> Answer:
    """One request on its own connection. Raises OSError and HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


def outcome(port: int, path: str = "/hello", **more: Any) -> int | str:
    """The status, or the name of what went wrong."""
    try:
        return ask(port, path, **more).status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


class Wire:
    """A connection one writes octets to."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._unread = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def until(self, end: bytes) -> bytes:
        """Everything up to and with `end`. Raises EOFError."""
        while end not in self._unread:
            self._more()
        head, separator, self._unread = self._unread.partition(end)
        return head + separator

    def exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._more()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    def rest(self) -> bytes:
        """Everything until the other end closes."""
        try:
            while True:
                self._more()
        except EOFError:
            taken, self._unread = self._unread, b""
            return taken

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """One HTTP/1.1 response whose length is told."""
        head = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        return int(head[0].split()[1]), fields, self.exactly(int(fields.get("content-length", "0")))

    def _more(self) -> None:
        data = self.sock.recv(65_536)
        if not data:
            raise EOFError(self._unread)
        self._unread += data


@dataclass(slots=True)
class Load:
    """What constant load has seen so far."""

    counted: Counter[int | str] = field(default_factory=Counter)
    """Status, or the name of an exception -> how often."""
    failures: list[str] = field(default_factory=list)
    """The first that were not 200, with when and where."""

    @property
    def answered(self) -> int:
        return self.counted[200]

    @property
    def failed(self) -> int:
        return sum(count for what, count in self.counted.items() if what != 200)

    def note(self, what: int | str, detail: str) -> None:
        self.counted[what] += 1
        if what != 200 and len(self.failures) < FAILURES_KEPT:
            self.failures.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {what} {detail}")


BODY = b"0123456789abcdef" * 1_024


@contextmanager
def load(port: int, *, kept: int = 2, fresh: int = 1, pause_s: float = 0.005, host: str = "") -> Iterator[Load]:
    """`kept` threads on connections they keep, `fresh` that open one for each request; GET and POST in turn."""
    seen, stop = Load(), threading.Event()
    headers = {"Host": host} if host else {}

    def ask_on(keeps: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        number = 0
        while not stop.wait(pause_s):
            number += 1
            method, path, body = ("POST", "/echo", BODY) if number % 2 else ("GET", "/hello", None)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                text = answer.read()
                seen.note(answer.status, f"{method} {'kept' if keeps else 'fresh'} {text[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                seen.note(type(error).__name__, f"{method} {'kept' if keeps else 'fresh'} {error}")
                connection.close()
            if not keeps:
                connection.close()
        connection.close()

    threads = [threading.Thread(target=ask_on, args=(number < kept,)) for number in range(kept + fresh)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def grpc_channel(target: str, **options: object) -> Any:
    """A grpcio channel in the clear; `options` without their "grpc.". No proxy unless named. (The stubs want
    serializers, which octets do not need.)"""
    given = {"enable_http_proxy": 0, "max_receive_message_length": 8 << 20, **options}
    return grpc.insecure_channel(target, options=[(f"grpc.{name}", value) for name, value in given.items()])


class Greeter:
    """A grpcio client of `apps/greeter.py`; a context manager."""

    def __init__(self, port: int) -> None:
        self.channel = grpc_channel(f"127.0.0.1:{port}")
        self.echo = self.channel.unary_unary("/test.Greeter/Echo")
        self.metadata = self.channel.unary_unary("/test.Greeter/Metadata")
        self.fail = self.channel.unary_unary("/test.Greeter/Fail")
        self.count = self.channel.unary_stream("/test.Greeter/Count")
        self.sum = self.channel.stream_unary("/test.Greeter/Sum")
        self.chat = self.channel.stream_stream("/test.Greeter/Chat")
        self.hang = self.channel.unary_unary("/test.Greeter/Hang")
        self.hanging = self.channel.unary_unary("/test.Greeter/Hanging")

    def __enter__(self) -> Greeter:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.channel.close()
