# ruff: noqa: S608  # SQL is put together from names that stand here
"""Whoever can write the database, but does not have the key-encryption key, does not decide whom the mesh trusts."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority_id import key_id
from certs.svid import new_private_key
from control_plane.audit.verify import files_of, store_facts, verify
from control_plane.ca.errors import CaStateError
from control_plane.ca.kek import trust_key
from control_plane.ca.opening import KEK_FACT
from control_plane.ca.rekey import rotate_kek
from control_plane.ca.slots import Readiness
from control_plane.cli.main import cli
from control_plane.errors import PermissionDenied, StartError, TrustBroken
from control_plane.model import Level, Phase
from control_plane.revocation import RevokedView
from control_plane.store.rows import AUTHORITY_COLUMNS
from control_plane.store.sqlite import SqliteStore
from tests.certs.forge import make_ca, uri
from tests.control_plane.desk import Desk, opened
from tests.control_plane.support import NOW, TD, ca_and_store, vouch_for

WEB = "spiffe://mesh.local/ns/shop/sa/web"
Tamper = Callable[[sqlite3.Connection], object]


def runs(directory: Path) -> None:
    """A mesh with a history: an authority that was revoked, an identity and a token that were, an audit key."""
    with opened(directory) as desk:
        authority = desk.state.authority
        (old,) = (one for one in authority.authorities if one.level is Level.INTERMEDIATE)
        new = authority.prepare(Level.INTERMEDIATE, NOW, "ann")
        authority.activate(new.authority_id, NOW, "ann", Readiness(), force=True)
        authority.revoke(old.authority_id, NOW, "ann", force=True)
        desk.revoke("identity", WEB, "gone")
        out = desk.join()
        desk.revoke("token", desk.node_of(out.svid).token_id)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vouched")
    runs(directory)
    return directory / "cp"


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> Path:
    """With a copy of that mesh's data directory in it."""
    shutil.copytree(template, tmp_path / "cp")
    return tmp_path


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[sqlite3.Connection]:
    """As somebody who can write the file."""
    connection = sqlite3.connect(directory / "cp" / "hauberk.db", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def refused(directory: Path) -> str:
    """Why it does not start; twice the same, and nothing that vouches for anything is made meanwhile."""
    told = []
    for _ in range(2):
        with pytest.raises((StartError, CaStateError)) as caught, opened(directory):
            pass
        told.append(str(caught.value))
    assert told[0] == told[1]
    return told[0]


# --- somebody changes the file ---------------------------------------------------------------------------------------


def intruder() -> dict[str, Any]:
    """The row of a root of somebody else's: as one that was replaced, its key kept elsewhere."""
    made = make_ca(
        "root",
        constraints=x509.BasicConstraints(ca=True, path_length=1),
        names=[uri(TD.uri)],
        not_before=NOW - 60,
        not_after=NOW + 86_400,
    )
    public = made.key.public_key()
    name = key_id(public)
    return {
        "authority_id": name,
        "level": "root",
        "phase": "old",
        "parent_id": name,
        "public_key_der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "certificate_der": made.der,
        "sealed_key": b"",
        "not_before": NOW - 60,
        "not_after": NOW + 86_400,
        "prepared_at": NOW - 30,
        "activated_at": NOW - 30,
        "tainted_at": None,
        "revoked_at": None,
        "predecessor_id": "",
        "succession": b"",
    }


def add_root(connection: sqlite3.Connection) -> str:
    row = intruder()
    sql = f"INSERT INTO authority ({AUTHORITY_COLUMNS}) VALUES ({', '.join('?' for _ in row)})"
    connection.execute(sql, [row[one.strip()] for one in AUTHORITY_COLUMNS.split(",")])
    return str(row["authority_id"])


def add_root_under_ours(connection: sqlite3.Connection) -> None:
    """With an old seal, as if what is there had not changed."""
    name = add_root(connection)
    connection.execute("UPDATE authority SET predecessor_id = (SELECT authority_id FROM authority WHERE level = 'root'"
                       " AND sealed_key <> x'') WHERE authority_id = ?", (name,))  # fmt: skip


def swap(column: str) -> Tamper:
    """Between the two intermediates."""

    def done(connection: sqlite3.Connection) -> None:
        rows = connection.execute(
            f"SELECT authority_id, {column} FROM authority WHERE level = 'intermediate'"
        ).fetchall()
        assert len(rows) == 2
        for (name, _), (_, other) in zip(rows, reversed(rows), strict=True):
            connection.execute(f"UPDATE authority SET {column} = ? WHERE authority_id = ?", (other, name))

    return done


def run(*statements: str) -> Tamper:
    def done(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return done


WIPED = ("DELETE FROM authority", "DELETE FROM fact WHERE name = 'certificate authority'", "DELETE FROM trust_seal")
# What it is: (what is done, what the refusal says)
TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    "a root added": (add_root, "was added"),
    "a root added with a predecessor": (add_root_under_ours, "was added"),
    "a revoked authority trusted again": (
        run("UPDATE authority SET phase = 'old', revoked_at = NULL WHERE phase = 'revoked'"),
        "was changed",
    ),
    "an active one revoked": (run("UPDATE authority SET phase = 'revoked' WHERE level = 'jwt'"), "was changed"),
    "certificates exchanged": (swap("certificate_der"), "was changed"),
    "keys exchanged": (swap("sealed_key"), "was changed"),
    "a JWT key exchanged": (
        run("UPDATE authority SET public_key_der = (SELECT public_key_der FROM authority WHERE level = 'root')"
            " WHERE level = 'jwt'"),
        "was changed",
    ),
    "an authority removed": (run("DELETE FROM authority WHERE phase = 'revoked'"), "was removed"),
    "a revocation removed": (
        run("DELETE FROM revocation WHERE kind = 'identity'"),
        "the revocations are others (3 before, 2 now)",
    ),
    "a revocation exchanged": (
        run("UPDATE revocation SET value = value || 'x' WHERE kind = 'identity'"),
        "the revocations are others (3 before, 3 now)",
    ),
    "the audit key removed": (run("DELETE FROM fact WHERE name LIKE 'audit key%'"), "the audit file's key"),
    "another epoch": (run("UPDATE clock SET epoch = epoch - 1"), "the epoch is another"),
    "the list edited": (
        run("UPDATE trust_seal SET statement = replace(statement, '\"number\":', '\"number\":1')"),
        "was not made with this key-encryption key",
    ),
    "the list no list": (run("UPDATE trust_seal SET statement = '{'"), "was not made with this"),
    "what vouches removed": (run("DELETE FROM trust_seal"), "is missing, while the audit file knows of number"),
    "the schema number lowered": (
        run(
            "DROP TABLE trust_seal",
            "ALTER TABLE join_token DROP COLUMN mac",
            "ALTER TABLE node DROP COLUMN mac",
            "PRAGMA user_version = 3",
        ),
        "",  # by whatever comes first: the steps after ours may find that they were done
    ),
    "back to the first start": (
        run(*WIPED, f"DELETE FROM fact WHERE name = '{KEK_FACT}'"),
        "is missing, while the audit file knows of number",
    ),
    "back to a first start that was killed": (run(*WIPED), "is missing, while the audit file knows of number"),
    "text that is none": (
        run("UPDATE authority SET predecessor_id = CAST(x'ff' AS TEXT) WHERE level = 'root'"),
        "whom the mesh trusts is not what",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERINGS)
def test_j06_what_decides_whom_the_mesh_trusts_cannot_be_changed_without_the_kek(what: str, directory: Path) -> None:
    """The start is refused, and the way out is said: a backup, or an operator's word."""
    tamper, says = TAMPERINGS[what]
    with writing(directory) as connection:
        tamper(connection)
    told = refused(directory)
    assert says in told
    assert str(directory / "cp") in told
    assert "estore" in told or not says


def test_j06_unharmed_it_starts(directory: Path) -> None:
    """So what was refused above was refused for what was changed; nothing is vouched for anew meanwhile."""

    def listed() -> object:
        with writing(directory) as connection:
            return connection.execute("SELECT * FROM trust_seal").fetchall()

    before = listed()
    with opened(directory) as desk:
        assert len(desk.state.authority.authorities) == 4
    assert listed() == before


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_j06_no_column_of_an_authority_or_a_revocation_can_be_changed(template: Path, data: st.DataObject) -> None:
    """Each, in each row, to another value of its kind."""
    with closing(sqlite3.connect(":memory:")) as connection:
        with closing(sqlite3.connect(template / "hauberk.db")) as there:
            there.backup(connection)
        columns = [f"authority {one.strip()}" for one in AUTHORITY_COLUMNS.split(",")]
        columns += [f"revocation {one}" for one in ("value", "at", "by", "reason")]
        table, column = data.draw(st.sampled_from(columns)).split()
        key = "authority_id" if table == "authority" else "kind || value"
        rows = connection.execute(f"SELECT {key}, {column} FROM {table}").fetchall()
        name, held = data.draw(st.sampled_from(rows))
        kinds = {str: st.text(max_size=9), bytes: st.binary(max_size=9), float: st.floats(allow_nan=False)}
        other = data.draw(kinds.get(type(held), st.floats(1, 2)).filter(lambda one: one != held))
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (other, name))
        assert doubts_of(connection, template)


def doubts_of(connection: sqlite3.Connection, data_dir: Path) -> list[str]:
    from control_plane.store.sqlite_trust import TrustSeal

    key = trust_key((data_dir / "kek.key").read_bytes())
    assert TrustSeal(connection, data_dir / "hauberk.db").doubts(bytes(32)) != []
    return TrustSeal(connection, data_dir / "hauberk.db").doubts(key)


def test_j06_another_meshs_word_is_worth_nothing(directory: Path, tmp_path: Path) -> None:
    """Its rows and what vouches for them, whole: another KEK."""
    (tmp_path / "other").mkdir()
    runs(tmp_path / "other")
    with writing(directory) as connection:
        take_over(connection, tmp_path / "other" / "cp" / "hauberk.db")
    assert "was not made with this key-encryption key" in refused(directory)


def take_over(connection: sqlite3.Connection, source: Path) -> None:
    """All that is vouched for, and what vouches for it."""
    connection.execute("ATTACH ? AS source", (str(source),))
    for table in ("authority", "revocation", "trust_seal"):
        connection.execute(f"DELETE FROM main.{table}")
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table}")
    connection.execute("DETACH source")


