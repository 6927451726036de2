"""Taking up the chain at a start: what is in the file, what the store says, and whether they agree (security.md J11).

The cases, by the store's head S and the file:

1. No S, no file: the first start. A chain begins.
2. No S, and a file that holds nothing but the beginning: killed during the first start. It goes on.
3. No S, and a file with more: the store this file belongs to is gone. Refused (J04).
4. No S, and lines that were never chained: an older release wrote them. They are set aside, named in the first record.
5. S, and the file has S: what follows S is refused calls, or a transaction that did not commit, or torn. Told, and on.
6. S, and no file, but the last full one has S: killed between the two renames of a rotation. A new file goes on.
7. S, and the file does not have it: cut, edited, or another one. Refused.
8. S, and the file shows that more was committed after it: an older store was put back. Refused (J07).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.audit import chain, files
from control_plane.audit.chain import BEGAN, GENESIS, MENDED, RESTARTED, Field, Head, Record, Walk, walk
from control_plane.errors import AuditDamaged, StoreError
from control_plane.store.base import Store

HEAD_FACT = "audit head"
REFUSED, REFUSED_MORE, NOT_COMMITTED = "call.refused", "calls.refused", "audit.not_committed"
OUTSIDE = frozenset({REFUSED, REFUSED_MORE, NOT_COMMITTED, MENDED})
"""Events that belong to no transaction of their own: after the store's head they are as good as before it."""


@dataclass(slots=True, kw_only=True)
class TakenUp:
    """Where writing goes on."""

    fd: int
    head: Head
    first: int
    """Number of the file's first record."""
    end: int
    """Octets of the file."""
    trust: int = 0
    """The largest `trust` of what was committed, as far as was read."""
    last_at: float = 0.0
    """When the last record was written; Unix seconds, 0: there was none."""
    to_tell: list[tuple[str, dict[str, Field]]] = field(default_factory=list)
    """Records that say what was found: (event, fields)."""


def take_up(path: Path, store: Store, now: float) -> TakenUp:
    """Raises AuditDamaged, StoreError, OSError; nothing was changed then."""
    held = store.fact(HEAD_FACT)
    if held is None:
        return _first(path, now)
    stored = Head.parse(held)
    octets = path.read_bytes() if path.exists() and not path.is_symlink() else b""
    found = walk(octets)
    full = files.full_files(path.parent)
    older = walk(full[-1].path.read_bytes()) if full else Walk(before=None)
    records = _after(path, stored, older, found)
    taken = TakenUp(fd=-1, head=found.head or older.head or stored, first=0, end=len(octets))
    taken.first = found.records[0].seq if found.records else taken.head.seq + 1
    ranges = ranges_of(one.seq for one in records if one.event not in OUTSIDE)
    taken.last_at = next((one.at for one in reversed((*older.records, *found.records))), 0.0)
    taken.trust = trust_of(one for one in (*older.records, *found.records) if one.seq <= stored.seq)
    torn = octets[found.end :]
    taken.fd = files.open_private(path)
    try:
        if torn:
            _close_off(taken, torn)
        if ranges:
            taken.to_tell.append((NOT_COMMITTED, {"records": ranges}))
        files.sync_directory(path.parent)
    except BaseException:
        os.close(taken.fd)
        raise
    return taken


def _first(path: Path, now: float) -> TakenUp:
    """There is no head: cases 1 to 4."""
    octets = path.read_bytes() if path.exists() and not path.is_symlink() else b""
    found = walk(octets, GENESIS)
    full = files.full_files(path.parent)
    if full or any(one.event not in OUTSIDE | {BEGAN} for one in found.records):
        count = full[-1].last if full else found.records[-1].seq
        raise AuditDamaged(
            f"{path}: holds {count} records of a mesh, but the store beside it knows nothing of them: the store is gone"
            " or is another. Nothing was changed. Restore it: hauberk restore; for a new mesh take another --data-dir"
        )
    told: dict[str, Field] = {}
    if octets and not found.records and chain.parse(octets[: octets.find(b"\n") + 1]) is None and b"\n" in octets:
        aside = files.set_aside(path, f"audit-unchained-{int(now)}")
        told = {"earlier": aside.name, "earlier_sha256": hashlib.sha256(octets).hexdigest()}
        octets, found = b"", Walk(before=GENESIS)
    taken = TakenUp(fd=files.open_private(path), head=found.head or GENESIS, first=1, end=len(octets))
    torn = octets[found.end :]
    if torn:
        _close_off(taken, torn)
    taken.to_tell.append((BEGAN, told))
    files.sync_directory(path.parent)
    return taken


