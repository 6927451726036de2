"""States of the data directory: empty, whole, and all the others, which are refused and left as they are."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import pin
from certs.spiffe_id import TrustDomain
from control_plane.audit import AuditLog
from control_plane.ca import keys
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaStateError
from control_plane.ca.kek import KekFile
from control_plane.ca.opening import refuse_lost_store
from control_plane.errors import TrustBroken
from control_plane.model import Level, Phase
from control_plane.store.sqlite import SqliteStore
from tests.certs.forge import make_ca, uri
from tests.control_plane.ca.crash import PowerCut, fail_at
from tests.control_plane.support import NOW, TD, ca_and_store, open_ca, vouch_for

YEAR = 365 * 86_400


def authorities(data_dir: Path) -> list[tuple[object, ...]]:
    """What is in the store of them, as it is there."""
    connection = sqlite3.connect(data_dir / "hauberk.db")
    try:
        return connection.execute("SELECT * FROM authority ORDER BY authority_id").fetchall()
    finally:
        connection.close()


def in_store(data_dir: Path, sql: str) -> None:
    """As a disk, or somebody with an editor, would change it."""
    connection = sqlite3.connect(data_dir / "hauberk.db", isolation_level=None)
    connection.execute(sql)
    connection.close()


def flip(level: Level, column: str) -> Callable[[Path], None]:
    """One bit of the last byte of a column."""

    def damage(data_dir: Path) -> None:
        connection = sqlite3.connect(data_dir / "hauberk.db", isolation_level=None)
        sql = f"SELECT authority_id, {column} FROM authority WHERE level = ?"  # noqa: S608 - a name of ours
        name, blob = connection.execute(sql, (level.value,)).fetchone()
        changed = blob[:-1] + bytes([blob[-1] ^ 1])
        connection.execute(f"UPDATE authority SET {column} = ? WHERE authority_id = ?", (changed, name))  # noqa: S608
        connection.close()

    return damage


def replace_file(path: Path, data: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)


def link_away(path: Path) -> None:
    real = path.with_name(path.name + ".real")
    path.rename(real)
    path.symlink_to(real)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o400)


def another_kek(data_dir: Path) -> None:
    open_ca(data_dir.parent / "other")
    replace_file(data_dir / "kek.key", (data_dir.parent / "other" / "kek.key").read_bytes())


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A whole state."""
    open_ca(tmp_path / "data dir")
    return tmp_path / "data dir"


def test_the_first_start_makes_a_hierarchy_and_the_next_finds_it(tmp_path: Path) -> None:
    """Root, intermediate and a key for JWT-SVIDs, all active; nothing is written the second time."""
    first = open_ca(tmp_path / "data")
    before = authorities(tmp_path / "data")
    second = open_ca(tmp_path / "data")
    assert (first.anchor_der, first.authorities) == (second.anchor_der, second.authorities)
    assert authorities(tmp_path / "data") == before
    assert {(one.level, one.phase) for one in second.authorities} == {(level, Phase.ACTIVE) for level in Level}


