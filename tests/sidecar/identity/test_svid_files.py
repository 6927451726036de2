"""Certificate files: never a mixed set, never a torn one, whatever ends the writer, and nobody else's to change."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from certs.bundle import TrustBundle
from certs.revocation import Revocations
from certs.svid import X509Svid
from sidecar.errors import ConfigError
from sidecar.identity import svid_files
from sidecar.identity.source import IdentitySource
from sidecar.identity.svid_files import BUNDLE, CURRENT, JWT_BUNDLE, KEY, NAMES, SVID, FileKeeper, SvidFiles
from tests.sidecar.mesh import WEB, Mesh
from tests.trio_support import trio_test

JWT_KEYS = '{"keys": [{"kid": "one"}]}'


def opened(path: Path) -> SvidFiles:
    names = (f"generation-{number}-{os.urandom(4).hex()}" for number in itertools.count())
    return SvidFiles(str(path), lambda: next(names))


def write(files: SvidFiles, svid: X509Svid, bundle: TrustBundle, jwt_keys: str = JWT_KEYS) -> None:
    for _ in files.replacing(svid, bundle, jwt_keys):
        pass


def generations(path: Path) -> list[Path]:
    return [one for one in path.iterdir() if one.is_dir() and not one.is_symlink()]


def serial_of(directory: Path) -> int:
    """Of the set in force, read as a careful reader does; the certificate and the key must belong together."""
    resolved = directory / os.readlink(directory / CURRENT)
    leaf = x509.load_pem_x509_certificate((resolved / SVID).read_bytes())
    key = load_pem_private_key((resolved / KEY).read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    assert x509.load_pem_x509_certificates((resolved / BUNDLE).read_bytes())
    assert "keys" in json.loads((resolved / JWT_BUNDLE).read_bytes())
    return leaf.serial_number


def test_the_files_are_what_others_read(tmp_path: Path) -> None:
    """PEM with the leaf first, PKCS#8, anchors, a JSON Web Key Set; by their names and through `..data`."""
    mesh = Mesh()
    (issuer,) = mesh.intermediates(1)
    svid = mesh.svid(WEB, chain=[issuer])
    files = opened(tmp_path / "svid")
    write(files, svid, mesh.bundle)
    for directory in (tmp_path / "svid", tmp_path / "svid" / CURRENT):
        chain = x509.load_pem_x509_certificates((directory / SVID).read_bytes())
        assert [one.public_bytes(Encoding.DER) for one in chain] == list(svid.chain_der)
        assert load_pem_private_key((directory / KEY).read_bytes(), None).public_key() == chain[0].public_key()
        assert (directory / BUNDLE).read_bytes() == mesh.bundle.pem()
        assert (directory / JWT_BUNDLE).read_text() == JWT_KEYS
    write(files, svid, mesh.bundle, "")
    assert json.loads((tmp_path / "svid" / JWT_BUNDLE).read_text()) == {"keys": []}
    files.close()


def test_only_the_key_is_kept_from_others(tmp_path: Path) -> None:
    """0600 and 0644, whatever the umask."""
    mesh = Mesh()
    for umask in (0o000, 0o077):
        directory = tmp_path / f"{umask:o}"
        old = os.umask(umask)
        try:
            files = opened(directory)
            write(files, mesh.svid(WEB), mesh.bundle)
        finally:
            os.umask(old)
        modes = {name: stat.S_IMODE((directory / name).stat().st_mode) for name in NAMES}
        assert modes == {SVID: 0o644, KEY: 0o600, BUNDLE: 0o644, JWT_BUNDLE: 0o644}
        files.close()


def test_a_reader_never_sees_two_generations(tmp_path: Path) -> None:
    """One process reads all the time while another hundred sets are written; each it saw was whole."""
    mesh, directory = Mesh(), tmp_path / "svid"
    files = opened(directory)
    write(files, mesh.svid(WEB, serial=1), mesh.bundle)
    reader = f"""
import os, sys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
seen, reads = set(), 0
while not os.path.exists({str(tmp_path / "stop")!r}) or not reads:
    at = os.path.realpath({str(directory / CURRENT)!r})
    leaf = x509.load_pem_x509_certificate(open(f"{{at}}/svid.pem", "rb").read())
    key = load_pem_private_key(open(f"{{at}}/svid.key", "rb").read(), None)
    assert key.public_key() == leaf.public_key()
    seen.add(leaf.serial_number)
    reads += 1
    if reads == 1:
        print("reading", flush=True)
print(len(seen))
"""
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", reader], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        for serial in range(2, 102):
            write(files, mesh.svid(WEB, serial=serial), mesh.bundle)
        (tmp_path / "stop").touch()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert int(out) > 1
    assert serial_of(directory) == 101
    files.close()


CRASHING = """
import os, sys
from tests.sidecar.identity.test_svid_files import opened, write
from tests.sidecar.mesh import WEB, Mesh
from pathlib import Path
directory, last = Path(sys.argv[1]), int(sys.argv[2])
mesh = Mesh()
events = 0
watched = {"os.mkdir", "open", "os.symlink", "os.rename", "os.remove", "os.rmdir", "os.chmod"}
real = {name: getattr(os, name) for name in ("write", "fsync")}

def count(*_):
    global events
    events += 1
    if events == last:
        os.kill(os.getpid(), 9)

def counted(name):
    def call(*arguments):
        count()
        return real[name](*arguments)
    return call

files = opened(directory)
svid = mesh.svid(WEB, serial=2)
os.write, os.fsync = counted("write"), counted("fsync")
armed = True
sys.addaudithook(lambda event, arguments: count() if armed and event in watched else None)
write(files, svid, mesh.bundle)
armed = False
real["write"](1, b"%d" % events)
"""


