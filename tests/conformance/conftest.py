"""One mesh for all conformance tests: per engine a service, a caller of it, and a sidecar whose app is h2specd."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import trio

from sidecar.config_load import load
from sidecar.identity.bootstrap import join, read_token
from sidecar.identity.join_port import Joined
from tests.e2e.clients import outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Mesh, eventually
from tests.e2e.reporting import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

CLIENT_CASES = 57
PATH = "/echo"
"""Answers any method, with a body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One engine in its processes."""

    outbound_port: int
    """Where an app speaks plaintext to it."""
    mesh_port: int
    """Where another sidecar speaks mutual TLS to it."""
    cases_mesh_port: int
    """The same, of the sidecar whose app is h2specd."""


class Stage:
    """The mesh, whose sidecars of an engine are started when its first test asks for them."""

    def __init__(self, mesh: Mesh, cases_from: int) -> None:
        self._mesh = mesh
        self.cases_from = cases_from
        """The first of CLIENT_CASES ports in a row, free for h2specd, and the ports of that app."""
        self._sides: dict[str, Side] = {}
        mesh.start_control_plane()
        self._app = mesh.free_port()
        mesh.start("app", [word.replace("{port}", str(self._app)) for word in WEB_APP])
        eventually(lambda: outcome(self._app) == 200, 30, "the app answers")
        mesh.apply(ALLOW_ALL)
        self.joined = join_as("tester", mesh)
        """What a workload has who calls the mesh ports."""

    def side(self, engine: str) -> Side:
        if engine not in self._sides:
            self._sides[engine] = self._start(engine)
        return self._sides[engine]

    def _start(self, engine: str) -> Side:
        mesh = self._mesh
        mesh_port, cases_mesh_port = mesh.free_port(), mesh.free_port()
        # A sidecar looks whether all ports of its app are open, in this order. The first never is, so that h2specd,
        # which takes every connection for its case, is not looked at; the mesh port is open all the same.
        unheard = Inbound(8080, f"127.0.0.1:{mesh.free_port()}")
        ports = range(self.cases_from, self.cases_from + CLIENT_CASES)
        h2specd = [Inbound(port, f"127.0.0.1:{port}", "http2") for port in ports]
        orders = mesh.sidecar(
            f"orders-{engine}",
            inbound=[Inbound(8080, f"127.0.0.1:{self._app}")],
            mesh_listen=f"127.0.0.1:{mesh_port}",
            http2_engine=engine,
        )
        cases = mesh.sidecar(
            f"cases-{engine}",
            inbound=[unheard, *h2specd],
            mesh_listen=f"127.0.0.1:{cases_mesh_port}",
            http2_engine=engine,
        )
        web = mesh.sidecar(f"web-{engine}", calls={orders.name: 8080}, http2_engine=engine)
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, orders.name)
        eventually(lambda: cases.page("/ready")[1] == "app\n", 30, f"{cases.name} waits for nothing but its app")
        return Side(outbound_port=web.ports[orders.name], mesh_port=mesh_port, cases_mesh_port=cases_mesh_port)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as held, Mesh(tmp_path_factory.mktemp("conformance")) as mesh:
        yield Stage(mesh, ports_in_a_row(CLIENT_CASES, held))


def join_as(service: str, mesh: Mesh) -> Joined:
    """What a sidecar of that service would get."""
    config = load(str(mesh.configure(service)[0]))
    return trio.run(join, config, read_token(config.join_token_file), time.time)


def ports_in_a_row(count: int, held: ExitStack) -> int:
    """The first of `count` free ports, bound here without listening, as in `Mesh.free_port`.

    Below the range from which the kernel chooses ports for those who ask for any."""
    for first in range(20_000, 32_000, count):
        with ExitStack() as row:
            try:
                for port in range(first, first + count):
                    sock = row.enter_context(socket.socket())
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            held.enter_context(row.pop_all())
            return first
    raise AssertionError(f"no {count} free ports in a row")
