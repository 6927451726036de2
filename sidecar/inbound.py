"""From the mesh to the app. `InboundPeer._serve` is the straight line: understand, decide, connect, relay."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.errors import NotFound, RequestError
from sidecar.exchange import Exchange
from sidecar.http.headers import RequestHead, admit_request, request_fields
from sidecar.http.session import Fields, Session, StreamSink
from sidecar.net.pool import Pool
from sidecar.net.tls import PeerCertificate
from sidecar.rules.authz import Authorizer, Denied, PeerAuthorizer, Permit
from sidecar.rules.errors import RoutingError
from sidecar.rules.routing import pick_port
from sidecar.runtime import INBOUND, Call, Runtime

TRIES_MAX = 3


class InboundPeer:
    """`ServerHandler` of one mesh connection: the requests of one verified peer."""

    def __init__(self, runtime: Runtime, apps: Mapping[int, Pool], peer: PeerCertificate) -> None:
        self._runtime = runtime
        self._apps = apps
        self._peer = peer
        self._source = str(peer.identity)
        self._compiled: tuple[Authorizer, PeerAuthorizer] | None = None

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        call = Call(direction=INBOUND, source=self._source)
        exchange = self._runtime.begin(session, stream, fields, end, call)
        try:
            self._serve(exchange, call, fields, end)
        except RequestError as e:
            exchange.fail(e)
        return exchange.sink

    def _serve(self, exchange: Exchange, call: Call, fields: Fields, end: bool) -> None:
        snapshot, authorizer = self._runtime.current()
        call.destination, call.version = str(snapshot.identity), snapshot.version

        # 1 understand
        head = admit_request(fields, end, self._runtime.config.limits)
        exchange.understood(head)
        call.port = self._port(head)

        # 2 decide; the exchange is live already, so a policy change from here on finds it
        verdict = self._decide(authorizer, head, call.port)
        if isinstance(verdict, Denied):
            self._runtime.deny(exchange, call, verdict)
            return
        call.permit = verdict
        call.rejudge = lambda: self._decide(self._runtime.current()[1], head, call.port)

        # 3 connect, 4 relay
        added = self._identity_fields(str(snapshot.identity)) + self._runtime.trace(call, head)
        exchange.upstream_fields = request_fields(head, added)
        _ToApp(exchange, call, self._apps[call.port]).open(verdict)

    def _port(self, head: RequestHead) -> int:
        try:
            return pick_port(self._apps.keys(), head.port)
        except RoutingError as e:
            if head.port is not None and len(self._apps) == 1:
                return next(iter(self._apps))  # a Host of the app's own making, such as the name of a named port
            raise NotFound(str(e)) from None

    def _decide(self, authorizer: Authorizer, head: RequestHead, port: int) -> Permit | Denied:
        """The peer's rules are compiled once per snapshot (and hold a DENY also against `/admin;x`, row C06)."""
        if self._compiled is None or self._compiled[0] is not authorizer:
            self._compiled = (authorizer, authorizer.for_peer(self._peer.identity))
        return self._compiled[1].authorize(head.host, port, head.method.decode("ascii"), head.path)

    def _identity_fields(self, own: str) -> Fields:
        """Envoy's x-forwarded-client-cert, from the verified certificate and nothing else."""
        value = f"By={own};Hash={self._peer.sha256_hex};URI={self._source}"
        return [(b"x-forwarded-client-cert", value.encode("ascii"))]


class _ToApp:
    """Finds the permitted exchange a connection to the app, again if the app closed it under us unprocessed."""

    def __init__(self, exchange: Exchange, call: Call, pool: Pool) -> None:
        self._exchange = exchange
        self._pool = pool
        self._tries = 0
        call.endpoint = pool.name
        call.release = self._release
        exchange.on_unprocessed = self._again

    def open(self, permit: Permit) -> None:
        """No upstream is opened without a Permit. Raises TooManyRequests."""
        assert isinstance(permit, Permit)
        self._tries += 1
        self._pool.acquire(self)

    def connected(self, session: Session) -> None:
        self._exchange.connected(session)

    def unreachable(self, error: RequestError) -> None:
        self._exchange.fail(error)

    def _again(self, exchange: Exchange) -> None:
        call = exchange.context
        assert isinstance(call, Call)
        assert call.permit is not None
        if self._tries >= TRIES_MAX:
            exchange.on_unprocessed = None
        try:
            self.open(call.permit)
        except RequestError as e:
            exchange.fail(e)

    def _release(self) -> None:
        self._pool.forget(self)
        self._pool.freed()
