"""A chain of records, one JSON object a line, in plain ASCII. Nothing here reads or writes a file.

    {"seq":7,"prev":"<64 hexadecimal digits>","at":1800000000.125,"event":"token.created","by":"local operator",...}\\n

`seq` counts from 1 and never skips; `prev` is the SHA-256 of the line before, over its exact octets with the line feed.
Before the first line stands GENESIS. Whoever changes, removes or inserts a line breaks the chain at the line after, and
whoever writes everything after it anew meets a signed checkpoint, or the head that the store holds.

The first record of each transaction has `after`: the record that the store knew last. A crash leaves at most what comes
after that one without being known; a record that comes after one the store does not know shows an older store. It has
`trust` when that is another than was told before: the number of the statement that vouches for whom the mesh trusts
(`control_plane.store.trust`). A store with a smaller one has rows of an older store in it.

A crash may leave a line that is not whole. It is never removed: the record after it is `audit.mended`, continues from
the last whole line, and says how many octets of no meaning are between (and their SHA-256). Such octets are part of the
chain only through that record.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Field = str | int | float | bool | None | list[str]

AT_MAX = 253_402_300_800
"""Unix seconds: the year 10000."""
_SHA256 = re.compile("[0-9a-f]{64}")

MENDED = "audit.mended"
BEGAN = "audit.began"
RESTARTED = "audit.restarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain ends."""

    seq: int
    sha256: str
    """Of the line of that number."""

    def __str__(self) -> str:
        return f"{self.seq} {self.sha256}"

    @classmethod
    def parse(cls, text: str) -> Head:
        seq, _, sha256 = text.partition(" ")
        return cls(seq=int(seq), sha256=sha256)


GENESIS = Head(seq=0, sha256="0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line, read."""

    seq: int
    prev: str
    at: float
    """Unix seconds."""
    event: str
    by: str
    fields: Mapping[str, Field]
    sha256: str
    """Of the line."""

    @property
    def head(self) -> Head:
        return Head(seq=self.seq, sha256=self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first place where a chain is broken."""

    line: int
    """From 1."""
    offset: int
    """Of that line, in octets."""
    why: str


@dataclass(slots=True, kw_only=True)
class Walk:
    """What was found in one file, up to the first fault."""

    before: Head | None
    """What the first record continues; None: there is no record."""
    records: list[Record] = field(default_factory=list)
    mended: list[Record] = field(default_factory=list)
    """Those of them that close off something torn."""
    end: int = 0
    """Octets up to and with the last good line."""
    fault: Fault | None = None
    """A line that ends, but is no link of the chain."""
    tail: bytes = b""
    """What follows the last line feed: a line that is not whole, or not yet."""

    @property
    def head(self) -> Head | None:
        return self.records[-1].head if self.records else self.before


def body(event: str, *, at: float, by: str, fields: Mapping[str, Field]) -> bytes:
    """A record without its place in the chain."""
    told = {"at": round(at, 3), "event": event, "by": by, **fields}
    return json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def with_after(told: bytes, stored: int) -> bytes:
    """A `body` that says which record the store knew last when its transaction was about to commit."""
    return b'%s,"after":%d}' % (told[:-1], stored)


def with_trust(told: bytes, number: int) -> bytes:
    """A `body` that says by which statement whom the mesh trusts is vouched for, once its transaction has committed."""
    return b'%s,"trust":%d}' % (told[:-1], number)


def link(head: Head, told: bytes) -> tuple[bytes, Head]:
    """The line of a `body` after `head`, and the head it makes."""
    line = b'{"seq":%d,"prev":"%s",%s\n' % (head.seq + 1, head.sha256.encode("ascii"), told[1:])
    return line, Head(seq=head.seq + 1, sha256=hashlib.sha256(line).hexdigest())


def parse(line: bytes) -> Record | None:
    """One line with its line feed. None: it is no record."""
    try:
        told = json.loads(line.decode("ascii"))
        seq, prev, at, event, by = (told.pop(name) for name in ("seq", "prev", "at", "event", "by"))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    right = type(seq) is int and isinstance(prev, str) and isinstance(event, str) and isinstance(by, str)
    if not right or isinstance(at, bool) or not isinstance(at, (int, float)):
        return None
    # What we never write, whoever reads a record must not have to reckon with: json knows Infinity, for instance.
    if not (0 <= at < AT_MAX and _SHA256.fullmatch(prev) and all(map(_is_field, told.values()))):
        return None
    digest = hashlib.sha256(line).hexdigest()
    return Record(seq=seq, prev=prev, at=at, event=event, by=by, fields=told, sha256=digest)


def _is_field(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return value is None or isinstance(value, (str, int, float))


def walk(octets: bytes, before: Head | None = None) -> Walk:
    """Follows a file from its first line. `before`: what it must continue; None: what its first record says."""
    found = Walk(before=before)
    offset = number = 0
    head = before
    while (end := octets.find(b"\n", offset) + 1) > 0:
        number += 1
        line = octets[offset:end]
        record = parse(line)
        if record is not None and head is None:
            found.before = head = Head(seq=record.seq - 1, sha256=record.prev)
        if record is not None and head is not None and (record.seq, record.prev) == (head.seq + 1, head.sha256):
            found.records.append(record)
            if record.event == MENDED:
                found.mended.append(record)
        else:
            mended = _mended(octets, offset, end, head)
            if mended is None:
                found.fault = Fault(line=number, offset=offset, why=_why(record, head))
                return found
            if head is None:
                found.before = Head(seq=mended[0].seq - 1, sha256=mended[0].prev)
            found.records.append(mended[0])
            found.mended.append(mended[0])
            record, number, end = mended[0], number + octets.count(b"\n", end, mended[1]), mended[1]
        head, offset = record.head, end
        found.end = end
    found.tail = octets[offset:]
    return found


def _mended(octets: bytes, offset: int, end: int, head: Head | None) -> tuple[Record, int] | None:
    """The record that closes off what begins at `offset`, and where it ends. Its torn octets end in a line feed.

    `head` None: nothing is before it in this file, so the record is known by what it says of those octets alone."""
    sought = b'{"seq":' if head is None else b'{"seq":%d,"prev":"%s",' % (head.seq + 1, head.sha256.encode("ascii"))
    start = octets.find(b"\n" + sought, end - 1) + 1
    while start > 0:
        stop = octets.find(b"\n", start) + 1
        record = parse(octets[start:stop]) if stop else None
        if record is not None and record.event == MENDED and _closes_off(record, octets[offset:start]):
            return record, stop
        start = octets.find(b"\n" + sought, start) + 1
    return None


def _closes_off(record: Record, torn: bytes) -> bool:
    told = (record.fields.get("torn_octets"), record.fields.get("torn_sha256"))
    return told == (len(torn), hashlib.sha256(torn).hexdigest())


def _why(record: Record | None, head: Head | None) -> str:
    if record is None:
        return "it is not a record"
    assert head is not None
    if record.seq == head.seq + 1:
        return f"it does not continue record {head.seq}: that one, or this one, was changed"
    if record.seq > head.seq + 1:
        return f"record {record.seq} follows record {head.seq}: those between were removed"
    return f"record {record.seq} follows record {head.seq}: it was moved or repeated"
