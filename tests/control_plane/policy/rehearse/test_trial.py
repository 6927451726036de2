"""Expectations held against policies, without any mesh."""

from __future__ import annotations

import pytest

from control_plane.policy.model import PolicyErrors
from control_plane.policy.rehearse.sources import Source, resources_of
from control_plane.policy.rehearse.trial import decided_by, nearest, run, trials_of
from tests.control_plane.policy.rehearse.support import HEAD, NOW, POLICY, faults, results

AUTHENTICATION = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: shop}
spec:
  jwtRules:
    - issuer: https://login.example
      audiences: [orders]
      jwksUri: https://login.example/keys
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users, namespace: shop}
spec:
  rules:
    - from: [{source: {requestPrincipals: ["https://login.example/*"]}}]
      when: [{key: "request.auth.claims[groups]", values: [staff]}]
"""


def test_a_matrix_is_every_caller_with_every_request() -> None:
    """In the order written."""
    found = results("- {from: [shop/web, anybody], to: orders.shop, request: [GET /orders/1, GET /x], expect: deny}")
    assert [one.case.title for one in found] == [
        "shop/web -> orders.shop:8080 GET /orders/1",
        "shop/web -> orders.shop:8080 GET /x",
        "anybody -> orders.shop:8080 GET /orders/1",
        "anybody -> orders.shop:8080 GET /x",
    ]
    assert [one.holds for one in found] == [False, True, True, True]


def test_what_failed_says_what_decided_and_what_came_nearest() -> None:
    """With the file and line of both."""
    (one,) = results("- {from: shop/web, to: orders.shop, request: DELETE /orders/1, expect: allow}")
    assert one.faults == ("expected allow, got deny",)
    assert decided_by(one.outcome) == "deny by default: no ALLOW rule matched"
    assert nearest(one.outcome) == [
        "nearest: shop/orders#0 (policies.yaml:11)",
        "  lacks to[0].operation.methods: wanted GET; got DELETE",
    ]
    assert one.expectation.source == "test.yaml:10"


@pytest.mark.parametrize(("rule", "holds"), [
    ("shop/orders#0", True), ("shop/orders", True), ("shop/orders#1", False), ("default", False),
])  # fmt: skip
def test_the_rule_that_decides_may_be_expected(rule: str, holds: bool) -> None:
    """One rule, or any rule of a policy."""
    found = faults(f'- {{from: shop/web, to: orders.shop, request: GET /orders/1, rule: "{rule}"}}')
    assert (found == []) is holds


@pytest.mark.parametrize("path", ["//orders/1", "/x/../orders/1", "/%6frders/1", "/orders/1?admin=1", "/orders/./1"])
def test_c01_paths_are_canonical_as_in_a_sidecar(path: str) -> None:
    """One spelling is judged."""
    assert faults(f'- {{from: shop/web, to: orders.shop, request: "GET {path}", expect: allow}}') == []


def test_c03_a_path_that_a_sidecar_refuses_is_denied_and_says_why() -> None:
    """With 400, before any rule is asked."""
    (one,) = results('- {from: shop/web, to: orders.shop, request: "GET /orders%2f1", expect: deny, rule: path}')
    assert one.holds
    assert "400" in one.outcome.reason


def test_plaintext_is_refused_where_mutual_tls_is_demanded() -> None:
    """Whatever rules say."""
    open_to_all = POLICY.split("  rules:")[0] + "  rules: [{}]\n"
    expected = "- {from: plaintext, to: orders.shop, request: GET /, expect: deny, rule: peer-authentication}"
    assert faults(expected, open_to_all) == []


def test_plaintext_is_let_in_until_its_end_and_from_its_peers_only() -> None:
    """As PeerAuthentication says; the test says what time it is."""
    policies = POLICY.split("  rules:")[0] + (
        "  rules: [{}]\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n"
        "  {name: old, namespace: shop, annotations: {hauberk.dev/plaintext-until: '2026-06-01T00:00:00Z',"
        " hauberk.dev/plaintext-from: 10.0.0.0/8}}\nspec: {mtls: {mode: PERMISSIVE}}\n"
    )
    call = "{from: plaintext, to: orders.shop, request: GET /, "
    before = HEAD + "  now: 2026-05-31T00:00:00Z\n"
    after = HEAD + "  now: 2026-06-01T00:00:00Z\n"
    assert faults(f"- {call} sourceIp: 10.1.1.1, expect: allow}}", policies, before) == []
    assert faults(f"- {call} sourceIp: 11.1.1.1, expect: deny}}", policies, before) == []
    assert faults(f"- {call} expect: deny}}", policies, before) == []
    assert faults(f"- {call} sourceIp: 10.1.1.1, expect: deny, rule: peer-authentication}}", policies, after) == []


@pytest.mark.parametrize(("claims", "verdict"), [
    ("{groups: [staff]}", "allow"),  # of the only issuer, for the audience it asks for
    ("{iss: 'https://login.example', aud: orders, sub: a, groups: [other, staff]}", "allow"),
    ("{groups: [staffx]}", "deny"),
    ("{iss: 'https://evil.example', groups: [staff]}", "deny"),
    ("{aud: [billing], groups: [staff]}", "deny"),
])  # fmt: skip
def test_claims_count_as_those_of_a_token_that_is_taken(claims: str, verdict: str) -> None:
    """One of an issuer or for an audience that is not, is answered 401."""
    call = "from: shop/web, to: orders.shop, request: GET /"
    claims = claims.replace("{groups", "{sub: a, groups").replace("{aud", "{sub: a, aud")
    assert faults(f"- {{{call}, claims: {claims}, expect: {verdict}}}", AUTHENTICATION) == []


def test_claims_without_anybody_who_verifies_them_are_nothing() -> None:
    """No RequestAuthentication: the token is not looked at."""
    only_policy = AUTHENTICATION.split("---\n")[1]
    call = "from: shop/web, to: orders.shop, request: GET /, claims: {iss: 'https://login.example', sub: a}"
    assert faults(f"- {{{call}, expect: deny, rule: default}}", only_policy) == []


def test_what_shadow_policies_would_say_may_be_expected() -> None:
    """Beside the verdict that holds."""
    shadow = POLICY.replace("  name: orders", "  name: orders\n  annotations: {hauberk.dev/mode: shadow}")
    call = "from: shop/web, to: orders.shop, request: GET /orders/1"
    assert faults(f"- {{{call}, expect: deny, shadow: allow}}", shadow) == []
    assert faults(f"- {{{call}, shadow: deny}}", shadow) == [
        "expected deny with the policies in shadow, got allow by shop/orders#0"
    ]


def test_c23_a_tcp_port_has_no_request() -> None:
    """Of the rules only what TCP has can match."""
    policy = POLICY.replace("app: orders", "app: db")
    assert faults("- {from: shop/web, to: db.shop, expect: deny}", policy) == []
    only_source = policy.split("      to:")[0]
    assert faults("- {from: shop/web, to: db.shop, expect: allow}", only_source) == []


def test_policies_may_stand_in_the_same_file_and_keep_their_lines() -> None:
    """As documents after `---`."""
    text = HEAD + "  expectations:\n    - {from: shop/web, to: orders.shop, request: GET /orders/1, expect: allow}\n"
    count = text.count("\n") + 1
    (trial,) = trials_of(Source(name="t.yaml", text=f"{text}---\n{POLICY}"), [], lambda _file, _path: [])
    (one,) = run(trial, NOW)
    assert one.holds
    assert one.outcome.source == f"t.yaml:{count + 11}"


def test_policies_are_read_from_where_the_test_says() -> None:
    """Relative to the test's file."""
    asked = []

    def read(file: str, path: str) -> list[Source]:
        asked.append((file, path))
        return [Source(name="dir/p.yaml", text=POLICY)]

    text = HEAD + "  policies: [p.yaml]\n  expectations:\n"
    text += "    - {from: shop/web, to: orders.shop, request: GET /orders/1, expect: allow}\n"
    (trial,) = trials_of(Source(name="dir/t.yaml", text=text), [], read)
    assert asked == [("dir/t.yaml", "p.yaml")]
    assert all(one.holds for one in run(trial, NOW))


