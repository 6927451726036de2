"""What judges requests: the rules left for a caller, found by what is asked, and verdicts remembered. See `authz`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import final

from sidecar.rules.compiled import CompiledRule, Reduced
from sidecar.rules.conditions import (
    HOST,
    METHOD,
    NAMESPACE,
    PATH,
    PORT,
    PRINCIPAL,
    SERVICE_ACCOUNT,
    OperationAttributes,
    PeerAttributes,
)
from sidecar.rules.facts import Peer, Token
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import without_params
from sidecar.rules.request_facts import Field, RequestFacts, operation_attributes, peer_attributes
from sidecar.rules.rule_index import AttributeId, Entry, RuleIndex
from sidecar.rules.snapshot import Action
from sidecar.rules.verdict import SEAL, Denied, Permit, Verdict, annotated

REMEMBERED_MAX = 512
"""Verdicts, for all callers with the same rules; when there are more, all are forgotten. Some 150 KiB at most."""
REMEMBERED_CHARACTERS_MAX = 256
"""Of host, method, path and the headers that policies name together."""
RULE_SETS_MAX = 256
"""Different sets of rules left for a caller, kept for the next caller of whom the same is left."""
INDEXED_KEYS_MAX = 8
AUDITS_MAX = 16
"""Rules named in one answer."""
SLICE = 64
"""Rules put in order between two yields."""


@final
class _Rules:
    """What is left of the rules of one action for some callers, found by what a request asks for."""

    __slots__ = ("_by_number", "_index")

    def __init__(self, rules: Sequence[Reduced]) -> None:
        for _ in self._build(rules):
            pass

    @classmethod
    def building(cls, rules: Sequence[Reduced]) -> Generator[None, None, _Rules]:
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

    def matching(self, asked: _Asked) -> Iterable[Reduced]:
        """Those that match, in order."""
        by_number = self._by_number
        if not by_number:
            return
        for number in self._index.candidates(asked.look):
            rule = by_number[number]
            if asked.holds(rule):
                yield rule


@final
class _Asked:
    """One request, as the tests see it."""

    __slots__ = ("_operation", "_request")

    def __init__(self, operation: OperationAttributes, request: RequestFacts) -> None:
        self._operation = operation
        self._request = request

    def without_params(self) -> _Asked | None:
        """The other reading of a path with `;parameters`; None if there is none."""
        operation = self._operation
        if ";" not in operation[PATH]:
            return None
        return _Asked((*operation[:PATH], without_params(operation[PATH])), self._request)

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
class _Judge:
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
        deny: Sequence[_Rules],
        allow: Sequence[_Rules],
        audit: Sequence[_Rules],
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
            verdict = self._judge(_Asked(operation_attributes(host, port, method, path), request))
            if length <= REMEMBERED_CHARACTERS_MAX:
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[asked] = verdict
        return verdict

    def _judge(self, asked: _Asked) -> Verdict:
        other = asked.without_params()
        verdict = _first(self._deny, asked) or (_first(self._deny, other) if other else None)
        verdict = verdict or _first(self._allow, asked) or self._otherwise
        if not self._audit:
            return verdict
        audits = {rule.number: rule.rule.name for rules in self._audit for rule in rules.matching(asked)}
        if other:
            audits |= {rule.number: rule.rule.name for rules in self._audit for rule in rules.matching(other)}
        return annotated(verdict, tuple(audits[number] for number in sorted(audits)[:AUDITS_MAX]), None)


def _first(groups: tuple[_Rules, ...], asked: _Asked) -> Verdict | None:
    """The verdict of the first rule that matches."""
    first: Reduced | None = None
    for rules in groups:
        for rule in rules.matching(asked):
            if first is None or rule.number < first.number:
                first = rule
            break
    return None if first is None else first.rule.verdict


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


@final
class Book:
    """The compiled rules of one set of policies: those enforced, or those and the ones in shadow."""

    def __init__(self, rules: Sequence[CompiledRule], otherwise: Verdict, trusted_proxies_count: int) -> None:
        for _ in self._build(rules, otherwise, trusted_proxies_count):
            pass

    @classmethod
    def building(
        cls, rules: Sequence[CompiledRule], otherwise: Verdict, trusted_proxies_count: int
    ) -> Generator[None, None, Book]:
        self = cls.__new__(cls)
        yield from self._build(rules, otherwise, trusted_proxies_count)
        return self

    def _build(
        self, rules: Sequence[CompiledRule], otherwise: Verdict, trusted_proxies_count: int
    ) -> Generator[None, None, None]:
        self.otherwise = otherwise
        self.rules = {action: tuple(rule for rule in rules if rule.action is action) for action in Action}
        self._trusted_proxies_count = trusted_proxies_count
        self._judges: dict[tuple[object, ...], _Judge] = {}
        self._of_callers: list[CompiledRule] = []
        """Rules that make a difference between callers, by the position they have in `_callers`."""
        common: dict[Action, list[Reduced]] = {action: [] for action in Action}
        nobody = peer_attributes(Peer(None))
        for count, rule in enumerate(rules, 1):
            if rule.is_for_everybody:
                reduced = rule.reduced(nobody)
                assert reduced is not None
                common[rule.action].append(reduced)
            else:
                self._of_callers.append(rule)
            if count % SLICE == 0:
                yield
        self._common: dict[Action, _Rules] = {}
        self._common_looks = _looks([rule for group in common.values() for rule in group])
        for action, group in common.items():
            self._common[action] = yield from _Rules.building(group)
        entries = [Entry(place, rule.wanted_callers()) for place, rule in enumerate(self._of_callers)]
        self._callers = yield from RuleIndex.building(entries, (PRINCIPAL, NAMESPACE, SERVICE_ACCOUNT))

    def judge(self, peer: PeerAttributes) -> _Judge:
        """Costs one look at each rule that may be about that caller."""
        left: list[Reduced] = []
        for place in self._callers.candidates(lambda attribute: peer[attribute] if isinstance(attribute, int) else ""):
            reduced = self._of_callers[place].reduced(peer)
            if reduced is not None:
                left.append(reduced)
        known_as = tuple((rule.number, rule.request) for rule in left)
        judge = self._judges.get(known_as)
        if judge is None:
            judge = self._make(left)
            if len(self._judges) >= RULE_SETS_MAX:
                self._judges.clear()
            self._judges[known_as] = judge
        return judge

    def _make(self, left: Sequence[Reduced]) -> _Judge:
        groups = {
            action: [self._common[action], _Rules([rule for rule in left if rule.rule.action is action])]
            for action in Action
        }
        looks = _looks(left)
        if self._common_looks is not None:
            looks = self._common_looks | (looks or frozenset())
        has_audit = bool(self.rules[Action.AUDIT])
        return _Judge(
            groups[Action.DENY],
            groups[Action.ALLOW],
            groups[Action.AUDIT] if has_audit else (),
            self.otherwise,
            looks,
            self._trusted_proxies_count,
        )

    def try_all(self, peer: PeerAttributes, operation: OperationAttributes, request: RequestFacts) -> Verdict:
        """The slow way: every rule against everything."""
        on_tcp = not operation[METHOD]
        asked = _Asked(operation, request)
        readings = [one for one in (asked, asked.without_params()) if one is not None]

        def matching(action: Action, readings: Sequence[_Asked]) -> Iterable[CompiledRule]:
            for rule in self.rules[action]:
                held = rule.on_tcp if on_tcp else rule
                reduced = held.reduced(peer) if held is not None else None
                if reduced is not None and any(one.holds(reduced) for one in readings):
                    yield rule

        deciding = next(iter(matching(Action.DENY, readings)), None) or next(
            iter(matching(Action.ALLOW, [asked])), None
        )
        verdict = self.otherwise if deciding is None else deciding.verdict
        assert verdict is not None
        audits = tuple(rule.name for rule in matching(Action.AUDIT, readings))
        return annotated(verdict, audits[:AUDITS_MAX], None)


def _looks(rules: Iterable[Reduced]) -> frozenset[bytes] | None:
    """Names of the headers that the rules look at; None if they look at nothing of scope REQUEST."""
    keys = {key for rule in rules for group in rule.request for tests in group for key, _ in tests}
    if not keys:
        return None
    names = {key.names[0].encode() for key in keys if key.attribute is Attribute.HEADER}
    if any(key.attribute is Attribute.REMOTE_IP for key in keys):
        names.add(b"x-forwarded-for")
    return frozenset(names)
