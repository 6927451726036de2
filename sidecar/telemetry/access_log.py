"""One JSON line per exchange, written without ever making a request wait (row I08).

`record` puts a value into a bounded queue and returns; when the queue is full the line is dropped and counted. `run`
is a task that renders what waits, packs whole lines into chunks of at most PIPE_BUF octets and gives them to `write`
(`sidecar.telemetry.sink`), so that lines of several processes on one pipe never mix (pipe(7)).

What a line may hold (rows D07, D08): the fields below and nothing else. No header values, no query, no body. All text
is escaped by JSON and ASCII only, so that no CR, LF, ESC or quote of a caller can forge a line or talk to a terminal.
"""

from __future__ import annotations

import json
import select
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from sidecar.telemetry import names

PATH_CHARACTERS_MAX = 2_048
CHUNK_OCTETS_MAX = select.PIPE_BUF
"""Up to this a write to a pipe is all or nothing (4,096 on Linux). Also the longest line, its end included."""
QUEUE_LINES_MAX = 8_192
FLUSH_TIMEOUT_S = 1.0
"""How long the last lines may take when the sidecar ends."""

_TEXT_CHARACTERS_MAX = (PATH_CHARACTERS_MAX, 384, 32)
"""Tried in turn until the line fits a chunk; at the last even six octets a character ("\\u00ff") in each field fit."""