def test_the_mesh_config_among_the_policies_says_the_trust_domain() -> None:
    """And a test that says another contradicts it."""
    mesh = "---\napiVersion: hauberk.dev/v1\nkind: MeshConfig\nmetadata: {name: default}\n"
    mesh += "spec: {trustDomain: other.example, defaultAction: ALLOW}\n"
    policies = POLICY.replace("mesh.local/", "other.example/") + mesh
    call = "- {from: shop/web, to: orders.shop, request: GET /orders/1, expect: allow}"
    assert faults(call, policies) == []
    for field, said in (("trustDomain: mesh.local", "other.example"), ("defaultAction: DENY", "ALLOW")):
        with pytest.raises(PolicyErrors, match=f"policies.yaml:19 says {said}; remove it here"):
            faults(call, policies, f"{HEAD}  {field}\n")


def test_a_test_may_say_the_default_action() -> None:
    """Where no MeshConfig does."""
    call = "- {from: anybody, to: web.shop:9000, request: GET /, expect: allow, rule: default}"
    assert faults(call, head=HEAD + "  defaultAction: ALLOW\n") == []


def test_a_resource_that_is_there_twice_is_refused() -> None:
    """In two files as in one."""
    with pytest.raises(PolicyErrors, match=r"b.yaml:1:1: metadata.name: .* there twice, first at a.yaml:1"):
        resources_of([Source(name="a.yaml", text=POLICY), Source(name="b.yaml", text=POLICY)])


