"""One rule of one policy, compiled; and what is left of it once the caller is known.

A rule matches if one alternative of its sources holds, one of its operations, and all of its `when`. Everything of
scope PEER is settled when a connection begins: `caller_part` drops the alternatives that cannot hold for that caller,
and the rule with them, so that per request only what varies is looked at.

On opaque TCP there is no HTTP to look at (security.md C23): an alternative of an ALLOW rule that asks for it is gone,
one of a DENY or AUDIT rule is held to the rest of what it asks for. `Clauses.on_tcp` is the rule as it is then.

Of ten thousand rules most are never asked about by anybody who calls. So what an index needs is read off a rule at
once (`wanted`, `wanted_callers`, `callers`), and its tests are made when it is first a candidate. Besides the time this
saves objects, and with them the pauses of the garbage collector, which has to look at each.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar, final

from sidecar.rules.conditions import (
    HOST,
    METHOD,
    NAMESPACE,
    PATH,
    PEER_KEYS,
    PORT,
    PRINCIPAL,
    REMOTE_IP,
    REMOTE_IP_KEY,
    REQUEST_PRINCIPAL_KEY,
    SERVICE_ACCOUNT,
    SNI,
    SOURCE_IP,
    Compiler,
    Conditions,
    PeerAttributes,
    Scope,
    Test,
)
from sidecar.rules.keys import Attribute, Key, parse_key
from sidecar.rules.match import one_spelling
from sidecar.rules.rule_index import AttributeId, Texts
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source, When
from sidecar.rules.verdict import DENY_MATCHED, SEAL, Denied, Permit, Verdict

OperationTests = tuple[tuple[int, Test], ...]
RequestTests = tuple[tuple[Key, Test], ...]
RequestPart = tuple[tuple[RequestTests, ...], ...]
"""Of each, one must hold."""
Item = TypeVar("Item")
NO_CONDITION: tuple[Conditions, ...] = ((),)


class Reduced(NamedTuple):
    """What of a rule is left to be asked of each request of one caller."""

    number: int
    """Of the rule: rules are named in this order."""
    operations: tuple[OperationTests, ...]
    """One of them must hold."""
    request: RequestPart
    verdict: Verdict | None
    """None for AUDIT."""
    name: str


@final
class CompiledRule:
    """See the module's docstring. Compared by identity."""

    __slots__ = ("_body", "_compiler", "action", "index", "number", "policy", "rule", "version")

    def __init__(
        self, policy: AuthorizationPolicy, index: int, number: int, version: int, compiler: RuleCompiler
    ) -> None:
        self.policy = policy
        self.action = policy.action
        self.index = index
        self.rule: Rule = policy.rules[index]
        self.number = number
        self.version = version
        self._compiler = compiler
        self._body: _Body | None = None

    def __repr__(self) -> str:
        return f"<CompiledRule {self.name}>"

    @property
    def name(self) -> str:
        """ "namespace/name#rule-index"."""
        return f"{self.policy.full_name}#{self.index}"

    @property
    def shadow(self) -> bool:
        return self.policy.shadow

    @property
    def source(self) -> str:
        """ "file:line" of the rule, or of its policy where the line is not known."""
        file, colon, _ = self.policy.source.rpartition(":")
        return f"{file}:{self.rule.line}" if self.rule.line and colon else self.policy.source

    def body(self, *, on_tcp: bool = False) -> _Body | None:
        """Its tests; None: it never matches on TCP. Raises ValueError for a value that is none of its kind; `decode`
        never lets one in."""
        if on_tcp:
            clauses = self.clauses().on_tcp(self.action)
            return None if clauses is None else self._compiler.tests(clauses)
        if self._body is None:
            self._body = self._compiler.tests(self.clauses())
        return self._body

    def clauses(self) -> Clauses:
        """Its conditions, one by one."""
        return self._compiler.clauses(self.rule)

    @property
    def verdict(self) -> Verdict | None:
        """None for AUDIT."""
        match self.action:
            case Action.ALLOW:
                return Permit(SEAL, self.name, self.version)
            case Action.DENY:
                return Denied(rule=self.name, reason=DENY_MATCHED, version=self.version)
            case Action.AUDIT:
                return None

    def prepare(self) -> None:
        """Make the tests now."""
        self.body()

    def caller_part(self, peer: PeerAttributes) -> RequestPart | None:
        """What is left of `sources` and the PEER part of `when` for that caller; None: the rule cannot match."""
        body = self._body or self.body()
        assert body is not None
        return body.caller_part(peer)

    def reduced(self, part: RequestPart, body: _Body | None = None) -> Reduced:
        """`part`: what `caller_part` (of `body`; None: of this rule's) made of the caller. The verdict is made once."""
        body = body or self.body()
        assert body is not None
        return Reduced(self.number, body.operation_tests, part + body.when_request, self.verdict, self.name)

    # For the indexes

    @property
    def callers(self) -> Hashable:
        """Rules of one action that have this in common make the same of every caller."""
        rule = self.rule
        return self.action, rule.sources, tuple([one for one in rule.when if _may_be_of_peer(one)]) if rule.when else ()

    def keys(self) -> Iterable[Key]:
        """What its `when` looks at, of every scope; and the remote address and the user, if its sources do."""
        yield from self.keys_of_when()
        for source in self.rule.sources:
            if source.request_principals or source.not_request_principals:
                yield REQUEST_PRINCIPAL_KEY
            if source.remote_ip_blocks or source.not_remote_ip_blocks:
                yield REMOTE_IP_KEY

    def keys_of_when(self) -> Iterable[Key]:
        return [parse_key(one.key) for one in self.rule.when]

    def looks_at_peer(self, remote_is_source: bool) -> Iterable[int]:
        """Attributes of PEER that make a difference to it."""
        for source in self.rule.sources:
            for attribute, lists in (
                (PRINCIPAL, source.principals or source.not_principals),
                (NAMESPACE, source.namespaces or source.not_namespaces),
                (SOURCE_IP, source.ip_blocks or source.not_ip_blocks),
            ):
                if lists:
                    yield attribute
        for key in self.keys():
            if key.attribute in PEER_KEYS:
                yield PEER_KEYS[key.attribute]
            elif key.attribute is Attribute.REMOTE_IP and remote_is_source:
                yield REMOTE_IP

    def wanted(self) -> Mapping[AttributeId, Texts]:
        """What a request must match, by attribute (an index of OPERATION, or a Key)."""
        rule, wanted = self.rule, dict[AttributeId, Texts]()
        for attribute, values_of in _OPERATION_VALUES:
            _want(wanted, attribute, rule.operations, values_of)
        _want(wanted, REQUEST_PRINCIPAL_KEY, rule.sources, _request_principals)
        for one in rule.when:
            key = parse_key(one.key)
            if not one.values or key.attribute.is_address:
                continue
            if key.attribute is Attribute.DESTINATION_PORT:
                wanted.setdefault(PORT, one.values)
            elif key.attribute not in _PEER_TEXTS:
                wanted.setdefault(key, one.values)
        return wanted

    def wanted_callers(self) -> Mapping[AttributeId, Texts]:
        """What a caller must match, by attribute of PEER."""
        rule, wanted = self.rule, dict[AttributeId, Texts]()
        for attribute, values_of in _SOURCE_VALUES:
            _want(wanted, attribute, rule.sources, values_of)
        for one in rule.when:
            attribute = _PEER_TEXTS.get(parse_key(one.key).attribute, -1)
            if attribute >= 0 and one.values:
                wanted.setdefault(attribute, one.values)
        return wanted


