"""Backups, and state that is made from them again: nothing that was used or taken away comes back (J07, R26)."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe_id import SpiffeId
from control_plane.audit import AuditLog
from control_plane.audit.verify import files_of, store_facts, verify
from control_plane.backup import BackupDamaged, make
from control_plane.errors import AuditDamaged, StoreError, StoreLocked
from control_plane.model import Authority, Level, Phase, ResourceKey, RevocationRecord, RevokedKind
from control_plane.restore import Restored, restore
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.audit.test_log import opened
from tests.control_plane.support import NOW, TD, resource_record, token_record, workload_spec

WEB = SpiffeId.for_workload(TD, "shop", "orders")


def authority(name: str, phase: Phase, level: Level = Level.INTERMEDIATE) -> Authority:
    return Authority(
        authority_id=name * 32,
        level=level,
        phase=phase,
        parent_id="0" * 32,
        public_key_der=b"key",
        certificate_der=b"certificate",
        not_before=NOW,
        not_after=NOW + 86_400,
        prepared_at=NOW,
    )


def begin(store: SqliteStore, audit: AuditLog) -> None:
    """Two tokens, a policy, two authorities."""
    with store.transaction():
        store.put_token(token_record("00000000000000aa"))
        store.put_token(token_record("00000000000000bb"))
        store.apply_resources([resource_record(), resource_record("web")])
        store.put_authority(authority("a", Phase.ACTIVE))
        store.put_authority(authority("b", Phase.PREPARED))
        audit.append("token.created", at=NOW, by="ann")


def joins(store: SqliteStore, audit: AuditLog, token_id: str = "00000000000000aa", serial: int = 0xABC) -> None:
    """As the API writes it down."""
    with store.transaction():
        token = store.consume_token(token_id, b"\x01" * 32, NOW + 1)
        assert token is not None
        workload = store.ensure_workload(token.spec, NOW + 1)
        audit.append(
            "identity.joined",
            at=NOW + 1,
            by="anonymous",
            spiffe_id=str(workload.spiffe_id),
            service=workload.service_name,
            serial=f"{serial:x}",
            not_after=NOW + 3_600,
            token_id=token_id,
            issuer_id="a" * 32,
            node_id="n" * 32,
            node_key="a2V5",
            node_expires_at=NOW + 86_400,
        )


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A data directory, and a backup of it beside."""
    data_dir = tmp_path / "mesh"
    data_dir.mkdir(mode=0o700)
    with opened(data_dir) as (store, audit):
        begin(store, audit)
        make(data_dir, tmp_path / "backup", release="1", now=NOW)
    return data_dir


@contextmanager
def reopened(data_dir: Path) -> Iterator[SqliteStore]:
    """As at the next start; the chain is whole."""
    with opened(data_dir, NOW + 100) as (store, _):
        yield store
    facts = store_facts(data_dir)
    assert verify(files_of(data_dir), stored=facts.head).problem is None


def restored(mesh: Path, *, replace: bool = True) -> Restored:
    """Without a CA, so without anything that could be verified; test_restore_verified has that."""
    return restore(mesh, mesh.parent / "backup", replace=replace, by="ann", now=NOW + 50, unverified=True)


def test_j07_a_restored_store_has_a_larger_epoch_and_no_token_that_can_be_used(mesh: Path) -> None:
    """Neither one that was used since nor one that was not: nobody can tell them apart for certain."""
    with opened(mesh) as (store, audit):
        before = store.epoch
        joins(store, audit)
    done = restored(mesh)
    assert done.voided_tokens == 2
    with reopened(mesh) as store:
        assert store.epoch == done.epoch > before
        for token_id in ("00000000000000aa", "00000000000000bb"):
            assert store.consume_token(token_id, b"\x01" * 32, NOW + 60) is None


def test_j07_certificates_issued_since_are_known_again(mesh: Path) -> None:
    """A serial number is never issued twice, and who joined since is a member still."""
    with opened(mesh) as (store, audit):
        joins(store, audit)
    done = restored(mesh)
    assert done.taken_over.certificates == 1
    with reopened(mesh) as store:
        record = store.certificate(0xABC)
        assert record is not None
        assert (record.spiffe_id, record.issuer_id, record.not_after) == (WEB, "a" * 32, NOW + 3_600)
        workload = store.workload_of_certificate(WEB, 0xABC)
        assert workload is not None
        assert workload.spec == workload_spec()
        (node,) = store.nodes()
        assert (node.node_id, node.public_key_der, node.expires_at) == ("n" * 32, b"key", NOW + 86_400)