def test_j05_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Row J05, whatever the umask is."""
    before = os.umask(0)
    try:
        open_ca(tmp_path / "data")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes["kek.key"] == 0o400
    assert not any(mode & 0o077 for mode in modes.values())


def test_no_key_is_on_disk_in_clear(data_dir: Path) -> None:
    """Encrypted at rest: neither PEM nor a private number of any level."""
    everything = b"".join(path.read_bytes() for path in data_dir.iterdir())
    ca = open_ca(data_dir)
    for one in ca.authorities:
        key = ca._vault.unseal(one)
        assert key.private_numbers().private_value.to_bytes(32, "big") not in everything
    assert b"PRIVATE KEY" not in everything


# id: (row, what the message says, what is done to a whole state)
DAMAGE: dict[str, tuple[str, list[str], Callable[[Path], object]]] = {
    "j05 KEK readable by the group": (
        "J05",
        ["/kek.key: has mode 0440; it must be 0400", "chmod 400"],
        lambda d: (d / "kek.key").chmod(0o440),
    ),
    "j05 KEK writable": ("J05", ["/kek.key: has mode 0600", "chmod 400"], lambda d: (d / "kek.key").chmod(0o600)),
    "j05 KEK set-uid": ("J05", ["has mode 4400"], lambda d: (d / "kek.key").chmod(0o4400)),
    "j05 KEK a link": ("J05", ["kek.key: is a symbolic link"], lambda d: link_away(d / "kek.key")),
    "j05 KEK a FIFO": ("J05", ["kek.key: is not a regular file"], lambda d: fifo(d / "kek.key")),
    "j06 KEK missing": (
        "J06",
        ["kek.key: is missing, while the CA's keys are in the database", "Restore it from a backup"],
        lambda d: (d / "kek.key").unlink(),
    ),
    "j06 KEK wrong": (
        "J06",
        ["kek.key: is not the key-encryption key that"],
        lambda d: replace_file(d / "kek.key", bytes(range(32))),
    ),
    "j06 KEK of another CA": ("J06", ["kek.key: is not the key-encryption key that"], another_kek),
    "j06 KEK cut short": (
        "J06",
        ["kek.key: has 5 bytes instead of 32"],
        lambda d: replace_file(d / "kek.key", b"short"),
    ),
    "j06 root's key damaged": (
        "J06",
        ["(root ", "its private key is damaged, or encrypted with another key-encryption key", "Restore it"],
        flip(Level.ROOT, "sealed_key"),
    ),
    "j06 intermediate's key damaged": ("J06", ["(intermediate ", "damaged"], flip(Level.INTERMEDIATE, "sealed_key")),
    "j06 JWT key damaged": ("J06", ["(jwt ", "damaged"], flip(Level.JWT, "sealed_key")),
    "j06 key cut short": (
        "J06",
        ["not an encrypted CA key, or cut short"],
        lambda d: in_store(d, "UPDATE authority SET sealed_key = substr(sealed_key, 1, 60) WHERE level = 'root'"),
    ),
    "j06 key in clear": (
        "J06",
        ["not an encrypted CA key"],
        lambda d: in_store(d, "UPDATE authority SET sealed_key = x'2d2d2d' WHERE level = 'jwt'"),
    ),
    "j06 keys swapped": (
        "J06",
        ["holds another authority's key"],
        lambda d: in_store(
            d,
            "UPDATE authority SET sealed_key = (SELECT sealed_key FROM authority WHERE level = 'jwt')"
            " WHERE level = 'root'",
        ),
    ),
    "j04 root's certificate damaged": ("", ["(root "], flip(Level.ROOT, "certificate_der")),
    "j04 intermediate's certificate damaged": ("", ["(intermediate "], flip(Level.INTERMEDIATE, "certificate_der")),
    "j04 root gone": (
        "J04",
        ["its root is missing"],
        lambda d: in_store(d, "DELETE FROM authority WHERE level = 'root'"),
    ),
    "j04 all gone": (
        "J04",
        ["hauberk.db: the authorities are gone that were in it", "never made over an old one"],
        lambda d: in_store(d, "DELETE FROM authority"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_j_a_state_that_does_not_open_is_refused_and_left_as_it_is(damage: str, data_dir: Path) -> None:
    """Rows J04 to J06: the message says what and what to do; no authority and no key changes; twice the same.

    What was changed in the database is not what the KEK vouches for, and does not open if somebody vouches for it."""
    row, says, do = DAMAGE[damage]
    whole = authorities(data_dir)
    do(data_dir)
    if authorities(data_dir) != whole:
        with pytest.raises(
            TrustBroken, match=r"hauberk\.db: whom the mesh trusts is not what .* authority [0-9a-f]{32}"
        ):
            open_ca(data_dir)
        vouch_for(data_dir)
    before = authorities(data_dir)
    names = sorted(path.name for path in data_dir.iterdir() if not path.name.endswith(("-wal", "-shm")))
    for _ in range(2):
        with pytest.raises(CaStateError) as caught:
            open_ca(data_dir)
        for part in says:
            assert part in str(caught.value)
        assert caught.value.row == row or not row
        assert authorities(data_dir) == before
    after = sorted(path.name for path in data_dir.iterdir() if not path.name.endswith(("-wal", "-shm")))
    assert after == names


@pytest.mark.parametrize("kek", [bytes(32), b"k" * 32, b"secret" * 5 + b"se"], ids=["zeros", "one", "a word"])
def test_g21_a_key_that_is_a_placeholder_is_refused(kek: bytes, tmp_path: Path) -> None:
    """Row G21: also at the first start, which would otherwise seal a root with what everybody knows."""
    tmp_path.chmod(0o700)
    path = tmp_path / "kek.key"
    path.write_bytes(kek)
    path.chmod(0o400)
    with pytest.raises(CaStateError, match="is a placeholder and no key"):
        open_ca(tmp_path / "cp", kek_file=path)
    assert authorities(tmp_path / "cp") == []


def test_j05_a_kek_of_another_owner_is_refused(data_dir: Path) -> None:
    """Row J05: whoever owns a file can change it. (Asked as if we were somebody else: that needs no root.)"""
    me = os.geteuid()
    with pytest.raises(CaStateError, match=f"belongs to uid {me}, but the control plane runs as uid {me + 1}"):
        KekFile(path=data_dir / "kek.key", owner_uid=me + 1).read()


@pytest.mark.parametrize("beside", ["kek.key", "audit.jsonl"])
def test_j04_a_missing_database_is_no_first_start(beside: str, data_dir: Path) -> None:
    """Row J04: what lies beside it shows that there was one; the way out is said."""
    for path in data_dir.glob("hauberk.db*"):
        path.unlink()
    with pytest.raises(CaStateError, match="the database is missing, while") as caught:
        refuse_lost_store(data_dir / "hauberk.db", [data_dir / beside])
    assert "Restore it from a backup" in str(caught.value)
    refuse_lost_store(data_dir / "hauberk.db", [data_dir / "nothing"])


def test_j04_an_empty_database_beside_a_kek_gets_no_new_root(data_dir: Path) -> None:
    """Row J04: somebody put a fresh file there."""
    for path in data_dir.glob("hauberk.db*"):
        path.unlink()
    (data_dir / "audit.jsonl").unlink()
    with pytest.raises(CaStateError, match=r"kek\.key: is there, but the database .* knows no CA") as caught:
        open_ca(data_dir)
    assert caught.value.row == "J04"
    assert "move the key-encryption key away" in str(caught.value)
    assert authorities(data_dir) == []


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
    (tmp_path / "kek").write_bytes(bytes(range(32)))
    (tmp_path / "kek").chmod(0o400)
    with pytest.raises(CaStateError, match="is there, but the database"):
        open_ca(tmp_path / "data", kek_file=tmp_path / "kek")
    assert (tmp_path / "kek").read_bytes() == bytes(range(32))
    assert authorities(tmp_path / "data") == []


def test_a_kek_that_somebody_else_is_just_writing_is_left_alone(tmp_path: Path) -> None:
    """Two data directories that share one KEK path by mistake: the second is refused, and nothing of it stays."""
    (tmp_path / ".kek.new").write_bytes(b"half a k")
    for _ in range(2):
        with pytest.raises(CaStateError, match=r"\.kek\.new: is left from a start that was interrupted.* rm "):
            open_ca(tmp_path / "data", kek_file=tmp_path / "kek")
    assert (tmp_path / ".kek.new").exists()
    (tmp_path / ".kek.new").unlink()
    open_ca(tmp_path / "data", kek_file=tmp_path / "kek")


def test_a_missing_directory_for_the_kek_says_what_to_type(tmp_path: Path) -> None:
    """It is not created: a mistyped path would put the KEK on the wrong disk."""
    with pytest.raises(CaStateError, match="mkdir -m 700"):
        open_ca(tmp_path / "data", kek_file=tmp_path / "nowhere" / "kek")
    assert not (tmp_path / "nowhere").exists()


def test_a_first_start_that_is_killed_at_any_point_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to mend what a power cut did to a CA that was never used; and the start after next agrees."""
    step, reached, seen = 0, [""], set[str]()
    while len(reached) >= step:
        step += 1
        data_dir = tmp_path / f"data{step}"
        data_dir.mkdir(mode=0o700)
        SqliteStore.open(data_dir / "hauberk.db").close()
        with monkeypatch.context() as patched:
            reached = fail_at(step, PowerCut(), patched)
            with suppress(PowerCut):
                open_ca(data_dir)
        seen |= set(reached)
        first = open_ca(data_dir)
        assert {(one.level, one.phase) for one in first.authorities} == {(level, Phase.ACTIVE) for level in Level}
        assert open_ca(data_dir).authorities == first.authorities
        assert not list(data_dir.glob(".kek.key.new"))
    assert {"fsync", "rename", "change_fact", "after change_fact", "after put_authority"} <= seen


