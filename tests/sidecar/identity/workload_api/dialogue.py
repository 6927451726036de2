"""A client's session and the endpoint's wired back to back, without a socket: requests in, answers out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.config import Limits
from sidecar.control.wire import frame_message
from sidecar.http.engines import http2_session
from sidecar.http.frames import PREFACE
from sidecar.http.session import Fields, Session
from sidecar.identity.workload_api.calls import Answer, Caller, Calls

GRPC: Fields = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/SpiffeWorkloadAPI/Echo"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"workload.spiffe.io", b"true"),
]


def replaced(**values: bytes | None) -> Fields:
    """GRPC with other values, by names with "_" for each of ".:-"; None: without it."""
    fields: Fields = []
    for name, value in GRPC:
        key = name.decode().strip(":").replace("-", "_").replace(".", "_")
        if key in values and values[key] is None:
            continue
        fields.append((name, values.get(key) or value))
    return fields


@dataclass
class Heard:
    """What the client hears of one call: a `StreamSink`."""

    session: Session
    takes: bool = True
    """False: receive credit is held back."""
    stream: int = 0
    heads: list[dict[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    held: int = 0
    trailing: dict[bytes, bytes] = field(default_factory=dict)
    ended: bool = False
    reset_code: int | None = None

    def informational(self, fields: Fields) -> None: ...

    def head(self, fields: Fields, end: bool) -> None:
        self.heads.append(dict(fields))
        self.ended |= end

    def data(self, data: bytes, flow: int, end: bool) -> None:
        self.body += data
        self.ended |= end
        if self.takes:
            self.session.consumed(self.stream, flow)
        else:
            self.held += flow

    def trailers(self, fields: Fields) -> None:
        self.trailing = dict(fields)
        self.ended = True

    def reset(self, code: int, unprocessed: bool) -> None:
        self.reset_code = code

    def writable(self) -> None: ...

    @property
    def status(self) -> int | None:
        found = self.trailing.get(b"grpc-status") or (self.heads[0].get(b"grpc-status") if self.heads else None)
        return int(found) if found is not None else None

    @property
    def text(self) -> bytes:
        return self.trailing.get(b"grpc-message") or self.heads[0].get(b"grpc-message", b"")

    @property
    def messages(self) -> list[bytes]:
        """Whole ones."""
        found, at = [], 0
        while at + 5 <= len(self.body):
            end = at + 5 + int.from_bytes(self.body[at + 1 : at + 5])
            if end > len(self.body):
                break
            found.append(bytes(self.body[at + 5 : end]))
            at = end
        return found


class Dialogue:
    """One connection. `find` says which methods there are; time is `now`."""

    def __init__(self, engine: str, find: Callable[[str], Answer | None], limits: Limits | None = None) -> None:
        self.now = 1_000.0
        self.refused: list[Caller] = []
        limits = limits or Limits()
        self.calls = Calls(find, lambda: self.now, lambda session: None, self.refused.append)
        handler = self.calls.handler(Caller(pid=1, uid=2, gid=3))
        self.server = http2_session(engine, handler, limits, lambda: self.now)
        self.client = http2_session("reference", None, Limits(), lambda: self.now)
        self.settle()

    def settle(self) -> None:
        """Until neither side has anything to say."""
        while True:
            up, down = self.client.take(), self.server.take()
            self.client.sent(0)
            self.server.sent(0)
            if not up and not down:
                return
            if up:
                self.server.receive(up)
            if down:
                self.client.receive(down)

    def call(self, message: bytes | None = b"", fields: Fields | None = None, *, takes: bool = True) -> Heard:
        """A call with one message, ended; None: nothing but its head, not ended."""
        heard = Heard(self.client, takes)
        heard.stream = self.client.request(fields or GRPC, False, heard)
        if message is not None:
            self.client.data(heard.stream, frame_message(message), True)
        self.settle()
        return heard

    def write(self, heard: Heard, octets: bytes, *, end: bool = False) -> None:
        self.client.data(heard.stream, octets, end)
        self.settle()


__all__ = ["GRPC", "PREFACE", "Dialogue", "Heard", "replaced"]
