"""From the mesh to the app. `InboundPeer._serve` is the straight line: understand, decide, connect, relay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.errors import NotFound, RequestError
from sidecar.exchange import Exchange
from sidecar.http.headers import RequestHead, admit_request, request_fields
from sidecar.http.session import Field, Fields, Session, StreamSink
from sidecar.net.pool import Pool
from sidecar.net.tls import PeerCertificate
from sidecar.rules.authz import Authorizer, Denied, PeerAuthorizer, Permit
from sidecar.rules.errors import RoutingError
from sidecar.rules.facts import Peer
from sidecar.rules.routing import pick_port
from sidecar.runtime import INBOUND, Call, Runtime

TRIES_MAX = 3


class _InForce(NamedTuple):
    """What of the snapshot in force concerns one peer."""

    authorizer: Authorizer
    judge: PeerAuthorizer
    own_id: str
    version: int
    identity_field: Field
    """Envoy's x-forwarded-client-cert, from the verified certificate and nothing else."""


class InboundPeer:
    """`ServerHandler` of one mesh connection: the requests of one verified peer."""

    def __init__(
        self, runtime: Runtime, apps: Mapping[int, Pool], peer: PeerCertificate, facts: Peer | None = None
    ) -> None:
        """`facts`: what policies may look at; None, the identity alone."""
        self.runtime = runtime
        self._apps = apps
        self._peer = peer
        self._facts = facts or Peer(peer.identity)
        self._source = str(peer.identity)
        self._limits = runtime.config.limits
        self._in_force: _InForce | None = None

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        call = _ToApp(self, self._source)
        exchange = self.runtime.begin(session, stream, end, call)
        try:
            self._serve(exchange, call, fields, end)
        except RequestError as e:
            self.runtime.refuse(exchange, fields, e)
        return exchange.sink

    def _serve(self, exchange: Exchange, call: _ToApp, fields: Fields, end: bool) -> None:
        in_force = self._policy()
        call.destination, call.version = in_force.own_id, in_force.version

        # 1 understand
        head = admit_request(fields, end, self._limits)
        exchange.understood(head)
        call.port = self._port(head)

        # 2 decide; the exchange is live already, so a policy change from here on finds it
        verdict = in_force.judge.authorize(head.host, call.port, head.method.decode("ascii"), head.path, head.fields)
        if isinstance(verdict, Denied):
            self.runtime.deny(exchange, call, verdict)
            return
        call.permit = verdict

        # 3 connect, 4 relay
        exchange.upstream_fields = request_fields(head, [in_force.identity_field, self.runtime.trace(call, head)])
        call.open(self._apps[call.port], verdict)

    def _port(self, head: RequestHead) -> int:
        if head.port is not None and head.port in self._apps:
            return head.port
        try:
            return pick_port(self._apps.keys(), head.port)
        except RoutingError as e:
            if head.port is not None and len(self._apps) == 1:
                return next(iter(self._apps))  # a Host of the app's own making, such as the name of a named port
            raise NotFound(str(e)) from None

    def judge_again(self, head: RequestHead, port: int) -> Permit | Denied:
        """With the policy of now."""
        return self._policy().judge.authorize(head.host, port, head.method.decode("ascii"), head.path, head.fields)

    def _policy(self) -> _InForce:
        """The peer's rules are compiled once per snapshot (and hold a DENY also against `/admin;x`, row C06).

        Raises NotReady before the first."""
        snapshot, authorizer = self.runtime.current()
        if self._in_force is None or self._in_force.authorizer is not authorizer:
            own_id = str(snapshot.identity)
            client_cert = f"By={own_id};Hash={self._peer.sha256_hex};URI={self._source}"
            self._in_force = _InForce(
                authorizer,
                authorizer.for_peer(self._facts),
                own_id,
                snapshot.version,
                (b"x-forwarded-client-cert", client_cert.encode("ascii")),
            )
        return self._in_force


class _ToApp(Call):
    """Finds the permitted exchange a connection to the app, again if the app closed it under us unprocessed."""

    __slots__ = ("_peer", "_pool", "_session", "_tries")

    def __init__(self, peer: InboundPeer, source: str) -> None:
        super().__init__(INBOUND, source)
        self._peer = peer
        self._pool: Pool | None = None
        self._session: Session | None = None
        self._tries = 0

    def rejudge(self) -> Permit | Denied:
        assert self.exchange.head is not None
        return self._peer.judge_again(self.exchange.head, self.port)

    def open(self, pool: Pool, permit: Permit) -> None:
        """No upstream is opened without a Permit. Raises TooManyRequests."""
        assert isinstance(permit, Permit)
        self._pool = pool
        self.endpoint = pool.name
        self.exchange.on_unprocessed = self._again if self._tries < TRIES_MAX else None
        self._tries += 1
        pool.acquire(self)

    def connected(self, session: Session) -> None:
        self._session = session
        self.exchange.connected(session)

    def unreachable(self, error: RequestError) -> None:
        self.exchange.fail(error)

    def _again(self, exchange: Exchange) -> None:
        assert self._pool is not None
        assert self.permit is not None
        try:
            self.open(self._pool, self.permit)
        except RequestError as e:
            exchange.fail(e)

    def release(self) -> None:
        if self._pool is not None:
            self._pool.forget(self)
            self._pool.freed(self._session)
