"""Sets of classes as text for people: "GET, POST /orders/* (not /orders/admin), with header x-debug=1"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from control_plane.policy.impact.axes import Axis, ValueClass
from control_plane.policy.impact.side import (
    AUDIENCES_AXIS,
    DESTINATION_AXIS,
    HOST_AXIS,
    METHOD_AXIS,
    PATH_AXIS,
    PORT_AXIS,
    PRESENTER_AXIS,
    REMOTE_AXIS,
    SNI_AXIS,
    SOURCE_AXIS,
    TOKEN_AXIS,
)
from sidecar.rules.keys import Attribute

EVERYTHING = "everything"
NAMED_MAX = 8
"""Patterns named in one place."""

Cell = tuple[int, ...]
"""A class of each axis, by number."""
Box = tuple[frozenset[int], ...]
"""Of each axis some classes: all their combinations."""

_ORDER = (METHOD_AXIS, PATH_AXIS, PORT_AXIS, HOST_AXIS)


class _Phrases(NamedTuple):
    """One axis in words; `{}` are patterns."""

    only: str
    but: str
    """All others, missing ones too."""
    missing: str = ""
    but_there: str = ""
    """All others that are there; empty: as `but`."""
    there: str = ""


_PHRASES = {
    METHOD_AXIS: _Phrases("{}", "any method but {}"),
    PATH_AXIS: _Phrases("{}", "any path but {}"),
    PORT_AXIS: _Phrases("port {}", "any port but {}"),
    HOST_AXIS: _Phrases("host {}", "any host but {}"),
    SOURCE_AXIS: _Phrases("from {}", "from anywhere but {}"),
    REMOTE_AXIS: _Phrases(
        "for a client at {}",
        "unless for a client at {}",
        "for a client of unknown address",
        "for a client at a known address other than {}",
        "for a client of known address",
    ),
    DESTINATION_AXIS: _Phrases("to address {}", "to any address but {}"),
    SNI_AXIS: _Phrases("with SNI {}", "unless with SNI {}", "without SNI", "with SNI other than {}", "with any SNI"),
    TOKEN_AXIS: _Phrases(
        "with a token of {}",
        "unless with a token of {}",
        "without a token",
        "with a token of others than {}",
        "with any token",
    ),
    AUDIENCES_AXIS: _Phrases("with audience {}", "with audiences other than {}"),
    PRESENTER_AXIS: _Phrases(
        "with presenter {}",
        "unless with presenter {}",
        "without presenter",
        "with a presenter other than {}",
        "with any presenter",
    ),
}


def boxes(cells: Iterable[Cell], axes: Sequence[Axis]) -> list[Box]:
    """The cells as few boxes, none of which holds a cell that was not given."""
    held: list[Box] = [tuple(frozenset({number}) for number in cell) for cell in cells]
    names = [axis.name for axis in axes]
    order = sorted(range(len(axes)), key=lambda at: _ORDER.index(names[at]) if names[at] in _ORDER else -1)
    while True:
        count = len(held)
        for at in order:
            merged: dict[tuple[frozenset[int], ...], frozenset[int]] = {}
            for box in held:
                rest = box[:at] + box[at + 1 :]
                merged[rest] = merged.get(rest, frozenset()) | box[at]
            held = [(*rest[:at], numbers, *rest[at:]) for rest, numbers in merged.items()]
        if len(held) == count:
            return held


def describe(box: Box, axes: Sequence[Axis], kind: str = "") -> str:
    """What a box holds; "everything" if all. `kind`: "TCP", "HTTP" beside it, or empty."""
    told = {axis.name: _told(axis, numbers) for axis, numbers in zip(axes, box, strict=True)}
    head = " ".join(filter(None, (told.pop(METHOD_AXIS, ""), told.pop(PATH_AXIS, ""))))
    names = sorted(told, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return ", ".join(filter(None, (head or kind, *(told[name] for name in names)))) or EVERYTHING


def _told(axis: Axis, numbers: frozenset[int]) -> str:
    """Of one axis; empty: no condition."""
    if len(numbers) == len(axis.classes):
        return ""
    phrases = _phrases(axis)
    chosen = [axis.classes[number] for number in sorted(numbers)]
    left = [one for number, one in enumerate(axis.classes) if number not in numbers]
    if any(one.is_other for one in chosen):
        excluded = _names(axis, left, ())
        if not any(one.is_missing for one in left):
            return phrases.but.format(excluded)
        return (phrases.but_there or phrases.but).format(excluded) if excluded else phrases.there
    told = [phrases.only.format(_names(axis, chosen, left))] if any(one.patterns for one in chosen) else []
    if any(one.is_missing for one in chosen):
        told.append(phrases.missing)
    return " or ".join(filter(None, told))


def _phrases(axis: Axis) -> _Phrases:
    if axis.name in _PHRASES:
        return _PHRASES[axis.name]
    assert axis.key is not None, f"{axis.name} has no words"
    if axis.key.attribute is Attribute.HEADER:
        name = f"header {axis.key.names[0]}"
    else:
        name = f"claim {'.'.join(axis.key.names)}"
    return _Phrases(
        f"with {name}={{}}",
        f"unless with {name}={{}}",
        f"without {name}",
        f"with {name} other than {{}}",
        f"with {name}",
    )


def _names(axis: Axis, chosen: Sequence[ValueClass], left: Sequence[ValueClass]) -> str:
    """The patterns of the chosen, without those that a wider one among them covers, and what of these is left out."""
    patterns = _patterns(chosen)
    widest: list[str] = []
    for pattern in sorted(patterns, key=lambda one: -sum(_covers(axis, one, other) for other in patterns)):
        if not any(_covers(axis, wider, pattern) for wider in widest):
            widest.append(pattern)
    named = [pattern for pattern in patterns if pattern in widest]
    others = [one for one in _patterns(left) if one not in patterns]
    excepted = [one for one in others if any(_covers(axis, pattern, one) for pattern in named)]
    return _listed(named) + (f" (not {_listed(excepted)})" if excepted else "")


def _covers(axis: Axis, wider: str, pattern: str) -> bool:
    return axis.matches[wider](axis.own[pattern])


def _patterns(classes: Iterable[ValueClass]) -> list[str]:
    return list(dict.fromkeys(label for one in classes for label in one.patterns))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