Text = str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What one exchange's line says. Empty text and None are left out of the line, except where noted."""

    now: float
    """When it ended, Unix seconds."""
    direction: str
    """`names.INBOUND` or `names.OUTBOUND`."""
    method: Text = ""
    path: Text = ""
    """Canonical, as sent on, without its query."""
    authority: Text = ""
    status: int = 0
    """What the client was told; 0 (always shown): nothing."""
    grpc_status: int | None = None
    source: str = ""
    """The caller's SPIFFE ID, verified."""
    destination: str = ""
    port: int = 0
    """The service's port that was asked for, where it was judged; 0: none was."""
    source_ip: str = ""
    """Of the connection's other end, where it was judged."""
    decision: str = ""
    """`names.ALLOW` or `names.DENY`; "" if it never came to one."""
    rule: str = ""
    snapshot: int = 0
    """Version of the snapshot it was decided with."""
    decision_id: str = ""
    """Of a denial, which the caller was told, or of what policies in shadow would decide otherwise, which it was not.
    By it an operator finds this line."""
    audit: tuple[str, ...] = ()
    """AUDIT rules that matched: then the line is written whatever the mode."""
    shadow: str = ""
    """What it would be if the policies in shadow were enforced, if that is another decision."""
    shadow_rule: str = ""
    duration_s: float = 0.0
    bytes_received: int = 0
    """Of the request's body, from the client."""
    bytes_sent: int = 0
    """Of the answer's body, to the client."""
    end: str = names.END_COMPLETE
    """`names.END_COMPLETE` or the constant reason it ended otherwise ("client_reset", "upstream_timeout", ...)."""
    trace_id: str = ""
    endpoint: str = ""
    """Address of the upstream that was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedConnection:
    """A connection that never came to a request: failed handshake, wrong identity, too many."""

    now: float
    direction: str
    remote: str
    """Its address."""
    reason: str
    """Constant word."""
    row: str = ""
    """Of the catalogue of bad inputs."""
    sni: bytes | None = None
    """As the peer sent it; shown as hex unless it is a plain host name (row D07)."""


class AccessLog:
    """The queue and its writer. `mode` is "all", "denied" (denials, what shadow policies would decide otherwise, and
    refused connections) or "off". What matches an AUDIT rule is written in every mode: that is what such rules are for.
    """

    def __init__(
        self,
        mode: str,
        write: Callable[[bytes], Awaitable[None]],
        *,
        on_drop: Callable[[int], None],
        queue_lines_max: int = QUEUE_LINES_MAX,
    ) -> None:
        """`write` gets at most CHUNK_OCTETS_MAX octets of whole lines and waits until they are written, raising OSError
        if they cannot be; cancelled, it has written nothing of them. `on_drop` is told how many lines were lost."""
        if mode not in ("all", "denied", "off"):
            raise ValueError(f"unknown access log mode {mode!r}")
        self._mode = mode
        self._write = write
        self._on_drop = on_drop
        self._queue: deque[Exchange | RefusedConnection | bytes] = deque()
        self._queue_lines_max = queue_lines_max
        self._arrived = trio.Event()
        self._chunk = b""
        self._chunk_lines = 0
        """Lines in `_chunk` that are not written yet."""

    def __repr__(self) -> str:
        return f"<AccessLog mode={self._mode} waiting={len(self._queue)}>"

    @property
    def is_on(self) -> bool:
        """False: callers need not put a record together at all."""
        return self._mode != "off"

    def wants(self, decision: str, *, differs: bool = False, audited: bool = False) -> bool:
        """Whether an exchange with this decision is logged: ask before putting its record together.

        `differs`: policies in shadow would decide otherwise. `audited`: AUDIT rules matched."""
        return self._mode == "all" or audited or (self._mode == "denied" and (differs or decision == names.DENY))

    def record(self, entry: Exchange | RefusedConnection) -> None:
        """Queue one line, or drop and count it. Never waits, never raises."""
        if isinstance(entry, RefusedConnection):
            is_wanted = self.is_on
        else:
            is_wanted = self.wants(entry.decision, differs=bool(entry.shadow), audited=bool(entry.audit))
        if is_wanted:
            self._put(entry)

    def line(self, text: bytes) -> None:
        """Queue a line that is none of ours, whatever the mode: the process's own log goes the same way.

        One that is longer than a chunk goes in pieces."""
        for start in range(0, len(text), CHUNK_OCTETS_MAX):
            self._put(text[start : start + CHUNK_OCTETS_MAX])

    def _put(self, entry: Exchange | RefusedConnection | bytes) -> None:
        if len(self._queue) >= self._queue_lines_max:
            self._on_drop(1)
            return
        self._queue.append(entry)
        if not self._arrived.is_set():
            self._arrived.set()

    async def run(self) -> None:
        """Write what is queued, until cancelled; then write what is left within FLUSH_TIMEOUT_S."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived = trio.Event()
                await self._drain()
        finally:
            with trio.move_on_after(FLUSH_TIMEOUT_S, shield=True):
                await self._drain()
            self._drop_all()

    async def _drain(self) -> None:
        """Write until nothing waits. A chunk whose write is cancelled stays, for the next call."""
        while self._chunk_lines or self._queue:
            if not self._chunk_lines:
                self._chunk, self._chunk_lines = self._next_chunk()
            try:
                await self._write(self._chunk)
            except OSError:
                # Nobody reads any more (EPIPE) or the disk is full: the data plane goes on, the counter tells.
                self._on_drop(self._chunk_lines)
            self._chunk_lines = 0

    def _next_chunk(self) -> tuple[bytes, int]:
        """As many whole lines as fit one chunk, at least one, and their number."""
        chunk = render(self._queue.popleft())
        lines = 1
        while self._queue:
            line = render(self._queue[0])
            if len(chunk) + len(line) > CHUNK_OCTETS_MAX:
                break
            self._queue.popleft()
            chunk += line
            lines += 1
        return chunk, lines

    def _drop_all(self) -> None:
        lost = self._chunk_lines + len(self._queue)
        if lost:
            self._on_drop(lost)
            self._chunk_lines = 0
            self._queue.clear()