def test_j03_a_first_start_on_a_full_disk_is_refused_and_the_next_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row J03, at each write: one of our errors, and nothing that stands in the way of the next start."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    step, reached, told = 0, [""], set[str]()
    while len(reached) >= step:
        step += 1
        data_dir = tmp_path / f"data{step}"
        data_dir.mkdir(mode=0o700)
        store = SqliteStore.open(data_dir / "hauberk.db")
        audit = AuditLog.open(data_dir / "audit.jsonl", store, now=NOW)
        with monkeypatch.context() as patched:
            reached = fail_at(step, full, patched)
            try:
                CertificateAuthority.open(data_dir, TD, store=store, audit=audit, now=NOW)
            except CaStateError as refused:
                told.add(refused.row)
        audit.close()
        store.close()
        assert open_ca(data_dir).pin == open_ca(data_dir).pin
    assert step > 10
    assert "J03" in told


# --- time and names ------------------------------------------------------------------------------------------------


def test_f03_a_root_of_another_trust_domain_is_refused(data_dir: Path) -> None:
    """A mistyped trust domain must not become a second mesh under the first one's key."""
    wanted = r"the root is of spiffe://mesh\.local, not of spiffe://other"
    with pytest.raises(CaStateError, match=wanted), ca_and_store(data_dir, trust_domain=TrustDomain.parse("other")):
        pass


