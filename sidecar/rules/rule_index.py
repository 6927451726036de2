"""Which of many rules can match a request at all: a few look-ups, whatever the number of those that cannot.

A rule that names texts for an attribute (paths, hosts, a header ...) is filed under each of them: exact ones in one
dictionary, prefixes and suffixes in one dictionary for each length that occurs; the number of lengths is small and
comes from policies, never from a request. A template counts as the prefix before its first operator. Rules that name
nothing for the attribute are filed under the next attribute, and so are the rules of one text if they are many. Those
that no attribute tells apart are candidates always.

The index never decides. It leaves out what cannot match.

A rule of many values stands in many places: fifty paths, fifty hosts and fifty tenants could be 125,000 of them. So
there is room for a few times the values there are; behind that, rules are tried that could have been told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from itertools import chain

from sidecar.rules.keys import Key
from sidecar.rules.match import Shape, is_template, shape_of, template_prefix

Texts = tuple[str, ...]
Value = str | Texts
AttributeId = int | Key
Numbers = tuple[int, ...]
"""Ascending. Tuples of numbers cost the garbage collector nothing."""
Look = Callable[[AttributeId], Value]
"""An attribute -> what the request has: one text, several, or none ("" or ())."""

FEW = 8
"""So many rules are tried faster than told apart."""
ROOM_PER_VALUE, ROOM_MIN = 4, 1_024
"""How many places there are, for all rules of one index."""
SLICE = 256
"""Rules filed between two yields."""


class Entry:
    """One rule to be filed."""

    __slots__ = ("number", "wanted")

    def __init__(self, number: int, wanted: Mapping[AttributeId, Texts]) -> None:
        """`wanted`: attribute -> the texts of which it must match one, for every attribute that must match one."""
        self.number = number
        self.wanted = wanted


class RuleIndex:
    """Rules by number. Never changed once built."""

    __slots__ = ("_few", "_tree")

    def __init__(self, entries: Sequence[Entry], attributes: Sequence[AttributeId]) -> None:
        for _ in self._build(entries, attributes):
            pass

    @classmethod
    def building(cls, entries: Sequence[Entry], attributes: Sequence[AttributeId]) -> Generator[None, None, RuleIndex]:
        """The same in slices of about a millisecond."""
        index = cls.__new__(cls)
        yield from index._build(entries, attributes)
        return index

    def _build(self, entries: Sequence[Entry], attributes: Sequence[AttributeId]) -> Generator[None, None, None]:
        """`attributes`: the most telling first."""
        self._few = tuple([entry.number for entry in entries])
        self._tree: _Node | None = None
        if len(entries) > FEW:
            values_count = sum([len(texts) for entry in entries for texts in entry.wanted.values()])
            room = _Room(ROOM_MIN + ROOM_PER_VALUE * values_count)
            self._tree = yield from _node(entries, tuple(attributes), room)

    def candidates(self, look: Look) -> Sequence[int]:
        """The numbers, ascending, of the rules that may match: all that do are among them. Not to be changed."""
        if self._tree is None:
            return self._few
        found: list[Sequence[int]] = []
        self._tree.collect(look, found)
        if len(found) == 1:
            return found[0]
        return sorted({*chain.from_iterable(found)}) if found else ()


class _Node:
    """Rules told apart by one attribute; `rest` are those that do not name it."""

    __slots__ = ("_attribute", "_exact", "_prefix_lengths", "_prefixes", "_rest", "_suffix_lengths", "_suffixes")

    def __init__(self, attribute: AttributeId, by_shape: Mapping[Shape, Branches], rest: _Node | Numbers) -> None:
        self._attribute = attribute
        self._exact = by_shape[Shape.EXACT]
        # One dictionary for all lengths: a text is only ever looked up in its own length.
        self._prefixes, self._suffixes = by_shape[Shape.PREFIX], by_shape[Shape.SUFFIX]
        self._prefix_lengths = tuple(sorted({len(text) for text in self._prefixes}))
        self._suffix_lengths = tuple(sorted({len(text) for text in self._suffixes}))
        self._rest = rest

    def collect(self, look: Look, found: list[Sequence[int]]) -> None:
        value = look(self._attribute)
        if isinstance(value, str):
            branches = self._branches(value) if value else ()
        elif len(value) == 1:
            branches = self._branches(value[0])
        else:  # each branch once, however often a header says the same
            by_id = {id(branch): branch for text in {*value} for branch in self._branches(text)}
            branches = by_id.values()
        for branch in branches:
            _collect(branch, look, found)
        _collect(self._rest, look, found)

    def _branches(self, text: str) -> Collection[_Node | Numbers]:
        found: list[_Node | Numbers] = []
        if not text:
            return found
        branch = self._exact.get(text)
        if branch is not None:
            found.append(branch)
        longest = len(text)
        for length in self._prefix_lengths:
            if length > longest:
                break
            branch = self._prefixes.get(text[:length])
            if branch is not None:
                found.append(branch)
        for length in self._suffix_lengths:
            if length > longest:
                break
            branch = self._suffixes.get(text[-length:])
            if branch is not None:
                found.append(branch)
        return found


def _collect(branch: _Node | Numbers, look: Look, found: list[Sequence[int]]) -> None:
    if isinstance(branch, _Node):
        branch.collect(look, found)
    elif branch:
        found.append(branch)


Branches = dict[str, "_Node | Numbers"]
Filed = dict[tuple[Shape, str], list[Entry]]


class _Room:
    """How many places are left."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


def _node(entries: Sequence[Entry], attributes: tuple[AttributeId, ...], room: _Room) -> Generator[None, None, _Node]:
    attribute, others = attributes[0], attributes[1:]
    filed: Filed = {}
    rest: list[Entry] = []
    for count, entry in enumerate(entries, 1):
        shapes = _shapes(entry.wanted.get(attribute))
        if shapes is None:
            rest.append(entry)
        else:
            room.left -= len(shapes)
            for kind in shapes:
                filed.setdefault(kind, []).append(entry)
        if count % SLICE == 0:
            yield
    by_shape: dict[Shape, Branches] = {shape: {} for shape in Shape}
    for count, ((shape, text), of_text) in enumerate(filed.items(), 1):
        by_shape[shape][text] = yield from _branch(of_text, others, room)
        if count % SLICE == 0:
            yield
    return _Node(attribute, by_shape, (yield from _branch(rest, others, room)))


def _branch(
    entries: Sequence[Entry], attributes: tuple[AttributeId, ...], room: _Room
) -> Generator[None, None, _Node | Numbers]:
    if len(entries) <= FEW or not attributes or room.left <= 0:
        return tuple([entry.number for entry in entries])
    return (yield from _node(entries, attributes, room))


def _shapes(values: Texts | None) -> set[tuple[Shape, str]] | None:
    """Where a rule is filed; None: it is of no use here."""
    if values is None:
        return None
    shapes: set[tuple[Shape, str]] = set()
    for value in values:
        # Only paths have templates, which begin with a slash: `*{x}` of a header is a suffix like any other.
        is_prefix = value.startswith("/") and is_template(value)
        shape, text = (Shape.PREFIX, template_prefix(value)) if is_prefix else shape_of(value)
        if shape is Shape.PRESENCE:
            return None
        shapes.add((shape, text))
    return shapes
