"""What cannot start says why in one line and leaves everything as it was: control plane and sidecar."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import HAUBERK, Inbound, Mesh


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mesh, Path]]:
    """A mesh without a control plane running, and the data directory one has left."""
    with Mesh(tmp_path_factory.mktemp("starts")) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.token("orders")
        assert control_plane.stop() == 0
        yield mesh, mesh.data_dir


@pytest.fixture
def data_dir(used: tuple[Mesh, Path]) -> Iterator[Path]:
    """A copy to be harmed."""
    mesh, original = used
    copy = mesh.directory / "copy"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("*.sock"))
    yield copy
    shutil.rmtree(copy)


def contents(directory: Path) -> dict[str, tuple[int, str]]:
    """Path -> mode and digest of everything in a directory."""
    return {
        str(path.relative_to(directory)): (
            stat.S_IMODE(path.lstat().st_mode),
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in [directory, *directory.rglob("*")]
    }


def refused(mesh: Mesh, data_dir: Path, *arguments: str) -> str:
    """The one line with which it does not start."""
    command = ["control-plane", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", "--join-listen", "127.0.0.1:0"]
    run = mesh.hauberk(*command, *arguments)
    lines = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert (run.returncode, run.stdout, len(lines)) == (1, "", 1), run.stderr
    return lines[0]


def harm_directory_mode(data_dir: Path) -> str:
    data_dir.chmod(0o755)
    return f"chmod 700 {data_dir}"


def harm_kek_mode(data_dir: Path) -> str:
    (data_dir / "kek.key").chmod(0o444)
    return str(data_dir / "kek.key")


def harm_kek_missing(data_dir: Path) -> str:
    (data_dir / "kek.key").unlink()
    return str(data_dir / "kek.key")


def harm_kek_other(data_dir: Path) -> str:
    (data_dir / "kek.key").chmod(0o600)
    (data_dir / "kek.key").write_bytes(bytes(range(32)))
    (data_dir / "kek.key").chmod(0o400)
    return str(data_dir / "kek.key")


def harm_key(data_dir: Path) -> str:
    return in_store(data_dir, "UPDATE authority SET sealed_key = zeroblob(length(sealed_key)) WHERE level = 'root'")


def harm_key_missing(data_dir: Path) -> str:
    return in_store(data_dir, "UPDATE authority SET sealed_key = x'' WHERE level = 'intermediate'")


def harm_certificate(data_dir: Path) -> str:
    return in_store(data_dir, "UPDATE authority SET certificate_der = zeroblob(400) WHERE level = 'root'")


def harm_ca_missing(data_dir: Path) -> str:
    return in_store(data_dir, "DELETE FROM authority")


def harm_database_missing(data_dir: Path) -> str:
    for path in data_dir.glob("hauberk.db*"):
        path.unlink()
    return str(data_dir / "hauberk.db")


def in_store(data_dir: Path, sql: str) -> str:
    """As a disk, or somebody with an editor, would change it."""
    connection = sqlite3.connect(data_dir / "hauberk.db", isolation_level=None)
    connection.execute(sql)
    connection.close()
    return str(data_dir / "hauberk.db")


def harm_database(data_dir: Path) -> str:
    file = data_dir / "hauberk.db"
    content = bytearray(file.read_bytes())
    content[100:2_000] = bytes(1_900)
    file.write_bytes(content)
    return str(file)


HARMS = [
    harm_directory_mode, harm_kek_mode, harm_kek_missing, harm_kek_other, harm_key, harm_key_missing,
    harm_certificate, harm_ca_missing, harm_database, harm_database_missing,
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__.removeprefix("harm_"))
def test_j_a_harmed_data_directory_is_refused_and_left_alone(
    used: tuple[Mesh, Path], data_dir: Path, harm: Callable[[Path], str]
) -> None:
    """The line names the file; no octet and no mode changes, above all no new root is made (security.md J04, J05)."""
    named = harm(data_dir)
    before = contents(data_dir)
    assert named in refused(used[0], data_dir)
    assert contents(data_dir) == before


def test_j_an_unharmed_one_starts(used: tuple[Mesh, Path], data_dir: Path) -> None:
    """So what was refused above was refused for its harm. Also shows what a key restored is worth."""
    key = (data_dir / "kek.key").read_bytes()
    (data_dir / "kek.key").unlink()
    refused(used[0], data_dir)
    (data_dir / "kek.key").write_bytes(key)
    (data_dir / "kek.key").chmod(0o400)
    command = ["control-plane", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0", "--join-listen", "127.0.0.1:0"]
    process = used[0].start("restored", [*HAUBERK, *command])
    process.wait_log("control plane listening")
    assert process.stop() == 0


def test_j08_a_second_control_plane_is_refused(used: tuple[Mesh, Path]) -> None:
    """The first goes on, undisturbed."""
    mesh, data_dir = used
    first = mesh.start_control_plane()
    assert str(data_dir) in refused(mesh, data_dir)
    assert mesh.workloads() == []
    assert first.stop() == 0


@pytest.mark.parametrize("flag", ["--listen", "--join-listen"])
def test_a_control_plane_s_port_in_use_is_named(used: tuple[Mesh, Path], data_dir: Path, flag: str) -> None:
    """With the setting that takes another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused(used[0], data_dir, flag, address)
    assert address in line
    assert flag.removeprefix("--").replace("-", "_") in line


