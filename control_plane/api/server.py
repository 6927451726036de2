"""gRPC: three ports, credentials, messages in and out, errors to statuses. The only file that imports grpc.

Three servers, each with the methods that may be reached there and with one way to know the caller:

- members, `listen`: TLS that requires a client certificate. Who it names may call what `authz` says.
- join, `join_listen`: TLS without a client certificate. joining, and coming back, is all there is.
- operator, a unix socket of mode 0600: whoever can open it is the local operator.

(One port could not do both kinds of TLS: grpcio either requires a client certificate or does not ask for one.)

Who calls is established before a single octet of the message is parsed (security.md G17). Messages of our services are
handed to us as octets for that reason; the stock health and reflection services are guarded by an interceptor. A method
nobody serves is UNIMPLEMENTED, whoever calls (G26).
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from google.protobuf.message import DecodeError, Message

# gRPC's C core writes refused handshakes and the like to standard error by itself, in its own format.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from control_plane.api import callers
from control_plane.api.authz import Caller, authorize, check_complete
from control_plane.api.credentials import OwnCertificate, ServerCertificate
from control_plane.api.methods import Method
from control_plane.api.together import Together
from control_plane.config import Limits, ListenAddress
from control_plane.errors import ControlPlaneError, InvalidRequest, StartError, Unauthenticated
from control_plane.logs import fields
from sidecar.rules.decode import SNAPSHOT_OCTETS_MAX

log = logging.getLogger(__name__)

DETAILS_OCTETS_MAX = 6_000
"""Of a status text on the wire: clients refuse metadata above 8 KiB by default."""
JOIN_METHODS = tuple(f"/hauberk.v1.Identity/{one}" for one in ("Join", "Challenge", "Rejoin", "Anchors"))
# Anybody may connect to the join port: those who do must leave the others descriptors (security.md I03).
_JOIN_OPTIONS = [("grpc.max_allowed_incoming_connections", 256), ("grpc.max_connection_idle_ms", 30_000)]

_NOT_REFUSED = frozenset({"ABORTED", "UNAVAILABLE"})
"""Come back, says the answer, and not no: a stream that was replaced, a stop."""

Context = Any
"""grpc.aio.ServicerContext; the stubs do not agree with the library on half of its methods."""
CallerOf = Callable[[Context], Caller]
Refused = Callable[[str, str, str, str, str, float], None]
"""(method, caller or "", peer, status, reason, now); `AuditLog.refused`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the control plane listens, ports as bound."""

    listen: ListenAddress
    join_listen: ListenAddress
    operator_socket: Path


class GrpcServer:
    """Makes the three servers; see the module's docstring."""

    def __init__(
        self,
        methods: Sequence[Method],
        *,
        certificate: OwnCertificate,
        known: callers.KnownCallers,
        limits: Limits,
        now: Callable[[], float],
        refused: Refused,
        together: Together,
    ) -> None:
        """`refused` is told of every call that is answered with a no.

        Raises RuntimeError if the table of who may call what is not complete."""
        check_complete([one.path for one in methods] + _stock_methods())
        self._methods = methods
        self._certificate = certificate
        self._callers = known
        self._limits = limits
        self._now = now
        self._refuse = _Refuser(refused, now)
        self._together = together
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # chosen at import time by the Python version
        self._servers: list[Any] = []

    async def start(self, listen: ListenAddress, join_listen: ListenAddress, operator_socket: Path) -> Addresses:
        """Binds all, then serves. Raises StartError; nothing is served then."""
        members = self._server(self._member, self._methods, with_stock=True)
        join = self._server(self._anonymous, [one for one in self._methods if one.path in JOIN_METHODS])
        operator = self._server(lambda _: callers.LOCAL_OPERATOR, self._methods, with_stock=True)
        mutual, one_sided = _credentials(self._certificate, mutual=True), _credentials(self._certificate, mutual=False)
        bound = Addresses(
            listen=_bind(members, listen, mutual, "listen"),
            join_listen=_bind(join, join_listen, one_sided, "join_listen"),
            operator_socket=_bind_socket(operator, operator_socket),
        )
        for server in (members, join, operator):
            await server.start()
            self._servers.append(server)
        return bound

    async def stop(self, grace_s: float) -> None:
        """No new calls; those in flight may take `grace_s` more."""
        await self._health.enter_graceful_shutdown()
        for server in self._servers:
            await server.stop(grace_s)
        self._servers.clear()

    def _server(self, caller_of: CallerOf, methods: Sequence[Method], *, with_stock: bool = False) -> Any:
        interceptors = [_StockGuard(caller_of, self._refuse)] if with_stock else []
        options = _options(self._limits)
        if not with_stock:
            options += _JOIN_OPTIONS
        server = grpc.aio.server(interceptors=interceptors, options=options)
        for service in sorted({one.service for one in methods}):
            handlers = {
                one.name: _handler(one, caller_of, self._refuse, self._together)
                for one in methods
                if one.service == service
            }
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if with_stock:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            names = [reflection.SERVICE_NAME, health.SERVICE_NAME, *sorted({one.service for one in methods})]
            reflection.enable_server_reflection(names, server)
        return server

    def _member(self, context: Context) -> Caller:
        """From the certificate TLS accepted. Raises ControlPlaneError."""
        proved = context.auth_context()
        leaf = proved.get("x509_pem_cert")
        if not leaf:
            raise Unauthenticated("show a certificate of this mesh")
        # The chain is what OpenSSL built, in no promised order and, on the server's side, without the leaf.
        others = proved.get("x509_pem_cert_chain", [])
        pems = (leaf[0], *(one for one in others if one not in leaf))
        return self._callers.of(pems, peer=callers.ip_of(context.peer()), now=self._now())

    def _anonymous(self, context: Context) -> Caller:
        return callers.anonymous(callers.ip_of(context.peer()))


