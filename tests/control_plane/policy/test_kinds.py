"""PeerAuthentication, RequestAuthentication, annotations, `when` and targets: what is read and what is refused."""

from __future__ import annotations

import json

import pytest

from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PeerAuthenticationSpec,
    PolicySpec,
    RequestAuthenticationSpec,
    Selection,
)
from control_plane.policy.parse import parse_documents
from sidecar.rules.snapshot import JwtRule, Rule, Source, TlsMode, When

ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
JWKS = json.dumps({"keys": [ED25519]})


def document(spec: str = "{}", kind: str = "AuthorizationPolicy", annotations: str = "", labels: str = "") -> str:
    metadata = "name: p, namespace: shop" if kind != "MeshConfig" else "name: default"
    metadata += f", annotations: {{{annotations}}}" if annotations else ""
    metadata += f", labels: {{{labels}}}" if labels else ""
    version = "hauberk.dev/v1" if kind == "MeshConfig" else "security.istio.io/v1"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {spec}\n"


def parsed(text: str) -> ParsedResource:
    (resource,) = parse_documents(text, "p.yaml")
    return resource


def rule(text: str) -> Rule:
    spec = parsed(document(f"{{rules: [{text}]}}")).spec
    assert isinstance(spec, PolicySpec)
    return spec.policy.rules[0]


def peer(spec: str, annotations: str = "") -> PeerAuthenticationSpec:
    found = parsed(document(spec, "PeerAuthentication", annotations)).spec
    assert isinstance(found, PeerAuthenticationSpec)
    return found


def jwt(text: str, annotations: str = "") -> JwtRule:
    found = parsed(document(f"{{jwtRules: [{text}]}}", "RequestAuthentication", annotations)).spec
    assert isinstance(found, RequestAuthenticationSpec)
    return found.authentication.jwt_rules[0]


def test_sources_have_users_addresses_and_accounts() -> None:
    """Addresses in one spelling; accounts become principals."""
    found = rule(
        "{from: [{source: {requestPrincipals: [i/*], notRequestPrincipals: [i/x], ipBlocks: [10.0.0.0/8],"
        " notIpBlocks: ['2001:DB8::1'], remoteIpBlocks: [1.2.3.4], notRemoteIpBlocks: ['::ffff:1.2.3.0/120']}},"
        " {source: {serviceAccounts: [web, pay/api], notServiceAccounts: [x]}}]}"
    )
    assert found.sources == (
        Source(
            request_principals=("i/*",),
            not_request_principals=("i/x",),
            ip_blocks=("10.0.0.0/8",),
            not_ip_blocks=("2001:db8::1",),
            remote_ip_blocks=("1.2.3.4",),
            not_remote_ip_blocks=("1.2.3.0/24",),
        ),
        Source(principals=("*/ns/shop/sa/web", "*/ns/pay/sa/api"), not_principals=("*/ns/shop/sa/x",)),
    )


WHEN = [
    ("request.headers[X-Token]", "[a*, '*']", When(key="request.headers[x-token]", values=("a*", "*"))),
    ("request.auth.principal", "[i/s]", When(key="request.auth.principal", values=("i/s",))),
    ("request.auth.claims[a][b]", "[x]", When(key="request.auth.claims[a][b]", values=("x",))),
    ("request.auth.claims[abteilung]", "[Größe]", When(key="request.auth.claims[abteilung]", values=("Größe",))),
    ("source.ip", "['::0001']", When(key="source.ip", values=("::1",))),
    ("source.serviceAccount", "[web]", When(key="source.serviceAccount", values=("shop/web",))),
    ("destination.port", "[80, '81']", When(key="destination.port", values=("80", "81"))),
    ("connection.sni", "[A.Example]", When(key="connection.sni", values=("a.example",))),
]


@pytest.mark.parametrize(("key", "written", "when"), WHEN)
def test_conditions_have_one_spelling(key: str, written: str, when: When) -> None:
    """Whatever was written."""
    assert rule(f"{{when: [{{key: '{key}', values: {written}}}]}}").when == (when,)
    negative = When(key=when.key, not_values=when.values)
    assert rule(f"{{when: [{{key: '{key}', notValues: {written}}}]}}").when == (negative,)


