"""docs/policy-reference.md: examples are parsed, and every row of a table decided by the evaluator that enforces."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from certs.spiffe_id import SpiffeId
from control_plane.policy import (
    authorization,
    meshconfig,
    own_annotations,
    peer_authentication,
    request_authentication,
    selection,
    when,
)
from control_plane.policy.compile import Selectable, policies_for
from control_plane.policy.documents import DEPTH_MAX, DOCUMENTS_MAX
from control_plane.policy.explain import explain
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicyErrors
from control_plane.policy.parse import parse_documents
from control_plane.policy.peer_authentication import PEERS_MAX, PORTS_MAX
from control_plane.policy.rehearse import expectations
from sidecar.rules.authz import Facts
from sidecar.rules.decode import RULES_MAX, VALUES_MAX
from sidecar.rules.decode_policies import JWKS_CHARS_MAX, JWT_RULES_MAX
from sidecar.rules.decode_values import VALUE_CHARS_MAX
from sidecar.rules.facts import Token
from sidecar.rules.keys import Attribute
from sidecar.rules.paths import canonical
from sidecar.rules.snapshot import Action, TlsMode
from tests.docs.markdown import DOCS, Block, Table, blocks, code, codes, parts, section
from tests.sidecar.rules.builders import TD, snapshot

TEXT = (DOCS / "policy-reference.md").read_text()
COLUMNS = ("caller", "called", "request", "decision", "rule")
COLUMNS_WITH = ("caller", "called", "request", "with", "decision", "rule")
PORT = 80


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row, and the example above it."""

    policy: str
    row: tuple[str, ...]
    """Its cells, `with` among them, perhaps empty."""

    def __str__(self) -> str:
        return " ".join(code(cell) or cell for cell in self.row[:5])


def cases() -> list[Case]:
    found: list[Case] = []
    policy = ""
    for part in parts(TEXT):
        if isinstance(part, Block) and part.kind == "yaml":
            policy = part.text
        elif isinstance(part, Table) and part.columns in (COLUMNS, COLUMNS_WITH):
            assert policy, f"line {part.line}: no example stands above this table"
            rows = part.rows if part.columns == COLUMNS_WITH else [(*row[:3], "", *row[3:]) for row in part.rows]
            found += [Case(policy=policy, row=row) for row in rows]
    return found


def facts_with(facts: Facts, more: list[str]) -> Facts:
    """`x-name: value` is a header, `claims {...}` a token's, anything else a key and its value."""
    for text in more:
        name, _, value = text.partition(" ")
        if name.endswith(":"):
            facts = dataclasses.replace(facts, headers=(*facts.headers, (name[:-1], value)))
        elif name == "claims":
            facts = dataclasses.replace(facts, token=token_of(json.loads(value)))
        else:
            assert name == "source.ip", text
            facts = dataclasses.replace(facts, source_ip=value)
    return facts


def token_of(claims: dict[str, object]) -> Token:
    return Token(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        audiences=(),
        presenter="",
        claims=frozen(claims),  # type: ignore[arg-type]  # a mapping stays one
        expires_at=0.0,
    )


