"""Whoever may not join does not, hears why in one line, and changes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from certs.csr import make_csr
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import new_private_key
from protos.hauberk.v1 import admin_pb2, identity_pb2
from sidecar.config_load import load
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel, open_channel
from sidecar.identity.bootstrap import join, read_token
from sidecar.identity.join_port import Joined
from sidecar.net.tls import client_context
from tests.e2e.harness import Mesh, eventually

TD = TrustDomain.parse("mesh.local")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("joins")) as mesh:
        mesh.start_control_plane()
        yield mesh


def joins(mesh: Mesh, token: Path, service: str = "orders") -> tuple[int, str]:
    """Exit code and standard error of a job that needs to join with that token."""
    config, _ = mesh.configure(service, token=token)
    run = mesh.hauberk("run", "--config", str(config), "--", "true")
    return run.returncode, run.stderr


def refused(mesh: Mesh, token: Path, service: str = "orders") -> str:
    """The one line that says why; no workload was added."""
    before = mesh.workloads()
    code, said = joins(mesh, token, service)
    lines = [line for line in said.splitlines() if not line.startswith("{")]
    assert (code, len(lines)) == (1, 1), said
    assert "Traceback" not in said
    assert mesh.workloads() == before
    return lines[0]


def test_g_a_token_works_once(mesh: Mesh) -> None:
    """Whoever comes second with it is told so."""
    token = mesh.token("orders")
    assert joins(mesh, token)[0] == 0
    line = refused(mesh, token)
    assert "already" in line
    assert "hauberk token create" in line or "new token" in line


def test_g14_a_control_plane_with_another_anchor_is_not_told_the_token(mesh: Mesh) -> None:
    """The pin is not met: refused before anything is said, so the token with its true pin is still good."""
    token = mesh.token("orders")
    head, secret, pin, port = re.fullmatch(r"(hauberk1\.\w+)\.([\w-]+)\.([\w-]+)\.(\d+)\s*", token.read_text()).groups()  # type: ignore[union-attr]  # it is one
    forged = mesh.directory / "forged.token"
    forged.write_text(".".join([head, secret, ("B" if pin[0] == "A" else "A") + pin[1:], port]))
    line = refused(mesh, forged)
    assert "trust anchor" in line
    assert secret not in line
    assert joins(mesh, token)[0] == 0


def test_g_a_token_ends(mesh: Mesh) -> None:
    """After its time it is worth nothing."""
    token = mesh.token("orders", ttl_s=1)
    made = time.monotonic()
    eventually(lambda: time.monotonic() - made > 1.1, 5, "its second is over")
    assert "expired" in refused(mesh, token)


def test_g_a_wrong_secret_is_refused_and_does_not_spend_the_token(mesh: Mesh) -> None:
    """Guessing must not lock out its owner."""
    token = mesh.token("orders")
    parts = token.read_text().strip().split(".")
    forged = mesh.directory / "guessed.token"
    forged.write_text(".".join([*parts[:2], "A" * 22, *parts[3:]]))
    assert "A" * 22 not in refused(mesh, forged)
    assert joins(mesh, token)[0] == 0


@pytest.mark.parametrize(
    "content", ["", "hello", "hauberk1.0011223344556677.x.y.1", "hauberk2.a.b.c.1", "x" * 5_000, "\0\1", "h\u00fc"]
)
def test_what_is_no_token_is_refused_with_its_file(mesh: Mesh, content: str) -> None:
    """Without being repeated."""
    file = mesh.directory / "strange.token"
    file.write_text(content)
    line = refused(mesh, file)
    assert str(file) in line
    assert len(line) < 400


def test_a_token_file_that_is_not_there_is_named(mesh: Mesh) -> None:
    """With the reason of the operating system."""
    missing = mesh.directory / "missing.token"
    assert f"{missing}: No such file or directory" in refused(mesh, missing)


def test_a_token_of_another_service_does_not_fit(mesh: Mesh) -> None:
    """A sidecar configured for one service does not become another; both are named, and the token is still good."""
    token = mesh.token("billing")
    line = refused(mesh, token, "orders")
    assert "billing.shop" in line
    assert "orders.shop" in line
    assert joins(mesh, token, "billing")[0] == 0


def with_certificate(mesh: Mesh, service: str, use: object) -> None:
    """Joins as a sidecar does, then hands (Channel, Joined) to `use`."""
    config_file, _ = mesh.configure(service)
    config = load(str(config_file))

    async def main() -> None:
        joined = await join(config, read_token(config.join_token_file), time.time)
        async with open_channel(
            config.control_plane,
            client_context(joined.svid, joined.bundle),
            TD,
            SpiffeId.for_control_plane(TD),
            clock=time.time,
        ) as channel:
            await use(channel, joined)  # type: ignore[operator]  # an async function of the two

    trio.run(main)


@pytest.mark.parametrize(
    "other",
    [SpiffeId.for_workload(TD, "shop", "admin"), SpiffeId.for_control_plane(TD), SpiffeId.for_operator(TD, "eve")],
    ids=str,
)
def test_g_a_csr_that_names_somebody_else_is_refused(mesh: Mesh, other: SpiffeId) -> None:
    """A member of the mesh asks for another's certificate; then for its own, which it gets."""

    async def use(channel: Channel, joined: Joined) -> None:
        request = identity_pb2.RenewRequest(csr_der=make_csr(new_private_key(), other))
        with pytest.raises(RpcError) as caught:
            await channel.unary("/hauberk.v1.Identity/Renew", request, identity_pb2.SvidResponse, 10)
        assert "names somebody else; you are spiffe://mesh.local/ns/shop/sa/orders" in str(caught.value)
        request = identity_pb2.RenewRequest(csr_der=make_csr(new_private_key(), joined.svid.spiffe_id))
        answer = await channel.unary("/hauberk.v1.Identity/Renew", request, identity_pb2.SvidResponse, 10)
        assert answer.spiffe_id == str(joined.svid.spiffe_id)

    with_certificate(mesh, "orders", use)


def test_g_a_workload_is_no_operator(mesh: Mesh) -> None:
    """A certificate of the mesh makes no tokens and reads no status."""

    async def use(channel: Channel, _joined: Joined) -> None:
        request = admin_pb2.CreateTokenRequest(service="admin")
        with pytest.raises(RpcError) as caught:
            await channel.unary("/hauberk.v1.Admin/CreateToken", request, admin_pb2.CreateTokenResponse, 10)
        assert caught.value.status == 7  # PERMISSION_DENIED
        with pytest.raises(RpcError) as caught:
            await channel.unary("/hauberk.v1.Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse, 10)
        assert caught.value.status == 7

    with_certificate(mesh, "orders", use)
