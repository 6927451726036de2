"""docs/policy.md: every example is parsed, and every row of a table decided by the evaluator that enforces."""

from __future__ import annotations

import dataclasses
import re

import pytest

from certs.spiffe_id import SpiffeId
from control_plane.policy import authorization, meshconfig
from control_plane.policy.compile import Selectable, policies_for
from control_plane.policy.explain import explain
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicyErrors
from control_plane.policy.parse import parse_documents
from sidecar.rules.authz import Facts
from sidecar.rules.paths import canonical
from tests.docs.markdown import DOCS, Block, Table, blocks, code, codes, parts, section
from tests.sidecar.rules.builders import TD, snapshot

TEXT = (DOCS / "policy.md").read_text()
COLUMNS = ("caller", "called", "request", "decision", "rule")
PORT = 80


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row, and the example above it."""

    policy: str
    row: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(code(cell) or cell for cell in self.row[:4])


def cases() -> list[Case]:
    found: list[Case] = []
    policy = ""
    for part in parts(TEXT):
        if isinstance(part, Block) and part.kind == "yaml":
            policy = part.text
        elif isinstance(part, Table) and part.columns == COLUMNS:
            assert policy, f"line {part.line}: no example stands above this table"
            found += [Case(policy=policy, row=row) for row in part.rows]
    return found


def decided(resources: list[ParsedResource], row: tuple[str, ...]) -> tuple[str, str]:
    """(decision, rule) of the evaluator."""
    caller, called, request = (code(cell) for cell in row[:3])
    namespace, account = caller.split("/")
    host, _, port = called.partition(":")
    service, _, own_namespace = host.partition(".")
    method, path = request.split(" ")
    facts = Facts(
        principal=SpiffeId.for_workload(TD, namespace, account),
        host=host,
        port=int(port or PORT),
        method=method,
        path=canonical(path.encode()).path,
    )
    policies = policies_for(
        resources, Selectable(namespace=own_namespace, labels={"app": service}, service=service), MeshConfigSpec(), TD
    )
    explanation = explain(dataclasses.replace(snapshot(policies), service=service, namespace=own_namespace), facts)
    return "allowed" if explanation.allowed else "denied", explanation.rule


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_page_says_what_is_decided(case: Case) -> None:
    """The decision and the rule that makes it."""
    assert decided(parse_documents(case.policy, "policy.yaml"), case.row) == (case.row[3], code(case.row[4]))


def test_every_example_has_its_table() -> None:
    """Only MeshConfig decides nothing by itself."""
    examples = {block.text for block in blocks(TEXT, "yaml")}
    assert examples - {case.policy for case in cases()} == {
        block.text for block in blocks(section(TEXT, "MeshConfig"), "yaml")
    }


def test_no_example_gives_a_warning() -> None:
    """But the one that opens everything on purpose."""
    warned = {
        resource.name
        for block in blocks(TEXT, "yaml")
        for resource in parse_documents(block.text, "policy.yaml")
        if resource.warnings
    }
    assert warned == {"all", "from-this-namespace"}


def test_a_wrong_document_is_refused_with_the_words_on_the_page() -> None:
    """All problems at once."""
    (example,) = blocks(TEXT, "yaml refused")
    (expected,) = blocks(section(TEXT, "What is refused"), "text")
    with pytest.raises(PolicyErrors) as caught:
        parse_documents(example.text, "policy.yaml")
    assert str(caught.value) + "\n" == expected.text


def test_the_page_names_every_field() -> None:
    """Of a source and of an operation, in both forms; and of MeshConfig."""
    named = set(codes(TEXT))
    assert {*authorization.SOURCE_FIELDS, *authorization.OPERATION_FIELDS} <= named
    mesh = section(TEXT, "MeshConfig")
    assert {*meshconfig.FIELDS[:-1], *(f"permissive.{name}" for name in meshconfig.PERMISSIVE_FIELDS)} <= set(
        codes(mesh)
    )


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
