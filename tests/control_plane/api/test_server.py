"""What must hold for every call: who may come in by which port, what is refused, and what a refusal tells."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
import struct
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived

from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid, new_private_key
from control_plane import tokens
from control_plane.api.server import short
from protos.hauberk.v1 import admin_pb2, config_pb2, discovery_pb2
from tests.control_plane.support import (
    TD,
    Mesh,
    Rpc,
    asyncio_test,
    client_context,
    open_ca,
    policy_yaml,
    refusal,
    running,
    watching,
)

OPERATOR_CALLS: list[tuple[str, Any]] = [
    ("Admin/CreateToken", admin_pb2.CreateTokenRequest(service="x")),
    ("Admin/Status", admin_pb2.StatusRequest()),
    ("Config/Apply", config_pb2.ApplyRequest()),
    ("Config/Get", config_pb2.GetRequest()),
    ("Config/List", config_pb2.ListRequest()),
    ("Config/Delete", config_pb2.DeleteRequest()),
    ("Config/Explain", config_pb2.ExplainRequest()),
]


def issued(mesh: Mesh, identity: SpiffeId, lifetime_s: float = 60.0) -> X509Svid:
    """A certificate of the mesh's own CA for anybody, past every check of the API."""
    now, key = time.time(), new_private_key()
    svid = mesh.certificate_authority(now).issue_for_key(identity, key.public_key(), lifetime_s, now)
    return X509Svid.of(svid.chain_der, key, identity.trust_domain, now)


async def health(rpc: Rpc) -> str:
    stub = rpc.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    response = await stub(health_pb2.HealthCheckRequest(), timeout=10)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


async def reflected(rpc: Rpc) -> list[str]:
    stub = rpc.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = stub(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answers = [answer async for answer in call]
    return [service.name for answer in answers for service in answer.list_services_response.service]


@asyncio_test
async def test_g19_a_workload_may_not_do_what_an_operator_does(tmp_path: Path) -> None:
    """Not one of the methods; and nothing happened."""
    async with running(tmp_path) as mesh, mesh.as_member(await mesh.join()) as rpc:
        for method, request in OPERATOR_CALLS:
            status, details = await refusal(rpc.call(method, request, admin_pb2.StatusResponse))
            assert status == "PERMISSION_DENIED"
            assert details.startswith("spiffe://mesh.local/ns/shop/sa/orders may not call")


@asyncio_test
async def test_a_remote_operator_may_with_a_certificate_that_says_so(tmp_path: Path) -> None:
    """And is named in what it applies. Watching and renewing are not for it."""
    async with running(tmp_path) as mesh, mesh.as_member(issued(mesh, SpiffeId.for_operator(TD, "ann"))) as rpc:
        await rpc.apply(policy_yaml())
        request = config_pb2.GetRequest(kind="AuthorizationPolicy", namespace="shop", name="orders")
        resource = (await rpc.call("Config/Get", request, config_pb2.GetResponse)).resource
        watcher = await watching(rpc)
        assert (await watcher.end())[0] == "PERMISSION_DENIED"
    assert resource.applied_by == "spiffe://mesh.local/hauberk/operator/ann"


@pytest.mark.parametrize("path", ["/hauberk/control-plane", "/hauberk/else", "/ns/shop", "/ns/shop/sa/web/x"])
def test_g15_an_identity_that_is_neither_workload_nor_operator_may_call_nothing(tmp_path: Path, path: str) -> None:
    """Not even the control plane's own: whoever calls with it has stolen it."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path) as mesh:
            svid = issued(mesh, SpiffeId.parse(f"spiffe://mesh.local{path}"))
            async with mesh.as_member(svid) as rpc:
                status, details = await refusal(rpc.status())
                assert status == "PERMISSION_DENIED"
                assert "no workload and no operator" in details

    main()


@asyncio_test
async def test_a_workload_nobody_joined_as_is_refused(tmp_path: Path) -> None:
    """Its certificate is of our CA, but not on record."""
    async with running(tmp_path) as mesh, mesh.as_member(issued(mesh, SpiffeId.for_workload(TD, "a", "b"))) as rpc:
        watcher = await watching(rpc)
        status, details = await watcher.end()
    assert status == "PERMISSION_DENIED"
    assert "join with a new token" in details


@asyncio_test
async def test_g17_without_a_certificate_nothing_is_read(tmp_path: Path) -> None:
    """The handshake fails; neither is one of a foreign CA taken. The server stays."""
    now, key = time.time(), new_private_key()
    foreign_ca = open_ca(tmp_path / "other", now)
    identity = SpiffeId.for_operator(TD, "mallory")
    made = foreign_ca.issue_for_key(identity, key.public_key(), 60, now)
    foreign = X509Svid.of(made.chain_der, key, TD, now)
    async with running(tmp_path) as mesh:
        for svid in (None, foreign):
            context = client_context(mesh.config.data_dir, svid, tmp_path)
            address = mesh.addresses.listen
            # TLS 1.3: the client learns of the refusal with its first read.
            with pytest.raises(OSError, match=r"(?i)alert|reset|closed|broken"):
                await asyncio.to_thread(_handshake_and_read, address.host, address.port, context)
        async with mesh.as_member(await mesh.join()) as rpc:
            assert await health(rpc) == "SERVING"


def _handshake_and_read(host: str, port: int, context: ssl.SSLContext) -> None:
    with socket.create_connection((host, port), timeout=10) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        while octets := tls.recv(4_096):
            assert b"hauberk" not in octets
        raise ConnectionResetError("closed without a word")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"A" * 70_000,
        b"PRI * HTTP/2.0\r\n",
    ],
    ids=["zeros", "http", "huge record", "plaintext h2"],
)
def test_g17_garbage_on_either_port_hurts_nobody(tmp_path: Path, garbage: bytes) -> None:
    """The connection ends, the next caller is served."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path) as mesh:
            for address in (mesh.addresses.listen, mesh.addresses.join_listen):
                answer = await asyncio.to_thread(_say, address.host, address.port, garbage)
                assert b"hauberk" not in answer
            async with mesh.as_member(await mesh.join()) as rpc:
                assert await health(rpc) == "SERVING"

    main()


def _say(host: str, port: int, octets: bytes) -> bytes:
    """What comes back, until the other side has had enough."""
    answer = b""
    with socket.create_connection((host, port), timeout=10) as connection:
        try:
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65_536):
                answer += more
        except TimeoutError:
            raise
        except OSError:
            pass  # it hung up while we were still talking
    return answer