def test_f01_a_clock_before_the_roots_birth_is_refused(data_dir: Path) -> None:
    """Row F01: better said at start than found out by every workload."""
    with pytest.raises(CaStateError, match=r"the root is not valid before 2027-01-15T07:59:00Z\. Set this machine's"):
        open_ca(data_dir, NOW - 3_600)


def test_a_start_with_everything_expired_comes_up(data_dir: Path) -> None:
    """Nothing can be issued, all can be looked at: the way back is a command."""
    ca = open_ca(data_dir, NOW + 3 * YEAR)
    assert ca.anchor_not_after < NOW + 3 * YEAR
    assert ca.bundle.anchors_der == (ca.anchor_der,)


# --- an older data directory ---------------------------------------------------------------------------------------


def older(data_dir: Path, *, kek: bytes = bytes(range(32)), name: str = "ca") -> bytes:
    """As a release with one root for ever left it. Returns the root's DER."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    made = make_ca(names=[uri(TD.uri)], constraints=constraints, not_before=NOW - 60, not_after=NOW + YEAR)
    (data_dir / name).mkdir(mode=0o700)
    (data_dir / name / "root.crt").write_bytes(made.certificate.public_bytes(Encoding.PEM))
    assert isinstance(made.key, ec.EllipticCurvePrivateKey)
    (data_dir / name / "root.key.enc").write_bytes(keys.seal(made.key, kek=kek, nonce=bytes(12)))
    for file in (data_dir / name).iterdir():
        file.chmod(0o600)
    (data_dir / "kek.key").write_bytes(kek)
    (data_dir / "kek.key").chmod(0o400)
    store = SqliteStore.open(data_dir / "hauberk.db")
    store.record_fact("trust anchor", pin(made.der).hex())
    store.close()
    return made.der


@pytest.mark.parametrize("name", ["ca", "ca.new"])
def test_the_root_of_an_older_data_directory_is_adopted(name: str, tmp_path: Path) -> None:
    """The same anchor; its files are left and not needed any more."""
    der = older(tmp_path / "data", name=name)
    before = {path: path.read_bytes() for path in (tmp_path / "data" / name).iterdir()}
    assert open_ca(tmp_path / "data").anchor_der == der
    assert {path: path.read_bytes() for path in before} == before
    for path in before:
        path.unlink()
    assert open_ca(tmp_path / "data").anchor_der == der


def test_an_adoption_that_is_killed_at_any_point_is_made_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files stay until the root is in the store."""
    step, reached = 0, [""]
    while len(reached) >= step:
        step += 1
        data_dir = tmp_path / f"data{step}"
        der = older(data_dir)
        with monkeypatch.context() as patched:
            reached = fail_at(step, PowerCut(), patched)
            with suppress(PowerCut):
                open_ca(data_dir)
        assert open_ca(data_dir).anchor_der == der


