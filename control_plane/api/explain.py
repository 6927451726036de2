"""Explain: would this request pass, and which rule says so? Asked of the evaluator that enforces."""

from __future__ import annotations

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.api.authz import Caller
from control_plane.errors import FailedPrecondition, InvalidRequest, NotFound
from control_plane.model import Workload
from control_plane.policy.explain import explain
from control_plane.policy.parse import DEFAULT_NAMESPACE
from control_plane.push.snapshot import WorldLoader, compile_content
from control_plane.registry import Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import config_pb2 as pb
from sidecar.rules.authz import Facts
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.errors import RoutingError
from sidecar.rules.explain import Explanation
from sidecar.rules.routing import ServiceName, pick_port, resolve


class ExplainApi:
    """Handler of hauberk.v1.Config/Explain."""

    def __init__(self, *, store: Store, registry: Registry, loader: WorldLoader, trust_domain: TrustDomain) -> None:
        self._store = store
        self._registry = registry
        self._loader = loader
        self._trust_domain = trust_domain

    async def explain(self, _caller: Caller, request: pb.ExplainRequest) -> pb.ExplainResponse:
        principal = self._principal(request.from_identity)
        name, workload = self._target(request.to_service)
        world = self._loader.load()
        message = compile_content(world, workload, ()).message
        message.epoch, message.version = world.epoch, world.revision
        snapshot = snapshot_from_proto(message)  # as the sidecar does: what it would refuse cannot be explained either
        facts = Facts(
            principal=principal,
            host=(request.host or str(name)).lower(),
            port=self._port(name, request.port),
            method=request.method or "GET",
            path=request.path or "/",
        )
        return _explained(explain(snapshot, facts), principal, workload)

    def _principal(self, text: str) -> SpiffeId:
        try:
            if text.startswith("spiffe://"):
                return SpiffeId.parse(text)
            namespace, slash, service_account = text.partition("/")
            if not slash:
                raise InvalidRequest(f'from: {text[:80]!r} has no namespace; write "namespace/service-account"')
            return SpiffeId.for_workload(self._trust_domain, namespace, service_account)
        except CertsError as error:
            raise InvalidRequest(
                f'from: {error}; write "namespace/service-account" or a SPIFFE ID such as'
                f" spiffe://{self._trust_domain}/ns/shop/sa/web"
            ) from error

    def _target(self, text: str) -> tuple[ServiceName, Workload]:
        try:
            name = resolve(text.lower(), None, DEFAULT_NAMESPACE)
        except RoutingError as error:
            raise InvalidRequest(f"to: {error}") from error
        for workload in self._store.workloads():
            if workload.service_name == str(name):
                return name, workload
        raise NotFound(
            f"nobody ever joined as {name}; see who did with: hauberk status (a name without a namespace is in"
            f' "{DEFAULT_NAMESPACE}")'
        )

    def _port(self, name: ServiceName, port: int) -> int:
        """As a caller's sidecar would pick it, if a sidecar of the service told its ports."""
        if port > 65_535:
            raise InvalidRequest(f"port: {port} is no port")
        if port:
            return port
        ports = {
            number
            for one in self._registry
            if one.endpoint and one.workload.service_name == str(name)
            for number in one.endpoint.ports
        }
        if not ports:
            raise FailedPrecondition(
                f"no sidecar of {name} is connected, so its ports are not known; name one with --port"
            )
        try:
            return pick_port(ports, None)
        except RoutingError as error:
            raise FailedPrecondition(f"port: {error}") from error


def _explained(explanation: Explanation, principal: SpiffeId, workload: Workload) -> pb.ExplainResponse:
    return pb.ExplainResponse(
        allowed=explanation.allowed,
        rule=explanation.rule,
        reason=explanation.reason,
        source=explanation.source,
        version=explanation.version,
        from_identity=str(principal),
        to_identity=str(workload.spiffe_id),
        near_misses=[
            pb.NearMiss(
                rule=miss.rule,
                source=miss.source,
                conditions=[
                    pb.Condition(field=one.field, wanted=one.wanted, got=one.got, matched=one.matched)
                    for one in miss.conditions
                ],
            )
            for miss in explanation.near_misses
        ],
    )
