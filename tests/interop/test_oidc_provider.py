"""A certified OpenID provider, which nobody here wrote: its discovery, its tokens, its keys as they come and go.

`oidc-provider` runs on Node.js (`tests/interop/oidc`); `make test` installs it. Through two sidecars each time.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.clients import ask
from tests.e2e.harness import WEB_APP, Inbound, Member, Mesh, eventually
from tests.sidecar.jwks.issuer import Authority

HERE = Path(__file__).parent / "oidc"
AUDIENCE = "https://orders.shop"
CALLERS = 8
REQUESTS_EACH = 40


class Provider:
    """The process, and what can be asked of it."""

    def __init__(self, directory: Path, port: int) -> None:
        node = shutil.which("node")
        assert node is not None, "the tests need Node.js 20 or newer: install it (https://nodejs.org) and try again"
        assert (HERE / "node_modules").is_dir(), "oidc-provider is not installed: run `make oidc`"
        self.authority = Authority(directory)
        self.issuer = f"https://localhost:{port}"
        self._command = [node, "provider.mjs", str(port), str(self.authority.certificate), str(self.authority.key)]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=HERE
        )
        assert self._says()["listening"] == self.issuer

    def stop(self) -> None:
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None
                process.stdin.close()  # it ends with its input
            self._process = None

    def _says(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and not line.startswith("{"):
            pass  # a notice of its own
        assert line, "oidc-provider ended; it needs Node.js 20 or newer"
        found: dict[str, Any] = json.loads(line)
        return found

    def do(self, command: str) -> dict[str, Any]:
        """`rotate`, `withdraw` or `count`; what it says after it."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._says()

    def token(self, audience: str = AUDIENCE) -> str:
        """A new access token, by client credentials."""
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        form = {"grant_type": "client_credentials", "resource": audience, "scope": "read"}
        with httpx.Client(verify=context, trust_env=False) as client:
            answer = client.post(f"{self.issuer}/token", data=form, auth=("ann", "not-a-secret"))
        return str(answer.raise_for_status().json()["access_token"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    mesh: Mesh
    provider: Provider
    web: Member
    orders: Member

    def status(self, token: str, service: str = "orders", path: str = "/hello") -> int:
        return ask(self.web.ports[service], path, headers={"authorization": f"Bearer {token}"}).status


def documents(service: str, issuer: str) -> list[str]:
    """Only users of the issuer, by the caller `web`; JSON is YAML."""
    selector = {"matchLabels": {"app": service}}
    source = {"principals": ["mesh.local/ns/shop/sa/web"], "requestPrincipals": [f"{issuer}/ann"]}
    rule = {
        "issuer": issuer,
        "audiences": [AUDIENCE],
        "outputClaimToHeaders": [{"header": "x-scope", "claim": "scope"}],
    }
    return [
        json.dumps({
            "apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": service, "namespace": "shop"},
            "spec": {"selector": selector, **spec},
        }) + "\n"
        for kind, spec in (
            ("RequestAuthentication", {"jwtRules": [rule]}),
            ("AuthorizationPolicy", {"action": "ALLOW", "rules": [{"from": [{"source": source}]}]}),
        )
    ]  # fmt: skip


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    with Mesh(tmp_path_factory.mktemp("users")) as mesh:
        provider = Provider(mesh.directory, mesh.free_port())
        try:
            mesh.start_control_plane()
            jwks = {"ca_file": str(provider.authority.ca_file), "allow_networks": ["127.0.0.0/8", "::1/128"]}
            orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], jwks=jwks)
            quick = mesh.run("quick", WEB_APP, inbound=[Inbound(8080)], jwks={**jwks, "refresh_s": 1})
            web = mesh.sidecar("web", calls={"orders": 8080, "quick": 8080, "late": 8080})
            mesh.wait_ready(orders, quick, web)
            mesh.apply(*(text for name in ("orders", "quick", "late") for text in documents(name, provider.issuer)))
            mesh.wait_reached(web, "orders", "quick")
            yield Users(mesh=mesh, provider=provider, web=web, orders=orders)
        finally:
            provider.stop()


