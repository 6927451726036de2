"""sidecar/rules/authz.py: its laws. Verdicts by the dozen: tests/control_plane/policy/test_verdicts.py."""

from __future__ import annotations

import copy
import itertools
import pickle
import tracemalloc

import pytest

from sidecar.rules import authz
from sidecar.rules.authz import Authorizer, Denied, Peer, Permit
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source, When
from tests.sidecar.rules.builders import allow, deny, facts, policy, snapshot, tcp_facts, workload

WEB = "mesh.local/ns/shop/sa/web"


def verdict(*policies: AuthorizationPolicy, asked: authz.Facts, default: Action = Action.DENY) -> str:
    """ "allow by RULE" or "deny by RULE", after checking that the peer's own authorizer agrees."""
    authorizer = Authorizer(snapshot(policies, default=default))
    found = authorizer.authorize(asked)
    peer = authorizer.for_peer(asked.peer)
    assert found == peer.authorize(asked.host, asked.port, asked.method, asked.path)
    return f"{'allow' if isinstance(found, Permit) else 'deny'} by {found.rule}"


def test_only_an_authorizer_makes_a_permit() -> None:
    """Opening an upstream takes a Permit, so nobody may forge one."""
    with pytest.raises(TypeError):
        Permit(object(), "shop/a#0", 1)


def test_a_permit_is_not_copied_changed_or_stored() -> None:
    """It is proof of one decision."""
    permit = Authorizer(snapshot(default=Action.ALLOW)).authorize(facts())
    assert isinstance(permit, Permit)
    with pytest.raises(AttributeError):
        permit.rule = "shop/other#0"
    with pytest.raises(TypeError):
        copy.copy(permit)
    with pytest.raises(TypeError):
        pickle.dumps(permit)
    assert repr(permit) == "<Permit by default at version 7>"


def test_permits_are_equal_by_rule_and_version() -> None:
    """So that a re-judged exchange can tell whether anything changed."""
    first = Authorizer(snapshot(default=Action.ALLOW)).authorize(facts())
    same = Authorizer(snapshot(default=Action.ALLOW)).authorize(facts("load"))
    later = Authorizer(snapshot(default=Action.ALLOW, version=8)).authorize(facts())
    assert first == same
    assert hash(first) == hash(same)
    assert first != later
    assert first != "default"


def test_no_policy_means_the_default_action() -> None:
    """Deny, unless the mesh says otherwise."""
    assert verdict(asked=facts()) == "deny by default"
    assert verdict(asked=facts(), default=Action.ALLOW) == "allow by default"


def test_h05_deleting_the_last_policy_never_allows_all() -> None:
    """Back to the default, which denies."""
    opened = allow(Rule())
    assert verdict(opened, asked=facts()) == "allow by shop/a#0"
    assert verdict(asked=facts()) == "deny by default"


@pytest.mark.parametrize("default", list(Action))
def test_h03_an_allow_policy_without_rules_allows_nobody(default: Action) -> None:
    """It matches nothing, but it is there: the default action no longer applies."""
    assert verdict(allow(), asked=facts(), default=default) == "deny by default"


def test_h03_a_deny_policy_without_rules_denies_nobody() -> None:
    """It matches nothing, and DENY policies do not end the default action."""
    assert verdict(deny(), asked=facts(), default=Action.ALLOW) == "allow by default"
    assert verdict(deny(), allow(Rule()), asked=facts()) == "allow by shop/a#0"


def test_a_rule_without_conditions_matches_everything() -> None:
    """`rules: [{}]`."""
    assert verdict(allow(Rule()), asked=facts("other/x", "PURGE", "/any")) == "allow by shop/a#0"
    assert verdict(deny(Rule()), allow(Rule()), asked=facts()) == "deny by shop/d#0"
    assert verdict(deny(Rule()), asked=tcp_facts("-"), default=Action.ALLOW) == "deny by shop/d#0"


def test_h04_deny_wins_whatever_the_order() -> None:
    """And the rule that is named does not depend on it either."""
    policies = [
        allow(Rule(), name="z"),
        allow(Rule(sources=(Source(principals=(WEB,)),)), name="b"),
        deny(Rule(operations=(Operation(paths=("/admin",)),)), name="y"),
        deny(Rule(operations=(Operation(paths=("/adm*",)),)), name="x"),
    ]
    for order in itertools.permutations(policies):
        assert verdict(*order, asked=facts(path="/admin")) == "deny by shop/x#0"
        assert verdict(*order, asked=facts(path="/ok")) == "allow by shop/b#0"