@asyncio_test
async def test_a_message_that_is_none_is_refused_after_the_caller_is_known(tmp_path: Path) -> None:
    """A workload learns nothing about an operator's parser; an operator is told which message was expected."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.as_member(await mesh.join()) as rpc:
        for caller, wanted in ((rpc, "PERMISSION_DENIED"), (operator, "INVALID_ARGUMENT")):
            stub = caller.channel.unary_unary("/hauberk.v1.Config/Apply")
            status, details = await refusal(stub(b"\xff\xff\xff", timeout=10))
            assert status == wanted
        assert details == "the message is not a hauberk.v1.ApplyRequest"


@asyncio_test
async def test_a_message_larger_than_four_mebibytes_is_refused(tmp_path: Path) -> None:
    """By gRPC, before it is here as a whole."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        status, _ = await refusal(operator.apply(*["#" * 1_000_000] * 5))
        assert status == "RESOURCE_EXHAUSTED"
        assert await health(operator) == "SERVING"


@asyncio_test
async def test_g26_a_method_nobody_serves_is_unimplemented_for_everybody(tmp_path: Path) -> None:
    """Before anything else is asked."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.as_member(await mesh.join()) as rpc:
        for caller in (operator, rpc):
            for path in ("/hauberk.v1.Admin/Shutdown", "/hauberk.v1.admin/Status", "/x/Y", "/"):
                status, _ = await refusal(caller.channel.unary_unary(path)(b"", timeout=10))
                assert status == "UNIMPLEMENTED", path


@pytest.mark.parametrize(
    "path", ["hauberk.v1.Admin/Status", "hauberk.v1.Admin/CreateToken", "*", "//hauberk.v1.Admin/Status"]
)
def test_g26_a_path_without_its_slash_reaches_no_method(tmp_path: Path, path: str) -> None:
    """CVE-2026-33186: a path the router takes and the authorizer does not know. Sent by h2, since grpcio will not."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path) as mesh:
            status = await asyncio.to_thread(_raw_call, str(mesh.addresses.operator_socket), path)
            assert status == "12"

    main()


