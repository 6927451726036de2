"""Files -> resources and policy tests, with their places. Nothing may be there twice, in whatever files.

A file may hold documents of the kind PolicyTest beside policies. `parse_documents` takes whole files, so each of the
others is handed to it alone, with as many empty lines before it as it takes to keep its line numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from control_plane.policy import documents
from control_plane.policy.documents import Document
from control_plane.policy.model import ParsedResource, PolicyErrors, PolicyProblem
from control_plane.policy.parse import parse_documents

TEST_KIND = "PolicyTest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, read."""

    name: str
    """For messages."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What one file holds."""

    tests: tuple[Document, ...]
    resources: tuple[ParsedResource, ...]


def split(source: Source) -> Split:
    """Raises PolicyErrors."""
    found = documents.read_documents(source.text, source.name)
    tests = [one for one in found if _kind(one) == TEST_KIND]
    if not tests:
        return Split(tests=(), resources=tuple(parse_documents(source.text, source.name)))
    resources: list[ParsedResource] = []
    problems: list[PolicyProblem] = []
    for document in found:
        if _kind(document) == TEST_KIND:
            continue
        (alone,) = documents.read_documents(document.text, source.name)
        before = document.root.place.line - alone.root.place.line
        try:
            resources += parse_documents("\n" * before + document.text, source.name)
        except PolicyErrors as error:
            problems += error.problems
    if problems:
        raise PolicyErrors(tuple(problems))
    return Split(tests=tuple(tests), resources=tuple(resources))


def resources_of(sources: Iterable[Source]) -> list[ParsedResource]:
    """Of files that hold policies; tests among them are left out. Raises PolicyErrors, of all files together."""
    found: list[ParsedResource] = []
    problems: list[PolicyProblem] = []
    for source in sources:
        try:
            found += split(source).resources
        except PolicyErrors as error:
            problems += error.problems
    if problems:
        raise PolicyErrors(tuple(problems))
    refuse_twice(found)
    return found


def refuse_twice(resources: Iterable[ParsedResource]) -> None:
    """Raises PolicyErrors."""
    first: dict[tuple[str, str, str], ParsedResource] = {}
    problems: list[PolicyProblem] = []
    for one in resources:
        other = first.setdefault(one.key, one)
        if other is one:
            continue
        file, _, line = one.source.rpartition(":")
        name = "/".join(filter(None, (one.namespace, one.name)))
        problems.append(
            PolicyProblem(
                file=file,
                line=int(line),
                column=1,
                field="metadata.name",
                message=f"{one.kind} {name} is there twice, first at {other.source}",
                hint="name one of the two files only",
            )
        )
    if problems:
        raise PolicyErrors(tuple(problems))


def _kind(document: Document) -> str:
    root = document.root
    if not isinstance(root, documents.Mapping) or "kind" not in root.entries:
        return ""
    node = root.entries["kind"][1]
    return node.text if isinstance(node, documents.Scalar) else ""
