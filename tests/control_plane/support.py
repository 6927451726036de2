"""For tests of the control plane: values, a clock, an event loop, and a whole control plane on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import shutil
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message

from certs.bundle import TrustBundle
from certs.csr import make_csr
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid, new_private_key
from control_plane.api.server import Addresses
from control_plane.app import AUDIT_NAME, STORE_NAME, serve
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.kek import trust_key
from control_plane.config import ControlPlaneConfig, Limits, ListenAddress
from control_plane.model import EndpointRecord, JoinTokenRecord, ResourceKey, ResourceRecord, WorkloadSpec
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import admin_pb2, config_pb2, discovery_pb2, identity_pb2
from sidecar.rules.decode import SNAPSHOT_OCTETS_MAX
from sidecar.rules.snapshot import Protocol

P = ParamSpec("P")
M = TypeVar("M", bound=Message)

TD = TrustDomain.parse("mesh.local")
NOW = 1_800_000_000.0
LOOPBACK = ListenAddress("127.0.0.1", 0)


def asyncio_test(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Runs an async test in a loop of its own; one that hangs fails."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(main())

    return run


class Clock:
    """A clock that moves when told."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


# --- values --------------------------------------------------------------------------------


def workload_spec(service: str = "orders", namespace: str = "shop", **labels: str) -> WorkloadSpec:
    return WorkloadSpec(
        spiffe_id=SpiffeId.for_workload(TD, namespace, service),
        service=service,
        namespace=namespace,
        service_account=service,
        labels={"app": service, **labels},
    )


def token_record(token_id: str = "00112233445566aa", **changes: Any) -> JoinTokenRecord:
    values: dict[str, Any] = {
        "token_id": token_id,
        "secret_sha256": b"\x01" * 32,
        "spec": workload_spec(),
        "created_at": NOW,
        "created_by": "local operator",
        "expires_at": NOW + 600,
    }
    return JoinTokenRecord(**values | changes)


def endpoint_record(workload_id: int, instance: str = "one", address: str = "10.0.0.7:15008") -> EndpointRecord:
    return EndpointRecord(
        workload_id=workload_id, instance=instance, address=address, ports={8080: Protocol.HTTP1, 90: Protocol.HTTP2}
    )


def policy_yaml(name: str = "orders", namespace: str = "shop", action: str = "ALLOW", principal: str = "*") -> str:
    return f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {name}
  namespace: {namespace}
spec:
  selector:
    matchLabels:
      app: {name}
  action: {action}
  rules:
  - from:
    - source:
        principals: ["{principal}"]