def test_j07_the_rows_of_an_earlier_day_are_refused_although_they_were_vouched_for_then(directory: Path) -> None:
    """A whole earlier set, with what vouched for it, under an audit file that knows of a later one."""
    earlier = directory / "earlier.db"
    with writing(directory) as connection, closing(sqlite3.connect(earlier)) as copy:
        connection.backup(copy)
    with opened(directory) as desk:
        desk.revoke("identity", "spiffe://mesh.local/ns/shop/sa/api")
    with writing(directory) as connection:
        take_over(connection, earlier)
    told = refused(directory)
    assert "while the audit file knows of number" in told
    assert "hauberk ca vouch" in told


def test_j07_a_change_that_did_not_commit_is_not_missed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of it is in the audit file, with a number that the store never reached; it starts, and goes on."""
    with opened(directory) as desk:
        store, number = desk.state.store, desk.state.store.trust_number
        with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
            _revoke_in_vain(desk, patched)
        assert store.trust_number == number
        desk.token()  # the audit file goes on after that record, the number stays
    with opened(directory) as desk:
        assert desk.state.store.trust_number == number
        desk.revoke("identity", "spiffe://mesh.local/ns/shop/sa/db")
    with opened(directory) as desk:
        assert len(desk.revocations()) == 4
    assert verify(files_of(directory / "cp"), stored=store_facts(directory / "cp").head).problem is None


def _revoke_in_vain(desk: Desk, patched: pytest.MonkeyPatch) -> None:
    """It fails between the record and the commit."""
    with desk.state.store.transaction():
        desk.revoke("identity", "spiffe://mesh.local/ns/shop/sa/api")
        patched.setattr(desk.state.store, "change_fact", lambda name, value: 1 / 0)


# --- tokens and nodes -------------------------------------------------------------------------------------------------


def test_j06_a_join_token_that_somebody_wrote_into_the_database_is_worth_nothing(directory: Path) -> None:
    """Neither one of their own, nor one of ours that stands for somebody else; ours goes on being good."""
    with opened(directory) as desk:
        tokens = [desk.token(service) for service in ("orders", "orders", "orders")]
    ids = [one.split(".")[1] for one in tokens]
    with writing(directory) as connection:
        connection.execute(
            "INSERT INTO join_token SELECT 'ffffffffffffffff', secret_sha256, 'spiffe://mesh.local/ns/shop/sa/admin',"
            " service, namespace, service_account, labels, created_at, created_by, expires_at, NULL, mac"
            " FROM join_token WHERE token_id = ?",
            (ids[0],),
        )
        admin = "spiffe://mesh.local/ns/shop/sa/admin"
        connection.execute("UPDATE join_token SET spiffe_id = ? WHERE token_id = ?", (admin, ids[1]))
    for kek in ("the same", "another"):
        if kek == "another":
            with closing(SqliteStore.open(directory / "cp" / "hauberk.db")) as store:
                rotate_kek(directory / "cp", None, store, lambda count: bytes(range(7, 7 + count)))
        with opened(directory) as desk:
            for forged in (tokens[0].replace(ids[0], "f" * 16), tokens[1]):
                with pytest.raises(PermissionDenied):
                    desk.join(forged)
            desk.join(tokens[0] if kek == "the same" else tokens[2])


@pytest.mark.parametrize("what", ["key", "workload", "identity"])
def test_j06_a_node_that_somebody_changed_does_not_come_back(what: str, directory: Path) -> None:
    """With another key, as another workload, or as what its workload was made; others do, under another KEK too."""
    mine, other, sound = new_private_key(), new_private_key(), new_private_key()
    with opened(directory) as desk:
        desk.join(node=mine)
        desk.join(node=other, service="cart")
        desk.join(node=sound, service="api")
    name = key_id(mine.public_key())
    statement = {
        "key": "UPDATE node SET public_key_der = (SELECT public_key_der FROM node WHERE node_id = :other)"
        " WHERE node_id = :mine",
        "workload": "UPDATE node SET workload_id = (SELECT workload_id FROM node WHERE node_id = :other)"
        " WHERE node_id = :mine",
        "identity": "UPDATE workload SET spiffe_id = 'spiffe://mesh.local/ns/shop/sa/admin'"
        " WHERE workload_id = (SELECT workload_id FROM node WHERE node_id = :mine)",
    }[what]
    with writing(directory) as connection:
        connection.execute(statement, {"mine": name, "other": key_id(other.public_key())})
    for kek in ("the same", "another"):
        if kek == "another":
            with closing(SqliteStore.open(directory / "cp" / "hauberk.db")) as store:
                rotate_kek(directory / "cp", None, store, lambda count: bytes(range(7, 7 + count)))
        with opened(directory) as desk:
            with pytest.raises(PermissionDenied):
                desk.rejoin(mine)
            desk.renew(desk.rejoin(sound))


@pytest.mark.parametrize("what", ["certificate", "workload"])
def test_j06_a_member_does_not_become_another_by_what_somebody_writes(what: str, directory: Path) -> None:
    """Its certificate as another workload's, or its workload under another name: it is renewed as nobody."""
    with opened(directory) as desk:
        mine = desk.join()
        desk.join(service="cart")
    statement = {
        "certificate": "UPDATE certificate SET workload_id = (SELECT workload_id FROM workload WHERE service = 'cart')"
        " WHERE serial = ?",
        "workload": "UPDATE workload SET spiffe_id = 'spiffe://mesh.local/ns/shop/sa/admin' WHERE workload_id ="
        " (SELECT workload_id FROM certificate WHERE serial = ?)",
    }[what]
    with writing(directory) as connection:
        connection.execute(statement, (f"{mine.svid.serial:x}",))
    with opened(directory) as desk, pytest.raises(PermissionDenied):
        desk.renew(mine.svid)