_PEER_TEXTS = {
    Attribute.PRINCIPAL: PRINCIPAL,
    Attribute.NAMESPACE: NAMESPACE,
    Attribute.SERVICE_ACCOUNT: SERVICE_ACCOUNT,
    Attribute.SNI: SNI,
}


def _request_principals(source: Source) -> Texts:
    return source.request_principals


_SOURCE_VALUES: tuple[tuple[int, Callable[[Source], Texts]], ...] = (
    (PRINCIPAL, lambda source: source.principals),
    (NAMESPACE, lambda source: source.namespaces),
)
_OPERATION_VALUES: tuple[tuple[int, Callable[[Operation], Texts]], ...] = (
    (PATH, lambda operation: tuple(map(one_spelling, operation.paths))),
    (HOST, lambda operation: tuple(map(str.lower, operation.hosts))),
    (METHOD, lambda operation: operation.methods),
    (PORT, lambda operation: operation.ports),
)


def _want(
    wanted: dict[AttributeId, Texts],
    attribute: AttributeId,
    alternatives: Sequence[Item],
    values_of: Callable[[Item], Texts],
) -> None:
    """Add the texts, if every alternative demands one of some."""
    if len(alternatives) == 1:  # as good as always
        if values := values_of(alternatives[0]):
            wanted[attribute] = values
        return
    all_values: list[str] = []
    for alternative in alternatives:
        values = values_of(alternative)
        if not values:
            return
        all_values += values
    if all_values:
        wanted[attribute] = tuple(all_values)


