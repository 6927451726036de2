"""The control plane is away for an hour of its sidecars' time, which they live through in jumps (R03)."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.clients import outcome
from tests.e2e.harness import NAMESPACE, WEB_APP, Inbound, Member, Mesh, eventually
from tests.faults.environment import Machine
from tests.faults.operating import counter, renewals

HOUR_S = 3_600
STEP_S = 60
LIFETIME_S = 5_400
"""Its half falls into the hour, so that everybody tries to renew and cannot; its end does not."""
TRIES = 5
"""Of each kind, after each step."""
NOTICED_S = 15.0
BACK_S = 30.0


def allowed(path: str) -> str:
    """Of all callers only web, and only there."""
    source = f'{{principals: ["mesh.local/ns/{NAMESPACE}/sa/web"]}}'
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: web, namespace: {NAMESPACE}}}
spec: {{action: ALLOW, rules: [{{from: [{{source: {source}}}], to: [{{operation: {{paths: ["{path}"]}}}}]}}]}}
"""


def answers(web: Member, stranger: Member) -> Counter[tuple[str, str, int | str]]:
    """What is allowed, what is not, and who is not."""
    asked = [(web, "/hello"), (web, "/octets/10"), (stranger, "/hello")]
    return Counter(
        (one.name, path, outcome(one.ports["orders"], path)) for _ in range(TRIES) for one, path in asked
    )  # fmt: skip


@pytest.mark.slow
def test_r03_an_hour_without_control_plane_changes_nothing(tmp_path: Path) -> None:
    """Every request of it is answered as the policy says, with fresh connections and kept ones, though no certificate
    can be renewed. The metric says so within 15 s; back, everybody is connected within 30 s and hears of a change."""
    aging, rest = Machine(tmp_path, "aging", ages=True), Machine(tmp_path, "rest")
    environ = {**aging.environ, "FAKETIME_NO_CACHE": "1"}  # a jump is known at once
    with Mesh(tmp_path, certificate_lifetime_s=LIFETIME_S) as mesh:
        control_plane = mesh.start_control_plane(rest.environ)
        mesh.apply(allowed("/hello"))
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], environ=environ)
        web, stranger = (mesh.sidecar(name, calls={"orders": 8080}, environ=environ) for name in ("web", "stranger"))
        members = orders, web, stranger
        mesh.wait_ready(*members)
        mesh.wait_reached(web, "orders")
        mesh.wait_reached(stranger, "orders")
        right = Counter({
            ("web", "/hello", 200): TRIES, ("web", "/octets/10", 403): TRIES, ("stranger", "/hello", 403): TRIES
        })  # fmt: skip
        assert answers(web, stranger) == right
        facts = [(one.status["pid"], one.status["snapshot_version"]) for one in members]

        control_plane.kill()
        for one in members:
            eventually(lambda: counter(one, "hauberk_control_plane_connected") == 0, NOTICED_S, "the metric says it")  # noqa: B023
        for gone_s in range(STEP_S, HOUR_S + 1, STEP_S):
            aging.set(clock_s=gone_s)
            assert answers(web, stranger) == right, gone_s
            for one in members:
                assert one.is_ready, (one, gone_s)
                assert counter(one, "hauberk_control_plane_connected") == 0
        assert [(one.status["pid"], one.status["snapshot_version"]) for one in members] == facts
        for one in members:
            assert one.status["certificate_not_after"] > time.time() + HOUR_S
            assert "certificate renewal failed, the held certificate stays" in one.process.log, "it was due"
        assert renewals(members) == 0

        rest.set(clock_s=HOUR_S)
        mesh.start_control_plane(rest.environ)
        eventually(lambda: all(one.is_connected for one in members), BACK_S, "all are connected again")
        assert answers(web, stranger) == right
        mesh.apply(allowed("/octets/*"))
        assert [outcome(web.ports["orders"], path) for path in ("/hello", "/octets/10")] == [403, 200]
        assert [(one.status["pid"]) for one in members] == [pid for pid, _ in facts]
