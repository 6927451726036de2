"""A backup that somebody has changed who does not have the key-encryption key is refused (J06, R26)."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import backup
from control_plane.backup import BackupDamaged, Manifest, make, reading
from control_plane.ca.kek import trust_key
from control_plane.ca.rekey import rotate_kek
from control_plane.errors import StartError, StoreError
from control_plane.restore import Restored, restore
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.ca.test_vouched import add_root, runs
from tests.control_plane.desk import opened
from tests.control_plane.support import NOW

KEK = bytes(range(32))


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A data directory, and a backup of it beside."""
    runs(tmp_path)
    make(tmp_path / "cp", tmp_path / "backup", release="1", now=NOW, kek=kek_of(tmp_path / "cp"))
    return tmp_path / "cp"


def kek_of(data_dir: Path) -> bytes:
    return (data_dir / "kek.key").read_bytes()


def restored(mesh: Path, file: str = "backup", **changes: Any) -> Restored:
    given_: dict[str, Any] = {"replace": True, "by": "ann", "now": NOW + 50, "kek": kek_of(mesh)}
    return restore(mesh, mesh.parent / file, **given_ | changes)


def changed(
    mesh: Path, *, store: Callable[[sqlite3.Connection], object] | None = None, manifest: dict[str, Any] | None = None
) -> Path:
    """The backup as somebody else would change it: sums and sizes are right."""
    work, target = mesh.parent / "work", mesh.parent / "changed"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    told = backup.unpack(mesh.parent / "backup", work)
    if store is not None:
        with closing(sqlite3.connect(work / "hauberk.db", isolation_level=None)) as connection:
            store(connection)
    with tarfile.open(mesh.parent / "backup") as archive:
        first = archive.extractfile("manifest.json")
        assert first is not None
        text = json.loads(first.read())
    for name in told.parts:
        octets = (work / name).read_bytes()
        text["parts"][name] = {"octets": len(octets), "sha256": hashlib.sha256(octets).hexdigest()}
    text.update(manifest or {})
    with tarfile.open(target, "w") as archive:
        for name, octets in (
            ("manifest.json", json.dumps(text).encode()),
            *((n, (work / n).read_bytes()) for n in told.parts),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(octets)
            archive.addfile(member, io.BytesIO(octets))
    return target


def contents(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_dir.iterdir() if path.is_file() and "-" not in path.name}


def test_j06_an_unchanged_backup_is_restored_and_starts(mesh: Path) -> None:
    """What was revoked is revoked, what was revoked since is, and the KEK vouches for it."""
    with opened(mesh.parent) as desk:
        desk.revoke("identity", "spiffe://mesh.local/ns/shop/sa/late")
        root = desk.state.authority.prepare(desk.state.authority.authorities[0].level, NOW, "ann")
    done = restored(mesh)
    assert done.unverified == []
    assert done.taken_over.revocations == 1
    assert any(root.authority_id in one for one in done.taken_over.lost)
    with closing(SqliteStore.open(mesh / "hauberk.db")) as store:
        assert store.doubts(trust_key(kek_of(mesh))) == []
    with opened(mesh.parent) as desk:
        assert len(desk.revocations()) == 4
        desk.reinstate("identity", "spiffe://mesh.local/ns/shop/sa/late")
    with opened(mesh.parent) as desk:
        assert len(desk.revocations()) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE workload SET spiffe_id = 'spiffe://mesh.local/ns/shop/sa/admin'",
        "DELETE FROM revocation",
        "UPDATE authority SET phase = 'old' WHERE phase = 'revoked'",
        "UPDATE join_token SET consumed_at = NULL, expires_at = 9e9",
        "DELETE FROM trust_seal",
    ],
)
def test_j06_a_backup_with_a_changed_database_is_refused(mesh: Path, statement: str) -> None:
    """Whatever was changed: the manifest's sums are the changer's own. Nothing changes where it was to be restored."""
    changed(mesh, store=lambda connection: connection.execute(statement))
    before = contents(mesh)
    with pytest.raises(BackupDamaged, match="somebody without the key-encryption key has changed it"):
        restored(mesh, "changed")
    assert contents(mesh) == before


def test_j06_without_its_mac_it_is_refused_and_the_mac_cannot_be_made(mesh: Path) -> None:
    """Taken although nothing shows that it is right, whom the mesh trusts is checked all the same."""
    changed(mesh, store=add_root, manifest={"mac": ""})
    with pytest.raises(StoreError, match=r"made without the key-encryption key.* --unverified"):
        restored(mesh, "changed")
    with pytest.raises(BackupDamaged, match=r"authority [0-9a-f]{32} was added"):
        restored(mesh, "changed", unverified=True)
    for mac in ("00" * 32, "é", "x"):
        changed(mesh, manifest={"mac": mac})
        with pytest.raises(BackupDamaged, match="has changed it"):
            restored(mesh, "changed", unverified=True)