OLDER_DAMAGE: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "key gone": ("J06", "root.key.enc: is missing", lambda d: (d / "ca/root.key.enc").unlink()),
    "certificate gone": ("J06", "root.crt: is missing", lambda d: (d / "ca/root.crt").unlink()),
    "certificate not PEM": ("J06", "not a certificate in PEM", lambda d: replace_file(d / "ca/root.crt", b"hello")),
    "key damaged": ("J06", "root.key.enc: not an", lambda d: replace_file(d / "ca/root.key.enc", b"hello")),
    "KEK gone": ("J06", "kek.key: is missing, while", lambda d: (d / "kek.key").unlink()),
    "KEK wrong": ("J06", "encrypted with another", lambda d: replace_file(d / "kek.key", bytes(range(1, 33)))),
    "directory open": ("J05", "ca: has mode 0750", lambda d: (d / "ca").chmod(0o750)),
    "key readable": ("J05", "root.key.enc: has mode 0644", lambda d: (d / "ca/root.key.enc").chmod(0o644)),
    "directory a link": ("J05", "ca: is a symbolic link", lambda d: link_away(d / "ca")),
    "all files gone": ("J04", "is there, but the database", lambda d: (d / "ca").rename(d.parent / "away")),
    "ca and kek gone": (
        "J04",
        "the CA is gone that the store knows",
        lambda d: [(d / name).rename(d.parent / name) for name in ("ca", "kek.key")],
    ),
    "another mesh's": (
        "J04",
        "of two meshes",
        lambda d: [
            older(d.parent / "b"),
            (d / "ca").rename(d.parent / "away"),
            (d.parent / "b" / "ca").rename(d / "ca"),
        ],
    ),
}


@pytest.mark.parametrize("damage", OLDER_DAMAGE)
def test_j_an_older_data_directory_that_does_not_open_is_refused(damage: str, tmp_path: Path) -> None:
    """Rows J04 to J06, as they were for the files; no new root."""
    older(tmp_path / "data")
    row, says, do = OLDER_DAMAGE[damage]
    do(tmp_path / "data")
    with pytest.raises(CaStateError, match=says) as caught:
        open_ca(tmp_path / "data")
    assert caught.value.row == row
    assert authorities(tmp_path / "data") == []
