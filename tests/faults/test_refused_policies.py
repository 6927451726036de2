"""A policy that is not understood to its last word is refused whole, with its place, and the old one stays in force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from protos.hauberk.v1 import config_pb2
from tests.e2e.clients import outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh

GOOD = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: %s
  namespace: shop
spec:
  selector:
    matchLabels:
      app: orders
  action: %s
  rules:
  - from:
    - source:
        principals: ["mesh.local/ns/shop/sa/web"]
    to:
    - operation:
        methods: ["GET"]
"""
BAD = GOOD % ("new", "DENY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    web: Member


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Mesh(tmp_path_factory.mktemp("policies")) as mesh:
        mesh.start_control_plane()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        mesh.apply(ALLOW_ALL)
        yield Shop(mesh=mesh, web=web)


@pytest.mark.parametrize(
    ("old", "new", "line", "field"),
    [
        ("  action: DENY\n", "  action: DENY\n  priority: 1\n", 11, "priority"),
        ("  action: DENY\n", "  action: DENY\n  action: ALLOW\n", 11, "action"),
        ("        methods: [", "        method: [", 17, "method"),
        ("  action: DENY", "  action: deny", 10, "action"),
        ("mesh.local/ns/shop/sa/web", "spiffe://mesh.local/ns/shop/sa/web", 14, "principals"),
        ('methods: ["GET"]', "methods: GET", 17, "methods"),
        ("kind: AuthorizationPolicy", "kind: AuthorisationPolicy", 2, "kind"),
        ("security.istio.io/v1", "security.istio.io/v9", 1, "apiVersion"),
        ("  name: new", "  name: New!", 4, "metadata.name"),
        ("  rules:", "  rules: &all", None, ""),
        ("    to:", "   to:", None, ""),
    ],
)
def test_h_what_is_not_understood_changes_nothing(shop: Shop, old: str, new: str, line: int | None, field: str) -> None:
    """Exit code 1, file:line, the field; nothing stored, the good document beside it neither; requests go on."""
    assert old in BAD
    file = shop.mesh.directory / "policy.yaml"
    file.write_text(BAD.replace(old, new) + "---\n" + GOOD % ("good", "ALLOW"))
    before = stored(shop)
    run = shop.mesh.hauberk("apply", "-f", str(file), "--wait")
    assert (run.returncode, run.stdout) == (1, "")
    assert f"{file}:{line or ''}" in run.stderr
    assert field in run.stderr
    assert "Traceback" not in run.stderr
    assert stored(shop) == before
    assert outcome(shop.web.ports["orders"]) == 200


def test_the_document_itself_is_good(shop: Shop) -> None:
    """So the ones above were refused for their faults; and a dry run says so without doing it."""
    file = shop.mesh.directory / "policy.yaml"
    file.write_text(BAD)
    assert "(dry run)" in shop.mesh.done("apply", "-f", str(file), "--dry-run")
    assert outcome(shop.web.ports["orders"]) == 200
    shop.mesh.done("apply", "-f", str(file), "--wait")
    assert outcome(shop.web.ports["orders"]) == 403
    shop.mesh.done("delete", "ap", "shop/new", "--wait")
    assert outcome(shop.web.ports["orders"]) == 200


def stored(shop: Shop) -> config_pb2.ListResponse:
    """Every resource, with the version at which it was stored."""
    return shop.mesh.operator("Config/List", config_pb2.ListRequest(), config_pb2.ListResponse)