def test_a_control_plane_s_typo_is_found(used: tuple[Mesh, Path], data_dir: Path) -> None:
    """File, line, field, and what there is instead."""
    file = used[0].directory / "typo.yaml"
    file.write_text("trust_domain: mesh.local\ncertificate_lifetime: 60\n")
    line = refused(used[0], data_dir, "--config", str(file))
    assert f"{file}:2: certificate_lifetime: unknown field" in line
    assert "certificate_lifetime_s" in line


# --- sidecars -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("sidecars")) as mesh:
        mesh.start_control_plane()
        yield mesh


def sidecar_refused(mesh: Mesh, config: Path, verb: str = "sidecar") -> str:
    more = ["--", "true"] if verb == "run" else []
    run = mesh.hauberk(verb, "--config", str(config), *more)
    lines = [line for line in run.stderr.splitlines() if not line.startswith("{")]
    assert (run.returncode, len(lines)) == (1, 1), run.stderr
    return lines[0]


@pytest.mark.parametrize("verb", ["sidecar", "run"])
def test_a_sidecar_s_port_in_use_is_named_and_the_token_kept(mesh: Mesh, verb: str) -> None:
    """It is looked at before joining, so the next try can use the same token."""
    token = mesh.token("orders")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        named = [{"listen": address, "service": "billing", "port": 80}]
        fields: list[dict[str, Any]] = [
            {"mesh_listen": address}, {"admin": address}, {"health": address}, {"outbound": {"listen": address}},
            {"inbound": [Inbound(80, plaintext=address)]},
            {"outbound": {"listen": "off", "ports": named}},
        ]  # fmt: skip
        for changes in fields:
            config, _ = mesh.configure("orders", token=token, **changes)
            line = sidecar_refused(mesh, config, verb)
            assert f"cannot listen on {address}: the port is in use" in line
            assert next(iter(changes)) in line
    config, _ = mesh.configure("orders", token=token)
    assert mesh.hauberk("run", "--config", str(config), "--", "true").returncode == 0


def test_a_protocol_nobody_speaks_is_refused(mesh: Mesh) -> None:
    """It is declared, never guessed."""
    config, _ = mesh.configure("orders", inbound=[Inbound(80, protocol="http3")], token=Path("/none"))
    line = sidecar_refused(mesh, config)
    assert f"{config}:" in line
    assert "inbound[0].protocol" in line


@pytest.mark.parametrize("app", ["0.0.0.0:8080", "10.0.0.1:8080", "[::]:8080", "example.com:80"])
def test_an_app_that_others_could_reach_is_refused(mesh: Mesh, app: str) -> None:
    """It would be reached without its sidecar, and so without any policy."""
    config, _ = mesh.configure("orders", inbound=[Inbound(8080, app)], token=Path("/none"))
    line = sidecar_refused(mesh, config)
    assert str(config) in line
    assert "inbound[0].app" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"servise": "x"}, ["servise", "service"]),
        ({"timeouts": {"drain": 5}}, ["timeouts: unknown field 'drain'", "drain_s"]),
        ({"timeouts": {"drain_s": "soon"}}, ["timeouts.drain_s"]),
        ({"outbound": {"listen": "0.0.0.0:15001"}}, ["outbound.listen", "loopback"]),
        ({"admin": "0.0.0.0:15000"}, ["admin", "loopback"]),
        ({"trust_domain": "Mesh Local"}, ["trust_domain"]),
        ({"join_token_file": "hauberk1.0011223344556677.AAAAAAAAAAAAAAAAAAAAAA.x.1"}, ["join_token_file"]),
    ],
    ids=lambda value: json.dumps(value)[:30] if isinstance(value, dict) else None,
)
def test_a_sidecar_s_typos_are_found(mesh: Mesh, changes: dict[str, Any], words: list[str]) -> None:
    """File, line, field, what to write instead; never a token."""
    config, _ = mesh.configure("orders", token=Path("/none"), **changes)
    line = sidecar_refused(mesh, config)
    assert f"{config}:" in line
    assert all(word in line for word in words), line
    assert "AAAAAAAA" not in line
