"""sidecar/rules/explain.py"""

from __future__ import annotations

from sidecar.rules import authz
from sidecar.rules.authz import Authorizer
from sidecar.rules.explain import ConditionResult, Explanation, NearMiss
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source
from tests.sidecar.rules.builders import allow, deny, facts, snapshot, tcp_facts

WEB = "mesh.local/ns/shop/sa/web"
ORDERS = "mesh.local/ns/shop/sa/orders"


def explained(*policies: AuthorizationPolicy, asked: authz.Facts, default: Action = Action.DENY) -> Explanation:
    return Authorizer(snapshot(policies, default=default)).explain(asked)


def test_an_allowed_request_names_its_rule_and_what_matched() -> None:
    """With the place the policy was applied from."""
    rule = Rule(sources=(Source(principals=(WEB,)),), operations=(Operation(methods=("GET", "HEAD")),))
    assert explained(allow(Rule(sources=(Source(principals=(ORDERS,)),)), rule), asked=facts()) == Explanation(
        allowed=True,
        rule="shop/a#1",
        reason=authz.ALLOW_MATCHED,
        source="a.yaml:1",
        version=7,
        conditions=(
            ConditionResult(field="from[0].source.principals", wanted=(WEB,), got=WEB, matched=True),
            ConditionResult(field="to[0].operation.methods", wanted=("GET", "HEAD"), got="GET", matched=True),
        ),
        near_misses=(),
    )


def test_a_request_denied_by_a_rule_names_it_and_no_near_miss() -> None:
    """No ALLOW rule could have helped."""
    explanation = explained(
        deny(Rule(operations=(Operation(paths=("/admin*",)),))), allow(), asked=facts(path="/admin")
    )
    assert (explanation.rule, explanation.reason, explanation.source) == ("shop/d#0", authz.DENY_MATCHED, "d.yaml:1")
    assert explanation.near_misses == ()
    assert [c.field for c in explanation.conditions] == ["to[0].operation.paths"]


def test_the_nearest_miss_stands_first() -> None:
    """The ALLOW rule with the fewest failing conditions, each told."""
    far = Rule(sources=(Source(principals=(ORDERS,)),), operations=(Operation(methods=("PUT",)),))
    near = Rule(sources=(Source(principals=(WEB,)),), operations=(Operation(methods=("POST",), paths=("/*",)),))
    explanation = explained(allow(far, near), asked=facts(path="/invoices"))
    assert (explanation.allowed, explanation.rule, explanation.source) == (False, "default", "")
    assert explanation.reason == authz.NO_ALLOW_MATCHED
    assert [miss.rule for miss in explanation.near_misses] == ["shop/a#1", "shop/a#0"]
    assert explanation.near_misses[0] == NearMiss(
        rule="shop/a#1",
        source="a.yaml:1",
        conditions=(
            ConditionResult(field="from[0].source.principals", wanted=(WEB,), got=WEB, matched=True),
            ConditionResult(field="to[0].operation.methods", wanted=("POST",), got="GET", matched=False),
            ConditionResult(field="to[0].operation.paths", wanted=("/*",), got="/invoices", matched=True),
        ),
    )


def test_of_alternatives_the_nearest_is_told() -> None:
    """Sources are ORed, operations are ORed: the best of each."""
    rule = Rule(
        sources=(Source(principals=(ORDERS,), namespaces=("other",)), Source(principals=(WEB,))),
        operations=(
            Operation(methods=("PUT",), paths=("/x",)),
            Operation(methods=("GET",), not_paths=("/secret",)),
        ),
    )
    (miss,) = explained(allow(rule), asked=facts(path="/secret")).near_misses
    assert [(c.field, c.matched) for c in miss.conditions] == [
        ("from[1].source.principals", True),
        ("to[1].operation.methods", True),
        ("to[1].operation.notPaths", False),
    ]


def test_rules_that_miss_equally_stay_in_their_order_and_are_bounded() -> None:
    """Five are enough to read."""
    rules = [Rule(operations=(Operation(paths=(f"/{n}",)),)) for n in range(9)]
    explanation = Authorizer(snapshot([allow(*rules)])).explain(facts())
    assert [miss.rule for miss in explanation.near_misses] == [f"shop/a#{n}" for n in range(5)]
    assert len(Authorizer(snapshot([allow(*rules)])).explain(facts(), near_misses_max=2).near_misses) == 2


def test_defaults_are_explained() -> None:
    """There is nothing to point at but the mesh's default."""
    assert explained(asked=facts()).reason == authz.DEFAULT_DENY
    assert explained(asked=facts(), default=Action.ALLOW).reason == authz.DEFAULT_ALLOW
    assert explained(asked=facts(), default=Action.ALLOW).allowed


def test_c24_nobody_is_shown_as_nothing() -> None:
    """An empty `got` for what the request lacks."""
    (miss,) = explained(allow(Rule(sources=(Source(not_principals=(WEB,)),))), asked=facts("-")).near_misses
    assert miss.conditions == (
        ConditionResult(field="from[0].source.notPrincipals", wanted=(WEB,), got="", matched=False),
    )


def test_c23_a_deny_rule_on_tcp_is_explained_by_its_ports() -> None:
    """Its HTTP fields took no part."""
    rule = Rule(operations=(Operation(ports=("5432",), methods=("GET",)),))
    explanation = explained(deny(rule), asked=tcp_facts())
    assert [(c.field, c.got) for c in explanation.conditions] == [("to[0].operation.ports", "5432")]


def test_c06_the_path_that_was_denied_is_shown() -> None:
    """Without its parameters."""
    explanation = explained(deny(Rule(operations=(Operation(paths=("/admin",)),))), asked=facts(path="/admin;x"))
    assert [(c.got, c.matched) for c in explanation.conditions] == [("/admin", True)]
