"""What each verb asks of the control plane, and what it makes of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from protos.hauberk.v1 import admin_pb2, config_pb2
from tests.control_plane.cli.conftest import Hauberk
from tests.control_plane.cli.fake_control_plane import FakeControlPlane

TOKEN = "hauberk1.0123456789abcdef.c2VjcmV0LXNlY3JldC0xMg.pin.15011"
POLICY = "kind: AuthorizationPolicy\nmetadata: {name: web, namespace: shop}\n"


@pytest.fixture
def with_token(fake: FakeControlPlane) -> FakeControlPlane:
    fake.answers["Admin/CreateToken"] = admin_pb2.CreateTokenResponse(
        token=TOKEN, token_id="0123456789abcdef", spiffe_id="spiffe://mesh.local/ns/shop/sa/web", expires_at=1.8e9
    )
    return fake


def test_the_token_alone_goes_to_standard_output(hauberk: Hauberk, with_token: FakeControlPlane) -> None:
    """So that it can be redirected; what it is for is told on standard error, without the secret."""
    typed = "token create --service web -n shop --label a=1 --label b= --ttl 90s --service-account ops"
    result = hauberk(*typed.split())
    assert (result.exit_code, result.stdout) == (0, TOKEN + "\n")
    assert "spiffe://mesh.local/ns/shop/sa/web" in result.stderr
    assert "2027-01-15T08:00:00Z" in result.stderr
    assert TOKEN.split(".")[2] not in result.stderr
    asked = admin_pb2.CreateTokenRequest(
        service="web", namespace="shop", service_account="ops", labels={"a": "1", "b": ""}, ttl_s=90
    )
    assert with_token.asked == [("Admin/CreateToken", asked)]


def test_a_token_is_written_to_a_file_only_its_owner_may_read(
    hauberk: Hauberk, with_token: FakeControlPlane, tmp_path: Path
) -> None:
    """Mode 0600 from the first moment, and never on the screen."""
    out = tmp_path / "web.token"
    result = hauberk("token", "create", "--service", "web", "--out", str(out))
    assert (result.exit_code, result.stdout) == (0, "")
    assert out.read_text() == TOKEN + "\n"
    assert out.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in result.stderr


def test_an_existing_file_is_not_overwritten_and_costs_no_token(
    hauberk: Hauberk, with_token: FakeControlPlane, tmp_path: Path
) -> None:
    """Nor is a symbolic link followed."""
    out, link = tmp_path / "web.token", tmp_path / "link"
    out.write_text("mine")
    link.symlink_to(tmp_path / "elsewhere")
    for path in (out, link):
        result = hauberk("token", "create", "--service", "web", "--out", str(path))
        assert result.exit_code == 1
        assert "exists already" in result.stderr
    assert out.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert with_token.asked == []


def test_a_refused_token_leaves_no_file(hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path) -> None:
    """An empty token file would fail later, somewhere else."""
    fake.answers["Admin/CreateToken"] = (grpc.StatusCode.INVALID_ARGUMENT, "service: 'Web' is not a name")
    result = hauberk("token", "create", "--service", "Web", "--out", str(tmp_path / "web.token"))
    assert (result.exit_code, result.stderr) == (1, "hauberk: service: 'Web' is not a name\n")
    assert not (tmp_path / "web.token").exists()


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_a_token_comes_as_data_too(
    output: str, read: object, hauberk: Hauberk, with_token: FakeControlPlane, tmp_path: Path
) -> None:
    """With --out the data says where it is, not what it is."""
    assert callable(read)
    data = read(hauberk("token", "create", "--service", "web", "-o", output).stdout)
    assert (data["token"], data["expires_at"]) == (TOKEN, 1.8e9)
    result = hauberk("token", "create", "--service", "web", "-o", output, "--out", str(tmp_path / "t"))
    assert read(result.stdout)["token"] == f"in {tmp_path / 't'}"
    assert "token id" in hauberk("token", "create", "--service", "web", "-o", "table").stdout


def test_apply_sends_files_directories_and_standard_input_in_order(
    hauberk: Hauberk, fake: FakeControlPlane, tmp_path: Path
) -> None:
    """A directory stands for its YAML and JSON files, not for what is below it; no file is sent twice."""
    policies = tmp_path / "policies"
    (policies / "below").mkdir(parents=True)
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "below/d.yaml"):
        (policies / name).write_text(f"# {name}")
    change = config_pb2.Change(kind="AuthorizationPolicy", namespace="shop", name="web", what="created")
    mesh = config_pb2.Change(kind="MeshConfig", name="default", what="unchanged")
    fake.answers["Config/Apply"] = config_pb2.ApplyResponse(version=7, changes=[change, mesh])
    result = hauberk("apply", "-f", f"{policies}/b.yaml", "-f", str(policies), "-f", "-", "--dry-run", input="# é")
    assert result.exit_code == 0
    assert result.stdout == ("AuthorizationPolicy shop/web created (dry run)\nMeshConfig default unchanged (dry run)\n")
    ((_, request),) = fake.asked
    assert [(file.name.removeprefix(f"{policies}/"), file.text) for file in request.files] == [
        ("b.yaml", "# b.yaml"), ("a.yml", "# a.yml"), ("c.json", "# c.json"), ("<stdin>", "# é"),
    ]  # fmt: skip
    assert (request.dry_run, request.wait, request.wait_timeout_s) == (True, False, 0)


def test_a_refused_apply_shows_every_problem(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """One a line, as the control plane words them, with nothing a terminal would act on."""
    problems = "a.yaml:3:5: spec.rulez: unknown field; did you mean rules?\na.yaml:9:1: \x1b[2J"
    fake.answers["Config/Apply"] = (grpc.StatusCode.INVALID_ARGUMENT, problems)
    result = hauberk("apply", "-f", "-")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "hauberk: " + problems.replace("\x1b", "\\x1b") + "\n"


def test_apply_wait_is_done_when_every_sidecar_has_acknowledged(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """And says how many."""
    propagation = config_pb2.Propagation(acknowledged=["a", "b"])
    fake.answers["Config/Apply"] = config_pb2.ApplyResponse(version=7, propagation=propagation)
    result = hauberk("apply", "-f", "-", "--wait", "--timeout", "3s")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (0, "version 7 is in force at 2 sidecars")
    (_, looked), (_, request) = fake.asked
    assert (looked.dry_run, looked.wait) == (True, False)
    assert (request.wait, request.wait_timeout_s) == (True, 3)


@pytest.mark.parametrize(
    ("propagation", "told"),
    [
        (config_pb2.Propagation(pending=["w1"], acknowledged=["w2"]), "1 sidecar had not taken it after 10 s: w1"),
        (
            config_pb2.Propagation(rejected=[config_pb2.Rejection(workload="w1", reason="too new\x1b[2J")]),
            "1 sidecar refused it and kept the last good one: w1: too new\\x1b[2J",
        ),
    ],
)
def test_a_change_that_is_not_everywhere_is_a_failure(
    propagation: config_pb2.Propagation, told: str, hauberk: Hauberk, fake: FakeControlPlane
) -> None:
    """A script that waits must not go on."""
    fake.answers["Config/Apply"] = config_pb2.ApplyResponse(version=7, propagation=propagation)
    fake.answers["Config/Delete"] = config_pb2.DeleteResponse(version=8, propagation=propagation)
    for version, typed in ((7, "apply -f - --wait"), (8, "delete ap web --wait")):
        result = hauberk(*typed.split())
        assert result.exit_code == 1
        assert f"hauberk: version {version} is stored, but {told}" in result.stderr


RESOURCE = config_pb2.Resource(
    kind="AuthorizationPolicy", namespace="shop", name="web", yaml=POLICY, source="a.yaml:1", version=4,
    applied_at=1.8e9, applied_by="local operator",
)  # fmt: skip


def test_what_get_prints_as_yaml_can_be_applied_again(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """As it was applied, one document each."""
    fake.answers["Config/List"] = config_pb2.ListResponse(resources=[RESOURCE, RESOURCE])
    result = hauberk("get", "ap", "-n", "shop", "-o", "yaml")
    assert result.stdout == f"{POLICY}---\n{POLICY}"
    assert fake.asked[0][1] == config_pb2.ListRequest(kind="AuthorizationPolicy", namespace="shop")


def test_what_get_prints_as_json_says_where_it_came_from(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """And holds the document as data."""
    fake.answers["Config/List"] = config_pb2.ListResponse(resources=[RESOURCE])
    (found,) = json.loads(hauberk("get", "all", "-o", "json").stdout)
    assert (found["source"], found["version"], found["applied_by"]) == ("a.yaml:1", 4, "local operator")
    assert found["document"] == yaml.safe_load(POLICY)
    assert fake.asked[0][1] == config_pb2.ListRequest()


def test_get_prints_a_line_for_each_resource(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """With a header, and a word on standard error if there is none."""
    fake.answers["Config/List"] = config_pb2.ListResponse(resources=[RESOURCE])
    lines = hauberk("get", "ap").stdout.splitlines()
    assert lines[0].split() == ["KIND", "NAMESPACE", "NAME", "VERSION", "APPLIED", "BY", "FROM"]
    assert lines[1].split()[:5] == ["AuthorizationPolicy", "shop", "web", "4", "2027-01-15T08:00:00Z"]
    fake.answers["Config/List"] = config_pb2.ListResponse()
    result = hauberk("get", "ap")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing found" in result.stderr


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("ap web", config_pb2.GetRequest(kind="AuthorizationPolicy", namespace="default", name="web")),
        ("AP shop/web", config_pb2.GetRequest(kind="AuthorizationPolicy", namespace="shop", name="web")),
        ("MeshConfig default", config_pb2.GetRequest(kind="MeshConfig", namespace="", name="default")),
    ],
)
def test_get_and_delete_name_one_resource(
    typed: str, asked: config_pb2.GetRequest, hauberk: Hauberk, fake: FakeControlPlane
) -> None:
    """In `default` unless said otherwise, in no namespace if it is mesh-wide."""
    fake.answers["Config/Get"] = config_pb2.GetResponse(resource=RESOURCE)
    fake.answers["Config/Delete"] = config_pb2.DeleteResponse(version=5)
    assert hauberk("get", *typed.split(), "-o", "yaml").stdout == POLICY
    result = hauberk("delete", *typed.split())
    name = f"{asked.namespace}/{asked.name}" if asked.namespace else asked.name
    assert (result.exit_code, result.stdout) == (0, f"{asked.kind} {name} deleted\n")
    named: dict[str, Any] = {"kind": asked.kind, "namespace": asked.namespace, "name": asked.name}
    looked = config_pb2.DeleteRequest(**named, dry_run=True)
    deleted = config_pb2.DeleteRequest(**named, base_version=5, skip_impact=True)
    assert fake.asked == [("Config/Get", asked), ("Config/Delete", looked), ("Config/Delete", deleted)]


def test_what_is_not_there_is_a_failure(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """With the control plane's own words."""
    refusal = (grpc.StatusCode.NOT_FOUND, "AuthorizationPolicy default/web: not found")
    fake.answers["Config/Get"] = fake.answers["Config/Delete"] = refusal
    for verb in ("get", "delete"):
        result = hauberk(verb, "ap", "web")
        assert (result.exit_code, result.stderr) == (1, "hauberk: AuthorizationPolicy default/web: not found\n")