def test_j07_what_was_revoked_since_stays_revoked(mesh: Path) -> None:
    """And what was given back since is given back."""
    identity = RevocationRecord(kind=RevokedKind.IDENTITY, value=str(WEB), at=NOW, by="ann", reason="stolen")
    with opened(mesh) as (store, audit):
        for kind, value, event in [
            ("identity", str(WEB), "revoked"),
            ("serial", "abc", "revoked"),
            ("serial", "abc", "reinstated"),
        ]:
            audit.append(event, at=NOW, by="ann", kind=kind, value=value, reason="stolen")
    restored(mesh)
    with reopened(mesh) as store:
        assert store.revocations() == [identity]


@pytest.mark.parametrize(
    ("records", "left"),
    [
        (["a old", "b active"], {"a": Phase.OLD, "b": Phase.ACTIVE}),
        (["b revoked"], {"a": Phase.ACTIVE, "b": Phase.REVOKED}),
        (["a tainted", "b active"], {"a": Phase.TAINTED, "b": Phase.ACTIVE}),
        (["a old", "c active"], {"a": Phase.ACTIVE, "b": Phase.PREPARED}),
        (["a tainted", "c active"], {"a": Phase.TAINTED, "b": Phase.PREPARED}),
    ],
)
def test_j07_authorities_are_as_far_as_they_were(mesh: Path, records: list[str], left: dict[str, Phase]) -> None:
    """One that was revoked or tainted stays so. One followed by another that is lost goes on signing, if it may."""
    with opened(mesh) as (_, audit):
        about = [f"intermediate {one.split()[0] * 32} {one.split()[1]}" for one in records]
        audit.append("ca.activated", at=NOW, by="control plane", authorities=about)
    done = restored(mesh)
    with reopened(mesh) as store:
        assert {one.authority_id[0]: one.phase for one in store.authorities()} == left
    assert any("its key is lost" in one for one in done.taken_over.lost) == ("c active" in records)
    assert any("is left that may sign" in one for one in done.taken_over.lost) == (Phase.ACTIVE not in left.values())


def test_j07_resources_deleted_since_stay_deleted_and_those_applied_since_are_named(mesh: Path) -> None:
    """What the audit file does not hold is said."""
    with opened(mesh) as (_, audit):
        audit.append("resource.deleted", at=NOW, by="ann", resource="AuthorizationPolicy shop/web")
        audit.append("resources.applied", at=NOW, by="ann", changes=["created AuthorizationPolicy shop/new"])
    done = restored(mesh)
    with reopened(mesh) as store:
        assert store.resource(ResourceKey(kind="AuthorizationPolicy", namespace="shop", name="web")) is None
        assert len(store.resources()) == 1
    assert any("apply them again: AuthorizationPolicy shop/new" in one for one in done.taken_over.lost)


def test_j07_what_was_not_committed_is_not_taken_over(mesh: Path) -> None:
    """A revocation that nobody was told of was none."""
    with opened(mesh) as (store, audit):
        with pytest.raises(ZeroDivisionError):
            _revoke_in_vain(store, audit)
        audit.append("token.created", at=NOW, by="ann")
    assert restored(mesh).taken_over.revocations == 0


def _revoke_in_vain(store: SqliteStore, audit: AuditLog) -> None:
    with store.transaction():
        audit.append("revoked", at=NOW, by="ann", kind="serial", value="abc", reason="")
        audit.flush()
        raise ZeroDivisionError


def test_r26_without_the_audit_file_it_is_said_that_nothing_is_known(mesh: Path) -> None:
    """On a new machine: the backup's own audit file goes on."""
    fresh = mesh.parent / "fresh"
    fresh.mkdir(mode=0o700)
    done = restore(fresh, mesh.parent / "backup", replace=False, by="ann", now=NOW, unverified=True)
    assert not done.knows_since
    assert any("nothing is known" in one for one in done.taken_over.lost)
    with reopened(fresh) as store:
        assert len(store.resources()) == 2


def test_r26_an_audit_file_that_does_not_go_on_from_the_backup_is_set_aside(mesh: Path) -> None:
    """It is of another mesh, or of before the backup."""
    (mesh / "audit.jsonl").write_bytes(b"".join((mesh / "audit.jsonl").read_bytes().splitlines(True)[:1]))
    done = restored(mesh)
    assert done.audit_set_aside is not None
    assert done.audit_set_aside.exists()
    with reopened(mesh):
        pass