def crash(directory: Path, at: int) -> tuple[int, str]:
    """A process that writes serial 2 and kills itself (SIGKILL) before its `at`th step; its exit code and output."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CRASHING, str(directory), str(at)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )
    assert run.returncode in (0, -9), run.stderr
    return run.returncode, run.stdout


@pytest.mark.slow
def test_a_crash_at_any_step_leaves_a_whole_set(tmp_path: Path) -> None:
    """The last one or the new one; and the next start removes what was left lying about."""
    mesh = Mesh()
    steps = int(crash(tmp_path / "all", 0)[1])
    assert steps > 20
    serials = []
    for at in range(1, steps + 1):
        directory = tmp_path / str(at)
        files = opened(directory)
        write(files, mesh.svid(WEB, serial=1), mesh.bundle)
        files.close()
        assert crash(directory, at)[0] == -9
        serials.append(serial_of(directory))
        files = opened(directory)
        files.tidy_all()
        assert len(generations(directory)) == 1
        write(files, mesh.svid(WEB, serial=3), mesh.bundle)
        assert serial_of(directory) == 3
        files.close()
    assert set(serials) == {1, 2}
    assert serials == sorted(serials)


def test_what_cannot_be_written_leaves_the_last_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: OSError, and nothing half-done stays."""
    mesh, directory = Mesh(), tmp_path / "svid"
    files = opened(directory)
    write(files, mesh.svid(WEB, serial=1), mesh.bundle)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(files, mesh.svid(WEB, serial=2), mesh.bundle)
    assert serial_of(directory) == 1
    assert len(generations(directory)) == 1
    write(files, mesh.svid(WEB, serial=3), mesh.bundle)
    assert serial_of(directory) == 3
    files.close()


def test_a_file_of_somebody_else_under_our_name_is_not_replaced(tmp_path: Path) -> None:
    """It may be the only copy of something."""
    mesh = Mesh()
    (tmp_path / "svid").mkdir()
    (tmp_path / "svid" / KEY).write_text("precious")
    files = opened(tmp_path / "svid")
    with pytest.raises(FileExistsError):
        write(files, mesh.svid(WEB), mesh.bundle)
    assert (tmp_path / "svid" / KEY).read_text() == "precious"
    assert generations(tmp_path / "svid") == []
    files.close()


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    """Apps that watch the directory are not told of a change that is none."""
    mesh, directory = Mesh(), tmp_path / "svid"
    files, svid = opened(directory), mesh.svid(WEB)
    write(files, svid, mesh.bundle)
    before = os.readlink(directory / CURRENT)
    write(files, svid, mesh.bundle)
    assert os.readlink(directory / CURRENT) == before
    files.close()


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o1777, 0o757])
def test_a_directory_in_which_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    """They could put another key in place of ours."""
    (tmp_path / "svid").mkdir()
    (tmp_path / "svid").chmod(mode)
    with pytest.raises(ConfigError, match="others may write there"):
        opened(tmp_path / "svid")


def test_a_directory_belongs_to_one_sidecar(tmp_path: Path) -> None:
    """Two would remove each other's files."""
    files = opened(tmp_path / "svid")
    with pytest.raises(ConfigError, match="another sidecar writes there"):
        opened(tmp_path / "svid")
    files.close()
    opened(tmp_path / "svid").close()


def test_what_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used: Not a directory"):
        opened(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be made: No such file or directory"):
        opened(tmp_path / "none" / "svid")


@trio_test(autojump=True)
async def test_the_keeper_follows_the_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every change is written; old sets go after a while; what is worth nothing stays, and that is said once."""
    mesh, directory, source = Mesh(), tmp_path / "svid", IdentitySource()
    files = opened(directory)
    now = mesh.clock()
    keeper = FileKeeper(files, source, lambda: now)
    source.subscribe(keeper.changed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.sleep(1)
        assert not (directory / CURRENT).exists()
        for serial in range(1, 20):
            source.set(svid=mesh.svid(WEB, serial=serial), bundle=mesh.bundle)
            await trio.sleep(0.1)
            assert serial_of(directory) == serial
            assert len(generations(directory)) <= 1 + svid_files.REPLACED_MAX
        keeper.jwt_keys_changed(JWT_KEYS)
        await trio.sleep(0.1)
        assert (directory / JWT_BUNDLE).read_text() == JWT_KEYS
        await trio.sleep(60)
        assert len(generations(directory)) == 1
        source.set(revocations=Revocations(identities=frozenset({WEB})))
        await trio.sleep(60)
        now += 100_000
        source.set(revocations=Revocations())
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    files.close()
    assert serial_of(directory) == 19
    why = [record.__dict__["why"] for record in caplog.records if "worth nothing" in record.message]
    assert why == ["identity", "expired"]


@trio_test(autojump=True)
async def test_the_keeper_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full for a while costs nothing but that while."""
    mesh, directory, source = Mesh(), tmp_path / "svid", IdentitySource()
    files = opened(directory)
    keeper = FileKeeper(files, source, mesh.clock)
    real = os.fsync
    failures = iter([OSError(28, "full")] * 3)

    def sometimes(descriptor: int) -> None:
        for failure in failures:
            raise failure
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sometimes)
    source.set(svid=mesh.svid(WEB, serial=1), bundle=mesh.bundle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await trio.sleep(svid_files.RETRY_S * 4)
        assert serial_of(directory) == 1
        nursery.cancel_scope.cancel()
    files.close()
