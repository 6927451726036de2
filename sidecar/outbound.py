"""From the app into the mesh. `OutboundApp._serve` is the straight line: understand, resolve, connect, relay.

Whether the call is allowed is not decided here but at the other end, where the caller cannot reach (design: an app and
its own sidecar are one trust domain). What is decided here is *whom* the request may be given to: an endpoint the
control plane named, which must prove the identity the control plane named.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config import OutboundPort
from sidecar.errors import NoEndpoint, NotFound, RequestError, TooManyRequests
from sidecar.exchange import Exchange, State
from sidecar.http.headers import RequestHead, admit_request, request_fields
from sidecar.http.session import Fields, Session, StreamSink
from sidecar.net.pool import Pool
from sidecar.rules.balance import pick
from sidecar.rules.errors import RoutingError
from sidecar.rules.routing import ServiceName, pick_port, resolve
from sidecar.rules.snapshot import Endpoint, Service
from sidecar.runtime import OUTBOUND, Call, Runtime

TRIES_MAX = 3
LOOKUP_TIMEOUT_S = 2.0
FAILING_S = 5.0
"""An endpoint that could not be reached is tried last for so long; then it may show that it is back."""


class Outbound:
    """What the requests of all local connections share: pools of mesh connections, and names being looked up."""

    def __init__(
        self,
        runtime: Runtime,
        make_pool: Callable[[Endpoint], Pool],
        subscribe: Callable[[str], bool],
        used: Callable[[str], None],
    ) -> None:
        self.runtime = runtime
        self._make_pool = make_pool
        self._subscribe = subscribe
        """Asks the control plane about "name.namespace". False: the control plane is out of reach or the list full."""
        self._used = used
        """Keeps a name that is called from being forgotten."""
        self._pools: dict[tuple[str, str], Pool] = {}
        self._lookups: dict[str, dict[_ToService, float]] = {}
        """Name -> who waits for it, and until when."""

    def service(self, name: str) -> Service | None:
        """None: the control plane has not told us of it yet."""
        snapshot, _ = self.runtime.current()
        service = snapshot.services.get(name)
        if service is not None:
            self._used(name)
        return service

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
        self._lookups.get(name, {}).pop(call, None)

    def snapshot_changed(self) -> None:
        """Resume who waited for a name, and let go of endpoints that are no more."""
        for name in [n for n in self._lookups if self.service(n) is not None]:
            for call in list(self._lookups.pop(name)):
                call.resume()
        snapshot, _ = self.runtime.current()
        alive = {(e.address, str(e.identity)) for s in snapshot.services.values() for e in s.endpoints}
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
        self.runtime.driver.flush()

    def pool(self, endpoint: Endpoint) -> Pool:
        key = (endpoint.address, str(endpoint.identity))
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self._make_pool(endpoint)
        return pool

    def load(self, endpoint: Endpoint) -> int:
        pool = self._pools.get((endpoint.address, str(endpoint.identity)))
        return pool.load if pool is not None else 0

    def is_failing(self, endpoint: Endpoint) -> bool:
        pool = self._pools.get((endpoint.address, str(endpoint.identity)))
        return pool is not None and pool.failures > 0 and self.runtime.driver.now - pool.failed_at < FAILING_S


class OutboundApp:
    """`ServerHandler` of one local connection. `fixed`: it came in on a named port, which means one service."""

    def __init__(self, outbound: Outbound, fixed: OutboundPort | None) -> None:
        self._outbound = outbound
        self._fixed = fixed

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        runtime = self._outbound.runtime
        call = Call(direction=OUTBOUND, source="")
        exchange = runtime.begin(session, stream, fields, end, call)
        try:
            self._serve(exchange, call, fields, end)
        except RequestError as e:
            exchange.fail(e)
        return exchange.sink

    def _serve(self, exchange: Exchange, call: Call, fields: Fields, end: bool) -> None:
        runtime = self._outbound.runtime
        snapshot, _ = runtime.current()
        call.source, call.version = str(snapshot.identity), snapshot.version

        # 1 understand
        head = admit_request(fields, end, runtime.config.limits)
        exchange.understood(head)

        # 2 resolve
        name, port = self._destination(head, snapshot.namespace)

        # 3 connect, 4 relay
        trace = runtime.trace(call, head)
        exchange.upstream_fields = request_fields(head, trace)
        _ToService(self._outbound, exchange, call, str(name), port).start()

    def _destination(self, head: RequestHead, own_namespace: str) -> tuple[ServiceName, int | None]:
        """The service and, if one was named, its port. On a named port the authority becomes the service's own."""
        try:
            if self._fixed is None:
                return resolve(head.host, head.port, own_namespace), head.port
            name = resolve(self._fixed.service, self._fixed.port, own_namespace)
        except RoutingError as e:
            raise NotFound(str(e)) from None
        head.authority = f"{name}:{self._fixed.port}".encode()
        return name, self._fixed.port


class _ToService:
    """Finds an exchange an endpoint and a connection; tries another endpoint if one cannot be reached."""

    def __init__(self, outbound: Outbound, exchange: Exchange, call: Call, name: str, port: int | None) -> None:
        self._outbound = outbound
        self._exchange = exchange
        self._call = call
        self._name = name
        self._port = port
        self._pool: Pool | None = None
        self._tries = 0
        call.release = self._release
        exchange.on_unprocessed = self._again

    def start(self) -> None:
        """Raises RequestError."""
        service = self._outbound.service(self._name)
        if service is None:
            self._outbound.look_up(self._name, self)
            return
        if not service.known:
            raise NotFound(f"no service {self._name} has ever joined the mesh")
        endpoint, self._call.port = self._choose(service)
        self._call.destination, self._call.endpoint = str(endpoint.identity), endpoint.address
        self._tries += 1
        self._pool = self._outbound.pool(endpoint)
        self._pool.acquire(self)

    def _choose(self, service: Service) -> tuple[Endpoint, int]:
        """Among the endpoints that serve the port: not tried yet, then not failing, then the lesser load of two."""
        serving: list[Endpoint] = []
        problem = f"nobody serves {self._name} now"
        for endpoint in service.endpoints:
            try:
                pick_port(endpoint.ports.keys(), self._port)
            except RoutingError as e:
                problem = str(e)
            else:
                serving.append(endpoint)
        if not serving:
            raise NotFound(problem) if service.endpoints else NoEndpoint(problem)
        candidates = [e for e in serving if e.address not in self._call.tried] or serving
        candidates = [e for e in candidates if not self._outbound.is_failing(e)] or candidates
        chosen = pick(candidates, self._outbound.load, self._outbound.runtime.rng)
        return chosen, pick_port(chosen.ports.keys(), self._port)

    def resume(self) -> None:
        """The name was looked up."""
        try:
            self.start()
        except RequestError as e:
            self._exchange.fail(e)

    def fail(self, error: RequestError) -> None:
        self._exchange.fail(error)

    def connected(self, session: Session) -> None:
        self._exchange.connected(session)

    def unreachable(self, error: RequestError) -> None:
        """Nothing was sent, so trying elsewhere is always safe."""
        self._call.tried += (self._call.endpoint,)
        if self._tries >= TRIES_MAX or self._exchange.state is not State.PARKED:
            self._exchange.fail(error)
            return
        self.resume()

    def _again(self, exchange: Exchange) -> None:
        if self._tries >= TRIES_MAX:
            exchange.on_unprocessed = None
        if self._pool is not None:
            self._pool.freed()
        self.resume()

    def _release(self) -> None:
        self._outbound.forget(self._name, self)
        if self._pool is not None:
            self._pool.forget(self)
            self._pool.freed()
