"""The names the sidecars are configured with do not resolve, or do now and then (R27)."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.clients import load
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Mesh, eventually
from tests.faults.environment import Machine

BACK_S = 30.0
FLAPS = 12
DENY_ALL = ALLOW_ALL.replace("ALLOW", "DENY").replace("everybody", "nobody")


def test_r27_without_names_everybody_goes_on_with_the_endpoints_they_know(tmp_path: Path) -> None:
    """The control plane is restarted while its name does not resolve, then while it does now and then: nobody reaches
    it, nobody ends, no request fails. When the name resolves all are back, and do what is applied then."""
    machine = Machine(tmp_path)
    with Mesh(tmp_path, certificate_lifetime_s=600) as mesh:
        control_plane = mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        name = f"control.test:{mesh.listen}"
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], control_plane=name, environ=machine.environ)
        web = mesh.sidecar("web", calls={"orders": 8080}, control_plane=name, environ=machine.environ)
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        with load(web.ports["orders"], pause_s=0.01) as seen:
            eventually(lambda: seen.answered > 50, 10, "load flows")
            machine.set(dns="fails")
            control_plane.kill()
            mesh.start_control_plane()
            for member in (orders, web):
                member.process.wait_log("Name or service not known")
            for flap in range(FLAPS):
                machine.set(dns="works" if flap % 2 else "fails")
                answered = seen.answered
                eventually(lambda: seen.failed or seen.answered > answered + 20, 10, "load flows")  # noqa: B023
            machine.set(dns="works")
            eventually(lambda: web.is_connected and orders.is_connected, BACK_S, "both are connected")
            answered = seen.answered
            eventually(lambda: seen.failed or seen.answered > answered + 50, 10, "load flows")
            assert seen.failed == 0, (seen.counted, seen.failures)
        assert all(one.process.is_running and one.is_ready for one in (orders, web))
        mesh.apply(DENY_ALL)
        with load(web.ports["orders"]) as seen:
            eventually(lambda: seen.counted[403], 10, "what was applied since holds")
            assert not seen.answered