def _raw_call(socket_path: str, path: str) -> str:
    """gRPC status of an empty unary call to `path`, whatever that is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(socket_path)
        h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        h2.initiate_connection()
        head = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        h2.send_headers(1, [*head.items(), ("te", "trailers"), ("content-type", "application/grpc")])
        h2.send_data(1, struct.pack(">BI", 0, 0), end_stream=True)
        connection.sendall(h2.data_to_send())
        while octets := connection.recv(65_536):
            for event in h2.receive_data(octets):
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    fields = {bytes(name): bytes(value) for name, value in event.headers or ()}
                    if b"grpc-status" in fields:
                        return fields[b"grpc-status"].decode()
            connection.sendall(h2.data_to_send())
    raise AssertionError("the connection ended without a status")


@asyncio_test
async def test_health_is_for_members_and_reflection_for_operators(tmp_path: Path) -> None:
    """Both are on; strangers have neither."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.as_member(await mesh.join()) as rpc:
        assert [await health(operator), await health(rpc)] == ["SERVING", "SERVING"]
        services = await reflected(operator)
        assert {"hauberk.v1.Admin", "hauberk.v1.Config", "hauberk.v1.Discovery", "hauberk.v1.Identity"} <= set(services)
        assert (await refusal(reflected(rpc)))[0] == "PERMISSION_DENIED"
        async with mesh.anonymous() as stranger:
            assert (await refusal(health(stranger)))[0] == "UNIMPLEMENTED"


@asyncio_test
async def test_a_bug_of_ours_is_logged_and_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No traceback reaches a caller."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        request = admin_pb2.CreateTokenRequest(service="orders")
        request.labels["a"] = "b"
        saved = tokens.LABELS_MAX
        tokens.LABELS_MAX = None  # type: ignore[assignment]  # any bug will do
        refused = await refusal(operator.call("Admin/CreateToken", request, admin_pb2.CreateTokenResponse))
        tokens.LABELS_MAX = saved
        await operator.token()
    assert refused == ("INTERNAL", "internal error; the control plane's log has the details")
    assert "TypeError" in caplog.text


def test_a_refusal_fits_into_a_status() -> None:
    """Whole lines, and how many more there are; clients refuse larger metadata."""
    assert short("one line") == "one line"
    lines = [f"file.yaml:{n}:1: spec.rules[{n}]: ünknown" for n in range(1_000)]
    cut = short("\n".join(lines))
    kept = cut.split("\n")
    assert kept[:-1] == lines[: len(kept) - 1]
    assert kept[-1] == f"... and {1_000 - len(kept) + 1} more"
    assert len(kept) > 50
    for text in ("\n".join(lines), "ü" * 9_000, "%" * 9_000):
        wire = "".join(chr(o) if 0x20 <= o < 0x7F and o != 0x25 else f"%{o:02X}" for o in short(text).encode())
        assert len(wire) <= 6_000


@asyncio_test
async def test_the_operators_socket_is_ours_alone(tmp_path: Path) -> None:
    """Mode 0600 from the first moment, also outside the data directory, also with a space in its path."""
    socket_path = tmp_path / "a dir" / "op.sock"
    socket_path.parent.mkdir()
    async with running(tmp_path, operator_socket=socket_path) as mesh:
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/a%20dir/op.sock") as channel:
            assert (await Rpc(channel).status()).trust_domain == "mesh.local"
        assert mesh.addresses.operator_socket == socket_path


@asyncio_test
async def test_the_control_plane_renews_its_own_certificate_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next handshake shows the new one; streams that are open stay."""
    monkeypatch.setattr("control_plane.api.credentials.LIFETIME_S", 3.0)

    def shown(mesh: Mesh) -> bytes:
        context = client_context(mesh.config.data_dir, None, tmp_path)
        address = mesh.addresses.join_listen
        with (
            socket.create_connection((address.host, address.port), timeout=10) as plain,
            context.wrap_socket(plain) as tls,
        ):
            return tls.getpeercert(binary_form=True) or b""

    async with running(tmp_path) as mesh, mesh.as_member(await mesh.join()) as rpc:
        watcher = await watching(rpc)
        await watcher.taken()
        first = await asyncio.to_thread(shown, mesh)
        while await asyncio.to_thread(shown, mesh) == first:
            await asyncio.sleep(0.05)
        await watcher.say(subscribe=discovery_pb2.Subscribe(services=["orders.shop"]))
        await watcher.taken()