def test_j06_what_could_not_be_verified_is_said(mesh: Path) -> None:
    """A backup that was made where the KEK is not."""
    changed(mesh, manifest={"mac": ""})
    (only,) = restored(mesh, "changed", unverified=True).unverified
    assert "so nothing shows that it is as it was made" in only
    with opened(mesh.parent) as desk:
        assert len(desk.revocations()) == 3


def test_j06_nothing_is_restored_without_the_kek(mesh: Path) -> None:
    """Neither verified nor otherwise: what happened since could not be vouched for. The way out is said."""
    before = contents(mesh)
    for unverified in (False, True):
        with pytest.raises(StoreError, match=r"kek\.key, mode 0400\), or name it: --kek-file FILE"):
            restored(mesh, kek=None, unverified=unverified)
    assert contents(mesh) == before


def test_j06_a_backup_of_before_the_kek_was_exchanged_needs_that_one(mesh: Path) -> None:
    """It is named; with it, it is restored, and starts with it."""
    old = kek_of(mesh)
    with closing(SqliteStore.open(mesh / "hauberk.db")) as store:
        rotate_kek(mesh, None, store, lambda count: bytes(range(7, 7 + count)))
    with pytest.raises(StoreError, match=r"needs the key-encryption key [0-9a-f]{32}, the one at hand is [0-9a-f]{32}"):
        restored(mesh)
    restored(mesh, kek=old)
    with pytest.raises(StartError, match="is not the key-encryption key"), opened(mesh.parent):
        pass
    (mesh / "kek.key").chmod(0o600)
    (mesh / "kek.key").write_bytes(old)
    (mesh / "kek.key").chmod(0o400)
    with opened(mesh.parent) as desk:
        assert len(desk.revocations()) == 3


def test_j06_an_older_backup_is_taken_on_an_operators_word(mesh: Path) -> None:
    """Nothing in it is vouched for; nor does it start before somebody has vouched for it."""
    changed(mesh, store=lambda connection: connection.execute("DELETE FROM trust_seal"), manifest={"mac": ""})
    with pytest.raises(StoreError, match="--unverified"):
        restored(mesh, "changed")
    told = restored(mesh, "changed", unverified=True).unverified
    assert "hauberk ca vouch" in told[1]
    with pytest.raises(StartError, match="hauberk ca vouch"), opened(mesh.parent):
        pass


def test_j06_a_backup_is_made_with_the_databases_kek_only(mesh: Path) -> None:
    """With another one it could never be verified."""
    with pytest.raises(StoreError, match="name the right one: --kek-file"):
        make(mesh, mesh.parent / "other", release="1", now=NOW, kek=KEK)
    assert not (mesh.parent / "other").exists()


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "release": st.text(max_size=5),
    "made_at": st.floats(0, 2e9),
    "trust_domain": st.text(max_size=5),
    "epoch": st.integers(0, 1 << 62),
    "revision": st.integers(0, 1 << 40),
    "audit_head": st.text(max_size=5),
}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(FIELDS)))
def test_j06_every_field_of_a_manifest_is_under_its_mac(data: st.DataObject, name: str) -> None:
    """And under that KEK alone."""
    part = backup.Part(octets=1, sha256="00")
    told = {one: data.draw(kind) for one, kind in FIELDS.items()}
    made = Manifest(**told, kek_id="aa", parts={"hauberk.db": part})
    mac = made.mac_with(KEK)
    assert Manifest(**told, kek_id="aa", parts={"hauberk.db": part}, mac=mac).is_made_with(KEK)
    other = data.draw(FIELDS[name].filter(lambda one: one != told[name]))
    for wrong in (
        Manifest(**told | {name: other}, kek_id="aa", parts={"hauberk.db": part}, mac=mac),
        Manifest(**told, kek_id="ab", parts={"hauberk.db": part}, mac=mac),
        Manifest(**told, kek_id="aa", parts={"audit.jsonl": part}, mac=mac),
        Manifest(**told, kek_id="aa", parts={"hauberk.db": backup.Part(octets=2, sha256="00")}, mac=mac),
    ):
        assert not wrong.is_made_with(KEK)
    assert not Manifest(**told, kek_id="aa", parts={"hauberk.db": part}, mac=mac).is_made_with(bytes(32))


def test_the_manifest_in_the_file_is_the_one_that_was_made(mesh: Path) -> None:
    """As JSON and back, its MAC is right."""
    with reading(mesh.parent / "backup") as (manifest, _):
        assert manifest.is_made_with(kek_of(mesh))
