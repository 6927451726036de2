"""Which tests stand for which row of the catalogue of bad inputs and faults: `rows.py [ROW|LETTER]...`.

A row is a letter and two digits. Its tests have it in their name (`test_f05_...`, several for several rows), or in the
name of a parametrized case (`"F05 ..."`).
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

TESTS = Path(__file__).parent.parent
_NAME = re.compile(r"test_((?:[a-jr]\d\d_)+)")
_CASE = re.compile(r"([A-JR]\d\d) \S.*")


def rows_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(row, what stands for it) of a test's definition or a case's name."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := _NAME.match(node.name)):
        says = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
        for row in match[1].upper().strip("_").split("_"):
            yield row, f"{node.name}: {says}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (case := _CASE.fullmatch(node.value)):
        yield case[1], f"case {node.value!r}"


def found() -> dict[str, list[str]]:
    """Row -> its tests, as `file:line: name: what it says`."""
    rows: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        where = path.relative_to(TESTS.parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            for row, what in rows_of(node):
                rows[row].append(f"{where}:{getattr(node, 'lineno', 0)}: {what}")
    return dict(sorted(rows.items()))


def report(wanted: Sequence[str]) -> Iterator[str]:
    """The lines to print. Without `wanted` a summary, else the tests of the rows that begin with one of them."""
    rows = found()
    if not wanted:
        for row, tests in rows.items():
            yield f"{row}  {len(tests)}"
        yield f"{len(rows)} rows have a test"
        return
    for row, tests in rows.items():
        if row.startswith(tuple(one.upper() for one in wanted)):
            yield row
            yield from (f"  {test}" for test in tests)


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in report(sys.argv[1:])))
