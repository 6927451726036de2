"""A denial, from the caller's answer to its cause: what a user types, against a real mesh."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.clients import ask
from tests.e2e.harness import WEB_APP, Inbound, Member, Mesh, eventually

POLICY = json.dumps({
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "orders", "namespace": "shop"},
    "spec": {
        "selector": {"matchLabels": {"app": "orders"}},
        "action": "ALLOW",
        "rules": [{
            "from": [{"source": {"principals": ["mesh.local/ns/shop/sa/web"]}}],
            "to": [{"operation": {"paths": ["/hello"]}}],
            "when": [{"key": "request.headers[authorization]", "values": ["Bearer of-the-policy"]}],
        }],
    },
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    web: Member
    orders: Member


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Mesh(tmp_path_factory.mktemp("explain")) as mesh:
        mesh.start_control_plane()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        mesh.apply(POLICY + "\n")
        yield Shop(mesh=mesh, web=web, orders=orders)


def curl(port: int, path: str, *options: str) -> tuple[int, str]:
    """(status, id of the decision)."""
    run = subprocess.run(
        ["curl", "--silent", "--show-error", "--include", "--noproxy", "*", *options, f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    found = re.search(r"(?im)^hauberk-decision-id: ([0-9a-f]{16})\r?$", run.stdout)
    return int(run.stdout.split()[1]), found[1] if found else ""


def decided(shop: Shop, decision_id: str, *options: str) -> str:
    """What `hauberk explain --decision` prints, once the sidecar has reported it."""
    found: list[str] = []

    def is_known() -> bool:
        run = shop.mesh.hauberk("explain", "--decision", decision_id, *options)
        found.append(run.stdout)
        assert run.returncode == 0 or "no decision" in run.stderr, run.stderr
        return run.returncode == 0

    eventually(is_known, 10, "the control plane knows the decision")
    return found[-1]


def test_a_denied_curl_is_explained_by_the_id_it_was_told(shop: Shop) -> None:
    """Rule, nearest miss condition by condition, both identities, version; and never the secret."""
    status, decision_id = curl(
        shop.web.ports["orders"], "/x/../admin", "-H", "authorization: Bearer s3cr3t", "--path-as-is"
    )
    assert status == 403
    shown = decided(shop, decision_id.upper())
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "DENIED"
    version = json.loads(shop.mesh.done("status", "-o", "json"))["version"]
    assert {
        f"decision {decision_id}",
        "request GET orders.shop:8080/admin",
        "from spiffe://mesh.local/ns/shop/sa/web",
        "to spiffe://mesh.local/ns/shop/sa/orders",
        "rule default",
        "reason no ALLOW rule matched",
        "nearest: shop/orders#0 (<stdin>:1)",
        "yes from[0].source.principals mesh.local/ns/shop/sa/web mesh.local/ns/shop/sa/web",
        "NO to[0].operation.paths /hello /admin",
    } <= set(lines), shown
    assert any(line.startswith("version ") and 0 < int(line.split()[1]) <= version for line in lines)
    assert re.search(r"\? +when\[0\]\.request\.headers\[authorization\].* +\(hidden\)$", shown, re.MULTILINE)
    data = json.loads(decided(shop, decision_id, "-o", "json"))
    assert (data["decision_id"], data["allowed"], data["rule"]) == (decision_id, False, "default")
    logs = "".join(one.log for one in shop.mesh.processes)
    assert "s3cr3t" not in shown + json.dumps(data) + logs


def test_what_the_control_plane_says_of_a_request_is_what_the_sidecar_does(shop: Shop) -> None:
    """Asked beforehand, with the header that the policy wants."""
    asked = ("explain", "--from", "shop/web", "--to", "orders.shop", "-o", "json")
    header = "authorization: Bearer of-the-policy"
    for path in ("/hello", "/x/%2e./hello", "/other"):
        status, _ = curl(shop.web.ports["orders"], path, "-H", header, "--path-as-is")
        answer = json.loads(shop.mesh.done(*asked, "-H", header, "GET", path))
        assert answer["allowed"] == (status != 403), path
        assert json.loads(shop.mesh.done(*asked, "GET", path))["allowed"] is False


def test_an_id_that_nobody_was_told_is_unknown_and_says_where_ids_are(shop: Shop) -> None:
    """One line, exit code 1."""
    run = shop.mesh.hauberk("explain", "--decision", "0123456789abcdef")
    assert (run.returncode, run.stdout) == (1, "")
    assert "hauberk-decision-id" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_decision_is_held_against_the_policy_of_then(shop: Shop) -> None:
    """After a change the answer is the same, and says what is different now."""
    _, decision_id = curl(shop.web.ports["orders"], "/admin")
    before = decided(shop, decision_id)
    shop.mesh.apply(POLICY.replace("/hello", "/admin") + "\n")
    after = decided(shop, decision_id)
    assert "policy changed since" not in before
    assert "policy changed since" in after
    assert re.search(r"NO +to\[0\].operation.paths +/hello +/admin", after)
    assert ask(shop.web.ports["orders"], "/hello").status == 403