@pytest.mark.parametrize(("expectation", "told"), [
    ("{to: orders.shop, request: GET /, expect: deny}", "from: is missing"),
    ("{from: shop/wbe, to: orders.shop, request: GET /, expect: deny}", "did you mean shop/web?"),
    ("{from: shop/web, to: order.shop, request: GET /, expect: deny}", "did you mean orders.shop?"),
    ("{from: shop/web, to: orders.shop:81, request: GET /, expect: deny}", "has no port 81; write one of 8080"),
    ("{from: shop/web, to: web.shop, request: GET /, expect: deny}", "has several ports; write one of 8080, 9000"),
    ("{from: shop/web, to: orders.shop, request: /orders, expect: deny}", "write METHOD /PATH"),
    ("{from: shop/web, to: orders.shop, request: GET /}", "write expect: allow, or deny"),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: no}", "YAML reads 'no' as a boolean"),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: denied}", "write allow or deny"),
    ("{from: shop/web, to: orders.shop, request: GET /, expct: deny}", "did you mean expect?"),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: deny, rule: x}", "not the name of a rule"),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: deny, sourceIp: x}", "is not an address"),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: deny, claims: {a: 010}}", 'write "010"'),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: deny, claims: [a]}", "expected a mapping"),
    ("{from: shop/web, to: orders.shop, request: GET /, expect: deny, headers: {a b: c}}", "not the name of a header"),
    ("{from: [], to: orders.shop, request: GET /, expect: deny}", "is an empty list"),
])  # fmt: skip
def test_what_is_written_wrong_is_refused_with_its_place(expectation: str, told: str) -> None:
    """As in policies."""
    with pytest.raises(PolicyErrors) as caught:
        faults(f"- {expectation}")
    assert str(caught.value).startswith("test.yaml:10:")
    assert told in str(caught.value)


def test_a_file_without_a_test_is_refused() -> None:
    """It would pass for nothing."""
    with pytest.raises(PolicyErrors, match="no PolicyTest"):
        trials_of(Source(name="p.yaml", text=POLICY), [], lambda _file, _path: [])
