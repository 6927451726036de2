"""`hauberk ca`: what it asks of the control plane, what it says, and what it does to a data directory by itself."""

from __future__ import annotations

import json
import time
from pathlib import Path

import grpc
import pytest

from certs.succession import follow
from control_plane.cli.ca_status import id_length
from protos.hauberk.v1 import admin_pb2 as pb
from tests.control_plane.cli.conftest import Hauberk
from tests.control_plane.cli.fake_control_plane import FakeControlPlane
from tests.control_plane.support import TD, ca_and_store

NOW = 1_800_000_000.0
A, B = "aa" * 16, "ab" * 16


def authority(name: str = A, level: str = "intermediate", phase: str = "active", **more: object) -> pb.Authority:
    values = {"not_after": NOW + 3_600, "has_key": True, "prepared_at": NOW - 60, **more}
    return pb.Authority(authority_id=name, level=level, phase=phase, **values)  # type: ignore[arg-type]  # its fields


def status_of(*authorities: pb.Authority, **more: object) -> pb.CaStatusResponse:
    return pb.CaStatusResponse(authorities=authorities, server_time=NOW, **more)  # type: ignore[arg-type]  # its fields


def test_status_says_what_is_and_what_comes_next(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """In words; alarms on standard error, and nothing a terminal would act on."""
    fake.answers["Admin/CaStatus"] = status_of(
        authority(live_certificates=3),
        authority(B, "root", has_key=False),
        authority("c" * 32, "root", "revoked"),
        next_steps=[
            pb.CaNextStep(level="intermediate", step="prepare", not_before=NOW + 60),
            pb.CaNextStep(level="root", step="activate", authority_id=B, not_before=NOW - 5, waits_for=list("abcdefg")),
            pb.CaNextStep(level="jwt", step="activate", not_before=NOW, waits_for=["a"], waits_until=NOW + 3_600),
            pb.CaNextStep(level="root", step="retire", authority_id=A, not_before=NOW - 1),
            pb.CaNextStep(level="intermediate", step="install", not_before=NOW - 1, waits_for=["a signature"]),
        ],
        alarms=["something\x1b[2J is wrong"],
    )
    result = hauberk("ca", "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["LEVEL", "PHASE", "ID", "GOOD", "UNTIL", "LIVE", "MEANING"]
    assert lines[1].split()[:3] == ["root", "active", B[:8]]
    assert lines[1].endswith("signs; its key is kept elsewhere")
    assert "2027-01-15T09:00:00Z (in 1h)" in lines[2]
    assert " 3 " in lines[2]
    assert "and 1 that nobody trusts any more; --all shows them" in lines
    assert "next: a new intermediate is made at 2027-01-15T08:01:00Z (in 1m)" in lines
    assert "as soon as it can be; it waits for a, b, c, d, e and 2 more" in result.stdout
    assert f"next: the root {A[:8]} is dropped now" in lines
    assert "it waits for a, until 2027-01-15T09:00:00Z (in 1h)" in result.stdout
    assert "2 more, until" not in result.stdout
    assert "waits for a signature: `hauberk ca prepare intermediate --csr FILE`, have it signed," in result.stdout
    assert "\x1b" not in result.stderr
    assert "is wrong" in result.stderr
    assert "c" * 8 in hauberk("ca", "status", "--all").stdout


def test_status_for_programs_holds_all_of_the_answer(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Ids whole, phases as they are, alarms too."""
    waiting = pb.CaNextStep(level="root", step="activate", waits_for=["a"], waits_until=NOW + 3_600)
    fake.answers["Admin/CaStatus"] = status_of(authority(phase="revoked"), next_steps=[waiting], alarms=["x"])
    data = json.loads(hauberk("ca", "status", "-o", "json").stdout)
    assert (data["authorities"][0]["authority_id"], data["alarms"]) == (A, ["x"])
    assert (data["next_steps"][0]["waits_for"], data["next_steps"][0]["waits_until"]) == (["a"], NOW + 3_600)


def test_ids_are_shown_as_long_as_they_must_be() -> None:
    """Eight digits, or more if two begin alike."""
    assert id_length([A, B]) == 8
    assert id_length(["a" * 10 + "b" * 22, "a" * 10 + "c" * 22]) == 11
    assert id_length([]) == 8


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("prepare root", pb.CaStepRequest(step="prepare", level="root")),
        ("prepare jwt --force", pb.CaStepRequest(step="prepare", level="jwt", force=True)),
        ("activate root", pb.CaStepRequest(step="activate", level="root")),
        ("activate intermediate AABB", pb.CaStepRequest(step="activate", level="intermediate", authority_id="aabb")),
        ("taint aa", pb.CaStepRequest(step="taint", authority_id="aa")),
        ("revoke aa", pb.CaStepRequest(step="revoke", authority_id="aa")),
    ],
)
def test_each_step_is_asked_for_as_typed(
    typed: str, asked: pb.CaStepRequest, hauberk: Hauberk, fake: FakeControlPlane
) -> None:
    """One call, and one line that says what is now."""
    fake.answers["Admin/CaStep"] = pb.CaStepResponse(authority=authority())
    result = hauberk("ca", *typed.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert fake.asked == [("Admin/CaStep", asked)]
    assert result.stdout.startswith(f"intermediate {A} is ")
    assert result.stdout.endswith("good until 2027-01-15T09:00:00Z\n")


@pytest.mark.parametrize(("answer", "done"), [("y\n", True), ("n\n", False), ("", False)])
def test_force_says_who_is_cut_off_and_asks(answer: str, done: bool, hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """A dry run first; then exactly that authority, or nothing."""
    fake.answers["Admin/CaStep"] = pb.CaStepResponse(authority=authority(phase="old"), breaks=["web#1", "orders#2"])
    result = hauberk("ca", "revoke", "aa", "--force", input=answer)
    assert "2 will be cut off until they have renewed or joined again:\n  web#1\n  orders#2\n" in result.stderr
    requests = [request for _, request in fake.asked]
    assert requests[0] == pb.CaStepRequest(step="revoke", authority_id="aa", dry_run=True)
    assert requests[1:] == ([pb.CaStepRequest(step="revoke", authority_id=A, force=True)] if done else [])
    assert (result.exit_code == 0) == done


def test_yes_asks_nothing(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """For scripts; who is cut off is still said."""
    fake.answers["Admin/CaStep"] = pb.CaStepResponse(authority=authority(), breaks=["web#1"])
    result = hauberk("ca", "activate", "root", "--force", "--yes")
    assert (result.exit_code, len(fake.asked)) == (0, 2)
    assert "web#1" in result.stderr


def test_a_refusal_is_passed_on_with_its_names(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Exit code 1."""
    fake.answers["Admin/CaStep"] = (grpc.StatusCode.FAILED_PRECONDITION, "not known to everybody yet: web#1\n  web#1")
    result = hauberk("ca", "activate", "root")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not known to everybody yet: web#1" in result.stderr


def test_a_request_for_an_offline_root_goes_to_a_new_file(
    hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path
) -> None:
    """One that is there is left as it is; without --csr it goes to standard output."""
    fake.answers["Admin/CaStep"] = pb.CaStepResponse(authority=authority(phase="requested"), csr_pem="REQUEST\n")
    fake.answers["Admin/CaStatus"] = status_of(authority(B, "root", has_key=False))
    out = tmp_path / "x.csr"
    assert hauberk("ca", "prepare", "intermediate", "--csr", str(out)).exit_code == 0
    assert out.read_text() == "REQUEST\n"
    again = hauberk("ca", "prepare", "intermediate", "--csr", str(out))
    assert (again.exit_code, out.read_text()) == (1, "REQUEST\n")
    assert "exists already" in again.stderr
    for more in ([], ["--csr", "-"]):
        shown = hauberk("ca", "prepare", "intermediate", *more)
        assert (shown.exit_code, shown.stdout) == (0, "REQUEST\n")
        assert "hauberk ca install FILE" in shown.stderr


def test_a_request_that_there_is_not_is_said(hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path) -> None:
    """A root that is kept here is sent none, nor for another level: nothing is prepared either."""
    fake.answers["Admin/CaStatus"] = status_of(authority(B, "root", "active"))
    result = hauberk("ca", "prepare", "intermediate", "--csr", str(tmp_path / "x.csr"))
    assert result.exit_code == 1
    assert "the root is kept by the control plane itself" in result.stderr
    fake.answers["Admin/CaStatus"] = status_of(authority(B, "root", "active", has_key=False))
    result = hauberk("ca", "prepare", "jwt", "--csr", str(tmp_path / "x.csr"))
    assert "no jwt is asked of an offline root" in result.stderr
    assert [method for method, _ in fake.asked] == ["Admin/CaStatus"] * 2


def test_install_sends_the_file(hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path) -> None:
    """Or standard input; what cannot be PEM is refused here."""
    fake.answers["Admin/CaInstall"] = pb.CaStepResponse(authority=authority())
    file = tmp_path / "signed.pem"
    pem = "-----BEGIN CERTIFICATE-----\n"
    file.write_text(pem)
    assert hauberk("ca", "install", str(file)).exit_code == 0
    assert hauberk("ca", "install", "-", input=pem).exit_code == 0
    assert [request.certificate_pem for _, request in fake.asked] == [pem, pem]
    for content, says in (
        (b"\x30\x82\xff", "is not PEM"),
        (b"x" * 70_000, "longer than"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", "is the request; have the offline root sign it"),
        (b"# a file of another kind\n", "holds no certificate in PEM"),
    ):
        file.write_bytes(content)
        result = hauberk("ca", "install", str(file))
        assert result.exit_code == 1
        assert f"{file}: " in result.stderr
        assert says in result.stderr
    missing = hauberk("ca", "install", str(tmp_path / "none"))
    assert missing.exit_code == 1
    assert "cannot be read (No such file or directory); give a file with the certificates" in missing.stderr


PRIVATE_KEYS = (
    # RFC 7468 sections 10 and 11, RFC 5915, and what OpenSSH, OpenPGP and SSH2 write.
    *(f"-----BEGIN {kind}PRIVATE KEY-----" for kind in ("", "EC ", "RSA ", "ENCRYPTED ", "OPENSSH ")),
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----",
)


@pytest.mark.parametrize("begins", PRIVATE_KEYS)
def test_install_sends_no_private_key(begins: str, hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path) -> None:
    """Not to anybody, and not to the terminal; of whatever kind, wherever it stands."""
    certificate = "-----BEGIN CERTIFICATE-----\n"
    key = f"{begins}\nc2VjcmV0\n{begins.replace('BEGIN', 'END')}\n"
    file = tmp_path / "signed.pem"
    for content in (certificate + key, key + certificate, key):
        file.write_text(content)
        for result in (hauberk("ca", "install", str(file)), hauberk("ca", "install", "-", input=content)):
            assert result.exit_code == 1
            assert "holds a private key; keep that on the machine of the root" in result.stderr
            assert "c2VjcmV0" not in result.output
    assert fake.asked == []


def test_a_rehearsal_without_failures_is_a_success(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Steps with their time since the beginning."""
    fake.answers["Admin/CaRehearse"] = pb.CaRehearseResponse(
        steps=[pb.RehearsedStep(at=NOW, what="begins"), pb.RehearsedStep(at=NOW + 90, what="ends")]
    )
    result = hauberk("ca", "rehearse", "intermediate", "--for", "30d")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[:3]] == ["AFTER", "0s", "1m"]
    assert result.stdout.endswith("nobody would fail\n")
    assert fake.asked == [("Admin/CaRehearse", pb.CaRehearseRequest(level="intermediate", horizon_s=30 * 86_400))]


def test_a_rehearsal_with_failures_names_them_and_fails(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """From when on, for how long, why."""
    failures = [pb.RehearsedFailure(who=who, until=until, why="because") for who, until in (("web", 0), ("job", NOW))]
    for one in failures:
        setattr(one, "from", NOW - 60)
    fake.answers["Admin/CaRehearse"] = pb.CaRehearseResponse(failures=failures)
    result = hauberk("ca", "rehearse", "root", "--force")
    assert result.exit_code == 1
    assert "web would fail from 2027-01-15T07:59:00Z on, until somebody does something: because" in result.stdout
    assert "job would fail from 2027-01-15T07:59:00Z on, for 1m: because" in result.stdout
    assert "2 sidecars would fail; nothing was changed" in result.stderr
    assert json.loads(hauberk("ca", "rehearse", "root", "-o", "json").stdout)["failures"][0]["from"] == NOW - 60


@pytest.mark.parametrize(
    "typed",
    ["prepare leaf", "activate", "activate root xyz", "taint", "revoke " + "a" * 33, "rehearse jwt", "install", "jump"],
)
def test_what_is_typed_wrong_reaches_nobody(typed: str, hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Exit code 2."""
    assert hauberk("ca", *typed.split()).exit_code == 2
    assert fake.asked == []


# --- a data directory without its control plane


def test_recover_makes_a_root_in_a_mesh_that_has_expired(hauberk: Hauberk, tmp_path: Path) -> None:
    """And only in one that has, unless forced and confirmed."""
    data_dir = tmp_path / "cp"
    with ca_and_store(data_dir, time.time() - 500 * 86_400.0) as (ca, _):
        old = ca.anchor_der
    result = hauberk("ca", "recover", "--data-dir", str(data_dir))
    assert result.exit_code == 0, result.stderr
    assert " is active, good until " in result.stdout
    assert "now start the control plane" in result.stderr
    with ca_and_store(data_dir, time.time()) as (ca, _):
        recovered = ca.anchor_der
        assert recovered != old
        assert [one.successor_der for one in ca.successions()] == [recovered]
    refused = hauberk("ca", "recover", "--data-dir", str(data_dir))
    assert (refused.exit_code, "has not expired" in refused.stderr) == (1, True)
    assert hauberk("ca", "recover", "--data-dir", str(data_dir), "--force", input="n\n").exit_code == 1
    forced = hauberk("ca", "recover", "--data-dir", str(data_dir), "--force", "--yes", "-o", "json")
    assert (forced.exit_code, json.loads(forced.stdout)["level"]) == (0, "root")
    with ca_and_store(data_dir, time.time()) as (ca, _):
        assert ca.anchor_der not in (old, recovered)


def test_r24_recover_by_force_where_the_root_was_made_under_a_clock_that_was_ahead(
    hauberk: Hauberk, tmp_path: Path
) -> None:
    """Whether the clock is wrong now is asked first."""
    data_dir = tmp_path / "cp"
    with ca_and_store(data_dir, time.time() + 10 * 86_400.0) as (ca, _):
        ahead = ca.anchor_der
    refused = hauberk("ca", "recover", "--data-dir", str(data_dir))
    assert refused.exit_code == 1
    assert "is not valid before" in refused.stderr
    assert "set this machine's clock; if it is right" in refused.stderr
    forced = hauberk("ca", "recover", "--data-dir", str(data_dir), "--force", "--yes")
    assert forced.exit_code == 0, forced.stderr
    with ca_and_store(data_dir, time.time()) as (ca, _):
        assert follow([ahead], ca.successions(), TD) == (ca.anchor_der,)


def test_recover_asks_a_control_plane_that_runs(hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path) -> None:
    """It has the store's lock, so it does it itself."""
    fake.answers["Admin/CaStep"] = pb.CaStepResponse(authority=authority(level="root"))
    with ca_and_store(tmp_path, time.time()):
        result = hauberk("ca", "recover", "--data-dir", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert fake.asked == [("Admin/CaStep", pb.CaStepRequest(step="recover"))]
    assert f"root {A} is active" in result.stdout


def test_the_kek_is_exchanged_while_nobody_runs(hauberk: Hauberk, tmp_path: Path) -> None:
    """The CA opens with the new one; the audit log says when it was."""
    data_dir = tmp_path / "cp"
    with ca_and_store(data_dir, time.time()) as (ca, _):
        anchor = ca.anchor_der
        busy = hauberk("ca", "rotate-kek", "--data-dir", str(data_dir))
        assert (busy.exit_code, "no control plane runs" in busy.stderr) == (1, True)
    before = (data_dir / "kek.key").read_bytes()
    result = hauberk("ca", "rotate-kek", "--data-dir", str(data_dir))
    assert result.exit_code == 0, result.stderr
    assert "make a new backup" in result.stderr
    assert (data_dir / "kek.key").read_bytes() != before
    with ca_and_store(data_dir, time.time()) as (ca, _):
        assert ca.anchor_der == anchor
    assert "ca.kek_rotated" in (data_dir / "audit.jsonl").read_text()
    again = json.loads(hauberk("ca", "rotate-kek", "--data-dir", str(data_dir), "-o", "json").stdout)
    assert again["kek_file"] == str(data_dir / "kek.key")


@pytest.mark.parametrize("verb", ["recover", "rotate-kek"])
def test_a_directory_that_is_none_is_left_alone(verb: str, hauberk: Hauberk, tmp_path: Path) -> None:
    """Nothing is made in it."""
    result = hauberk("ca", verb, "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "there is no database" in result.stderr
    assert not (tmp_path / "hauberk.db").exists()
