"""Istio's string matching, for every field of every policy alike.

A policy value is one of four things (https://istio.io/latest/docs/reference/config/security/authorization-policy/):

    abc     exact      the value is `abc`
    abc*    prefix     the value starts with `abc` (and may be `abc` itself)
    *abc    suffix     the value ends with `abc` (and may be `abc` itself)
    *       presence   the value is not empty

Paths may also be templates: `{*}` is one segment that is not empty, `{**}` one or more segments that may be empty, so
`/a/{**}` matches `/a/` and all below it, and `/a/{*}/b` matches `/a/x/b` but neither `/a//b` nor `/a/x/y/b`.

There are no regular expressions here, so nothing backtracks (security.md H10) and a `.` in an identity is a `.` (C21).
An empty value, which is how a missing attribute is written, is matched by none of the four (C24).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from operator import methodcaller
from typing import NamedTuple

Matcher = Callable[[str], bool]

PRESENCE = "*"
ONE_SEGMENT, ANY_SEGMENTS = "{*}", "{**}"

_PARAMS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")
# RFC 3986 section 3.3: what may stand in a segment as it is, and is the same octet to every server that decodes.
_NEEDLESSLY_ENCODED = re.compile("%(?:" + "|".join(f"{ord(char):02X}" for char in "!$&'()+,;=:@") + ")")


class Shape(Enum):
    """Which of the four a policy value is."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENCE = "presence"


def shape_of(value: str) -> tuple[Shape, str]:
    """The value's shape and its text without the `*`. Raises ValueError for "" and for a `*` anywhere else."""
    if value == PRESENCE:
        return Shape.PRESENCE, ""
    if value.startswith("*"):
        shape, text = Shape.SUFFIX, value[1:]
    elif value.endswith("*"):
        shape, text = Shape.PREFIX, value[:-1]
    else:
        shape, text = Shape.EXACT, value
    if not text or "*" in text:
        raise ValueError("a value is exact, `prefix*`, `*suffix` or `*`; `*` may stand at one end only")
    return shape, text


def compile_matcher(values: Iterable[str]) -> Matcher:
    """One predicate for all `values`, ORed; no values match nothing. Raises ValueError as `shape_of` does.

    The returned callable is C code but for mixtures, because it runs on every request."""
    texts: dict[Shape, list[str]] = {shape: [] for shape in Shape}
    for value in values:
        shape, text = shape_of(value)
        texts[shape].append(text)
    if texts[Shape.PRESENCE]:
        return bool  # everything the other three match is not empty either
    exact = frozenset(texts[Shape.EXACT])
    prefixes, suffixes = tuple(texts[Shape.PREFIX]), tuple(texts[Shape.SUFFIX])
    if not prefixes and not suffixes:
        return exact.__contains__
    if not exact and not suffixes:
        return methodcaller("startswith", prefixes)
    if not exact and not prefixes:
        return methodcaller("endswith", suffixes)

    def matches(value: str) -> bool:
        return value in exact or value.startswith(prefixes) or value.endswith(suffixes)

    return matches


def is_template(path: str) -> bool:
    return "{" in path


def template_prefix(template: str) -> str:
    """What every path that matches begins with."""
    return template[: template.index("{")]


class _TemplateShape(NamedTuple):
    """Where the operators of a template are. Templates that differ in nothing but their literals share one."""

    is_open: bool
    """It has a `{**}`, after the first `before` segments."""
    before: int
    fixed: int
    """How many segments there are without that."""
    literal: tuple[int, ...]
    """Which of them are literals; the others are `{*}`."""
    one: tuple[int, ...]


def compile_template(template: str) -> Matcher:
    """Raises ValueError for what is no template: operators are whole segments, and there is one `{**}` at most."""
    return compile_templates((template,))


def compile_templates(templates: Iterable[str]) -> Matcher:
    """One predicate for all, ORed: a look-up for each shape that occurs, whatever the number of templates.

    The path is cut into segments once, and there is nothing to backtrack to. Raises ValueError as
    `compile_template`."""
    by_shape: dict[_TemplateShape, set[tuple[str, ...]]] = {}
    for template in templates:
        shape, literals = _cut(template)
        by_shape.setdefault(shape, set()).add(literals)
    tables = tuple((*shape, frozenset(known)) for shape, known in by_shape.items())

    def matches(path: str) -> bool:
        parts = path.split("/")
        length = len(parts)
        for is_open, before, fixed, literal, one, known in tables:
            if (length <= fixed) if is_open else (length != fixed):
                continue
            ends = parts[:before] + parts[length - fixed + before :] if is_open else parts
            if tuple([ends[i] for i in literal]) in known and all(ends[i] for i in one):
                return True
        return False

    return matches


def _cut(template: str) -> tuple[_TemplateShape, tuple[str, ...]]:
    segments = template.split("/")
    if segments[0] or any(
        ("{" in s or "}" in s or "*" in s) and s not in (ONE_SEGMENT, ANY_SEGMENTS) for s in segments
    ):
        raise ValueError("a template begins with /, and {*} or {**} is a whole segment")
    if segments.count(ANY_SEGMENTS) > 1:
        raise ValueError("a template has one {**} at most")
    is_open = ANY_SEGMENTS in segments
    before = segments.index(ANY_SEGMENTS) if is_open else len(segments)
    ends = segments[:before] + segments[before + 1 :]
    literal = tuple([i for i, segment in enumerate(ends) if segment != ONE_SEGMENT])
    one = tuple([i for i, segment in enumerate(ends) if segment == ONE_SEGMENT])
    return _TemplateShape(is_open, before, len(ends), literal, one), tuple([ends[i] for i in literal])


def compile_paths(values: Iterable[str]) -> Matcher:
    """As `compile_matcher`, for paths: templates too. Raises ValueError."""
    values = tuple(values)
    templates = tuple([value for value in values if is_template(value)])
    if not templates:
        return compile_matcher(values)
    others = compile_matcher(value for value in values if not is_template(value))
    of_templates = compile_templates(templates)
    return lambda path: others(path) or of_templates(path)


def host_of(authority: str) -> str:
    """The host of a Host header or `:authority` as policies compare it: lower case, without port and trailing dot.

    Never raises: what is malformed was refused before, and if not it stays as it is, lower-cased (C15-C17)."""
    host = authority.lower()
    if host.startswith("["):  # [v6]:port
        closing = host.find("]")
        return host if closing < 0 else host[: closing + 1]
    name, colon, port = host.rpartition(":")
    if colon and ":" not in name and (port == "" or port.isdigit()):
        host = name
    return host.removesuffix(".")


def without_query(path: str) -> str:
    """The path alone: what follows the first `?` or `#` takes no part in any decision (C09, C10)."""
    for mark in "?#":
        if mark in path:
            path = path[: path.index(mark)]
    return path


def one_spelling(text: str) -> str:
    """A canonical path, or the text of a policy's, with no character encoded that need not be.

    Most servers decode before they route: `/things%3Adelete` is `/things:delete` to them, so it must be to a policy.
    Policies are compared in this spelling and requests forwarded as they came. A `*` is left to the caller."""
    return _NEEDLESSLY_ENCODED.sub(lambda match: chr(int(match[0][1:], 16)), text) if "%" in text else text


def without_params(path: str) -> str:
    """The path as servlet containers read it, without any `;parameter`: `/a;x/admin;y` is `/a/admin` (C06)."""
    return _SLASHES.sub("/", _PARAMS.sub("", path))
