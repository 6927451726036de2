"""The whole of a chain, against its signatures and against the store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.svid import new_private_key
from control_plane.audit import AuditLog
from control_plane.audit import log as audit_log
from control_plane.audit.checkpoint import CHECKPOINT, KEY_MADE, CheckpointKey
from control_plane.audit.restart import restart
from control_plane.audit.verify import UNSIGNED_RECORDS_MAX, Report, files_of, store_facts, verify
from control_plane.errors import AuditDamaged, StoreError
from tests.control_plane.audit.test_log import KEK, opened
from tests.control_plane.support import NOW


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chain of three files, signed."""
    monkeypatch.setattr(audit_log, "ROTATE_OCTETS", 1_500)
    with opened(tmp_path) as (_, audit):
        audit.sign_with(KEK, NOW)
        for number in range(20):
            audit.append("token.created", at=NOW + number, by="ann")
    assert len(files_of(tmp_path)) == 3
    return tmp_path


def verified(data_dir: Path) -> Report:
    facts = store_facts(data_dir)
    return verify(files_of(data_dir), key=facts.public_key, stored=facts.head)


def test_a_whole_chain_is_whole(data_dir: Path) -> None:
    """Signed to its end, and read while the store is open."""
    with opened(data_dir):
        report = verified(data_dir)
    assert report.problem is None
    assert report.checkpoint is not None
    assert report.last is not None
    assert report.checkpoint.seq == report.last.seq
    assert (report.records, report.notes, len(report.key_ids)) == (report.last.seq, [], 1)


def _edit(data_dir: Path) -> None:
    path = files_of(data_dir)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"ann", b"eve")
    path.write_bytes(b"".join(lines))


def _drop_a_file(data_dir: Path) -> None:
    files_of(data_dir)[1].unlink()


def _cut(data_dir: Path) -> None:
    path = files_of(data_dir)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _forge(data_dir: Path) -> None:
    """All of it anew, with a key of one's own."""
    for path in files_of(data_dir):
        path.unlink()
    other = data_dir / "other"
    other.mkdir()
    with opened(other) as (_, audit):
        audit.sign_with(KEK, NOW)
        for number in range(40):
            audit.append("token.created", at=NOW + number, by="eve")
    for path in files_of(other):
        shutil.copy(path, data_dir / path.name)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_edit, r"0001-0000000000\d\d\.jsonl:[56]: it does not continue record 5"),
        (_drop_a_file, "a file is missing"),
        (_cut, "the end was cut off"),
        (_forge, "is not the one the store knows"),
    ],
)
def test_j11_what_was_harmed_is_named(data_dir: Path, harm: Callable[[Path], None], says: str) -> None:
    """File, line and what it means."""
    harm(data_dir)
    report = verified(data_dir)
    assert report.problem is not None
    assert report.problem.line >= 0

    assert re.search(says, str(report.problem)), str(report.problem)


def test_j11_a_checkpoint_of_another_key_is_found(tmp_path: Path) -> None:
    """Its key id can be written by anybody, its signature cannot."""
    with opened(tmp_path) as (store, audit):
        audit.sign_with(KEK, NOW)
        forged = CheckpointKey(private_key=new_private_key()).sign(epoch=store.epoch, at=NOW, before=audit.head)
        assert audit._key is not None
        audit.append("audit.checkpoint", at=NOW, by="x", epoch=store.epoch, key=audit._key.key_id, signature=forged)
    report = verified(tmp_path)
    assert report.problem is not None
    assert "is not signed by the key" in str(report.problem)


