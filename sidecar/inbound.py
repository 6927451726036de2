"""From other workloads to the app. `InboundPeer._serve` is the straight line: understand, decide, connect, relay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sidecar.authentication import Waiting
from sidecar.caller import Caller, InForce, Seen
from sidecar.decisions import describe
from sidecar.errors import Misdirected, NotFound, RequestError
from sidecar.exchange import Exchange
from sidecar.http.fields import is_method_override
from sidecar.http.headers import RequestHead, admit_request, request_fields
from sidecar.http.session import Fields, Session, StreamSink
from sidecar.net.pool import Pool
from sidecar.rules.authz import Denied, Facts, Permit, Verdict
from sidecar.rules.errors import RoutingError
from sidecar.rules.facts import Token
from sidecar.rules.routing import ServiceName, pick_port, resolve
from sidecar.runtime import INBOUND, Call, Runtime

if TYPE_CHECKING:
    from protos.hauberk.v1.discovery_pb2 import Decision
    from sidecar.jwks.authenticator import Authenticator, User

TRIES_MAX = 3


PEER_AUTHENTICATION = "peer-authentication"
"""What is named as the rule when a port takes no plaintext any more."""
NO_PLAINTEXT = "the port takes no plaintext from this peer any more"


class Edge(NamedTuple):
    """The plaintext listener that a connection came in by."""

    port: int
    """The one it stands for."""
    refusal: Callable[[], str]
    """Why the connection may be no longer; "" while it may."""


class InboundPeer:
    """`ServerHandler` of one connection: the requests of one caller. Without `edge`, of a verified peer of the mesh."""

    def __init__(self, runtime: Runtime, apps: Mapping[int, Pool], caller: Caller, edge: Edge | None = None) -> None:
        self.runtime = runtime
        self.caller = caller
        self._apps = apps
        self.edge = edge
        self._limits = runtime.config.limits
        self._source = str(caller.facts.principal or "")
        self._service = ServiceName(runtime.config.service, runtime.config.namespace)
        self._own_hosts = self._service.long_names
        self._was_named = caller.facts.sni != ""
        self._open: set[_ToApp] = set()
        """Those of a plaintext connection."""

    @property
    def source_ip(self) -> str:
        return self.caller.facts.source_ip

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        call = _ToApp(self, self._source)
        exchange = self.runtime.begin(session, stream, end, call)
        if self.edge is not None:
            self._open.add(call)
        try:
            self._serve(exchange, call, fields, end)
        except RequestError as e:
            self.runtime.refuse(exchange, fields, e)
        return exchange.sink

    def _serve(self, exchange: Exchange, call: _ToApp, fields: Fields, end: bool) -> None:
        in_force = self.caller.in_force()
        call.destination, call.version = in_force.own_id, in_force.version

        # 1 understand
        head = admit_request(fields, end, self._limits)
        exchange.understood(head)
        if self._was_named and head.host not in self._own_hosts:
            self._check_host(head)
        call.port = self._port(head)
        if self.edge is not None:
            head.fields = [field for field in head.fields if not is_method_override(field[0])]

        self._decide(exchange, call, head, in_force)

    def _decide(self, exchange: Exchange, call: _ToApp, head: RequestHead, in_force: InForce) -> None:
        """The rest of the line. A request whose token waits for its issuer's keys comes here again."""
        # 2 decide; the exchange is live already, so a policy change from here on finds it
        seen = in_force.at(call.port)
        call.source = seen.source
        if self.edge is not None and self.edge.refusal():
            self.runtime.deny(exchange, call, self._no_plaintext())
            return
        if in_force.authenticator is not None:
            exchange.reserved = in_force.authenticator.outputs
            try:
                call.user = in_force.authenticator.admit(call, head, is_exposed=self.caller.is_exposed)
            except Waiting:
                call.waits_for = in_force.authenticator
                return
        verdict = self._verdict(in_force, seen, head, call)
        if isinstance(verdict, Denied):
            self.runtime.deny(exchange, call, verdict)
            return
        call.permit = verdict

        # 3 connect, 4 relay
        exchange.upstream_fields = request_fields(head, [*seen.identity_fields, self.runtime.trace(call, head)])
        call.open(self._apps[call.port], verdict)

    def _check_host(self, head: RequestHead) -> None:
        """Whoever asked for this service by name when they connected (a sidecar takes no other name) asks for no other
        one on that connection (row C18). Names that are none of a mesh say nothing. Raises Misdirected."""
        try:
            named = resolve(head.host, None, "")  # a name without its namespace is the caller's own business
        except RoutingError:
            return
        if named != self._service:
            raise Misdirected("the host is another service than the one the connection was made to", row="C18")

    def _port(self, head: RequestHead) -> int:
        if self.edge is not None:
            return self.edge.port
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
            in_force = self.caller.in_force()
            call.version = in_force.version
            self._decide(exchange, call, exchange.head, in_force)
        except RequestError as e:
            self.runtime.refuse(exchange, [], e)

    def judge_again(self, head: RequestHead, call: _ToApp) -> Permit | Denied:
        """With the policy of now. Raises Unauthorized if the user's token does not hold under it."""
        if self.edge is not None and self.edge.refusal():
            return self._no_plaintext()
        in_force = self.caller.in_force()
        if in_force.authenticator is not None:
            call.user = in_force.authenticator.again(call.user, head, is_exposed=self.caller.is_exposed)
        return self._verdict(in_force, in_force.at(call.port), head, call)

    @staticmethod
    def _verdict(in_force: InForce, seen: Seen, head: RequestHead, call: _ToApp) -> Permit | Denied:
        token = call.token if in_force.authenticator is not None else None
        method = head.method.decode("ascii")
        return seen.judge.authorize(head.host, call.port, method, head.path, head.fields, token)

    def describe(self, head: RequestHead, call: _ToApp, verdict: Verdict, decision_id: str, at: float) -> Decision:
        """What was decided, for the control plane."""
        snapshot, authorizer = self.runtime.current()
        peer = self.caller.in_force().at(call.port).facts
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

    def end_if_refused(self) -> bool:
        """Fail what is open on a plaintext connection that may be no longer. True if that is so."""
        if self.edge is None or not self.edge.refusal():
            return False
        for call in list(self._open):
            self.runtime.deny(call.exchange, call, self._no_plaintext())
        return True

    def over(self, call: _ToApp) -> None:
        self._open.discard(call)

    def _no_plaintext(self) -> Denied:
        snapshot = self.runtime.snapshot
        return Denied(rule=PEER_AUTHENTICATION, reason=NO_PLAINTEXT, version=snapshot.version if snapshot else 0)


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

    @property
    def source_ip(self) -> str:
        return self._peer.source_ip

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
        if self._peer.edge is not None:
            self._peer.over(self)
        if self.waits_for is not None:
            self.waits_for.forget(self)
        if self._pool is not None:
            self._pool.forget(self)
            self._pool.freed(self._session)
