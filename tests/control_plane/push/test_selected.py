"""control_plane/push/selected.py: what many workloads share is made once, and says what each alone would be told."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.policy.compile import (
    Selectable,
    peer_authentication_for,
    policies_for,
    request_authentications_for,
)
from control_plane.policy.model import (
    MeshConfigSpec,
    PeerAuthenticationSpec,
    PolicySpec,
    RequestAuthenticationSpec,
    Selection,
    Spec,
)
from control_plane.push.selected import Selected
from sidecar.rules import decode_policies
from sidecar.rules.snapshot import Action, AuthorizationPolicy, RequestAuthentication, Rule, Source, TlsMode
from tests.sidecar.rules.builders import TD

MESH = MeshConfigSpec(trusted_proxies_count=2)
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b", ""]), max_size=2)
SELECTIONS = st.builds(Selection, labels=LABELS) | st.builds(
    Selection, services=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True).map(tuple)
)
NAMESPACES = st.sampled_from(["shop", "pay", "istio-system"])
MEMBERS = st.builds(Selectable, namespace=NAMESPACES, service=st.sampled_from(["a", "b"]), labels=LABELS)


@st.composite
def resources(draw: st.DrawFn) -> list[Spec]:
    found: list[Spec] = []
    for number in range(draw(st.integers(0, 8))):
        namespace, selection, name = draw(NAMESPACES), draw(SELECTIONS), f"r{number}"
        match draw(st.integers(0, 2)):
            case 0:
                rule = Rule(sources=(Source(principals=("cluster.local/ns/a/sa/b", "x/ns/a/sa/b")),), line=number)
                policy = AuthorizationPolicy(namespace=namespace, name=name, action=Action.AUDIT, rules=(rule,))
                found.append(PolicySpec(policy=policy, selection=selection))
            case 1:
                labels = replace(selection, services=())
                mode = draw(st.sampled_from([*TlsMode, None]))
                found.append(PeerAuthenticationSpec(namespace=namespace, name=name, selection=labels, mode=mode))
            case _:
                request = RequestAuthentication(namespace=namespace, name=name, jwt_rules=())
                found.append(RequestAuthenticationSpec(authentication=request, selection=selection))
    return found


@settings(max_examples=200)
@given(resources(), st.lists(MEMBERS, min_size=1, max_size=5))
def test_a_part_is_what_the_workload_alone_would_be_told(specs: list[Spec], members: list[Selectable]) -> None:
    """Found by index, shared and encoded once, it decodes to what the plain functions say."""
    selected = Selected(specs, MESH, TD)
    for member in members:
        message = selected.part_for(member).message
        assert tuple(map(decode_policies.policy_from_proto, message.policies)) == policies_for(specs, member, MESH, TD)
        peer = decode_policies.peer_authentication(message.peer_authentication, "peer")
        assert peer == peer_authentication_for(specs, member, MESH)
        requests = decode_policies.request_authentications(message.request_authentications)
        assert requests == request_authentications_for(specs, member, MESH)
        assert message.trusted_proxies_count == 2


def policy(name: str, **labels: str) -> PolicySpec:
    rules = (Rule(sources=(Source(namespaces=("a",)),)),)
    one = AuthorizationPolicy(namespace="shop", name=name, action=Action.ALLOW, rules=rules)
    return PolicySpec(policy=one, selection=Selection(labels=labels))


def test_workloads_that_are_told_the_same_share_it() -> None:
    """One message, one digest."""
    selected = Selected([policy("all"), policy("web", app="web")], MESH, TD)
    parts = [selected.part_for(Selectable(namespace="shop", labels={"app": app})) for app in ("a", "b", "web")]
    assert parts[0] is parts[1]
    assert parts[0].digest != parts[2].digest


def test_what_did_not_change_is_not_made_again() -> None:
    """A sidecar that comes or goes leaves all parts; a policy that changes leaves the other policies."""
    specs: list[Spec] = [policy("all"), policy("web", app="web")]
    web = Selectable(namespace="shop", labels={"app": "web"})
    first = Selected(specs, MESH, TD)
    part = first.part_for(web)
    assert Selected(list(specs), MESH, TD, first).part_for(web) is part
    changed = Selected([specs[0], policy("web", app="web")], MESH, TD, first)
    assert changed.part_for(web) is not part
    assert changed.part_for(web).digest == part.digest
    other_mesh = Selected(specs, MeshConfigSpec(), TD, first)
    assert other_mesh.part_for(web).message.trusted_proxies_count == 0