def render(entry: Exchange | RefusedConnection | bytes) -> bytes:
    """One line of JSON with its newline, at most CHUNK_OCTETS_MAX octets; shortened text sets `truncated`."""
    if isinstance(entry, bytes):
        return entry
    line = b""
    for characters_max in _TEXT_CHARACTERS_MAX:
        shortener = _Shortener(characters_max)
        fields = (
            _exchange_fields(entry, shortener) if isinstance(entry, Exchange) else _refused_fields(entry, shortener)
        )
        if shortener.has_cut:
            fields[names.LOG_TRUNCATED] = True
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=True)
        line = text.replace("\x7f", "\\u007f").encode("ascii") + b"\n"  # json leaves DEL as it is
        if len(line) <= CHUNK_OCTETS_MAX:
            break
    return line


class _Shortener:
    """Text made safe to show: decoded, and cut at a bound."""

    __slots__ = ("characters_max", "has_cut")

    def __init__(self, characters_max: int) -> None:
        self.characters_max = characters_max
        self.has_cut = False

    def __call__(self, value: Text) -> str:
        text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
        if len(text) <= self.characters_max:
            return text
        self.has_cut = True
        return text[: self.characters_max]

    def several(self, values: Iterable[str]) -> list[str]:
        """As many as fit the bound together."""
        left, kept = self.characters_max, []
        for value in values:
            left -= len(value)
            if left < 0:
                self.has_cut = True
                break
            kept.append(value)
        return kept


def _exchange_fields(entry: Exchange, text: _Shortener) -> dict[str, object]:
    fields: dict[str, object] = {
        names.LOG_TIME: rfc3339(entry.now),
        names.LOG_EVENT: "exchange",
        names.LOG_DIRECTION: entry.direction,
        names.LOG_METHOD: text(entry.method),
        names.LOG_PATH: text(entry.path),
        names.LOG_AUTHORITY: text(entry.authority),
        names.LOG_STATUS: entry.status,
        names.LOG_GRPC_STATUS: entry.grpc_status,
        names.LOG_SOURCE: text(entry.source),
        names.LOG_DESTINATION: text(entry.destination),
        names.LOG_PORT: entry.port or None,
        names.LOG_SOURCE_IP: entry.source_ip,
        names.LOG_DECISION: entry.decision,
        names.LOG_RULE: text(entry.rule),
        names.LOG_SNAPSHOT: entry.snapshot,
        names.LOG_DECISION_ID: text(entry.decision_id),
        names.LOG_AUDIT: text.several(entry.audit),
        names.LOG_SHADOW: entry.shadow,
        names.LOG_SHADOW_RULE: text(entry.shadow_rule),
        names.LOG_DURATION_MS: round(entry.duration_s * 1000, 3),
        names.LOG_BYTES_RECEIVED: entry.bytes_received,
        names.LOG_BYTES_SENT: entry.bytes_sent,
        names.LOG_END: entry.end,
        names.LOG_TRACE_ID: text(entry.trace_id),
        names.LOG_ENDPOINT: text(entry.endpoint),
    }
    return {name: value for name, value in fields.items() if value not in ("", None, [])}


def _refused_fields(entry: RefusedConnection, text: _Shortener) -> dict[str, object]:
    fields: dict[str, object] = {
        names.LOG_TIME: rfc3339(entry.now),
        names.LOG_EVENT: "connection_refused",
        names.LOG_DIRECTION: entry.direction,
        names.LOG_REMOTE: text(entry.remote),
        names.LOG_REASON: entry.reason,
        names.LOG_ROW: entry.row,
    }
    if entry.sni is not None:
        if _is_host_name(entry.sni):
            fields[names.LOG_SNI] = entry.sni.decode("ascii")
        else:
            fields[names.LOG_SNI_HEX] = text(entry.sni.hex())
    return {name: value for name, value in fields.items() if value != ""}


def _is_host_name(sni: bytes) -> bool:
    """RFC 6066 section 3: a DNS host name, ASCII. 253 octets at most (RFC 1035)."""
    return 0 < len(sni) <= 253 and all(octet in _HOST_OCTETS for octet in sni)


_HOST_OCTETS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def rfc3339(now: float) -> str:
    """Unix seconds as RFC 3339 in UTC with milliseconds: 2026-05-04T03:02:01.250Z."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
