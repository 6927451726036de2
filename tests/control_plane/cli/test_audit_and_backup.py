"""`hauberk audit`, `backup` and `restore`: what is typed, what is printed, how it ends (docs/state.md plays them)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control_plane.cli.audit import Moment
from control_plane.cli.main import cli
from tests.control_plane.audit.test_log import KEK, opened
from tests.control_plane.support import NOW


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "mesh"
    directory.mkdir(mode=0o700)
    with opened(directory) as (_, audit):
        audit.sign_with(KEK, NOW)
        audit.append("token.created", at=NOW + 10, by="ann", token_id="00\u202e\x1b[31m")
        audit.refused("/hauberk.v1.Admin/Status", "", "192.0.2.1", "UNAUTHENTICATED", "show a certificate", NOW + 20)
    return directory


def typed(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_verify_says_what_it_looked_at(data_dir: Path) -> None:
    """For people and for programs."""
    assert "the chain is whole" in typed("audit", "verify", "--data-dir", data_dir).output
    told = json.loads(typed("audit", "verify", "--data-dir", data_dir, "-o", "json").stdout)
    assert (told["whole"], told["problem"], told["records"], len(told["keys"])) == (True, "", 6, 1)
    assert told["checkpoint"] == told["last"] == 6


def test_j11_verify_ends_with_1_and_names_the_line(data_dir: Path) -> None:
    """And says the way out."""
    path = data_dir / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"ann", b"eve"))
    result = typed("audit", "verify", "--data-dir", data_dir)
    assert result.exit_code == 1
    assert f"{path}:5: it does not continue record 4" in result.output
    assert "hauberk audit restart" in result.output


def test_files_are_verified_against_a_key_that_was_kept(data_dir: Path, tmp_path: Path) -> None:
    """Somebody else's key does not fit."""
    key = tmp_path / "key"
    key.write_text(typed("audit", "verify", "--data-dir", data_dir, "--show-key").stdout)
    assert typed("audit", "verify", data_dir / "audit.jsonl", "--key-file", key).exit_code == 0
    key.write_text("no key")
    result = typed("audit", "verify", data_dir / "audit.jsonl", "--key-file", key)
    assert "is no public key" in result.stderr


@pytest.mark.parametrize("form", ["jsonl", "rfc5424", "ocsf"])
def test_export_writes_a_line_a_record_between_two_times(data_dir: Path, form: str, tmp_path: Path) -> None:
    """Into a new file of ours alone; never over another. No control character reaches a terminal."""
    out = tmp_path / "out"
    whole = typed("audit", "export", "--data-dir", data_dir, "--format", form).stdout
    assert whole.count("\n") == 6
    assert "\x1b" not in whole
    assert "\u202e" not in whole
    options = ["--format", form, "--since", NOW + 5, "--until", NOW + 15]
    assert typed("audit", "export", "--data-dir", data_dir, *options, "-o", out).exit_code == 0
    assert out.read_text().count("\n") == 1
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "exists already" in typed("audit", "export", "--data-dir", data_dir, *options, "-o", out).output


def test_export_of_a_broken_chain_stops_there(data_dir: Path) -> None:
    """What is before the break is written."""
    path = data_dir / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"ann", b"eve"))
    result = typed("audit", "export", "--data-dir", data_dir)
    assert "it does not continue record 4" in result.stderr
    assert result.stdout.count("\n") == 4


