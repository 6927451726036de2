"""The conditions of a rule, compiled: each tests one attribute of a request.

Attributes come in three scopes, by when they are known:

    PEER        fixed for a connection: who calls, from which address
    OPERATION   of each request, looked at by nearly every rule: host, port, method, path
    REQUEST     of each request, found only if a rule asks: headers, the verified token, the remote address

A test takes the attribute as text; those that may have several values (headers, lists in a token) as a tuple of texts.
What is missing is "" or (). What a negative condition makes of something missing depends on the action, because an
ALLOW must not be had by leaving something out (security.md C24) nor a DENY be escaped so:

                          ALLOW                                DENY, AUDIT
    `x` of one value      matches                              matches
    `notX` of one value   is there and does not match          does not match, or is not there
    header, `values`      is there and all values match        one value matches                       (C22)
    header, `notValues`   no value matches, or is not there    one value does not, or is not there
    list in a token       one member matches                   one member matches
    list, `notValues`     is there and no member matches       no member matches, or is not there

A missing header is no missing identity: anybody can send one, so nothing is gained by refusing who did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from sidecar.rules.addresses import compile_blocks
from sidecar.rules.keys import Attribute, Key, parse_key
from sidecar.rules.match import Matcher, compile_matcher, compile_paths, one_spelling, without_params
from sidecar.rules.snapshot import Operation, Rule, Source, When

Texts = tuple[str, ...]
Value = str | Texts
Test = Callable[..., bool]
"""Of a text or of a tuple of texts, as its attribute has it."""


class Scope(Enum):
    PEER = "peer"
    OPERATION = "operation"
    REQUEST = "request"


# Of a connection; the names are Istio's.
PRINCIPAL, NAMESPACE, SERVICE_ACCOUNT, SOURCE_IP, DESTINATION_IP, SNI, REMOTE_IP = range(7)
# Of a request.
HOST, PORT, METHOD, PATH = range(4)

PeerAttributes = tuple[str, ...]
OperationAttributes = tuple[str, ...]


class Condition(NamedTuple):
    """One field of a source or an operation, or one list of a `when`, compiled."""

    field: str
    """As policies write it, below the item: `notPaths`, `values`."""
    scope: Scope
    attribute: int | Key
    """An index of PEER or OPERATION, or the key of a REQUEST attribute."""
    wanted: Texts
    test: Test
    positive: bool

    @property
    def is_http(self) -> bool:
        """An opaque TCP exchange does not have that attribute (C23)."""
        return self.scope is Scope.REQUEST or (self.scope is Scope.OPERATION and self.attribute != PORT)


Conditions = tuple[Condition, ...]

PEER_KEYS = {
    Attribute.PRINCIPAL: PRINCIPAL,
    Attribute.NAMESPACE: NAMESPACE,
    Attribute.SERVICE_ACCOUNT: SERVICE_ACCOUNT,
    Attribute.SOURCE_IP: SOURCE_IP,
    Attribute.DESTINATION_IP: DESTINATION_IP,
    Attribute.SNI: SNI,
}
_OF_TOKEN_LISTS = (Attribute.AUDIENCES, Attribute.CLAIM)
REMOTE_IP_KEY = Key(Attribute.REMOTE_IP)
REQUEST_PRINCIPAL_KEY = Key(Attribute.REQUEST_PRINCIPAL)


class Compiler:
    """Conditions of the rules of one action. What many rules have in common is compiled once."""

    def __init__(self, *, allow: bool, trusted_proxies_count: int) -> None:
        self._allow = allow
        self._remote_is_source = trusted_proxies_count == 0
        self._matchers: dict[tuple[object, Texts], Matcher] = {}

    def sources(self, rule: Rule) -> tuple[Conditions, ...]:
        return tuple(tuple(self._source(source)) for source in rule.sources)

    def operations(self, rule: Rule) -> tuple[Conditions, ...]:
        return tuple(tuple(self._operation(operation)) for operation in rule.operations)

    def when(self, rule: Rule) -> tuple[Conditions, ...]:
        """For each item its one or two lists."""
        return tuple(tuple(self._when(when)) for when in rule.when)

    def _source(self, source: Source) -> Iterator[Condition]:
        one = self._one
        yield from one("principals", Scope.PEER, PRINCIPAL, source.principals, source.not_principals)
        yield from one("namespaces", Scope.PEER, NAMESPACE, source.namespaces, source.not_namespaces)
        yield from one("ipBlocks", Scope.PEER, SOURCE_IP, source.ip_blocks, source.not_ip_blocks, compile_blocks)
        scope, attribute = self._remote()
        remote = (source.remote_ip_blocks, source.not_remote_ip_blocks)
        yield from one("remoteIpBlocks", scope, attribute, *remote, compile_blocks)
        users = (source.request_principals, source.not_request_principals)
        yield from one("requestPrincipals", Scope.REQUEST, REQUEST_PRINCIPAL_KEY, *users)

    def _operation(self, operation: Operation) -> Iterator[Condition]:
        one = self._one
        # Cheap and selective ones first.
        yield from one("ports", Scope.OPERATION, PORT, operation.ports, operation.not_ports)
        yield from one("methods", Scope.OPERATION, METHOD, operation.methods, operation.not_methods)
        paths, not_paths = tuple(map(one_spelling, operation.paths)), tuple(map(one_spelling, operation.not_paths))
        yield from one("paths", Scope.OPERATION, PATH, paths, not_paths, compile_paths)
        hosts, not_hosts = tuple(map(str.lower, operation.hosts)), tuple(map(str.lower, operation.not_hosts))
        yield from one("hosts", Scope.OPERATION, HOST, hosts, not_hosts)

    def _when(self, when: When) -> Iterator[Condition]:
        """Raises ValueError for a key that is none; `decode` never lets one in."""
        key = parse_key(when.key)
        scope, attribute = self._place(key)
        compiler = compile_blocks if key.attribute.is_address else compile_matcher
        if key.attribute is Attribute.HEADER:
            positive, negative = (_every, _none) if self._allow else (_any, _any_not_or_missing)
        elif key.attribute in _OF_TOKEN_LISTS:
            positive, negative = _any, _some_and_none if self._allow else _none
        else:
            yield from self._one("values", scope, attribute, when.values, when.not_values, compiler, "notValues")
            return
        if when.values:
            test = positive(self._matcher(compiler, when.values))
            yield Condition("values", scope, attribute, when.values, test, True)
        if when.not_values:
            test = negative(self._matcher(compiler, when.not_values))
            yield Condition("notValues", scope, attribute, when.not_values, test, False)

    def _place(self, key: Key) -> tuple[Scope, int | Key]:
        if key.attribute in PEER_KEYS:
            return Scope.PEER, PEER_KEYS[key.attribute]
        if key.attribute is Attribute.DESTINATION_PORT:
            return Scope.OPERATION, PORT
        if key.attribute is Attribute.REMOTE_IP:
            return self._remote()
        return Scope.REQUEST, key

    def _remote(self) -> tuple[Scope, int | Key]:
        """Without trusted proxies the remote address is the connection's, known before any request."""
        return (Scope.PEER, REMOTE_IP) if self._remote_is_source else (Scope.REQUEST, REMOTE_IP_KEY)

    def _one(
        self,
        field: str,
        scope: Scope,
        attribute: int | Key,
        values: Texts,
        not_values: Texts,
        compiler: Callable[[Texts], Matcher] = compile_matcher,
        not_field: str = "",
    ) -> Iterator[Condition]:
        """Of an attribute that has one value."""
        if values:
            yield Condition(field, scope, attribute, values, self._matcher(compiler, values), True)
        if not_values:
            matches = self._matcher(compiler, not_values)
            is_path = scope is Scope.OPERATION and attribute == PATH
            test = _never_of_the_missing(matches, is_path) if self._allow else _negated(matches)
            not_field = not_field or "not" + field[0].upper() + field[1:]
            yield Condition(not_field, scope, attribute, not_values, test, False)

    def _matcher(self, compiler: Callable[[Texts], Matcher], values: Texts) -> Matcher:
        matcher = self._matchers.get((compiler, values))
        if matcher is None:
            matcher = self._matchers[compiler, values] = compiler(values)
        return matcher


def _negated(matches: Matcher) -> Test:
    return lambda value: not matches(value)


def _never_of_the_missing(matches: Matcher, is_path: bool) -> Test:
    if not is_path:
        return lambda value: value != "" and not matches(value)
    # An exception is held against both readings of a path (C06).
    return lambda value: value != "" and not matches(value) and not (";" in value and matches(without_params(value)))


def _any(matches: Matcher) -> Test:
    return lambda values: any(map(matches, values))


def _every(matches: Matcher) -> Test:
    return lambda values: bool(values) and all(map(matches, values))


def _none(matches: Matcher) -> Test:
    return lambda values: not any(map(matches, values))


def _some_and_none(matches: Matcher) -> Test:
    return lambda values: bool(values) and not any(map(matches, values))


def _any_not_or_missing(matches: Matcher) -> Test:
    return lambda values: not values or not all(map(matches, values))
