"""What policies show beside the workloads there are, and beside whose tokens those take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from certs.spiffe_id import SpiffeId
from control_plane.policy.compile import selects
from control_plane.policy.model import (
    MeshConfigSpec,
    ParsedResource,
    PolicySpec,
    RequestAuthenticationSpec,
    Selection,
)
from control_plane.policy.rehearse.findings import (
    HTTP_ON_TCP,
    NO_TOKENS,
    NOBODY_MAY_CALL,
    SELECTS_NOTHING,
    TOKEN_NOT_REQUIRED,
    UNKNOWN_CALLER,
    UNKNOWN_PORT,
    Finding,
)
from control_plane.policy.rehearse.lint_rules import RuleAt
from control_plane.policy.rehearse.mesh import Inhabitant
from control_plane.policy.rehearse.possible import Known, View, holds
from sidecar.rules.conditions import NAMESPACE, PORT, PRINCIPAL, Condition, Scope
from sidecar.rules.facts import Peer
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import compile_matcher
from sidecar.rules.request_facts import peer_attributes
from sidecar.rules.snapshot import Action, Protocol

_OF_TOKENS = (Attribute.REQUEST_PRINCIPAL, Attribute.AUDIENCES, Attribute.PRESENTER, Attribute.CLAIM)
Selecting = PolicySpec | RequestAuthenticationSpec


def found(
    policies: Sequence[PolicySpec],
    requests: Sequence[RequestAuthenticationSpec],
    rules: Sequence[RuleAt],
    mesh: MeshConfigSpec,
    inhabitants: Sequence[Inhabitant],
) -> Iterator[Finding]:
    yield from _no_tokens(rules, requests, mesh, inhabitants)
    yield from _not_required(requests, rules, mesh, inhabitants)
    if inhabitants:
        yield from _unknown_callers(rules, inhabitants)
        yield from _ports(rules, mesh, inhabitants)
        yield from _nobody_may_call(policies, requests, rules, mesh, inhabitants)


def selects_nothing(
    resources: Iterable[ParsedResource], mesh: MeshConfigSpec, inhabitants: Sequence[Inhabitant]
) -> Iterator[Finding]:
    for one in resources if inhabitants else ():
        spec = one.spec
        if isinstance(spec, MeshConfigSpec) or any(selects(spec, other.spec, mesh) for other in inhabitants):
            continue
        yield Finding(
            code=SELECTS_NOTHING,
            place=one.source,
            subject=f"{one.kind} {one.namespace}/{one.name}",
            field="spec",
            message=f"selects no workload ({_selection(spec.selection, one.namespace)})",
            hint="correct the selector or the namespace, or remove it",
        )


def _selection(selection: Selection, namespace: str) -> str:
    asked = [f"{name}={value}" for name, value in selection.labels.items()]
    asked += [f"service {name}" for name in selection.services]
    return ", ".join([f"namespace {namespace}", *asked])


# Tokens


def _asks_for_tokens(condition: Condition) -> bool:
    return isinstance(condition.attribute, Key) and condition.attribute.attribute in _OF_TOKENS


def _conditions(view: View) -> Iterator[Condition]:
    for part in (view.sources, view.operations, (view.when,)):
        for conditions in part:
            yield from conditions


def _no_tokens(
    rules: Iterable[RuleAt],
    requests: Sequence[RequestAuthenticationSpec],
    mesh: MeshConfigSpec,
    inhabitants: Sequence[Inhabitant],
) -> Iterator[Finding]:
    for one in rules:
        if not any(map(_asks_for_tokens, _conditions(one.view))):
            continue
        where = ""
        if inhabitants:
            selected = [other for other in inhabitants if selects(one.spec, other.spec, mesh)]
            without = [x for x in selected if not any(selects(request, x.spec, mesh) for request in requests)]
            if not without:
                continue
            where = f" at {without[0].service_name}"
        elif any(_may_meet(one.spec, request, mesh) for request in requests):
            continue
        message = f"asks for a token, but no RequestAuthentication takes any{where}"
        yield one.finding(NO_TOKENS, message, "apply a RequestAuthentication that selects the same workloads")


def _not_required(
    requests: Iterable[RequestAuthenticationSpec],
    rules: Sequence[RuleAt],
    mesh: MeshConfigSpec,
    inhabitants: Sequence[Inhabitant],
) -> Iterator[Finding]:
    asking = [one for one in rules if not one.policy.shadow and any(map(_asks_for_tokens, _conditions(one.view)))]
    for request in requests:
        if any(_meet(one.spec, request, mesh, inhabitants) for one in asking):
            continue
        authentication = request.authentication
        yield Finding(
            code=TOKEN_NOT_REQUIRED,
            place=authentication.source,
            subject=f"RequestAuthentication {authentication.namespace}/{authentication.name}",
            field="spec",
            message="refuses bad tokens, but no rule demands one: requests without a token pass",
            hint="demand one in an AuthorizationPolicy: requestPrincipals, or a condition on request.auth",
        )


def _meet(one: Selecting, other: Selecting, mesh: MeshConfigSpec, inhabitants: Sequence[Inhabitant]) -> bool:
    if not inhabitants:
        return _may_meet(one, other, mesh)
    return any(selects(one, x.spec, mesh) and selects(other, x.spec, mesh) for x in inhabitants)


def _may_meet(one: Selecting, other: Selecting, mesh: MeshConfigSpec) -> bool:
    """Whether a workload could be selected by both."""
    if one.namespace != other.namespace and mesh.root_namespace not in (one.namespace, other.namespace):
        return False
    first, second = one.selection, other.selection
    if first.services and second.services and not set(first.services) & set(second.services):
        return False
    return all(second.labels.get(name, value) == value for name, value in first.labels.items())


# Workloads


def _unknown_callers(rules: Iterable[RuleAt], inhabitants: Sequence[Inhabitant]) -> Iterator[Finding]:
    principals = {one.spec.spiffe_id.principal for one in inhabitants}
    namespaces = {one.spec.namespace for one in inhabitants}
    for one in rules:
        for condition in dict.fromkeys(_conditions(one.view)):
            if condition.scope is not Scope.PEER or condition.attribute not in (PRINCIPAL, NAMESPACE):
                continue
            known = principals if condition.attribute == PRINCIPAL else namespaces
            word = "principal" if condition.attribute == PRINCIPAL else "namespace"
            for wanted in condition.wanted:
                if not any(map(compile_matcher((wanted,)), known)):
                    message = f"{condition.field}: no known workload has the {word} {wanted}"
                    yield one.finding(UNKNOWN_CALLER, message, "correct it; `hauberk status` shows who there is")


def _ports(rules: Iterable[RuleAt], mesh: MeshConfigSpec, inhabitants: Sequence[Inhabitant]) -> Iterator[Finding]:
    for one in rules:
        selected = [other for other in inhabitants if selects(one.spec, other.spec, mesh) and other.ports]
        if not selected:
            continue
        there = {str(port) for other in selected for port in other.ports}
        named = [port for c in _conditions(one.view) if _is_port(c) for port in c.wanted]
        for port in dict.fromkeys(named):
            if port not in there:
                message = f"names the port {port}; workloads it selects have {', '.join(sorted(there, key=int))}"
                yield one.finding(UNKNOWN_PORT, message, "name the service's port, not the app's")
        yield from _http_on_tcp(one, selected)


def _is_port(condition: Condition) -> bool:
    return condition.scope is Scope.OPERATION and condition.attribute == PORT


def _http_on_tcp(one: RuleAt, selected: Sequence[Inhabitant]) -> Iterator[Finding]:
    """An ALLOW never matches there, a DENY is held to the rest of what it asks for (security.md C23)."""
    if not any(condition.is_http for condition in _conditions(one.view)):
        return
    named = {port for c in _conditions(one.view) if _is_port(c) and c.positive for port in c.wanted}
    for inhabitant in selected:
        tcp = sorted(port for port, protocol in inhabitant.ports.items() if protocol is Protocol.TCP)
        hit = [port for port in tcp if not named or str(port) in named]
        if not hit or (one.policy.action is Action.ALLOW and not named and len(tcp) < len(inhabitant.ports)):
            continue  # an ALLOW for all ports does what it says on the others
        place = f"{inhabitant.service_name}:{hit[0]}"
        does = "never matches" if one.policy.action is Action.ALLOW else "denies without regard to HTTP fields"
        message = f"{does} at {place}, which is TCP and has neither method nor path, host, header or token"
        hint = "name callers and ports only, or the ports that are HTTP"
        yield one.finding(HTTP_ON_TCP, message, hint)
        return


def _nobody_may_call(
    policies: Sequence[PolicySpec],
    requests: Sequence[RequestAuthenticationSpec],
    rules: Sequence[RuleAt],
    mesh: MeshConfigSpec,
    inhabitants: Sequence[Inhabitant],
) -> Iterator[Finding]:
    callers = [*(one.spec.spiffe_id for one in inhabitants), None]
    for called in inhabitants:
        selecting = [one.policy for one in policies if selects(one, called.spec, mesh) and not one.policy.shadow]
        allows = [policy for policy in selecting if policy.action is Action.ALLOW]
        if not allows and mesh.default_action is Action.ALLOW:
            continue
        has_users = any(selects(one, called.spec, mesh) for one in requests)
        views = [
            one.view
            for one in rules
            if one.policy.action is Action.ALLOW and not one.policy.shadow and selects(one.spec, called.spec, mesh)
        ]
        knowns = [_caller(identity, has_users=has_users) for identity in callers]
        if any(holds(view, known, set()) is not False for view in views for known in knowns):
            continue
        why = "no ALLOW policy selects it" if not allows else "no ALLOW rule is for a workload there is"
        yield Finding(
            code=NOBODY_MAY_CALL,
            place=allows[0].source if allows else "",
            subject=called.service_name,
            message=f"nobody may call it: {why}",
            hint="if it is to be called, apply an ALLOW policy for it",
        )


def _caller(identity: SpiffeId | None, *, has_users: bool) -> Known:
    """Of a caller's calls only who it is."""
    principal, namespace, account, *_ = peer_attributes(Peer(identity))
    return Known(
        peer=(principal, namespace, account, None, None, None, None),
        operation=(None, None, None, None),
        has_no_token=not has_users,
    )