def test_j06_an_operators_word_is_not_for_tokens_and_nodes(directory: Path) -> None:
    """They are not shown, so they are not meant."""
    with opened(directory) as desk:
        token = desk.token()
    with writing(directory) as connection:
        connection.execute("UPDATE join_token SET spiffe_id = 'spiffe://mesh.local/ns/shop/sa/admin'")
        connection.execute("DELETE FROM trust_seal")
    vouch_for(directory / "cp")
    with closing(SqliteStore.open(directory / "cp" / "hauberk.db")) as store:
        store.open_trust(trust_key((directory / "cp" / "kek.key").read_bytes()))
        held = store.token(token.split(".")[1])
        assert held is not None
        assert store.consume_token(held.token_id, held.secret_sha256, NOW) is None


# --- while it runs ---------------------------------------------------------------------------------------------------


def test_j06_what_somebody_changes_while_it_runs_is_neither_taken_nor_vouched_for(directory: Path) -> None:
    """The next change is refused, what was in force stays, and the next start is refused too."""
    with opened(directory) as desk:
        revoked, bundle = desk.state.revoked.current(), desk.state.authority.bundle
        with writing(directory) as connection:
            connection.execute("DELETE FROM revocation")
            add_root(connection)
        for change in (
            lambda: desk.revoke("identity", "spiffe://mesh.local/ns/shop/sa/api"),
            lambda: desk.reinstate("identity", WEB),
            lambda: desk.state.authority.prepare(Level.JWT, NOW, "ann"),
        ):
            with pytest.raises(TrustBroken, match="was added; the revocations are others"):
                change()
        assert desk.state.revoked.current() == revoked
        assert (desk.state.authority.bundle, len(desk.state.authority.authorities)) == (bundle, 4)
        desk.join()  # whom it concerns is not cut off
    assert "was added; the revocations are others" in refused(directory)


