"""The compiled evaluator against an interpreter written straight from Istio's documentation, on generated policies."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe_id import SpiffeId
from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source
from tests.sidecar.rules.builders import policy, snapshot, workload

# The interpreter. As slow and as literal as can be; nothing here is shared with the code it judges.


def string_match(pattern: str, value: str) -> bool:
    """ "Exact match, prefix match, suffix match, presence match"."""
    if value == "":
        return False
    if pattern == "*":
        return True
    if pattern[0] == "*":
        return value[-len(pattern[1:]) :] == pattern[1:]
    if pattern[-1] == "*":
        return value[: len(pattern[:-1])] == pattern[:-1]
    return pattern == value


def field_holds(values: Sequence[str], not_values: Sequence[str], value: str, action: Action) -> bool:
    if values and not any(string_match(pattern, value) for pattern in values):
        return False
    if not_values:
        if value == "" and action is Action.ALLOW:
            return False
        if any(string_match(pattern, value) for pattern in not_values):
            return False
    return True


def source_holds(source: Source, principal: SpiffeId | None, action: Action) -> bool:
    name = str(principal).removeprefix("spiffe://") if principal else ""
    namespace = (principal.namespace or "") if principal else ""
    return field_holds(source.principals, source.not_principals, name, action) and field_holds(
        source.namespaces, source.not_namespaces, namespace, action
    )


def operation_holds(operation: Operation, facts: Facts, path: str, action: Action) -> bool:
    ports = field_holds(operation.ports, operation.not_ports, str(facts.port), action)
    if facts.method == "" and action is Action.DENY:
        return ports
    hosts = [host.lower() for host in operation.hosts]
    not_hosts = [host.lower() for host in operation.not_hosts]
    return (
        ports
        and field_holds(hosts, not_hosts, facts.host, action)
        and field_holds(operation.methods, operation.not_methods, facts.method, action)
        and field_holds(operation.paths, operation.not_paths, path, action)
        and (action is Action.DENY or field_holds((), operation.not_paths, bare(path), action))
    )


def bare(path: str) -> str:
    """Without `;parameters`: a server may drop them before it routes (row C06), so what must not be is looked for here
    too."""
    found = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    while "//" in found:
        found = found.replace("//", "/")
    return found


def rule_holds(rule: Rule, facts: Facts, path: str, action: Action) -> bool:
    """ "A match occurs when at least one source, one operation matches the request"."""
    by_source = not rule.sources or any(source_holds(source, facts.principal, action) for source in rule.sources)
    by_operation = not rule.operations or any(operation_holds(o, facts, path, action) for o in rule.operations)
    return by_source and by_operation


def first_rule(policies: Sequence[AuthorizationPolicy], facts: Facts, path: str, action: Action) -> str | None:
    for one in sorted(policies, key=lambda p: (p.namespace, p.name)):
        for number, rule in enumerate(one.rules):
            if one.action is action and rule_holds(rule, facts, path, action):
                return f"{one.namespace}/{one.name}#{number}"
    return None


def judge(policies: Sequence[AuthorizationPolicy], facts: Facts, default: Action) -> tuple[bool, str]:
    """1. If there are DENY policies that match the request, deny. 2. If there are no ALLOW policies, [default].
    3. If any ALLOW policies match, allow. 4. Deny."""
    for path in (facts.path, bare(facts.path)):
        if denied := first_rule(policies, facts, path, Action.DENY):
            return False, denied
    if not any(one.action is Action.ALLOW for one in policies):
        return default is Action.ALLOW, "default"
    if allowed := first_rule(policies, facts, facts.path, Action.ALLOW):
        return True, allowed
    return False, "default"


# What it is asked. Few values, so that they meet often.

CALLERS = ["web", "edge", "other/web", "-", "@ada"]
PATHS = ["/", "/admin", "/admin/", "/admin/x", "/a.png", "/admin;a", "/;/admin", "*"]
METHODS = ["GET", "POST", "GETX"]
HOSTS = ["billing.shop", "billing", "xbilling.shop", "10.0.0.1", ""]
PORTS = [80, 8080, 5432]


def patterns(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Tuples, often empty, of the values as they are, cut to a prefix or to a suffix, or `*`."""
    some = st.sampled_from([value for value in values if value and "*" not in value])
    cut = st.integers(min_value=1, max_value=6)
    one = st.one_of(
        some,
        st.builds(lambda value, n: value[:n] + "*", some, cut),
        st.builds(lambda value, n: "*" + value[-n:], some, cut),
        st.just("*"),
    )
    return st.one_of(st.just(()), st.lists(one, min_size=1, max_size=2).map(tuple))