def _after(path: Path, stored: Head, older: Walk, found: Walk) -> Sequence[Record]:
    """The records after the store's head. Raises AuditDamaged (case 7)."""
    records = [*older.records, *found.records]
    again = bool(found.records) and found.records[0].event == RESTARTED
    if older.records and found.records and found.before != older.head and not again:
        raise damaged(path, f"does not continue the file before it, which ends at record {older.records[-1].seq}")
    at = {one.seq: one.sha256 for one in records}
    for first in (older, found) if again else (older if older.records else found,):
        if first.before is not None:
            at[first.before.seq] = first.before.sha256
    if stored.seq not in at:
        fault = older.fault or found.fault
        broken = f"; line {fault.line} is broken: {fault.why}" if fault else ""
        last = records[-1].seq if records else 0
        raise damaged(path, f"has records up to {last}, but {stored.seq} were written{broken}")
    if at[stored.seq] != stored.sha256:
        raise damaged(path, f"record {stored.seq} is not the one that was written")
    after = [one for one in records if one.seq > stored.seq]
    newer = [one for one in after if isinstance(known := one.fields.get("after"), int) and known > stored.seq]
    if newer:
        raise AuditDamaged(
            f"{path}: goes on to record {after[-1].seq}, and the store with {stored.seq}: it is an older one"
            " that was put back. What was used or revoked since would be good again. Nothing was changed. Put the store"
            " back that was here, or make a state that knows what happened since: hauberk restore --replace FILE"
        )
    return after


def damaged(path: Path, why: str) -> AuditDamaged:
    """The refusal, with the way out."""
    return AuditDamaged(
        f"{path}: {why}. It was cut, edited or replaced; nothing is issued without it, and nothing was changed. See:"
        f" hauberk audit verify --data-dir {path.parent}. Put the file back, or go on without what is lost, on record:"
        f" hauberk audit restart --data-dir {path.parent} --reason TEXT"
    )


def _close_off(taken: TakenUp, torn: bytes) -> None:
    """Ends a torn line with a line feed; the next record says what it was. Raises OSError."""
    if not torn.endswith(b"\n"):
        torn += b"\n"
        os.pwrite(taken.fd, b"\n", taken.end)
        taken.end += 1
    digest = hashlib.sha256(torn).hexdigest()
    taken.to_tell.append((MENDED, {"torn_octets": len(torn), "torn_sha256": digest}))


def trust_of(records: Iterable[Record]) -> int:
    """The largest `trust` of those records that speak of what was committed; 0: none speaks of it."""
    read = list(records)
    undone = not_committed(read)
    return max(
        (
            number
            for one in read
            if type(number := one.fields.get("trust")) is int and not any(a <= one.seq <= b for a, b in undone)
        ),
        default=0,
    )


def not_committed(records: Iterable[Record]) -> list[tuple[int, int]]:
    """First and last number of each range that a later record says did not happen. Raises StoreError."""
    found = []
    for one in records:
        ranges = one.fields.get("records")
        for text in ranges if one.event == NOT_COMMITTED and isinstance(ranges, list) else []:
            first, _, last = text.partition("-")
            if not (first.isdigit() and last.isdigit()):
                raise StoreError(f"record {one.seq} of the audit file cannot be understood")
            found.append((int(first), int(last)))
    return found


def ranges_of(numbers: Iterable[int]) -> list[str]:
    """ "3-5" and "9-9" of 3, 4, 5 and 9, in order."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return [f"{first}-{last}" for first, last in found]