def test_j06_revocations_that_were_never_read_are_not_taken_for_none(directory: Path) -> None:
    """Whoever asks for the first time gets an error, not an empty set."""
    with opened(directory) as desk:
        fresh = RevokedView(desk.state.store, desk.state.authority)
        with writing(directory) as connection:
            connection.execute("DELETE FROM revocation")
        with pytest.raises(TrustBroken, match="the revocations are others"):
            fresh.current()


# --- another KEK -----------------------------------------------------------------------------------------------------


def test_j06_another_kek_vouches_for_the_same_and_the_one_before_for_nothing(directory: Path) -> None:
    """And what somebody has changed is refused, not sealed anew."""
    data_dir = directory / "cp"
    with closing(SqliteStore.open(data_dir / "hauberk.db")) as store:
        rotate_kek(data_dir, None, store, lambda count: bytes(range(7, 7 + count)))
        with writing(directory) as connection:
            assert doubts_of(connection, data_dir) == []
    with opened(directory) as desk:
        assert len(desk.state.authority.authorities) == 4
        desk.reinstate("identity", WEB)
    with writing(directory) as connection:
        add_root(connection)
    with closing(SqliteStore.open(data_dir / "hauberk.db")) as store, pytest.raises(TrustBroken, match="was added"):
        rotate_kek(data_dir, None, store, lambda count: bytes(range(9, 9 + count)))
    assert not (data_dir / "kek.key.next").exists()