@pytest.fixture
def explained(fake: FakeControlPlane) -> FakeControlPlane:
    condition = config_pb2.Condition(field="from[0].source.principals", wanted=["a", "b"], got="c", matched=False)
    miss = config_pb2.NearMiss(rule="shop/web#0", source="a.yaml:3", conditions=[condition])
    fake.answers["Config/Explain"] = config_pb2.ExplainResponse(
        allowed=False, rule="default", reason="no rule matches", version=9, near_misses=[miss],
        from_identity="spiffe://mesh.local/ns/shop/sa/web", to_identity="spiffe://mesh.local/ns/shop/sa/orders",
    )  # fmt: skip
    return fake


def test_explain_shows_the_verdict_and_the_nearest_miss(hauberk: Hauberk, explained: FakeControlPlane) -> None:
    """With the condition that failed, what it wanted and what it got."""
    typed = "explain --from shop/web --to orders.shop --port 80 --host h GET /x"
    result = hauberk(*typed.split())
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "DENIED"
    assert "nearest: shop/web#0 (a.yaml:3)" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["NO", "from[0].source.principals", "a,", "b", "c"]
    asked = config_pb2.ExplainRequest(
        from_identity="shop/web", to_service="orders.shop", port=80, method="GET", path="/x", host="h"
    )
    assert explained.asked == [("Config/Explain", asked)]


