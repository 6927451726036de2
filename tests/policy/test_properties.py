"""The evaluator on generated policies: as the interpreter written from the documentation says, and its laws.

`HAUBERK_POLICY_EXAMPLES=100000 pytest tests/policy/test_properties.py` asks more often than CI does. What it finds is
kept as cases in `regressions/`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from dataclasses import replace

from hypothesis import event, given, settings
from hypothesis import strategies as st

from control_plane.policy.compile import policy_to_proto
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.authz import Authorizer
from sidecar.rules.decode import policy_from_proto
from sidecar.rules.facts import Facts
from sidecar.rules.judge import AUDITS_MAX
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, Snapshot
from tests.policy import naive, strategies
from tests.policy.naive import Verdict
from tests.policy.strategies import World
from tests.policy.tables import asked_by_peer, asked_whole
from tests.sidecar.rules import builders

EXAMPLES = int(os.environ.get("HAUBERK_POLICY_EXAMPLES", "150"))
MANY = settings(max_examples=EXAMPLES)
SOME = settings(max_examples=min(EXAMPLES, 10_000))

some_requests = st.lists(strategies.requests, min_size=1, max_size=4)


def snapshot(world: World) -> Snapshot:
    made = builders.snapshot(world.policies, default=world.default)
    return replace(made, trusted_proxies_count=world.proxies)


def decoded(policy: AuthorizationPolicy) -> AuthorizationPolicy:
    return policy_from_proto(pb.AuthorizationPolicy.FromString(policy_to_proto(policy).SerializeToString()))


def compiled_in_slices(made: Snapshot) -> Authorizer:
    def whole() -> Generator[None, None, None]:
        compiled.append((yield from Authorizer.compiling(made)))

    compiled: list[Authorizer] = []
    for _ in whole():
        pass
    return compiled[0]


def literally(world: World, asked: Facts) -> Verdict:
    return naive.judge(world.policies, asked, default=world.default, trusted_proxies=world.proxies)


def how_it_ended(verdict: Verdict) -> str:
    return f"{'allowed' if verdict.allowed else 'denied'} by {'default' if verdict.rule == 'default' else 'a rule'}"


@MANY
@given(strategies.worlds, some_requests, strategies.sweeps)
def test_the_evaluator_decides_as_the_documentation_says(world: World, some: list[Facts], more: list[Facts]) -> None:
    """Verdict, deciding rule, AUDIT rules and shadow; asked whole, by the peer, twice, and after the wire."""
    authorizers = (
        Authorizer(snapshot(world)),
        compiled_in_slices(snapshot(replace(world, policies=tuple(map(decoded, world.policies))))),
    )
    for asked in some:
        expected = literally(world, asked)
        event(how_it_ended(expected))
        event(f"audited: {bool(expected.audits)}")
        event(f"shadow differs: {expected.shadow is not None}")
        for authorizer in authorizers:
            assert expected == asked_whole(authorizer, asked)
            assert expected == asked_by_peer(authorizer, asked)
    for asked in more:
        assert literally(world, asked) == asked_by_peer(authorizers[0], asked) == asked_whole(authorizers[1], asked)
    # Verdicts are remembered: what was asked in between must not matter.
    for asked in reversed(some):
        assert literally(world, asked) == asked_by_peer(authorizers[0], asked)


ASPECTS = ("headers", "token", "source_ip", "principal", "path", "port", "host", "method", "sni", "destination_ip")


@SOME
@given(strategies.worlds, strategies.http_requests, st.lists(strategies.http_requests, min_size=1, max_size=2))
def test_what_is_remembered_of_one_request_says_nothing_of_another(
    world: World, first: Facts, others: list[Facts]
) -> None:
    """Verdicts and callers are remembered; requests that differ in one thing only are judged by that thing."""
    authorizer = Authorizer(snapshot(world))
    for other in others:
        for name in ASPECTS:
            for asked in (first, replace(first, **{name: getattr(other, name)}), first):
                assert literally(world, asked) == asked_by_peer(authorizer, asked)


def together(some: list[World]) -> World:
    """One world with all their policies, but for rules that are for everything, which would hide the others."""
    policies = [policy for world in some for policy in world.policies]
    named = [
        replace(policy, name=f"p{number}", rules=tuple(rule for rule in policy.rules if rule != Rule()))
        for number, policy in enumerate(policies)
    ]
    return replace(some[0], policies=tuple(named))


@settings(max_examples=max(20, min(EXAMPLES, 10_000) // 10))
@given(st.lists(strategies.worlds, min_size=5, max_size=12).map(together), strategies.sweeps)
def test_among_many_rules_the_first_that_matches_is_found(world: World, some: list[Facts]) -> None:
    """However rules are looked up, nothing is overlooked and their order stays."""
    authorizer = Authorizer(snapshot(world))
    for asked in some:
        expected = literally(world, asked)
        expected = replace(expected, audits=expected.audits[:AUDITS_MAX])
        assert expected == asked_by_peer(authorizer, asked) == asked_whole(authorizer, asked)


@SOME
@given(strategies.worlds, strategies.requests)
def test_the_explanation_is_of_the_verdict(world: World, asked: Facts) -> None:
    """The same verdict and rule; a deciding rule fails no condition, a near miss at least one."""
    explanation = Authorizer(snapshot(world)).explain(asked)
    expected = literally(world, asked)
    assert (explanation.allowed, explanation.rule, explanation.audits) == (
        expected.allowed,
        expected.rule,
        expected.audits,
    )
    assert all(condition.matched for condition in explanation.conditions)
    assert all(miss.failures_count for miss in explanation.near_misses)


@SOME
@given(
    strategies.worlds.flatmap(lambda world: st.tuples(st.just(world), st.permutations(world.policies))), some_requests
)
def test_h04_the_order_of_policies_changes_nothing(
    both: tuple[World, list[AuthorizationPolicy]], some: list[Facts]
) -> None:
    """Neither the verdict nor what is named in it."""
    world, otherwise = both
    first, second = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=tuple(otherwise))))
    for asked in some:
        assert asked_by_peer(first, asked) == asked_by_peer(second, asked)


def shuffled_rule(rule: Rule) -> Rule:
    return Rule(sources=rule.sources[::-1], operations=rule.operations[::-1], when=rule.when[::-1])


@SOME
@given(strategies.worlds, some_requests)
def test_h04_the_order_within_policies_allows_and_denies_the_same(world: World, some: list[Facts]) -> None:
    """Rules, sources, operations and conditions from last to first."""
    turned = tuple(
        replace(policy, rules=tuple(shuffled_rule(rule) for rule in reversed(policy.rules)))
        for policy in world.policies
    )
    first, second = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=turned)))
    for asked in some:
        assert asked_by_peer(first, asked).allowed == asked_by_peer(second, asked).allowed


@SOME
@given(strategies.worlds, strategies.policies, some_requests)
def test_one_more_deny_policy_never_allows_more(world: World, more: AuthorizationPolicy, some: list[Facts]) -> None:
    """Whatever it says."""
    deny = replace(more, action=Action.DENY, name="more", shadow=False)
    before, after = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=(*world.policies, deny))))
    for asked in some:
        assert asked_by_peer(before, asked).allowed or not asked_by_peer(after, asked).allowed


@SOME
@given(strategies.worlds, strategies.rules, some_requests)
def test_one_more_rule_of_an_allow_policy_never_denies_more(world: World, rule: Rule, some: list[Facts]) -> None:
    """Only the first ALLOW policy closes what the default leaves open."""
    longer = tuple(
        replace(policy, rules=(*policy.rules, rule)) if policy.action is Action.ALLOW and not policy.shadow else policy
        for policy in world.policies
    )
    before, after = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=longer)))
    for asked in some:
        assert asked_by_peer(after, asked).allowed or not asked_by_peer(before, asked).allowed


@SOME
@given(strategies.worlds, some_requests)
def test_policies_in_shadow_change_no_verdict(world: World, some: list[Facts]) -> None:
    """Without them the answer is the same, but for what it says of them."""
    enforced = tuple(policy for policy in world.policies if not policy.shadow)
    both, alone = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=enforced)))
    for asked in some:
        assert replace(asked_by_peer(both, asked), shadow=None) == asked_by_peer(alone, asked)


@SOME
@given(strategies.worlds, some_requests)
def test_shadow_says_what_enforcing_would_do(world: World, some: list[Facts]) -> None:
    """Enforced, the same policies give the verdict that was foretold."""
    enforced = tuple(replace(policy, shadow=False) for policy in world.policies)
    before, after = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=enforced)))
    for asked in some:
        told, found = asked_by_peer(before, asked), asked_by_peer(after, asked)
        assert found.allowed == (told.shadow[0] if told.shadow else told.allowed)
        assert told.shadow is None or told.shadow[1] == found.rule


@SOME
@given(strategies.worlds, some_requests)
def test_audit_policies_change_no_verdict(world: World, some: list[Facts]) -> None:
    """Without them the answer is the same, but for what it says of them."""
    others = tuple(policy for policy in world.policies if policy.action is not Action.AUDIT)
    both, alone = Authorizer(snapshot(world)), Authorizer(snapshot(replace(world, policies=others)))
    for asked in some:
        assert replace(asked_by_peer(both, asked), audits=()) == asked_by_peer(alone, asked)


def test_generated_requests_meet_generated_policies() -> None:
    """The properties above would say little if all were denied by default: every way to end has its healthy share."""
    ended: Counter[str] = Counter()

    @settings(max_examples=200, derandomize=True, database=None)
    @given(strategies.worlds, strategies.requests)
    def count(world: World, asked: Facts) -> None:
        verdict = literally(world, asked)
        ended[how_it_ended(verdict)] += 1
        ended["audited"] += bool(verdict.audits)
        ended["shadow differs"] += verdict.shadow is not None

    count()
    total = sum(ended[key] for key in ended if " by " in key)
    shares = {key: round(count / total, 3) for key, count in ended.items()}
    assert shares["allowed by a rule"] > 0.1, shares
    assert shares["denied by a rule"] > 0.1, shares
    assert shares["allowed by default"] > 0.05, shares
    assert shares["denied by default"] > 0.1, shares
    assert shares["audited"] > 0.05, shares
    assert shares["shadow differs"] > 0.03, shares
