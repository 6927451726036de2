"""All rules of one snapshot, grouped by callers; and the authorizer of one caller made from it. See `authz`."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from typing import final

from sidecar.rules.compiled import CompiledRule, RequestPart
from sidecar.rules.conditions import (
    METHOD,
    NAMESPACE,
    PRINCIPAL,
    SERVICE_ACCOUNT,
    OperationAttributes,
    PeerAttributes,
)
from sidecar.rules.facts import Token
from sidecar.rules.judge import Asked, Judge, RuleSet
from sidecar.rules.request_facts import Field, RequestFacts, operation_attributes
from sidecar.rules.rule_index import AttributeId, Entry, RuleIndex
from sidecar.rules.snapshot import Action
from sidecar.rules.verdict import SEAL, Denied, Permit, Verdict, annotated

RULE_SETS_MAX = 256
"""Different sets of rules left for a caller, kept for the next caller of whom the same is left."""
AUDITS_MAX = 16
"""Rules named in one answer."""
MANY = 32
"""So many rules for the same callers are put in order once for all of them."""
PARTS_MAX = 16
SLICE = 64
"""Rules grouped between two yields."""


Left = Sequence[tuple[CompiledRule, RequestPart]]


@final
class _Group:
    """Rules of one action that make the same of every caller."""

    __slots__ = ("_in_order", "action", "rules")

    def __init__(self, action: Action) -> None:
        self.action = action
        self.rules: list[CompiledRule] = []
        self._in_order: dict[RequestPart, RuleSet] = {}

    @property
    def is_large(self) -> bool:
        return len(self.rules) >= MANY

    def left(self, part: RequestPart) -> Left:
        return [(rule, part) for rule in self.rules]

    def putting_in_order(self, remote_is_source: bool) -> Generator[None, None, None]:
        """For the callers of whom nothing more is asked, in slices; for others when they come."""
        if self.is_large:
            self._in_order[()] = yield from RuleSet.building(self.left(()), remote_is_source)

    def in_order(self, part: RequestPart, remote_is_source: bool) -> RuleSet:
        rules = self._in_order.get(part)
        if rules is None:
            rules = RuleSet(self.left(part), remote_is_source)
            if len(self._in_order) <= PARTS_MAX:
                self._in_order[part] = rules
        return rules


@final
class Book:
    """The compiled rules of one set of policies: those enforced, or those and the ones in shadow."""

    def __init__(self, otherwise: Verdict, trusted_proxies_count: int) -> None:
        self.otherwise = otherwise
        self._trusted_proxies_count = trusted_proxies_count
        self._judges: dict[tuple[object, ...], Judge] = {}
        self.rules: Mapping[Action, Sequence[CompiledRule]] = {}
        self._groups: list[_Group] = []
        self._callers = RuleIndex((), ())

    @classmethod
    def building(
        cls, rules: Sequence[CompiledRule], otherwise: Verdict, trusted_proxies_count: int
    ) -> Generator[None, None, Book]:
        """In slices of about a millisecond."""
        self = cls(otherwise, trusted_proxies_count)
        self.rules = {action: tuple([rule for rule in rules if rule.action is action]) for action in Action}
        groups: dict[Hashable, _Group] = {}
        for count, rule in enumerate(rules, 1):
            group = groups.get(rule.callers)
            if group is None:
                group = groups[rule.callers] = _Group(rule.action)
            group.rules.append(rule)
            if count % SLICE == 0:
                yield
        self._groups = list(groups.values())
        for count, group in enumerate(self._groups, 1):
            yield from group.putting_in_order(trusted_proxies_count == 0)
            if count % SLICE == 0:
                yield
        entries: list[Entry] = []
        for place, group in enumerate(self._groups):
            wanted = group.rules[0].wanted_callers()
            if not wanted and len(self._groups) > MANY:
                group.rules[0].prepare()  # a candidate for every caller: better compiled now, in slices, than then
            entries.append(Entry(place, wanted))
            if place % SLICE == 0:
                yield
        self._callers = yield from RuleIndex.building(entries, (PRINCIPAL, NAMESPACE, SERVICE_ACCOUNT))
        return self

    def judge(self, peer: PeerAttributes) -> Judge:
        """Costs one look at each group of rules that may be about that caller."""

        def look(attribute: AttributeId) -> str:
            return peer[attribute] if isinstance(attribute, int) else ""

        parts: list[tuple[int, RequestPart]] = []
        for place in self._callers.candidates(look):
            part = self._groups[place].rules[0].caller_part(peer)
            if part is not None:
                parts.append((place, part))
        known_as = tuple(parts)
        judge = self._judges.get(known_as)
        if judge is None:
            judge = self._make([(self._groups[place], part) for place, part in parts])
            if len(self._judges) >= RULE_SETS_MAX:
                self._judges.clear()
            self._judges[known_as] = judge
        return judge

    def _make(self, parts: Iterable[tuple[_Group, RequestPart]]) -> Judge:
        sets: dict[Action, list[RuleSet]] = {action: [] for action in Action}
        few: dict[Action, list[tuple[CompiledRule, RequestPart]]] = {action: [] for action in Action}
        remote_is_source = self._trusted_proxies_count == 0
        for group, part in parts:
            if group.is_large:
                sets[group.action].append(group.in_order(part, remote_is_source))
            else:
                few[group.action] += group.left(part)
        for action, rules in few.items():
            if rules:
                sets[action].append(RuleSet(sorted(rules, key=_number), remote_is_source))
        return Judge(
            sets[Action.DENY], sets[Action.ALLOW], sets[Action.AUDIT], self.otherwise, self._trusted_proxies_count
        )

    def try_all(self, peer: PeerAttributes, operation: OperationAttributes, request: RequestFacts) -> Verdict:
        """The slow way: every rule against everything."""
        on_tcp = not operation[METHOD]
        asked = Asked(operation, request)
        readings = [one for one in (asked, asked.without_params()) if one is not None]

        def matching(action: Action, readings: Sequence[Asked]) -> Iterable[CompiledRule]:
            for rule in self.rules[action]:
                body = rule.body(on_tcp=on_tcp)
                part = None if body is None else body.caller_part(peer)
                if part is not None and any(one.holds(rule.reduced(part, body)) for one in readings):
                    yield rule

        deciding = None
        for reading in readings:  # as the fast way does, so that the same rule is named
            deciding = deciding or next(iter(matching(Action.DENY, [reading])), None)
        deciding = deciding or next(iter(matching(Action.ALLOW, [asked])), None)
        verdict = self.otherwise if deciding is None else deciding.verdict
        assert verdict is not None
        audits = tuple(rule.name for rule in matching(Action.AUDIT, readings))
        return annotated(verdict, audits[:AUDITS_MAX], None)


def _number(rule: tuple[CompiledRule, RequestPart]) -> int:
    return rule[0].number


@final
class PeerAuthorizer:
    """The authorizer of one caller; keep it with the connection."""

    __slots__ = ("_book", "_judge", "_peer", "_shadow")

    def __init__(self, book: Book, peer: PeerAttributes, shadow: PeerAuthorizer | None) -> None:
        self._book = book
        self._peer = peer
        self._judge = book.judge(peer)
        self._shadow = shadow

    def __repr__(self) -> str:
        deny, allow = self._judge.counts
        return f"<PeerAuthorizer {deny} DENY, {allow} ALLOW>"

    def authorize(
        self, host: str, port: int, method: str, path: str, fields: Sequence[Field] = (), token: Token | None = None
    ) -> Verdict:
        """The verdict. Shapes as in `Facts`; `fields` are the request's, as received. The hot path of every request."""
        if not method:
            return self._on_tcp(port)
        verdict = self._judge.authorize(host, port, method, path, fields, token)
        if self._shadow is None:
            return verdict
        return with_shadow(verdict, self._shadow._judge.authorize(host, port, method, path, fields, token))

    def _on_tcp(self, port: int) -> Verdict:
        """Nothing is remembered or looked up: it is asked once for a connection."""
        operation = operation_attributes("", port, "", "")
        verdict = self._book.try_all(self._peer, operation, RequestFacts((), None))
        if self._shadow is None:
            return verdict
        return with_shadow(verdict, self._shadow._book.try_all(self._peer, operation, RequestFacts((), None)))


def with_shadow(verdict: Verdict, shadow: Verdict) -> Verdict:
    if type(verdict) is type(shadow):
        return verdict
    return annotated(verdict, verdict.audits, _without_audits(shadow))


def _without_audits(verdict: Verdict) -> Verdict:
    """Without the AUDIT rules, which are told once."""
    if not verdict.audits:
        return verdict
    if isinstance(verdict, Permit):
        return Permit(SEAL, verdict.rule, verdict.version)
    return Denied(rule=verdict.rule, reason=verdict.reason, version=verdict.version)