def test_a_rule_knows_its_line() -> None:
    """In the file, not in the document."""
    text = (
        document()
        + "---\n"
        + document("\n  rules:\n  - {}\n  - to:\n    - operation: {ports: [1]}").replace(": p", ": q")
    )
    spec = parse_documents(text, "p.yaml")[1].spec
    assert isinstance(spec, PolicySpec)
    assert [one.line for one in spec.policy.rules] == [11, 12]


def test_targets_are_services() -> None:
    """One or several."""
    one = parsed(document("{targetRef: {kind: Service, name: orders}}")).spec
    several = parsed(
        document('{targetRefs: [{kind: Service, group: "", name: a}, {kind: Service, group: core, name: b}]}')
    ).spec
    assert isinstance(one, PolicySpec)
    assert isinstance(several, PolicySpec)
    assert one.selection == Selection(services=("orders",))
    assert several.selection == Selection(services=("a", "b"))


@pytest.mark.parametrize(
    ("annotations", "shadow"),
    [
        ("hauberk.dev/mode: shadow", True),
        ("hauberk.dev/mode: enforce", False),
        ("istio.io/dry-run: 'true'", True),
        ("istio.io/dry-run: 'false'", False),
        ("hauberk.dev/mode: shadow, istio.io/dry-run: 'true'", True),
        ("example.com/mode: shadow", False),
    ],
)
def test_a_policy_may_be_in_shadow(annotations: str, *, shadow: bool) -> None:
    """By our name or by Istio's."""
    spec = parsed(document(annotations=annotations)).spec
    assert isinstance(spec, PolicySpec)
    assert spec.policy.shadow is shadow


def test_a_peer_authentication_is_read() -> None:
    """Ports may be written as numbers, and a time without quotes."""
    found = peer(
        "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT},"
        ' portLevelMtls: {8080: {mode: PERMISSIVE}, "81": {}}}',
        'hauberk.dev/plaintext-until: 1970-01-02T00:00:00Z, hauberk.dev/plaintext-from: "10.0.0.0/8, ::ffff:1.2.3.4"',
    )
    assert found == PeerAuthenticationSpec(
        namespace="shop",
        name="p",
        selection=Selection(labels={"app": "web"}),
        mode=TlsMode.STRICT,
        ports={8080: TlsMode.PERMISSIVE, 81: None},
        until=86_400.0,
        peers=("10.0.0.0/8", "1.2.3.4"),
        source="p.yaml:1",
    )
    assert peer("{}").mode is None
    assert peer("{mtls: {mode: UNSET}}").mode is None


def test_where_keys_come_from() -> None:
    """By URI under both of Istio's names, inline, or by discovery."""
    assert jwt("{issuer: i, jwksUri: 'https://a/k'}").jwks_uri == "https://a/k"
    assert jwt("{issuer: i, jwks_uri: 'http://127.0.0.1:8080/k'}").jwks_uri == "http://127.0.0.1:8080/k"
    assert json.loads(jwt(f"{{issuer: i, jwks: '{JWKS}'}}").jwks) == {"keys": [ED25519]}
    assert jwt("{issuer: 'https://a'}").discover


def test_token_types_are_media_types() -> None:
    """Of every rule of the document."""
    found = jwt("{issuer: 'https://a'}", 'hauberk.dev/token-types: "JWT, application/at+jwt"')
    assert found.token_types == ("jwt", "at+jwt")


def test_mesh_config_has_the_rest() -> None:
    """Root namespace, proxies, demands."""
    found = parsed(
        document(
            "{rootNamespace: mesh, trustedProxiesCount: 2, permissive: {requireUntil: true, requirePeers: false}}",
            "MeshConfig",
        )
    ).spec
    assert found == MeshConfigSpec(root_namespace="mesh", trusted_proxies_count=2, permissive_until_required=True)
