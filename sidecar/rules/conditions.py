"""The conditions of a rule, compiled: each one field of a source or an operation, and the test of one attribute.

What a negative condition makes of a missing attribute is told in `authz`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sidecar.rules.match import Matcher, compile_matcher, one_spelling, without_params
from sidecar.rules.snapshot import Operation, Source


class Condition(NamedTuple):
    """One field of a source or an operation, compiled."""

    field: str
    """As policies write it: `notPaths`."""
    attribute: int
    """Which one it tests: PRINCIPAL, NAMESPACE; HOST, PORT, METHOD or PATH."""
    wanted: tuple[str, ...]
    test: Matcher


Tests = tuple[tuple[int, Matcher], ...]
Attributes = tuple[str, ...]

# Attributes are two tuples, so that what is fixed for a connection is not looked at again with each request.
PRINCIPAL, NAMESPACE = 0, 1
HOST, PORT, METHOD, PATH = 0, 1, 2, 3


def only_ports(operations: tuple[tuple[Condition, ...], ...]) -> tuple[tuple[Condition, ...], ...]:
    return tuple(tuple(c for c in conditions if c.attribute == PORT) for conditions in operations)


Negation = Callable[[Matcher], Matcher]


def negated(matches: Matcher) -> Matcher:
    return lambda value: not matches(value)


def never_of_the_missing(matches: Matcher) -> Matcher:
    return lambda value: value != "" and not matches(value) and not (";" in value and matches(without_params(value)))


def source_conditions(source: Source, negative: Negation) -> tuple[Condition, ...]:
    return _conditions(
        negative,
        ("principals", PRINCIPAL, source.principals, source.not_principals),
        ("namespaces", NAMESPACE, source.namespaces, source.not_namespaces),
    )


def operation_conditions(operation: Operation, negative: Negation) -> tuple[Condition, ...]:
    hosts = tuple(host.lower() for host in operation.hosts)
    not_hosts = tuple(host.lower() for host in operation.not_hosts)
    paths, not_paths = tuple(map(one_spelling, operation.paths)), tuple(map(one_spelling, operation.not_paths))
    return _conditions(
        negative,
        # Cheap and selective ones first.
        ("ports", PORT, operation.ports, operation.not_ports),
        ("methods", METHOD, operation.methods, operation.not_methods),
        ("paths", PATH, paths, not_paths),
        ("hosts", HOST, hosts, not_hosts),
    )


def _conditions(
    negative: Negation, *fields: tuple[str, int, tuple[str, ...], tuple[str, ...]]
) -> tuple[Condition, ...]:
    conditions: list[Condition] = []
    for field, index, values, not_values in fields:
        if values:
            conditions.append(Condition(field, index, values, compile_matcher(values)))
        if not_values:
            not_field = "not" + field.capitalize()
            conditions.append(Condition(not_field, index, not_values, negative(compile_matcher(not_values))))
    return tuple(conditions)
