"""control_plane/policy/across.py: what no document shows alone."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.policy.across import POLICIES_OCTETS_MAX, Served, Together, octets_of
from control_plane.policy.compile import Selectable, policy_to_proto
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicySpec, Selection
from control_plane.policy.parse import parse_documents
from sidecar.rules.snapshot import AuthorizationPolicy, Protocol
from tests.policy import strategies

NOW = 1_800_000_000.0
DB = Served(member=Selectable(namespace="shop", labels={"app": "db"}, service="db"), ports={5432: Protocol.TCP})
WEB = Served(
    member=Selectable(namespace="shop", labels={"app": "web"}, service="web"),
    ports={80: Protocol.HTTP1, 9000: Protocol.TCP},
)


def peer(name: str, spec: str = "{mtls: {mode: PERMISSIVE}}", annotations: str = "{}", namespace: str = "shop") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}\nspec: {spec}\n---\n"
    )


def policy(rules: str, name: str = "p", spec: str = "action: ALLOW") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}, rules: {rules}}}\n---\n"
    )


def users(name: str = "users", spec: str = "", namespace: str = "shop") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec: {{{spec}jwtRules: [{{issuer: 'https://id.example', audiences: [a]}}]}}\n---\n"
    )


def mesh(spec: str) -> str:
    return f"apiVersion: hauberk.dev/v1\nkind: MeshConfig\nmetadata: {{name: default}}\nspec: {spec}\n---\n"


def parsed(text: str) -> list[ParsedResource]:
    return parse_documents(text, "p.yaml")


def together(applied: str, stored: str = "") -> Together:
    return Together(parsed(applied), [one.spec for one in parsed(stored)], default=MeshConfigSpec(), served=[DB, WEB])


DEMAND = mesh("{permissive: {requireUntil: true, requirePeers: true}}")


def test_plaintext_without_what_the_mesh_demands_is_refused() -> None:
    """An end, named peers, or both."""
    (fault,) = together(peer("a"), DEMAND).faults()
    assert fault.startswith(
        "p.yaml:1: metadata.annotations: PeerAuthentication shop/a takes plaintext without an end and"
    )
    until = "{hauberk.dev/plaintext-until: 2030-01-01T00:00:00Z}"
    (fault,) = together(peer("a", annotations=until), DEMAND).faults()
    assert "without named peers" in fault
    both = '{hauberk.dev/plaintext-until: 2030-01-01T00:00:00Z, hauberk.dev/plaintext-from: "10.0.0.0/8"}'
    assert together(peer("a", annotations=both), DEMAND).faults() == []
    assert together(peer("a")).faults() == []


def test_a_demand_that_what_is_stored_does_not_meet_is_refused() -> None:
    """It would shut ports that nobody is looking at. What was stored before does not stop other documents."""
    assert len(together(DEMAND, peer("a") + peer("b", "{mtls: {mode: DISABLE}}")).faults()) == 2
    assert together(peer("c", "{mtls: {mode: STRICT}}"), DEMAND + peer("a")).faults() == []


def test_h09_more_rules_than_one_sidecar_takes_are_refused() -> None:
    """Over all policies that select one workload; what none is sent does not count."""
    rules = "[" + "{}," * 6_000 + "{}]"
    (fault,) = together(policy(rules, "a"), policy(rules, "b")).faults()
    assert fault.startswith("db.shop would have 12002 rules, more than 10000")
    of_nobody = policy(rules, "c", "selector: {matchLabels: {app: none}}")
    assert together(policy(rules, "a"), of_nobody).faults() == []


def test_h09_what_is_larger_than_a_sidecar_takes_is_refused() -> None:
    """Few values, but long ones: a snapshot that cannot be sent would leave sidecars with the policies they have."""
    values = [f'"{number:05}{"v" * 1_995}"' for number in range(450)]
    large = [policy(f"[{{when: [{{key: 'request.headers[x-a]', values: [{', '.join(values)}]}}]}}]", "p")]
    count = POLICIES_OCTETS_MAX // (450 * 2_000)
    many = [one.spec for number in range(count) for one in parsed(large[0].replace("name: p", f"name: p{number}"))]
    (fault,) = Together(parsed(large[0]), many, default=MeshConfigSpec(), served=[DB]).faults()
    assert "octets of policies, more than 12582912" in fault
    assert Together([], many, default=MeshConfigSpec(), served=[DB]).faults() == []


@settings(max_examples=100)
@given(strategies.policies, st.sampled_from(["", "p.yaml:7", "\u00e4" * 256]))
def test_octets_are_never_counted_too_few(one: AuthorizationPolicy, source: str) -> None:
    """Nor many times too many."""
    spec = PolicySpec(policy=replace(one, source=source), selection=Selection())
    octets_count = policy_to_proto(spec.policy).ByteSize()
    assert octets_count <= octets_of(spec) <= 4 * octets_count + 1_024


def test_an_end_that_has_passed_is_warned_of() -> None:
    """The ports are STRICT already."""
    (passed,) = together(peer("a", annotations="{hauberk.dev/plaintext-until: 2026-01-01T00:00:00Z}")).warnings(NOW)
    assert "has passed" in passed
    assert together(peer("a", annotations="{hauberk.dev/plaintext-until: 2030-01-01T00:00:00Z}")).warnings(NOW) == []


def test_two_at_one_level_are_warned_of() -> None:
    """Istio would take the oldest."""
    (said,) = together(peer("a"), peer("b", "{mtls: {mode: STRICT}}")).warnings(NOW)
    assert "shop/b is for the same workloads: the strictest holds" in said
    assert together(peer("a"), peer("b", namespace="pay")).warnings(NOW) == []
    db = "{selector: {matchLabels: {app: db}}, mtls: {mode: STRICT}}"
    assert together(peer("a"), peer("b", db)).warnings(NOW) == []
    web = db.replace("db", "web")
    assert together(peer("a", web), peer("b", db)).warnings(NOW) == []
    assert len(together(peer("a", db), peer("b", db)).warnings(NOW)) == 1


def test_a_remote_address_needs_trusted_proxies() -> None:
    """Else it is the source's."""
    rules = "[{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]"
    assert any("no trustedProxiesCount" in one for one in together(policy(rules)).warnings(NOW))
    assert together(policy(rules), mesh("{trustedProxiesCount: 1}")).warnings(NOW) == []


