"""A real grpcio server as the peer of the sidecar's own gRPC client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from certs.svid import X509Svid
from protos.hauberk.v1 import discovery_pb2, identity_pb2
from sidecar.config import Address
from tests.sidecar.mesh import CONTROL_PLANE, Mesh

OPTIONS = [
    ("grpc.http2.min_ping_interval_without_data_ms", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
]

UnaryHandler = Callable[[identity_pb2.RenewRequest, grpc.ServicerContext], identity_pb2.SvidResponse]
StreamHandler = Callable[[Iterator[discovery_pb2.WatchRequest], grpc.ServicerContext], Iterator[discovery_pb2.Snapshot]]


class Peer:
    """A running server and where it listens."""

    def __init__(self, server: grpc.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.released = threading.Event()
        """For handlers that must wait until the test says so, or ends."""

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def stop(self, grace_s: float | None = None) -> threading.Event:
        return self.server.stop(grace_s)


@contextmanager
def grpc_server(
    mesh: Mesh,
    *,
    unary: Mapping[str, UnaryHandler] | None = None,
    stream: Mapping[str, StreamHandler] | None = None,
    svid: X509Svid | None = None,
    require_client: bool = True,
    port: int = 0,
    join: Mapping[str, Callable[[Any, grpc.ServicerContext], Message]] | None = None,
    calls: Mapping[str, tuple[type[Message], Callable[[Any, grpc.ServicerContext], Message]]] | None = None,
) -> Iterator[Peer]:
    """Methods by full path ("/hauberk.v1.Identity/Renew"); those in `calls` with what they are asked. Stops hard at
    the end."""
    svid = svid or mesh.svid(CONTROL_PLANE, with_anchor=True)
    server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers((_handlers(unary or {}, stream or {}, join or {}, calls or {}),))
    credentials = grpc.ssl_server_credentials(
        [(svid.key_pem(), svid.chain_pem())],
        root_certificates=mesh.bundle.pem() if require_client else None,
        require_client_auth=require_client,
    )
    peer = Peer(server, _bind(server, port, credentials))
    server.start()
    try:
        yield peer
    finally:
        peer.released.set()
        server.stop(None).wait()


def _bind(server: grpc.Server, port: int, credentials: grpc.ServerCredentials) -> int:
    """A server that comes back on a port just left may have to wait for it."""
    for _ in range(100):
        try:
            bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        except RuntimeError:
            bound = 0
        if bound:
            return bound
        time.sleep(0.02)
    raise AssertionError(f"port {port} stays in use")


def _handlers(
    unary: Mapping[str, UnaryHandler],
    stream: Mapping[str, StreamHandler],
    join: Mapping[str, Callable[[Any, grpc.ServicerContext], Message]],
    calls: Mapping[str, tuple[type[Message], Callable[[Any, grpc.ServicerContext], Message]]],
) -> grpc.GenericRpcHandler[Any, Any]:
    table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for path, one in unary.items():
        table[path] = grpc.unary_unary_rpc_method_handler(
            one,
            request_deserializer=identity_pb2.RenewRequest.FromString,
            response_serializer=_serialize,
        )
    for path, first in join.items():
        table[path] = grpc.unary_unary_rpc_method_handler(
            first,
            request_deserializer=identity_pb2.JoinRequest.FromString,
            response_serializer=_serialize,
        )
    for path, (kind, answer) in calls.items():
        table[path] = grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=kind.FromString, response_serializer=_serialize
        )
    for path, many in stream.items():
        table[path] = grpc.stream_stream_rpc_method_handler(
            many,
            request_deserializer=discovery_pb2.WatchRequest.FromString,
            response_serializer=_serialize,
        )

    class Generic(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not subscriptable when it runs
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
            return table.get(handler_call_details.method)

    return Generic()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
