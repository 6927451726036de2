"""Another key-encryption key: all is sealed anew, and a power cut at any point leaves one that opens everything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from certs.csr import make_csr
from certs.spiffe_id import SpiffeId
from certs.svid import new_private_key
from control_plane.ca.errors import CaStateError
from control_plane.ca.rekey import rotate_kek
from control_plane.errors import Unavailable
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.ca.crash import PowerCut, fail_at
from tests.control_plane.support import NOW, TD, open_ca

WEB = SpiffeId.for_workload(TD, "shop", "web")


def rotate(data_dir: Path, kek_file: Path | None = None) -> str:
    with closing(SqliteStore.open(data_dir / "hauberk.db")) as store:
        return rotate_kek(data_dir, kek_file, store, os.urandom)


def opens(data_dir: Path, **changes: object) -> None:
    """Every key, and it signs."""
    ca = open_ca(data_dir, NOW + 1, **changes)
    ca.issue(WEB, make_csr(new_private_key(), None), 60, NOW + 1)
    for one in ca.authorities:
        ca._vault.unseal(one)


def test_all_keys_are_sealed_anew_and_the_authorities_stay(tmp_path: Path) -> None:
    """Another file of 32 bytes with the same mode; the old one opens nothing any more."""
    data_dir = tmp_path / "cp"
    before = open_ca(data_dir).authorities
    old = (data_dir / "kek.key").read_bytes()
    told = rotate(data_dir)
    new = (data_dir / "kek.key").read_bytes()
    assert old != new
    assert old.hex() not in told
    assert stat.S_IMODE((data_dir / "kek.key").stat().st_mode) == 0o400
    opens(data_dir)
    after = open_ca(data_dir).authorities
    assert [one.authority_id for one in after] == [one.authority_id for one in before]
    assert not {one.sealed_key for one in after} & {one.sealed_key for one in before}
    (data_dir / "kek.key").chmod(0o600)
    (data_dir / "kek.key").write_bytes(old)
    (data_dir / "kek.key").chmod(0o400)
    with pytest.raises(CaStateError, match="is not the key-encryption key"):
        open_ca(data_dir)


def test_a_kek_elsewhere_is_replaced_where_it_is(tmp_path: Path) -> None:
    """Nothing is left beside it."""
    (tmp_path / "keys").mkdir()
    kek = tmp_path / "keys" / "mesh.kek"
    open_ca(tmp_path / "cp", kek_file=kek)
    rotate(tmp_path / "cp", kek)
    assert [path.name for path in kek.parent.iterdir()] == ["mesh.kek"]
    opens(tmp_path / "cp", kek_file=kek)


@pytest.mark.parametrize("next_is", ["a start", "another change"])
def test_killed_at_any_point_the_next_start_completes_or_undoes_it(
    next_is: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always one KEK in its place that opens everything, and no other one."""
    step, reached, seen = 0, [""], set[str]()
    while len(reached) >= step:
        step += 1
        data_dir = tmp_path / f"data{step}"
        open_ca(data_dir)
        with closing(SqliteStore.open(data_dir / "hauberk.db")) as store, monkeypatch.context() as patched:
            reached = fail_at(step, PowerCut(), patched)
            with suppress(PowerCut):
                rotate_kek(data_dir, None, store, os.urandom)
        seen |= set(reached)
        if next_is == "another change":
            rotate(data_dir)
        opens(data_dir)
        assert not list(data_dir.glob("kek.key.*"))
    assert {"fsync", "rename", "after put_authority", "change_fact"} <= seen


def test_j06_a_wrong_or_missing_kek_is_not_replaced(tmp_path: Path) -> None:
    """Nothing changes: it may be found again."""
    data_dir = tmp_path / "cp"
    open_ca(data_dir)
    right = (data_dir / "kek.key").read_bytes()
    (data_dir / "kek.key").unlink()
    with pytest.raises(CaStateError, match="is missing"):
        rotate(data_dir)
    (data_dir / "kek.key").write_bytes(bytes(range(32)))
    (data_dir / "kek.key").chmod(0o400)
    with pytest.raises(CaStateError, match="is not the key-encryption key"):
        rotate(data_dir)
    (data_dir / "kek.key").unlink()
    (data_dir / "kek.key").write_bytes(right)
    (data_dir / "kek.key").chmod(0o400)
    opens(data_dir)


@pytest.mark.parametrize("is_done", [True, False])
def test_a_commit_that_failed_and_is_found_done_loses_no_key(
    is_done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write-ahead log whose fsync failed may be there after a crash, with the commit in it: then the new KEK is the
    only one that opens anything, and it is still there. Else the next start throws it away."""
    data_dir = tmp_path / "cp"
    open_ca(data_dir)
    before = (data_dir / "kek.key").read_bytes()
    with closing(SqliteStore.open(data_dir / "hauberk.db")) as store, monkeypatch.context() as patched:
        begin = store.transaction

        @contextmanager
        def failing() -> Iterator[None]:
            patched.undo()  # those within it are not the one that commits
            with begin():
                yield
                if not is_done:
                    raise Unavailable("the disk fails")
            raise Unavailable("the disk fails")

        patched.setattr(store, "transaction", failing)
        with pytest.raises(Unavailable):
            rotate_kek(data_dir, None, store, os.urandom)
    assert (data_dir / "kek.key.next").exists()
    opens(data_dir)
    assert ((data_dir / "kek.key").read_bytes() == before) is not is_done
    assert not (data_dir / "kek.key.next").exists()


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    """The audit record is part of it."""
    data_dir = tmp_path / "cp"
    open_ca(data_dir)
    before = (data_dir / "kek.key").read_bytes()

    def full(kek: str) -> None:
        raise OSError(f"no space for {kek}")

    with closing(SqliteStore.open(data_dir / "hauberk.db")) as store, pytest.raises(OSError, match="no space"):
        rotate_kek(data_dir, None, store, os.urandom, recorded=full)
    assert (data_dir / "kek.key").read_bytes() == before
    opens(data_dir)
