"""The issuer of users' tokens is away for six hours (R28), because its name does not resolve (R27)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import ask
from tests.e2e.harness import WEB_APP, Inbound, Member, Mesh, eventually
from tests.faults.environment import CLOCK_KNOWN_S, Machine
from tests.sidecar.jwks.issuer import Authority
from tests.sidecar.jwks.tokens import SigningKey, key_set

HOUR_S = 3_600
STALE_S = 4 * HOUR_S
RETRY_S = 70
"""No retry is further away than 60 s and a tenth."""
TRIES = 10
ISSUER = "https://issuer.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    mesh: Mesh
    machine: Machine
    """Of the sidecar that verifies, and of nobody else."""
    orders: Member
    web: Member
    tokens: dict[str, str]
    """"": none."""

    def status(self, what: str) -> int:
        token = self.tokens[what]
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return ask(self.web.ports["orders"], "/hello", headers=headers).status

    def later(self, clock_s: int, **more: str) -> None:
        self.machine.set(clock_s=clock_s, **more)
        known = time.monotonic() + CLOCK_KNOWN_S
        eventually(lambda: time.monotonic() >= known, CLOCK_KNOWN_S + 1, "the clock is looked up")

    def assert_nobody_else(self) -> None:
        for what in self.tokens.keys() - {"ann"}:
            assert {self.status(what) for _ in range(TRIES)} <= {401, 403, 503}, what


@contextmanager
def issuer(authority: Authority, document: bytes) -> Iterator[int]:
    """Serves its keys by https. The port."""

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as server:
        server.socket = authority.server_context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def documents(keys_at: str) -> list[str]:
    selector = {"matchLabels": {"app": "orders"}}
    source = {"principals": ["mesh.local/ns/shop/sa/web"], "requestPrincipals": [f"{ISSUER}/ann"]}
    return [
        json.dumps({
            "apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"selector": selector, **spec},
        }) + "\n"
        for kind, spec in (
            ("RequestAuthentication", {"jwtRules": [{"issuer": ISSUER, "jwksUri": keys_at}]}),
            ("AuthorizationPolicy", {"action": "ALLOW", "rules": [{"from": [{"source": source}]}]}),
        )
    ]  # fmt: skip


@contextmanager
def users(directory: Path) -> Iterator[Users]:
    key, thief, now = SigningKey(), SigningKey(), time.time()
    claims: dict[str, Any] = {"iss": ISSUER, "sub": "ann", "iat": now, "exp": now + 24 * HOUR_S}
    tokens = {"": "", "ann": key.token(**claims), "forged": thief.token(**claims),
              "ended": key.token(**{**claims, "exp": now - HOUR_S})}  # fmt: skip
    authority = Authority(directory, "issuer.test", hours=24)
    machine = Machine(directory, ages=True)
    with issuer(authority, key_set(key).encode()) as port, Mesh(directory, certificate_lifetime_s=86_400) as mesh:
        mesh.start_control_plane()
        jwks = {"ca_file": str(authority.ca_file), "allow_networks": ["127.0.0.0/8"], "stale_s": STALE_S}
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], jwks=jwks, environ=machine.environ)
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        mesh.apply(*documents(f"{ISSUER}:{port}/keys"))
        mesh.wait_reached(web, "orders")
        yield Users(mesh=mesh, machine=machine, orders=orders, web=web, tokens=tokens)


@pytest.mark.slow
def test_r27_r28_an_issuer_is_away_for_six_hours(tmp_path: Path) -> None:
    """Its keys hold for as long as they may, four hours here, then its users are told 503; nobody gets in without a
    token, or with one that is not good, at any time. Back, it serves its users without a restart."""
    with users(tmp_path) as here:
        eventually(lambda: here.status("ann") == 200, 10, "the keys are here")
        here.assert_nobody_else()
        for clock_s, status in ((HOUR_S, 200), (STALE_S - 120, 200), (STALE_S + 120, 503), (6 * HOUR_S, 503)):
            here.later(clock_s, dns="fails")
            eventually(lambda: here.status("ann") == status, 5, f"{status} after {clock_s} s")  # noqa: B023
            assert {here.status("ann") for _ in range(TRIES)} == {status}
            here.assert_nobody_else()
        (source,) = here.orders.status["token_issuers"]
        assert not source["has_keys"]
        assert "cannot be reached" in source["error"]
        here.later(6 * HOUR_S + RETRY_S)
        eventually(lambda: here.status("ann") == 200, 10, "the issuer is back, and so are its users")
        here.assert_nobody_else()
        assert here.orders.process.is_running
