"""What the tests read of the documentation: sections, fenced blocks, tables. Enough of Markdown, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")), ROOT / "deploy/examples/README.md")

_HEADING = re.compile(r"(#{1,6}) (.+)")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block."""

    kind: str
    """What stands after the fence: "bash", "yaml", "text" ..."""
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    line: int


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next of its level or above. Raises LookupError."""
    kept: list[str] | None = None
    level = 0
    in_fence = False
    for line in text.splitlines():
        in_fence ^= line.startswith("```")
        heading = None if in_fence else _HEADING.fullmatch(line)
        if heading and kept is not None and len(heading[1]) <= level:
            break
        if kept is not None:
            kept.append(line)
        elif heading and heading[2] == title:
            kept, level = [], len(heading[1])
    if kept is None:
        raise LookupError(f"there is no section {title!r}")
    return "\n".join(kept) + "\n"


def parts(text: str) -> Iterator[Block | Table]:
    """Blocks and tables in their order."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        begin = at
        if lines[at].startswith("```"):
            at = next(n for n in range(at + 1, len(lines)) if lines[n] == "```")
            yield Block(kind=lines[begin][3:], text="\n".join([*lines[begin + 1 : at], ""]), line=begin + 1)
        elif lines[at].startswith("|"):
            while at + 1 < len(lines) and lines[at + 1].startswith("|"):
                at += 1
            cells = [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines[begin : at + 1]]
            yield Table(columns=cells[0], rows=tuple(cells[2:]), line=begin + 1)
        at += 1


def blocks(text: str, kind: str) -> list[Block]:
    return [part for part in parts(text) if isinstance(part, Block) and part.kind == kind]


def table(text: str) -> Table:
    """The only table."""
    (found,) = [part for part in parts(text) if isinstance(part, Table)]
    return found


def code(cell: str) -> str:
    """The text of a cell that is one piece of `code`; empty for any other cell."""
    match = _CODE.fullmatch(cell)
    return match[1] if match else ""


def codes(text: str) -> list[str]:
    """Every piece of `code` outside of fenced blocks."""
    return _CODE.findall(_FENCED.sub("", text))