# --- calls ----------------------------------------------------------------------------------------------------


def _handler(method: Method, caller_of: CallerOf, refuse: _Refuser, together: Together) -> Any:
    """A gRPC handler that takes and gives octets."""

    async def unary(octets: bytes, context: Context) -> bytes:
        caller = None

        async def answered() -> Message:
            nonlocal caller
            assert method.unary is not None
            caller = caller_of(context)
            authorize(caller, method.path)
            return await method.unary(caller, _parsed(method.request, octets))

        try:
            answer = await (together.run(answered) if method.is_together else answered())
            return answer.SerializeToString()
        except Exception as error:  # everything becomes a status
            refusal = error
        await refuse(context, method.path, caller, refusal)
        raise AssertionError

    async def stream(_requests: AsyncIterator[bytes], context: Context) -> None:
        assert method.stream is not None

        async def send(message: Message) -> None:
            await context.write(message.SerializeToString())

        caller = None
        try:
            caller = caller_of(context)
            authorize(caller, method.path)
            await method.stream(caller, _messages(context, method.request), send)
            return
        except Exception as error:
            refusal = error
        await refuse(context, method.path, caller, refusal)

    if method.unary is not None:
        return grpc.unary_unary_rpc_method_handler(unary)
    return grpc.stream_stream_rpc_method_handler(stream)


async def _messages(context: Context, kind: type[Message]) -> AsyncIterator[Message]:
    while True:
        octets = await context.read()
        if octets is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
            return
        yield _parsed(kind, octets)


def _parsed(kind: type[Message], octets: bytes) -> Message:
    message = kind()
    try:
        message.ParseFromString(octets)
    except DecodeError as error:
        raise InvalidRequest(f"the message is not a {kind.DESCRIPTOR.full_name}") from error
    return message


class _Refuser:
    """The one place where an error becomes a status."""

    def __init__(self, refused: Refused, now: Callable[[], float]) -> None:
        self._refused = refused
        self._now = now

    async def __call__(self, context: Context, path: str, caller: Caller | None, error: Exception) -> None:
        """Always raises (an error of gRPC's). `caller`: None if who calls is what could not be established."""
        if isinstance(error, ControlPlaneError):
            status, text = error.status, str(error)
            told = fields(method=path, peer=context.peer(), status=status, reason=text[:1_000])
            log.info("call refused", extra=told)
        else:
            status, text = "INTERNAL", "internal error; the control plane's log has the details"
            log.error("unexpected error in a call", extra=fields(method=path, peer=context.peer()), exc_info=error)
        if status not in _NOT_REFUSED:
            name, peer = ("", callers.ip_of(context.peer())) if caller is None else (caller.name, caller.peer)
            self._refused(path, name, peer, status, text, self._now())
        try:
            await context.abort(grpc.StatusCode[status], short(text))
        except grpc.aio.InternalError:
            # The caller has gone, or does not read and a message to it is stuck: nobody is there to be told.
            log.info("refusal not delivered", extra=fields(method=path, peer=context.peer()))
            raise


