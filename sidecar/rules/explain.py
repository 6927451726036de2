"""Why a request is allowed or denied, and which ALLOW rule came nearest. Built on the compiled rules of `authz`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.rules import authz
from sidecar.rules.conditions import Condition, only_ports


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionResult:
    """One condition of a rule, held against one request."""

    field: str
    """"from[0].source.principals"."""
    wanted: tuple[str, ...]
    got: str
    """What the request had; empty: nothing."""
    matched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """An ALLOW rule that did not match. Of its ORed sources and operations, those with the fewest failures."""

    rule: str
    source: str
    """"file:line" of the policy."""
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
    """"file:line" of the deciding policy; empty for the default."""
    version: int
    conditions: tuple[ConditionResult, ...]
    """The deciding rule's, all matched; empty for the default and for a rule without conditions."""
    near_misses: tuple[NearMiss, ...]
    """Best first. Only when it is the lack of an ALLOW rule that denied."""


def explain(authorizer: authz.Authorizer, facts: authz.Facts, *, near_misses_max: int = 5) -> Explanation:
    """The verdict of `authorizer.authorize(facts)` in words. It asks, it does not decide again."""
    verdict = authorizer.authorize(facts)
    by_default = verdict.rule == authz.DEFAULT_RULE
    deciding = None if by_default else _rule(authorizer, verdict.rule, isinstance(verdict, authz.Permit))
    return Explanation(
        allowed=isinstance(verdict, authz.Permit),
        rule=verdict.rule,
        reason=_reason(verdict),
        source=deciding.source if deciding else "",
        version=verdict.version,
        conditions=_best_conditions(deciding, facts) if deciding else (),
        near_misses=_near_misses(authorizer.allow_rules, facts, near_misses_max)
        if by_default and isinstance(verdict, authz.Denied)
        else (),
    )


def _rule(authorizer: authz.Authorizer, name: str, allowed: bool) -> authz.CompiledRule:
    rules = authorizer.allow_rules if allowed else authorizer.deny_rules
    return next(rule for rule in rules if rule.name == name)


def _reason(verdict: authz.Permit | authz.Denied) -> str:
    if isinstance(verdict, authz.Denied):
        return verdict.reason
    return authz.DEFAULT_ALLOW if verdict.rule == authz.DEFAULT_RULE else authz.ALLOW_MATCHED


def _near_misses(rules: Iterable[authz.CompiledRule], facts: authz.Facts, count_max: int) -> tuple[NearMiss, ...]:
    misses = [NearMiss(rule=rule.name, source=rule.source, conditions=_best_conditions(rule, facts)) for rule in rules]
    misses.sort(key=lambda miss: miss.failures_count)  # stable: equals stay in rule order
    return tuple(misses[:count_max])


def _best_conditions(rule: authz.CompiledRule, facts: authz.Facts) -> tuple[ConditionResult, ...]:
    denies = isinstance(rule.verdict, authz.Denied)
    operations = rule.operations
    if denies and not facts.method:  # on TCP its ports alone matched, the HTTP fields took no part (C23)
        operations = only_ports(operations)
    attributes = authz.operation_attributes(facts)
    results = _results("to[{}].operation.{}", operations, attributes)
    if denies:  # it may have been the path without its parameters that matched (C06)
        results += _results("to[{}].operation.{}", operations, authz.without_path_params(attributes))
    callers = _results("from[{}].source.{}", rule.sources, authz.caller_attributes(facts.principal))
    return _fewest_failures(callers) + _fewest_failures(results)


def _results(
    field: str, alternatives: tuple[tuple[Condition, ...], ...], attributes: tuple[str, ...]
) -> list[tuple[ConditionResult, ...]]:
    return [
        tuple(
            ConditionResult(
                field=field.format(number, condition.field),
                wanted=condition.wanted,
                got=attributes[condition.attribute],
                matched=condition.test(attributes[condition.attribute]),
            )
            for condition in conditions
        )
        for number, conditions in enumerate(alternatives)
    ]


def _fewest_failures(alternatives: list[tuple[ConditionResult, ...]]) -> tuple[ConditionResult, ...]:
    return min(alternatives, key=lambda results: sum(not result.matched for result in results), default=())
