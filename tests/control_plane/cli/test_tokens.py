"""`hauberk token list`: what is shown of the tokens that were made."""

from __future__ import annotations

import json

from protos.hauberk.v1 import admin_pb2
from tests.control_plane.cli.conftest import Hauberk
from tests.control_plane.cli.fake_control_plane import FakeControlPlane

NOW = 1_800_000_000.0
NODE = "5f0c6f9c7a4d4f6e9b1c2d3e4f506172"


def made(token_id: str, **more: object) -> admin_pb2.JoinToken:
    values: dict[str, object] = {
        "token_id": token_id,
        "service": "orders",
        "namespace": "shop",
        "created_at": NOW - 60,
        "created_by": "ann",
        "expires_at": NOW + 540,
    }
    return admin_pb2.JoinToken(**values | more)  # type: ignore[arg-type]  # its own fields


def test_tokens_are_listed_with_what_became_of_them(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """A table for people; nothing a terminal would act on."""
    tokens = [
        made("a" * 16, created_by="ann\x1b[2J"),
        made("b" * 16, used_at=NOW - 1, node_ids=[NODE]),
        made("c" * 16, expires_at=NOW),
        made("d" * 16, revoked=True),
        made("e" * 16, revoked=True, used_at=NOW - 1),
    ]
    fake.answers["Admin/ListTokens"] = admin_pb2.ListTokensResponse(tokens=tokens, server_time=NOW, left_off=3)
    result = hauberk("token", "list")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["ID", "SERVICE", "STATE", "CREATED", "BY", "NODE"]
    assert [row.split()[:2] for row in rows] == [[letter * 16, "shop/orders"] for letter in "abcde"]
    for row, state in zip(
        rows,
        (
            " good until 2027-01-15T08:09:00Z (in 9m) ",
            " used 2027-01-15T07:59:59Z ",
            " expired 2027-01-15T08:00:00Z ",
            " revoked ",
            " revoked, used 2027-01-15T07:59:59Z ",
        ),
        strict=True,
    ):
        assert state in row
    assert rows[1].split()[-3:] == ["2027-01-15T07:59:00Z", "ann", NODE]
    assert "\x1b" not in result.stdout
    assert (result.exit_code, result.stderr) == (0, "3 older ones are not shown\n")


def test_tokens_for_programs_hold_all_of_the_answer(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """So that an id can be taken from it."""
    fake.answers["Admin/ListTokens"] = admin_pb2.ListTokensResponse(tokens=[made("a" * 16)], server_time=NOW)
    (one,) = json.loads(hauberk("token", "list", "-o", "json").stdout)["tokens"]
    assert (one["token_id"], one["used_at"], one["node_ids"], one["revoked"]) == ("a" * 16, 0, [], False)


def test_that_there_is_no_token_is_said(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """On standard error, with the command that makes one."""
    fake.answers["Admin/ListTokens"] = admin_pb2.ListTokensResponse(server_time=NOW)
    result = hauberk("token", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "hauberk token create --service NAME" in result.stderr
