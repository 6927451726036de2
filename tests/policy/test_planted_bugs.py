"""Evaluators that are slightly wrong: the table notices each, and so do generated policies.

Each is the naive interpreter with one mistake in it, of the kind that reviews miss. If one went unnoticed, the same
mistake in the real evaluator would."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings

from sidecar.rules.authz import Authorizer
from sidecar.rules.facts import Facts, Token
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, When
from tests.policy import naive, strategies, tables
from tests.policy.naive import Asked, Verdict
from tests.policy.plain import InForce, in_force
from tests.policy.strategies import World
from tests.policy.tables import asked_by_peer
from tests.policy.test_properties import literally, snapshot

pytestmark = pytest.mark.slow

CORPUS_EXAMPLES = 800

right_decide, right_text, right_path = naive.decide, naive.text_matches, naive.path_matches
right_headers, right_one, right_claim = naive.headers, naive.one_value, naive.claim_of
right_rules, right_remote, right_when = naive.matching_rules, naive.remote_ip_of, naive.when_matches
right_list, right_judge = naive.list_in_a_token, naive.judge

Matches = Callable[[str, str], bool]


def allow_before_deny(
    policies: Sequence[AuthorizationPolicy], facts: Facts, default: Action, proxies: int
) -> tuple[bool, str]:
    for name in right_rules(policies, Action.ALLOW, facts, proxies):
        return True, name
    return right_decide(policies, facts, default, proxies)


def an_allow_without_rules_is_none(
    policies: Sequence[AuthorizationPolicy], facts: Facts, default: Action, proxies: int
) -> tuple[bool, str]:
    return right_decide([policy for policy in policies if policy.rules], facts, default, proxies)


def audit_closes_the_rest(
    policies: Sequence[AuthorizationPolicy], facts: Facts, default: Action, proxies: int
) -> tuple[bool, str]:
    audited = any(policy.action is Action.AUDIT for policy in policies)
    return right_decide(policies, facts, Action.DENY if audited else default, proxies)


def shadow_is_enforced(
    policies: Sequence[AuthorizationPolicy],
    facts: Facts,
    *,
    default: Action = Action.DENY,
    trusted_proxies: int = 0,
) -> Verdict:
    allowed, rule = right_decide(policies, facts, default, trusted_proxies)
    return Verdict(allowed, rule, right_judge(policies, facts, trusted_proxies=trusted_proxies).audits)


def prefix_without_case(pattern: str, value: str) -> bool:
    return right_text(pattern.lower(), value.lower()) if pattern.endswith("*") else right_text(pattern, value)


def suffix_anywhere(pattern: str, value: str) -> bool:
    return pattern[1:] in value if pattern[0] == "*" and value else right_text(pattern, value)


def presence_of_nothing(pattern: str, value: str) -> bool:
    return pattern == "*" or right_text(pattern, value)


def prefix_not_itself(pattern: str, value: str) -> bool:
    return right_text(pattern, value) and (pattern == "*" or pattern[:-1] != value or pattern[-1] != "*")


def a_regular_expression(pattern: str, value: str) -> bool:
    return bool(value) and re.fullmatch(pattern.replace("+", r"\+").replace("*", ".*"), value) is not None


def template_across_slashes(pattern: str, path: str) -> bool:
    return right_path(pattern.replace("{*}", "{**}"), path)


def template_of_an_empty_segment(pattern: str, path: str) -> bool:
    return right_path(pattern, path) or (pattern.endswith("/{*}") and right_text(pattern[:-3], path))


def two_stars_are_one_segment(pattern: str, path: str) -> bool:
    return right_path(pattern.replace("{**}", "{*}"), path)


def not_values_ignored(values: Sequence[str], _: Sequence[str], value: str, matches: Matches, asked: Asked) -> bool:
    return right_one(values, (), value, matches, asked)


def the_missing_is_not_excepted_in_allow(
    values: Sequence[str], not_values: Sequence[str], value: str, matches: Matches, asked: Asked
) -> bool:
    anyway = not values and not_values != () and value == ""
    return anyway or right_one(values, not_values, value, matches, asked)


def the_missing_is_excepted_in_deny(
    values: Sequence[str], not_values: Sequence[str], value: str, matches: Matches, asked: Asked
) -> bool:
    return right_one(values, not_values, value, matches, asked) and not (not_values and value == "")


def only_the_first_header(when: When, sent: Sequence[str], asked: Asked) -> bool:
    return right_headers(when, sent[:1], asked)


def headers_joined(when: When, sent: Sequence[str], asked: Asked) -> bool:
    return right_headers(when, [",".join(sent)] if sent else [], asked)


def any_header_in_allow(when: When, sent: Sequence[str], asked: Asked) -> bool:
    return any(right_headers(when, [one], asked) for one in sent) if sent else right_headers(when, sent, asked)


def a_missing_header_is_not_excepted(when: When, sent: Sequence[str], asked: Asked) -> bool:
    return right_headers(when, sent, asked) and not (asked.allow and sent == [])


def every_member_of_a_claim(when: When, members: Sequence[str], asked: Asked) -> bool:
    if when.values and members:
        return all(right_list(when, [member], asked) for member in members)
    return right_list(when, members, asked)


def only_the_first_member(token: Token | None, names: Sequence[str]) -> list[str]:
    return right_claim(token, names)[:1]


def scope_is_one_text(token: Token | None, names: Sequence[str]) -> list[str]:
    value = token.claims.get(names[0]) if token and len(names) == 1 else None
    return [value] if isinstance(value, str) else right_claim(token, names)


def claims_are_not_nested(token: Token | None, names: Sequence[str]) -> list[str]:
    return right_claim(token, names[:1])


def the_first_forwarded(asked: Asked) -> str:
    if asked.trusted_proxies == 0:
        return right_remote(asked)
    values = [value for name, value in asked.facts.headers if name == "x-forwarded-for"]
    entry = naive.address_of(",".join(values).split(",")[0].strip())
    return "" if entry is None else str(entry)


def the_last_forwarded(asked: Asked) -> str:
    return right_remote(Asked(asked.facts, asked.path, asked.allow, min(asked.trusted_proxies, 1)))


def forwarded_by_anybody(asked: Asked) -> str:
    return right_remote(Asked(asked.facts, asked.path, asked.allow, 1)) or right_remote(asked)


def the_connection_if_not_forwarded(asked: Asked) -> str:
    return right_remote(asked) or asked.facts.source_ip


def mapped_addresses_are_ipv6(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def addresses_as_text(block: str, text: str) -> bool:
    return text != "" and text.startswith(block.split("/")[0].rstrip("0:."))


def one_reading_of_a_path(path: str) -> str:
    return path


def a_query_is_part_of_the_path(facts: Facts) -> str:
    return naive.one_spelling(facts.path).replace("*", "%2A")


def as_it_was_written(path: str) -> str:
    return path


def hosts_with_case_and_port(facts: Facts) -> str:
    return facts.host


def conditions_ored(rule: Rule, asked: Asked) -> bool:
    sources = not rule.sources or any(naive.source_matches(one, asked) for one in rule.sources)
    operations = not rule.operations or any(naive.operation_matches(one, asked) for one in rule.operations)
    return sources and operations and (not rule.when or any(right_when(one, asked) for one in rule.when))


def sources_anded(rule: Rule, asked: Asked) -> bool:
    operations = not rule.operations or any(naive.operation_matches(one, asked) for one in rule.operations)
    sources = all(naive.source_matches(one, asked) for one in rule.sources)
    return sources and operations and all(right_when(one, asked) for one in rule.when)


def from_or_to(rule: Rule, asked: Asked) -> bool:
    sides = [any(naive.source_matches(one, asked) for one in rule.sources)] if rule.sources else []
    sides += [any(naive.operation_matches(one, asked) for one in rule.operations)] if rule.operations else []
    return (not sides or any(sides)) and all(right_when(one, asked) for one in rule.when)


def http_never_denies_tcp(
    policies: Sequence[AuthorizationPolicy], action: Action, facts: Facts, proxies: int
) -> Sequence[str]:
    if facts.method or action is Action.ALLOW:
        return list(right_rules(policies, action, facts, proxies))
    as_http = Facts(principal=facts.principal, port=facts.port, method="\0", path="\0", source_ip=facts.source_ip)
    on_both = right_rules(policies, action, as_http, proxies)
    return [name for name in right_rules(policies, action, facts, proxies) if name in set(on_both)]


def header_conditions_hold_on_tcp(when: When, asked: Asked) -> bool:
    if asked.is_tcp and when.key.startswith("request.headers") and not when.values:
        return True
    return right_when(when, asked)


BUGS: dict[Callable[..., object], str] = {
    allow_before_deny: "decide",
    an_allow_without_rules_is_none: "decide",
    audit_closes_the_rest: "decide",
    shadow_is_enforced: "judge",
    prefix_without_case: "text_matches",
    suffix_anywhere: "text_matches",
    presence_of_nothing: "text_matches",
    prefix_not_itself: "text_matches",
    a_regular_expression: "text_matches",
    template_across_slashes: "path_matches",
    template_of_an_empty_segment: "path_matches",
    two_stars_are_one_segment: "path_matches",
    not_values_ignored: "one_value",
    the_missing_is_not_excepted_in_allow: "one_value",
    the_missing_is_excepted_in_deny: "one_value",
    only_the_first_header: "headers",
    headers_joined: "headers",
    any_header_in_allow: "headers",
    a_missing_header_is_not_excepted: "headers",
    every_member_of_a_claim: "list_in_a_token",
    only_the_first_member: "claim_of",
    scope_is_one_text: "claim_of",
    claims_are_not_nested: "claim_of",
    the_first_forwarded: "remote_ip_of",
    the_last_forwarded: "remote_ip_of",
    forwarded_by_anybody: "remote_ip_of",
    the_connection_if_not_forwarded: "remote_ip_of",
    mapped_addresses_are_ipv6: "address_of",
    addresses_as_text: "address_in",
    one_reading_of_a_path: "without_parameters",
    a_query_is_part_of_the_path: "path_of",
    as_it_was_written: "one_spelling",
    hosts_with_case_and_port: "host_of",
    conditions_ored: "rule_matches",
    sources_anded: "rule_matches",
    from_or_to: "rule_matches",
    http_never_denies_tcp: "matching_rules",
    header_conditions_hold_on_tcp: "when_matches",
}

TABLE = [(in_force(case.documents, case.called), case.facts, case.expected) for case in tables.cases("cases")]


def table_verdict(force: InForce, facts: Facts) -> Verdict:
    return naive.judge(force.policies, facts, default=force.default_action, trusted_proxies=force.trusted_proxies)


@pytest.fixture(scope="module")
def corpus() -> list[tuple[World, Facts, Verdict]]:
    """Generated policies and requests with what the real evaluator answers."""
    found: list[tuple[World, Facts, Verdict]] = []

    @settings(max_examples=CORPUS_EXAMPLES, derandomize=True, database=None)
    @given(strategies.worlds, strategies.sweeps)
    def collect(world: World, some: list[Facts]) -> None:
        authorizer = Authorizer(snapshot(world))
        found.extend((world, asked, asked_by_peer(authorizer, asked)) for asked in some)

    collect()
    return found


@pytest.mark.parametrize(("bug", "piece"), BUGS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_noticed(
    bug: Callable[..., object], piece: str, corpus: list[tuple[World, Facts, Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a case of the table, and by a generated policy."""
    assert callable(getattr(naive, piece))
    monkeypatch.setattr(naive, piece, bug)
    assert any(table_verdict(force, facts) != expected for force, facts, expected in TABLE), "no case notices"
    assert any(literally(world, facts) != answer for world, facts, answer in corpus), "no generated policy notices"


def test_without_a_bug_nothing_is_noticed(corpus: list[tuple[World, Facts, Verdict]]) -> None:
    """Else the tests above would say nothing."""
    assert all(literally(world, facts) == answer for world, facts, answer in corpus)
