"""What judges requests: the rules left for a caller, found by what is asked, and verdicts remembered. See `authz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import final

from sidecar.rules.compiled import Reduced
from sidecar.rules.conditions import (
    HOST,
    METHOD,
    PATH,
    PORT,
    OperationAttributes,
)
from sidecar.rules.facts import Token
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import without_params
from sidecar.rules.request_facts import Field, RequestFacts, operation_attributes
from sidecar.rules.rule_index import AttributeId, Entry, RuleIndex
from sidecar.rules.verdict import Verdict, annotated

REMEMBERED_MAX = 512
"""Verdicts, for all callers with the same rules; when there are more, all are forgotten. Some 150 KiB at most."""
REMEMBERED_CHARACTERS_MAX = 256
"""Of host, method, path and the headers that policies name together."""
INDEXED_KEYS_MAX = 8
AUDITS_MAX = 16
"""Rules named in one answer."""


@final
class RuleSet:
    """What is left of the rules of one action for some callers, found by what a request asks for."""

    __slots__ = ("_by_number", "_index")

    def __init__(self, rules: Sequence[Reduced]) -> None:
        for _ in self._build(rules):
            pass

    @classmethod
    def building(cls, rules: Sequence[Reduced]) -> Generator[None, None, RuleSet]:
        self = cls.__new__(cls)
        yield from self._build(rules)
        return self

    def _build(self, rules: Sequence[Reduced]) -> Generator[None, None, None]:
        self._by_number = {rule.number: rule for rule in rules}
        entries = [Entry(rule.number, rule.rule.wanted()) for rule in rules]
        keys = Counter(key for entry in entries for key in entry.wanted if isinstance(key, Key))
        attributes: tuple[AttributeId, ...] = (
            PATH,
            HOST,
            *(key for key, _ in keys.most_common(INDEXED_KEYS_MAX)),
            METHOD,
            PORT,
        )
        self._index = yield from RuleIndex.building(entries, attributes)

    def __len__(self) -> int:
        return len(self._by_number)

    def matching(self, asked: Asked) -> Iterable[Reduced]:
        """Those that match, in order."""
        by_number = self._by_number
        if not by_number:
            return
        for number in self._index.candidates(asked.look):
            rule = by_number[number]
            if asked.holds(rule):
                yield rule


@final
class Asked:
    """One request, as the tests see it."""

    __slots__ = ("_operation", "_request")

    def __init__(self, operation: OperationAttributes, request: RequestFacts) -> None:
        self._operation = operation
        self._request = request

    def without_params(self) -> Asked | None:
        """The other reading of a path with `;parameters`; None if there is none."""
        operation = self._operation
        if ";" not in operation[PATH]:
            return None
        return Asked((*operation[:PATH], without_params(operation[PATH])), self._request)

    def look(self, attribute: AttributeId) -> str | tuple[str, ...]:
        return self._operation[attribute] if isinstance(attribute, int) else self._request.value(attribute)

    def holds(self, rule: Reduced) -> bool:
        operation = self._operation
        for tests in rule.operations:
            for index, test in tests:
                if not test(operation[index]):
                    break
            else:
                return not rule.request or self._request_holds(rule)
        return False

    def _request_holds(self, rule: Reduced) -> bool:
        value = self._request.value
        return all(
            any(all(test(value(key)) for key, test in tests) for tests in alternatives) for alternatives in rule.request
        )


@final
class Judge:
    """Of the callers for whom the same is left of the rules. Remembers its verdicts, up to a bound.

    A verdict is a pure function of what is asked and of what of headers and token any of its rules looks at."""

    __slots__ = (
        "_allow",
        "_audit",
        "_deny",
        "_otherwise",
        "_remembered",
        "_source_ip",
        "_trusted_proxies_count",
        "looks",
    )

    def __init__(
        self,
        deny: Sequence[RuleSet],
        allow: Sequence[RuleSet],
        audit: Sequence[RuleSet],
        otherwise: Verdict,
        looks: frozenset[bytes] | None,
        trusted_proxies_count: int,
    ) -> None:
        self._deny, self._allow, self._audit = (tuple(filter(len, rules)) for rules in (deny, allow, audit))
        self._otherwise = otherwise
        self._trusted_proxies_count = trusted_proxies_count
        self.looks = looks
        """Names of headers that make a difference; None: nor does a token."""
        self._remembered: dict[tuple[object, ...], Verdict] = {}

    @property
    def counts(self) -> tuple[int, int]:
        """Of DENY and of ALLOW rules."""
        return sum(map(len, self._deny)), sum(map(len, self._allow))

    def authorize(
        self, host: str, port: int, method: str, path: str, fields: Sequence[Field], token: Token | None
    ) -> Verdict:
        length = len(host) + len(method) + len(path)
        asked: tuple[object, ...] = (host, port, method, path)
        if self.looks is not None:
            looks = self.looks
            fields = tuple([field for field in fields if field[0] in looks])
            length += sum([len(value) for _, value in fields])
            asked = (host, port, method, path, fields, token)
        verdict = self._remembered.get(asked)
        if verdict is None:
            request = RequestFacts(fields, token, trusted_proxies_count=self._trusted_proxies_count)
            verdict = self._judge(Asked(operation_attributes(host, port, method, path), request))
            if length <= REMEMBERED_CHARACTERS_MAX:
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[asked] = verdict
        return verdict

    def _judge(self, asked: Asked) -> Verdict:
        other = asked.without_params()
        verdict = _first(self._deny, asked) or (_first(self._deny, other) if other else None)
        verdict = verdict or _first(self._allow, asked) or self._otherwise
        if not self._audit:
            return verdict
        audits = {rule.number: rule.rule.name for rules in self._audit for rule in rules.matching(asked)}
        if other:
            audits |= {rule.number: rule.rule.name for rules in self._audit for rule in rules.matching(other)}
        return annotated(verdict, tuple(audits[number] for number in sorted(audits)[:AUDITS_MAX]), None)


def _first(groups: tuple[RuleSet, ...], asked: Asked) -> Verdict | None:
    """The verdict of the first rule that matches."""
    first: Reduced | None = None
    for rules in groups:
        for rule in rules.matching(asked):
            if first is None or rule.number < first.number:
                first = rule
            break
    return None if first is None else first.rule.verdict


def looks_of(rules: Iterable[Reduced]) -> frozenset[bytes] | None:
    """Names of the headers that the rules look at; None if they look at nothing of scope REQUEST."""
    keys = {key for rule in rules for group in rule.request for tests in group for key, _ in tests}
    if not keys:
        return None
    names = {key.names[0].encode() for key in keys if key.attribute is Attribute.HEADER}
    if any(key.attribute is Attribute.REMOTE_IP for key in keys):
        names.add(b"x-forwarded-for")
    return frozenset(names)
