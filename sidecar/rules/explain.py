"""Why a request is allowed or denied, and which ALLOW rule came nearest. Built on the compiled rules of `authz`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.rules import authz
from sidecar.rules.compiled import CompiledRule
from sidecar.rules.conditions import PATH, Conditions, OperationAttributes, PeerAttributes, Scope
from sidecar.rules.keys import Key
from sidecar.rules.match import without_params
from sidecar.rules.request_facts import RequestFacts
from sidecar.rules.snapshot import Action
from sidecar.rules.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionResult:
    """One condition of a rule, held against one request."""

    field: str
    """"from[0].source.principals", "when[0].request.headers[x-token].notValues"."""
    wanted: tuple[str, ...]
    got: str
    """What the request had, several texts with ", " between; empty: nothing."""
    matched: bool
    header: str = ""
    """The header's name, if it is one that was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """An ALLOW rule that did not match. Of its ORed sources and operations, those with the fewest failures."""

    rule: str
    source: str
    """"file:line" of the rule."""
    conditions: tuple[ConditionResult, ...]

    @property
    def failures_count(self) -> int:
        return sum(not condition.matched for condition in self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    allowed: bool
    rule: str
    """"namespace/name#rule-index", or "default"."""
    reason: str
    source: str
    """"file:line" of the deciding rule; empty for the default."""
    version: int
    conditions: tuple[ConditionResult, ...]
    """The deciding rule's, all matched; empty for the default and for a rule without conditions."""
    near_misses: tuple[NearMiss, ...]
    """Best first. Only when it is the lack of an ALLOW rule that denied."""
    audits: tuple[str, ...] = ()
    """AUDIT rules that match."""
    shadow: Verdict | None = None
    """What the policies in shadow would make of it, if that is another verdict."""


def explain(authorizer: authz.Authorizer, facts: authz.Facts, *, near_misses_max: int = 5) -> Explanation:
    """The verdict of `authorizer.authorize(facts)` in words. It asks, it does not decide again."""
    verdict = authorizer.authorize(facts)
    deciding = authorizer.rule(verdict.rule)
    held = _Held(authorizer, facts)
    lacks_allow = deciding is None and isinstance(verdict, authz.Denied)
    return Explanation(
        allowed=isinstance(verdict, authz.Permit),
        rule=verdict.rule,
        reason=reason(verdict),
        source=deciding.source if deciding else "",
        version=verdict.version,
        conditions=held.conditions(deciding) if deciding else (),
        near_misses=held.near_misses(authorizer.rules(Action.ALLOW), near_misses_max) if lacks_allow else (),
        audits=verdict.audits,
        shadow=verdict.shadow,
    )


def conditions_of(authorizer: authz.Authorizer, rule: str, facts: authz.Facts) -> tuple[ConditionResult, ...]:
    """Of one rule by its name, whatever the verdict; none if there is no such rule."""
    found = authorizer.rule(rule)
    return _Held(authorizer, facts).conditions(found) if found else ()


def near_misses(authorizer: authz.Authorizer, facts: authz.Facts, count_max: int) -> tuple[NearMiss, ...]:
    """ALLOW rules, whatever the verdict."""
    return _Held(authorizer, facts).near_misses(authorizer.rules(Action.ALLOW), count_max)


def reason(verdict: Verdict) -> str:
    """One sentence of `verdict`'s constants."""
    if isinstance(verdict, authz.Denied):
        return verdict.reason
    return authz.DEFAULT_ALLOW if verdict.rule == authz.DEFAULT_RULE else authz.ALLOW_MATCHED


class _Held:
    """Rules held against one request, condition by condition."""

    def __init__(self, authorizer: authz.Authorizer, facts: authz.Facts) -> None:
        self._peer, operation, self._request = authorizer.attributes(facts)
        self._readings: list[OperationAttributes] = [operation]
        if ";" in operation[PATH]:
            self._readings.append((*operation[:PATH], without_params(operation[PATH])))
        self._on_tcp = not facts.method

    def near_misses(self, rules: Iterable[CompiledRule], count_max: int) -> tuple[NearMiss, ...]:
        misses = [NearMiss(rule=rule.name, source=rule.source, conditions=self.conditions(rule)) for rule in rules]
        misses.sort(key=lambda miss: miss.failures_count)  # stable: equals stay in rule order
        return tuple(misses[:count_max])

    def conditions(self, rule: CompiledRule) -> tuple[ConditionResult, ...]:
        """Of the ORed alternatives those that come nearest."""
        denies = rule.action is not Action.ALLOW
        clauses = rule.clauses()
        if denies and self._on_tcp:  # the HTTP fields took no part (C23)
            clauses = clauses.on_tcp(rule.action) or clauses
        readings = self._readings if denies else self._readings[:1]  # it may have been without parameters (C06)
        sources = [
            self._results(f"from[{number}].source.", conditions, readings[0])
            for number, conditions in enumerate(clauses.sources)
        ]
        operations = [
            self._results(f"to[{number}].operation.", conditions, reading)
            for reading in readings
            for number, conditions in enumerate(clauses.operations)
        ]
        when = [
            result
            for number, conditions in enumerate(clauses.when)
            for result in self._results(f"when[{number}].", conditions, readings[0])
        ]
        return (*_fewest_failures(sources), *_fewest_failures(operations), *when)

    def _results(
        self, prefix: str, conditions: Conditions, operation: OperationAttributes
    ) -> tuple[ConditionResult, ...]:
        results = []
        for condition in conditions:
            value = _value(condition.scope, condition.attribute, self._peer, operation, self._request)
            key = condition.attribute if isinstance(condition.attribute, Key) else None
            results.append(
                ConditionResult(
                    field=prefix + (f"{key}." if key and prefix.startswith("when") else "") + condition.field,
                    wanted=condition.wanted,
                    got=value if isinstance(value, str) else ", ".join(value),
                    # Of a rule that asks for HTTP nothing holds on TCP, not even that a header is missing (C23).
                    matched=condition.test(value) and not (self._on_tcp and condition.is_http),
                    header=key.names[0] if key and key.attribute.value == "request.headers" else "",
                )
            )
        return tuple(results)


def _value(
    scope: Scope, attribute: int | Key, peer: PeerAttributes, operation: OperationAttributes, request: RequestFacts
) -> str | tuple[str, ...]:
    if isinstance(attribute, Key):
        return request.value(attribute)
    return peer[attribute] if scope is Scope.PEER else operation[attribute]


def _fewest_failures(alternatives: Sequence[tuple[ConditionResult, ...]]) -> tuple[ConditionResult, ...]:
    return min(alternatives, key=lambda results: sum(not result.matched for result in results), default=())
