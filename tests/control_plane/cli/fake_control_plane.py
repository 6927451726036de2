"""A control plane with canned answers: a real grpc server on a real unix socket, that remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import Message

from protos.hauberk.v1 import admin_pb2, config_pb2

if TYPE_CHECKING:  # generic in the stubs only
    GenericRpcHandler: TypeAlias = grpc.GenericRpcHandler[Any, Any]
    RpcMethodHandler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    GenericRpcHandler = grpc.GenericRpcHandler

REQUESTS: dict[str, type[Message]] = {
    "Config/Apply": config_pb2.ApplyRequest,
    "Config/Get": config_pb2.GetRequest,
    "Config/List": config_pb2.ListRequest,
    "Config/Delete": config_pb2.DeleteRequest,
    "Config/Explain": config_pb2.ExplainRequest,
    "Config/History": config_pb2.HistoryRequest,
    "Config/Rollback": config_pb2.RollbackRequest,
    "Config/Inventory": config_pb2.InventoryRequest,
    "Admin/CreateToken": admin_pb2.CreateTokenRequest,
    "Admin/ListTokens": admin_pb2.ListTokensRequest,
    "Admin/Status": admin_pb2.StatusRequest,
    "Admin/CaStatus": admin_pb2.CaStatusRequest,
    "Admin/CaStep": admin_pb2.CaStepRequest,
    "Admin/CaInstall": admin_pb2.CaInstallRequest,
    "Admin/CaRehearse": admin_pb2.CaRehearseRequest,
    "Admin/Revoke": admin_pb2.RevokeRequest,
    "Admin/Reinstate": admin_pb2.ReinstateRequest,
    "Admin/ListRevocations": admin_pb2.ListRevocationsRequest,
}

Refusal = tuple[grpc.StatusCode, str]
Answer = Message | Refusal | Callable[[], Message]


class FakeControlPlane(GenericRpcHandler):
    """`answers["Config/Get"] = GetResponse(...)`, or a status with its text, or a function that gives the message.

    `asked` holds (method, request), in order."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Any]] = []

    @property
    def data_dir(self) -> str:
        return str(self.socket.parent)

    def service(self, details: grpc.HandlerCallDetails) -> RpcMethodHandler | None:
        method = str(details.method).removeprefix("/hauberk.v1.")
        if method not in self.answers:
            return None  # UNIMPLEMENTED
        return grpc.unary_unary_rpc_method_handler(
            self._answer(method),
            request_deserializer=REQUESTS[method].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _answer(self, method: str) -> Callable[[Message, grpc.ServicerContext], Message]:
        def handle(request: Message, context: grpc.ServicerContext) -> Message:
            self.asked.append((method, request))
            answer = self.answers[method]
            if isinstance(answer, tuple):
                context.abort(*answer)  # raises
                raise AssertionError  # noqa: TRY004  # for mypy
            return answer() if callable(answer) else answer

        return handle


@contextmanager
def serving(socket: Path) -> Generator[FakeControlPlane, None, None]:
    fake = FakeControlPlane(socket)
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[fake])
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        try:
            yield fake
        finally:
            server.stop(None).wait()
