"""`hauberk policy test`, `diff` and `lint` as they are typed."""

from __future__ import annotations

import gzip
import json
import sys
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest

from control_plane.cli import policy_diff
from control_plane.policy.rehearse.findings import CODES
from protos.hauberk.v1 import config_pb2
from tests.control_plane.cli.conftest import Hauberk
from tests.control_plane.cli.fake_control_plane import FakeControlPlane
from tests.control_plane.policy.rehearse.support import HEAD, POLICY
from tests.control_plane.policy.rehearse.test_replay import line

READS = (
    "  expectations:\n    - {from: shop/web, to: orders.shop, request: [GET /orders/1, %s /orders/1], expect: allow}\n"
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that commands run in: policies/p.yaml, wider.yaml, test.yaml, broken.yaml and access.log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/p.yaml").write_text(POLICY)
    (tmp_path / "wider.yaml").write_text(POLICY.replace("[GET]", "[GET, PUT]"))
    (tmp_path / "test.yaml").write_text(HEAD + "  policies: [policies]\n" + READS % "PUT")
    (tmp_path / "broken.yaml").write_text(POLICY.replace("methods", "method"))
    calls = [line(), line(method="PUT"), line(method="PUT", path="/orders/8")]
    (tmp_path / "access.log").write_bytes(b"".join(calls))
    return tmp_path


# policy test


def test_what_is_not_as_expected_is_told_and_exits_with_1(hauberk: Hauberk, files: Path) -> None:
    """The expectation's place, the verdict, the rule that came nearest with its place."""
    result = hauberk("policy", "test", "test.yaml", "--junit", "junit.xml", "--sarif", "out.sarif")
    assert result.exit_code == 1
    assert result.stdout == (
        "FAILED test.yaml:11: shop/web -> orders.shop:8080 PUT /orders/1\n"
        "    expected allow, got deny\n"
        "    deny by default: no ALLOW rule matched\n"
        "    nearest: shop/orders#0 (policies/p.yaml:11)\n"
        "      lacks to[0].operation.methods: wanted GET; got PUT\n"
        "1 expectation, 2 calls: 1 failed\n"
    )
    assert Xml.parse(files / "junit.xml").getroot().get("failures") == "1"  # noqa: S314  # our own
    (run,) = json.loads((files / "out.sarif").read_text())["runs"]
    (found,) = run["results"]
    assert found["locations"][0]["physicalLocation"]["region"] == {"startLine": 11}
    assert found["relatedLocations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "policies/p.yaml"}


def test_what_is_as_expected_exits_with_0_and_changes_no_file(hauberk: Hauberk, files: Path) -> None:
    """Policies may be handed over besides those the test names."""
    (files / "test.yaml").write_text(HEAD + READS % "PUT")
    before = {path: path.read_bytes() for path in files.rglob("*.yaml")}
    result = hauberk("policy", "test", "test.yaml", "--policies", "wider.yaml")
    assert (result.exit_code, result.stdout) == (0, "1 expectation, 2 calls: all as expected\n")
    assert before == {path: path.read_bytes() for path in files.rglob("*.yaml")}


def test_results_are_printed_as_json_too(hauberk: Hauberk, files: Path) -> None:
    """Each call with what decided."""
    del files
    result = hauberk("policy", "test", "test.yaml", "-o", "json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["calls"], data["failed"]) == (2, 1)
    assert [one["holds"] for one in data["results"]] == [True, False]
    assert data["results"][0]["rule_source"] == "policies/p.yaml:11"


# policy diff


def test_calls_that_change_are_listed_with_the_rules_of_both_sides(hauberk: Hauberk, files: Path) -> None:
    """Grouped; without --check the exit code is 0."""
    del files
    typed = ("policy", "diff", "wider.yaml", "policies", "--replay", "access.log")
    result = hauberk(*typed)
    assert result.exit_code == 0
    assert result.stdout.startswith("3 calls: 2 change, 0 cannot be told, 1 stay as they are\n")
    assert [row.split()[:6] for row in result.stdout.splitlines()[3:]] == [
        ["now", "denied", "2", "spiffe://mesh.local/ns/shop/sa/web", "orders.shop", "PUT"]
    ]
    assert "labels of orders.shop taken as those of a token without --label" in result.stderr
    assert hauberk(*typed, "--check").exit_code == 1
    assert hauberk("policy", "diff", "policies", "policies", "--replay", "access.log", "--check").exit_code == 0


def test_the_log_may_be_gzip_or_standard_input_and_bad_lines_are_shown(hauberk: Hauberk, files: Path) -> None:
    """With their numbers."""
    log = (files / "access.log").read_bytes()
    (files / "access.log.gz").write_bytes(gzip.compress(log + b"cut of"))
    for name in ("access.log.gz", "-"):
        result = hauberk(
            "policy", "diff", "wider.yaml", "policies", "--replay", name, "--workloads", "test.yaml", "-o", "json",
            input=log.decode() + "cut of",
        )  # fmt: skip
        data = json.loads(result.stdout)
        assert (data["calls"], data["changed"], data["malformed"]) == (3, 2, 1)
        (change,) = data["changes"]
        assert change["before"] == {"verdict": "allow", "rule": "shop/orders#0"}
        assert change["after"] == {"verdict": "deny", "rule": "default"}
        assert change["lines"] == [2, 3]
        shown = "<stdin>" if name == "-" else name
        assert result.stderr == f"warning: {shown}:4: not JSON\n"


def test_a_gzip_log_that_is_cut_off_is_a_failure(hauberk: Hauberk, files: Path) -> None:
    """Half a log answers nothing."""
    (files / "cut.gz").write_bytes(gzip.compress((files / "access.log").read_bytes() * 50)[:-30])
    result = hauberk("policy", "diff", "wider.yaml", "policies", "--replay", "cut.gz")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "hauberk: cut.gz: the gzip file is cut off; take a whole one\n"


def member(**labels: str) -> config_pb2.Member:
    return config_pb2.Member(
        spiffe_id="spiffe://mesh.local/ns/shop/sa/orders",
        service="orders",
        namespace="shop",
        labels=labels,
        ports=[8080],
    )


def applied(text: str, source: str = "live.yaml:1") -> config_pb2.Resource:
    return config_pb2.Resource(
        kind="AuthorizationPolicy", namespace="shop", name="orders", yaml=text, source=source, version=3
    )


def test_what_is_applied_is_asked_of_the_control_plane(hauberk: Hauberk, fake: FakeControlPlane, files: Path) -> None:
    """`@live` and `@VERSION`, with the workloads and their labels, and the places of the operator's files."""
    del files
    wider = POLICY.replace("[GET]", "[GET, PUT]")
    fake.answers["Config/Inventory"] = config_pb2.InventoryResponse(
        members=[member(app="orders")],
        resources=[applied(POLICY, "mine.yaml:41")],
        version=4,
        trust_domain="mesh.local",
    )
    fake.answers["Config/History"] = config_pb2.HistoryResponse(
        entries=[config_pb2.HistoryEntry(version=3, resources=[applied(wider)])]
    )
    result = hauberk("policy", "diff", "@3", "@live", "--replay", "access.log", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["changed"] == 2
    assert "labels" not in result.stderr
    assert [(method, request.version) for method, request in fake.asked if method == "Config/History"] == [
        ("Config/History", 3)
    ]
    fake.answers["Config/History"] = config_pb2.HistoryResponse()
    result = hauberk("policy", "diff", "@9", "@live", "--replay", "access.log")
    assert (result.exit_code, result.stderr) == (
        1, "hauberk: there is no version 9; see which there are with `hauberk policy history`\n",
    )  # fmt: skip


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When it takes longer than a second, and taken away at the end."""
    at = iter([0.0, 0.5, 1.5, 1.5, 1.6])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = policy_diff._Progress(lambda: next(at))
    for text in ("early", "shown", "too soon"):
        progress.tell(lambda text=text: text)  # type: ignore[misc]  # bound now
    progress.end()
    assert capsys.readouterr().err == "\rshown\x1b[K\r\x1b[K"


# policy lint


def test_findings_are_printed_one_a_line_with_code_and_place(hauberk: Hauberk, files: Path) -> None:
    """An error exits with 1, a warning only with --strict."""
    (files / "open.yaml").write_text(
        POLICY.split("      to:")[0].replace("principals: [mesh.local/ns/shop/sa/web]", "principals: ['*']")
    )
    result = hauberk("policy", "lint", "open.yaml", "--sarif", "lint.sarif")
    assert result.exit_code == 0
    assert result.stdout == (
        "open.yaml:11: HB030 warning: AuthorizationPolicy shop/orders#0: principals: ['*'] is every workload of the"
        " mesh; name who may in `from`\n1 warning\n"
    )
    assert hauberk("policy", "lint", "open.yaml", "--strict").exit_code == 1
    (run,) = json.loads((files / "lint.sarif").read_text())["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [code.id for code in CODES]
    assert [one["ruleId"] for one in run["results"]] == ["HB030"]
    (files / "open.yaml").write_text(
        POLICY.replace("        - source:\n", "        - source:\n            namespaces: [a]\n")
    )
    result = hauberk("policy", "lint", "open.yaml", "-o", "json")
    assert result.exit_code == 1
    assert [one["code"] for one in json.loads(result.stdout)] == ["HB012"]


def test_nothing_found_says_so(hauberk: Hauberk, files: Path) -> None:
    """And exits with 0."""
    del files
    result = hauberk("policy", "lint", "policies", "--strict")
    assert (result.exit_code, result.stdout) == (0, "nothing found\n")


def test_live_looks_at_what_is_applied_besides_the_files(hauberk: Hauberk, fake: FakeControlPlane, files: Path) -> None:
    """Files come in the place of what they would replace; places are those of the operator's files."""
    del files
    other = POLICY.replace("name: orders", "name: other")
    fake.answers["Config/Inventory"] = config_pb2.InventoryResponse(
        members=[member(app="orders")],
        resources=[applied(POLICY.replace("[GET]", "[PUT]")), applied(other, "mine.yaml:41")],
        version=4,
        trust_domain="mesh.local",
    )
    result = hauberk("policy", "lint", "policies", "--live")
    codes = [row.split()[:2] for row in result.stdout.splitlines()[:-1]]
    assert ["mine.yaml:51:", "HB002"] in codes  # no workload web ever joined
    assert ["policies/p.yaml:11:", "HB002"] in codes
    assert ["mine.yaml:51:", "HB010"] in codes
    assert not any(place.startswith("live.yaml") for place, _ in codes)