def test_r26_a_damaged_audit_file_is_taken_over_up_to_the_damage(mesh: Path) -> None:
    """And what follows is closed off, not believed."""
    with opened(mesh) as (store, audit):
        joins(store, audit)
        audit.append("revoked", at=NOW, by="ann", kind="serial", value="abc", reason="")
    path = mesh / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"revoked"', b'"forgone"') + b"{}\n")
    done = restored(mesh)
    assert done.taken_over.certificates == 1
    assert any("could be read up to record" in one for one in done.taken_over.lost)
    with reopened(mesh):
        pass


def test_restoring_twice_makes_the_epoch_larger_each_time(mesh: Path) -> None:
    """A sidecar that holds what came after the first takes what comes after the second."""
    epochs = []
    for _ in range(6):
        epochs.append(restored(mesh).epoch)
        with reopened(mesh):
            pass
    assert epochs == sorted(set(epochs))


def test_j08_a_restore_is_refused_while_a_control_plane_holds_the_directory(mesh: Path) -> None:
    """And over a state that is there, unless told to; what was there is kept."""
    with opened(mesh), pytest.raises(StoreLocked):
        restored(mesh)
    with pytest.raises(StoreError, match="--replace"):
        restored(mesh, replace=False)
    held = (mesh / "hauberk.db").read_bytes()
    done = restored(mesh)
    assert done.replaced is not None
    assert (done.replaced / "hauberk.db").read_bytes() == held


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_backup_with_any_octet_changed_is_refused_before_anything_changes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each part has its SHA-256 in the manifest; a change of the archive's own fields that changes no part is none."""
    directory = tmp_path_factory.mktemp("backup")
    mesh = directory / "mesh"
    mesh.mkdir(mode=0o700)
    with opened(mesh) as (store, audit):
        begin(store, audit)
        make(mesh, directory / "backup", release="1", now=NOW)
    octets = bytearray((directory / "backup").read_bytes())
    at = data.draw(st.one_of(st.integers(0, 4_000), st.integers(0, len(octets) - 1)))
    octets[at] ^= data.draw(st.integers(1, 255))
    (directory / "backup").write_bytes(octets)
    before = {path.name: path.read_bytes() for path in mesh.iterdir() if path.is_file()}
    try:
        restored(mesh)
    except (BackupDamaged, StoreError):
        assert {path.name: path.read_bytes() for path in mesh.iterdir() if path.is_file()} == before
    else:
        with reopened(mesh) as store:
            assert len(store.resources()) == 2
    shutil.rmtree(directory)


def test_a_backup_is_ours_alone_and_holds_no_key(mesh: Path) -> None:
    """Nor anything but its three parts."""
    path = mesh.parent / "backup"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["manifest.json", "hauberk.db", "audit.jsonl"]
        assert {member.mode for member in archive} == {0o600}
    assert [one for one in path.parent.iterdir() if one.name.startswith(".")] == []


def test_a_backup_is_never_made_over_a_file(mesh: Path) -> None:
    """Nor of what is not whole."""
    with pytest.raises(StoreError, match="exists already"):
        make(mesh, mesh.parent / "backup", release="1", now=NOW)
    with pytest.raises(StoreError, match="is not there"):
        make(mesh.parent, mesh.parent / "other", release="1", now=NOW)
    (mesh / "audit.jsonl").write_bytes(b"")
    with pytest.raises(StoreError, match="has no record 2"):
        make(mesh, mesh.parent / "other", release="1", now=NOW)
    assert not (mesh.parent / "other").exists()


def test_a_link_inside_an_archive_leads_nowhere(mesh: Path) -> None:
    """Members are read by what they are, and written under our names."""
    evil = mesh.parent / "evil"
    with tarfile.open(mesh.parent / "backup") as good, tarfile.open(evil, "w") as archive:
        for member in good.getmembers():
            if member.name == "hauberk.db":
                link = tarfile.TarInfo("hauberk.db")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(link)
            else:
                archive.addfile(member, good.extractfile(member))
    with pytest.raises(BackupDamaged, match=r"part hauberk\.db is missing"):
        restore(mesh, evil, replace=True, by="ann", now=NOW, unverified=True)


def test_j07_a_start_over_a_store_put_back_by_hand_is_refused(mesh: Path) -> None:
    """An older database under a newer audit file would bring back what was used: `restore` is the way."""
    with opened(mesh) as (store, audit):
        shutil.copy(mesh / "hauberk.db", mesh.parent / "old.db")
        joins(store, audit)
        audit.append("token.created", at=NOW, by="ann")
    for name in os.listdir(mesh):
        if name.startswith("hauberk.db"):
            (mesh / name).unlink()
    shutil.copy(mesh.parent / "old.db", mesh / "hauberk.db")
    with pytest.raises(AuditDamaged, match="hauberk restore"), opened(mesh):
        pass
