"""What rules show by themselves and beside each other, whatever workloads there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from control_plane.policy.model import MeshConfigSpec, PolicySpec
from control_plane.policy.rehearse.cover import alternatives, covers, excluded
from control_plane.policy.rehearse.findings import (
    COVERED,
    DENIED_ANYHOW,
    DENY_BY_NOT,
    EVERYWHERE,
    NEVER_MATCHES,
    NO_FROM,
    NOT_COMPARED,
    OR_FOR_AND,
    SPLIT_RULE,
    WHOLE_NAMESPACE,
    Finding,
)
from control_plane.policy.rehearse.possible import View, name_of
from control_plane.policy.rehearse.sarif import Code
from sidecar.rules.conditions import PRINCIPAL, Condition, Scope
from sidecar.rules.keys import parse_key
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source

COMPARISONS_MAX = 400_000
_EVERY_ADDRESS = frozenset({"0.0.0.0/0", "::/0"})
_HINT_ONE_ITEM = "if both are meant, write them in one item (without the second `-`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAt:
    """A rule, where it stands, and its conditions."""

    spec: PolicySpec
    policy: AuthorizationPolicy
    number: int
    place: str
    view: View

    @property
    def rule(self) -> Rule:
        return self.policy.rules[self.number]

    @property
    def field(self) -> str:
        return f"spec.rules[{self.number}]"

    @property
    def name(self) -> str:
        return f"{self.policy.full_name}#{self.number}"

    def finding(
        self, code: Code, message: str, hint: str, *, field: str = "", related: tuple[tuple[str, str], ...] = ()
    ) -> Finding:
        return Finding(
            code=code,
            place=self.place,
            subject=f"AuthorizationPolicy {self.name}",
            field=field or self.field,
            message=message,
            hint=hint,
            related=related,
        )


def found(rules: Sequence[RuleAt], mesh: MeshConfigSpec) -> Iterator[Finding]:
    for one in rules:
        yield from _slips(one)
        if one.policy.action is Action.ALLOW:
            yield from _too_wide(one)
        elif one.policy.action is Action.DENY:
            yield from _deny_by_not(one)
        yield from _contradictions(one)
    yield from _split_rules(rules)
    yield from _covered(rules, mesh)


# One rule


def _slips(one: RuleAt) -> Iterator[Finding]:
    """One `-` too many turns "and" into "or"."""
    for name, inner, items in (("from", "source", one.rule.sources), ("to", "operation", one.rule.operations)):
        named = [_fields_of(item) for item in items]
        if len(named) == 2 and all(len(each) == 1 for each in named) and named[0] != named[1]:
            first, second = (_camel(min(each)) for each in named)
            message = f"`{name}` has one item with {first} and one with {second}: either is enough"
            yield one.finding(OR_FOR_AND, message, _HINT_ONE_ITEM, field=f"{one.field}.{name}[1].{inner}")


def _fields_of(item: Source | Operation) -> frozenset[str]:
    return frozenset(field.name for field in fields(item) if getattr(item, field.name))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _too_wide(one: RuleAt) -> Iterator[Finding]:
    rule = one.rule
    name_caller = "name who may in `from`"
    if not rule.sources and not any(_is_of_caller(when.key) for when in rule.when):
        yield one.finding(NO_FROM, "has no `from`, so it is for every caller", name_caller)
    for number, source in enumerate(rule.sources):
        field = f"{one.field}.from[{number}].source"
        named = _fields_of(source)
        if named == {"principals"} and "*" in source.principals:
            yield one.finding(NO_FROM, "principals: ['*'] is every workload of the mesh", name_caller, field=field)
        if named == {"namespaces"} and not rule.operations and not rule.when:
            what = ", ".join(source.namespaces)
            message = f"everybody of namespace {what} may do everything, also who joins later"
            yield one.finding(WHOLE_NAMESPACE, message, "name principals, or what they may do in `to`", field=field)
        if _EVERY_ADDRESS & {*source.ip_blocks, *source.remote_ip_blocks}:
            message = "0.0.0.0/0 and ::/0 are every address there is"
            yield one.finding(EVERYWHERE, message, "remove it, or name the network", field=field)
    for number, when in enumerate(rule.when):
        if parse_key(when.key).attribute.is_address and _EVERY_ADDRESS & set(when.values):
            message = "0.0.0.0/0 and ::/0 are every address there is"
            yield one.finding(
                EVERYWHERE, message, "remove it, or name the network", field=f"{one.field}.when[{number}]"
            )


def _is_of_caller(key: str) -> bool:
    return key.startswith(("source.", "remote.", "request.auth."))


def _deny_by_not(one: RuleAt) -> Iterator[Finding]:
    for number, source in enumerate(one.rule.sources):
        if named := sorted(name for name in _fields_of(source) if name.startswith("not_")):
            message = f"{_camel(named[0])} denies everybody else, and whoever has none"
            hint = "if that is meant, leave it; else name who is denied, or who may in an ALLOW rule"
            yield one.finding(DENY_BY_NOT, message, hint, field=f"{one.field}.from[{number}].source")
    for number, when in enumerate(one.rule.when):
        if when.not_values:
            message = f"notValues of {when.key} deny also a request that has none"
            hint = "if that is meant, leave it; else name the values that are denied"
            yield one.finding(DENY_BY_NOT, message, hint, field=f"{one.field}.when[{number}]")


def _contradictions(one: RuleAt) -> Iterator[Finding]:
    pairs = [excluded(conditions) for conditions in alternatives(one.view)]
    dead = [pair for pair in pairs if pair is not None]
    if not dead or len(dead) != len(pairs):
        return
    first, second = dead[0]
    # On TCP a DENY or AUDIT is held to what of it is not HTTP (security.md C23).
    always = one.policy.action is Action.ALLOW or not any(c.is_http for pair in dead for c in pair)
    what = "never matches" if always else "matches no HTTP request"
    message = f"{what}: {_words(first)} and {_words(second)} cannot both be"
    yield one.finding(NEVER_MATCHES, message, "remove one of the two, or write two rules")


def _words(condition: Condition) -> str:
    return f"{name_of(condition)} {condition.field} [{', '.join(condition.wanted[:3])}]"


# Rules beside each other


def _split_rules(rules: Sequence[RuleAt]) -> Iterator[Finding]:
    for one, other in pairwise(rules):
        if one.policy is not other.policy or one.policy.action is not Action.ALLOW:
            continue
        (first, second) = (_parts(one.rule), _parts(other.rule))
        if {first, second} == {("from",), ("to",)}:
            message = f"has only `{second[0]}`, and rule {one.number} only `{first[0]}`: either is enough"
            yield other.finding(
                SPLIT_RULE, message, "if both are meant, write them in one rule (without the second `-`)"
            )


def _parts(rule: Rule) -> tuple[str, ...]:
    listed = (("from", rule.sources), ("to", rule.operations), ("when", rule.when))
    return tuple(name for name, items in listed if items)


def _covered(rules: Sequence[RuleAt], mesh: MeshConfigSpec) -> Iterator[Finding]:
    """Of each rule the first that covers it. Of two that cover each other the later is told of."""
    enforced = [one for one in rules if not one.policy.shadow and one.policy.action is not Action.AUDIT]
    index = _Index(enforced)
    order = {id(one): number for number, one in enumerate(enforced)}
    left = COMPARISONS_MAX
    for one in enforced:
        if all(map(excluded, alternatives(one.view))):
            continue  # it never matches, which is said of it already
        for other in index.candidates(one):
            if other is one:
                continue
            left -= 1
            if left < 0:
                yield one.finding(
                    NOT_COMPARED, f"from here on rules were not compared: {len(rules)} are too many", "lint fewer files"
                )
                return
            if not _selects_at_least(other.spec, one.spec, mesh) or not covers(other.view, one.view):
                continue
            related = ((other.place, f"{other.policy.action.value} rule {other.name}"),)
            if other.policy.action is not one.policy.action:
                message = f"allows nothing: the DENY rule {other.name} ({other.place}) matches all it matches"
                yield one.finding(DENIED_ANYHOW, message, "remove one of the two, or narrow the DENY", related=related)
                break
            is_mutual = _selects_at_least(one.spec, other.spec, mesh) and covers(one.view, other.view)
            if not is_mutual or order[id(other)] < order[id(one)]:
                message = f"changes nothing: {other.name} ({other.place}) matches all it matches"
                yield one.finding(COVERED, message, "remove it, or say what it is to add", related=related)
                break


class _Index:
    """Which rules may cover another: one that is for named principals only covers rules for one of them."""

    def __init__(self, rules: Iterable[RuleAt]) -> None:
        self._anybody: list[RuleAt] = []
        self._by_principal: defaultdict[str, list[RuleAt]] = defaultdict(list)
        for one in rules:
            named = _named(one.view)
            if named is None:
                self._anybody.append(one)
            else:
                for principal in named:
                    self._by_principal[principal].append(one)

    def candidates(self, one: RuleAt) -> Iterator[RuleAt]:
        named = _named(one.view)
        if named:
            yield from self._by_principal.get(min(named), ())
        yield from self._anybody


def _named(view: View) -> frozenset[str] | None:
    """The principals of which it demands one, if all of them are exact."""
    found: set[str] = set()
    listed = alternatives(view)
    for conditions in listed:
        wanted = next((c.wanted for c in conditions if _is_principal(c)), ())
        if not wanted or any("*" in principal for principal in wanted):
            return None
        found.update(wanted)
    return frozenset(found) if listed else None


def _is_principal(condition: Condition) -> bool:
    return condition.positive and condition.scope is Scope.PEER and condition.attribute == PRINCIPAL


def _selects_at_least(wide: PolicySpec, narrow: PolicySpec, mesh: MeshConfigSpec) -> bool:
    """Whether each workload that `narrow` selects is selected by `wide`, whatever workloads there are."""
    everywhere = wide.namespace == mesh.root_namespace and not wide.selection.services
    if wide.namespace != narrow.namespace and not everywhere:
        return False
    wanted, services = set(wide.selection.services), set(narrow.selection.services)
    if wanted and not (services and services <= wanted):
        return False
    return wide.selection.labels.items() <= narrow.selection.labels.items()
