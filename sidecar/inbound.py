"""From the mesh to the app. `InboundPeer._serve` is the straight line: understand, decide, connect, relay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sidecar.authentication import Waiting
from sidecar.decisions import describe
from sidecar.errors import NotFound, RequestError
from sidecar.exchange import Exchange
from sidecar.http.headers import RequestHead, admit_request, request_fields
from sidecar.http.session import Field, Fields, Session, StreamSink
from sidecar.net.pool import Pool
from sidecar.net.tls import PeerCertificate
from sidecar.rules.authz import Authorizer, Denied, Facts, PeerAuthorizer, Permit, Verdict
from sidecar.rules.errors import RoutingError
from sidecar.rules.facts import Peer, Token
from sidecar.rules.routing import pick_port
from sidecar.runtime import INBOUND, Call, Runtime

if TYPE_CHECKING:
    from protos.hauberk.v1.discovery_pb2 import Decision
    from sidecar.jwks.authenticator import Authenticator, User

TRIES_MAX = 3


class _InForce(NamedTuple):
    """What of the snapshot in force concerns one peer."""

    authorizer: Authorizer
    authenticator: Authenticator | None
    """Of users; None: no RequestAuthentication selects this workload."""
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
        self._is_exposed = False
        """Without TLS, from another machine: what is said here others may hear."""
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

        self._decide(exchange, call, head, in_force)

    def _decide(self, exchange: Exchange, call: _ToApp, head: RequestHead, in_force: _InForce) -> None:
        """The rest of the line. A request whose token waits for its issuer's keys comes here again."""
        # 2 decide; the exchange is live already, so a policy change from here on finds it
        if in_force.authenticator is not None:
            try:
                call.user = in_force.authenticator.admit(call, head, is_exposed=self._is_exposed)
            except Waiting:
                call.waits_for = in_force.authenticator
                return
        verdict = self._verdict(in_force, head, call)
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

    def go_on(self, call: _ToApp) -> None:
        """The keys that a request waited for came, or will not come: it is decided with the policy of now."""
        exchange = call.exchange
        assert exchange.head is not None
        try:
            in_force = self._policy()
            call.version = in_force.version
            self._decide(exchange, call, exchange.head, in_force)
        except RequestError as e:
            self.runtime.refuse(exchange, [], e)

    def judge_again(self, head: RequestHead, call: _ToApp) -> Permit | Denied:
        """With the policy of now. Raises Unauthorized if the user's token does not hold under it."""
        in_force = self._policy()
        if in_force.authenticator is not None:
            call.user = in_force.authenticator.again(call.user, head, is_exposed=self._is_exposed)
        return self._verdict(in_force, head, call)

    @staticmethod
    def _verdict(in_force: _InForce, head: RequestHead, call: _ToApp) -> Permit | Denied:
        token = call.token if in_force.authenticator is not None else None
        method = head.method.decode("ascii")
        return in_force.judge.authorize(head.host, call.port, method, head.path, head.fields, token)

    def describe(self, head: RequestHead, call: _ToApp, verdict: Verdict, decision_id: str, at: float) -> Decision:
        """What was decided, for the control plane."""
        snapshot, authorizer = self.runtime.current()
        peer = self._facts
        facts = Facts(
            principal=peer.principal,
            host=head.host,
            port=call.port,
            method=head.method.decode("ascii"),
            path=head.path,
            token=call.token,
            source_ip=peer.source_ip,
            destination_ip=peer.destination_ip,
            sni=peer.sni,
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.fields),
        )
        return describe(facts, verdict, snapshot, authorizer, decision_id=decision_id, at=at)

    def _policy(self) -> _InForce:
        """The peer's rules are compiled once per snapshot (and hold a DENY also against `/admin;x`, row C06).

        Raises NotReady before the first."""
        snapshot, authorizer = self.runtime.current()
        if self._in_force is None or self._in_force.authorizer is not authorizer:
            own_id = str(snapshot.identity)
            client_cert = f"By={own_id};Hash={self._peer.sha256_hex};URI={self._source}"
            self._in_force = _InForce(
                authorizer,
                self.runtime.authentication.under(snapshot),
                authorizer.for_peer(self._facts),
                own_id,
                snapshot.version,
                (b"x-forwarded-client-cert", client_cert.encode("ascii")),
            )
        return self._in_force


class _ToApp(Call):
    """Finds the permitted exchange a connection to the app, again if the app closed it under us unprocessed."""

    __slots__ = ("_peer", "_pool", "_session", "_tries", "user", "waits_for")

    def __init__(self, peer: InboundPeer, source: str) -> None:
        super().__init__(INBOUND, source)
        self._peer = peer
        self._pool: Pool | None = None
        self._session: Session | None = None
        self._tries = 0
        self.user: User | None = None
        """Whose token the request carried."""
        self.waits_for: Authenticator | None = None

    @property
    def token(self) -> Token | None:
        """The user's, verified."""
        return self.user.verified.token if self.user is not None else None

    def describe(self, verdict: Verdict, decision_id: str, at: float) -> Decision | None:
        head = self.exchange.head
        return self._peer.describe(head, self, verdict, decision_id, at) if head else None

    def rejudge(self) -> Permit | Denied:
        assert self.exchange.head is not None
        return self._peer.judge_again(self.exchange.head, self)

    def keys_came(self) -> None:
        self._peer.go_on(self)

    def keys_failed(self, error: RequestError) -> None:
        self.exchange.fail(error)

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
        if self.waits_for is not None:
            self.waits_for.forget(self)
        if self._pool is not None:
            self._pool.forget(self)
            self._pool.freed(self._session)