def test_c23_http_fields_on_a_tcp_port_are_warned_of() -> None:
    """Such an ALLOW rule never matches there."""
    (said,) = together(policy("[{to: [{operation: {methods: [GET], ports: [9000]}}]}]")).warnings(NOW)
    assert "never matches at web.shop:9000, which is TCP" in said
    (said,) = together(policy("[{to: [{operation: {methods: [GET]}}]}]")).warnings(NOW)
    assert "never matches at db.shop:5432" in said
    at_web = "selector: {matchLabels: {app: web}}"
    assert together(policy("[{to: [{operation: {methods: [GET]}}]}]", spec=at_web)).warnings(NOW) == []
    assert together(policy("[{to: [{operation: {ports: [5432]}}]}]")).warnings(NOW) == []
    assert together(policy("[{to: [{operation: {methods: [GET]}}]}]", spec="action: DENY")).warnings(NOW) == []


DB_ONLY = "selector: {matchLabels: {app: db}}, "
NEW = "selector: {matchLabels: {app: new}}, "


def test_e26_tokens_where_plaintext_is_taken_are_warned_of() -> None:
    """Whichever of the two resources comes last; that one is the place. Once, however many workloads there are."""
    (said,) = together(users(), peer("a")).warnings(NOW)
    assert said.startswith("p.yaml:1: spec: db.shop takes plaintext (p.yaml:1) and tokens")
    assert "a token in plaintext from another machine is refused" in said
    comment = "# one line further down\n"
    (said,) = together(comment + peer("a", "{mtls: {mode: DISABLE}}"), users()).warnings(NOW)
    assert said.startswith(
        "p.yaml:2: spec: db.shop takes plaintext (p.yaml:2) and tokens (RequestAuthentication shop/users)"
    )
    assert together(policy("[{to: [{operation: {ports: [5432]}}]}]"), users() + peer("a")).warnings(NOW) == []


def test_e26_one_port_is_enough_and_an_end_ends_it() -> None:
    """What counts is what the workload's sidecar would do now."""
    port = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: PERMISSIVE}}}"
    (said,) = together(users(), peer("a", port)).warnings(NOW)
    assert "spec: web.shop takes plaintext" in said
    assert together(users(spec=DB_ONLY), peer("a", port)).warnings(NOW) == []
    assert together(users(), peer("a", "{mtls: {mode: STRICT}}")).warnings(NOW) == []
    assert together(users(), peer("a", namespace="pay")).warnings(NOW) == []
    assert len(together(users(), peer("a", namespace="istio-system")).warnings(NOW)) == 1
    ended = "{hauberk.dev/plaintext-until: 2026-01-01T00:00:00Z}"
    assert together(users(), peer("a", annotations=ended)).warnings(NOW) == []
    assert together(users(), DEMAND + peer("a")).warnings(NOW) == []


def test_e26_tokens_from_the_machine_itself_are_taken() -> None:
    """So peers on loopback are nothing to warn of."""
    local = "{hauberk.dev/plaintext-from: '127.0.0.0/8,::1'}"
    assert together(users(), peer("a", annotations=local)).warnings(NOW) == []
    some = "{hauberk.dev/plaintext-from: '127.0.0.0/8,10.0.0.0/8'}"
    assert len(together(users(), peer("a", annotations=some)).warnings(NOW)) == 1


def test_e26_a_workload_need_not_be_there_yet() -> None:
    """Of what no sidecar says it serves yet, the resources themselves tell enough."""
    (said,) = together(users(spec=NEW), peer("a")).warnings(NOW)
    assert "spec: what it selects takes plaintext" in said
    assert (
        together(users(spec=NEW), peer("a", "{selector: {matchLabels: {app: db}}, mtls: {mode: DISABLE}}")).warnings(
            NOW
        )
        == []
    )