# --- an operator's word ----------------------------------------------------------------------------------------------


def typed(*words: object, answer: str = "") -> Result:
    return CliRunner().invoke(cli, [str(one) for one in words], input=answer, prog_name="hauberk")


def test_j06_an_operator_can_vouch_for_what_they_know(directory: Path) -> None:
    """Everything is shown, and asked about; it is in the audit file afterwards."""
    data_dir = directory / "cp"
    with writing(directory) as connection:
        name = add_root(connection)
    said = typed("ca", "vouch", "--data-dir", data_dir, answer="n\n")
    assert said.exit_code == 1
    assert name in said.output
    assert "elsewhere" in said.output
    assert f"note: authority {name} was added" in said.output
    refused(directory)
    said = typed("ca", "vouch", "--data-dir", data_dir, answer="y\n")
    assert said.exit_code == 0
    assert "vouched for: 5 authorities, 3 revocations" in said.output
    with opened(directory) as desk:
        assert len(desk.state.authority.bundle.anchors_der) == 2
        desk.reinstate("identity", WEB)
    records = (data_dir / "audit.jsonl").read_text()
    assert '"ca.vouched"' in records
    assert f"root {name} old" in records
    assert "already" in typed("ca", "vouch", "--data-dir", data_dir).output


def test_j06_a_database_of_an_older_version_is_taken_on_an_operators_word_only(directory: Path) -> None:
    """It has authorities, and neither it nor its audit file knows of anything that vouches for them."""
    data_dir = directory / "cp"
    with ca_and_store(directory / "older"):
        pass
    for name in ("hauberk.db", "audit.jsonl", "kek.key"):
        (data_dir / name).unlink()
        shutil.copy(directory / "older" / name, data_dir / name)
    with writing(directory) as connection:
        connection.execute("DELETE FROM trust_seal")
    audit = data_dir / "audit.jsonl"
    assert '"trust":' in audit.read_text()  # as of today; an older version told none
    audit.unlink()
    with writing(directory) as connection:
        connection.execute("DELETE FROM fact WHERE name = 'audit head'")
    told = refused(directory)
    assert "nothing vouches for the authorities in it" in told
    assert "hauberk ca vouch --data-dir" in told
    with closing(SqliteStore.open(data_dir / "hauberk.db")) as store, pytest.raises(CaStateError, match="vouches for"):
        rotate_kek(data_dir, None, store, bytes)
    said = typed("ca", "vouch", "--data-dir", data_dir, "--yes")
    assert "nothing in it is vouched for" in said.output
    with opened(directory) as desk:
        assert {one.phase for one in desk.state.authority.authorities} == {Phase.ACTIVE}