def frozen(value: object) -> object:
    """Arrays as tuples, as a verified token has them."""
    if isinstance(value, dict):
        return {name: frozen(inner) for name, inner in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def decided(resources: list[ParsedResource], row: tuple[str, ...]) -> tuple[str, str]:
    """(decision, rule) of the evaluator."""
    caller, called, request = (code(cell) for cell in row[:3])
    principal = None if caller == "plaintext" else SpiffeId.for_workload(TD, *caller.split("/"))
    host, _, port = called.partition(":")
    service, _, own_namespace = host.partition(".")
    method, path = request.split(" ")
    facts = Facts(
        principal=principal,
        host=host,
        port=int(port or PORT),
        method=method,
        path=canonical(path.encode()).path,
    )
    facts = facts_with(facts, codes(row[3]))
    policies = policies_for(
        resources, Selectable(namespace=own_namespace, labels={"app": service}, service=service), MeshConfigSpec(), TD
    )
    explanation = explain(dataclasses.replace(snapshot(policies), service=service, namespace=own_namespace), facts)
    return "allowed" if explanation.allowed else "denied", explanation.rule


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_page_says_what_is_decided(case: Case) -> None:
    """The decision and the rule that makes it."""
    assert decided(parse_documents(case.policy, "policy.yaml"), case.row) == (case.row[4], code(case.row[5]))


def test_every_example_has_its_table() -> None:
    """Of what decides by itself."""
    examples = {block.text for block in blocks(TEXT, "yaml")}
    undeciding = ("MeshConfig", "PeerAuthentication", "RequestAuthentication")
    assert examples - {case.policy for case in cases()} == {
        block.text for title in undeciding for block in blocks(section(TEXT, title), "yaml")
    }


def test_only_examples_that_mean_to_give_a_warning() -> None:
    """Those that open everything, say `not`, or look at headers and addresses."""
    warned = {
        resource.name
        for block in blocks(TEXT, "yaml")
        for resource in parse_documents(block.text, "policy.yaml")
        if resource.warnings
    }
    assert warned == {"all", "from-this-namespace", "conditions", "no-tests", "tenants"}


def test_a_wrong_document_is_refused_with_the_words_on_the_page() -> None:
    """All problems at once."""
    (example,) = blocks(TEXT, "yaml refused")
    (expected,) = blocks(section(TEXT, "What is refused"), "text")
    with pytest.raises(PolicyErrors) as caught:
        parse_documents(example.text, "policy.yaml")
    assert str(caught.value) + "\n" == expected.text


def rows_of(title: str) -> set[str]:
    """What the first column of a section's tables names."""
    tables = [part for part in parts(section(TEXT, title)) if isinstance(part, Table)]
    return {name for table in tables for row in table.rows for name in codes(row[0])}


def test_the_page_names_every_field() -> None:
    """Of every kind that the parser knows, in the table of its section."""
    assert {*authorization.SOURCE_FIELDS, *authorization.OPERATION_FIELDS} <= set(codes(TEXT))
    assert {name for name in authorization.SOURCE_FIELDS if not name.startswith("not")} <= rows_of("Callers")
    assert {name for name in authorization.OPERATION_FIELDS if not name.startswith("not")} <= rows_of("Requests")
    assert {"action", "rules", *(f"rules[].{name}" for name in authorization.RULE_FIELDS)} <= {
        re.sub(r"\[\](\.source|\.operation)?$", "", name) for name in rows_of("A service and its callers")
    }
    selecting = {*selection.SELECTOR_FIELDS, *selection.TARGET_FIELDS}
    assert selecting <= {name.partition(".")[0] for name in rows_of("Whom a policy is for")}
    assert set(peer_authentication.FIELDS) <= {name.partition(".")[0] for name in rows_of("PeerAuthentication")}
    assert set(request_authentication.JWT_FIELDS) <= rows_of("RequestAuthentication")
    assert set(when.FIELDS) <= set(codes(section(TEXT, "Conditions")))
    permissive = {f"permissive.{name}" for name in meshconfig.PERMISSIVE_FIELDS}
    assert rows_of("MeshConfig") == {*meshconfig.FIELDS, *permissive} - {"permissive"}


def test_the_page_names_every_field_of_a_policy_test() -> None:
    """In its own section."""
    assert {*expectations.SPEC_FIELDS, *expectations.EXPECTATION_FIELDS} <= rows_of("PolicyTest")
    named = set(codes(section(TEXT, "PolicyTest")))
    assert set(expectations.WORKLOAD_FIELDS) <= named
    assert {expectations.ANYBODY, expectations.PLAINTEXT} <= named


def test_the_page_names_every_key_annotation_and_mode() -> None:
    """And no other key or annotation."""
    keys = [re.sub(r"\[.*", "", name) for name in rows_of("Conditions") if "." in name]
    assert sorted(keys) == sorted(one.value for one in Attribute)
    annotations = {name for names in own_annotations.KNOWN.values() for name in names}
    assert rows_of("Annotations") == annotations
    assert {"UNSET", *TlsMode.__members__} <= set(codes(section(TEXT, "PeerAuthentication")))
    assert set(Action.__members__) <= set(codes(section(TEXT, "A service and its callers")))


def test_limits_are_those_of_the_code() -> None:
    """Numbers with thousands separators."""
    said = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\b", section(TEXT, "Limits"))}
    assert {RULES_MAX, VALUES_MAX, VALUE_CHARS_MAX, DOCUMENTS_MAX, DEPTH_MAX} <= said
    assert f"{JWKS_CHARS_MAX:,} characters" in section(TEXT, "RequestAuthentication")
    assert f"at most {JWT_RULES_MAX} `jwtRules`" in section(TEXT, "RequestAuthentication")
    assert f"At most {PORTS_MAX}." in section(TEXT, "PeerAuthentication")
    assert f"at most {PEERS_MAX}." in section(TEXT, "Annotations")


def test_the_mesh_config_on_the_page_is_what_holds_without_one() -> None:
    """As the page says."""
    (example,) = blocks(section(TEXT, "MeshConfig"), "yaml")
    (resource,) = parse_documents(example.text, "mesh.yaml")
    assert dataclasses.replace(MeshConfigSpec(), trust_domain="mesh.local") == resource.spec


def test_what_is_not_there_yet_is_named() -> None:
    """Istio's fields that `apply` refuses by name."""
    text = section(TEXT, "What is refused")
    assert set(authorization.SPEC_NOT_YET) <= set(codes(text))
    assert all(re.search(rf"\b{action}\b", text) for action in authorization.ACTIONS_NOT_YET)