def exact(values: Sequence[int]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.one_of(st.just(()), st.lists(st.sampled_from(values).map(str), min_size=1, max_size=2).map(tuple))


principals = patterns([str(workload(name)).removeprefix("spiffe://") for name in CALLERS if name != "-"])
namespaces = patterns(["shop", "other"])
sources = st.builds(
    Source, principals=principals, not_principals=principals, namespaces=namespaces, not_namespaces=namespaces
)
operations = st.builds(
    Operation,
    hosts=patterns([*HOSTS, "BILLING.shop"]),
    not_hosts=patterns(HOSTS),
    ports=exact(PORTS),
    not_ports=exact(PORTS),
    methods=patterns(METHODS),
    not_methods=patterns(METHODS),
    paths=patterns(PATHS),
    not_paths=patterns(PATHS),
)
rules = st.builds(
    Rule,
    sources=st.lists(sources, max_size=2).map(tuple),
    operations=st.lists(operations, max_size=2).map(tuple),
)
DECIDING = [Action.ALLOW, Action.DENY]
policies_st = st.lists(
    st.tuples(st.sampled_from(DECIDING), st.lists(rules, max_size=3), st.sampled_from(["a", "b", "c", "d"])),
    max_size=4,
    unique_by=lambda parts: parts[2],
).map(lambda parts: [policy(action, *some_rules, name=name) for action, some_rules, name in parts])

http = st.builds(
    Facts,
    principal=st.sampled_from(CALLERS).map(workload),
    host=st.sampled_from(HOSTS),
    port=st.sampled_from(PORTS),
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
)
tcp = st.builds(Facts, principal=st.sampled_from(CALLERS).map(workload), port=st.sampled_from(PORTS))
requests = st.one_of(http, http, tcp)


@settings(max_examples=150)
@given(policies_st, requests, st.sampled_from(DECIDING))
def test_the_authorizer_decides_as_the_documentation_says(
    policies: list[AuthorizationPolicy], asked: Facts, default: Action
) -> None:
    """Verdict and named rule, with the caller's own authorizer and the explanation agreeing."""
    authorizer = Authorizer(snapshot(policies, default=default))
    verdict = authorizer.authorize(asked)
    assert judge(policies, asked, default) == (isinstance(verdict, Permit), verdict.rule)
    assert verdict == authorizer.for_peer(asked.peer).authorize(asked.host, asked.port, asked.method, asked.path)
    explanation = authorizer.explain(asked)
    assert (explanation.allowed, explanation.rule) == (isinstance(verdict, Permit), verdict.rule)
    assert explanation.version == verdict.version


@settings(max_examples=150)
@given(policies_st.flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))), requests)
def test_h04_order_changes_nothing(
    both: tuple[list[AuthorizationPolicy], list[AuthorizationPolicy]], asked: Facts
) -> None:
    """Neither the verdict nor the rule that is named."""
    first, second = (Authorizer(snapshot(policies)).authorize(asked) for policies in both)
    assert first == second


@settings(max_examples=60)
@given(policies_st, requests)
def test_a_further_deny_policy_never_opens_anything(policies: list[AuthorizationPolicy], asked: Facts) -> None:
    """And one that denies everything closes everything."""
    with_deny = [*policies, policy(Action.DENY, Rule(), name="zz")]
    assert not isinstance(Authorizer(snapshot(with_deny, default=Action.ALLOW)).authorize(asked), Permit)


@settings(max_examples=60)
@given(policies_st, requests)
def test_near_misses_are_real_and_sorted(policies: list[AuthorizationPolicy], asked: Facts) -> None:
    """Every near miss fails at least one condition; the best stands first. A deciding rule fails none."""
    explanation = Authorizer(snapshot(policies)).explain(asked)
    failures = [miss.failures_count for miss in explanation.near_misses]
    assert failures == sorted(failures)
    assert all(failures)
    assert all(condition.matched for condition in explanation.conditions)
