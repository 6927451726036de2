"""The audit file as it is written and taken up again."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certs.svid import new_private_key
from control_plane.audit import AuditLog
from control_plane.audit import log as audit_log
from control_plane.audit.chain import GENESIS, Record, walk
from control_plane.audit.checkpoint import is_signed, read_public
from control_plane.errors import AuditDamaged, StoreError, Unavailable
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, resource_record

KEK = b"k" * 32


@contextmanager
def opened(directory: Path, now: float = NOW) -> Iterator[tuple[SqliteStore, AuditLog]]:
    """A store and its audit log, closed at the end."""
    store = SqliteStore.open(directory / "hauberk.db")
    try:
        audit = AuditLog.open(directory / "audit.jsonl", store, now=now)
        try:
            yield store, audit
        finally:
            audit.close()
    finally:
        store.close()


def records(directory: Path) -> list[Record]:
    """Of all files; the chain is whole."""
    found: list[Record] = []
    paths = [*sorted(directory.glob("audit-0*.jsonl")), directory / "audit.jsonl"]
    for path in paths:
        followed = walk(path.read_bytes(), found[-1].head if found else GENESIS)
        assert (followed.fault, followed.tail) == (None, b"")
        found += followed.records
    return found


def events(directory: Path) -> list[str]:
    return [one.event for one in records(directory)]


def apply(store: SqliteStore, audit: AuditLog) -> None:
    with store.transaction():
        store.apply_resources([resource_record()])
        audit.append("resources.applied", at=NOW, by="ann")


def test_records_are_chained_across_restarts_and_are_ours_alone(tmp_path: Path) -> None:
    """The chain goes on where it ended."""
    for by in ("ann", "bob"):
        with opened(tmp_path) as (_, audit):
            audit.append("token.created", at=NOW, by=by, service="x\ny")
            audit.close()
    found = records(tmp_path)
    assert [one.by for one in found if one.event == "token.created"] == ["ann", "bob"]
    assert found[0].event == "audit.began"
    assert found[1].fields == {"service": "x\ny", "after": 1}
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_g30_a_transaction_that_cannot_be_written_down_is_not_made(tmp_path: Path) -> None:
    """Neither in the store nor in the file; the next one that can be is."""
    with opened(tmp_path) as (store, audit):
        before = (tmp_path / "audit.jsonl").read_bytes()
        whole = audit._fd
        audit._fd = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(Unavailable, match="nothing was changed"):
            apply(store, audit)
        os.close(audit._fd)
        audit._fd = whole
        assert store.resources() == []
        assert (tmp_path / "audit.jsonl").read_bytes() == before
        apply(store, audit)
    assert events(tmp_path) == ["audit.began", "resources.applied"]


def test_what_is_rolled_back_is_not_written_down(tmp_path: Path) -> None:
    """A record belongs to its transaction."""
    with opened(tmp_path) as (store, audit):
        with pytest.raises(ZeroDivisionError):
            _roll_back(store, audit, lambda: None)
        audit.append("token.created", at=NOW, by="bob")
    assert [one.by for one in records(tmp_path)] == ["control plane", "bob"]


def test_the_record_is_durable_before_the_commit(tmp_path: Path) -> None:
    """Whoever sees the change in the store finds its record in the file; and the head is in the same transaction."""
    with opened(tmp_path) as (store, audit):
        seen: list[tuple[str | None, int]] = []
        store._connection.set_trace_callback(
            lambda sql: (
                seen.append((sql, len(walk((tmp_path / "audit.jsonl").read_bytes()).records)))
                if sql == "COMMIT"
                else None
            )
        )
        audit.append("token.created", at=NOW, by="ann")
        store._connection.set_trace_callback(None)
        assert seen == [("COMMIT", 2)]
        assert store.fact("audit head") == str(audit.head)


def test_a_commit_that_fails_is_told_by_the_next_record(tmp_path: Path) -> None:
    """The file is ahead of the store then, and says so: now, or after a restart."""
    with opened(tmp_path) as (store, audit):
        with pytest.raises(ZeroDivisionError):
            _roll_back(store, audit, audit.flush)
        audit.append("token.created", at=NOW, by="bob")
        with pytest.raises(ZeroDivisionError):
            _roll_back(store, audit, audit.flush)
    with opened(tmp_path) as (store, audit):
        assert store.fact("audit head") == str(audit.head)
    told = [one.fields["records"] for one in records(tmp_path) if one.event == "audit.not_committed"]
    assert told == [["2-2"], ["5-5"]]


def _roll_back(store: SqliteStore, audit: AuditLog, flush: Callable[[], None]) -> None:
    """As if the commit had failed, after `flush`."""
    with store.transaction():
        audit.append("token.created", at=NOW, by="ann")
        flush()
        raise ZeroDivisionError


def test_refused_calls_are_records_and_survive_in_the_head(tmp_path: Path) -> None:
    """Who, what, why, from where; the store's head follows within seconds."""
    with opened(tmp_path) as (store, audit):
        audit.refused("/hauberk.v1.Admin/Revoke", "spiffe://x", "192.0.2.1", "PERMISSION_DENIED", "no" * 999, NOW)
        assert store.fact("audit head") != str(audit.head)
        audit.tick(NOW + 10)
        assert store.fact("audit head") == str(audit.head)
    refused = records(tmp_path)[1]
    assert (refused.event, refused.by) == ("call.refused", "spiffe://x")
    assert refused.fields["peer"] == "192.0.2.1"
    assert refused.fields["status"] == "PERMISSION_DENIED"
    assert len(str(refused.fields["reason"])) == audit_log.REASON_CHARS_MAX


