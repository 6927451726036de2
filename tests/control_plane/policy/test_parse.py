"""control_plane/policy/parse.py: documents to resources, or every problem with its place."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import InvalidRequest
from control_plane.policy.model import (
    PROBLEMS_MAX,
    MeshConfigSpec,
    ParsedResource,
    PolicyErrors,
    PolicyProblem,
    PolicySpec,
    Selection,
)
from control_plane.policy.parse import parse_documents
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source

EXAMPLES = sorted((Path(__file__).parents[3] / "deploy" / "examples" / "policies").glob("*.yaml"))


def document(
    spec: str = "{}", *, metadata: str = "{name: p, namespace: shop}", kind: str = "AuthorizationPolicy"
) -> str:
    version = "hauberk.dev/v1" if kind == "MeshConfig" else "security.istio.io/v1"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def parsed(text: str) -> ParsedResource:
    (resource,) = parse_documents(text, "p.yaml")
    return resource


def policy(spec: str) -> AuthorizationPolicy:
    resource = parsed(document(spec))
    assert isinstance(resource.spec, PolicySpec)
    return resource.spec.policy


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        parse_documents(text, "p.yaml")
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


WHOLE = textwrap.dedent("""\
    # who may call billing
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata:
      name: billing
      namespace: shop
      labels: {team: money}
      annotations: {"example.com/why": 'because: of it'}
    spec:
      selector:
        matchLabels: {app: billing, tier: "1"}
      action: DENY
      rules:
        - from:
            - source:
                principals: [mesh.local/ns/shop/sa/web]
                notPrincipals: ["*/sa/x"]
                namespaces: [shop]
                notNamespaces: [test-*]
            - source: {namespaces: ["*"]}
          to:
            - operation:
                hosts: ["*.shop"]
                notHosts: [x.shop]
                ports: [80, "8080"]
                notPorts: [22]
                methods: [GET]
                notMethods: [PUT]
                paths: [/a*]
                notPaths: [/ab]
    """)


def test_a_whole_policy_is_read() -> None:
    """Every field arrives where it belongs."""
    resource = parsed(WHOLE)
    assert (resource.kind, resource.namespace, resource.name) == ("AuthorizationPolicy", "shop", "billing")
    assert (resource.source, resource.yaml, resource.warnings) == ("p.yaml:2", WHOLE, ())
    assert isinstance(resource.spec, PolicySpec)
    assert dict(resource.spec.selection.labels) == {"app": "billing", "tier": "1"}
    assert resource.spec.policy == AuthorizationPolicy(
        namespace="shop",
        name="billing",
        action=Action.DENY,
        source="p.yaml:2",
        rules=(
            Rule(
                line=14,
                sources=(
                    Source(
                        principals=("mesh.local/ns/shop/sa/web",),
                        not_principals=("*/sa/x",),
                        namespaces=("shop",),
                        not_namespaces=("test-*",),
                    ),
                    Source(namespaces=("*",)),
                ),
                operations=(
                    Operation(
                        hosts=("*.shop",),
                        not_hosts=("x.shop",),
                        ports=("80", "8080"),
                        not_ports=("22",),
                        methods=("GET",),
                        not_methods=("PUT",),
                        paths=("/a*",),
                        not_paths=("/ab",),
                    ),
                ),
            ),
        ),
    )


def test_defaults_are_istios() -> None:
    """ALLOW, namespace default, no selector, no rules."""
    resource = parsed(document(metadata="{name: p}"))
    assert resource.namespace == "default"
    assert resource.spec == PolicySpec(
        policy=AuthorizationPolicy(namespace="default", name="p", action=Action.ALLOW, rules=(), source="p.yaml:1"),
        selection=Selection(),
    )


def test_the_older_api_version_is_taken_too() -> None:
    """v1beta1 means the same."""
    assert parsed(document().replace("/v1", "/v1beta1")).kind == "AuthorizationPolicy"


def test_an_empty_rule_is_everything_and_an_empty_list_of_rules_nothing() -> None:
    """`rules: [{}]` and `rules: []`."""
    assert policy("{rules: [{}]}").rules == (Rule(line=4),)
    assert policy("{rules: []}").rules == ()


def test_a_mesh_config_is_read() -> None:
    """It holds for the whole mesh, so it has no namespace."""
    text = document(
        "{trustDomain: a.b, certificateLifetime: 30s, defaultAction: ALLOW}",
        metadata="{name: default}",
        kind="MeshConfig",
    )
    resource = parsed(text)
    assert resource.key == ("MeshConfig", "", "default")
    assert resource.spec == MeshConfigSpec(trust_domain="a.b", certificate_lifetime_s=30, default_action=Action.ALLOW)


def test_an_empty_mesh_config_denies_by_default() -> None:
    """An hour, DENY, and the trust domain the control plane was started with."""
    assert parsed(document(metadata="{name: default}", kind="MeshConfig")).spec == MeshConfigSpec(
        trust_domain=None, certificate_lifetime_s=3600, default_action=Action.DENY
    )


def test_several_documents_know_their_lines_and_texts() -> None:
    """Each is a resource of its own."""
    text = document(metadata="{name: a}") + "---\n# second\n" + document(metadata="{name: b}")
    first, second = parse_documents(text, "p.yaml")
    assert (first.source, second.source) == ("p.yaml:1", "p.yaml:7")
    assert second.yaml == "# second\n" + document(metadata="{name: b}")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_are_valid_and_raise_no_warning(file: Path) -> None:
    """They are what people copy."""
    resources = parse_documents(file.read_text(), file.name)
    assert resources
    assert all(resource.warnings == () for resource in resources)


def test_every_problem_is_told_with_its_place() -> None:
    """Not only the first; in the order of the file."""
    text = textwrap.dedent("""\
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: x, namespace: no}
        spec:
          selectr: 3
          action: allow
          rules:
            - from:
                - source: {principal: [a], principals: ["spiffe://mesh.local/ns/a/sa/b", 12]}
                - source: {}
              to: []
    """)
    assert problems(text) == [
        "p.yaml:3:32: metadata.namespace: YAML reads 'no' as a boolean; write \"no\"",
        "p.yaml:5:3: spec.selectr: not known to this version; did you mean selector?",
        "p.yaml:6:11: spec.action: 'allow' is not an action; did you mean ALLOW?",
        "p.yaml:9:20: spec.rules[0].from[0].source.principal: not known to this version; did you mean principals?",
        (
            "p.yaml:9:49: spec.rules[0].from[0].source.principals[0]: "
            "principals are written without the scheme; write 'mesh.local/ns/a/sa/b'"
        ),
        "p.yaml:9:82: spec.rules[0].from[0].source.principals[1]: YAML reads '12' as a number; write \"12\"",
        "p.yaml:10:19: spec.rules[0].from[1].source: is empty; name a condition, or remove `from` to mean everything",
        "p.yaml:11:11: spec.rules[0].to: is an empty list, which is no condition at all; name values or remove it",
    ]


def test_a_problem_has_its_parts() -> None:
    """For a user interface that marks the place."""
    with pytest.raises(PolicyErrors) as caught:
        parse_documents(document("{actoin: DENY}"), "p.yaml")
    assert caught.value.problems == (
        PolicyProblem(
            file="p.yaml",
            line=4,
            column=8,
            field="spec.actoin",
            message="not known to this version",
            hint="did you mean action?",
        ),
    )
    assert isinstance(caught.value, InvalidRequest)


ROOT = "p.yaml:1:1: "
REFUSED = [
    # the document
    ("a", ROOT + "expected a mapping, found text"),
    ("[]", "expected a mapping, found a list"),
    ("{}", ROOT + "kind: is missing"),
    ("kind: Pod", "kind: 'Pod' is not a kind known to this version"),
    ("kind: AuthorisationPolicy", "did you mean AuthorizationPolicy?"),
    ("kind: VirtualService", "kind: VirtualService is not yet supported"),
    ("kind: List", "write each of its items as a document of its own"),
    ("kind: PolicyTest", "it is for `hauberk policy test`"),
    ("kind: AuthorizationPolicy", "apiVersion: is missing; write security.istio.io/v1"),
    ("kind: AuthorizationPolicy", "metadata: is missing"),
    ("kind: AuthorizationPolicy", "spec: is missing; write `spec: {}`"),
    (document().replace("istio.io/v1", "istio.io/v2"), "has no AuthorizationPolicy; write security.istio.io/v1"),
    (document().replace("security.istio.io", "hauberk.dev"), "'hauberk.dev/v1' has no AuthorizationPolicy"),
    (document() + "status: {}\n", "status: not yet supported; Kubernetes sets it"),
    (document() + "extra: 1\n", "extra: not known to this version"),
    (document("[]"), "spec: expected a mapping, found a list"),
    (document(""), "spec: expected a mapping, found nothing"),
    # metadata
    (document(metadata="{}"), "metadata.name: is missing"),
    (document(metadata="{name: }"), "metadata.name: is empty"),
    (document(metadata="{name: 12}"), "metadata.name: YAML reads '12' as a number; write \"12\""),
    (document(metadata="{name: A}"), "metadata.name: 'A' is not a DNS name"),
    (document(metadata='{name: "a/b#0"}'), "metadata.name: 'a/b#0' is not a DNS name"),
    (document(metadata="{name: [a]}"), "metadata.name: expected text, found a list"),
    (document(metadata='{name: "p\\u0430"}'), "metadata.name: 'p\\u0430' is not a DNS name"),
    (document(metadata="{name: a, namespace: a.b}"), "metadata.namespace: 'a.b' is not a DNS label"),
    (document(metadata="{name: a, uid: x}"), "metadata.uid: not yet supported; Kubernetes sets it"),
    (document(metadata="{name: a, nmespace: x}"), "did you mean namespace?"),
    (document(metadata="{name: a, labels: {x: 1}}"), "metadata.labels.x: YAML reads '1' as a number"),
    (document(metadata="{name: a, labels: [x]}"), "metadata.labels: expected a mapping, found a list"),
    (
        document(metadata="{name: a, annotations: {istio.io/dry-run: 'yes'}}"),
        "dry-run: 'yes' is neither true nor false",
    ),
    # spec
    (document("{rules: }"), "spec.rules: is empty; write `rules: []` for none, `rules: [{}]` for everything"),
    (document("{rules: {}}"), "spec.rules: expected a list, found a mapping"),
    (document("{rules: [x]}"), "spec.rules[0]: expected a mapping, found text"),
    (document("{rules: [{when: []}]}"), "spec.rules[0].when: is an empty list"),
    (document("{rules: [{form: []}]}"), "did you mean from?"),
    (document("{targetRefs: []}"), "spec.targetRefs: is an empty list"),
    (document("{targetRef: {}}"), "spec.targetRef.kind: is missing"),
    (document("{provider: {}}"), "spec.provider: not yet supported"),
    (document("{action: CUSTOM}"), "spec.action: CUSTOM is not yet supported; external authorizers are not here yet"),
    (document("{action: yes}"), "spec.action: YAML reads 'yes' as a boolean"),
    (document("{action: }"), "spec.action: is empty"),
    (document("{selector: {}}"), "spec.selector.matchLabels: is missing; remove selector"),
    (
        document("{selector: {matchLabel: {app: a}}}"),
        "spec.selector.matchLabels: is missing; write matchLabels for 'matchLabel'",
    ),
    (
        document("{jwtRules: [{issuer: a, jwks: {keys: []}}]}", kind="RequestAuthentication"),
        "write it as JSON in quotes",
    ),
    (document("{selector: {matchLabels: {}}}"), "spec.selector.matchLabels: is empty; remove selector"),
    (document("{selector: {matchLabels: {app: '*'}}}"), "spec.selector.matchLabels.app: '*' is not a label's value"),
    (document("{selector: {matchLabels: {app: yes}}}"), "YAML reads 'yes' as a boolean"),
    (document("{selector: {matchExpressions: []}}"), "spec.selector.matchExpressions: not known"),
    # from
    (document("{rules: [{from: []}]}"), "spec.rules[0].from: is an empty list"),
    (document("{rules: [{from: {}}]}"), "spec.rules[0].from: expected a list, found a mapping"),
    (document("{rules: [{from: [{}]}]}"), "spec.rules[0].from[0].source: is missing"),
    (document("{rules: [{from: [{source: {}}]}]}"), "spec.rules[0].from[0].source: is empty"),
    (document("{rules: [{from: [{source: }]}]}"), "spec.rules[0].from[0].source: expected a mapping, found nothing"),
    (document("{rules: [{from: [{sources: {}}]}]}"), "did you mean source?"),
    (document("{rules: [{from: [{source: {principals: []}}]}]}"), "principals: is an empty list"),
    (document("{rules: [{from: [{source: {principals: x}}]}]}"), "expected a list, found text; write ['x']"),
    (document("{rules: [{from: [{source: {principals: [[x]]}}]}]}"), "principals[0]: expected text, found a list"),
    (document("{rules: [{from: [{source: {principals: [~]}}]}]}"), "YAML reads '~' as nothing"),
    (document("{rules: [{from: [{source: {namespaces: [no]}}]}]}"), "YAML reads 'no' as a boolean; write \"no\""),
    (document("{rules: [{from: [{source: {namespaces: ['']}}]}]}"), "namespaces[0]: is empty"),
    # to
    (document("{rules: [{to: []}]}"), "spec.rules[0].to: is an empty list"),
    (document("{rules: [{to: [{operation: {}}]}]}"), "spec.rules[0].to[0].operation: is empty"),
    (document("{rules: [{to: [{operation: {path: [/a]}}]}]}"), "did you mean paths?"),
    (document("{rules: [{to: [{operation: {ports: [010]}}]}]}"), "ports[0]: '010' is not a port"),
    (document("{rules: [{to: [{operation: {ports: [1:30]}}]}]}"), "ports[0]: '1:30' is not a port"),
    (document("{rules: [{to: [{operation: {ports: [8e1]}}]}]}"), "ports[0]: '8e1' is not a port"),
    (document("{rules: [{to: [{operation: {ports: [80.0]}}]}]}"), "ports[0]: YAML reads '80.0' as a number"),
    (document("{rules: [{to: [{operation: {ports: [.nan]}}]}]}"), "ports[0]: YAML reads '.nan' as a number"),
    (document("{rules: [{to: [{operation: {methods: [1]}}]}]}"), "methods[0]: YAML reads '1' as a number"),
    # MeshConfig
    (document(metadata="{name: other}", kind="MeshConfig"), "a mesh has one MeshConfig; call it default"),
    (document(metadata="{name: default, namespace: a}", kind="MeshConfig"), "metadata.namespace: not yet supported"),
    (document("{certificateLifetime: 3600}", metadata="{name: default}", kind="MeshConfig"), "YAML reads '3600'"),
    (document("{certificateLifetime: 1s}", metadata="{name: default}", kind="MeshConfig"), "out of bounds"),
    (document("{defaultAction: MAYBE}", metadata="{name: default}", kind="MeshConfig"), "'MAYBE' is not an action"),
    (document("{trustDomain: A}", metadata="{name: default}", kind="MeshConfig"), "spec.trustDomain: "),
    (document("{trustdomain: a}", metadata="{name: default}", kind="MeshConfig"), "did you mean trustDomain?"),
    (
        document(metadata="{name: default}", kind="MeshConfig")
        + "---\n"
        + document(metadata="{name: default}", kind="MeshConfig"),
        "there twice",
    ),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED, ids=[problem for _, problem in REFUSED])
def test_h01_refused(text: str, problem: str) -> None:
    """Unknown, not yet supported, empty, or of another type: with file, line, column, field and a way out."""
    found = problems(text)
    assert any(problem in one for one in found), found
    assert all(one.startswith("p.yaml:") for one in found)


def test_the_same_resource_twice_in_a_file_is_refused() -> None:
    """One of them would be lost."""
    text = document() + "---\n" + document("{rules: [{}]}") + "---\n" + document(metadata="{name: p, namespace: other}")
    assert problems(text) == ["p.yaml:6:1: metadata.name: AuthorizationPolicy shop/p is there twice, first at p.yaml:1"]


def test_one_bad_document_refuses_the_file() -> None:
    """All or nothing."""
    assert len(problems(document() + "---\n" + document("{x: 1}", metadata="{name: q}"))) == 1


def test_problems_are_bounded() -> None:
    """A hundred are enough to begin with."""
    rules = ", ".join("{x: 1}" for _ in range(PROBLEMS_MAX + 50))
    assert len(problems(document(f"{{rules: [{rules}]}}"))) == PROBLEMS_MAX


def test_h09_more_than_ten_thousand_rules_in_a_file_are_refused() -> None:
    """A sidecar would refuse the snapshot."""
    rules = "[" + "{}," * 5_000 + "]"
    twice = document(f"{{rules: {rules}}}") + "---\n" + document(f"{{rules: {rules}}}", metadata="{name: q}")
    assert len(parse_documents(twice, "p.yaml")) == 2
    assert problems(twice + "---\n" + document("{rules: [{}]}", metadata="{name: r}")) == [
        "p.yaml:0:0: 10001 rules are more than 10000"
    ]


def test_a_file_name_fits_one_line_of_a_log() -> None:
    """It travels to sidecars and into logs."""
    (resource,) = parse_documents(document(), "a\nb\x1b[31m" + "x" * 300)
    assert resource.source.isprintable()
    assert len(resource.source) < 300


def test_a_misspelt_name_of_any_length_costs_nothing() -> None:
    """Suggestions take quadratic time, so only short names get one."""
    (found,) = problems(document("{" + "a" * 1000 + ": 1}"))
    assert len(found) < 300


BASE = WHOLE + "---\n" + document("{certificateLifetime: 1h}", metadata="{name: default}", kind="MeshConfig")


@settings(max_examples=400)
@given(st.data())
def test_mutated_yaml_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Never another exception; and what is read is read again the same from its own text."""
    text = BASE
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 12)))
        insertion = data.draw(st.text("ab*/:-[]{},&!|>'\"%~# \n\t.019\u00e9\x00", max_size=4))
        text = text[:begin] + insertion + text[end:]
    try:
        resources = parse_documents(text, "p.yaml")
    except PolicyErrors as errors:
        assert 1 <= len(errors.problems) <= PROBLEMS_MAX  # noqa: PT017  # both outcomes are right, each has its law
        assert str(errors).count("\n") == len(errors.problems) - 1  # noqa: PT017
    else:
        for resource in resources:
            (again,) = parse_documents(resource.yaml, "p.yaml")
            assert again.key == resource.key
