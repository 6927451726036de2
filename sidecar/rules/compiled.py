"""One rule of one policy, compiled; and what is left of it once the caller is known.

A rule matches if one alternative of its sources holds, one of its operations, and all of its `when`. Everything of
scope PEER is settled when a connection begins: `CompiledRule.reduced` drops the alternatives that cannot hold for that
caller, and the rule with them, so that per request only what varies is looked at.

On opaque TCP there is no HTTP to look at (security.md C23): an alternative of an ALLOW rule that asks for it is gone,
one of a DENY or AUDIT rule is held to the rest of what it asks for. `CompiledRule.on_tcp` is the rule as it is then.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from sidecar.rules.conditions import (
    DESTINATION_IP,
    REMOTE_IP,
    SOURCE_IP,
    Compiler,
    Condition,
    Conditions,
    PeerAttributes,
    Scope,
    Test,
)
from sidecar.rules.keys import Attribute, Key, parse_key
from sidecar.rules.rule_index import AttributeId, Texts
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, When
from sidecar.rules.verdict import Verdict

RequestPart = tuple[tuple["RequestTests", ...], ...]
"""Of each, one must hold."""
OperationTests = tuple[tuple[int, Test], ...]
RequestTests = tuple[tuple[Key, Test], ...]
NO_CONDITION: tuple[Conditions, ...] = ((),)
_ADDRESSES = (SOURCE_IP, DESTINATION_IP, REMOTE_IP)


class Reduced(NamedTuple):
    """What of a rule is left to be asked of each request of one caller."""

    number: int
    """Of the rule: rules are named in this order."""
    operations: tuple[OperationTests, ...]
    """One of them must hold."""
    request: RequestPart
    rule: CompiledRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledRule:
    number: int
    name: str
    """"namespace/name#rule-index"."""
    action: Action
    shadow: bool
    source: str
    """"file:line"."""
    sources: tuple[Conditions, ...]
    operations: tuple[Conditions, ...]
    when: tuple[Conditions, ...]
    """By item; all must hold."""
    verdict: Verdict | None
    """Made once: an answer costs no allocation. None for AUDIT."""
    parts: _Parts
    callers: Hashable
    """Rules of one action that have this in common make the same of every caller."""
    on_tcp: CompiledRule | None
    """None: it never matches there."""

    def caller_part(self, peer: PeerAttributes) -> RequestPart | None:
        """What is left of `sources` and the PEER part of `when` for that caller; None: the rule cannot match."""
        parts = self.parts
        for index, test in parts.when_peer:
            if not test(peer[index]):
                return None
        if not parts.sources:
            return ()
        left: list[RequestTests] = []
        for peer_tests, request_tests in parts.sources:
            for index, test in peer_tests:
                if not test(peer[index]):
                    break
            else:
                if not request_tests:
                    return ()  # this caller needs nothing more
                left.append(request_tests)
        return (tuple(left),) if left else None

    def reduced(self, part: RequestPart) -> Reduced:
        """`part`: what `caller_part` made of the caller."""
        return Reduced(self.number, self.parts.operations, part + self.parts.when_request, self)

    def wanted(self) -> Mapping[AttributeId, Texts]:
        """For the index of requests: what must match, by attribute (an index of OPERATION, or a Key)."""
        return self.parts.wanted

    def wanted_callers(self) -> Mapping[AttributeId, Texts]:
        """For the index of callers: what must match, by attribute of PEER."""
        return self.parts.wanted_callers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A rule's tests, sorted by when they can be made."""

    sources: tuple[tuple[tuple[tuple[int, Test], ...], RequestTests], ...]
    """(of the peer, of the request) of each alternative; none: everybody."""
    when_peer: tuple[tuple[int, Test], ...]
    when_request: RequestPart
    operations: tuple[OperationTests, ...]
    wanted: Mapping[AttributeId, Texts]
    wanted_callers: Mapping[AttributeId, Texts]