"""


def mesh_yaml(**spec: str) -> str:
    fields = "".join(f"  {name}: {value}\n" for name, value in spec.items())
    return f"apiVersion: hauberk.dev/v1\nkind: MeshConfig\nmetadata:\n  name: default\nspec:\n{fields}"


def resource_record(name: str = "orders", namespace: str = "shop", yaml: str = "", **changes: Any) -> ResourceRecord:
    values: dict[str, Any] = {
        "key": ResourceKey(kind="AuthorizationPolicy", namespace=namespace, name=name),
        "yaml": yaml or policy_yaml(name, namespace),
        "source": "policies.yaml:1",
        "version": 0,
        "applied_at": NOW,
        "applied_by": "local operator",
    }
    return ResourceRecord(**values | changes)


# --- a control plane on real sockets --------------------------------------------------------------------------------


_AS_A_SIDECAR_TAKES = [("grpc.max_receive_message_length", SNAPSHOT_OCTETS_MAX)]


class Rpc:
    """Calls over one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    async def call(self, method: str, request: Message, answer: type[M]) -> M:
        """`method` is "Service/Method" of hauberk.v1. Raises grpc.aio.AioRpcError."""
        stub = self.channel.unary_unary(
            f"/hauberk.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        response: M = await stub(request, timeout=10)
        return response

    def watch(self) -> Any:
        stub = self.channel.stream_stream(
            "/hauberk.v1.Discovery/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=discovery_pb2.Snapshot.FromString,
        )
        return stub()

    async def status(self) -> admin_pb2.StatusResponse:
        return await self.call("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)

    async def apply(self, *texts: str, **options: Any) -> config_pb2.ApplyResponse:
        files = [config_pb2.SourceFile(name=f"file{n}.yaml", text=text) for n, text in enumerate(texts)]
        request = config_pb2.ApplyRequest(files=files, **options)
        return await self.call("Config/Apply", request, config_pb2.ApplyResponse)

    async def token(self, service: str = "orders", namespace: str = "shop", **more: Any) -> str:
        request = admin_pb2.CreateTokenRequest(service=service, namespace=namespace, **more)
        return (await self.call("Admin/CreateToken", request, admin_pb2.CreateTokenResponse)).token


async def refusal(call: Awaitable[object]) -> tuple[str, str]:
    """(status, details) of a call that must be refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError(f"was answered: {answer}")


def join_request(token: str, csr_der: bytes) -> identity_pb2.JoinRequest:
    _, token_id, secret, _, _ = token.split(".")
    return identity_pb2.JoinRequest(
        token_id=token_id, token_secret=base64.urlsafe_b64decode(secret + "=="), csr_der=csr_der
    )


def audited(data_dir: Path) -> list[dict[str, Any]]:
    """What is in the audit file, without what it says of itself and what every start writes down."""
    lines = [json.loads(line) for line in (data_dir / "audit.jsonl").read_text().splitlines()]
    return [one for one in lines if not one["event"].startswith(("audit.", "ca.")) and one["event"] != "identity.own"]


class Mesh:
    """A control plane that runs, and ways in."""

    def __init__(self, config: ControlPlaneConfig, addresses: Addresses, directory: Path) -> None:
        self.config = config
        self.addresses = addresses
        self._directory = directory

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Rpc]:
        async with grpc.aio.insecure_channel(f"unix:{self.addresses.operator_socket}") as channel:
            yield Rpc(channel)

    @contextlib.asynccontextmanager
    async def anonymous(self) -> AsyncIterator[Rpc]:
        """Through the join port."""
        async with self._through(self.addresses.join_listen, None) as rpc:
            yield rpc

    @contextlib.asynccontextmanager
    async def as_member(self, svid: X509Svid) -> AsyncIterator[Rpc]:
        async with self._through(self.addresses.listen, svid) as rpc:
            yield rpc

    async def join(self, service: str = "orders", namespace: str = "shop", **more: Any) -> X509Svid:
        """A new member, by token and CSR."""
        key = new_private_key()
        async with self.operator() as operator, self.anonymous() as stranger:
            request = join_request(await operator.token(service, namespace, **more), make_csr(key, None))
            return svid_of(await stranger.call("Identity/Join", request, identity_pb2.SvidResponse), key)

    def certificate_authority(self, now: float) -> CertificateAuthority:
        """The mesh's own CA, to make certificates that no API would give."""
        return ca_of_copy(self.config.data_dir, now)

    @contextlib.asynccontextmanager
    async def _through(self, address: ListenAddress, svid: X509Svid | None) -> AsyncIterator[Rpc]:
        """grpcio cannot check a SPIFFE ID, so a pipe does its TLS: plain on this side, mutual TLS on the other."""
        context = client_context(self.config.data_dir, svid, self._directory)
        async with (
            tls_pipe(address, context) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", _AS_A_SIDECAR_TAKES) as channel,
        ):
            yield Rpc(channel)


def svid_of(response: identity_pb2.SvidResponse, key: ec.EllipticCurvePrivateKey) -> X509Svid:
    """What a sidecar makes of an answer; checks it."""
    anchors = TrustBundle.of(TD, response.trust_anchors_der)
    assert anchors.anchors_der
    return X509Svid.of(response.certificate_chain_der, key, TD, response.server_time)


def client_context(data_dir: Path, svid: X509Svid | None, directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_of_copy(data_dir, time.time()).bundle.pem().decode())
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    if svid is not None:
        pem = directory / f"{svid.serial:x}.pem"
        pem.write_bytes(svid.key_pem() + svid.chain_pem())
        context.load_cert_chain(pem)
    return context


@contextlib.asynccontextmanager
async def tls_pipe(address: ListenAddress, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A loopback port whose connections go on to `address` under TLS."""
    connections: set[asyncio.Task[None]] = set()

    async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65_536):
                writer.write(octets)
                await writer.drain()
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        except OSError:
            return  # refused: this side sees its connection end
        try:
            await asyncio.gather(one_way(reader, far_writer), one_way(far_reader, writer))
        finally:
            far_writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(carry(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def open_ca(data_dir: Path, now: float = NOW, **changes: Any) -> CertificateAuthority:
    """The CA in a data directory, made there at first; its store and audit file are closed again, so it can issue and
    be looked at, not changed."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ca_and_store(data_dir, now, **changes) as (authority, _):
        return authority


@contextlib.contextmanager
def ca_and_store(
    data_dir: Path, now: float = NOW, trust_domain: TrustDomain = TD, **changes: Any
) -> Iterator[tuple[CertificateAuthority, SqliteStore]]:
    """The CA in a data directory with its store open, so that it can be changed."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(SqliteStore.open(data_dir / STORE_NAME)))
        audit = stack.enter_context(contextlib.closing(AuditLog.open(data_dir / AUDIT_NAME, store, now=now)))
        yield CertificateAuthority.open(data_dir, trust_domain, store=store, audit=audit, now=now, **changes), store


def vouch_for(data_dir: Path) -> None:
    """As an operator would, for whatever is in the database."""
    with contextlib.closing(SqliteStore.open(data_dir / STORE_NAME)) as store:
        store.vouch(trust_key((data_dir / "kek.key").read_bytes()))


def ca_of_copy(data_dir: Path, now: float) -> CertificateAuthority:
    """The CA of a control plane that is running: of a copy of its store, since it has a lock on its own."""
    with tempfile.TemporaryDirectory() as copy:
        for path in data_dir.iterdir():
            if path.is_file() and not path.name.endswith(".lock"):
                shutil.copy2(path, copy)
        return open_ca(Path(copy), now)


def config_in(directory: Path, **changes: Any) -> ControlPlaneConfig:
    values: dict[str, Any] = {
        "data_dir": directory / "cp",
        "listen": LOOPBACK,
        "join_listen": LOOPBACK,
        "limits": Limits(join_burst=1_000, join_rate_per_s=1_000.0),
    }
    return ControlPlaneConfig(**values | changes)


@contextlib.asynccontextmanager
async def running(directory: Path, **changes: Any) -> AsyncIterator[Mesh]:
    """A control plane under `directory`, stopped at the end."""
    config = config_in(directory, **changes)
    started: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(config, started=started.set_result))
    try:
        both: list[asyncio.Future[Any]] = [serving, started]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield Mesh(config, started.result(), directory)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


# --- a sidecar's side of a stream --------------------------------------------------------------------------------


@dataclass
class Watcher:
    """A watch stream as a sidecar sees it."""

    stream: Any

    async def say(self, **body: Any) -> None:
        """On a stream that has been ended meanwhile: nothing; `end` tells why it was."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self.stream.write(discovery_pb2.WatchRequest(**body))

    async def snapshot(self) -> discovery_pb2.Snapshot:
        message: discovery_pb2.Snapshot = await self.stream.read()
        assert isinstance(message, discovery_pb2.Snapshot), await self.end()
        return message

    async def ack(self, snapshot: discovery_pb2.Snapshot) -> None:
        await self.say(ack=discovery_pb2.Ack(epoch=snapshot.epoch, version=snapshot.version))

    async def taken(self) -> discovery_pb2.Snapshot:
        """The next snapshot, acknowledged."""
        snapshot = await self.snapshot()
        await self.ack(snapshot)
        return snapshot

    async def until(self, holds: Callable[[discovery_pb2.Snapshot], bool]) -> discovery_pb2.Snapshot:
        """The next snapshot of which that holds; those before are acknowledged, so is it."""
        while not holds(snapshot := await self.taken()):
            pass
        return snapshot

    async def end(self) -> tuple[str, str]:
        """(status, details), once the stream has ended; what is still sent before is thrown away."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            while isinstance(await self.stream.read(), discovery_pb2.Snapshot):
                pass
        return (await self.stream.code()).name, await self.stream.details()


async def watching(rpc: Rpc, instance: str = "one", services: Iterable[str] = (), **hello: Any) -> Watcher:
    watcher = Watcher(rpc.watch())
    await watcher.say(hello=discovery_pb2.Hello(instance=instance, services=services, **hello))
    return watcher


def advertise(address: str, ports: Mapping[int, discovery_pb2.Protocol] | None = None) -> discovery_pb2.Advertise:
    ports = ports or {8080: discovery_pb2.PROTOCOL_HTTP1}
    return discovery_pb2.Advertise(
        address=address, ports=[discovery_pb2.InboundPort(port=port, protocol=kind) for port, kind in ports.items()]
    )
