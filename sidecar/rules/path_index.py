"""Which of many rules can match a path at all: a few look-ups, whatever the number of those that cannot.

Most rules name paths, exact (`/a`), by prefix (`/a/*`) or by suffix (`*.png`). Exact ones are found in one dictionary.
Prefixes are grouped by their length, one dictionary for each length that occurs: what `path` begins with in that length
is looked up there; suffixes likewise. The number of different lengths is small and comes from policies, never from a
request. Rules that name no path, or every path (`*`), or that only name what they are not for, are always candidates.

The index never decides. It leaves out what cannot match, and keeps the order of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sidecar.rules.match import Shape, shape_of

Rules = tuple[int, ...]
ByText = dict[str, Rules]


class PathIndex:
    """Rules by number. Made once for each caller and snapshot."""

    __slots__ = ("_always", "_exact", "_prefixes", "_suffixes")

    def __init__(self, wanted: Sequence[Iterable[str] | None]) -> None:
        """`wanted`: for each rule all path values of which one must match, or None if there is no such condition."""
        always: list[int] = []
        by_shape: dict[Shape, dict[str, list[int]]] = {shape: {} for shape in Shape}
        for number, values in enumerate(wanted):
            shapes = None if values is None else {shape_of(value) for value in values}
            if shapes is None or any(shape is Shape.PRESENCE for shape, _ in shapes):
                always.append(number)
                continue
            for shape, text in shapes:
                by_shape[shape].setdefault(text, []).append(number)
        self._always = tuple(always)
        self._exact = {text: tuple(numbers) for text, numbers in by_shape[Shape.EXACT].items()}
        self._prefixes = _by_length(by_shape[Shape.PREFIX])
        self._suffixes = _by_length(by_shape[Shape.SUFFIX])

    def __repr__(self) -> str:
        return f"<PathIndex {len(self._exact)} exact, {len(self._always)} for every path>"

    def candidates(self, path: str) -> Rules:
        """The numbers, ascending, of the rules that may match `path`: all that do are among them."""
        found = self._exact.get(path, ())
        for length, rules in self._prefixes:
            if more := rules.get(path[:length]):
                found += more
        for length, rules in self._suffixes:
            if more := rules.get(path[-length:]):
                found += more
        if not found:
            return self._always
        if self._always or len(found) > 1:
            return tuple(sorted({*found, *self._always}))
        return found


def _by_length(rules: dict[str, list[int]]) -> tuple[tuple[int, ByText], ...]:
    """Texts grouped by their length, with their rules."""
    by_length: dict[int, ByText] = {}
    for text, numbers in rules.items():
        by_length.setdefault(len(text), {})[text] = tuple(numbers)
    return tuple(sorted(by_length.items(), key=lambda item: item[0]))
