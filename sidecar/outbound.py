"""From the app into the mesh. `OutboundApp._serve` is the straight line: understand, resolve, connect, relay.

Whether the call is allowed is not decided here but at the other end, where the caller cannot reach (design: an app and
its own sidecar are one trust domain). What is decided here is *whom* the request may be given to: an endpoint the
control plane named, which must prove the identity the control plane named.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sidecar.config import OutboundPort
from sidecar.errors import NoEndpoint, NotFound, RequestError, TooManyRequests
from sidecar.exchange import Exchange, State
from sidecar.http.headers import RequestHead, admit_request, request_fields
from sidecar.http.session import Fields, Session, StreamSink
from sidecar.net.pool import Pool
from sidecar.rules.balance import pick
from sidecar.rules.errors import RoutingError
from sidecar.rules.routing import pick_port, resolve
from sidecar.rules.snapshot import Endpoint, Service
from sidecar.runtime import OUTBOUND, Call, Runtime

TRIES_MAX = 3
LOOKUP_TIMEOUT_S = 2.0
FAILING_S = 5.0
"""An endpoint that could not be reached is tried last for so long; then it may show that it is back."""
ROUTES_MAX = 4_096
USED_EVERY_S = 1.0
"""How often the control link is told that a name is still used; it drops what was not used for minutes."""


_PoolKey = tuple[str, str, str]
"""Address, identity, and what is asked for there: a connection is made for one service (row C18)."""


class _Target:
    """One endpoint of a service at one port, and its pool once it was used."""

    __slots__ = ("endpoint", "identity", "pool", "port", "service")

    def __init__(self, service: str, endpoint: Endpoint, port: int) -> None:
        self.service = service
        self.endpoint = endpoint
        self.identity = str(endpoint.identity)
        self.port = port
        self.pool: Pool | None = None

    @property
    def key(self) -> _PoolKey:
        return self.endpoint.address, self.identity, self.service

    @property
    def load(self) -> int:
        return self.pool.load if self.pool is not None else 0


class _Route:
    """Who serves a service's port in the snapshot in force: put together once, however many endpoints there are."""

    __slots__ = ("problem", "targets", "used_at")

    def __init__(self, name: str, service: Service, port: int | None) -> None:
        self.used_at = 0.0
        self.targets: list[_Target] = []
        self.problem: Callable[[], RequestError] = partial(NoEndpoint, f"nobody serves {name} now")
        """What is wrong if there are no targets."""
        if not service.known:
            self.problem = partial(NotFound, f"no service {name} has ever joined the mesh")
        for endpoint in service.endpoints if service.known else ():
            try:
                self.targets.append(_Target(name, endpoint, pick_port(endpoint.ports.keys(), port)))
            except RoutingError as e:
                self.problem = partial(NotFound, str(e))


class Outbound:
    """What the requests of all local connections share: pools of mesh connections, and names being looked up."""

    def __init__(
        self,
        runtime: Runtime,
        make_pool: Callable[[Endpoint, str], Pool],
        subscribe: Callable[[str], bool],
        used: Callable[[str], None],
    ) -> None:
        self.runtime = runtime
        self._make_pool = make_pool
        """Of connections to an endpoint that ask it for a service, "name.namespace"."""
        self._subscribe = subscribe
        """Asks the control plane about "name.namespace". False: the control plane is out of reach or the list full."""
        self._used = used
        """Keeps a name that is called from being forgotten."""
        self._pools: dict[_PoolKey, Pool] = {}
        self._lookups: dict[str, dict[_ToService, float]] = {}
        """Name -> who waits for it, and until when."""
        self._routes: dict[tuple[str, int | None], _Route] = {}
        """Of the snapshot in force."""

    def route(self, name: str, port: int | None) -> _Route | None:
        """None: the control plane has not told us of the name yet. Raises NotReady."""
        route = self._routes.get((name, port))
        if route is None:
            snapshot, _ = self.runtime.current()
            service = snapshot.services.get(name)
            if service is None:
                return None
            route = _Route(name, service, port)
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            self._routes[name, port] = route
        now = self.runtime.driver.now
        if now - route.used_at > USED_EVERY_S:
            route.used_at = now
            self._used(name)
        return route

    def look_up(self, name: str, call: _ToService) -> None:
        """Park the call until a snapshot answers for `name`. Raises NoEndpoint or TooManyRequests."""
        waiting = self._lookups.setdefault(name, {})
        if len(waiting) >= self.runtime.config.limits.waiting_exchanges_max:
            raise TooManyRequests(f"too many requests wait to learn where {name} is")
        if not self._subscribe(name):
            if not waiting:
                del self._lookups[name]
            raise NoEndpoint(f"the control plane cannot be asked where {name} is")
        waiting[call] = self.runtime.driver.now + LOOKUP_TIMEOUT_S

    def forget(self, name: str, call: _ToService) -> None:
        if self._lookups:
            self._lookups.get(name, {}).pop(call, None)

    def snapshot_changed(self) -> None:
        """Resume who waited for a name, and let go of endpoints that are no more."""
        self._routes.clear()
        snapshot, _ = self.runtime.current()
        for name in [n for n in self._lookups if n in snapshot.services]:
            for call in list(self._lookups.pop(name)):
                call.resume()
        services = snapshot.services.items()
        alive = {(e.address, str(e.identity), name) for name, service in services for e in service.endpoints}
        for key in [k for k in self._pools if k not in alive]:
            self._pools.pop(key).close()
        self.runtime.driver.flush()

    def retire_connections(self) -> None:
        """Our certificate changed: new requests go out under the new one, streams that are open finish on the old."""
        for pool in self._pools.values():
            pool.retire()
        self.runtime.driver.flush()

    def sweep(self, now: float) -> None:
        for name, waiting in list(self._lookups.items()):
            for call, until in list(waiting.items()):
                if now > until:
                    waiting.pop(call)
                    call.fail(NoEndpoint(f"the control plane did not say where {name} is"))
            if not waiting:
                self._lookups.pop(name, None)
        for pool in list(self._pools.values()):
            pool.freed()
        self.runtime.driver.flush()

    def pool(self, target: _Target) -> Pool:
        if target.pool is None:
            pool = self._pools.get(target.key)
            if pool is None:
                pool = self._pools[target.key] = self._make_pool(target.endpoint, target.service)
            target.pool = pool
        return target.pool

    def is_failing(self, service: str, endpoint: Endpoint) -> bool:
        pool = self._pools.get((endpoint.address, str(endpoint.identity), service))
        return pool is not None and pool.failures > 0 and self.runtime.driver.now - pool.failed_at < FAILING_S