def test_rules_of_one_policy_are_tried_in_their_order() -> None:
    """The first that matches is named."""
    rules = (Rule(operations=(Operation(methods=("PUT",)),)), Rule(operations=(Operation(methods=("GET",)),)), Rule())
    assert verdict(allow(*rules), asked=facts()) == "allow by shop/a#1"


def test_c24_nobody_meets_no_condition_of_an_allow_rule() -> None:
    """Not even a negative one: a plaintext peer is no principal other than web."""
    for source in (
        Source(principals=("*",)),
        Source(not_principals=(WEB,)),
        Source(namespaces=("*",)),
        Source(not_namespaces=("other",)),
    ):
        assert verdict(allow(Rule(sources=(source,))), asked=facts("-")) == "deny by default"


def test_c24_nobody_is_denied_by_negative_conditions() -> None:
    """DENY `notPrincipals: [web]` means: web alone is not denied."""
    only_web = deny(Rule(sources=(Source(not_principals=(WEB,)),)))
    assert verdict(only_web, allow(Rule()), asked=facts("-")) == "deny by shop/d#0"
    assert verdict(only_web, allow(Rule()), asked=facts("web")) == "allow by shop/a#0"
    present = deny(Rule(sources=(Source(principals=("*",)),)))
    assert verdict(present, allow(Rule()), asked=facts("-")) == "allow by shop/a#0"


def test_an_identity_without_a_namespace_meets_no_namespace_condition_of_an_allow_rule() -> None:
    """Operators have identities, but live in no namespace."""
    assert verdict(allow(Rule(sources=(Source(not_namespaces=("other",)),))), asked=facts("@ada")) == "deny by default"
    named = allow(Rule(sources=(Source(principals=("mesh.local/hauberk/operator/ada",)),)))
    assert verdict(named, asked=facts("@ada")) == "allow by shop/a#0"


def test_c20_one_matcher_for_tcp_and_http() -> None:
    """CVE-2020-16844: a suffix principal meant two things."""
    suffix = Rule(sources=(Source(principals=("*/ns/shop/sa/web",)),))
    for asked in (facts(), tcp_facts()):
        assert verdict(allow(suffix), asked=asked) == "allow by shop/a#0"
        assert verdict(deny(suffix), allow(Rule()), asked=asked) == "deny by shop/d#0"
    for asked in (facts("other/web"), tcp_facts("other/web")):
        assert verdict(allow(suffix), asked=asked) == "deny by default"


@pytest.mark.parametrize(
    "operation",
    [
        Operation(methods=("GET",)),
        Operation(not_methods=("GET",)),
        Operation(paths=("*",)),
        Operation(not_paths=("/x",)),
        Operation(hosts=("*",)),
        Operation(not_hosts=("x",)),
        Operation(ports=("5432",), paths=("*",)),
    ],
)
def test_c23_http_fields_on_tcp_never_allow_and_deny_by_what_remains(operation: Operation) -> None:
    """Istio's rule for HTTP fields on a TCP port."""
    rule = Rule(operations=(operation,))
    assert verdict(allow(rule), asked=tcp_facts()) == "deny by default"
    assert verdict(deny(rule), allow(Rule()), asked=tcp_facts()) == "deny by shop/d#0"


def test_c23_the_ports_of_a_deny_rule_still_count_on_tcp() -> None:
    """Its layer-4 part decides."""
    rule = Rule(operations=(Operation(ports=("5432",), methods=("GET",)),))
    assert verdict(deny(rule), allow(Rule()), asked=tcp_facts(port=5432)) == "deny by shop/d#0"
    assert verdict(deny(rule), allow(Rule()), asked=tcp_facts(port=5433)) == "allow by shop/a#0"
    ports = allow(Rule(operations=(Operation(ports=("5432",)),)))
    assert verdict(ports, asked=tcp_facts(port=5432)) == "allow by shop/a#0"


