"""control_plane/policy/check.py: legal, but probably not meant."""

from __future__ import annotations

import pytest

from control_plane.policy.check import WARNINGS_MAX, told_once
from control_plane.policy.model import ParsedResource
from control_plane.policy.parse import parse_documents

TABLE = [
    ("ALLOW", "[]", "an ALLOW policy without rules allows nobody"),
    ("DENY", "[]", "a DENY policy without rules has no effect"),
    ("ALLOW", "[{}]", "spec.rules[0]: a rule without from, to and when allows everything to everybody"),
    ("DENY", "[{}]", "spec.rules[0]: a rule without from, to and when denies everything to everybody"),
    ("ALLOW", "[{from: [{source: {notPrincipals: [a/ns/a/sa/b]}}]}]", "spec.rules[0].from[0].source: ALLOW by `not`"),
    ("ALLOW", "[{from: [{source: {notNamespaces: [a]}}]}]", "ALLOW by `not`"),
    ("DENY", "[{from: [{source: {notPrincipals: [a/ns/a/sa/b]}}]}]", ""),
    ("ALLOW", "[{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: [/admin]}}]}]", "/admin leaves what is below it; add /admin/*"),
    (
        "DENY",
        "[{to: [{operation: {paths: ['/x%3By*']}}]}]",
        "/x%3By*: servers read a semicolon in a path in three ways",
    ),
    ("DENY", "[{to: [{operation: {paths: ['/x;y*']}}]}]", "/x;y*: servers read a semicolon in a path in three ways"),
    ("DENY", "[{to: [{operation: {paths: [/admin/]}}]}]", "/admin/ leaves what is below it; add /admin/*"),
    ("DENY", "[{to: [{operation: {paths: [/admin/*]}}]}]", "/admin/* leaves /admin itself; add it"),
    ("DENY", "[{to: [{operation: {paths: [/admin, /admin/*]}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: [/admin*]}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: [/admin, /adm*]}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: ['*']}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: ['/*']}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: [/]}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: ['*.php']}}]}]", ""),
    ("ALLOW", "[{to: [{operation: {paths: [/admin]}}]}]", ""),
    ("ALLOW", "[{from: [{source: {principals: [a/ns/a/sa/b]}}]}]", ""),
    *(
        ("ALLOW", f"[{{from: [{{source: {{{name}: ['{value}']}}}}]}}]", "ALLOW by `not`")
        for name, value in (
            ("notRequestPrincipals", "*"),
            ("notRemoteIpBlocks", "10.0.0.0/8"),
        )
    ),
    *(
        ("ALLOW", f"[{{when: [{{key: '{key}', notValues: [{value}]}}]}}]", f"do not hold where there is no {key}")
        for key, value in (
            ("source.principal", "a/ns/a/sa/b"),
            ("source.namespace", "a"),
            ("request.auth.principal", "a"),
            ("request.auth.audiences", "a"),
            ("request.auth.presenter", "a"),
            ("request.auth.claims[a][b]", "a"),
            ("connection.sni", "a"),
        )
    ),
    ("DENY", "[{when: [{key: source.principal, notValues: [a/ns/a/sa/b]}]}]", ""),
    (
        "DENY",
        "[{from: [{source: {principals: [shop/web]}}]}]",
        "spec.rules[0].from[0].source.principals: no workload is called shop/web; write TRUST-DOMAIN/ns/",
    ),
    ("DENY", "[{from: [{source: {notPrincipals: [shop/web]}}]}]", "source.notPrincipals: no workload is called"),
    (
        "ALLOW",
        "[{when: [{key: source.principal, values: [shop/web]}]}]",
        "spec.rules[0].when[0]: no workload is called",
    ),
    ("DENY", "[{from: [{source: {principals: ['shop/*', '*/web']}}]}]", ""),
    ("DENY", "[{from: [{source: {serviceAccounts: [shop/web]}}]}]", ""),
    ("ALLOW", "[{when: [{key: 'request.headers[x]', notValues: [a]}]}]", "every value must match"),
    ("ALLOW", "[{when: [{key: 'request.headers[x]', values: [a]}]}]", "every value must match"),
    ("DENY", "[{when: [{key: 'request.headers[x]', values: [a]}]}]", "one value that matches is enough"),
]


