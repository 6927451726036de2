"""Starting and stopping: what a start refuses, in one line, changing nothing; and a stop that is quick and orderly."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import grpc
import pytest

from control_plane.app import prepare_data_dir, serve
from control_plane.config import ListenAddress
from control_plane.errors import StartError
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import Rpc, asyncio_test, config_in, policy_yaml, resource_record, running

SCRIPT = """\
import sys
from pathlib import Path
from control_plane.app import run
from control_plane.config import ControlPlaneConfig, ListenAddress
port = int(sys.argv[2])
config = ControlPlaneConfig(
    data_dir=Path(sys.argv[1]), listen=ListenAddress("127.0.0.1", port), join_listen=ListenAddress("127.0.0.1", 0)
)
sys.exit(run(config, started=lambda addresses: print(addresses.listen, flush=True)))
"""


def started_process(data_dir: Path, port: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(data_dir), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below, by name: mode and octets."""
    return {
        path.relative_to(directory).as_posix(): (path.stat().st_mode, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith((".lock", "-shm", "-wal"))
    }


async def refused(directory: Path, **changes: object) -> str:
    """Why a start is refused; nothing may be served."""
    with pytest.raises(StartError) as refusal:
        await serve(config_in(directory, **changes))
    return str(refusal.value)


async def once(directory: Path) -> None:
    """A first start, with something stored."""
    async with running(directory) as mesh, mesh.operator() as operator:
        await operator.apply(policy_yaml())
        await mesh.join()


@asyncio_test
async def test_a_first_start_makes_a_directory_that_is_ours_alone(tmp_path: Path) -> None:
    """And nothing in it is for others."""
    await once(tmp_path)
    assert stat.S_IMODE((tmp_path / "cp").stat().st_mode) == 0o700
    loose = [str(path) for path in (tmp_path / "cp").rglob("*") if path.lstat().st_mode & 0o077]
    assert loose == []


@asyncio_test
async def test_j05_a_directory_others_may_enter_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    await once(tmp_path)
    (tmp_path / "cp").chmod(0o755)
    assert "chmod 700" in await refused(tmp_path)


def test_j05_a_link_or_a_file_is_no_data_directory(tmp_path: Path) -> None:
    """What it leads to is somebody else's to choose."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(StartError, match=r"cannot be made|must be a directory"):
            prepare_data_dir(tmp_path / name)


def in_store(cp: Path, sql: str) -> None:
    """As a disk, or somebody with an editor, would change it."""
    connection = sqlite3.connect(cp / "hauberk.db", isolation_level=None)
    connection.execute(sql)
    connection.close()


def unlink_all(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "key damaged": lambda cp: in_store(cp, "UPDATE authority SET sealed_key = zeroblob(200) WHERE level = 'root'"),
    "key gone": lambda cp: in_store(cp, "UPDATE authority SET sealed_key = x'' WHERE level = 'intermediate'"),
    "kek gone": lambda cp: (cp / "kek.key").unlink(),
    "kek readable": lambda cp: (cp / "kek.key").chmod(0o644),
    "certificate damaged": lambda cp: in_store(cp, "UPDATE authority SET certificate_der = x'30' WHERE level = 'root'"),
    "root gone": lambda cp: in_store(cp, "DELETE FROM authority WHERE level = 'root'"),
    "ca gone": lambda cp: in_store(cp, "DELETE FROM authority"),
    "store gone": lambda cp: unlink_all(cp.glob("hauberk.db*")),
    "store damaged": lambda cp: (cp / "hauberk.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5_000),
    "store truncated": lambda cp: os.truncate(cp / "hauberk.db", 9_000),
    "store readable": lambda cp: (cp / "hauberk.db").chmod(0o644),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_j04_j06_a_state_that_does_not_open_stops_the_start(tmp_path: Path, damage: str) -> None:
    """Never a new root over it; not one octet is changed, so that it can still be restored."""

    @asyncio_test
    async def main() -> None:
        await once(tmp_path)
        DAMAGE[damage](tmp_path / "cp")
        before = contents(tmp_path / "cp")
        reason = await refused(tmp_path)
        assert "\n" not in reason
        assert str(tmp_path / "cp") in reason
        assert contents(tmp_path / "cp") == before

    main()


@asyncio_test
async def test_j07_a_ca_and_a_store_of_two_meshes_do_not_start(tmp_path: Path) -> None:
    """Half a backup is no backup."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    await once(tmp_path / "a")
    await once(tmp_path / "b")
    for name in ("hauberk.db", "audit.jsonl"):
        shutil.copy(tmp_path / "a" / "cp" / name, tmp_path / "b" / "cp" / name)
    assert "is not the key-encryption key that the CA's keys are encrypted with" in await refused(tmp_path / "b")


@asyncio_test
async def test_a_mesh_keeps_its_trust_domain(tmp_path: Path) -> None:
    """Starting it under another name is refused."""
    await once(tmp_path)
    assert "trust domain is mesh.local, not other" in await refused(tmp_path, trust_domain="other")


@asyncio_test
async def test_a_stored_policy_nobody_understands_stops_the_start(tmp_path: Path) -> None:
    """Serving without it could let somebody in."""
    await once(tmp_path)
    store = SqliteStore.open(tmp_path / "cp" / "hauberk.db")
    store.apply_resources([resource_record("future", yaml=policy_yaml("future") + "  quantum: true\n")])
    store.close()
    reason = await refused(tmp_path)
    assert "AuthorizationPolicy shop/future" in reason
    assert "start the version that stored it" in reason


@pytest.mark.parametrize("name", ["listen", "join_listen"])
def test_a_port_in_use_is_named(tmp_path: Path, name: str) -> None:
    """And the other ports are let go."""

    @asyncio_test
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            reason = await refused(tmp_path, **{name: ListenAddress("127.0.0.1", port)})
        assert reason.startswith(f"{name}: cannot listen on 127.0.0.1:{port}")
        await once(tmp_path)

    main()


@asyncio_test
async def test_j08_a_second_control_plane_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    """On the same data directory."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        assert "another control plane uses this data directory" in await refused(tmp_path)
        await operator.apply(policy_yaml())


def test_sigterm_stops_it_in_order_and_quickly(tmp_path: Path) -> None:
    """Exit code 0; every log line is JSON; the next start finds all as it was."""
    process = started_process(tmp_path / "cp")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("127.0.0.1:")
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, _, err = outcome(process)
    assert code == 0
    assert time.monotonic() - begin < 10
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["message"] for line in lines][-2:] == ["control plane listening", "control plane stopped"]


def test_what_stops_a_start_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """Second instance and port in use, as an operator sees them."""
    first = started_process(tmp_path / "cp")
    assert first.stdout is not None
    port = int(first.stdout.readline().rpartition(":")[2])
    for second, told in (
        (started_process(tmp_path / "cp"), "another control plane"),
        (started_process(tmp_path / "other", port), f"listen: cannot listen on 127.0.0.1:{port}"),
    ):
        code, out, err = outcome(second)
        last = err.splitlines()[-1]
        assert (code, out) == (1, "")
        assert last.startswith("hauberk control-plane: ")
        assert told in last
        assert "Traceback" not in err
    first.send_signal(signal.SIGINT)
    assert outcome(first)[0] == 0


@asyncio_test
async def test_j10_killed_it_comes_back_as_it_was(tmp_path: Path) -> None:
    """SIGKILL: what was answered is kept, the lock is free, the socket is no obstacle."""
    process = started_process(tmp_path / "cp")
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'cp' / 'operator.sock'}") as channel:
        version = (await Rpc(channel).apply(policy_yaml())).version
        process.kill()
        await asyncio.to_thread(process.communicate)
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status = await operator.status()
        assert status.version == version
        assert (await operator.apply(policy_yaml())).changes[0].what == "unchanged"