class OutboundApp:
    """`ServerHandler` of one local connection. `fixed`: it came in on a named port, which means one service."""

    def __init__(self, outbound: Outbound, fixed: OutboundPort | None) -> None:
        self._outbound = outbound
        self._fixed = fixed

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        runtime = self._outbound.runtime
        call = _ToService(self._outbound)
        exchange = runtime.begin(session, stream, end, call)
        try:
            self._serve(exchange, call, fields, end)
        except RequestError as e:
            runtime.refuse(exchange, fields, e)
        return exchange.sink

    def _serve(self, exchange: Exchange, call: _ToService, fields: Fields, end: bool) -> None:
        runtime = self._outbound.runtime
        snapshot, _ = runtime.current()
        call.source, call.version = str(snapshot.identity), snapshot.version

        # 1 understand
        head = admit_request(fields, end, runtime.config.limits)
        exchange.understood(head)

        # 2 resolve
        name, port = self._destination(head, snapshot.namespace)

        # 3 connect, 4 relay
        exchange.upstream_fields = request_fields(head, [runtime.trace(call, head)])
        call.start(name, port)

    def _destination(self, head: RequestHead, own_namespace: str) -> tuple[str, int | None]:
        """The service and, if one was named, its port. On a named port the authority becomes the service's own."""
        try:
            if self._fixed is None:
                return str(resolve(head.host, head.port, own_namespace)), head.port
            name = str(resolve(self._fixed.service, self._fixed.port, own_namespace))
        except RoutingError as e:
            raise NotFound(str(e)) from None
        head.authority = f"{name}:{self._fixed.port}".encode()
        return name, self._fixed.port


class _ToService(Call):
    """Finds an exchange an endpoint and a connection; tries another endpoint if one cannot be reached."""

    __slots__ = ("_name", "_outbound", "_pool", "_session", "_tried", "_tries", "_wanted_port")

    def __init__(self, outbound: Outbound) -> None:
        super().__init__(OUTBOUND, "")
        self._outbound = outbound
        self._name = ""
        self._wanted_port: int | None = None
        self._pool: Pool | None = None
        self._session: Session | None = None
        self._tries = 0
        self._tried: tuple[str, ...] = ()
        """Endpoints that could not be reached."""

    def start(self, name: str, port: int | None) -> None:
        """Raises RequestError."""
        self._name, self._wanted_port = name, port
        self.exchange.on_unprocessed = self._again
        self._find()

    def _find(self) -> None:
        """Raises RequestError."""
        route = self._outbound.route(self._name, self._wanted_port)
        if route is None:
            self._outbound.look_up(self._name, self)
            return
        target = self._choose(route)
        self.port, self.destination, self.endpoint = target.port, target.identity, target.endpoint.address
        self._tries += 1
        self._pool = self._outbound.pool(target)
        self._pool.acquire(self)

    def _choose(self, route: _Route) -> _Target:
        """The lesser load of two; of those not tried yet and not failing, if there are such."""
        targets = route.targets
        if not targets:
            raise route.problem()
        rng = self._outbound.runtime.chance
        target = pick(targets, _load, rng)
        if not self._tried and not self._outbound.pool(target).failures:
            return target  # nothing is wrong with it, so it does not matter how the others are
        candidates = [t for t in targets if t.endpoint.address not in self._tried] or targets
        candidates = [t for t in candidates if not self._outbound.is_failing(self._name, t.endpoint)] or candidates
        return pick(candidates, _load, rng)

    def resume(self) -> None:
        """The name was looked up."""
        try:
            self._find()
        except RequestError as e:
            self.exchange.fail(e)

    def fail(self, error: RequestError) -> None:
        self.exchange.fail(error)

    def connected(self, session: Session) -> None:
        self._session = session
        self.exchange.connected(session)

    def unreachable(self, error: RequestError) -> None:
        """Nothing was sent, so trying elsewhere is always safe."""
        self._tried += (self.endpoint,)
        if self._tries >= TRIES_MAX or self.exchange.state is not State.PARKED:
            self.exchange.fail(error)
            return
        self.resume()

    def _again(self, exchange: Exchange) -> None:
        if self._tries >= TRIES_MAX:
            exchange.on_unprocessed = None
        if self._pool is not None:
            self._pool.freed(self._session)
        self.resume()

    def release(self) -> None:
        self._outbound.forget(self._name, self)
        if self._pool is not None:
            self._pool.forget(self)
            self._pool.freed(self._session)


def _load(target: _Target) -> int:
    return target.load
