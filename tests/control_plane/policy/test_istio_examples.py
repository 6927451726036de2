"""istio_examples: documents in the manner of Istio's documentation. Each applies unchanged and means what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.policy.compile import (
    Selectable,
    peer_authentication_for,
    peer_authentication_to_proto,
    policies_for,
    policy_to_proto,
    request_authentication_to_proto,
    request_authentications_for,
)
from control_plane.policy.model import MeshConfigSpec, ParsedResource
from control_plane.policy.parse import parse_documents
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules import decode_policies
from sidecar.rules.snapshot import Action, AuthorizationPolicy, JwtRule, TlsMode
from tests.sidecar.rules.builders import TD

FOLDER = Path(__file__).parent / "istio_examples"
FILES = sorted(FOLDER.glob("*.yaml"))
MESH = MeshConfigSpec()


def resources(name: str) -> list[ParsedResource]:
    return parse_documents((FOLDER / name).read_text(), name)


def member(namespace: str = "foo", app: str = "httpbin") -> Selectable:
    return Selectable(namespace=namespace, service=app, labels={"app": app})


def policies(name: str, namespace: str = "foo", app: str = "httpbin") -> tuple[AuthorizationPolicy, ...]:
    return policies_for(resources(name), member(namespace, app), MESH, TD)


def jwt_rules(name: str, namespace: str = "foo") -> tuple[JwtRule, ...]:
    (found,) = request_authentications_for(resources(name), member(namespace), MESH)
    return found.jwt_rules


def test_there_are_enough_of_them() -> None:
    """Of all kinds."""
    kinds = {resource.kind for file in FILES for resource in resources(file.name)}
    assert kinds == {"AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"}
    assert len(FILES) >= 15


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_applies_unchanged_and_reaches_the_sidecar(file: Path) -> None:
    """What is sent is what the sidecar reads."""
    found = resources(file.name)
    assert found
    for namespace, app in (("foo", "httpbin"), ("foo", "finance"), ("istio-system", "istio-ingressgateway")):
        workload = member(namespace, app)
        for policy in policies_for(found, workload, MESH, TD):
            assert decode_policies.policy_from_proto(policy_to_proto(policy)) == policy
        peer = peer_authentication_for(found, workload, MESH)
        message = pb.PeerAuthentication.FromString(peer_authentication_to_proto(peer).SerializeToString())
        assert decode_policies.peer_authentication(message, "peer") == peer
        requests = request_authentications_for(found, workload, MESH)
        assert decode_policies.request_authentications(map(request_authentication_to_proto, requests)) == requests


def test_cluster_local_is_this_mesh() -> None:
    """Whatever its trust domain is called."""
    (policy,) = policies("allow-by-service-account.yaml")
    assert policy.rules[0].sources[0].principals == ("mesh.local/ns/default/sa/curl",)


def test_the_root_namespace_is_everywhere() -> None:
    """Without a selector; with one, what it matches."""
    assert [one.full_name for one in policies("deny-all-in-root-namespace.yaml", "any")] == ["istio-system/deny-all"]
    assert policies("ingress-ip-allow-list.yaml", "any") == ()
    assert len(policies("ingress-ip-allow-list.yaml", "any", "istio-ingressgateway")) == 1
    assert peer_authentication_for(resources("mesh-permissive.yaml"), member(), MESH).rest.mode is TlsMode.PERMISSIVE
    assert [one.issuer for one in jwt_rules("jwt-discovery-and-inline.yaml", "any")] == [
        "https://accounts.example.com",
        "issuer-foo",
    ]


def test_a_target_is_a_service_of_the_same_namespace() -> None:
    """And no other."""
    assert len(policies("target-service.yaml", "default", "productpage")) == 1
    assert policies("target-service.yaml", "default", "reviews") == ()
    assert policies("target-service.yaml", "foo", "productpage") == ()


def test_service_accounts_are_principals() -> None:
    """In the policy's namespace, if they name none."""
    (policy,) = policies("service-accounts.yaml")
    assert policy.rules[0].sources[0].principals == ("*/ns/default/sa/curl", "*/ns/foo/sa/batch")


def test_dry_run_and_audit_enforce_nothing() -> None:
    """The one is in shadow, the other records."""
    assert [(one.shadow, one.action) for one in policies("dry-run.yaml")] == [(True, Action.DENY)]
    assert [one.action for one in policies("audit-reads.yaml", "ns1", "myapi")] == [Action.AUDIT]


def test_ports_have_modes_of_their_own() -> None:
    """UNSET is what the workload's own mode says."""
    found = peer_authentication_for(resources("port-level-mtls.yaml"), member(app="finance"), MESH)
    assert {port: tls.mode for port, tls in found.ports.items()} == {8080: TlsMode.DISABLE, 9090: TlsMode.STRICT}
    assert found.rest.mode is TlsMode.STRICT


def test_token_rules_arrive_whole() -> None:
    """By URI, by discovery, inline."""
    (rule,) = jwt_rules("jwt-claims.yaml")
    assert rule == JwtRule(
        issuer="testing@secure.example.io",
        jwks_uri="https://keys.example.io/jwks.json",
        from_headers=(("x-jwt-assertion", "Token "),),
        from_params=("access_token",),
        from_cookies=("session",),
        output_payload_to_header="x-jwt-payload",
        output_claim_to_headers=(("x-jwt-claim-group", "nested.group"),),
        forward_original_token=True,
        timeout_s=5.0,
    )
    discovered, inline = jwt_rules("jwt-discovery-and-inline.yaml")
    assert (discovered.discover, discovered.jwks, inline.discover) == (True, "", False)
    assert inline.jwks.startswith('{"keys":[{"kty":"OKP"')
