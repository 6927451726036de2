"""Coverage between rules is never claimed where it is not: held against the evaluator."""

from __future__ import annotations

import dataclasses

from hypothesis import event, given, settings
from hypothesis import strategies as st

from control_plane.policy.rehearse.cover import alternatives, covers, excluded
from control_plane.policy.rehearse.possible import View, view_of
from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.conditions import Compiler
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule
from tests.control_plane.policy.rehearse.rules import facts, rules, snapshot


def policy(rule: Rule, action: Action) -> AuthorizationPolicy:
    return AuthorizationPolicy(namespace="s", name="p", action=action, rules=(rule,))


def view(rule: Rule, action: Action, proxies: int = 0) -> View:
    return view_of(policy(rule, action), 0, Compiler(allow=action is Action.ALLOW, trusted_proxies_count=proxies))


def matches(rule: Rule, action: Action, request: Facts, proxies: int) -> bool:
    """As the evaluator has it."""
    made = dataclasses.replace(snapshot(proxies), policies=(policy(rule, action),))
    allowed = isinstance(Authorizer(made).authorize(request), Permit)
    return allowed if action is Action.ALLOW else not allowed


def narrower(rule: Rule, other: Rule, how: int) -> Rule:
    """Often a rule that is covered: both conditions in one."""
    if how == 0:
        return rule
    return Rule(
        sources=other.sources or rule.sources,
        operations=rule.operations or other.operations,
        when=rule.when + other.when,
    )


ACTIONS = [(Action.ALLOW, Action.ALLOW), (Action.DENY, Action.DENY), (Action.ALLOW, Action.DENY)]


@settings(deadline=None)
@given(
    rules,
    rules,
    st.integers(0, 1),
    st.sampled_from(ACTIONS),
    st.lists(facts(), min_size=5, max_size=20),
    st.integers(0, 1),
)
def test_what_is_covered_is_never_told_apart_by_a_request(
    wide: Rule, other: Rule, how: int, actions: tuple[Action, Action], requests: list[Facts], proxies: int
) -> None:
    """Whatever the narrower rule matches, the wider one matches: asked of the evaluator."""
    narrow_action, wide_action = actions
    narrow = narrower(other, wide, how)
    claimed = covers(view(wide, wide_action, proxies), view(narrow, narrow_action, proxies))
    event(f"covered: {claimed}")
    if not claimed:
        return
    for request in requests:
        if matches(narrow, narrow_action, request, proxies):
            event("and it matched")
            assert matches(wide, wide_action, request, proxies), request


@settings(deadline=None)
@given(rules, st.sampled_from([Action.ALLOW, Action.DENY]), st.lists(facts(), min_size=5, max_size=20))
def test_what_can_never_hold_together_never_matches(rule: Rule, action: Action, requests: list[Facts]) -> None:
    """Of a rule all of whose alternatives contradict themselves."""
    if not all(excluded(one) for one in alternatives(view(rule, action)) or [()]):
        return
    for request in requests:
        if request.method:  # on TCP a DENY is held to the rest of what it asks for
            assert not matches(rule, action, request, 0)