def is_of_request(key: Key, remote_is_source: bool) -> bool:
    """Of scope REQUEST."""
    if key.attribute is Attribute.REMOTE_IP:
        return not remote_is_source
    return key.attribute not in PEER_KEYS and key.attribute is not Attribute.DESTINATION_PORT


def _may_be_of_peer(when: When) -> bool:
    """The remote address is, where no proxy is trusted."""
    key = parse_key(when.key)
    return not key.attribute.takes_a_name and key.attribute is not Attribute.DESTINATION_PORT


# Tests


class Clauses(NamedTuple):
    """A rule's conditions, one by one: for explaining, and to make tests of."""

    sources: tuple[Conditions, ...]
    operations: tuple[Conditions, ...]
    when: tuple[Conditions, ...]
    """By item; all must hold."""

    def on_tcp(self, action: Action) -> Clauses | None:
        """What is left where there is no HTTP; None: it never matches there."""
        if not any(c.is_http for part in self for conditions in part for c in conditions):
            return self
        if action is not Action.ALLOW:
            return Clauses(*map(_http_left_out, self))
        if any(c.is_http for conditions in self.when for c in conditions):
            return None
        sources, operations = _without_http(self.sources), _without_http(self.operations)
        if (self.sources and not sources) or (self.operations and not operations):
            return None
        return Clauses(sources, operations, self.when)


class _Body(NamedTuple):
    """A rule's tests, sorted by when they can be made. Few objects: there may be ten thousand."""

    source_tests: tuple[tuple[tuple[tuple[int, Test], ...], RequestTests], ...]
    """(of the peer, of the request) of each alternative; none: everybody."""
    when_peer: tuple[tuple[int, Test], ...]
    when_request: RequestPart
    operation_tests: tuple[OperationTests, ...]

    def caller_part(self, peer: PeerAttributes) -> RequestPart | None:
        for index, test in self.when_peer:
            if not test(peer[index]):
                return None
        if not self.source_tests:
            return ()
        left: list[RequestTests] = []
        for peer_tests, request_tests in self.source_tests:
            for index, test in peer_tests:
                if not test(peer[index]):
                    break
            else:
                if not request_tests:
                    return ()  # this caller needs nothing more
                left.append(request_tests)
        return (tuple(left),) if left else None


@final
class RuleCompiler:
    """Of all rules of one action. What many have in common is compiled once."""

    def __init__(self, action: Action, trusted_proxies_count: int) -> None:
        self._conditions = Compiler(allow=action is Action.ALLOW, trusted_proxies_count=trusted_proxies_count)

    def clauses(self, rule: Rule) -> Clauses:
        conditions = self._conditions
        return Clauses(conditions.sources(rule), conditions.operations(rule), conditions.when(rule))

    def tests(self, clauses: Clauses) -> _Body:
        conditions = tuple([c for item in clauses.when for c in item])
        of_operation = _indexed(conditions, Scope.OPERATION)
        when_request = _keyed(conditions)
        return _Body(
            source_tests=tuple([(_indexed(cs, Scope.PEER), _keyed(cs)) for cs in clauses.sources]),
            when_peer=_indexed(conditions, Scope.PEER),
            when_request=((when_request,),) if when_request else (),
            operation_tests=tuple(
                [_indexed(cs, Scope.OPERATION) + of_operation for cs in clauses.operations or NO_CONDITION]
            ),
        )


def _without_http(alternatives: tuple[Conditions, ...]) -> tuple[Conditions, ...]:
    return tuple(conditions for conditions in alternatives if not any(c.is_http for c in conditions))


def _http_left_out(alternatives: tuple[Conditions, ...]) -> tuple[Conditions, ...]:
    return tuple(tuple(c for c in conditions if not c.is_http) for conditions in alternatives)


def _indexed(conditions: Conditions, scope: Scope) -> tuple[tuple[int, Test], ...]:
    return tuple([(c.attribute, c.test) for c in conditions if c.scope is scope and isinstance(c.attribute, int)])


def _keyed(conditions: Conditions) -> RequestTests:
    return tuple([(c.attribute, c.test) for c in conditions if isinstance(c.attribute, Key)])
