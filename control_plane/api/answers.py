"""What Explain answers, as messages."""

from __future__ import annotations

from collections.abc import Iterable

from certs.spiffe_id import SpiffeId
from protos.hauberk.v1 import config_pb2 as pb
from protos.hauberk.v1 import discovery_pb2
from sidecar.rules.authz import DEFAULT_RULE, Authorizer, Facts, Permit
from sidecar.rules.explain import ConditionResult, Explanation, NearMiss, conditions_of, explain, near_misses
from sidecar.rules.header_names import folded
from sidecar.rules.secrets import is_secret
from sidecar.rules.snapshot import PortTls, Snapshot

NEAR_MISSES_MAX = 5
NEAR_MISSES_LOOKED_AT = 10_000
HIDDEN = "(hidden)"
NOBODY = "nobody (plaintext)"
PEER_AUTHENTICATION = "peer-authentication"
REQUEST_AUTHENTICATION = "request-authentication"
"""As the deciding rule, when no policy was asked; so sidecars call it too."""


def caller(principal: SpiffeId | None) -> str:
    return str(principal) if principal else NOBODY


def explained(authorizer: Authorizer, facts: Facts) -> pb.ExplainResponse:
    """What the policies say now."""
    explanation = explain(authorizer, facts, near_misses_max=NEAR_MISSES_MAX)
    answer = pb.ExplainResponse(
        allowed=explanation.allowed,
        rule=explanation.rule,
        reason=explanation.reason,
        source=explanation.source,
        version=explanation.version,
        conditions=_conditions(explanation.conditions),
        near_misses=map(_miss, explanation.near_misses),
    )
    _add_asides(answer, explanation)
    return answer


def refused_by_peer_authentication(why: str, tls: PortTls, snapshot: Snapshot) -> pb.ExplainResponse:
    """Plaintext to a port that does not take it: no policy is asked."""
    return pb.ExplainResponse(
        allowed=False,
        rule=PEER_AUTHENTICATION,
        reason=why if tls.source else f"{why}, by the default of the mesh",
        source=tls.source,
        version=snapshot.version,
    )


def decided(decision: discovery_pb2.Decision, authorizer: Authorizer, facts: Facts) -> pb.ExplainResponse:
    """A decision as it was reported, with the conditions of the policies it is held against.

    What a sidecar hides cannot be judged again: such conditions are `hidden`, and count neither for nor against."""
    asked = decision.asked
    hidden = frozenset(folded(one.name) for one in asked.headers if one.hidden)
    again = explain(authorizer, facts, near_misses_max=0)
    answer = pb.ExplainResponse(
        decision_id=decision.id,
        decided_at=decision.at,
        allowed=decision.allowed,
        version=decision.version,
        rule=decision.rule,
        reason=_reason(decision),
        from_identity=asked.principal or NOBODY,
        request=_request_line(asked),
    )
    if decision.shadow:  # its rule is that of the policies in shadow
        answer.rule, answer.reason = (again.rule, again.reason) if again.allowed else ("", "")
        answer.audit_rules.extend(again.audits)
        answer.shadow_rule, answer.shadow_allowed = decision.rule, False
        answer.conditions.extend(_conditions(conditions_of(authorizer, decision.rule, facts), hidden))
    else:
        _add_asides(answer, again)
        answer.conditions.extend(_conditions(conditions_of(authorizer, decision.rule, facts), hidden))
        if decision.rule == DEFAULT_RULE:
            answer.near_misses.extend(_nearest(near_misses(authorizer, facts, NEAR_MISSES_LOOKED_AT), hidden))
    answer.source = authorizer.rule_source(answer.rule)
    by_policy = decision.rule == DEFAULT_RULE or authorizer.rule(decision.rule) is not None
    is_same = decision.shadow or (again.allowed, again.rule) == (decision.allowed, decision.rule)
    if by_policy and not is_same and not hidden:
        answer.note = (
            "judged again with what was reported it comes out otherwise: a long value was cut, or more was known"
        )
    return answer


def _reason(decision: discovery_pb2.Decision) -> str:
    """Of a token that was not taken a sidecar reports a word and a row: "no_issuer (E07)"."""
    word, row = decision.reason.partition(" (")[::2]
    if decision.rule != REQUEST_AUTHENTICATION or not row:
        return decision.reason
    return f"the token was not taken: {word.replace('_', ' ')}"


def _add_asides(answer: pb.ExplainResponse, explanation: Explanation) -> None:
    """What decides nothing."""
    answer.audit_rules.extend(explanation.audits)
    if explanation.shadow is not None:
        answer.shadow_rule = explanation.shadow.rule
        answer.shadow_allowed = isinstance(explanation.shadow, Permit)


def _request_line(asked: discovery_pb2.Asked) -> str:
    if not asked.method:
        return f"TCP port {asked.port}"
    return f"{asked.method} {asked.host}:{asked.port}{asked.path}"


def _nearest(misses: Iterable[NearMiss], hidden: frozenset[str]) -> list[pb.NearMiss]:
    def failures(miss: NearMiss) -> int:
        return sum(not one.matched and folded(one.header) not in hidden for one in miss.conditions)

    return [_miss(one, hidden) for one in sorted(misses, key=failures)[:NEAR_MISSES_MAX]]


def _miss(miss: NearMiss, hidden: frozenset[str] = frozenset()) -> pb.NearMiss:
    return pb.NearMiss(rule=miss.rule, source=miss.source, conditions=_conditions(miss.conditions, hidden))


def _conditions(results: Iterable[ConditionResult], hidden: frozenset[str] = frozenset()) -> list[pb.Condition]:
    """`hidden`: headers, `folded`, whose values are not known here. A secret is not told even where it is known,
    be it in the request or in the policy."""
    conditions = []
    for one in results:
        secret = is_secret(one.header)
        is_hidden = folded(one.header) in hidden or (secret and bool(one.got))
        conditions.append(
            pb.Condition(
                field=one.field,
                wanted=tuple(value if value == "*" else HIDDEN for value in one.wanted) if secret else one.wanted,
                got="" if is_hidden else one.got,
                matched=one.matched and folded(one.header) not in hidden,
                hidden=is_hidden,
            )
        )
    return conditions
