"""sidecar.identity.state: what is written is read back, and what is not ours alone is refused with the way out."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from certs.node_key import public_der
from sidecar.config import Config
from sidecar.identity.errors import StateError
from sidecar.identity.state import StateDir, new_node
from tests.sidecar.mesh import WEB, Mesh

MESH = Mesh()
CONFIG = Config(service="web", namespace="shop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state directory in which web has joined."""
    path = tmp_path / "state"
    node = replace(new_node(15011, (MESH.root.der,)), spiffe_id=WEB)
    state = StateDir(str(path))
    state.save_key(node)
    state.save(CONFIG, node)
    state.close()
    return path


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """The key, the anchors, the port and who we are; first there is nothing."""
    state = StateDir(str(tmp_path / "state"))
    assert state.load(CONFIG) is None
    node = replace(new_node(15011, (MESH.root.der,)), spiffe_id=WEB)
    state.save_key(node)
    assert state.load(CONFIG) is None, "a key that nobody was told of is no node"
    state.save(CONFIG, node)
    found = state.load(CONFIG)
    assert found is not None
    assert public_der(found.key) == public_der(node.key)
    assert found.node_id == node.node_id
    assert (found.join_port, found.anchors_der, found.spiffe_id) == (15011, (MESH.root.der,), WEB)
    assert "PRIVATE" not in repr(found)
    state.close()


def test_a_node_that_may_not_have_joined_is_known_as_that(tmp_path: Path) -> None:
    """Killed between spending the token and hearing the answer."""
    state = StateDir(str(tmp_path / "state"))
    node = new_node(15011, (MESH.root.der,))
    state.save_key(node)
    state.save(CONFIG, node)
    found = state.load(CONFIG)
    assert found is not None
    assert found.spiffe_id is None
    state.close()


def test_modes_are_0700_and_0600_whatever_the_umask(tmp_path: Path) -> None:
    """Nobody else reads the key, and nothing temporary is left."""
    before = os.umask(0)
    try:
        state = StateDir(str(tmp_path / "state"))
        node = new_node(15011, (MESH.root.der,))
        state.save_key(node)
        state.save(CONFIG, node)
        state.close()
    finally:
        os.umask(before)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "state").iterdir()}
    assert modes == {"node.key": 0o600, "node.json": 0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o770])
def test_a_directory_that_others_reach_is_refused(path: Path, mode: int) -> None:
    """Mode wrong: the error says which and what to do."""
    path.chmod(mode)
    with pytest.raises(StateError, match=rf"mode is {mode:04o}.*chmod it to 0700"):
        StateDir(str(path))


@pytest.mark.parametrize("name", ["node.key", "node.json"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_read_or_write_is_refused(path: Path, name: str, mode: int) -> None:
    """Whoever read the key could be us; whoever wrote the anchors chooses our control plane."""
    (path / name).chmod(mode)
    state = StateDir(str(path))
    with pytest.raises(StateError, match=f"{name}: mode is {mode:04o}.*chmod it to 0600"):
        state.load(CONFIG)
    state.close()


@pytest.mark.parametrize("name", ["node.key", "node.json"])
def test_symbolic_links_are_not_followed(path: Path, name: str, tmp_path: Path) -> None:
    """Neither to the directory nor in it."""
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(StateError, match="no symbolic link"):
        StateDir(str(link))
    elsewhere = tmp_path / "elsewhere"
    (path / name).rename(elsewhere)
    (path / name).symlink_to(elsewhere)
    state = StateDir(str(path))
    with pytest.raises(StateError, match="no symbolic link"):
        state.load(CONFIG)
    state.close()


@pytest.mark.parametrize("name", ["node.key", "node.json"])
def test_what_is_no_file_is_refused_and_not_waited_for(path: Path, name: str) -> None:
    """A FIFO would hold up whoever opens it."""
    (path / name).unlink()
    os.mkfifo(path / name, 0o600)
    state = StateDir(str(path))
    with pytest.raises(StateError, match="is no file"):
        state.load(CONFIG)
    state.close()


def test_what_belongs_to_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner wrong: theirs to read and to change."""
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StateError, match=r"belongs to user \d+, we are \d+; chown it"):
        StateDir(str(path))


def test_a_second_sidecar_is_kept_out(path: Path) -> None:
    """Two holders of one node key would be taken for a thief and a victim."""
    first = StateDir(str(path))
    with pytest.raises(StateError, match="another sidecar uses it"):
        StateDir(str(path))
    first.close()
    StateDir(str(path)).close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Its parent is missing, or a file is in its place."""
    with pytest.raises(StateError, match="cannot be made"):
        StateDir(str(tmp_path / "no" / "where"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="must be a directory"):
        StateDir(str(tmp_path / "file"))


@pytest.mark.parametrize(
    "config",
    [
        Config(service="orders", namespace="shop"),
        Config(service="web", namespace="other"),
        Config(service="web", namespace="shop", trust_domain="other.local"),
    ],
)
def test_the_state_of_another_sidecar_is_refused(path: Path, config: Config) -> None:
    """Each has its own."""
    state = StateDir(str(path))
    with pytest.raises(StateError, match=r"is of web\.shop in mesh\.local|cannot be read"):
        state.load(config)
    state.close()


DAMAGED = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "nothing in it": b"{}",
    "too long": b" " * 2_000_000,
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("name", ["node.key", "node.json"])
def test_damaged_files_are_refused(path: Path, name: str, what: str) -> None:
    """With the way out, and without a part of the content."""
    (path / name).write_bytes(DAMAGED[what])
    state = StateDir(str(path))
    with pytest.raises(StateError, match=f"{name}.*join with a new token"):
        state.load(CONFIG)
    state.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("join_port", 0), ("join_port", "15011"), ("anchors_der", []), ("anchors_der", ["AAAA"]), ("spiffe_id", "x"),
     ("spiffe_id", 1), ("format", 2)],
)  # fmt: skip
def test_fields_that_cannot_be_are_refused(path: Path, field: str, value: object) -> None:
    """No anchors would be nobody to trust, and no port nowhere to ask."""
    found = json.loads((path / "node.json").read_text())
    (path / "node.json").write_text(json.dumps({**found, field: value}))
    state = StateDir(str(path))
    with pytest.raises(StateError, match=r"node\.json"):
        state.load(CONFIG)
    state.close()


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R31: the disk is full. Nothing temporary stays either; what a killed process left is swept at the next start."""
    before = (path / "node.json").read_bytes()
    state = StateDir(str(path))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            state.write("node.json", b"new")
    assert (path / "node.json").read_bytes() == before
    assert {one.name for one in path.iterdir()} == {"node.key", "node.json"}
    state.close()
    (path / ".node.json.0badf00d").write_bytes(b"half")
    StateDir(str(path)).close()
    assert {one.name for one in path.iterdir()} == {"node.key", "node.json"}


def test_j09_a_file_nested_without_end_is_refused_with_the_way_out(path: Path) -> None:
    """Not with an error nobody expects."""
    (path / "node.json").write_text("[" * 100_000)
    state = StateDir(str(path))
    with pytest.raises(StateError, match="cannot be read"):
        state.load(CONFIG)
    state.close()
