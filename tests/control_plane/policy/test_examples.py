"""deploy/examples/policies: what the shop's policies say, service by service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.policy.compile import Selectable, policies_for
from control_plane.policy.explain import explain
from control_plane.policy.model import MeshConfigSpec, ParsedResource
from control_plane.policy.parse import parse_documents
from sidecar.rules.authz import Facts
from sidecar.rules.snapshot import Action
from tests.sidecar.rules.builders import TD, snapshot, workload

FOLDER = Path(__file__).parents[3] / "deploy" / "examples" / "policies"
RESOURCES: list[ParsedResource] = [
    resource for file in sorted(FOLDER.glob("*.yaml")) for resource in parse_documents(file.read_text(), file.name)
]

ALLOWED = [
    ("edge", "web", "GET", "/"),
    ("edge", "web", "POST", "/checkout"),
    ("web", "orders", "POST", "/shop.v1.Orders/Get"),
    ("web", "orders", "POST", "/shop.v1.Orders/Place"),
    ("web", "orders", "POST", "/shop.v1.Orders/Watch"),
    ("orders", "billing", "GET", "/invoices"),
    ("orders", "billing", "GET", "/invoices/7"),
    ("orders", "billing", "POST", "/invoices"),
]
DENIED = [
    ("load", "web", "GET", "/", "default"),
    ("orders", "web", "GET", "/", "default"),
    ("edge", "web", "GET", "/admin", "shop/no-admin#0"),
    ("other/edge", "web", "GET", "/", "default"),
    ("edge", "orders", "POST", "/shop.v1.Orders/Get", "default"),
    ("web", "orders", "POST", "/shop.v1.Orders/Delete", "default"),
    ("web", "orders", "GET", "/shop.v1.Orders/Get", "default"),
    ("web", "billing", "GET", "/invoices/7", "default"),
    ("orders", "billing", "POST", "/invoices/7", "default"),
    ("orders", "billing", "DELETE", "/invoices", "default"),
    ("orders", "billing", "GET", "/admin", "shop/no-admin#0"),
    ("orders", "billing", "GET", "/admin/users", "shop/no-admin#0"),
    ("load", "billing", "GET", "/invoices/7", "default"),
    ("-", "billing", "GET", "/invoices/7", "default"),
]


def said(caller: str, service: str, method: str, path: str) -> tuple[bool, str]:
    policies = policies_for(RESOURCES, Selectable(namespace="shop", labels={"app": service}), MeshConfigSpec(), TD)
    facts = Facts(principal=workload(caller), host=f"{service}.shop", port=80, method=method, path=path)
    explanation = explain(replace(snapshot(policies), service=service), facts)
    return explanation.allowed, explanation.rule


@pytest.mark.parametrize(("caller", "service", "method", "path"), ALLOWED)
def test_the_shop_works(caller: str, service: str, method: str, path: str) -> None:
    """Every call its services make is allowed."""
    assert said(caller, service, method, path)[0]


@pytest.mark.parametrize(("caller", "service", "method", "path", "rule"), DENIED)
def test_and_nothing_else_does(caller: str, service: str, method: str, path: str, rule: str) -> None:
    """By the DENY on /admin, or because nobody allowed it."""
    assert said(caller, service, method, path) == (False, rule)


def test_the_mesh_denies_by_default() -> None:
    """In the example too."""
    (mesh,) = [resource.spec for resource in RESOURCES if resource.kind == "MeshConfig"]
    assert mesh == MeshConfigSpec(trust_domain="mesh.local", certificate_lifetime_s=3600, default_action=Action.DENY)
