"""YAML text -> nodes that know their place. YAML is a large language; this accepts the small one people mean.

PyYAML's scanner and parser (pure Python, maintained by the YAML project) give events; the nodes are built here, because
its composer recurses as deep as the sender likes, expands aliases, and its constructor takes the last of two equal keys
and turns `no` into False, `010` into 8 and `1:30` into 90 (security.md H06-H08). Refused:

  * anchors, aliases, tags, merge keys, directives: they make the text mean something else than it says;
  * keys that are not plain or quoted strings, and the same key twice;
  * more than 32 levels, 1 MiB, 1,000 documents or 200,000 nodes, so that time is bounded.

Nothing is converted: a scalar keeps its text, and what YAML 1.1 *would* have made of it, for the reader to refuse.
The first problem ends the reading, since after it nothing can be trusted to be what it seems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import yaml

from control_plane.policy.model import PolicyErrors, PolicyProblem

OCTETS_MAX = 1_048_576
DOCUMENTS_MAX = 1_000
DEPTH_MAX = 32
NODES_MAX = 200_000
GUESSED_CHARS_MAX = 256
"""No boolean, number or date is longer, so longer text is not asked for its type."""

_BYTE_ORDER_MARK = "\ufeff"
_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_KINDS = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
    "merge": "a merge key",
    "value": "a default key",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Of a node's first character, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    place: Place
    text: str
    guess: str
    """What YAML 1.1 would take it for: "" for a string, else "bool", "int", "float", "null", "timestamp" ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    place: Place
    entries: dict[str, tuple[Scalar, Node]]
    """Key text -> key, value; in the order written."""


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    root: Node
    text: str
    """Its own part of the file, without the line "---"."""


def describe(node: Node) -> str:
    """For messages: "a list", "a boolean" ..."""
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar(guess=guess):
            return _KINDS.get(guess, "text")


def read_documents(text: str, file: str) -> list[Document]:
    """Raises PolicyErrors (with one problem) and nothing else, whatever the text."""
    octets_count = len(text.encode("utf-8", "surrogatepass"))
    if octets_count > OCTETS_MAX:
        raise _refused(file, None, f"{octets_count} bytes are more than {OCTETS_MAX}", "split the file")
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if _BYTE_ORDER_MARK in text:  # YAML skips them between documents, people do not see them anywhere
        place = _place_of_index(text, text.index(_BYTE_ORDER_MARK))
        raise _refused(file, place, "not YAML: the character U+FEFF is not allowed")
    try:
        return list(_Composer(text, file).documents())
    except yaml.MarkedYAMLError as error:
        message = " ".join(filter(None, (error.context, error.problem)))
        message = message.encode("ascii", "backslashreplace").decode()
        mark = error.problem_mark or error.context_mark
        raise _refused(file, _place(mark) if mark else None, f"not YAML: {message}") from None
    except yaml.reader.ReaderError as error:
        place = _place_of_index(text, error.position)
        raise _refused(
            file, place, f"not YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets a few of these through, as for "\UFFFFFFFF" or a number of 5,000 digits.
        raise _refused(file, None, "not YAML") from None


class _Composer:
    """Events -> nodes. Recursion is as deep as DEPTH_MAX allows and no deeper."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._resolver = yaml.resolver.Resolver()
        self._nodes_count = 0

    def documents(self) -> Iterator[Document]:
        count, begin = 0, 0
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue  # the stream's start and end
            count += 1
            if count > DOCUMENTS_MAX:
                raise self._refuse(event, f"more than {DOCUMENTS_MAX} documents", "split the file")
            if event.version or event.tags:
                raise self._refuse(event, "directives (%YAML, %TAG) are not allowed", "remove it")
            root = self._node(next(self._events), depth=1)
            last = next(self._events)
            assert isinstance(last, yaml.DocumentEndEvent)
            assert last.end_mark is not None
            own_text, begin = self._text[begin : last.end_mark.index], last.end_mark.index
            if not (isinstance(root, Scalar) and root.guess == "null"):  # nothing between two "---"
                yield Document(root=root, text=_without_marks(own_text))

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._nodes_count += 1
        if self._nodes_count > NODES_MAX:
            raise self._refuse(event, f"more than {NODES_MAX} values", "split the file")
        if depth > DEPTH_MAX:
            raise self._refuse(event, f"more than {DEPTH_MAX} levels deep")
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(event, "aliases (*name) are not allowed", "quote it, or write the value out")
        assert isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent)
        if event.anchor is not None:
            raise self._refuse(event, "anchors (&name) are not allowed", "quote it, or write the value out")
        if event.tag is not None:
            raise self._refuse(event, "tags (!name) are not allowed", "quote it, or remove the tag")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, depth)
        return self._mapping(event, depth)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        guess = ""
        if event.implicit[0] and len(event.value) <= GUESSED_CHARS_MAX:  # plain: written without quotes
            tag: str = self._resolver.resolve(yaml.ScalarNode, event.value, (True, False))  # type: ignore[no-untyped-call]  # the stubs leave it open
            guess = "" if tag == _STRING else tag.rpartition(":")[2]
        return Scalar(place=_place(event.start_mark), text=event.value, guess=guess)

    def _sequence(self, start: yaml.SequenceStartEvent, depth: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Sequence(place=_place(start.start_mark), items=tuple(items))

    def _mapping(self, start: yaml.MappingStartEvent, depth: int) -> Mapping:
        entries: dict[str, tuple[Scalar, Node]] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise self._refuse(event, f"a key is text, not {describe(key)}")
            if key.guess == "merge":
                raise self._refuse(event, "merge keys (<<) are not allowed", "write the fields out")
            if key.guess not in ("", "int"):  # a port; who reads the mapping refuses other numbers
                raise self._refuse(event, f"YAML reads the key {_shown(key.text)} as {describe(key)}", "quote it")
            if key.text in entries:
                first = entries[key.text][0].place
                raise self._refuse(event, f"the key {_shown(key.text)} is there twice, first in line {first.line}")
            entries[key.text] = key, self._node(next(self._events), depth + 1)
        return Mapping(place=_place(start.start_mark), entries=entries)

    def _refuse(self, event: yaml.Event, message: str, hint: str = "") -> PolicyErrors:
        return _refused(self._file, _place(event.start_mark), message, hint)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def _without_marks(text: str) -> str:
    """The document without its "---" line and its "..." line."""
    lines = text.splitlines(keepends=True)
    while lines and lines[0].rstrip() in {"---", ""}:
        del lines[0]
    if lines and lines[-1].rstrip() == "...":
        del lines[-1]
    return "".join(lines)


class _Mark(Protocol):
    """What PyYAML's two kinds of marks have in common. Both count from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def _place(mark: _Mark | None) -> Place:
    assert mark is not None, "PyYAML marks every event"
    return Place(mark.line + 1, mark.column + 1)


def _place_of_index(text: str, index: int) -> Place:
    before = text[:index]
    return Place(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


def _refused(file: str, where: Place | None, message: str, hint: str = "") -> PolicyErrors:
    place = where or Place(0, 0)
    problem = PolicyProblem(file=file, line=place.line, column=place.column, field="", message=message, hint=hint)
    return PolicyErrors((problem,))
