"""Files that only their owner may touch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.ca import files
from control_plane.ca.errors import CaStateError


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd, tmp_path
    os.close(fd)


def test_a_file_is_made_once_and_never_over_another(directory: tuple[int, Path]) -> None:
    """The second writer is refused and leaves nothing behind; the first one's bytes stay."""
    fd, path = directory
    files.write_atomically(fd, path / "secret", b"first", 0o400)
    with pytest.raises(CaStateError, match="appeared while this start was creating it"):
        files.write_atomically(fd, path / "secret", b"second", 0o400)
    assert [one.name for one in path.iterdir()] == ["secret"]
    assert (path / "secret").read_bytes() == b"first"
    assert stat.S_IMODE((path / "secret").stat().st_mode) == 0o400


def test_a_link_in_the_way_is_not_written_through(directory: tuple[int, Path]) -> None:
    """Row J05: a dangling link planted under our name must not choose where a secret goes."""
    fd, path = directory
    for name in ("secret", ".secret.new"):
        (path / name).symlink_to(path / "elsewhere")
        with pytest.raises(CaStateError):
            files.write_atomically(fd, path / "secret", b"key", 0o400)
        (path / name).unlink()
    assert not (path / "elsewhere").exists()


def test_what_was_written_is_what_is_read(directory: tuple[int, Path]) -> None:
    """And only with the mode and owner it was written with."""
    fd, path = directory
    files.write_new(fd, "secret", b"key", 0o600)
    assert files.read_private(fd, path / "secret", os.geteuid(), 0o600) == b"key"
    with pytest.raises(CaStateError, match=r"has mode 0600; it must be 0400.*chmod 400"):
        files.read_private(fd, path / "secret", os.geteuid(), 0o400)
    with pytest.raises(FileNotFoundError):
        files.read_private(fd, path / "nothing", os.geteuid(), 0o600)


def test_no_descriptor_is_left_open(directory: tuple[int, Path]) -> None:
    """Whatever is refused."""
    fd, path = directory
    files.write_new(fd, "secret", b"key", 0o600)
    (path / "sub").mkdir(mode=0o755)
    os.mkfifo(path / "fifo", 0o600)

    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for name in ("secret", "sub", "fifo"):
        with pytest.raises(CaStateError):
            files.read_private(fd, path / name, os.geteuid(), 0o400)
    with pytest.raises(CaStateError):
        files.open_directory(path / "secret", os.geteuid())
    (path / "sub").chmod(0o755)
    with pytest.raises(CaStateError):
        files.open_directory(path / "sub", os.geteuid())
    assert count() == before


def test_what_to_type_can_be_typed(directory: tuple[int, Path]) -> None:
    """Names with spaces and quotes are quoted for the shell."""
    _, path = directory
    odd = path / "a 'b; rm -rf"
    odd.mkdir()
    odd.chmod(0o755)
    with pytest.raises(CaStateError) as caught:
        files.open_directory(odd, os.geteuid())
    assert caught.value.remedy.endswith(files.quoted(odd))
    assert files.quoted(odd).startswith("'")
