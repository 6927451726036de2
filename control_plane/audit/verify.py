"""The whole of a chain: its links, its signatures, and the head that the store holds.

What is looked at, in this order, and what a failure means:

1. Each line continues the one before it. If not, one of the two was changed, or lines were removed or put in.
2. Each file continues the one before it. If not, a file is missing or is another mesh's; the first may begin anywhere
   (older ones may have been moved away), which is told.
3. Each checkpoint is signed by the mesh's audit key. If not, somebody without that key wrote it.
   With a key that was kept elsewhere: there is one, and what follows the last is no more than a control plane leaves
   unsigned. If not, the rest was written by somebody without that key.
4. The store's head is in the chain. If not, the end was cut off, or all of it was written anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from certs.authority_id import key_id
from control_plane.audit import files
from control_plane.audit.chain import GENESIS, RESTARTED, Head, Record, walk
from control_plane.audit.checkpoint import CHECKPOINT, KEY_MADE, PUBLIC_FACT, PublicKey, is_signed, read_public
from control_plane.audit.opening import HEAD_FACT
from control_plane.errors import StoreError

__all__ = ["Problem", "Report", "StoreFacts", "files_of", "read_public", "store_facts", "verify"]

STORE_NAME = "hauberk.db"
UNSIGNED_RECORDS_MAX, UNSIGNED_S_MAX = 10_000, 900.0
"""What may follow the last checkpoint. A control plane signs after a tenth and a third of it (`log`), so that one that
is very busy, or could not write for a while, is not taken for a forger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    path: Path
    line: int
    """From 1; 0: the file as a whole."""
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}" if self.line else f"{self.path}: {self.why}"


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found."""

    records: int = 0
    first: Record | None = None
    last: Record | None = None
    checkpoint: Record | None = None
    """The last one with a good signature."""
    unsigned: int = 0
    """Records after it."""
    unsigned_since: float = 0.0
    """When the first of them was written; Unix seconds."""
    key_ids: list[str] = field(default_factory=list)
    """Whose signatures were found, in order."""
    problem: Problem | None = None
    """The first; what follows it was not looked at."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What the store says of its audit file."""

    head: Head | None
    public_key: PublicKey | None


def store_facts(data_dir: Path) -> StoreFacts:
    """Read beside a control plane that may be running. Raises StoreError."""
    path = data_dir / STORE_NAME
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            facts = dict(connection.execute("SELECT name, value FROM fact").fetchall())
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot be read ({error}); check --data-dir") from error
    head, key = facts.get(HEAD_FACT), facts.get(PUBLIC_FACT)
    return StoreFacts(
        head=None if head is None else Head.parse(head), public_key=None if key is None else read_public(key)
    )


def files_of(data_dir: Path) -> Sequence[Path]:
    """The files of one chain, oldest first."""
    return [*(one.path for one in files.full_files(data_dir)), data_dir / files.NAME]


def verify(
    paths: Sequence[Path], *, key: PublicKey | None = None, stored: Head | None = None, must_be_signed: bool = False
) -> Report:
    """`paths`: oldest first. `key`: whose signatures count; None: whichever key the records name. `stored`: what the
    chain must hold. `must_be_signed`: a chain whose end is not signed by `key` is a problem, because who writes it anew
    leaves signatures out, or signs with a key of their own. Raises OSError."""
    report = Report()
    signed = _Signatures(key, report)
    head: Head | None = None
    seen: Head | None = None
    for number, path in enumerate(paths):
        last = number == len(paths) - 1
        octets = path.read_bytes()
        found = walk(octets)
        if found.before is not None:
            why = _does_not_follow(found.records, found.before, head)
            if why is not None:
                report.problem = Problem(path=path, line=1, why=why)
                return report
            if head is None and found.before.seq:
                report.notes.append(f"{path.name} begins with record {found.before.seq + 1}; older files are not here")
            seen = found.before if found.before == stored else seen
        for record in found.records:
            report.records += 1
            report.first, report.last = report.first or record, record
            seen = record.head if record.head == stored else seen
            if not report.unsigned:
                report.unsigned_since = record.at
            report.unsigned += 1
            problem = signed.look(record, path)
            if problem is not None:
                report.problem = problem
                return report
            note = _note(record)
            if note:
                report.notes.append(f"record {record.seq}: {note}")
        head = found.head or head
        if found.fault is not None:
            report.problem = Problem(path=path, line=found.fault.line, why=found.fault.why)
            return report
        if found.tail and not last:
            line = octets.count(b"\n") + 1
            report.problem = Problem(path=path, line=line, why="the last line is not whole, and another file follows")
            return report
        if found.tail:
            report.notes.append(f"the last line of {path.name} is not whole: it is being written, or a crash cut it")
    if stored is not None and seen is None:
        report.problem = Problem(path=paths[-1], line=0, why=_without_head(report.last, stored))
    elif must_be_signed and key is not None and (why := _not_signed(report, key_id(key))):
        report.problem = Problem(path=paths[-1], line=0, why=why)
    return report