def test_export_o_names_a_file_and_no_form(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere -o says how to print; a file called json is not what was meant."""
    monkeypatch.chdir(tmp_path)
    for name in ("json", "ocsf"):
        result = typed("audit", "export", "--data-dir", data_dir, "-o", name)
        assert result.exit_code == 2
        assert "--format" in result.stderr
        assert not (tmp_path / name).exists()


def test_what_cannot_be_read_or_written_is_named(data_dir: Path, tmp_path: Path) -> None:
    """By the name that was typed, in words."""
    missing = tmp_path / "none"
    said = typed("audit", "verify", missing).stderr
    way_out = "give the audit files, oldest first, or --data-dir"
    assert said == f"hauberk: {missing}: cannot be read (No such file or directory); {way_out}\n"
    said = typed("backup", missing / "b", "--data-dir", data_dir).stderr
    assert said.startswith(f"hauberk: {missing / 'b'}: cannot be written (No such file or directory)")


def test_a_directory_without_a_mesh_is_told(tmp_path: Path) -> None:
    """Each verb in one line."""
    for verb in (["audit", "verify"], ["audit", "export"], ["audit", "restart", "--reason", "x"]):
        result = typed(*verb, "--data-dir", tmp_path / "nothing")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
    assert "is not there" in typed("backup", tmp_path / "b", "--data-dir", tmp_path / "nothing").output
    unread = typed("restore", tmp_path / "b", "--data-dir", tmp_path / "new").output
    assert "cannot be read or unpacked (No such file or directory); give a file that `hauberk backup` wrote" in unread


def test_backup_and_restore_say_what_is_needed_and_what_became_of_it(data_dir: Path, tmp_path: Path) -> None:
    """That the key is not inside, first of all; and without it, that nothing can be verified."""
    made = typed("backup", tmp_path / "b", "--data-dir", data_dir)
    assert made.exit_code == 0
    assert "is not in the backup" in made.output
    assert "warning: " in made.output  # this mesh has none
    assert "--replace" in typed("restore", tmp_path / "b", "--data-dir", data_dir).output
    refused = typed("restore", "--replace", tmp_path / "b", "--data-dir", data_dir)
    assert refused.exit_code == 1
    assert "cannot be verified" in refused.output
    missing = typed("restore", "--replace", tmp_path / "b", "--data-dir", data_dir, "--kek-file", tmp_path / "no")
    assert "no: is not there; check --kek-file" in missing.output
    again = typed("restore", "--replace", "--unverified", tmp_path / "b", "--data-dir", data_dir)
    assert again.exit_code == 0
    assert "so nothing shows that the backup is as it was made" in again.output
    assert "0 unused ones are void" in again.output
    assert "taken over" in again.output
    made = json.loads(typed("backup", tmp_path / "b2", "--data-dir", data_dir, "-o", "json").stdout)
    assert (made["file"], made["audit"] > 0) == (str(tmp_path / "b2"), True)
    new = ("--data-dir", tmp_path / "new", "--unverified", "-o", "json")
    told = json.loads(typed("restore", tmp_path / "b2", *new).stdout)
    assert (made["verifiable"], len(told["unverified"])) == (False, 2)
    assert (told["knows_since"], told["epoch"] > made["epoch"], len(told["lost"])) == (False, True, 1)
    assert f"that key belongs at {data_dir}/kek.key" in again.output  # it has none


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1800000000", NOW),
        ("2027-01-15", NOW - 8 * 3_600),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
    ],
)
def test_a_time_is_read(text: str, at: float) -> None:
    """Without a zone it is UTC."""
    assert Moment().convert(text, None, None) == at


def test_j11_a_chain_written_anew_is_found_by_the_key_that_was_kept(data_dir: Path, tmp_path: Path) -> None:
    """Whether it has no signatures or those of another key, and together with its database."""
    key, anew, unsigned = tmp_path / "key", tmp_path / "anew", tmp_path / "unsigned"
    key.write_text(typed("audit", "verify", "--data-dir", data_dir, "--show-key").stdout)
    anew.mkdir(mode=0o700)
    with opened(anew) as (_, audit):
        audit.sign_with(KEK, NOW)
    unsigned.mkdir(mode=0o700)
    with opened(unsigned) as (_, audit):
        audit.append("token.created", at=NOW, by="eve")
    for what in (("--data-dir", anew), (anew / "audit.jsonl",), ("--data-dir", unsigned), (unsigned / "audit.jsonl",)):
        result = typed("audit", "verify", *what, "--key-file", key)
        assert result.exit_code == 1, result.output
        assert "nothing in it is signed by the key" in result.stderr


def test_j11_export_leaves_out_no_record_for_what_stands_in_it(data_dir: Path) -> None:
    """A carriage return is white space to JSON, and no end of a line to the chain."""
    path = data_dir / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b"{", b"{\r", 1))
    assert typed("audit", "export", "--data-dir", data_dir, "--format", "ocsf").stdout.count("\n") == len(lines)
