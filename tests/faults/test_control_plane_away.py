"""The control plane is killed, stays away, comes back: what goes on, stops, recovers (security.md R01 to R09)."""

from __future__ import annotations

import time
from pathlib import Path

from protos.hauberk.v1.admin_pb2 import StatusRequest, StatusResponse
from tests.e2e.clients import Wire, load, outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Mesh, eventually
from tests.faults.operating import counter

AWAY_S = 6.0
BACK_S = 10.0
ARRIVAL_S = 5.0
RETURN_S = 30.0
LIFETIME_S = 6
EXACT_S = 0.1
"""Off a certificate's end, either way."""
DENY_ALL = ALLOW_ALL.replace("ALLOW", "DENY").replace("everybody", "nobody")


def test_r03_killed_under_load_it_is_not_missed_and_back_it_is_heard(tmp_path: Path) -> None:
    """No failed request while it is away, and the metric says so; the policy of before is in force; everybody is
    connected again within 10 s of its return, without a restart; a policy applied then takes effect; and the registry
    was not emptied by the restart."""
    with Mesh(tmp_path, certificate_lifetime_s=60) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        pids = orders.status["pid"], web.status["pid"]
        with load(web.ports["orders"], pause_s=0.01) as seen:
            eventually(lambda: seen.answered > 50, 10, "load flows")
            control_plane.kill()
            killed = time.monotonic()
            eventually(lambda: not (web.is_connected or orders.is_connected), 5, "the sidecars notice")
            versions = orders.status["snapshot_version"], web.status["snapshot_version"]
            for one in (web, orders):
                assert one.is_ready
                assert counter(one, "hauberk_control_plane_connected") == 0
            eventually(lambda: seen.failed or time.monotonic() - killed > AWAY_S, AWAY_S + 5, "it stays away")
            assert (orders.status["snapshot_version"], web.status["snapshot_version"]) == versions
            answered = seen.answered
            mesh.start_control_plane()
            eventually(lambda: web.is_connected and orders.is_connected, BACK_S, "both are connected again")
            eventually(lambda: seen.failed or seen.answered > answered + 100, 10, "load still flows")
            assert seen.failed == 0, (seen.counted, seen.failures)
        assert (orders.status["pid"], web.status["pid"]) == pids
        mesh.apply(DENY_ALL)
        assert outcome(web.ports["orders"]) == 403
        assert {one["service"] for one in mesh.workloads() if one.get("connected")} == {"orders", "web"}


def test_r04_away_past_the_certificates_end_nothing_is_answered_any_more(tmp_path: Path) -> None:
    """Every request is answered right up to the end of the first certificate. Fail closed with 503, and not ready, from
    that moment on. With the control plane back everybody is at work again within 30 s, by the node key, in the same
    processes and without a token."""
    with Mesh(tmp_path, certificate_lifetime_s=LIFETIME_S) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        control_plane.kill()
        ends = [float(one.status["certificate_not_after"]) for one in (web, orders)]
        asked: list[tuple[float, int | str, float]] = []

        def asks() -> bool:
            began = time.time()
            asked.append((began, outcome(web.ports["orders"]), time.time()))
            return began > max(ends) + 2 * EXACT_S

        eventually(asks, LIFETIME_S + 5, "the last certificate has ended")
        assert [one.status["certificate_not_after"] for one in (web, orders)] == ends
        assert {what for _, what, answered in asked if answered < min(ends) - EXACT_S} == {200}
        assert {what for began, what, _ in asked if began > min(ends) + EXACT_S} == {503}
        assert max(answered for _, what, answered in asked if what == 200) > min(ends) - 1
        eventually(lambda: not (web.is_ready or orders.is_ready), 2, "both say that they are not ready")
        assert web.page("/ready") == (503, "certificate_valid\n")
        assert web.page("/live")[0] == 200
        web.process.wait_log("the held certificate has expired")
        pids = orders.status["pid"], web.status["pid"]
        mesh.start_control_plane()
        eventually(lambda: outcome(web.ports["orders"]) == 200, RETURN_S, "it works again")
        eventually(lambda: orders.is_ready and web.is_ready, 2, "both say so")
        assert (orders.status["pid"], web.status["pid"]) == pids
        assert min(orders.status["rejoins"], web.status["rejoins"]) >= 1


def test_r04_a_connection_that_is_open_does_not_outlive_its_certificate(tmp_path: Path) -> None:
    """What is being streamed is broken off when the certificate ends: a kept connection is no way around expiry."""
    with Mesh(tmp_path, certificate_lifetime_s=3) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        with Wire(web.ports["orders"]) as wire:
            wire.send(b"GET /events HTTP/1.1\r\nhost: orders\r\n\r\n")
            wire.until(b"data: 0")
            control_plane.kill()
            expires = max(web.status["certificate_not_after"], orders.status["certificate_not_after"])
            assert not wire.rest().endswith(b"0\r\n\r\n")
            assert time.time() < expires + 2


def test_r01_away_at_the_start_nothing_passes_until_it_is_there(tmp_path: Path) -> None:
    """Not ready, 503 for all callers, nothing forwarded, the app not started; ready within 5 s of its arrival."""
    with Mesh(tmp_path) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        tokens = mesh.token("orders"), mesh.token("web")
        control_plane.kill()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], token=tokens[0])
        web = mesh.sidecar("web", calls={"orders": 8080}, token=tokens[1])
        for member in (orders, web):
            member.process.wait_log("cannot reach the control plane")
        assert web.page("/ready")[0] == 503
        assert {outcome(web.ports["orders"]) for _ in range(50)} == {503}
        assert outcome(orders.app) == "ConnectionRefusedError"
        opened = [
            line for line in web.page("/metrics")[1].splitlines() if line.startswith("hauberk_connections_opened")
        ]
        assert opened
        assert not [line for line in opened if "client" in line], "no connection over which a byte could have gone"
        mesh.start_control_plane()
        eventually(lambda: orders.process.is_running and web.is_ready, ARRIVAL_S, "the sidecar is ready")
        eventually(lambda: orders.is_ready, BACK_S, "so is the app beside the other")
        eventually(lambda: outcome(web.ports["orders"]) == 200, 5, "and requests pass")


def test_r09_restarts_in_a_row_under_rotation_lose_nothing(tmp_path: Path) -> None:
    """Killed again and again while 6-second certificates rotate: no failed request, no new root."""
    with Mesh(tmp_path, certificate_lifetime_s=6) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        root = mesh.operator("Admin/Status", StatusRequest(), StatusResponse).anchor_sha256
        with load(web.ports["orders"], pause_s=0.02) as seen:
            for _ in range(3):
                renewals = orders.status["renewals"] + web.status["renewals"]
                control_plane.kill()
                control_plane = mesh.start_control_plane()
                eventually(
                    lambda: seen.failed or orders.status["renewals"] + web.status["renewals"] >= renewals + 2,  # noqa: B023
                    20,
                    "both renew after it is back",
                )
            assert seen.failed == 0, (seen.counted, seen.failures)
        assert mesh.operator("Admin/Status", StatusRequest(), StatusResponse).anchor_sha256 == root