def test_a_flood_of_refused_calls_is_summed_up(tmp_path: Path) -> None:
    """Ten a second of one peer; the rest is one record."""
    with opened(tmp_path) as (_, audit):
        for _number in range(1_000):
            audit.refused("/x", "", "192.0.2.1", "UNAUTHENTICATED", "no", NOW)
        audit.tick(NOW + 2)
    assert events(tmp_path) == ["audit.began"] + ["call.refused"] * 10 + ["calls.refused"]
    assert records(tmp_path)[-1].fields["count"] == 990


def test_a_full_file_is_set_aside_and_the_chain_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its first and last record; nothing is removed, and the next start knows."""
    monkeypatch.setattr(audit_log, "ROTATE_OCTETS", 1_000)
    for _start in range(2):
        with opened(tmp_path) as (_, audit):
            for number in range(12):
                audit.append("token.created", at=NOW, by=f"ann {number}")
    assert len(sorted(tmp_path.glob("audit-0*.jsonl"))) == 3
    assert len(records(tmp_path)) == 25
    (tmp_path / "audit.jsonl").unlink()
    with pytest.raises(AuditDamaged), opened(tmp_path):
        pass


def test_checkpoints_are_signed_by_the_key_and_cover_what_is_before(tmp_path: Path) -> None:
    """At the start, after so many records, after so long, and at the stop."""
    with opened(tmp_path) as (store, audit):
        audit.sign_with(KEK, NOW)
        key = read_public(str(store.fact("audit key")))
        assert key is not None
        audit.tick(NOW + 1_000)  # nothing was written since
        audit.append("token.created", at=NOW, by="ann")
        audit.tick(NOW + 1_000)
        audit.append("token.created", at=NOW + 1_001, by="ann")
        epoch = store.epoch
    found = records(tmp_path)
    kinds = [one.event for one in found]
    assert kinds[1:] == ["audit.key", "audit.checkpoint", *(["token.created", "audit.checkpoint"] * 2)]
    for one in found:
        if one.event == "audit.checkpoint":
            assert one.fields["epoch"] == epoch
            assert is_signed(one, key)
            assert not is_signed(one, new_private_key().public_key())


def test_a_torn_last_line_is_closed_off_and_told(tmp_path: Path) -> None:
    """What a crash left half written stays, and a record says what it is."""
    with opened(tmp_path) as (_, audit):
        audit.append("token.created", at=NOW, by="ann")
    path = tmp_path / "audit.jsonl"
    torn = b'{"seq":3,"prev":"'
    path.write_bytes(path.read_bytes() + torn)
    with opened(tmp_path) as (_, audit):
        audit.append("token.created", at=NOW, by="bob")
    assert events(tmp_path) == ["audit.began", "token.created", "audit.mended", "token.created"]
    assert torn + b"\n" in path.read_bytes()


def _cut(octets: bytes) -> bytes:
    return b"".join(octets.splitlines(keepends=True)[:-1])


def _edit(octets: bytes) -> bytes:
    return octets.replace(b"bob", b"rob")


def _swap(octets: bytes) -> bytes:
    lines = octets.splitlines(keepends=True)
    return b"".join([lines[0], lines[2], lines[1], *lines[3:]])


@pytest.mark.parametrize("harm", [_cut, _edit, _swap, lambda _: b"", lambda octets: octets[:-5]])
def test_j11_a_file_that_was_cut_or_edited_stops_the_start(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    """With the way out; nothing is changed."""
    with opened(tmp_path) as (_, audit):
        for by in ("ann", "bob", "cid"):
            audit.append("token.created", at=NOW, by=by)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(harm(path.read_bytes()))
    held = path.read_bytes()
    with pytest.raises(AuditDamaged, match="hauberk audit verify"), opened(tmp_path):
        pass
    assert path.read_bytes() == held


def test_j11_a_file_that_is_gone_stops_the_start(tmp_path: Path) -> None:
    """It is not begun anew."""
    with opened(tmp_path):
        pass
    (tmp_path / "audit.jsonl").unlink()
    with pytest.raises(AuditDamaged, match="records up to 0, but 1"), opened(tmp_path):
        pass
    assert not (tmp_path / "audit.jsonl").exists()


def test_j04_a_store_that_is_gone_while_its_audit_file_is_there_stops_the_start(tmp_path: Path) -> None:
    """A new mesh is not begun under the records of the old one."""
    with opened(tmp_path) as (_, audit):
        audit.append("token.created", at=NOW, by="ann")
    for path in tmp_path.glob("hauberk.db*"):
        path.unlink()
    with pytest.raises(AuditDamaged, match="the store beside it knows nothing"), opened(tmp_path):
        pass


def test_lines_of_an_older_release_are_set_aside_and_named(tmp_path: Path) -> None:
    """They were never chained."""
    (tmp_path / "audit.jsonl").write_text(json.dumps({"at": NOW, "event": "token.created", "by": "ann"}) + "\n")
    (tmp_path / "audit.jsonl").chmod(0o600)
    with opened(tmp_path):
        pass
    (began,) = records(tmp_path)
    assert (tmp_path / str(began.fields["earlier"])).read_text().count("\n") == 1


def test_a_link_or_a_file_others_may_read_is_refused(tmp_path: Path) -> None:
    """It is the record of who may come in."""
    (tmp_path / "real").touch()
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "real")
    with pytest.raises(StoreError, match="cannot be opened"), opened(tmp_path):
        pass
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").touch(mode=0o644)
    (tmp_path / "audit.jsonl").chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"), opened(tmp_path):
        pass


def test_refusals_that_cannot_be_written_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is answered worse because the disk is full."""
    with opened(tmp_path) as (_, audit):
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", _no_space)
            audit.refused("/x", "", "192.0.2.1", "UNAUTHENTICATED", "no", NOW)
        audit.tick(NOW + 2)
    assert events(tmp_path) == ["audit.began", "calls.refused"]


def _no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")