def test_c10_the_query_takes_no_part_even_if_the_border_forgot_it() -> None:
    """CVE-2020-8595."""
    no_admin = deny(Rule(operations=(Operation(paths=("/admin",)),)))
    assert verdict(no_admin, allow(Rule()), asked=facts(path="/admin?x")) == "deny by shop/d#0"
    assert verdict(no_admin, allow(Rule()), asked=facts(path="/ok?/admin")) == "allow by shop/a#0"
    only_ok = allow(Rule(operations=(Operation(paths=("*/admin",)),)))
    assert verdict(only_ok, asked=facts(path="/ok?/admin")) == "deny by default"


def test_c15_c16_case_port_and_dot_of_a_host_take_no_part_even_if_the_border_forgot_them() -> None:
    """CVE-2021-39155, ISTIO-SECURITY-2021-008."""
    secret = deny(Rule(operations=(Operation(hosts=("Secret.com",)),)))
    for host in ("secret.com", "SECRET.com", "secret.com:443", "secret.com:1", "secret.com."):
        assert verdict(secret, allow(Rule()), asked=facts(host=host)) == "deny by shop/d#0"


def test_c06_deny_also_reads_the_path_without_params() -> None:
    """What a servlet container would serve as /admin is /admin to a DENY, and only to a DENY."""
    no_admin = deny(Rule(operations=(Operation(paths=("/admin",)),)))
    for path in ("/admin;a=b", "/;/admin", "/admin;"):
        assert verdict(no_admin, allow(Rule()), asked=facts(path=path)) == "deny by shop/d#0"
    only_public = allow(Rule(operations=(Operation(paths=("/public",)),)))
    assert verdict(only_public, asked=facts(path="/public;x")) == "deny by default"


def test_verdicts_carry_the_version_and_a_constant_reason() -> None:
    """What the access log and the decision id need."""
    authorizer = Authorizer(snapshot([allow(), deny(Rule(operations=(Operation(paths=("/x",)),)))], version=42))
    denied = authorizer.authorize(facts())
    assert denied == Denied(rule="default", reason=authz.NO_ALLOW_MATCHED, version=42)
    assert authorizer.authorize(facts(path="/x")) == Denied(rule="shop/d#0", reason=authz.DENY_MATCHED, version=42)


def test_a_peers_authorizer_holds_only_rules_that_can_match_it() -> None:
    """The rest is dropped once, not with every request."""
    rules = [Rule(sources=(Source(principals=(f"mesh.local/ns/shop/sa/{n}",)),)) for n in ("web", "edge", "load")]
    authorizer = Authorizer(snapshot([allow(*rules), deny(rules[1]), deny(Rule(), name="e")]))
    assert repr(authorizer) == "<Authorizer version 7, 2 DENY, 3 ALLOW>"
    assert repr(authorizer.for_peer(Peer(workload("web")))) == "<PeerAuthorizer 1 DENY, 1 ALLOW>"
    assert repr(authorizer.for_peer(Peer(workload("edge")))) == "<PeerAuthorizer 2 DENY, 1 ALLOW>"
    assert repr(authorizer.for_peer(Peer(None))) == "<PeerAuthorizer 1 DENY, 0 ALLOW>"


def test_an_answer_makes_no_new_object() -> None:
    """Verdicts are made once a rule and snapshot."""
    peer = Authorizer(snapshot([allow(Rule())])).for_peer(Peer(workload("web")))
    assert peer.authorize("a", 1, "GET", "/") is peer.authorize("b", 2, "PUT", "/x")


def test_a_caller_cannot_fill_the_memory_of_verdicts_with_empty_headers() -> None:
    """What is remembered of one request is bounded by its fields too, not by what stands in them alone."""
    named = Rule(when=(When(key="request.headers[x-role]", values=("admin",)),))
    peer = Authorizer(snapshot([deny(named)])).for_peer(Peer(workload("web")))
    tracemalloc.start()
    try:
        for number in range(500):
            empty = [(bytes(bytearray(b"x-role")), b"") for _ in range(90)]  # as decoded: of its own each time
            peer.authorize("billing.shop", 80, "GET", f"/{number}", empty)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_048_576


def test_policies_of_several_namespaces_are_named_with_theirs() -> None:
    """Sorted by namespace first."""
    first = policy(Action.ALLOW, Rule(), name="z", namespace="alpha")
    assert verdict(allow(Rule()), first, asked=facts()) == "allow by alpha/z#0"