def short(text: str, octets_max: int = DETAILS_OCTETS_MAX) -> str:
    """Whole lines of `text` that fit into a status (percent-encoded: three octets for what is not plain ASCII)."""
    lines = text.split("\n")
    kept: list[str] = []
    left = octets_max - 40
    for line in lines:
        octets = line.encode()
        left -= 3 + sum(1 if 0x20 <= octet < 0x7F and octet != 0x25 else 3 for octet in octets)
        if left < 0:
            break
        kept.append(line)
    if not kept:
        kept = [lines[0][: octets_max // 12 - 10]]  # a character is at most four octets, so twelve on the wire
    more = len(lines) - len(kept)
    return "\n".join(kept + ([f"... and {more} more"] if more else []))


class _StockGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Puts the table before the health and reflection services, which know nothing of it."""

    def __init__(self, caller_of: CallerOf, refuse: _Refuser) -> None:
        self._caller_of = caller_of
        self._refuse = refuse

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith("/hauberk."):
            return handler
        kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        kind = next(one for one in kinds if getattr(handler, one) is not None)
        return handler._replace(**{kind: self._guarded(getattr(handler, kind), details.method)})

    def _guarded(self, behaviour: Callable[[Any, Context], Any], path: str) -> Callable[[Any, Context], Any]:
        async def check(context: Context) -> None:
            caller = None
            try:
                caller = self._caller_of(context)
                authorize(caller, path)
                return
            except Exception as error:
                refusal = error
            await self._refuse(context, path, caller, refusal)

        if inspect.isasyncgenfunction(behaviour):

            async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
                await check(context)
                async for answer in behaviour(request, context):
                    yield answer

            return generate

        async def call(request: Any, context: Context) -> Any:
            await check(context)
            return await behaviour(request, context)

        return call


def _stock_methods() -> list[str]:
    services = [
        *health_pb2.DESCRIPTOR.services_by_name.values(),
        *reflection_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


# --- ports ----------------------------------------------------------------------------------------------------


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.message_octets_max),
        # A snapshot may be as large as sidecars take: one that cannot be sent would leave them with what they have.
        ("grpc.max_send_message_length", max(limits.message_octets_max, SNAPSHOT_OCTETS_MAX)),
        ("grpc.max_concurrent_streams", limits.concurrent_streams_max),
        ("grpc.max_metadata_size", 16_384),
        ("grpc.so_reuseport", 0),  # else a port in use would be shared with whoever has it
        ("grpc.keepalive_time_ms", 10_000),  # a dead link is found within 30 s (security.md R18)
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Who cannot finish a handshake holds a descriptor for so long, not for gRPC's two minutes (security.md F21).
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]


def _credentials(own: OwnCertificate, *, mutual: bool) -> Any:
    """Asked for the certificate at every handshake, so that it renews without a restart."""
    served = own.current

    def configuration(current: ServerCertificate) -> Any:
        pairs = [(current.key_pem, current.chain_pem)]
        return grpc.ssl_server_certificate_configuration(pairs, current.roots_pem if mutual else None)

    def fetch() -> Any:  # called by gRPC's own threads
        nonlocal served
        current = own.current
        if current is served:
            return None  # no change
        served = current
        return configuration(current)

    return grpc.dynamic_ssl_server_credentials(configuration(served), fetch, require_client_authentication=mutual)


def _bind(server: Any, address: ListenAddress, credentials: Any, name: str) -> ListenAddress:
    try:
        port = server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise StartError(_busy(str(address), name)) from error
    if port == 0:
        raise StartError(_busy(str(address), name))
    return ListenAddress(address.host, port)


def _busy(address: str, name: str) -> str:
    return (
        f"{name}: cannot listen on {address}: the address is in use or is not this machine's; stop what has it"
        f" (ss -ltnp shows it) or set {name} to another"
    )


def _bind_socket(server: Any, path: Path) -> Path:
    # The mode is right from the first moment: chmod afterwards would leave a gap.
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{quote(str(path))}")  # part of a URI: RFC 3986 section 2.1
    except RuntimeError as error:
        raise StartError(f"operator_socket: cannot listen on {path}: is its directory there, and ours?") from error
    finally:
        os.umask(mask)
    return path
