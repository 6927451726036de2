"""What `apply`, `delete` and `policy rollback` say before they act, and `policy history`."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
import yaml

from control_plane.cli.impact import lines
from protos.hauberk.v1 import config_pb2
from tests.control_plane.cli.conftest import Hauberk
from tests.control_plane.cli.fake_control_plane import FakeControlPlane

SHOP = "spiffe://mesh.local/ns/shop/sa"
LOSES: dict[str, Any] = {"to_service": "orders.shop", "what": "GET /a", "before": "shop/orders#0", "after": "default"}
IMPACT = config_pb2.Impact(
    lines=[
        config_pb2.ImpactLine(from_identity=f"{SHOP}/web", **LOSES),
        config_pb2.ImpactLine(from_identity=f"{SHOP}/admin", **LOSES),
        config_pb2.ImpactLine(
            gains=True, shadow=True, from_identity="anybody else in the mesh",
            to_service="orders.shop", what="everything", before="default", after="shop/all#0",
        ),
    ],
    left_off_count=2,
)  # fmt: skip
TOLD = [
    "loses: shop/admin, shop/web -> orders.shop: GET /a (shop/orders#0 -> default)",
    "in shadow, gains: anybody else in the mesh -> orders.shop: everything (default -> shop/all#0)",
    "2 more changes of rights were left off, or not looked into for lack of time",
]
CHANGE = config_pb2.Change(kind="AuthorizationPolicy", namespace="shop", name="orders", what="updated")
ANSWERS = {
    "apply -f -": ("Config/Apply", config_pb2.ApplyResponse(version=7, impact=IMPACT, changes=[CHANGE])),
    "delete ap shop/orders": ("Config/Delete", config_pb2.DeleteResponse(version=7, impact=IMPACT)),
    "policy rollback 3": ("Config/Rollback", config_pb2.RollbackResponse(version=7, impact=IMPACT, changes=[CHANGE])),
}


@pytest.mark.parametrize("typed", ANSWERS)
def test_who_gains_and_loses_is_said_before_anything_is_changed(
    typed: str, hauberk: Hauberk, fake: FakeControlPlane
) -> None:
    """By a dry run; what follows is refused if somebody came in between."""
    method, answer = ANSWERS[typed]
    fake.answers[method] = answer
    result = hauberk(*typed.split())
    assert (result.exit_code, result.stderr.splitlines()) == (0, TOLD)
    (_, looked), (_, done) = fake.asked
    assert (looked.dry_run, looked.skip_impact, looked.base_version) == (True, False, 0)
    assert (done.dry_run, done.skip_impact, done.base_version) == (False, True, 7)


@pytest.mark.parametrize("typed", ANSWERS)
def test_a_dry_run_says_it_and_that_is_all(typed: str, hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """One call."""
    method, answer = ANSWERS[typed]
    fake.answers[method] = answer
    result = hauberk(*typed.split(), "--dry-run")
    assert result.stderr.splitlines() == TOLD
    assert "(dry run)" in result.stdout
    assert len(fake.asked) == 1


@pytest.mark.parametrize("typed", ANSWERS)
@pytest.mark.parametrize(("said", "calls"), [("y\n", 2), ("n\n", 1), ("\n", 1)])
def test_confirm_asks(typed: str, said: str, calls: int, hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Anything but yes changes nothing."""
    method, answer = ANSWERS[typed]
    fake.answers[method] = answer
    typed = typed.replace("-f -", f"-f {__file__}")
    result = hauberk(*typed.split(), "--confirm", input=said)
    assert len(fake.asked) == calls
    assert result.exit_code == (0 if calls == 2 else 1)
    if calls == 1:
        assert "nothing was changed" in result.stderr


