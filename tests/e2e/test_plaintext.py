"""PeerAuthentication, applied: a service that has joined the mesh, and callers that have not. curl calls."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.clients import ask
from tests.e2e.harness import GRPC_APP, WEB_APP, Inbound, Member, Mesh, eventually
from tests.interop.test_curl import H2C, HTTP1, curl

CLOSED = (52, 56)
"""curl: empty reply, and failure in receiving."""

EVERYBODY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: shop}
spec: {action: ALLOW, rules: [{}]}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    mesh: Mesh
    web: Member
    orders: Member
    http1: int
    """Where orders takes plaintext."""
    h2c: int
    """Where greeter does."""

    def get(self, path: str = "/hello", *more: str) -> int:
        """Status of a GET without mTLS; 0: the connection was closed."""
        run = curl(
            *HTTP1,
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            *more,
            f"http://127.0.0.1:{self.http1}{path}",
        )
        assert run.returncode in (0, *CLOSED), run.stderr.decode()
        return int(run.stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Mesh(tmp_path_factory.mktemp("plaintext")) as mesh:
        mesh.start_control_plane()
        http1, h2c = mesh.free_port(), mesh.free_port()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080, plaintext=f"127.0.0.1:{http1}")])
        greeter = mesh.run("greeter", GRPC_APP, inbound=[Inbound(9090, protocol="http2", plaintext=f"127.0.0.1:{h2c}")])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, greeter, web)
        mesh.wait_reached(web, "orders")
        yield Shop(mesh=mesh, web=web, orders=orders, http1=http1, h2c=h2c)


@pytest.fixture(autouse=True)
def no_policy(shop: Shop) -> Iterator[None]:
    """Every test begins with none."""
    yield
    for one in json.loads(shop.mesh.done("get", "all", "-n", "shop", "-o", "json")):
        shop.mesh.done("delete", one["kind"], f"{one['namespace']}/{one['name']}", "--wait")


def peers(mode: str, port: int = 8080, **annotations: str) -> str:
    """A PeerAuthentication of one port of orders; JSON is YAML."""
    return json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {
                "name": "old-callers",
                "namespace": "shop",
                "annotations": {f"hauberk.dev/{name.replace('_', '-')}": text for name, text in annotations.items()},
            },
            "spec": {
                "selector": {"matchLabels": {"app": "orders"}},
                "mtls": {"mode": "STRICT"},
                "portLevelMtls": {str(port): {"mode": mode}},
            },
        }
    )


def test_plaintext_begins_and_ends_with_its_peer_authentication(shop: Shop) -> None:
    """Refused by default; taken once PERMISSIVE is applied; refused again once it is gone. Members never notice."""
    shop.mesh.apply(EVERYBODY)
    assert shop.get() == 0
    assert shop.orders.status["plaintext"] == {"8080": f"127.0.0.1:{shop.http1}"}
    shop.mesh.apply(peers("PERMISSIVE"))
    assert shop.get() == 200
    assert ask(shop.web.ports["orders"], "/hello").status == 200
    shop.mesh.done("delete", "PeerAuthentication", "shop/old-callers", "--wait")
    assert shop.get() == 0
    assert ask(shop.web.ports["orders"], "/hello").status == 200
    assert "plaintext connections are taken" in shop.orders.process.log
    assert "no PeerAuthentication makes the port PERMISSIVE or DISABLE" in shop.orders.process.log


def test_c24_policy_decides_about_plaintext_callers_too(shop: Shop) -> None:
    """No ALLOW policy: 403. One for members: 403. One for everybody: 200."""
    shop.mesh.apply(peers("PERMISSIVE"))
    assert shop.get() == 403
    shop.mesh.apply(EVERYBODY.replace("rules: [{}]", 'rules: [{from: [{source: {principals: ["*"]}}]}]'))
    assert shop.get() == 403
    shop.mesh.apply(EVERYBODY)
    assert shop.get() == 200


def test_only_from_where_and_until_when_it_says(shop: Shop) -> None:
    """The annotations `plaintext-from` and `plaintext-until`."""
    shop.mesh.apply(EVERYBODY, peers("PERMISSIVE", plaintext_from="127.0.0.2,10.0.0.0/8"))
    assert shop.get() == 0
    assert shop.get("/hello", "--interface", "127.0.0.2") == 200
    shop.mesh.apply(peers("PERMISSIVE", plaintext_until="2020-01-01T00:00:00Z"))
    assert shop.get() == 0


def test_a_download_in_plaintext_ends_within_a_second_of_strict(shop: Shop) -> None:
    """An endless answer breaks off when the port becomes STRICT."""
    shop.mesh.apply(EVERYBODY, peers("DISABLE"))
    download = shop.mesh.start("download", ["curl", "--silent", "--no-buffer", f"http://127.0.0.1:{shop.http1}/events"])
    eventually(lambda: download.log, 10, "the answer has begun")
    shop.mesh.apply(peers("STRICT"))
    applied = time.monotonic()
    assert download.wait(1.0) != 0
    assert time.monotonic() - applied <= 1.0
    eventually(lambda: shop.orders.status["live_exchanges"] == 0, 5, "nothing is open")


def test_grpc_in_plaintext(shop: Shop) -> None:
    """A port declared http2 takes HTTP/2 with prior knowledge, and nothing else."""
    document = peers("PERMISSIVE", port=9090).replace('"app": "orders"', '"app": "greeter"')
    shop.mesh.apply(EVERYBODY, document)
    url = f"http://127.0.0.1:{shop.h2c}/no.Such/Method"
    call = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-", "-D", "-", url]
    answer = curl(*H2C, *call, data=b"\0\0\0\0\0")
    assert answer.returncode == 0, answer.stderr.decode()
    assert b"grpc-status: 12" in answer.stdout  # from the app: it has no such method
    assert curl(*HTTP1, url).returncode in CLOSED