def test_explain_takes_all_that_policies_can_look_at(hauberk: Hauberk, explained: FakeControlPlane) -> None:
    """Headers and claims as often as wanted; the same claim twice is a list."""
    result = hauberk(
        "explain", "--from", "plaintext", "--to", "orders.shop", "-H", "X-Team: red", "-H", "x-team:blue",
        "--claim", "sub=ann", "--claim", "groups=a", "--claim", "groups=b", "--source-ip", "10.0.0.9",
        "--remote-ip", "192.0.2.1", "--destination-ip", "10.0.0.7", "--sni", "orders.shop", "GET", "/x",
    )  # fmt: skip
    assert result.exit_code == 0
    ((_, request),) = explained.asked
    assert request == config_pb2.ExplainRequest(
        from_identity="plaintext", to_service="orders.shop", method="GET", path="/x", source_ip="10.0.0.9",
        headers=[
            config_pb2.RequestHeader(name="X-Team", value="red"), config_pb2.RequestHeader(name="x-team", value="blue"),
        ],
        claims_json='{"sub": "ann", "groups": ["a", "b"]}', remote_ip="192.0.2.1", destination_ip="10.0.0.7",
        sni="orders.shop",
    )  # fmt: skip


def test_explain_shows_a_decision_that_was_made(hauberk: Hauberk, explained: FakeControlPlane) -> None:
    """When and what it was; of what is hidden it is not known whether it matched; what others said of it."""
    hidden = config_pb2.Condition(field="when[0].request.headers[authorization].values", wanted=["x"], hidden=True)
    explained.answers["Config/Explain"] = config_pb2.ExplainResponse(
        rule="default", reason="no ALLOW rule matched", version=9, decision_id="00c0ffee00c0ffee",
        decided_at=1_800_000_000, request="GET orders.shop:80/x", from_identity="nobody (plaintext)",
        near_misses=[config_pb2.NearMiss(rule="shop/web#0", conditions=[hidden])], note="policy changed since",
        shadow_rule="shop/new#0", shadow_allowed=True, audit_rules=["shop/all#0", "shop/some#1"],
    )  # fmt: skip
    result = hauberk("explain", "--decision", "00C0FFEE00c0ffee", "--to", "orders.shop")
    assert result.exit_code == 0
    ((_, request),) = explained.asked
    assert request == config_pb2.ExplainRequest(decision_id="00C0FFEE00c0ffee", to_service="orders.shop")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:2] == ["DENIED", "decision 00c0ffee00c0ffee"]
    assert {
        "when 2027-01-15T08:00:00Z", "request GET orders.shop:80/x", "in shadow ALLOWED by shop/new#0",
        "audit shop/all#0, shop/some#1", "note policy changed since",
    } <= set(lines)  # fmt: skip
    assert lines[-1] == "? when[0].request.headers[authorization].values x (hidden)"


