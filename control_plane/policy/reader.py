"""Nodes -> typed values. A fault is noted with its place and reading goes on, so that one run names them all."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from control_plane.policy import documents, values
from control_plane.policy.documents import Node, Scalar, describe
from control_plane.policy.model import NOTHING, PROBLEMS_MAX, PolicyErrors, PolicyProblem

T = TypeVar("T")

_SUGGESTED_CHARS_MAX = 64
"""difflib takes quadratic time; nobody's typing error is longer."""


class Problems:
    """What is wrong so far, in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[PolicyProblem] = []

    def add(self, node: Node, field: str, message: str, hint: str = "") -> None:
        if len(self._found) >= PROBLEMS_MAX:
            self.raise_if_any()
        place = node.place
        problem = PolicyProblem(
            file=self.file, line=place.line, column=place.column, field=field, message=message, hint=hint
        )
        if problem not in self._found:  # at most PROBLEMS_MAX; some places are looked at twice
            self._found.append(problem)

    def raise_if_any(self) -> None:
        """Raises PolicyErrors, in the order of the file."""
        if self._found:
            raise PolicyErrors(tuple(sorted(self._found, key=lambda problem: (problem.line, problem.column))))


def did_you_mean(text: str, known: Collection[str]) -> str:
    """A hint, or nothing."""
    if len(text) > _SUGGESTED_CHARS_MAX:
        return ""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(text.lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]}?" if close else ""


class Fields:
    """One mapping of a document, to be read field by field."""

    def __init__(self, node: Node, path: str, problems: Problems, *, known: Collection[str]) -> None:
        self.node = node
        self.path = path
        self.problems = problems
        self.entries: dict[str, tuple[Scalar, Node]] = {}
        if isinstance(node, documents.Mapping):
            self.entries = node.entries
        else:
            problems.add(node, path, f"expected a mapping, found {describe(node)}")
        self._known = known

    def refuse_others(self, not_yet: Mapping[str, str] = NOTHING) -> None:
        """Every field must be known. `not_yet` are Istio's that are not supported so far, with a hint each."""
        for name, (key, _) in self.entries.items():
            if name in self._known:
                continue
            if name in not_yet:
                self.problems.add(key, self.path_of(name), "not yet supported", not_yet[name])
            else:
                hint = did_you_mean(name, self._known) or "known are " + ", ".join(sorted(self._known))
                self.problems.add(key, self.path_of(values.shown(name)[1:-1]), "not known to this version", hint)

    def path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def node_of(self, name: str, *, required: bool = False, hint: str = "") -> Node | None:
        if name in self.entries:
            return self.entries[name][1]
        if required and isinstance(self.node, documents.Mapping):
            slip = next((one for one in self.entries if one not in self._known and did_you_mean(one, (name,))), "")
            hint = f"write {name} for {values.shown(slip)}" if slip else hint
            self.problems.add(self.node, self.path_of(name), "is missing", hint)
        return None

    def value(
        self, name: str, check: Callable[[str], T], *, required: bool = False, hint: str = "", plain: str = ""
    ) -> T | None:
        """The field's text, checked; None if it is missing or wrong (which is then noted). `plain` as in `checked`."""
        node = self.node_of(name, required=required, hint=hint)
        return None if node is None else checked(node, self.path_of(name), self.problems, check, plain=plain)

    def boolean(self, name: str) -> bool:
        """`true` or `false` without quotes; False if it is missing."""
        node = self.node_of(name)
        if node is None:
            return False
        if not (isinstance(node, Scalar) and node.guess == "bool" and node.text in ("true", "false")):
            self.problems.add(node, self.path_of(name), f"expected true or false, found {describe(node)}")
            return False
        return node.text == "true"

    def fields_of(self, name: str, *, known: Collection[str]) -> Fields | None:
        """A mapping in this one, none of whose fields is unknown."""
        node = self.node_of(name)
        if node is None:
            return None
        inner = Fields(node, self.path_of(name), self.problems, known=known)
        inner.refuse_others()
        return inner

    def items(self, name: str) -> Iterator[tuple[str, Node]]:
        """(path, node) of each item of a list that, if it is there, must not be empty."""
        node = self.node_of(name)
        if node is None:
            return
        path = self.path_of(name)
        found = list_items(node, path, self.problems)
        if isinstance(node, documents.Sequence) and not found:
            self.problems.add(node, path, "is an empty list, which is no condition at all", "name values or remove it")
        yield from found

    def strings(self, name: str, check: Callable[[str], str], *, plain: str = "") -> tuple[str, ...]:
        """A list of checked texts. `plain` as in `checked`."""
        found = (checked(node, path, self.problems, check, plain=plain, item=True) for path, node in self.items(name))
        return tuple(text for text in found if text is not None)


def list_items(node: Node, path: str, problems: Problems) -> list[tuple[str, Node]]:
    if isinstance(node, documents.Sequence):
        return [(f"{path}[{number}]", item) for number, item in enumerate(node.items)]
    hint = f"write [{values.shown(node.text)}]" if isinstance(node, Scalar) and not node.guess else ""
    problems.add(node, path, f"expected a list, found {describe(node)}", hint)
    return []


def checked(
    node: Node,
    path: str,
    problems: Problems,
    check: Callable[[str], T],
    *,
    plain: str = "",
    item: bool = False,
) -> T | None:
    """A scalar's text, checked; None if it is wrong. Text that YAML takes for something else must stand in quotes, but
    for what it takes for `plain`: "int" or "timestamp"."""
    if not isinstance(node, Scalar):
        problems.add(node, path, f"expected text, found {describe(node)}")
        return None
    if node.guess and node.guess != plain:
        if node.guess == "null" and node.text == "":
            problems.add(node, path, "is empty", "name a value" + (", or remove it" if item else ""))
        else:
            problems.add(
                node, path, f"YAML reads {values.shown(node.text)} as {describe(node)}", f'write "{node.text}"'
            )
        return None
    try:
        return check(node.text)
    except values.BadValue as bad:
        problems.add(node, path, bad.message, bad.hint)
        return None


def string_map(
    node: Node,
    path: str,
    problems: Problems,
    check_key: Callable[[str], str],
    check_value: Callable[[str], str],
    *,
    plain_of: Mapping[str, str] = NOTHING,
) -> Mapping[str, str]:
    """A mapping of texts to texts, both checked. `plain_of`: by key, what `checked` takes as `plain` for its value."""
    if not isinstance(node, documents.Mapping):
        problems.add(node, path, f"expected a mapping, found {describe(node)}")
        return NOTHING
    found: dict[str, str] = {}
    for name, (key_node, value_node) in node.entries.items():
        key = checked(key_node, path, problems, check_key)
        where = f"{path}.{values.shown(name)[1:-1]}"
        value = checked(value_node, where, problems, check_value, plain=plain_of.get(name, ""))
        if key is not None and value is not None:
            found[key] = value
    return MappingProxyType(found)