def test_callers_are_in_the_order_of_their_names() -> None:
    """Whoever joined first; those who have not joined come last."""
    identities = ("anybody else in the mesh", f"{SHOP}/web", "spiffe://mesh.local/ns/ops/sa/probe")
    one: dict[str, Any] = {
        "gains": True,
        "to_service": "orders.shop",
        "what": "GET",
        "before": "default",
        "after": "shop/a#0",
    }
    found = config_pb2.Impact(lines=[config_pb2.ImpactLine(from_identity=identity, **one) for identity in identities])
    told = [line for _, line in lines(found)]
    assert told == ["gains: ops/probe, shop/web, anybody else in the mesh -> orders.shop: GET (default -> shop/a#0)"]


def test_nothing_gained_or_lost_is_said_too(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Silence could mean anything."""
    fake.answers["Config/Apply"] = config_pb2.ApplyResponse(version=7)
    assert hauberk("apply", "-f", "-").stderr == "nobody gains or loses anything\n"


def test_the_impact_is_in_the_data_too(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Standard output is JSON and nothing else."""
    first = [config_pb2.ApplyResponse(version=7, impact=IMPACT), config_pb2.ApplyResponse(version=8)]
    fake.answers["Config/Apply"] = lambda: first.pop(0)
    data = json.loads(hauberk("apply", "-f", "-", "-o", "json").stdout)
    assert (data["version"], data["impact"]["left_off_count"], len(data["impact"]["lines"])) == (8, 2, 3)


def test_a_version_that_moved_is_a_failure(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """In the control plane's words."""
    answers = [config_pb2.ApplyResponse(version=7)]
    refusal = (grpc.StatusCode.FAILED_PRECONDITION, "resources were changed meanwhile: version 8 by anna")
    fake.answers["Config/Apply"] = lambda: answers.pop(0)
    fake.answers["Config/Rollback"] = refusal
    result = hauberk("policy", "rollback", "3")
    assert (result.exit_code, result.stderr) == (1, f"hauberk: {refusal[1]}\n")


ENTRY = config_pb2.HistoryEntry(version=7, at=1.8e9, by="local operator", what="apply", changes=[CHANGE] * 5)


def test_history_is_a_line_for_each_change(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """When, by whom, what; not more of it than one can read."""
    fake.answers["Config/History"] = config_pb2.HistoryResponse(entries=[ENTRY])
    result = hauberk("policy", "history", "--count", "5", "--before", "9")
    head, line = result.stdout.splitlines()
    assert head.split() == ["VERSION", "AT", "BY", "WHAT", "CHANGES"]
    assert line.startswith("7        2027-01-15T08:00:00Z  local operator  apply")
    assert line.endswith("updated AuthorizationPolicy shop/orders and 2 more")
    assert fake.asked == [("Config/History", config_pb2.HistoryRequest(count_max=5, before=9))]
    for output, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert read(hauberk("policy", "history", "-o", output).stdout)[0]["version"] == 7


def test_a_version_is_shown_with_its_documents(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """With -o yaml as they were applied."""
    resource = config_pb2.Resource(kind="AuthorizationPolicy", namespace="shop", name="orders", yaml="# as applied\n")
    entry = config_pb2.HistoryEntry(version=7, at=1.8e9, what="apply", resources=[resource])
    fake.answers["Config/History"] = config_pb2.HistoryResponse(entries=[entry])
    assert hauberk("policy", "history", "7", "-o", "yaml").stdout == "# as applied\n"
    assert "shop" in hauberk("policy", "history", "7").stdout
    assert json.loads(hauberk("policy", "history", "7", "-o", "json").stdout)[0]["resources"][0]["name"] == "orders"
    assert fake.asked[0][1].version == 7


def test_before_anything_was_applied_there_is_no_history(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """And a hint what to do."""
    fake.answers["Config/History"] = config_pb2.HistoryResponse()
    assert "nothing was ever applied" in hauberk("policy", "history").stderr


def test_a_rollback_to_what_is_there_says_so(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Nothing to do is done at once."""
    fake.answers["Config/Rollback"] = config_pb2.RollbackResponse(version=7)
    for typed in ("7", "@7"):
        answer = hauberk("policy", "rollback", typed).stdout
        assert answer == "everything is as it was at version 7; nothing to do\n"
