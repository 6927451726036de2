"""`hauberk revoke`, `reinstate`, `revocations`: what is asked, and what is said."""

from __future__ import annotations

import json

import grpc
import pytest

from protos.hauberk.v1 import admin_pb2
from tests.control_plane.cli.conftest import Hauberk
from tests.control_plane.cli.fake_control_plane import FakeControlPlane

ORDERS = "spiffe://mesh.local/ns/shop/sa/orders"


@pytest.mark.parametrize(
    ("serials", "said"),
    [
        ([], "is revoked, and with it no certificate: nobody holds one now"),
        (["ab"], "is revoked, and with it 1 certificate"),
        (["ab", "cd"], "is revoked, and with it 2 certificates"),
    ],
)
def test_revoking_says_what_it_ended(hauberk: Hauberk, fake: FakeControlPlane, serials: list[str], said: str) -> None:
    """With the identity as it is written everywhere; one without its scheme is completed, as policies have it."""
    fake.answers["Admin/Revoke"] = admin_pb2.RevokeResponse(changed=True, serials=serials)
    result = hauberk("revoke", "identity", "mesh.local/ns/shop/sa/orders", "--reason", "stolen")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"identity {ORDERS} {said}\n", "")
    ((_, request),) = fake.asked
    assert request == admin_pb2.RevokeRequest(kind="identity", value=ORDERS, reason="stolen")


def test_a_serial_number_that_nobody_has_may_be_typed_wrong(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """It is revoked all the same, and asked about."""
    fake.answers["Admin/Revoke"] = admin_pb2.RevokeResponse(changed=True)
    result = hauberk("revoke", "serial", "abcd")
    assert result.exit_code == 0
    assert "is it typed right?" in result.stdout


def test_a_name_as_explain_takes_it_is_left_to_the_control_plane(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """The trust domain is its own."""
    fake.answers["Admin/Revoke"] = admin_pb2.RevokeResponse(changed=True)
    for value in ("shop/orders", "orders"):
        hauberk("revoke", "identity", value)
    assert [request.value for _, request in fake.asked] == ["shop/orders", "orders"]


def test_revoking_again_is_done_and_says_so(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Exit code 0: it is what was wanted."""
    fake.answers["Admin/Revoke"] = admin_pb2.RevokeResponse(changed=False)
    result = hauberk("revoke", "serial", "AB:CD")
    assert (result.exit_code, result.stdout) == (0, "serial AB:CD was revoked already\n")


def test_waiting_says_who_has_not_confirmed(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Exit code 1, with names; nothing a terminal would act on. When all have, how many."""
    fake.answers["Admin/Revoke"] = admin_pb2.RevokeResponse(changed=True, pending=["a#1", "b\x1b[2J"])
    result = hauberk("revoke", "identity", ORDERS, "--wait", "--timeout", "3s")
    assert result.exit_code == 1
    assert "2 sidecars had not confirmed it after 3 s: a#1, b\\x1b[2J; see `hauberk status`" in result.stderr
    assert fake.asked[0][1].wait_s == 3
    fake.answers["Admin/Revoke"] = admin_pb2.RevokeResponse(changed=True, acknowledged=["a#1"])
    result = hauberk("revoke", "identity", ORDERS, "--wait")
    assert (result.exit_code, result.stderr) == (0, "1 sidecar confirmed it\n")


def test_a_token_is_named_by_its_id_and_never_typed_whole(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Refused before it goes anywhere, and not repeated."""
    for verb in ("revoke", "reinstate"):
        result = hauberk(verb, "token", "hauberk1.00112233445566aa.c2VjcmV0.x.15011")
        assert result.exit_code == 2
        assert "never the token itself" in result.stderr
        assert "c2VjcmV0" not in result.stderr
    assert fake.asked == []


def test_what_the_control_plane_refuses_is_said_in_its_words(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Exit code 1."""
    fake.answers["Admin/Revoke"] = (grpc.StatusCode.NOT_FOUND, "there is no join token 00112233445566aa")
    result = hauberk("revoke", "token", "00112233445566aa")
    assert (result.exit_code, result.stderr) == (1, "hauberk: there is no join token 00112233445566aa\n")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ("value: 'xyz' is no serial number; write it in", "'xyz' is no serial number; write it in"),
        ("reason: at most 300 characters", "--reason: at most 300 characters"),
        ("wait_s: must be 0 or more", "wait_s: must be 0 or more"),
        ("nothing: of a field", "nothing: of a field"),
    ],
)
def test_what_was_typed_wrong_is_said_as_it_was_typed(
    hauberk: Hauberk, fake: FakeControlPlane, refusal: str, said: str
) -> None:
    """Not by the name of a field that nobody typed; exit code 2, as of all usage errors."""
    for verb in ("revoke", "reinstate"):
        fake.answers[f"Admin/{verb.capitalize()}"] = (grpc.StatusCode.INVALID_ARGUMENT, refusal)
        result = hauberk(verb, "serial", "xyz")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"hauberk: {said} (see `hauberk {verb} --help`)\n"


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("serial", True, "serial abcd is reinstated"),
        ("serial", False, "serial abcd was not revoked"),
        ("alarm", True, "alarm abcd is cleared"),
        ("alarm", False, "alarm abcd: there was none"),
    ],
)
def test_reinstating_says_whether_there_was_anything(
    hauberk: Hauberk, fake: FakeControlPlane, kind: str, changed: bool, said: str
) -> None:
    """Exit code 0 either way."""
    fake.answers["Admin/Reinstate"] = admin_pb2.ReinstateResponse(changed=changed)
    result = hauberk("reinstate", kind, "abcd")
    assert (result.exit_code, result.stdout) == (0, said + "\n")
    assert fake.asked[0][1] == admin_pb2.ReinstateRequest(kind=kind, value="abcd")
    assert json.loads(hauberk("reinstate", kind, "abcd", "-o", "json").stdout) == {"changed": changed}


def test_revocations_are_listed_with_their_reasons(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """As a table for people, as data for programs; none is said to be none."""
    one = admin_pb2.Revocation(kind="identity", value=ORDERS, at=1_800_000_000, by="ann", reason="stolen")
    fake.answers["Admin/ListRevocations"] = admin_pb2.ListRevocationsResponse(revocations=[one])
    header, row = hauberk("revocations").stdout.splitlines()
    assert header.split() == ["KIND", "VALUE", "AT", "BY", "REASON"]
    assert row.split() == ["identity", ORDERS, "2027-01-15T08:00:00Z", "ann", "stolen"]
    (data,) = json.loads(hauberk("revocations", "-o", "json").stdout)
    assert (data["value"], data["at"]) == (ORDERS, 1_800_000_000)
    fake.answers["Admin/ListRevocations"] = admin_pb2.ListRevocationsResponse()
    result = hauberk("revocations")
    assert (result.stdout, result.stderr) == ("", "nothing is revoked\n")


@pytest.mark.parametrize(
    "typed", ["revoke authority x", "revoke identity", "reinstate", "revoke identity x --timeout 3"]
)
def test_what_is_typed_wrong_is_a_usage_error(hauberk: Hauberk, typed: str) -> None:
    """Exit code 2."""
    assert hauberk(*typed.split()).exit_code == 2
