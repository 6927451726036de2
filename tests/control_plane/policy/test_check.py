"""control_plane/policy/check.py: legal, but probably not meant."""

from __future__ import annotations

import pytest

from control_plane.policy.check import WARNINGS_MAX
from control_plane.policy.parse import parse_documents

TABLE = [
    ("ALLOW", "[]", "an ALLOW policy without rules allows nobody"),
    ("DENY", "[]", "a DENY policy without rules has no effect"),
    ("ALLOW", "[{}]", "spec.rules[0]: a rule without from, to and when allows everything to everybody"),
    ("DENY", "[{}]", "spec.rules[0]: a rule without from, to and when denies everything to everybody"),
    ("ALLOW", "[{from: [{source: {notPrincipals: [a/b]}}]}]", "spec.rules[0].from[0].source: ALLOW by `not`"),
    ("ALLOW", "[{from: [{source: {notNamespaces: [a]}}]}]", "ALLOW by `not`"),
    ("DENY", "[{from: [{source: {notPrincipals: [a/b]}}]}]", ""),
    ("ALLOW", "[{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}]", ""),
    ("DENY", "[{to: [{operation: {paths: [/admin]}}]}]", "/admin leaves what is below it; add /admin/*"),
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
    ("ALLOW", "[{from: [{source: {principals: [a/b]}}]}]", ""),
]


def warnings(action: str, rules: str, namespace: str = "shop") -> tuple[str, ...]:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: p, namespace: {namespace}}}\nspec: {{action: {action}, rules: {rules}}}\n"
    )
    (resource,) = parse_documents(text, "p.yaml")
    return resource.warnings


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


def test_warnings_are_bounded_and_cheap() -> None:
    """However many paths there are."""
    paths = ", ".join(f"/p{n}" for n in range(5_000))
    assert len(warnings("DENY", f"[{{to: [{{operation: {{paths: [{paths}]}}}}]}}]")) == WARNINGS_MAX
