"""A sidecar is stopped or killed and started again: what it needs, and what it does without (R02, R15, J09)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.e2e.clients import outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh, eventually

NOWHERE = Path("/nonexistent/token")
CACHE_S = 2.0
STARTING_S = 3.0
"""What two Python processes may take on a machine that is busy, before anything of ours runs."""


def started(mesh: Mesh, tmp_path: Path, **more: Any) -> tuple[Member, Member]:
    """orders and web, each with a state directory; web calls orders. `more`: of web's configuration."""
    orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], state_dir=str(tmp_path / "orders-state"))
    web = mesh.sidecar("web", calls={"orders": 8080}, state_dir=str(tmp_path / "web-state"), **more)
    mesh.wait_ready(orders, web)
    mesh.wait_reached(web, "orders")
    assert outcome(web.ports["orders"]) == 200
    return orders, web


def again(mesh: Mesh, tmp_path: Path, **more: Any) -> Member:
    """web, started once more, without a token."""
    return mesh.sidecar("web", calls={"orders": 8080}, token=NOWHERE, state_dir=str(tmp_path / "web-state"), **more)


def test_r15_a_killed_sidecar_with_a_state_dir_is_back_without_a_token(tmp_path: Path) -> None:
    """kill -9, a restart without any token: the same identity, a certificate of its own, and requests pass."""
    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        _, web = started(mesh, tmp_path)
        before = web.status
        web.process.kill()
        web = again(mesh, tmp_path)
        mesh.wait_ready(web)
        eventually(lambda: outcome(web.ports["orders"]) == 200, 10, "requests pass")
        assert web.status["spiffe_id"] == before["spiffe_id"]
        assert web.status["node_id"] == before["node_id"]
        assert web.status["certificate_serial"] != before["certificate_serial"]
        assert not web.status["stale"]
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "web-state").iterdir()}
        assert modes == {"node.key": 0o600, "node.json": 0o600}
        other = mesh.sidecar("other", service="web", token=NOWHERE, state_dir=str(tmp_path / "web-state"))
        assert other.process.wait() == 1
        assert "another sidecar uses it" in other.process.log


def test_r02_with_a_cache_it_serves_within_two_seconds_while_the_control_plane_is_away(tmp_path: Path) -> None:
    """From the cache, flagged as stale in status and metrics, and no longer than its certificate; with the control
    plane back it is stale no more."""
    with Mesh(tmp_path) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        _, web = started(mesh, tmp_path, cache=True)
        cache = tmp_path / "web-state" / "cache"
        eventually(cache.exists, 10, "the cache is written")
        before = web.status
        web.process.stop()
        control_plane.kill()
        web = again(mesh, tmp_path, cache=True)
        web.process.wait_log("certificate taken from the cache")
        taken = time.monotonic()
        eventually(lambda: web.is_ready, CACHE_S + STARTING_S, "it is ready")
        assert time.monotonic() - taken < CACHE_S + STARTING_S
        assert outcome(web.ports["orders"]) == 200
        assert web.status["stale"]
        assert "\nhauberk_stale 1" in web.page("/metrics")[1]
        assert web.status["certificate_serial"] == before["certificate_serial"]
        assert web.status["certificate_not_after"] == before["certificate_not_after"]
        mesh.start_control_plane()
        eventually(lambda: web.is_connected and not web.status["stale"], 15, "the control plane is heard of again")


def test_r02_what_is_cached_is_not_served_beyond_the_certificates_end(tmp_path: Path) -> None:
    """A cache whose certificate has ended is no way in; one that ends while it serves stops serving."""
    with Mesh(tmp_path, certificate_lifetime_s=8) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        _, web = started(mesh, tmp_path, cache=True)
        eventually((tmp_path / "web-state" / "cache").exists, 10, "the cache is written")
        web.process.stop()
        control_plane.kill()
        web = again(mesh, tmp_path, cache=True)
        eventually(lambda: web.page("/ready")[0], 10, "it answers")
        eventually(lambda: web.page("/ready")[1].startswith("certificate_valid"), 15, "its certificate has ended")
        assert outcome(web.ports["orders"]) == 503
        assert web.page("/ready")[0] == 503
        web.process.kill()
        web = again(mesh, tmp_path, cache=True)
        web.process.wait_log("the cache in state_dir is ignored")
        assert outcome(web.ports["orders"]) == 503
        mesh.start_control_plane()
        eventually(lambda: outcome(web.ports["orders"]) == 200, 30, "the node key brings it back")


def test_j09_a_cache_that_was_altered_or_is_anothers_is_ignored_and_denied(tmp_path: Path) -> None:
    """J09: one flipped bit, or the cache of another sidecar in its place: no certificate, not ready, 503."""
    with Mesh(tmp_path) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        _, web = started(mesh, tmp_path, cache=True)
        billing = mesh.sidecar("billing", state_dir=str(tmp_path / "billing-state"), cache=True)
        mesh.wait_ready(billing)
        cache = tmp_path / "web-state" / "cache"
        foreign = tmp_path / "billing-state" / "cache"
        eventually(lambda: cache.exists() and foreign.exists(), 10, "the caches are written")
        web.process.stop()
        billing.process.stop()
        control_plane.kill()
        whole = cache.read_bytes()
        middle = len(whole) // 2
        altered = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for content in (altered, foreign.read_bytes()):
            cache.write_bytes(content)
            web = again(mesh, tmp_path, cache=True)
            web.process.wait_log("the cache in state_dir is ignored")
            web.process.wait_log("cannot reach the control plane")
            assert web.page("/ready")[0] == 503
            assert outcome(web.ports["orders"]) == 503
            assert web.status["certificate_not_after"] is None
            web.process.stop()