def test_explain_fails_on_a_no_only_if_asked_to(hauberk: Hauberk, explained: FakeControlPlane) -> None:
    """To explain is its job; --check makes it a test."""
    typed = ("explain", "--from", "shop/web", "--to", "orders.shop", "GET", "/x", "-o", "json")
    result = hauberk(*typed)
    assert (result.exit_code, json.loads(result.stdout)["allowed"]) == (0, False)
    assert hauberk(*typed, "--check").exit_code == 1
    explained.answers["Config/Explain"] = config_pb2.ExplainResponse(allowed=True)
    assert hauberk(*typed, "--check").exit_code == 0


def test_status_shows_every_sidecar_and_what_needs_attention(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Versions, certificates and clocks, seen from the control plane's clock."""
    well = admin_pb2.WorkloadStatus(
        spiffe_id="spiffe://mesh.local/ns/shop/sa/web", service="web", namespace="shop", instance="0123456789",
        connected=True, ports="8080/http1", acknowledged_version=9, pushed_version=9, certificate_not_after=4_600,
        certificate_not_before=940, clock_skew_s=29,
    )  # fmt: skip
    late = admin_pb2.WorkloadStatus(
        service="web", namespace="shop", instance="fedcba", connected=True, acknowledged_version=9, pushed_version=9,
        certificate_not_before=940 - 2_521, certificate_not_after=1_000 - 2_521 + 3_600, clock_skew_s=31,
    )  # fmt: skip
    cloned = admin_pb2.WorkloadStatus(
        service="zoo", namespace="shop", node_id="0011223344", alarm="renewed from two places"
    )
    ill = admin_pb2.WorkloadStatus(
        service="orders", namespace="shop", instance="abcdef", acknowledged_version=8, pushed_version=9, last_seen=940,
        rejected_reason="unknown field\x1b[2J", clock_skew_s=-75, certificate_not_after=900,
    )  # fmt: skip
    fake.answers["Admin/Status"] = admin_pb2.StatusResponse(
        trust_domain="mesh.local", version=9, epoch=3, server_time=1_000, default_action="DENY",
        workloads=[well, ill, late, cloned],
    )  # fmt: skip
    result = hauberk("status")
    assert result.exit_code == 0
    table = result.stdout.splitlines()
    assert any(line.split() == ["policy", "version", "9", "(epoch", "3)"] for line in table)
    assert "gone (1m ago)" in table[-4]
    assert "8 (refused 9)" in table[-4]
    assert "in 1h " in table[-3]
    assert "01234567 " in table[-3]
    assert result.stderr.splitlines() == [
        "orders.shop (abcdef) refused version 9: unknown field\\x1b[2J",
        "orders.shop (abcdef): its clock is off by -1m 15s; set it by NTP",
        "orders.shop (abcdef): its certificate has expired; it can neither call nor be called",
        "web.shop (fedcba): its clock is off by 31s; set it by NTP",
        "web.shop (fedcba): its certificate ends in 17m 59s and was not renewed; see the sidecar's log",
        "zoo.shop (node 00112233): renewed from two places; when it is dealt with: hauberk reinstate alarm 0011223344",
    ]
    assert json.loads(hauberk("status", "-o", "json").stdout)["workloads"][0]["pushed_version"] == 9


def test_status_of_an_empty_mesh_says_what_comes_next(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """The first thing one sees should not be an empty table."""
    fake.answers["Admin/Status"] = admin_pb2.StatusResponse(trust_domain="mesh.local", anchor_sha256="ab" * 32)
    assert "hauberk token create --service NAME" in hauberk("status").stdout


def test_status_of_a_mesh_without_a_root_sends_nobody_for_a_token(hauberk: Hauberk, fake: FakeControlPlane) -> None:
    """Its root is kept offline and has signed nothing: no anchor is shown, and what comes first is named."""
    fake.answers["Admin/Status"] = admin_pb2.StatusResponse(trust_domain="mesh.local")
    shown = hauberk("status").stdout
    assert "none yet" in shown
    assert "hauberk ca status" in shown
    assert "token create" not in shown
    assert "valid until" not in shown
