"""One mesh for all interop tests: `web` calls, three services are called. Failed tests show the processes' logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.clients import Greeter
from tests.e2e.harness import ALLOW_ALL, GRPC_APP, UVICORN, WEB_APP, Inbound, Member, Mesh, eventually
from tests.e2e.reporting import pytest_runtest_makereport
from tests.interop.raw_app import RawApp

__all__ = ["pytest_runtest_makereport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    web: Member
    """Who calls."""
    orders: Member
    """uvicorn, HTTP/1.1."""
    raw: RawApp

    # Beside it: `greeter` (grpcio, HTTP/2), `local` (uvicorn on a unix socket), `raw` (`RawApp`).

    def port(self, service: str) -> int:
        """The local port at which `web` reaches it."""
        return self.web.ports[service]

    def eventually_idle(self, member: Member) -> None:
        """No exchange is left in a sidecar: what was abandoned was let go."""
        eventually(lambda: member.status["live_exchanges"] == 0, 10, f"{member.name} has no open exchange")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with RawApp() as raw, Mesh(tmp_path_factory.mktemp("shop")) as mesh:
        mesh.start_control_plane()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        greeter = mesh.run("greeter", GRPC_APP, inbound=[Inbound(9090, protocol="http2")])
        socket = mesh.directory / "app.sock"
        local = mesh.run("local", [*UVICORN, "--uds", str(socket)], inbound=[Inbound(8080, f"unix:{socket}")])
        handmade = mesh.sidecar("raw", inbound=[Inbound(8080, f"127.0.0.1:{raw.port}")])
        web = mesh.sidecar("web", calls={"orders": 8080, "greeter": 9090, "local": 8080, "raw": 8080})
        mesh.wait_ready(web, orders, greeter, local, handmade)
        mesh.apply(ALLOW_ALL)
        yield Shop(mesh=mesh, web=web, orders=orders, raw=raw)


@pytest.fixture(scope="session")
def greeter(shop: Shop) -> Iterator[Greeter]:
    with Greeter(shop.port("greeter")) as client:
        yield client