def test_its_tokens_are_taken_by_discovery(users: Users) -> None:
    """The user is known to policy and, in a header, to the app; the token itself does not reach it."""
    token = users.provider.token()
    answer = ask(users.web.ports["orders"], "/echo", headers={"authorization": f"Bearer {token}", "x-scope": "admin"})
    assert answer.status == 200
    seen = json.loads(answer.body)["headers"]
    assert [value for name, value in seen if name == "x-scope"] == ["read"]
    assert not [name for name, _ in seen if name == "authorization"]
    (issuer,) = users.orders.status["token_issuers"]
    assert (issuer["keys_from"], issuer["has_keys"], issuer["error"]) == (users.provider.issuer, True, "")


def test_e11_e18_a_token_for_somebody_else_is_refused(users: Users) -> None:
    """The issuer is right, the audience is not; and who has no token is nobody."""
    assert users.status(users.provider.token("https://billing.shop")) == 401
    assert users.status(users.provider.token()[:-8]) == 401
    assert ask(users.web.ports["orders"], "/hello").status == 403


def test_keys_rotate_under_load_without_one_401(users: Users) -> None:
    """New tokens are signed with a key no sidecar has seen; old ones go on. One fetch is enough."""
    tokens = [users.provider.token()]
    before = users.provider.do("count")["counts"]["jwks"]
    statuses: list[int] = []

    async def call(client: httpx.AsyncClient) -> None:
        for number in range(REQUESTS_EACH):
            token = tokens[-1] if number % 2 else tokens[0]
            statuses.append((await client.get("/hello", headers={"authorization": f"Bearer {token}"})).status_code)

    async def rotate() -> None:
        while len(statuses) < CALLERS * REQUESTS_EACH // 4:
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(users.provider.do, "rotate")
        tokens.append(await trio.to_thread.run_sync(users.provider.token))

    async def main() -> None:
        base = f"http://127.0.0.1:{users.web.ports['orders']}"
        async with (
            httpx.AsyncClient(base_url=base, trust_env=False, timeout=20) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(rotate)
            for _ in range(CALLERS):
                nursery.start_soon(call, client)

    trio.run(main)
    assert statuses == [200] * CALLERS * REQUESTS_EACH
    assert users.status(tokens[-1]) == 200
    assert tokens[0].split(".")[0] != tokens[-1].split(".")[0]
    assert users.provider.do("count")["counts"]["jwks"] > before


def test_e22_a_key_that_was_withdrawn_is_refused_after_the_next_refresh(users: Users) -> None:
    """And what is signed with the one that stays is taken all the while."""
    old = users.provider.token()
    users.provider.do("rotate")
    new = users.provider.token()
    eventually(lambda: users.status(new, "quick") == 200, 5, "the new key is known")
    assert users.status(old, "quick") == 200
    users.provider.do("withdraw")
    eventually(lambda: users.status(old, "quick") == 401, 10, "the old key is gone")
    assert users.status(new, "quick") == 200


def test_e19_e20_while_the_issuer_is_away_known_keys_hold_and_nobody_else_enters(users: Users) -> None:
    """A sidecar that has keys goes on with them; one that starts without has none, and says 503."""
    token = users.provider.token()
    assert users.status(token, "quick") == 200
    users.provider.stop()
    assert users.status(token, "quick") == 200
    jwks = {"ca_file": str(users.provider.authority.ca_file), "allow_networks": ["127.0.0.0/8", "::1/128"]}
    late = users.mesh.run("late", WEB_APP, inbound=[Inbound(8080)], jwks=jwks)
    users.mesh.wait_ready(late)
    eventually(lambda: ask(users.web.ports["late"], "/hello").status == 403, 10, "it is reached, and nobody is denied")
    answer = ask(users.web.ports["late"], "/hello", headers={"authorization": f"Bearer {token}"})
    assert answer.status == 503
    assert json.loads(answer.body)["title"] == "The keys of the token's issuer are not available."
    assert users.status(token, "quick") == 200
    users.provider.start()
    fresh = users.provider.token()
    eventually(lambda: users.status(fresh, "late") == 200, 20, "the issuer is back, and so are its users")
