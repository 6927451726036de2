"""The control plane's disk is full for a while, under load (R25). What it refuses meanwhile: `test_disk`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clients import load
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Mesh, eventually
from tests.faults.environment import fill_disk, free_disk

LIFETIME_S = 20
DENY_ALL = ALLOW_ALL.replace("ALLOW", "DENY").replace("everybody", "nobody")


@pytest.mark.slow
def test_r25_no_request_fails_while_the_control_planes_disk_is_full(tmp_path: Path) -> None:
    """Certificates are not renewed, for no record of it could be made; the held ones stay. With room again they are
    renewed before they end, and what was refused meanwhile can be done."""
    with Mesh(tmp_path, certificate_lifetime_s=LIFETIME_S) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        with load(web.ports["orders"], pause_s=0.01) as seen:
            eventually(lambda: seen.answered > 50, 10, "load flows")
            fill_disk(control_plane)
            renewals = orders.status["renewals"], web.status["renewals"]
            refused = mesh.hauberk("apply", "-f", "-", text=DENY_ALL)
            assert refused.returncode == 1
            assert "nothing was changed" in refused.stderr
            for one in (orders, web):
                eventually(lambda: one.status["renewal_error"], LIFETIME_S, "a renewal was refused")  # noqa: B023
                assert one.is_ready
                assert one.is_connected
            assert (orders.status["renewals"], web.status["renewals"]) == renewals
            free_disk(control_plane)
            for one, before in zip((orders, web), renewals, strict=True):
                eventually(lambda: one.status["renewals"] > before, LIFETIME_S / 2, "it is renewed")  # noqa: B023
            answered = seen.answered
            eventually(lambda: seen.failed or seen.answered > answered + 50, 10, "load flows")
            assert seen.failed == 0, (seen.counted, seen.failures)
        mesh.apply(DENY_ALL)
        assert control_plane.is_running