def test_j06_nobody_can_vouch_without_the_right_kek(directory: Path) -> None:
    """Not with another one, not without."""
    kek = directory / "cp" / "kek.key"
    kek.chmod(0o600)
    kek.write_bytes(bytes(range(32)))
    kek.chmod(0o400)
    assert "is not the key-encryption key" in typed("ca", "vouch", "--data-dir", directory / "cp", "--yes").output
    kek.unlink()
    assert "kek.key: is missing" in typed("ca", "vouch", "--data-dir", directory / "cp", "--yes").output


def test_vouching_waits_for_the_control_plane_to_stop(directory: Path) -> None:
    """It has the store."""
    with opened(directory):
        said = typed("ca", "vouch", "--data-dir", directory / "cp", "--yes")
    assert "while no control plane runs" in said.output


def test_j06_a_root_of_files_is_adopted_once(directory: Path) -> None:
    """Whoever empties the database does not get the root of before there were intermediates back."""
    from tests.control_plane.ca.test_opening import older

    older(directory / "cp2")
    with ca_and_store(directory / "cp2") as (ca, _):
        (root,) = [one for one in ca.authorities if one.level is Level.ROOT]
    with ca_and_store(directory / "cp2") as (ca, store):
        assert store.fact(KEK_FACT) is not None  # from the second start on
    (directory / "cp").rename(directory / "cp1")
    (directory / "cp2").rename(directory / "cp")
    with writing(directory) as connection:
        run(*WIPED, f"DELETE FROM fact WHERE name = '{KEK_FACT}'")(connection)
    assert "while the audit file knows of number" in refused(directory)
    with writing(directory) as connection:
        assert (
            connection.execute("SELECT * FROM authority WHERE authority_id = ?", (root.authority_id,)).fetchall() == []
        )


def test_vouching_for_a_test(directory: Path) -> None:
    """What other tests stand on (`vouch_for`) does what the command does."""
    with writing(directory) as connection:
        add_root(connection)
    vouch_for(directory / "cp")
    with opened(directory) as desk:
        assert isinstance(desk, Desk)