class RuleCompiler:
    """Of all rules of one action. What many have in common is compiled once."""

    def __init__(self, action: Action, trusted_proxies_count: int) -> None:
        self._action = action
        self._conditions = Compiler(allow=action is Action.ALLOW, trusted_proxies_count=trusted_proxies_count)

    def compile(
        self, policy: AuthorizationPolicy, index: int, rule: Rule, number: int, verdict: Verdict | None
    ) -> CompiledRule:
        """Raises ValueError for a value that is none of its kind; `decode` never lets one in."""
        sources, operations, when = (
            self._conditions.sources(rule),
            self._conditions.operations(rule),
            self._conditions.when(rule),
        )
        compiled = CompiledRule(
            number=number,
            name=f"{policy.full_name}#{index}",
            action=self._action,
            shadow=policy.shadow,
            source=rule_source(policy.source, rule.line),
            sources=sources,
            operations=operations,
            when=when,
            verdict=verdict,
            parts=_parts(sources, operations, when),
            callers=(self._action, rule.sources, tuple([one for one in rule.when if _is_of_peer(one)])),
            on_tcp=None,
        )
        return replace(compiled, on_tcp=self._on_tcp(compiled))

    def _on_tcp(self, rule: CompiledRule) -> CompiledRule | None:
        if not any(c.is_http for part in (rule.sources, rule.operations, rule.when) for cs in part for c in cs):
            return rule
        if self._action is Action.ALLOW:
            if any(c.is_http for conditions in rule.when for c in conditions):
                return None
            sources, operations, when = _without_http(rule.sources), _without_http(rule.operations), rule.when
            if (rule.sources and not sources) or (rule.operations and not operations):
                return None
        else:
            sources, operations, when = map(_http_left_out, (rule.sources, rule.operations, rule.when))
        return replace(
            rule,
            sources=sources,
            operations=operations,
            when=when,
            parts=_parts(sources, operations, when),
            on_tcp=None,
        )


def _is_of_peer(when: When) -> bool:
    """Or may be: the remote address is, where no proxy is trusted."""
    key = parse_key(when.key)
    return not key.attribute.takes_a_name and key.attribute is not Attribute.DESTINATION_PORT


def rule_source(policy_source: str, line: int) -> str:
    """ "file:line" of a rule of the policy at "file:line"."""
    file, colon, _ = policy_source.rpartition(":")
    return f"{file}:{line}" if line and colon else policy_source


def _without_http(alternatives: tuple[Conditions, ...]) -> tuple[Conditions, ...]:
    return tuple(conditions for conditions in alternatives if not any(c.is_http for c in conditions))


def _http_left_out(alternatives: tuple[Conditions, ...]) -> tuple[Conditions, ...]:
    return tuple(tuple(c for c in conditions if not c.is_http) for conditions in alternatives)


def _parts(sources: tuple[Conditions, ...], operations: tuple[Conditions, ...], when: tuple[Conditions, ...]) -> _Parts:
    conditions = tuple(c for item in when for c in item)
    of_operation = _indexed(conditions, Scope.OPERATION)
    when_request = _keyed(conditions)
    when_peer = _indexed(conditions, Scope.PEER)
    source_parts = tuple((_indexed(cs, Scope.PEER), _keyed(cs)) for cs in sources)
    wanted: dict[AttributeId, Texts] = {}
    _want(wanted, sources, Scope.REQUEST)
    _want(wanted, operations, Scope.OPERATION)
    callers: dict[AttributeId, Texts] = {}
    _want(callers, sources, Scope.PEER)
    for c in conditions:
        if c.positive and not _is_address(c):
            (callers if c.scope is Scope.PEER else wanted).setdefault(c.attribute, c.wanted)
    return _Parts(
        sources=source_parts,
        when_peer=when_peer,
        when_request=((when_request,),) if when_request else (),
        operations=tuple(_indexed(cs, Scope.OPERATION) + of_operation for cs in operations or NO_CONDITION),
        wanted=wanted,
        wanted_callers=callers,
    )


def _want(wanted: dict[AttributeId, Texts], alternatives: tuple[Conditions, ...], scope: Scope) -> None:
    """Add what every alternative demands some text of."""
    if not alternatives:
        return
    for first in alternatives[0]:
        if not first.positive or first.scope is not scope or _is_address(first):
            continue
        values: list[str] = []
        for conditions in alternatives:
            of_same = next((c for c in conditions if c.positive and c.attribute == first.attribute), None)
            if of_same is None:
                break
            values += of_same.wanted
        else:
            wanted[first.attribute] = tuple(values)


def _is_address(condition: Condition) -> bool:
    if isinstance(condition.attribute, Key):
        return condition.attribute.attribute.is_address
    return condition.scope is Scope.PEER and condition.attribute in _ADDRESSES


def _indexed(conditions: Conditions, scope: Scope) -> tuple[tuple[int, Test], ...]:
    return tuple((c.attribute, c.test) for c in conditions if c.scope is scope and isinstance(c.attribute, int))


def _keyed(conditions: Conditions) -> RequestTests:
    return tuple((c.attribute, c.test) for c in conditions if isinstance(c.attribute, Key))
