"""docs/lint.md against the code: every code, with its level."""

from __future__ import annotations

from control_plane.policy.rehearse import expectations
from control_plane.policy.rehearse.findings import CODES
from tests.docs.markdown import DOCS, Table, code, codes, parts, section

PAGE = (DOCS / "lint.md").read_text()


def test_the_page_has_every_code_with_its_level() -> None:
    """In the order of the codes."""
    table = next(part for part in parts(PAGE) if isinstance(part, Table))
    assert [(code(row[0]), row[1]) for row in table.rows] == [(one.id, one.level) for one in CODES]


def test_operations_names_every_field_of_a_policy_test() -> None:
    """Of its spec, of workloads and of expectations."""
    named = set(codes(section((DOCS / "operations.md").read_text(), "Rehearsing policies")))
    assert {*expectations.SPEC_FIELDS, *expectations.WORKLOAD_FIELDS, *expectations.EXPECTATION_FIELDS} <= named
