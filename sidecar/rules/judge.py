"""What judges requests: the rules left for a caller, found by what is asked, and verdicts remembered. See `authz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import final

from sidecar.rules.compiled import CompiledRule, Reduced, RequestPart, is_of_request
from sidecar.rules.conditions import (
    HOST,
    METHOD,
    PATH,
    PORT,
    OperationAttributes,
)
from sidecar.rules.facts import Token
from sidecar.rules.header_names import folded, folded_octets
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import without_params
from sidecar.rules.request_facts import Field, RequestFacts, operation_attributes
from sidecar.rules.rule_index import AttributeId, Entry, RuleIndex
from sidecar.rules.verdict import Verdict, annotated

REMEMBERED_MAX = 512
"""Verdicts, for all callers with the same rules; when there are more, all are forgotten. Below 1 MiB at most."""
REMEMBERED_CHARACTERS_MAX = 256
"""Of host, method, path and the headers that policies name together, each with its name and FIELD_OVERHEAD."""
FIELD_OVERHEAD = 32
"""RFC 9113 section 6.5.2: a field costs memory even if it is empty."""
REMEMBERED_TOKENS_MAX = 64
"""As long as a verdict is remembered, so is the token it is about, which may be 8 KiB."""
INDEXED_KEYS_MAX = 8
SLICE = 64
"""Rules filed between two yields."""
AUDITS_MAX = 16
"""Rules named in one answer."""


@final
class RuleSet:
    """The rules of one action for some callers, found by what a request asks for. Tests are made at first need."""

    __slots__ = ("_index", "_parts", "_reduced", "_rules", "looks")

    def __init__(self, rules: Sequence[tuple[CompiledRule, RequestPart]], remote_is_source: bool) -> None:
        for _ in self._build(rules, remote_is_source):
            pass

    @classmethod
    def building(
        cls, rules: Sequence[tuple[CompiledRule, RequestPart]], remote_is_source: bool
    ) -> Generator[None, None, RuleSet]:
        """`rules`: in the order of their numbers, each with what is left of its caller conditions."""
        self = cls.__new__(cls)
        yield from self._build(rules, remote_is_source)
        return self

    def _build(
        self, rules: Sequence[tuple[CompiledRule, RequestPart]], remote_is_source: bool
    ) -> Generator[None, None, None]:
        self._rules: dict[int, CompiledRule] = {}
        self._parts: dict[int, RequestPart] = {}
        self._reduced: dict[int, Reduced] = {}
        entries: list[Entry] = []
        keys: Counter[Key] = Counter()
        looks: set[Key] = set()
        for count, (rule, part) in enumerate(rules, 1):
            self._rules[rule.number] = rule
            if part:
                self._parts[rule.number] = part
                looks.update(key for group in part for tests in group for key, _ in tests)
            if rule.rule.when:
                looks.update(key for key in rule.keys_of_when() if is_of_request(key, remote_is_source))
            entry = Entry(rule.number, rule.wanted())
            keys.update(key for key in entry.wanted if isinstance(key, Key))
            entries.append(entry)
            if count % SLICE == 0:
                yield
        self.looks = frozenset(looks)
        """Attributes of scope REQUEST that make a difference."""
        common = [key for key, _ in keys.most_common(INDEXED_KEYS_MAX)]
        attributes: tuple[AttributeId, ...] = (PATH, HOST, *common, METHOD, PORT)
        self._index = yield from RuleIndex.building(entries, attributes)

    def __len__(self) -> int:
        return len(self._rules)

    def first(self, asked: Asked) -> Reduced | None:
        """The first that matches."""
        for number in self._index.candidates(asked.look):
            rule = self._reduced.get(number) or self._reduce(number)
            if asked.holds(rule):
                return rule
        return None

    def matching(self, asked: Asked) -> Iterable[Reduced]:
        """All that match, in order."""
        rules = (self._reduced.get(number) or self._reduce(number) for number in self._index.candidates(asked.look))
        return filter(asked.holds, rules)

    def _reduce(self, number: int) -> Reduced:
        rule = self._reduced[number] = self._rules[number].reduced(self._parts.get(number, ()))
        return rule


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
        "_trusted_proxies_count",
        "looks",
    )

    def __init__(
        self,
        deny: Sequence[RuleSet],
        allow: Sequence[RuleSet],
        audit: Sequence[RuleSet],
        otherwise: Verdict,
        trusted_proxies_count: int,
    ) -> None:
        self._deny, self._allow, self._audit = (tuple(filter(len, rules)) for rules in (deny, allow, audit))
        self._otherwise = otherwise
        self._trusted_proxies_count = trusted_proxies_count
        self.looks = header_names_of(key for rules in (*self._deny, *self._allow, *self._audit) for key in rules.looks)
        """Names of headers that make a difference, folded; None: nor does a token."""
        self._remembered: dict[tuple[object, ...], Verdict] = {}

    @property
    def counts(self) -> tuple[int, int]:
        """Of DENY and of ALLOW rules."""
        return sum(map(len, self._deny)), sum(map(len, self._allow))

    def authorize(
        self, host: str, port: int, method: str, path: str, fields: Sequence[Field], token: Token | None
    ) -> Verdict:
        asked: tuple[object, ...] = (host, port, method, path)
        looks = self.looks
        if looks is None:
            fields = ()
        else:
            fields = tuple([field for field in fields if folded_octets(field[0]) in looks])
            asked = (host, port, method, path, fields, token)
        verdict = self._remembered.get(asked)
        if verdict is None:
            request = RequestFacts(fields, token, trusted_proxies_count=self._trusted_proxies_count)
            verdict = self._judge(Asked(operation_attributes(host, port, method, path), request))
            length = len(host) + len(method) + len(path)
            length += sum([len(name) + len(value) + FIELD_OVERHEAD for name, value in fields])
            if length <= REMEMBERED_CHARACTERS_MAX:
                if len(self._remembered) >= (REMEMBERED_MAX if token is None else REMEMBERED_TOKENS_MAX):
                    self._remembered.clear()
                self._remembered[asked] = verdict
        return verdict

    def _judge(self, asked: Asked) -> Verdict:
        other = asked.without_params()
        verdict = _first(self._deny, asked) or (_first(self._deny, other) if other else None)
        verdict = verdict or _first(self._allow, asked) or self._otherwise
        if not self._audit:
            return verdict
        audits = {rule.number: rule.name for rules in self._audit for rule in rules.matching(asked)}
        if other:
            audits |= {rule.number: rule.name for rules in self._audit for rule in rules.matching(other)}
        return annotated(verdict, tuple(audits[number] for number in sorted(audits)[:AUDITS_MAX]), None)


def _first(groups: tuple[RuleSet, ...], asked: Asked) -> Verdict | None:
    """The verdict of the first rule that matches."""
    first: Reduced | None = None
    for rules in groups:
        rule = rules.first(asked)
        if rule is not None and (first is None or rule.number < first.number):
            first = rule
    return None if first is None else first.verdict


def header_names_of(keys: Iterable[Key]) -> frozenset[bytes] | None:
    """Of the headers that are looked at, folded; None if nothing of scope REQUEST is."""
    keys = set(keys)
    if not keys:
        return None
    names = {folded(key.names[0]).encode() for key in keys if key.attribute is Attribute.HEADER}
    if any(key.attribute is Attribute.REMOTE_IP for key in keys):
        names.add(b"x-forwarded-for")
    return frozenset(names)
