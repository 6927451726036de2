"""The index of rules by path leaves out only what cannot match, and what is remembered is what would be decided."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.authz import REMEMBERED_MAX, Authorizer, Facts, Permit
from sidecar.rules.match import compile_matcher
from sidecar.rules.path_index import PathIndex
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source
from tests.sidecar.rules.builders import allow, deny, snapshot, workload
from tests.sidecar.rules.test_authz_properties import policies_st, requests

texts = st.text(alphabet="/ab", min_size=1, max_size=4)
values = st.one_of(texts, texts.map(lambda t: t + "*"), texts.map(lambda t: "*" + t), st.just("*"))


@given(st.lists(st.one_of(st.none(), st.lists(values, min_size=1, max_size=3)), max_size=8), st.text(alphabet="/ab"))
def test_every_rule_that_matches_is_a_candidate_and_in_order(wanted: list[list[str] | None], path: str) -> None:
    """And of rules that name paths, none is a candidate that does not match."""
    found = PathIndex(wanted).candidates(path)
    assert list(found) == sorted(set(found))
    for number, rule in enumerate(wanted):
        if rule is None or "*" in rule:
            assert number in found
        else:
            assert (number in found) == compile_matcher(rule)(path)


@given(policies_st, st.lists(requests, max_size=12), st.sampled_from(Action))
def test_a_verdict_that_is_remembered_is_the_one_that_would_be_made(
    policies: list[AuthorizationPolicy], asked: list[Facts], default: Action
) -> None:
    """Each request twice, of the caller's one authorizer, against the plain evaluator."""
    authorizer = Authorizer(snapshot(policies, default=default))
    for one in asked * 2:
        peer = authorizer.for_peer(one.principal)
        assert peer is authorizer.for_peer(one.principal)
        assert peer.authorize(one.host, one.port, one.method, one.path) == authorizer.authorize(one)


def test_what_is_remembered_is_bounded_and_long_paths_are_not() -> None:
    """A caller that never asks for the same path twice costs no more memory than one that does."""
    web = workload("web")
    assert web is not None
    rules = [Rule(sources=(Source(principals=(web.principal,)),), operations=(Operation(paths=("/a/*",)),))]
    peer = Authorizer(snapshot([allow(*rules), deny(Rule(operations=(Operation(paths=("*/x",)),)))])).for_peer(web)
    for number in range(3 * REMEMBERED_MAX):
        assert isinstance(peer.authorize("orders.shop", 80, "GET", f"/a/{number}"), Permit)
        assert not isinstance(peer.authorize("orders.shop", 80, "GET", f"/a/{number}/x"), Permit)
        assert len(peer._remembered) <= REMEMBERED_MAX
    before = len(peer._remembered)
    assert isinstance(peer.authorize("orders.shop", 80, "GET", "/a/" + "b" * 1_000), Permit)
    assert len(peer._remembered) == before
