"""What lint finds, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.model import WorkloadSpec
from control_plane.policy.rehearse.findings import CODES, Finding
from control_plane.policy.rehearse.lint import World, lint
from control_plane.policy.rehearse.mesh import Inhabitant
from control_plane.policy.rehearse.sources import Source, resources_of
from sidecar.rules.snapshot import Protocol
from tests.control_plane.policy.rehearse.support import NOW

TD = TrustDomain(name="mesh.local")
WEB = "from: [{source: {principals: [mesh.local/ns/shop/sa/web]}}]"


def inhabitant(service: str, **ports: str) -> Inhabitant:
    spec = WorkloadSpec(
        spiffe_id=SpiffeId.for_workload(TD, "shop", service), service=service, namespace="shop",
        service_account=service, labels={"app": service},
    )  # fmt: skip
    return Inhabitant(spec=spec, ports={int(port[1:]): Protocol(name) for port, name in ports.items()})


EVERYBODY = (inhabitant("orders", p8080="http1"), inhabitant("db", p5432="tcp"), inhabitant("web"))


def document(kind: str, spec: str, name: str = "p", namespace: str = "shop", annotations: str = "{}") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\n"
        f"metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}\nspec: {spec}\n---\n"
    )


def policy(*rules: str, action: str = "ALLOW", name: str = "p", app: str = "", namespace: str = "shop") -> str:
    selector = f"selector: {{matchLabels: {{app: {app}}}}}, " if app else ""
    listed = ", ".join(f"{{{rule}}}" for rule in rules)
    return document("AuthorizationPolicy", f"{{{selector}action: {action}, rules: [{listed}]}}", name, namespace)


USERS = document("RequestAuthentication", "{jwtRules: [{issuer: 'https://i.example', audiences: [a]}]}", "users")
USERS_OF_WEB = USERS.replace("{jwtRules", "{selector: {matchLabels: {app: web}}, jwtRules")
PLAIN = document("PeerAuthentication", "{mtls: {mode: PERMISSIVE}}", "plain")
UNTIL = "annotations: {hauberk.dev/plaintext-until: '2027-01-01T00:00:00Z'}"
PLAIN_FOR_NOW = PLAIN.replace("annotations: {}", UNTIL)


def found(text: str, inhabitants: Sequence[Inhabitant] = ()) -> list[Finding]:
    resources = resources_of([Source(name="p.yaml", text=text)])
    return lint(World(resources=tuple(resources), inhabitants=tuple(inhabitants), trust_domain=TD, now=NOW))


def codes(text: str, inhabitants: Sequence[Inhabitant] = ()) -> set[str]:
    return {one.code.id for one in found(text, inhabitants)}


NARROW = f"{WEB}, to: [{{operation: {{methods: [GET], paths: [/a]}}}}]"
WIDE = f"{WEB}, to: [{{operation: {{paths: ['/*']}}}}]"

# Code, what has it, what nearly has it.
ALONE = [
    ("HB010", policy(WIDE, NARROW), policy(NARROW, WIDE.replace("/*", "/b*"))),
    ("HB010", policy(NARROW) + policy(WIDE, name="q"), policy(NARROW) + policy(WIDE, name="q", namespace="other")),
    (
        "HB010",
        policy(NARROW, app="orders") + policy(WIDE, name="q"),
        policy(NARROW) + policy(WIDE, name="q", app="orders"),
    ),
    (
        "HB010",
        policy(NARROW) + policy(WIDE, namespace="istio-system"),
        policy(NARROW, namespace="istio-system") + policy(WIDE),
    ),
    ("HB010", policy(NARROW, NARROW), policy(NARROW)),
    (
        "HB011",
        policy(NARROW) + policy("to: [{operation: {paths: ['/a*']}}]", action="DENY", name="d"),
        policy(NARROW) + policy("to: [{operation: {paths: ['/a/*']}}]", action="DENY", name="d"),
    ),
    (
        "HB011",
        policy(NARROW) + policy("to: [{operation: {methods: [GET, POST]}}]", action="DENY", name="d"),
        policy(NARROW) + policy("to: [{operation: {notMethods: [GET]}}]", action="DENY", name="d"),
    ),
    (
        "HB012",
        policy("from: [{source: {principals: [mesh.local/ns/shop/sa/web], namespaces: [other]}}]"),
        policy("from: [{source: {principals: [mesh.local/ns/shop/sa/web], namespaces: [shop]}}]"),
    ),
    (
        "HB012",
        policy(f"{WEB}, to: [{{operation: {{methods: [GET], notMethods: [G*]}}}}]"),
        policy(f"{WEB}, to: [{{operation: {{methods: [GET], notMethods: [P*]}}}}]"),
    ),
    (
        "HB020",
        policy("from: [{source: {principals: ['a/ns/b/sa/c']}}, {source: {namespaces: [b]}}]"),
        policy("from: [{source: {principals: ['a/ns/b/sa/c'], namespaces: [b]}}]"),
    ),
    (
        "HB020",
        policy(f"{WEB}, to: [{{operation: {{methods: [GET]}}}}, {{operation: {{paths: [/a]}}}}]"),
        policy(f"{WEB}, to: [{{operation: {{paths: [/b]}}}}, {{operation: {{paths: [/a]}}}}]"),
    ),
    (
        "HB021",
        policy(WEB, "to: [{operation: {paths: [/a]}}]"),
        policy(WEB, f"{WEB}, to: [{{operation: {{paths: [/a]}}}}]"),
    ),
    ("HB030", policy("to: [{operation: {paths: [/a]}}]"), policy(NARROW)),
    (
        "HB030",
        policy("from: [{source: {principals: ['*']}}]"),
        policy("to: [{operation: {paths: [/a]}}], when: [{key: source.ip, values: [10.0.0.0/8]}]"),
    ),
    (
        "HB031",
        policy("from: [{source: {namespaces: [shop]}}]"),
        policy("from: [{source: {namespaces: [shop]}}], to: [{operation: {paths: [/a]}}]"),
    ),
    (
        "HB032",
        policy("from: [{source: {ipBlocks: [0.0.0.0/0]}}]"),
        policy("from: [{source: {ipBlocks: [10.0.0.0/8]}}]"),
    ),
    (
        "HB033",
        policy("from: [{source: {notNamespaces: [a]}}]", action="DENY"),
        policy("from: [{source: {namespaces: [a]}}]", action="DENY"),
    ),
    (
        "HB050",
        policy("from: [{source: {requestPrincipals: ['*']}}]"),
        policy("from: [{source: {requestPrincipals: ['*']}}]") + USERS,
    ),
    (
        "HB050",
        policy("when: [{key: 'request.auth.claims[a]', values: [b]}]", namespace="other") + USERS,
        policy("when: [{key: 'request.auth.claims[a]', values: [b]}]") + USERS,
    ),
    ("HB051", USERS + policy(WEB), USERS + policy("from: [{source: {requestPrincipals: ['*']}}]")),
    ("HB060", PLAIN, PLAIN_FOR_NOW),
    (
        "HB090",
        policy("to: [{operation: {paths: [/a]}}]", action="DENY"),
        policy("to: [{operation: {paths: [/a, '/a/*']}}]", action="DENY"),
    ),
]

# The same, with the workloads of EVERYBODY known.
BESIDE_WORKLOADS = [
    ("HB001", policy(WEB, app="order"), policy(WEB, app="orders")),
    ("HB001", PLAIN.replace("shop", "shp"), PLAIN),
    ("HB002", policy(WEB.replace("/web", "/wbe")), policy(WEB)),
    (
        "HB002",
        policy("from: [{source: {namespaces: ['sho*', shp]}}]"),
        policy("from: [{source: {namespaces: ['sho*']}}]"),
    ),
    (
        "HB003",
        policy(f"{WEB}, to: [{{operation: {{ports: ['80']}}}}]"),
        policy(f"{WEB}, to: [{{operation: {{ports: ['8080', '5432']}}}}]"),
    ),
    ("HB013", policy(WEB, app="db"), policy(WEB)),
    ("HB040", policy(NARROW, app="db"), policy(NARROW, app="orders")),
    (
        "HB040",
        policy("to: [{operation: {methods: [DELETE]}}]", action="DENY"),
        policy("to: [{operation: {methods: [DELETE], ports: ['8080']}}]", action="DENY"),
    ),
    (
        "HB050",
        policy("from: [{source: {requestPrincipals: ['*']}}]") + USERS_OF_WEB,
        policy("from: [{source: {requestPrincipals: ['*']}}]") + USERS,
    ),
]


@pytest.mark.parametrize(("code", "having", "nearly"), ALONE)
def test_a_slip_is_found_and_what_is_nearly_one_is_not(code: str, having: str, nearly: str) -> None:
    """From the documents alone."""
    assert code in codes(having)
    assert code not in codes(nearly)


@pytest.mark.parametrize(("code", "having", "nearly"), BESIDE_WORKLOADS)
def test_what_asks_for_workloads_is_found_beside_them(code: str, having: str, nearly: str) -> None:
    """And not claimed where they are not known."""
    assert code in codes(having, EVERYBODY)
    assert code not in codes(nearly, EVERYBODY)
    if code != "HB050":
        assert code not in codes(having)


def test_every_code_is_found_somewhere_above() -> None:
    """But for the one that says that there was too much to look at."""
    tested = {code for code, _, _ in (*ALONE, *BESIDE_WORKLOADS)}
    assert tested == {code.id for code in CODES} - {"HB099"}
    assert len({code.id for code in CODES}) == len({code.name for code in CODES}) == len(CODES)


def test_of_two_rules_that_are_the_same_the_later_is_told_of() -> None:
    """With the place of the one that stays."""
    (one,) = [one for one in found(policy(NARROW, NARROW)) if one.code.id == "HB010"]
    assert one.subject == "AuthorizationPolicy shop/p#1"
    assert one.related == (("p.yaml:4", "ALLOW rule shop/p#0"),)
    assert str(one).startswith("p.yaml:4: HB010 warning: AuthorizationPolicy shop/p#1: changes nothing: shop/p#0")


def test_a_policy_in_shadow_covers_nothing() -> None:
    """It is not enforced."""
    shadow = policy(WIDE, name="q").replace("annotations: {}", "annotations: {hauberk.dev/mode: shadow}")
    assert "HB010" not in codes(policy(NARROW) + shadow)


def test_the_trust_domain_may_be_written_as_istio_does() -> None:
    """`cluster.local` is the mesh's own."""
    assert "HB002" not in codes(policy(WEB.replace("mesh.local", "cluster.local")), EVERYBODY)


def test_a_mesh_that_allows_by_default_leaves_nobody_out() -> None:
    """Where no ALLOW policy selects the workload."""
    mesh = "apiVersion: hauberk.dev/v1\nkind: MeshConfig\nmetadata: {name: default}\nspec: {defaultAction: ALLOW}\n"
    assert "HB013" in codes(policy(WEB, action="DENY"), EVERYBODY)
    assert "HB013" not in codes(policy(WEB, action="DENY") + mesh, EVERYBODY)


def test_many_rules_are_compared_as_far_as_time_allows() -> None:
    """And it says where it stopped. Rules for named callers are compared with their like only."""
    named = [f"from: [{{source: {{principals: [mesh.local/ns/shop/sa/w{number}]}}}}]" for number in range(1_000)]
    assert codes(policy(*named)) == set()
    anybody = [f"to: [{{operation: {{paths: [/p{number}]}}}}]" for number in range(1_000)]
    assert "HB099" in codes(policy(*anybody))