def _not_signed(report: Report, name: str) -> str:
    if report.checkpoint is None:
        return f"nothing in it is signed by the key {name}: it was written anew, or is another mesh's"
    since_s = report.last.at - report.unsigned_since if report.last is not None and report.unsigned else 0.0
    if report.unsigned <= UNSIGNED_RECORDS_MAX and since_s <= UNSIGNED_S_MAX:
        return ""
    return (
        f"nothing after record {report.checkpoint.seq} is signed by the key {name}, and that is {report.unsigned}"
        f" records of {since_s:.0f} s: a control plane that runs signs far more often, so somebody else wrote the rest"
    )


class _Signatures:
    """Checkpoints, against the key that counts or those that records name."""

    def __init__(self, key: PublicKey | None, report: Report) -> None:
        self._fixed = None if key is None else key_id(key)
        self._known: dict[str, PublicKey] = {} if key is None else {key_id(key): key}
        self._report = report

    def look(self, record: Record, path: Path) -> Problem | None:
        if record.event == KEY_MADE:
            key = read_public(str(record.fields.get("public_key")))
            if key is not None:
                self._known[key_id(key)] = key
            return None
        if record.event != CHECKPOINT:
            return None
        name = str(record.fields.get("key"))
        key = self._known.get(name)
        if key is None:
            self._report.notes.append(f"checkpoint {record.seq}: its key {name} is not known, so it was not checked")
            return None
        if not is_signed(record, key):
            return Problem(path=path, line=0, why=f"checkpoint {record.seq} is not signed by the key {name}")
        if name not in self._report.key_ids:
            self._report.key_ids.append(name)
        if self._fixed in (None, name):
            self._report.checkpoint, self._report.unsigned = record, 0
        else:
            why = f"checkpoint {record.seq} is signed by {name}, a key that only the chain itself names"
            self._report.notes.append(why)
        return None


def _does_not_follow(records: Sequence[Record], before: Head, head: Head | None) -> str | None:
    if head is None:
        return None if before.seq or before == GENESIS else "the first record continues something, and nothing can be"
    if before == head or (records and records[0].event == RESTARTED):
        return None
    if before.seq == head.seq:
        return f"does not continue record {head.seq} of the file before: that one was changed, or is of another chain"
    if before.seq > head.seq:
        return f"begins with record {before.seq + 1}, and the file before ends with {head.seq}: a file is missing"
    return f"begins with record {before.seq + 1}, which the file before has too: they are of two chains"


def _note(record: Record) -> str:
    """What somebody who reads the report should know of it."""
    told = record.fields
    if record.event == RESTARTED:
        return f"the chain was begun again by an operator: {told.get('reason')}"
    if record.event == "audit.mended":
        return f"{told.get('torn_octets')} octets before it are what a crash left of a line"
    if record.event == "audit.not_committed":
        return f"records {', '.join(map(str, told.get('records') or []))} were written, but what they say was not done"  # type: ignore[arg-type]
    return ""


def _without_head(last: Record | None, stored: Head) -> str:
    at = 0 if last is None else last.seq
    if at < stored.seq:
        return f"ends with record {at}, but the store knows {stored.seq}: the end was cut off"
    return f"record {stored.seq} is not the one the store knows: the file was written anew, or is another mesh's"
