"""What documents of all kinds are refused for, and what they are warned of."""

from __future__ import annotations

import json

import pytest

from control_plane.policy.model import PolicyErrors
from control_plane.policy.parse import parse_documents
from tests.control_plane.policy.test_kinds import ED25519, document, parsed, rule


def problems(text: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        parse_documents(text, "p.yaml")
    return str(caught.value)


def _of(kind: str, *cases: tuple[str, str]) -> list[tuple[str, str]]:
    return [(document(spec, kind), wanted) for spec, wanted in cases]


def _of_source(*cases: tuple[str, str]) -> list[tuple[str, str]]:
    return [(document(f"{{rules: [{{from: [{{source: {spec}}}]}}]}}"), wanted) for spec, wanted in cases]


def _of_when(*cases: tuple[str, str]) -> list[tuple[str, str]]:
    return [(document(f"{{rules: [{{when: [{spec}]}}]}}"), wanted) for spec, wanted in cases]


def _of_jwt(*cases: tuple[str, str]) -> list[tuple[str, str]]:
    return [(document(f"{{jwtRules: [{spec}]}}", "RequestAuthentication"), wanted) for spec, wanted in cases]


def _annotated(*cases: tuple[str, str, str]) -> list[tuple[str, str]]:
    return [(document("{}", kind, annotations), wanted) for kind, annotations, wanted in cases]


PRIVATE = json.dumps({"keys": [{**ED25519, "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]})
SYMMETRIC = json.dumps({"keys": [{"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}]})
DEEP = '{"keys": ' + "[" * 100 + "]" * 100 + "}"

REFUSED = [
    # H01: what is not known
    *_of(
        "AuthorizationPolicy",
        ("{selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: x}}", "targetRef: stands beside selector"),
        ("{targetRef: {kind: Gateway, name: x}}", "gateways are not here yet; use kind Service"),
        ("{targetRef: {kind: Pod, name: x}}", "targetRef.kind: 'Pod' is not a kind of target"),
        ("{targetRef: {kind: Service, group: apps, name: x}}", "'apps' has no Service"),
        ("{targetRef: {kind: Service, name: x, namespace: y}}", "a target is in the resource's own namespace"),
        ("{targetRefs: [{kind: Service}]}", "targetRefs[0].name: is missing"),
        (f"{{targetRefs: [{'{kind: Service, name: x}, ' * 17}]}}", "more than 16"),
        ("{action: CUSTOM, provider: {name: x}}", "spec.provider: not yet supported; external authorizers"),
    ),
    *_of_source(
        ("{serviceAccounts: [a], principals: [b/c]}", "source.principals: stands beside service accounts"),
        ("{notServiceAccounts: [a], notNamespaces: [b]}", "source.notNamespaces: stands beside service accounts"),
        ("{serviceAccounts: ['*']}", "service accounts are matched exactly"),
        ("{ipBlocks: [10.0.0.1/8]}", "has bits set behind the prefix; write 10.0.0.0/8 or 10.0.0.1"),
        ("{remoteIpBlocks: [example.com]}", "is neither an address nor a CIDR block"),
        ("{ipBlocks: [10]}", "YAML reads '10' as a number"),
        ("{requestPrincipals: [a*b]}", "`*` may stand at one end only"),
    ),
    *_of_when(
        ("{values: [a]}", "when[0].key: is missing"),
        ("{key: source.ip}", "has neither values nor notValues"),
        ("{key: source.ip, values: []}", "values: is an empty list"),
        (
            "{key: source.ips, values: [a]}",
            "not an attribute known to this version; did you mean source.ip?",
        ),
        ("{key: 'experimental.envoy.filters.a[b]', values: [a]}", "not an attribute known to this version; known are"),
        ("{key: request.headers, values: [a]}", "name one header"),
        ("{key: 'request.headers[:path]', values: [a]}", "name one header"),
        ("{key: 'request.headers[host]', values: [a]}", "use hosts in `to`"),
        ("{key: 'request.headers[X-Forwarded-Client-Cert]', values: [a]}", "only the mesh sets it"),
        ("{key: 'request.headers[proxy-authorization]', values: [a]}", "it is about one connection"),
        ("{key: request.auth.claims, values: [a]}", "name a claim"),
        ("{key: 'source.ip[x]', values: [a]}", "takes no [name]"),
        ("{key: source.ip, values: [10.0.0.1/8]}", "has bits set behind the prefix"),
        ("{key: destination.port, values: ['8*']}", "'8*' is not a port"),
        ("{key: source.serviceAccount, values: [a/b/c]}", "is not a DNS label"),
        ("{key: source.principal, values: ['spiffe://a/b']}", "without the scheme"),
        ("{key: 'request.headers[x]', value: [a]}", "did you mean values?"),
        ("{key: 'request.headers[x]', values: [' a']}", "begins or ends with a space"),
    ),
    *_of(
        "PeerAuthentication",
        ("{mtls: {mode: strict}}", "'strict' is not a mode; did you mean STRICT?"),
        ("{mtls: {}, mode: STRICT}", "spec.mode: not known"),
        ("{mtls: STRICT}", "spec.mtls: expected a mapping"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls: needs a selector"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {}}", "holds 0 ports"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: []}", "expected a mapping, found a list"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {}}}", "'0' is not a port"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {0x50: {}}}", "'0x50' is not a port"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {}}}", "'http' is not a port"),
        ('{selector: {matchLabels: {a: b}}, portLevelMtls: {80: {}, "80": {}}}', "the key '80' is there twice"),
        ("{targetRefs: [{kind: Service, name: x}]}", "spec.targetRefs: not yet supported; use spec.selector"),
        ("{1: x}", "spec.1: not known to this version"),
    ),
    *_of("RequestAuthentication", ("{jwtRules: {}}", "expected a list"), ("{jwtRule: []}", "did you mean jwtRules?")),
    *_of_jwt(
        ("{}", "jwtRules[0].issuer: is missing"),
        ("{issuer: me@example.com}", "issuer: says where the keys are found, but is not an https URL"),
        ("{issuer: 'http://example.com'}", "must be https"),
        ("{issuer: i, jwksUri: 'http://example.com/k'}", "must be https"),
        ("{issuer: i, jwksUri: 'https://u:p@example.com/k'}", "without user and fragment"),
        ("{issuer: i, jwksUri: 'https://example.com/k#x'}", "without user and fragment"),
        ("{issuer: i, jwksUri: 'https://example.com:99999/k'}", "has no such port"),
        ("{issuer: i, jwksUri: 'file:///etc/passwd'}", "is not an https URL"),
        ("{issuer: i, jwksUri: 'https://a/k', jwks: '{}'}", "jwks: stands beside jwksUri"),
        ("{issuer: i, jwksUri: 'https://a/k', jwks_uri: 'https://a/k'}", "jwks_uri: stands beside jwksUri"),
        ("{issuer: i, jwks: 'x'}", "jwks: is not JSON"),
        ("{issuer: i, jwks: '{}'}", "has no list `keys`"),
        ("{issuer: i, jwks: '{\"keys\": []}'}", "has no key that verifies signatures"),
        (
            f"{{issuer: i, jwks: '{PRIVATE}'}}",
            "holds a private or symmetric key; write public keys, and replace this one",
        ),
        (f"{{issuer: i, jwks: '{SYMMETRIC}'}}", "holds a private or symmetric key"),
        (f"{{issuer: i, jwks: '{json.dumps({'keys': [ED25519, {'kty': 'EC'}]})}'}}", "1 of its keys cannot verify"),
        ("{issuer: i, jwks: '" + " " * 70_000 + "'}", "longer than 65536 characters"),
        ("{issuer: 'https://a', audiences: []}", "audiences: is an empty list"),
        ("{issuer: 'https://a', audiences: [1]}", "YAML reads '1' as a number"),
        ("{issuer: 'https://a', fromHeaders: [{prefix: x}]}", "fromHeaders[0].name: is missing"),
        *(
            (f"{{issuer: 'https://a', fromHeaders: [{{name: {name}}}]}}", "not a header that reaches the sidecar")
            for name in ("connection", "Proxy-Authorization", "x-forwarded-client-cert", "x-hauberk-token", "te")
        ),
        ("{issuer: 'https://a', fromParams: ['a&b']}", "is not the name of a query parameter"),
        ("{issuer: 'https://a', fromCookies: ['a=b']}", "is not the name of a cookie"),
        ("{issuer: 'https://a', timeout: 5}", "YAML reads '5' as a number"),
        ("{issuer: 'https://a', timeout: 2m}", "is out of bounds"),
        ("{issuer: 'https://a', forwardOriginalToken: 'true'}", "expected true or false, found text"),
        ("{issuer: 'https://a', forwardOriginalToken: yes}", "expected true or false, found a boolean"),
        ("{issuer: 'https://a', forwardOrginalToken: true}", "did you mean forwardOriginalToken?"),
        ("{issuer: 'https://a', outputClaimToHeaders: [{header: x-a}]}", "claim: is missing"),
        (
            "{issuer: 'https://a', outputPayloadToHeader: X-A, outputClaimToHeaders: [{header: x-a, claim: b}]}",
            "the header x-a is set twice",
        ),
        *(
            (f"{{issuer: 'https://a', outputPayloadToHeader: '{name}'}}", "is not a header that claims may be put into")
            for name in (
                "Host",
                "authorization",
                "Content-Length",
                "te",
                "x-hauberk-principal",
                "X_Hauberk_Principal",
                "x-forwarded-client-cert",
                "x-forwarded-for",
                "upgrade",
                "traceparent",
                "X-HTTP-Method-Override",
                "x.forwarded.for",
            )
        ),
        ("{issuer: 'https://a', outputPayloadToHeader: ':path'}", "is not the name of a header"),
        ("{issuer: 'https://a', outputPayloadToHeader: x_y}", "many servers take _ for -; write x-y"),
    ),
    # H01: an annotation that means to be ours
    *_annotated(
        ("AuthorizationPolicy", "hauberk.dev/mod: shadow", "is no annotation of AuthorizationPolicy known"),
        ("AuthorizationPolicy", "hauberk.dev/Mode: shadow", "did you mean hauberk.dev/mode?"),
        ("AuthorizationPolicy", "hauberk.dev/mode: dark", "'dark' is not a mode; write shadow or enforce"),
        ("AuthorizationPolicy", "hauberk.dev/mode: ''", "'' is not a mode"),
        ("AuthorizationPolicy", "istio.io/dry-run: true", "YAML reads 'true' as a boolean; write \"true\""),
        ("AuthorizationPolicy", "istio.io/dry-run: 'True'", "is neither true nor false"),
        ("AuthorizationPolicy", "hauberk.dev/mode: enforce, istio.io/dry-run: 'true'", "contradicts istio.io/dry-run"),
        ("AuthorizationPolicy", "hauberk.dev/plaintext-from: 10.0.0.1", "is no annotation of AuthorizationPolicy"),
        ("PeerAuthentication", "hauberk.dev/mode: shadow", "is no annotation of PeerAuthentication"),
        ("PeerAuthentication", "istio.io/dry-run: 'true'", "is no annotation of PeerAuthentication"),
        ("PeerAuthentication", "hauberk.dev/plaintext-until: 2026-12-31", "is not a time; write 2026-12-31T00:00:00Z"),
        ("PeerAuthentication", "hauberk.dev/plaintext-from: ''", "is empty"),
        ("PeerAuthentication", "hauberk.dev/plaintext-from: '10.0.0.1/8'", "has bits set behind the prefix"),
        ("RequestAuthentication", "hauberk.dev/token-types: 'a b'", "is not a media type"),
        ("MeshConfig", "hauberk.dev/mode: shadow", "a MeshConfig has none"),
    ),
    (document(labels="hauberk.dev/mode: shadow"), "is an annotation, not a label"),
    *_of(
        "MeshConfig",
        ("{trustedProxiesCount: 17}", "'17' is out of bounds"),
        ("{trustedProxiesCount: -1}", "is out of bounds"),
        ("{trustedProxiesCount: 010}", "is out of bounds"),
        ("{trustedProxiesCount: 1.5}", "YAML reads '1.5' as a number"),
        ("{rootNamespace: A}", "is not a DNS label"),
        ("{permissive: {requireUntil: yes}}", "expected true or false"),
        ("{permissive: {until: true}}", "spec.permissive.until: not known"),
        ("{permissive: true}", "spec.permissive: expected a mapping"),
        ("{defaultAction: AUDIT}", "'AUDIT' is not an action"),
    ),
]


@pytest.mark.parametrize(("text", "wanted"), REFUSED)
def test_h01_h11_h12_refused_with_its_place_and_a_way_out(text: str, wanted: str) -> None:
    """Unknown fields, kinds and annotations; addresses that are not clear; names beyond their letters."""
    said = problems(text)
    assert wanted in said
    assert all(line.startswith("p.yaml:") for line in said.splitlines())


def test_every_problem_is_told_once() -> None:
    """Also where a place is looked at twice."""
    assert len(problems(document(annotations="istio.io/dry-run: true")).splitlines()) == 1


@pytest.mark.parametrize(
    "jwks",
    [
        DEEP,
        '{"keys": [], "keys": []}',
        '{"keys": [{"kty": "OKP", "kty": "OKP"}]}',
        '{"keys": NaN}',
        '{"keys": 1e999}',
        '{"keys": [' + "9" * 5_000 + "]}",
    ],
)
def test_h17_json_that_reads_in_two_ways_is_refused(jwks: str) -> None:
    """Nested too deeply, a name twice, NaN, numbers without end."""
    assert "jwtRules[0].jwks" in problems(
        document(f"{{jwtRules: [{{issuer: i, jwks: '{jwks}'}}]}}", "RequestAuthentication")
    )


def test_no_key_is_told_back() -> None:
    """A private key that was pasted by mistake is not written into logs as well."""
    said = problems(document(f"{{jwtRules: [{{issuer: i, jwks: '{PRIVATE}'}}]}}", "RequestAuthentication"))
    assert "nWGxne" not in said


WARNED = [
    (document("{mtls: {mode: PERMISSIVE}}", "PeerAuthentication"), "takes plaintext without an end"),
    (document("{mtls: {mode: PERMISSIVE}}", "PeerAuthentication"), "takes plaintext from everybody"),
    (document("{mtls: {mode: DISABLE}}", "PeerAuthentication"), "with DISABLE no caller has an identity"),
    (
        document("{mtls: {mode: STRICT}}", "PeerAuthentication", "hauberk.dev/plaintext-from: 10.0.0.1"),
        "no port takes plaintext",
    ),
    (document("{jwtRules: [{issuer: 'https://a'}]}", "RequestAuthentication"), "name your audiences"),
    (document("{}", "RequestAuthentication"), "no token is taken or refused"),
    (document("{action: AUDIT, rules: [{}]}"), "AUDIT neither allows nor denies"),
    (document("{action: AUDIT, rules: [{}]}"), "records everything"),
    (document("{rules: [{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}]}"), "0.0.0.0/0 and ::/0 are every address"),
    (document("{rules: [{when: [{key: remote.ip, values: ['::/0']}]}]}"), "0.0.0.0/0 and ::/0 are every address"),
    (document("{rules: [{from: [{source: {ipBlocks: [10.0.0.1]}}]}]}"), "the address is that of the caller's sidecar"),
    (
        document("{rules: [{from: [{source: {notRequestPrincipals: [a]}}]}]}"),
        "nobody without an identity",
    ),
    (document("{rules: [{when: [{key: connection.sni, notValues: [a]}]}]}"), "in Istio they do"),
    (document("{rules: [{when: [{key: 'request.headers[x]', values: [a]}]}]}"), "every value must match"),
    (
        document("{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: [a]}]}]}"),
        "one value that matches is enough",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), WARNED)
def test_h11_where_we_are_stricter_apply_says_so(text: str, wanted: str) -> None:
    """And where something is wide open."""
    assert any(wanted in warning for warning in parsed(text).warnings)


def test_h03_no_rules_and_no_conditions() -> None:
    """`rules: []` matches nothing; an empty `when` is no condition and refused; `when` alone is a rule."""
    assert "is an empty list" in problems(document("{rules: [{when: []}]}"))
    assert rule("{when: [{key: source.namespace, values: [a]}]}").sources == ()
