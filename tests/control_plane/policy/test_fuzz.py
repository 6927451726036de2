"""Documents that nobody would write: parse_documents raises PolicyErrors or gives what the sidecar reads back equal.

What is asserted of each input is in `tests.oracles.fuzz_policy`, which `make fuzz` gives what it finds; here are inputs
that know the grammar: trees of all kinds with values from a pool of good and bad ones, mutated, and written as YAML.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.policy import authorization, meshconfig, peer_authentication, request_authentication, when
from control_plane.policy.model import PolicyErrors
from control_plane.policy.own_annotations import KNOWN
from control_plane.policy.parse import KINDS, parse_documents
from tests.oracles.fuzz_policy import check, one_input

Tree = Any  # what JSON can say

TEXTS = [path.read_text() for path in sorted((Path(__file__).parent / "istio_examples").glob("*.yaml"))]

GOOD = [
    "a", "*", "a*", "*a", "shop", "/a", "/a/*", "/{*}/b", "/{**}", "10.0.0.0/8", "10.1.2.3", "::1", "80", "GET", "web",
    "pay/api", "mesh.local/ns/a/sa/b", "cluster.local/ns/a/sa/b", "ALLOW", "DENY", "AUDIT", "STRICT", "PERMISSIVE",
    "UNSET", "source.ip", "request.headers[x-a]", "request.auth.claims[a][b]", "destination.port", "connection.sni",
    "source.principal", "source.serviceAccount", "https://a.example/k", "x-a", "a.b", "5s", "Service", "true", "shadow",
    "2030-01-01T00:00:00Z", '{"keys": []}',
]  # fmt: skip
BAD = [
    "", "CUSTOM", "10.0.0.1/8", "0x50", "010", "no", "1:30", ".nan", "~", "**", "a*b", "spiffe://a/b", "/a//b", "/%61",
    "/{x}", "\u0430", "\u202e", "a\nb", "a\0b", "&a", "*a b", "!!python/object:os.system", "<<", "9" * 400, "a" * 3_000,
    "-1", "1e999", "\ud800", "\ufeff", "{", "- ", "# x", "'", '"', "http://169.254.169.254/", "file:///etc/passwd",
]  # fmt: skip
NAMES = [
    *authorization.SPEC_FIELDS, *authorization.RULE_FIELDS, *authorization.SOURCE_FIELDS,
    *authorization.OPERATION_FIELDS, *when.FIELDS, *peer_authentication.FIELDS, *request_authentication.FIELDS,
    *request_authentication.JWT_FIELDS,
    *meshconfig.FIELDS, *meshconfig.PERMISSIVE_FIELDS, "source", "operation", "matchLabels", "mode", "kind", "group",
    "name", "namespace", "header", "claim", "prefix", "labels", "annotations", "8080", "provider", "<<", "no", "",
]  # fmt: skip

scalars = (
    st.sampled_from(GOOD)
    | st.sampled_from(BAD)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
anything: st.SearchStrategy[Tree] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=12,
)

RIGHT: dict[str, list[Tree]] = {
    "principals": ["*", "mesh.local/ns/a/sa/b", "cluster.local/ns/a/*", "*/sa/x"],
    "namespaces": ["a", "a-*", "*"],
    "serviceAccounts": ["a", "b/c"],
    "requestPrincipals": ["*", "i/s", "https://i/*", "Gr\u00f6\u00dfe*"],
    "ipBlocks": ["10.0.0.0/8", "::ffff:10.0.0.0/104", "2001:DB8::/32", "0.0.0.0/0"],
    "remoteIpBlocks": ["1.2.3.4"],
    "hosts": ["a.b", "*.b", "A.*"],
    "ports": ["80", 81],
    "methods": ["GET", "P*"],
    "paths": ["/a", "/a/*", "*.png", "/{*}/b", "/{**}", "/a:b"],
}


def mostly(right: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """Something else now and then."""
    return st.integers(0, 20).flatmap(lambda dice: right if dice else anything)


def lists(names: tuple[str, ...]) -> st.SearchStrategy[Tree]:
    """Some of the fields, each with values that it may have."""
    right = {name: RIGHT[name.removeprefix("not")[0].lower() + name.removeprefix("not")[1:]] for name in names}
    return st.sampled_from([name for name in names if "ccounts" not in name]).flatmap(
        lambda first: st.fixed_dictionaries(
            {first: mostly(st.lists(st.sampled_from(right[first]), min_size=1, max_size=3))},
            optional={
                name: mostly(st.lists(st.sampled_from(right[name]), min_size=1, max_size=3))
                for name in names
                if name != first and "ccounts" not in name
            },
        )
    )


sources = st.fixed_dictionaries(
    {
        "source": lists(authorization.SOURCE_FIELDS)
        | st.fixed_dictionaries({"serviceAccounts": st.lists(st.sampled_from(RIGHT["serviceAccounts"]), min_size=1)})
    }
)
operations = st.fixed_dictionaries({"operation": lists(authorization.OPERATION_FIELDS)})
OF_KEYS = {
    "source.ip": "ipBlocks",
    "remote.ip": "ipBlocks",
    "destination.port": "ports",
    "source.principal": "principals",
    "source.namespace": "namespaces",
    "source.serviceAccount": "serviceAccounts",
    "connection.sni": "hosts",
    "request.headers[X-A]": "requestPrincipals",
    "request.auth.claims[a][b]": "requestPrincipals",
}


def _condition(key: str) -> st.SearchStrategy[Tree]:
    pool = RIGHT[OF_KEYS[key]] if "headers" not in key else ["a", "b*"]
    values = mostly(st.lists(st.sampled_from(pool), min_size=1, max_size=2))
    both = {"key": st.just(key), "values": values, "notValues": values}
    return st.fixed_dictionaries({"key": both["key"], "values": values}) | st.fixed_dictionaries(both)


conditions = st.sampled_from(sorted(OF_KEYS)).flatmap(_condition)
rules = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(sources, min_size=1, max_size=2),
        "to": st.lists(operations, min_size=1, max_size=2),
        "when": st.lists(conditions, min_size=1, max_size=2),
    },
)
selectors = mostly(st.just({"matchLabels": {"app": "web"}}))
targets = mostly(st.just([{"kind": "Service", "name": "web"}]))
modes = mostly(st.fixed_dictionaries({"mode": st.sampled_from(["STRICT", "PERMISSIVE", "DISABLE", "UNSET"])}))
names = st.lists(st.sampled_from(["a", "b.c"]), min_size=1, max_size=2)
jwt_rules = st.fixed_dictionaries(
    {"issuer": st.just("https://a.example")},
    optional={
        "audiences": mostly(names),
        "jwksUri": mostly(st.sampled_from(["https://a.example/k", "http://localhost:1/k"])),
        "fromHeaders": mostly(st.just([{"name": "X-A", "prefix": "Token "}, {"name": "b"}])),
        "fromParams": mostly(names),
        "fromCookies": mostly(names),
        "outputPayloadToHeader": mostly(st.just("X-Payload")),
        "outputClaimToHeaders": mostly(st.just([{"header": "x-a", "claim": "b.c"}])),
        "forwardOriginalToken": mostly(st.booleans()),
        "timeout": mostly(st.sampled_from(["5s", "1.5s", "10ms"])),
        "spaceDelimitedClaims": mostly(names),
    },
)
SPECS: dict[str, st.SearchStrategy[Tree]] = {
    "AuthorizationPolicy": st.fixed_dictionaries(
        {"rules": mostly(st.lists(rules, max_size=3))},
        optional={"action": mostly(st.sampled_from(["ALLOW", "DENY", "AUDIT"])), "selector": selectors},
    )
    | st.fixed_dictionaries({"rules": st.lists(rules, max_size=3), "targetRefs": targets}),
    "PeerAuthentication": st.fixed_dictionaries(
        {"selector": selectors},
        optional={
            "mtls": modes,
            "portLevelMtls": st.dictionaries(st.sampled_from(["80", "8080"]), modes, min_size=1, max_size=2),
        },
    ),
    "RequestAuthentication": st.fixed_dictionaries(
        {"jwtRules": mostly(st.lists(jwt_rules, max_size=2))}, optional={"selector": selectors}
    ),
    "MeshConfig": st.fixed_dictionaries(
        {},
        optional={
            "defaultAction": mostly(st.sampled_from(["ALLOW", "DENY"])),
            "rootNamespace": mostly(st.just("root")),
            "trustedProxiesCount": mostly(st.integers(0, 17)),
            "certificateLifetime": mostly(st.sampled_from(["1h", "30s"])),
            "permissive": mostly(st.fixed_dictionaries({"requireUntil": st.booleans()})),
        },
    ),
}
ANNOTATIONS = {
    "hauberk.dev/mode": ["shadow", "enforce", "x"],
    "istio.io/dry-run": ["true", "false"],
    "hauberk.dev/plaintext-until": ["2030-01-01T00:00:00Z"],
    "hauberk.dev/plaintext-from": ["10.0.0.0/8, ::1"],
    "hauberk.dev/token-types": ["JWT, application/at+jwt"],
    "a/b": ["c"],
}


@st.composite
def documents(draw: st.DrawFn) -> Tree:
    kind = draw(st.sampled_from(KINDS))
    known = [*KNOWN.get(kind, ()), "a/b"]
    annotations = st.fixed_dictionaries({}, optional={name: st.sampled_from(ANNOTATIONS[name]) for name in known})
    metadata = {"name": "default", "annotations": draw(annotations)}
    if kind != "MeshConfig":
        metadata["namespace"] = draw(st.sampled_from(["shop", "istio-system"]))
    version = "hauberk.dev/v1" if kind == "MeshConfig" else "security.istio.io/v1"
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": draw(SPECS[kind])}


def nodes(tree: Tree) -> list[tuple[Tree, Any]]:
    """Every place below the root: (container, key or index)."""
    found = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        for key in one if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ():
            found.append((one, key))
            waiting.append(one[key])
    return found


@settings(max_examples=150)
@given(documents())
def test_h01_h08_documents_of_the_grammar_are_refused_or_mean_what_they_say(tree: Tree) -> None:
    """JSON is YAML, so it is written as that."""
    one_input(json.dumps(tree).encode())


@settings(max_examples=150)
@given(documents(), st.data())
def test_h01_h08_a_document_with_something_else_in_one_place_is_refused_or_means_what_it_says(
    tree: Tree, data: st.DataObject
) -> None:
    """A wrong type, another value, or nothing."""
    tree = copy.deepcopy(tree)  # parts of it are hypothesis's own
    container, key = data.draw(st.sampled_from(nodes(tree)))
    if data.draw(st.booleans()):
        container[key] = data.draw(anything)
    else:
        del container[key]
    one_input(json.dumps(tree).encode())


SNIPPETS = [
    "&a ", "*a", "!!str ", "<<: {}", "- ", ": ", "\n", "\t", "  ", "[", "]", "{", "}", ",", "'", '"', "|", ">", "#",
    "---\n", "...\n", "%YAML 1.1\n", "\ufeff", "\x85", "\u2028", "\0", "? ", "[" * 40, "{a: " * 40, *BAD, *GOOD, *NAMES,
]  # fmt: skip


@settings(max_examples=150)
@given(
    st.sampled_from(TEXTS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.sampled_from(SNIPPETS)), max_size=4),
)
def test_h06_h07_a_text_with_something_put_in_is_refused_or_means_what_it_says(
    text: str, edits: list[tuple[float, int, str]]
) -> None:
    """Anchors, tags, marks and brackets in any place."""
    for where, taken, put in edits:
        at = int(where * len(text))
        text = text[:at] + put + text[at + taken :]
    one_input(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_h07_any_octets_are_refused_or_mean_what_they_say(data: bytes) -> None:
    """Nothing but PolicyErrors is raised."""
    one_input(data)


HOSTILE = {
    "deep flow": "[" * 20_000,
    "deep block": "".join(" " * n + "a:\n" for n in range(1_000)),
    "deep mappings": "{a: " * 20_000,
    "a bomb of aliases": "a: &a [x, x]\n"
    + "".join(f"b{n}: &b{n} [*{'a' if not n else f'b{n - 1}'}]\n" for n in range(50)),
    "many documents": "---\n{}\n" * 5_000,
    "many keys": "{" + ", ".join(f"k{n}: v" for n in range(60_000)) + "}",
    "one key many times": "{" + "k: v, " * 60_000 + "}",
    "a long number": "a: " + "9" * 1_000_000,
    "a long line": "a: " + "x" * 1_040_000,
    "many items": "[" + "a," * 300_000 + "]",
    "many problems": "kind: AuthorizationPolicy\nspec: {rules: [" + "x," * 100_000 + "]}",
    "larger than allowed": "# " + "x" * 1_100_000,
    "quotes without end": '"' * 500_001,
    "tags": "!!python/object/apply:os.system ['true']",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_h07_h09_what_is_made_to_cost_is_refused(text: str) -> None:
    """Within the limits of size, depth and number; none of these may be accepted."""
    with pytest.raises(PolicyErrors) as caught:
        parse_documents(text, "p.yaml")
    assert len(str(caught.value)) < 100_000


def test_h09_as_many_rules_as_allowed_are_read() -> None:
    """And arrive."""
    text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [%s]}\n"
    (resource,) = parse_documents(text % ("{}, " * 10_000), "p.yaml")
    check(resource)
    with pytest.raises(PolicyErrors, match="10001 rules are more than 10000"):
        parse_documents(text % ("{}, " * 10_001), "p.yaml")
