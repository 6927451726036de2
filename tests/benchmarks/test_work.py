"""What both sides are told is what docs/performance.md says: 200 paths, 50 rules, requests that never repeat."""

from __future__ import annotations

import dataclasses
import random
import ssl
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import envoy_config, haproxy, ours, work
from benchmarks.certificates import issue
from benchmarks.scenarios import SCENARIOS
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.verify import check_leaf
from control_plane.policy.compile import Selectable, policies_for
from control_plane.policy.model import MeshConfigSpec
from control_plane.policy.parse import parse_documents
from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.paths import canonical
from tests.sidecar.rules.builders import TD, snapshot

CALLER = SpiffeId.for_workload(TD, work.NAMESPACE, work.CALLER)


def authorizer(rules: list[work.Rule]) -> Authorizer:
    resources = parse_documents(ours.document("rules", rules), "rules")
    member = Selectable(namespace=work.NAMESPACE, labels={"app": work.SERVICE}, service=work.SERVICE)
    policies = policies_for(resources, member, MeshConfigSpec(), TD)
    return Authorizer(dataclasses.replace(snapshot(policies), service=work.SERVICE, namespace=work.NAMESPACE))


def asked(target: str, caller: SpiffeId = CALLER) -> Facts:
    path = canonical(target.partition("?")[0].encode()).path
    return Facts(principal=caller, host="orders.shop", port=work.SERVICE_PORT, method="GET", path=path)


def test_there_are_two_hundred_paths_and_fifty_rules() -> None:
    """Each once."""
    assert len(set(work.paths())) == 200
    assert len(set(work.rules())) == 50


def test_every_path_is_allowed_and_the_rules_that_allow_lie_between_first_and_last() -> None:
    """Neither order of rules flatters anybody."""
    policy = authorizer(work.rules())
    verdicts = [policy.authorize(asked(path)) for path in [*work.paths(), *work.grpc_paths(), work.large_path()]]
    assert all(isinstance(verdict, Permit) for verdict in verdicts)
    numbers = sorted({int(verdict.rule.partition("#")[2]) for verdict in verdicts})
    assert len(numbers) == len(work.KINDS)
    assert all(later - earlier == len(work.CALLERS) for earlier, later in pairwise(numbers))
    assert not isinstance(policy.authorize(asked(work.DENIED_PATH)), Permit)
    stranger = SpiffeId.for_workload(TD, work.NAMESPACE, "stranger")
    assert not isinstance(policy.authorize(asked(work.paths()[0], stranger)), Permit)


def test_rules_of_the_crowd_match_nothing_that_is_sent() -> None:
    """Not one of them, alone, allows any path."""
    policy = authorizer(work.idle_rules(200))
    assert not any(isinstance(policy.authorize(asked(path)), Permit) for path in work.paths())


def test_no_target_is_sent_twice() -> None:
    """A header block that repeats could be remembered; real ones do not repeat."""
    targets = list(work.targets(work.paths(), 5_000, random.Random(1)))
    assert len(set(targets)) == 5_000
    assert {target.partition("?")[0] for target in targets} == set(work.paths())


def test_headers_of_two_processes_differ() -> None:
    """Session, request id and trace."""
    rng = random.Random(1)
    one, two = work.headers(rng), work.headers(rng)
    assert [a == b for a, b in zip(one, two, strict=True)].count(False) == 3
    one, two = work.grpc_headers(rng), work.grpc_headers(rng)
    assert [a == b for a, b in zip(one, two, strict=True)].count(False) == 2


def test_files_have_the_sizes_that_are_measured(tmp_path: Path) -> None:
    """1 KiB for every path, a gRPC message of 100 octets, 10 MB."""
    work.write_files(tmp_path)
    assert {(tmp_path / path[1:]).stat().st_size for path in work.paths()} == {1_024}
    message = (tmp_path / "request.grpc").read_bytes()
    assert message[:5] == b"\0\0\0\0\x64"
    assert len(message) == 105
    assert {(tmp_path / path[1:]).stat().st_size for path in work.grpc_paths()} == {105}
    assert (tmp_path / "request.large").stat().st_size == 10_000_000


def test_the_crowd_has_five_hundred_endpoints() -> None:
    """At addresses of their own."""
    ports = [port for index in range(work.CROWD_SERVICES) for port in work.stranger_ports(index)]
    assert len(ports) == len(set(ports)) == 500


def test_scenarios_are_numbered_as_the_goal_numbers_them() -> None:
    """1 to 8; 9 is read off all others."""
    assert list(SCENARIOS) == list(range(1, 9))
    assert all(scenario.number == number for number, scenario in SCENARIOS.items())


def test_certificates_are_as_good_as_those_of_the_mesh(tmp_path: Path) -> None:
    """Envoy and HAProxy get legal SVIDs, of the same key type."""
    files = issue(tmp_path, {"a": work.principal(work.CALLER)})
    leaf = ssl.PEM_cert_to_DER_cert(files["a"].chain.read_text())
    domain = TrustDomain.parse(work.TRUST_DOMAIN)
    assert str(check_leaf(leaf, domain, time.time())) == f"spiffe://{work.principal(work.CALLER)}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files["a"].anchors)
    context.load_cert_chain(files["a"].both)


def test_envoy_is_told_all_rules(tmp_path: Path) -> None:
    """The principal, the methods, the exact path and the prefix of each, in the same order."""
    files = issue(tmp_path, {"b": work.principal(work.SERVICE)})["b"]
    config = envoy_config.inbound(admin=1, mesh_port=2, app=3, is_http1=False, files=files, rules=work.rules())
    (listener,) = config["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    rbac = chain["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]
    policies = rbac["rules"]["policies"]
    assert list(policies) == sorted(policies)
    for rule, policy in zip(work.rules(), policies.values(), strict=True):
        (permission,), (caller,) = policy["permissions"], policy["principals"]
        methods, paths = (part["or_rules"]["rules"] for part in permission["and_rules"]["rules"])
        assert caller["authenticated"]["principal_name"]["exact"] == f"spiffe://{rule.principal}"
        assert [method["header"]["string_match"]["exact"] for method in methods] == list(rule.methods)
        assert [path["url_path"]["path"] for path in paths] == [{"exact": rule.path}, {"prefix": rule.prefix}]


@pytest.mark.parametrize("is_http1", [True, False])
def test_haproxy_is_told_all_rules_and_denies_the_rest(tmp_path: Path, is_http1: bool) -> None:
    """One `allow` for each rule, then `deny`."""
    files = issue(tmp_path, {"b": work.principal(work.SERVICE)})["b"]
    config = haproxy.inbound(2, 3, is_http1, files, work.rules())
    steps = [line.strip() for line in config.splitlines() if line.strip().startswith("http-request")]
    assert sum(step.startswith("http-request allow if") for step in steps) == 50
    assert steps[-1] == "http-request deny deny_status 403"
    assert all(f"acl path-{index} path_beg {rule.prefix}" in config for index, rule in enumerate(work.rules()))
    assert config.count("proto h2") == (0 if is_http1 else 1)
