"""docs/security.md against the code: who may call what, and the list of rows."""

from __future__ import annotations

import re

from control_plane.api.authz import TABLE
from tests.docs import rows
from tests.docs.markdown import DOCS, code, section, table

TEXT = (DOCS / "security.md").read_text()


def test_the_page_has_the_table_of_who_may_call_what() -> None:
    """As the control plane has it."""
    documented = {code(row[0]): set(row[1].split(", ")) for row in table(section(TEXT, "Who may call what")).rows}
    assert documented == {method: {role.value for role in roles} for method, roles in TABLE.items()}


def test_every_row_with_a_test_has_its_letter_on_the_page() -> None:
    """And a row that is named as an example has a test."""
    found = rows.found()
    text = section(TEXT, "Rows and tests")
    letters = {row[0] for row in table(text).rows}
    assert {row[0] for row in found} <= letters
    assert set(re.findall(r"\b[A-JR]\d\d\b", text)) <= found.keys()


def test_rows_are_listed_by_row_and_by_letter() -> None:
    """With file, line and what the test says."""
    (first, *tests) = rows.report(["f05"])
    assert first == "F05"
    assert tests
    assert all(re.fullmatch(r"  tests/\S+\.py:\d+: (test_\w*f05_\w+: .+|case '.+')", test) for test in tests)
    assert {line for line in rows.report(["F"]) if re.fullmatch(r"[A-Z]\d\d", line)} >= {"F01", "F05"}
    *summary, last = rows.report([])
    assert last == f"{len(summary)} rows have a test"
