"""What decides whom the mesh trusts, as a statement that a key can vouch for. Pure: no SQL, no files.

Theory of operation. Whoever can write the database, or a backup of it, must not thereby decide whom the mesh trusts. So
the store keeps, beside the rows, a statement of what they are and its MAC:

    statement   JSON: number | epoch | id -> SHA-256 of each authority's row | how many revocations, and the SHA-256 of
                all | SHA-256 of the facts in FACTS
    mac         HMAC-SHA256 of the statement's octets, under a key made from the key-encryption key (KEK)

It speaks of the whole set, so no row can be added, removed, changed or exchanged, nor one of an earlier day be put back
alone. `number` grows with every statement. Records of the audit file carry it: all of an earlier set, with its own
statement, under an audit file that knows a later one is refused, too.

Join tokens and nodes change with every join and renewal, so each has a MAC of its own (`row_mac`): nobody without the
key can make one, or let one stand for another workload, but can put back or remove one that there was.

The rows are digested as JSON: unambiguous, and fast enough for thousands of revocations. A later schema that adds to
them must leave what it added out of the digest while it has the value it was added with, or vouch for all anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

KEY_BYTES = 32
FACTS = frozenset({"audit key", "audit key sealed"})
"""Names of facts that are vouched for: who replaced the key of the audit file's checkpoints could write it anew."""
NAMED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What is vouched for."""

    number: int
    """Grows with every statement of a store; never 0."""
    epoch: int
    authorities: Mapping[str, str]
    """Id -> digest of its row."""
    revocations: int
    revocations_sha256: str
    facts_sha256: str

    def text(self) -> str:
        return json.dumps({"format": 1, **asdict(self)}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Statement:
        """Of a text whose MAC was right. Raises ValueError: it is of a release that vouched for other things."""
        told = json.loads(text)
        if told.pop("format") != 1:
            raise ValueError("the statement is of another format")
        return cls(**told)


def statement(
    *,
    number: int,
    epoch: int,
    authorities: Iterable[Sequence[Any]],
    revocations: Sequence[Sequence[Any]],
    facts: Sequence[Sequence[Any]],
) -> Statement:
    """Of rows as the database gives them, in an order that follows from their keys; an authority's id first."""
    return Statement(
        number=number,
        epoch=epoch,
        authorities={str(row[0]): _digest([row]) for row in authorities},
        revocations=len(revocations),
        revocations_sha256=_digest(revocations),
        facts_sha256=_digest(facts),
    )


def mac(key: bytes, text: str) -> bytes:
    assert len(key) == KEY_BYTES, "made from the key-encryption key"
    return hmac.digest(key, text.encode("utf-8"), "sha256")


def is_mac(key: bytes, text: str, found: bytes) -> bool:
    return hmac.compare_digest(mac(key, text), found)


def row_mac(key: bytes, kind: str, *fields: object) -> bytes:
    """Of one row by itself; `kind` keeps those of one table from being taken for those of another."""
    return mac(key, json.dumps([kind, *fields], default=_blob, ensure_ascii=True, separators=(",", ":")))


def differences(vouched: Statement, found: Statement) -> list[str]:
    """What is not as it was vouched for, one clause each; none: all is."""
    told = []
    added = sorted(found.authorities.keys() - vouched.authorities.keys())
    gone = sorted(vouched.authorities.keys() - found.authorities.keys())
    both = vouched.authorities.keys() & found.authorities.keys()
    changed = sorted(one for one in both if vouched.authorities[one] != found.authorities[one])
    for names, what in ((added, "was added"), (changed, "was changed"), (gone, "was removed")):
        if names:
            told.append(f"authority {_named(names)} {what}")
    if (vouched.revocations, vouched.revocations_sha256) != (found.revocations, found.revocations_sha256):
        told.append(f"the revocations are others ({vouched.revocations} before, {found.revocations} now)")
    if vouched.facts_sha256 != found.facts_sha256:
        told.append("the audit file's key was changed")
    if vouched.epoch != found.epoch:
        told.append("the epoch is another")
    return told


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more


def _digest(rows: Iterable[Sequence[Any]]) -> str:
    text = json.dumps([list(row) for row in rows], default=_blob, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _blob(value: object) -> list[str]:
    """A list, so that no text is taken for it."""
    assert isinstance(value, bytes), "SQLite has no other kinds"
    return [value.hex()]
