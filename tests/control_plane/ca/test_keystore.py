"""States of the data directory: empty, whole, and all the others, which are refused and left as they are."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from certs.spiffe_id import TrustDomain
from control_plane.ca import files
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaStateError
from control_plane.ca.keystore import Keystore

NOW = 1_800_000_000.25
TD = TrustDomain.parse("mesh.local")

Tree: TypeAlias = dict[str, tuple[int, int, int, bytes]]


def tree(directory: Path) -> Tree:
    """Everything below a directory and itself: (mode, owner, time of change in ns, content or link target)."""
    found: Tree = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        facts = path.lstat()
        content = b""
        if stat.S_ISLNK(facts.st_mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(facts.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (facts.st_mode, facts.st_uid, facts.st_mtime_ns, content)
    return found


def open_ca(data_dir: Path, **changes: object) -> CertificateAuthority:
    return CertificateAuthority.open(data_dir, TD, now=NOW, **changes)  # type: ignore[arg-type]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A whole state."""
    directory = tmp_path / "data dir"
    open_ca(directory)
    return directory


def test_the_first_start_makes_a_root_and_the_next_finds_it(tmp_path: Path) -> None:
    """Same anchor, same pin, and nothing is written the second time."""
    first = open_ca(tmp_path / "new" / "data")
    before = tree(tmp_path)
    second = open_ca(tmp_path / "new" / "data")
    assert (first.anchor_der, first.pin) == (second.anchor_der, second.pin)
    assert tree(tmp_path) == before


