"""control_plane/policy/compile.py"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.policy.compile import HasSpec, Selectable, policies_for, policy_to_proto
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicySpec, Selection, Spec
from control_plane.policy.parse import parse_documents
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.decode import policy_from_proto
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source
from tests.sidecar.rules.builders import TD


def spec(name: str, namespace: str = "shop", **selector: str) -> PolicySpec:
    return PolicySpec(
        policy=AuthorizationPolicy(namespace=namespace, name=name, action=Action.DENY, rules=()),
        selection=Selection(labels=selector),
    )


def selected(
    resources: Iterable[Spec | HasSpec], namespace: str, labels: Mapping[str, str], service: str = "web"
) -> tuple[AuthorizationPolicy, ...]:
    member = Selectable(namespace=namespace, labels=labels, service=service)
    return policies_for(resources, member, MeshConfigSpec(), TD)


@pytest.mark.parametrize(
    ("selector", "labels", "is_selected"),
    [
        ({}, {}, True),
        ({}, {"app": "web"}, True),
        ({"app": "web"}, {"app": "web"}, True),
        ({"app": "web"}, {"app": "web", "v": "1"}, True),
        ({"app": "web", "v": "1"}, {"app": "web"}, False),
        ({"app": "web"}, {"app": "orders"}, False),
        ({"app": "web"}, {}, False),
        ({"app": ""}, {}, False),
        ({"app": ""}, {"app": ""}, True),
    ],
)
def test_a_selector_is_a_subset_of_the_labels(
    selector: dict[str, str], labels: dict[str, str], *, is_selected: bool
) -> None:
    """No selector selects the whole namespace."""
    one = spec("p", **selector)
    assert selected([one], "shop", labels) == ((one.policy,) if is_selected else ())


def test_a_policy_selects_within_its_namespace_only() -> None:
    """Whatever the labels."""
    one = spec("p", app="web")
    assert selected([one], "other", {"app": "web"}) == ()


def test_policies_come_in_one_order_whatever_the_input() -> None:
    """Equal input makes equal snapshots, and equal snapshots are not sent again."""
    specs = [spec(name) for name in ("b", "a", "c")]
    assert selected(specs, "shop", {}) == selected(reversed(specs), "shop", {})
    assert [policy.name for policy in selected(specs, "shop", {})] == ["a", "b", "c"]


def test_parsed_resources_are_taken_and_other_kinds_left() -> None:
    """What the store holds is resources."""
    mesh = ParsedResource(kind="MeshConfig", namespace="", name="default", spec=MeshConfigSpec(), yaml="", source="m:1")
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {}\n"
    )
    (resource,) = parse_documents(text, "p.yaml")
    assert [policy.full_name for policy in selected([mesh, resource], "shop", {})] == ["shop/p"]


values = st.lists(
    st.builds(
        lambda text, shape: shape.format(text), st.text("ab/.-", min_size=1), st.sampled_from(["{}", "{}*", "*{}"])
    )
    | st.just("*"),
    max_size=3,
).map(tuple)
ports = st.lists(st.integers(1, 65_535).map(str), max_size=2).map(tuple)
sources = st.builds(Source, principals=values, not_principals=values, namespaces=values, not_namespaces=values).filter(
    lambda source: source != Source()
)
operations = st.builds(
    Operation,
    hosts=values,
    not_hosts=values,
    ports=ports,
    not_ports=ports,
    methods=values,
    not_methods=values,
    paths=values,
    not_paths=values,
).filter(lambda operation: operation != Operation())
rules = st.builds(
    Rule, sources=st.lists(sources, max_size=2).map(tuple), operations=st.lists(operations, max_size=2).map(tuple)
)
policies = st.builds(
    AuthorizationPolicy,
    namespace=st.sampled_from(["shop", "a-1"]),
    name=st.sampled_from(["p", "a.b"]),
    action=st.sampled_from(Action),
    rules=st.lists(rules, max_size=3).map(tuple),
    source=st.sampled_from(["", "dir/f\u00e9.yaml:3"]),
)


@settings(max_examples=200)
@given(policies)
def test_a_policy_survives_the_wire(policy: AuthorizationPolicy) -> None:
    """Written here, serialised, read by the sidecar: the same value."""
    octets = policy_to_proto(policy).SerializeToString(deterministic=True)
    assert policy_from_proto(pb.AuthorizationPolicy.FromString(octets)) == policy
