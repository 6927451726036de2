"""Policy, live: deny by default, what `apply --wait` promises, streams that lose the right."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.e2e.clients import Greeter, ask
from tests.e2e.harness import GRPC_APP, WEB_APP, Inbound, Member, Mesh, eventually

LOSS_S = 1.0
"""How long an open stream may outlive the right to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    web: Member
    edge: Member


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Mesh(tmp_path_factory.mktemp("policy")) as mesh:
        mesh.start_control_plane()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        greeter = mesh.run("greeter", GRPC_APP, inbound=[Inbound(9090, protocol="http2")])
        web, edge = (mesh.sidecar(name, calls={"orders": 8080, "greeter": 9090}) for name in ("web", "edge"))
        mesh.wait_ready(orders, greeter, web, edge)
        mesh.wait_reached(web, "orders", "greeter")
        mesh.wait_reached(edge, "orders", "greeter")
        yield Shop(mesh=mesh, web=web, edge=edge)


@pytest.fixture(autouse=True)
def no_policy(shop: Shop) -> Iterator[None]:
    """Every test begins with none."""
    yield
    listed = json.loads(shop.mesh.done("get", "all", "-n", "shop", "-o", "json"))
    for one in listed:
        shop.mesh.done("delete", one["kind"], f"{one['namespace']}/{one['name']}", "--wait")


def policy(name: str, app: str, *callers: str, action: str = "ALLOW", **operation: list[str]) -> str:
    """An AuthorizationPolicy; JSON is YAML."""
    rule: dict[str, Any] = {"from": [{"source": {"principals": [f"mesh.local/ns/shop/sa/{one}" for one in callers]}}]}
    if operation:
        rule["to"] = [{"operation": operation}]
    return json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": app}}, "action": action, "rules": [rule]},
        }
    ) + "\n"  # fmt: skip


def code_of(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = call.code()
    return code


def test_without_a_policy_everything_is_denied(shop: Shop) -> None:
    """403 with a decision id; a gRPC caller hears PERMISSION_DENIED, and no rule is named to either."""
    answer = ask(shop.web.ports["orders"])
    assert answer.status == 403
    assert len(answer.headers["hauberk-decision-id"]) == 16
    assert json.loads(answer.body)["decision_id"] == answer.headers["hauberk-decision-id"]
    with Greeter(shop.web.ports["greeter"]) as greeter, pytest.raises(grpc.RpcError) as caught:
        greeter.echo(b"", timeout=10)
    assert code_of(caught.value) is grpc.StatusCode.PERMISSION_DENIED


def test_a_denial_can_be_found_in_the_log_with_its_rule(shop: Shop) -> None:
    """By the id the caller was given: the rule, both identities and the version of the policy."""
    shop.mesh.apply(policy("no-admin", "orders", "web", action="DENY", paths=["/admin*"]))
    decision = ask(shop.web.ports["orders"], "/admin/x").headers["hauberk-decision-id"]
    log = next(one for one in shop.mesh.processes if one.name == "orders")
    eventually(lambda: decision in log.log, 5, "the access log has the decision")
    line = json.loads(next(line for line in log.log.splitlines() if decision in line))
    assert line["source"] == "spiffe://mesh.local/ns/shop/sa/web"
    assert line["destination"] == "spiffe://mesh.local/ns/shop/sa/orders"
    assert "shop/no-admin" in line["rule"]
    assert line["snapshot"] > 0


def test_what_was_applied_and_waited_for_holds_for_the_next_request(shop: Shop) -> None:
    """Back and forth: no request after `apply --wait` meets the policy from before."""
    for _ in range(3):
        shop.mesh.apply(policy("orders", "orders", "web"))
        assert [ask(shop.web.ports["orders"]).status for _ in range(5)] == [200] * 5
        assert ask(shop.edge.ports["orders"]).status == 403
        shop.mesh.apply(policy("orders", "orders", "edge"))
        assert [ask(shop.web.ports["orders"]).status for _ in range(5)] == [403] * 5
        assert ask(shop.edge.ports["orders"]).status == 200


def test_a_rule_looks_at_method_and_path(shop: Shop) -> None:
    """And DENY goes before ALLOW."""
    shop.mesh.apply(
        policy("read", "orders", "web", methods=["GET"], paths=["/hello", "/echo/*"]),
        policy("secret", "orders", "web", action="DENY", paths=["/echo/secret*"]),
    )
    port = shop.web.ports["orders"]
    assert ask(port, "/hello").status == 200
    assert ask(port, "/hello", "POST", b"").status == 403
    assert ask(port, "/echo/a").status == 200
    assert ask(port, "/echo/secret").status == 403
    assert ask(port, "/echo/%73ecret").status in (400, 403)
    assert ask(port, "/echo/a/../secret").status in (400, 403)
    assert ask(port, "/octets/1").status == 403


def test_an_open_stream_ends_when_its_right_is_lost(shop: Shop) -> None:
    """Within a second of the change, with PERMISSION_DENIED; a stream whose caller keeps the right goes on."""
    shop.mesh.apply(policy("greeter", "greeter", "web", "edge"))
    ended: list[float] = []
    go_on = threading.Event()

    def words() -> Iterator[bytes]:
        yield b"hello"
        go_on.wait(30)
        yield b"still here"

    with Greeter(shop.web.ports["greeter"]) as one, Greeter(shop.edge.ports["greeter"]) as other:
        loses, keeps = one.chat(words(), timeout=30), other.chat(words(), timeout=30)
        assert (next(loses), next(keeps)) == (b"hello", b"hello")
        loses.add_callback(lambda: ended.append(time.monotonic()))
        shop.mesh.apply(policy("greeter", "greeter", "edge"))
        applied = time.monotonic()
        eventually(lambda: ended, 5, "the stream ended")
        go_on.set()
        assert ended[0] - applied < LOSS_S
        assert code_of(loses) is grpc.StatusCode.PERMISSION_DENIED
        assert list(keeps) == [b"still here"]


def test_explain_says_what_enforcement_does(shop: Shop) -> None:
    """The same evaluator: verdict, rule, and the nearest miss; `--check` makes it an exit code."""
    shop.mesh.apply(policy("orders", "orders", "web", methods=["GET"]))
    for caller, method, member in (("web", "GET", shop.web), ("web", "POST", shop.web), ("edge", "GET", shop.edge)):
        question = ["explain", "--from", f"shop/{caller}", "--to", "orders.shop", method, "/hello"]
        answer = json.loads(shop.mesh.done(*question, "-o", "json"))
        is_allowed = ask(member.ports["orders"], "/hello", method, b"" if method == "POST" else None).status == 200
        assert bool(answer.get("allowed")) is is_allowed is (caller == "web" and method == "GET")
        assert shop.mesh.hauberk(*question, "--check").returncode == (0 if is_allowed else 1)
        if is_allowed:
            assert answer["rule"] == "shop/orders#0"
        else:
            assert "shop/orders#0" in json.dumps(answer["near_misses"])


def test_a_wait_that_cannot_end_says_for_whom_it_waits(shop: Shop) -> None:
    """A sidecar that is stopped cannot take a policy: the change is stored, the command says who is missing."""
    pid = int(shop.edge.status["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        run = shop.mesh.hauberk("apply", "-f", "-", "--wait", "--timeout", "1s", text=policy("edge", "edge", "web"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert run.returncode == 1
    assert "edge" in run.stderr
    stored = json.loads(shop.mesh.done("get", "ap", "-n", "shop", "-o", "json"))
    assert [one["name"] for one in stored] == ["edge"]
