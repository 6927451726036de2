"""The access log, line by line: what of it says how a call was judged, and what it does not hold.

A sidecar writes its own log to the same place, so a line may be anything. Whatever is not a line of the access log is
passed over; what is not JSON at all is counted, with its number, since it may be a line cut in two.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, cast

LINE_OCTETS_MAX = 65_536
"""The sidecar's are 4,096 at most; whoever collects them may have added to that."""
MALFORMED_SHOWN_MAX = 5
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one recorded call all that policies may look at. Equal ones have one answer."""

    source: str
    """SPIFFE ID of the caller; empty: plaintext."""
    destination: str
    authority: str
    method: str
    path: str
    port: int
    """0: not recorded."""
    source_ip: str
    """Empty: not recorded."""
    is_cut: bool
    """Texts are shortened."""
    at_the_door: str
    """"request-authentication" if a token that was not taken ended it before any rule was asked."""


@dataclass(frozen=True, slots=True)
class Record:
    asked: Asked
    time: str
    """As written: RFC 3339 in UTC."""
    allowed: bool
    line: int


@dataclass(slots=True)
class LogReader:
    """Reads logs one after the other; counts what it leaves out."""

    since: float | None = None
    """Unix seconds: what ended before is passed over."""
    lines: int = 0
    calls: int = 0
    older: int = 0
    not_judged: int = 0
    """Exchanges that never came to a decision."""
    malformed: int = 0
    malformed_shown: list[str] = field(default_factory=list)
    """"name:line: what is wrong"."""
    octets: int = 0
    """Read so far, decompressed."""

    def read(self, file: BinaryIO, name: str) -> Iterator[Record]:
        """In bounded memory, plain or gzip. Raises OSError, EOFError (of a gzip file that is cut off)."""
        number = 0
        for raw, is_whole in _lines(_decompressed(file)):
            number += 1
            self.lines += 1
            self.octets += len(raw)
            if not is_whole:
                self._note(name, number, f"longer than {LINE_OCTETS_MAX} octets")
                continue
            if not raw.strip():
                continue
            record = self._record(raw, name, number)
            if record is not None:
                self.calls += 1
                yield record

    def _record(self, raw: bytes, name: str, number: int) -> Record | None:
        try:
            entry = json.loads(raw)
        except (ValueError, RecursionError):
            self._note(name, number, "not JSON")
            return None
        if not isinstance(entry, dict) or entry.get("event") != "exchange" or entry.get("direction") != "inbound":
            return None
        decision = entry.get("decision")
        if decision is None:
            self.not_judged += 1
            return None
        try:
            return self._read(entry, decision, number)
        except (TypeError, ValueError, OverflowError):
            self._note(name, number, "not as a sidecar writes it")
            return None

    def _read(self, entry: dict[str, object], decision: object, number: int) -> Record | None:
        """Raises ValueError, TypeError."""
        if decision not in ("allow", "deny"):
            raise ValueError("no decision")
        time = _text(entry, "time")
        at = datetime.fromisoformat(time).timestamp()
        if self.since is not None and at < self.since:
            self.older += 1
            return None
        rule = _text(entry, "rule")
        port = entry.get("port", 0)
        if not isinstance(port, int) or not 0 <= port <= 65_535:
            raise ValueError("no port")
        asked = Asked(
            source=_text(entry, "source"),
            destination=_text(entry, "destination"),
            authority=_text(entry, "authority"),
            method=_text(entry, "method"),
            path=_text(entry, "path"),
            port=port,
            source_ip=_text(entry, "source_ip"),
            is_cut=entry.get("truncated") is True,
            at_the_door=rule if rule == "request-authentication" else "",
        )
        return Record(asked=asked, time=time, allowed=decision == "allow", line=number)

    def _note(self, name: str, number: int, what: str) -> None:
        self.malformed += 1
        if len(self.malformed_shown) < MALFORMED_SHOWN_MAX:
            self.malformed_shown.append(f"{name}:{number}: {what}")


def _text(entry: dict[str, object], name: str) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _decompressed(file: BinaryIO) -> BinaryIO:
    """`file` is buffered: what was looked at is read again."""
    peek = getattr(file, "peek", None)
    if peek is not None and peek(2)[:2] == _GZIP_MAGIC:
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    return file


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """(line, whether that is all of it); of one that is too long the rest is thrown away."""
    while raw := file.readline(LINE_OCTETS_MAX):
        if raw.endswith(b"\n") or len(raw) < LINE_OCTETS_MAX:
            yield raw, True
            continue
        while (more := file.readline(LINE_OCTETS_MAX)) and not more.endswith(b"\n"):
            pass
        yield raw, False