def test_an_existing_empty_directory_is_used(tmp_path: Path) -> None:
    """Other files in it (the store's) do not matter."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "hauberk.db").write_bytes(b"the store's")
    assert open_ca(tmp_path / "data").pin == open_ca(tmp_path / "data").pin


def test_j05_what_is_made_is_for_its_owner_alone(data_dir: Path) -> None:
    """Row J05, at birth."""
    modes = {name: stat.S_IMODE(facts[0]) for name, facts in tree(data_dir).items()}
    assert modes == {
        ".": 0o700,
        "ca": 0o700,
        "ca/root.crt": 0o600,
        "ca/root.key.enc": 0o600,
        "kek.key": 0o400,
    }


def test_j05_a_generous_umask_changes_nothing(tmp_path: Path) -> None:
    """Modes are set, not hoped for."""
    before = os.umask(0)
    try:
        open_ca(tmp_path / "data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data" / "kek.key").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "data" / "ca").stat().st_mode) == 0o700


def test_the_key_is_nowhere_on_disk_in_clear(data_dir: Path) -> None:
    """Encrypted at rest: neither PEM nor the DER of a private key."""
    everything = b"".join(content for *_, content in tree(data_dir).values())
    key = open_ca(data_dir)._root.private_key
    assert key.private_numbers().private_value.to_bytes(32, "big") not in everything
    assert b"PRIVATE KEY" not in everything


def flip(path: Path, index: int) -> None:
    data = bytearray(path.read_bytes())
    data[index] ^= 1
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)


def replace(path: Path, data: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)


def link_away(path: Path) -> None:
    real = path.with_name(path.name + ".real")
    path.rename(real)
    path.symlink_to(real)


def swap_in_another_ca(data_dir: Path, *names: str) -> None:
    other = data_dir.parent / "other"
    open_ca(other)
    for name in names:
        (data_dir / name).unlink()
        shutil.copy2(other / name, data_dir / name)


def unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o600)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


# id: (row, what the message says, what is done to a whole state)
DAMAGE: dict[str, tuple[str, list[str], Callable[[Path], object]]] = {
    "j05 directory open to others": (
        "J05",
        ["data dir: has mode 0755; it must be 0700", "chmod 700 '"],
        lambda d: d.chmod(0o755),
    ),
    "j05 directory open to the group": ("J05", ["has mode 0750", "chmod 700 '"], lambda d: d.chmod(0o750)),
    "j05 ca directory open to others": ("J05", ["/ca: has mode 0711", "chmod 700"], lambda d: (d / "ca").chmod(0o711)),
    "j05 key readable by others": (
        "J05",
        ["/ca/root.key.enc: has mode 0644; it must be 0600", "chmod 600"],
        lambda d: (d / "ca/root.key.enc").chmod(0o644),
    ),
    "j05 certificate writable by the group": (
        "J05",
        ["/ca/root.crt: has mode 0620", "chmod 600"],
        lambda d: (d / "ca/root.crt").chmod(0o620),
    ),
    "j05 KEK readable by the group": (
        "J05",
        ["/kek.key: has mode 0440; it must be 0400", "chmod 400"],
        lambda d: (d / "kek.key").chmod(0o440),
    ),
    "j05 KEK writable": ("J05", ["/kek.key: has mode 0600", "chmod 400"], lambda d: (d / "kek.key").chmod(0o600)),
    "j05 set-uid key": ("J05", ["has mode 4600"], lambda d: (d / "ca/root.key.enc").chmod(0o4600)),
    "j05 ca directory a link": ("J05", ["/ca: is a symbolic link"], lambda d: link_away(d / "ca")),
    "j05 key a link": ("J05", ["root.key.enc: is a symbolic link"], lambda d: link_away(d / "ca/root.key.enc")),
    "j05 certificate a link": ("J05", ["root.crt: is a symbolic link"], lambda d: link_away(d / "ca/root.crt")),
    "j05 KEK a link": ("J05", ["kek.key: is a symbolic link"], lambda d: link_away(d / "kek.key")),
    "j05 key a FIFO": ("J05", ["root.key.enc: is not a regular file"], lambda d: fifo(d / "ca/root.key.enc")),
    "j06 key missing": (
        "J06",
        ["root.key.enc: is missing, while ", "root.crt and ", "kek.key is there", "Restore it", "never made over"],
        lambda d: (d / "ca/root.key.enc").unlink(),
    ),
    "j06 certificate missing": ("J06", ["root.crt: is missing"], lambda d: (d / "ca/root.crt").unlink()),
    "j06 KEK missing": (
        "J06",
        ["kek.key: is missing, while ", "Restore it from a backup"],
        lambda d: (d / "kek.key").unlink(),
    ),
    "j06 ca directory missing": (
        "J06",
        ["/ca: is missing, while ", "kek.key is there", "If this data directory never held a CA"],
        lambda d: shutil.rmtree(d / "ca"),
    ),
    "j06 only the certificate left": (
        "J06",
        ["is missing, while ", "root.crt is there"],
        lambda d: unlink(d / "kek.key", d / "ca/root.key.enc"),
    ),
    "j06 only the encrypted key left": (
        "J06",
        ["root.crt: is missing"],
        lambda d: unlink(d / "kek.key", d / "ca/root.crt"),
    ),
    "j06 ca directory emptied, KEK gone": (
        "J06",
        ["is missing, and so is everything beside it"],
        lambda d: unlink(d / "kek.key", d / "ca/root.crt", d / "ca/root.key.enc"),
    ),
    "j06 key damaged": (
        "J06",
        ["root.key.enc: damaged, or encrypted with another key-encryption key", "Is ", "the one it was made with?"],
        lambda d: flip(d / "ca/root.key.enc", -1),
    ),
    "j06 key cut short": (
        "J06",
        ["root.key.enc: not an encrypted CA key, or cut short"],
        lambda d: replace(d / "ca/root.key.enc", (d / "ca/root.key.enc").read_bytes()[:60]),
    ),
    "j06 key empty": ("J06", ["cut short"], lambda d: replace(d / "ca/root.key.enc", b"")),
    "j06 key in clear": (
        "J06",
        ["not an encrypted CA key"],
        lambda d: replace(d / "ca/root.key.enc", b"-----BEGIN PRIVATE KEY-----\n"),
    ),
    "j06 key huge": ("J06", ["larger than 65536 bytes"], lambda d: replace(d / "ca/root.key.enc", bytes(70_000))),
    "j06 KEK wrong": ("J06", ["encrypted with another key-encryption key"], lambda d: flip(d / "kek.key", 7)),
    "j06 KEK of another CA": (
        "J06",
        ["encrypted with another key-encryption key"],
        lambda d: swap_in_another_ca(d, "kek.key"),
    ),
    "j06 KEK cut short": ("J06", ["kek.key: has 5 bytes instead of 32"], lambda d: replace(d / "kek.key", b"short")),
    "j06 certificate of another CA": (
        "J06",
        ["root.crt: the certificate belongs to another key"],
        lambda d: swap_in_another_ca(d, "ca/root.crt"),
    ),
    "j06 key and KEK of another CA": (
        "J06",
        ["root.crt: the certificate belongs to another key"],
        lambda d: swap_in_another_ca(d, "kek.key", "ca/root.key.enc"),
    ),
    "j06 certificate not PEM": ("J06", ["not a certificate in PEM"], lambda d: replace(d / "ca/root.crt", b"hello")),
    "j04 certificate damaged": ("", ["root.crt: "], lambda d: flip(d / "ca/root.crt", 200)),
    "j04 a directory in place of the key": (
        "J05",
        ["root.key.enc: is not a regular file"],
        lambda d: directory_instead(d / "ca/root.key.enc"),
    ),
}


@pytest.mark.parametrize(("row", "says", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_j_a_state_that_does_not_open_is_refused_and_left_as_it_is(
    row: str, says: list[str], damage: Callable[[Path], object], data_dir: Path
) -> None:
    """Rows J04 to J06: the message names the file and what to do; not a byte, mode or time changes; twice the same."""
    damage(data_dir)
    before = tree(data_dir)
    for _ in range(2):
        with pytest.raises(CaStateError) as caught:
            open_ca(data_dir)
        for part in says:
            assert part in str(caught.value)
        assert caught.value.row == row or not row
        assert tree(data_dir) == before


def test_j05_a_file_of_another_owner_is_refused(data_dir: Path) -> None:
    """Row J05: whoever owns a file can change it. (Asked as if we were somebody else: that needs no root.)"""
    before = tree(data_dir)
    me = os.geteuid()
    store = Keystore(data_dir=data_dir, kek_file=data_dir / "kek.key", owner_uid=me + 1)
    wanted = f"belongs to uid {me}, but the control plane runs as uid {me + 1}"
    with pytest.raises(CaStateError, match=wanted), store.locked():
        pass
    fd = files.open_directory(data_dir, me)
    try:
        with pytest.raises(CaStateError, match="chown"):
            files.read_private(fd, data_dir / "kek.key", me + 1, 0o400)
    finally:
        os.close(fd)
    assert tree(data_dir) == before


def test_j05_a_data_directory_that_is_a_link_is_refused(data_dir: Path, tmp_path: Path) -> None:
    """Row J05: the directory itself, please."""
    (tmp_path / "link").symlink_to(data_dir)
    with pytest.raises(CaStateError, match="link: is a symbolic link"):
        open_ca(tmp_path / "link")


def test_j05_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A typing mistake gets a message, not a traceback."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CaStateError, match="file: cannot be opened"):
        open_ca(tmp_path / "file")


def test_an_empty_directory_with_a_wrong_mode_stays_empty(tmp_path: Path) -> None:
    """Row J05 at the first start: no secret is written where others can read."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    with pytest.raises(CaStateError, match="chmod 700"):
        open_ca(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_the_kek_may_be_kept_elsewhere(tmp_path: Path) -> None:
    """A copy of the data directory alone is then worth nothing."""
    (tmp_path / "elsewhere").mkdir()
    kek = tmp_path / "elsewhere" / "hauberk.kek"
    first = open_ca(tmp_path / "data", kek_file=kek)
    assert stat.S_IMODE(kek.stat().st_mode) == 0o400
    assert not (tmp_path / "data" / "kek.key").exists()
    assert open_ca(tmp_path / "data", kek_file=kek).pin == first.pin
    with pytest.raises(CaStateError, match=r"kek\.key: is missing"):
        open_ca(tmp_path / "data")


def test_j06_a_kek_of_somebody_else_is_never_overwritten(tmp_path: Path) -> None:
    """Row J06: it may be all that opens another CA."""
    (tmp_path / "kek").write_bytes(b"k" * 32)
    (tmp_path / "kek").chmod(0o400)
    with pytest.raises(CaStateError, match="is missing, while"):
        open_ca(tmp_path / "data", kek_file=tmp_path / "kek")
    assert (tmp_path / "kek").read_bytes() == b"k" * 32
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_directory_for_the_kek_says_what_to_type(tmp_path: Path) -> None:
    """It is not created: a mistyped path would put the KEK on the wrong disk."""
    with pytest.raises(CaStateError, match="mkdir -m 700"):
        open_ca(tmp_path / "data", kek_file=tmp_path / "nowhere" / "kek")
    assert not (tmp_path / "nowhere").exists()


def test_two_starts_at_once_do_not_make_two_roots(data_dir: Path) -> None:
    """Whoever comes second is told so."""
    fd = os.open(data_dir, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(CaStateError, match="another control plane is starting"):
            open_ca(data_dir)
    finally:
        os.close(fd)
    open_ca(data_dir)


class PowerCut(BaseException):
    """The process is gone: no handler of ours runs, only the kernel closes descriptors."""


def fail_at(step: int, failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The step-th call that touches the disk fails. Returns what was called, as it happens."""
    calls: list[str] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def watched(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if len(calls) == step:
                raise failure
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, watched)

    for name in ("mkdir", "open", "fchmod", "fsync", "rename", "unlink", "rmdir"):
        watch(name)
    return calls


def test_a_first_start_that_is_killed_at_any_moment_is_finished_or_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to mend what a power cut did to a CA that was never used; and the start after next agrees."""
    step, calls = 0, list[str]()
    while len(calls) >= step:
        step += 1
        data_dir = tmp_path / f"data{step}"
        with monkeypatch.context() as patched:
            calls = fail_at(step, PowerCut(), patched)
            try:
                open_ca(data_dir)
            except PowerCut:
                pass
        first = open_ca(data_dir)
        assert open_ca(data_dir).pin == first.pin
        assert sorted(tree(data_dir)) == [".", "ca", "ca/root.crt", "ca/root.key.enc", "kek.key"]
    assert {"mkdir", "fsync", "rename"} <= set(calls)


def test_a_recovery_that_is_killed_at_any_moment_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power cuts come in groups."""
    for kek_was_written in (False, True):
        step, calls = 0, list[str]()
        while len(calls) >= step:
            step += 1
            data_dir = tmp_path / f"data{kek_was_written}{step}"
            open_ca(data_dir)
            (data_dir / "ca").rename(data_dir / "ca.new")
            if not kek_was_written:
                (data_dir / "kek.key").rename(data_dir / ".kek.key.new")
            with monkeypatch.context() as patched:
                calls = fail_at(step, PowerCut(), patched)
                try:
                    open_ca(data_dir)
                except PowerCut:
                    pass
            assert open_ca(data_dir).pin == open_ca(data_dir).pin
            assert sorted(tree(data_dir)) == [".", "ca", "ca/root.crt", "ca/root.key.enc", "kek.key"]


def test_j06_an_unfinished_start_whose_key_does_not_open_is_refused(data_dir: Path) -> None:
    """Row J06: with a KEK present nothing is thrown away."""
    (data_dir / "ca").rename(data_dir / "ca.new")
    flip(data_dir / "kek.key", 3)
    before = tree(data_dir)
    with pytest.raises(CaStateError, match="another key-encryption key"):
        open_ca(data_dir)
    assert tree(data_dir) == before


def test_an_unfinished_start_with_foreign_files_is_refused(data_dir: Path) -> None:
    """Only what we make is ever removed."""
    (data_dir / "ca").rename(data_dir / "ca.new")
    (data_dir / "kek.key").unlink()
    (data_dir / "ca.new" / "notes.txt").write_bytes(b"do not lose")
    before = tree(data_dir)
    with pytest.raises(CaStateError, match="holds files that an interrupted start does not leave"):
        open_ca(data_dir)
    assert tree(data_dir) == before


def refusal_of(data_dir: Path) -> CaStateError | None:
    try:
        open_ca(data_dir)
    except CaStateError as refusal:
        return refusal
    return None


def test_j03_a_disk_that_fails_at_any_moment_gets_a_message_and_the_next_start_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row J03: a full disk at the first start commits nothing, or something whole."""
    step, calls = 0, list[str]()
    while len(calls) >= step:
        step += 1
        data_dir = tmp_path / f"data{step}"
        with monkeypatch.context() as patched:
            calls = fail_at(step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), patched)
            refusal = refusal_of(data_dir)
        assert refusal is None or "No space left on device" in str(refusal)
        assert (refusal is None) == (len(calls) < step)
        assert open_ca(data_dir).pin == open_ca(data_dir).pin
        assert sorted(tree(data_dir)) == [".", "ca", "ca/root.crt", "ca/root.key.enc", "kek.key"]
    assert step > 15


def test_a_kek_that_somebody_else_is_just_writing_is_left_alone(tmp_path: Path) -> None:
    """Two data directories that share one KEK path by mistake: the second is refused, and nothing of it stays."""
    (tmp_path / ".kek.new").write_bytes(b"half a k")
    with pytest.raises(CaStateError, match=r"\.kek\.new: is left from a start that was interrupted.* rm "):
        open_ca(tmp_path / "data", kek_file=tmp_path / "kek")
    assert sorted(tree(tmp_path)) == [".", ".kek.new", "data"]
    (tmp_path / ".kek.new").unlink()
    open_ca(tmp_path / "data", kek_file=tmp_path / "kek")