def warnings(action: str, rules: str, namespace: str = "shop") -> tuple[str, ...]:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: p, namespace: {namespace}}}\nspec: {{action: {action}, rules: {rules}}}\n"
    )
    (resource,) = parse_documents(text, "p.yaml")
    assert resource.notes == ()
    return resource.warnings


def users(rules: str) -> ParsedResource:
    text = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        f"metadata: {{name: users, namespace: shop}}\nspec: {{jwtRules: {rules}}}\n"
    )
    (resource,) = parse_documents(text, "u.yaml")
    return resource


@pytest.mark.parametrize(("action", "rules", "warning"), TABLE)
def test_c14_and_other_slips_are_warned_of(action: str, rules: str, warning: str) -> None:
    """One warning each, or none."""
    found = warnings(action, rules)
    assert len(found) == (1 if warning else 0), found
    assert warning in "".join(found)


def test_istios_root_namespace_is_what_it_is_in_istio() -> None:
    """Nothing to warn of; but of a mesh that calls another one so."""
    assert warnings("DENY", "[{to: [{operation: {ports: [1]}}]}]", "istio-system") == ()
    text = "apiVersion: hauberk.dev/v1\nkind: MeshConfig\nmetadata: {name: default}\nspec: {rootNamespace: mesh}\n"
    (found,) = parse_documents(text, "m.yaml")[0].warnings
    assert found == "spec.rootNamespace: what is in istio-system holds in that namespace only"


def test_an_open_mesh_is_warned_of() -> None:
    """`defaultAction: ALLOW` is for migrations."""
    text = "apiVersion: hauberk.dev/v1\nkind: MeshConfig\nmetadata: {name: default}\nspec: {defaultAction: ALLOW}\n"
    assert "lets every workload call" in "".join(parse_documents(text, "m.yaml")[0].warnings)


def test_where_tokens_are_taken_less_freely_than_in_istio_is_told() -> None:
    """One line for what every token must be, one for where it is not looked for; nothing where nothing differs."""
    given = "{issuer: 'https://a', audiences: [a]}"
    what, where = users(f"[{given}, {given}]").notes
    for word in ("exp", "aud", "a day (exp - iat)", "shared key"):
        assert word in what
    assert where.startswith(
        "spec.jwtRules[0]: tokens are read from Authorization only, not from the query's access_token"
    )
    assert len(users("[{issuer: 'https://a', fromParams: [access_token]}]").notes) == 1
    assert len(users("[{issuer: 'https://a', fromHeaders: [{name: x-token}]}]").notes) == 1
    assert len(users("[{issuer: 'https://a', fromCookies: [token]}]").notes) == 1
    assert users(f"[{given}]").warnings == ()
    assert users("[]").notes == ()
    assert "no token is taken or refused" in "".join(users("[]").warnings)
    assert "tokens that were made for other services" in "".join(users("[{issuer: 'https://a'}]").warnings)


def test_what_is_true_of_many_documents_is_told_once() -> None:
    """With where; not with all of where."""
    said = [(f"p.yaml:{n}", "spec: is wide") for n in range(1, 6)]
    assert told_once([*said[:2], ("q.yaml:1", "spec: is odd")]) == [
        "p.yaml:1, p.yaml:2: spec: is wide",
        "q.yaml:1: spec: is odd",
    ]
    assert told_once(said) == ["p.yaml:1, p.yaml:2, p.yaml:3 and 2 more: spec: is wide"]


def test_warnings_are_bounded_and_cheap() -> None:
    """However many paths there are."""
    paths = ", ".join(f"/p{n}" for n in range(5_000))
    assert len(warnings("DENY", f"[{{to: [{{operation: {{paths: [{paths}]}}}}]}}]")) == WARNINGS_MAX
