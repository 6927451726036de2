"""Explain: would this request pass, and which rule says so? Or: why was that one denied? Asked of the evaluator that
enforces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from certs.spiffe_id import TrustDomain
from control_plane.api import answers
from control_plane.api.authz import Caller
from control_plane.api.questions import Question, not_taken, read_principal, read_question, reported_facts, token_of
from control_plane.decisions import ALL_MAX, ID, KEPT_S, PER_WORKLOAD_MAX, Decided, DecisionLog
from control_plane.errors import FailedPrecondition, InvalidRequest, NotFound
from control_plane.model import Workload
from control_plane.policy.explain import mode_at, mode_in_words, refused_at_the_door
from control_plane.policy.parse import DEFAULT_NAMESPACE
from control_plane.push.snapshot import World, WorldLoader, compile_content
from control_plane.registry import Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import config_pb2 as pb
from sidecar.rules.authz import Authorizer, Facts
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.errors import RoutingError
from sidecar.rules.routing import PORT_MAX, ServiceName, pick_port, resolve
from sidecar.rules.snapshot import Snapshot, TlsMode


class ExplainApi:
    """Handler of hauberk.v1.Config/Explain."""

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        loader: WorldLoader,
        decisions: DecisionLog,
        trust_domain: TrustDomain,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._registry = registry
        self._loader = loader
        self._decisions = decisions
        self._trust_domain = trust_domain
        self._now = now

    async def explain(self, _caller: Caller, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """With a decision's id: of what was decided, `to_service` choosing among those that reported it. Without: of
        what would be decided now."""
        return self._decided(request) if request.decision_id else self._asked(request)

    # --- what would be decided ---------------------------------------------------------------------------------------

    def _asked(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        principal = read_principal(request.from_identity, self._trust_domain)
        name, workload = self._target(request.to_service)
        port = self._port(name, request.port)
        question = read_question(request, principal, str(name), port)
        snapshot = _snapshot(self._loader.load(), workload)
        facts, notes = self._at_the_port(question, snapshot)
        tls = snapshot.peer_authentication.port(port)
        if principal is None and (why := refused_at_the_door(tls, facts.source_ip, self._now())):
            answer = answers.refused_by_peer_authentication(why, tls, snapshot)
        else:
            answer = answers.explained(Authorizer(snapshot), facts)
        if principal is not None and all(one.spiffe_id != principal for one in self._store.workloads()):
            notes.append(f"nobody ever joined as {principal}")
        answer.from_identity = answers.caller(principal)
        answer.to_identity = str(workload.spiffe_id)
        answer.note = "; ".join(notes)
        return answer

    def _at_the_port(self, question: Question, snapshot: Snapshot) -> tuple[Facts, list[str]]:
        """The facts as the workload's sidecar would have them, and what to know of them."""
        facts, notes = question.facts, list(question.notes)
        if question.claims is not None:
            facts = replace(facts, token=(token := token_of(question.claims, snapshot)))
            if why := not_taken(token, snapshot):
                notes.append(why)
        tls = snapshot.peer_authentication.port(facts.port)
        if facts.principal is not None and mode_at(tls, self._now()) is TlsMode.DISABLE:
            facts = replace(facts, principal=None)
            notes.append(f"on port {facts.port} nobody has an identity ({mode_in_words(tls)})")
        elif facts.principal is None and tls.peers and not facts.source_ip:
            notes.append(f"plaintext is taken from {', '.join(tls.peers)} only; give --source-ip")
        return facts, notes

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
        if port > PORT_MAX:
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

    # --- what was decided --------------------------------------------------------------------------------------------

    def _decided(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        decided = self._find(request)
        decision, now = decided.message, self._loader.load()
        then = self._loader.as_of(decision.version) if decision.epoch == now.epoch else None
        snapshot = _snapshot(then or now, decided.workload)
        authorizer = Authorizer(snapshot)
        answer = answers.decided(decision, authorizer, reported_facts(decision.asked, snapshot))
        answer.to_identity = str(decided.workload.spiffe_id)
        answer.note = "; ".join(filter(None, (answer.note, self._since(decided, then, snapshot))))
        return answer

    def _find(self, request: pb.ExplainRequest) -> Decided:
        """Raises InvalidRequest, NotFound, or FailedPrecondition if several workloads reported the id."""
        decision_id = request.decision_id.strip().lower()
        if not ID.fullmatch(decision_id):
            raise InvalidRequest(
                f"decision: {request.decision_id[:80]!r} is no id; it has 16 hexadecimal digits and is in the answer's"
                " header hauberk-decision-id and in the access log"
            )
        found = self._decisions.find(decision_id, self._now())
        if request.to_service:
            name, _ = self._target(request.to_service)
            found = [one for one in found if one.workload.service_name == str(name)]
        if not found:
            raise NotFound(
                f"no decision {decision_id} is known. The newest {PER_WORKLOAD_MAX} of each service are kept"
                f" ({ALL_MAX} of all; fewer of large ones), for {KEPT_S / 3_600:g} h at most and until the control"
                " plane starts again; a sidecar reports them about a second later. The id is in the answer's header"
                " hauberk-decision-id;"
                " the access log of the sidecar that was called has a line with it"
            )
        if len(found) > 1:
            names = ", ".join(sorted(one.workload.service_name for one in found))
            raise FailedPrecondition(
                f"several services reported a decision {decision_id}: {names}. Only one can have made it; choose the"
                " one that was called with --to"
            )
        return found[0]

    def _since(self, decided: Decided, then: World | None, held_against: Snapshot) -> str:
        """What became of the policies since it was decided."""
        world = self._loader.load()
        if then is None:
            return (
                f"the policies of version {decided.message.version} are not known any more; conditions are those of"
                f" version {world.revision}"
            )
        present = _snapshot(world, decided.workload)
        if replace(present, version=held_against.version) == held_against:
            return ""
        facts = reported_facts(decided.message.asked, present)
        verdict = answers.explained(Authorizer(present), facts)
        word = "allow" if verdict.allowed else "deny"
        return f"policy changed since: version {world.revision} now would {word} it, by {verdict.rule}"


def _snapshot(world: World, workload: Workload) -> Snapshot:
    message = compile_content(world, workload, ()).message
    message.epoch, message.version = world.epoch, world.revision
    return snapshot_from_proto(message)  # as the sidecar does: what it would refuse cannot be explained either