@pytest.mark.parametrize(
    ("records", "apart_s", "says"),
    [
        (3, 200.0, ""),
        (5, 300.0, "nothing after record .* is signed by the key .* 5 records of 1200 s"),
        (UNSIGNED_RECORDS_MAX, 0.01, ""),
        (UNSIGNED_RECORDS_MAX + 1, 0.01, "nothing after record .* is signed"),
    ],
)
def test_j11_an_end_that_nobody_signed_is_found(tmp_path: Path, records: int, apart_s: float, says: str) -> None:
    """An honest beginning, and after it what somebody without the key wrote: with a key of their own, or with none."""
    with opened(tmp_path) as (store, audit):
        audit.sign_with(KEK, NOW)
        key = store_facts(tmp_path).public_key
        with store.transaction():
            for number in range(records):
                audit.append("token.created", at=NOW + number * apart_s, by="eve")
        os.link(tmp_path / "audit.jsonl", tmp_path / "unsigned.jsonl")
        report = verify([tmp_path / "unsigned.jsonl"], key=key, must_be_signed=True)
    assert bool(report.problem) == bool(says)
    assert re.search(says, str(report.problem)), str(report.problem)


def test_j11_a_key_that_the_chain_introduces_is_noted(tmp_path: Path) -> None:
    """It signs nothing that counts for whoever kept the mesh's key."""
    with opened(tmp_path) as (store, audit):
        audit.sign_with(KEK, NOW)
        kept = store_facts(tmp_path).public_key
        other = CheckpointKey(private_key=new_private_key())
        audit.append(KEY_MADE, at=NOW, by="eve", key=other.key_id, public_key=other.public_text)
        signature = other.sign(epoch=store.epoch, at=NOW, before=audit.head)
        audit.append(CHECKPOINT, at=NOW, by="eve", epoch=store.epoch, key=other.key_id, signature=signature)
        report = verify(files_of(tmp_path), key=kept, must_be_signed=True)
    assert report.problem is None
    assert report.unsigned == 2
    assert any(f"signed by {other.key_id}, a key that only the chain itself names" in one for one in report.notes)


def test_files_alone_are_checked_from_where_they_begin(data_dir: Path) -> None:
    """Older ones may have been moved away: that is told."""
    report = verify(files_of(data_dir)[1:])
    assert report.problem is None
    assert any("older files are not here" in note for note in report.notes)


def test_what_was_not_done_or_torn_is_noted(tmp_path: Path) -> None:
    """They are no faults."""
    with opened(tmp_path):
        pass
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes() + b'{"seq":2,')
    with opened(tmp_path):
        pass
    report = verified(tmp_path)
    assert report.problem is None
    assert any("10 octets before it are what a crash left" in note for note in report.notes)


def test_a_restart_goes_on_from_what_the_store_knows_and_says_why(data_dir: Path) -> None:
    """The damaged file is kept; a whole one is left as it is."""
    with pytest.raises(AuditDamaged, match="as it was written"):
        restart(data_dir, "hauberk.db", reason="no reason", by="ann", now=NOW)
    _cut(data_dir)
    with pytest.raises(AuditDamaged), opened(data_dir):
        pass
    aside = restart(data_dir, "hauberk.db", reason="the disk", by="ann", now=NOW)
    assert aside is not None
    assert aside.exists()
    with opened(data_dir) as (_, audit):
        audit.append("token.created", at=NOW, by="bob")
    with opened(data_dir):
        pass
    report = verified(data_dir)
    assert report.problem is None
    assert any("begun again by an operator: the disk" in note for note in report.notes)


def test_a_restart_where_nothing_was_is_refused(tmp_path: Path) -> None:
    """A store that never had an audit file needs none."""
    with pytest.raises(StoreError, match="knows no audit file"):
        restart(tmp_path, "hauberk.db", reason="x", by="ann", now=NOW)


def test_a_log_can_be_verified_between_any_two_records(tmp_path: Path) -> None:
    """While it is written."""
    with opened(tmp_path) as (_, audit):
        assert isinstance(audit, AuditLog)
        for number in range(5):
            audit.append("token.created", at=NOW, by=str(number))
            audit.refused("/x", "", "unix", "PERMISSION_DENIED", "no", NOW)
            assert verified(tmp_path).problem is None
