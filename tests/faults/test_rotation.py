"""Rotations of a 2-second certificate under load, without one failed request (security.md R05).

`HAUBERK_ROTATIONS=full` makes it 200 of each side; `test_rotations_under_load` has the other levels.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.e2e.clients import load
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Mesh, eventually

LIFETIME_S = 2
ROTATIONS = 200 if os.environ.get("HAUBERK_ROTATIONS") == "full" else 40
BOUND_S = 10 + ROTATIONS * 1.65
"""NotAfter is a whole second, so a 2-second certificate lives up to 3, and is renewed at half of that."""


def rotate(directory: Path, rotations: int, bound_s: float) -> None:
    with Mesh(directory, certificate_lifetime_s=LIFETIME_S) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        began = time.monotonic()
        with load(web.ports["orders"], kept=2, fresh=1, pause_s=0.02) as seen:
            # Whatever fails ends the wait: there is nothing to hope for then.
            eventually(
                lambda: seen.failed or orders.status.get("renewals", 0) >= rotations,
                bound_s,
                f"{rotations} rotations of the server's certificate",
            )
        took_s = time.monotonic() - began
        assert seen.failed == 0, (seen.counted, seen.failures)
        assert web.status["renewals"] >= rotations * 0.8
        assert seen.answered > took_s * 20
        assert orders.status["renewal_error"] == web.status["renewal_error"] == ""


def test_r05_ten_rotations_under_load_fail_no_request(tmp_path: Path) -> None:
    """The quick look; the long one is below."""
    rotate(tmp_path, 10, 40)


@pytest.mark.slow
@pytest.mark.timeout(BOUND_S + 60)
def test_r05_many_rotations_under_load_fail_no_request(tmp_path: Path) -> None:
    """Kept connections and new ones, GET and POST, while both ends change certificates about every second."""
    rotate(tmp_path, ROTATIONS, BOUND_S)
