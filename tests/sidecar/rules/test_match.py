"""sidecar/rules/match.py"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.match import (
    Shape,
    compile_matcher,
    compile_paths,
    compile_template,
    compile_templates,
    host_of,
    shape_of,
    without_params,
    without_query,
)


@pytest.mark.parametrize(
    ("value", "shape", "text"),
    [
        ("abc", Shape.EXACT, "abc"),
        ("abc*", Shape.PREFIX, "abc"),
        ("*abc", Shape.SUFFIX, "abc"),
        ("*", Shape.PRESENCE, ""),
        ("/", Shape.EXACT, "/"),
        ("/*", Shape.PREFIX, "/"),
    ],
)
def test_a_value_has_one_of_four_shapes(value: str, shape: Shape, text: str) -> None:
    """Istio: exact, prefix, suffix, presence."""
    assert (shape, text) == shape_of(value)


@pytest.mark.parametrize("value", ["", "**", "a*b", "*a*", "***", "a**", "**a"])
def test_a_star_in_any_other_place_is_refused(value: str) -> None:
    """What could be read in two ways is not read at all."""
    with pytest.raises(ValueError, match="one end"):
        shape_of(value)


@pytest.mark.parametrize(
    ("values", "value", "matches"),
    [
        (["/a"], "/a", True),
        (["/a"], "/a/", False),
        (["/a"], "/ab", False),
        (["/a"], "/A", False),
        (["/a*"], "/a", True),
        (["/a*"], "/ab/c", True),
        (["/a*"], "/b", False),
        (["*.png"], "/x.png", True),
        (["*.png"], ".png", True),
        (["*.png"], "/xpng", False),
        (["*"], "x", True),
        (["*"], "", False),
        (["/a*"], "", False),
        (["*a"], "", False),
        (["a", "b"], "b", True),
        (["a", "b*", "*c"], "xc", True),
        (["a", "b*", "*c"], "bx", True),
        (["a", "b*", "*c"], "ax", False),
        (["a", "*"], "anything", True),
        ([], "a", False),
    ],
)
def test_values_of_one_matcher_are_ored(values: list[str], value: str, matches: bool) -> None:
    """Istio's four shapes, compiled together."""
    assert compile_matcher(values)(value) is matches


@pytest.mark.parametrize("values", [["*"], ["a"], ["a*"], ["*a"], ["a", "b*", "*c"]])
def test_c24_nothing_matches_a_missing_attribute(values: list[str]) -> None:
    """The empty string is how a missing attribute is written."""
    assert compile_matcher(values)("") is False


def test_c21_a_dot_in_an_identity_is_a_dot() -> None:
    """Identities are compared as strings, never as regular expressions."""
    matches = compile_matcher(["mesh.local/ns/a/sa/b.c"])
    assert matches("mesh.local/ns/a/sa/b.c")
    assert not matches("meshxlocal/ns/a/sa/b.c")
    assert not matches("mesh.local/ns/a/sa/bxc")


@given(st.lists(st.text("ab", min_size=1, max_size=3)), st.text("ab", max_size=4))
def test_compiled_values_match_as_each_alone(texts: list[str], value: str) -> None:
    """Compiling values together changes nothing."""
    values = [wrapped for text in texts for wrapped in (text, text + "*", "*" + text)]
    assert compile_matcher(values)(value) == any(compile_matcher([one])(value) for one in values)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("Secret.com", "secret.com"),
        ("secret.com:443", "secret.com"),
        ("secret.com:1", "secret.com"),
        ("secret.com:", "secret.com"),
        ("secret.com.", "secret.com"),
        ("secret.com.:80", "secret.com"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("[::1%25eth0]", "[::1%25eth0]"),
        ("[::1", "[::1"),
        ("::1", "::1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("a:b", "a:b"),
        ("", ""),
    ],
)
def test_c15_c16_c17_hosts_are_compared_lower_case_without_port_and_dot(authority: str, host: str) -> None:
    """The port is matched by `ports` only; a trailing dot names the same host."""
    assert host_of(authority) == host


@given(st.text())
def test_c17_no_authority_crashes_it(authority: str) -> None:
    """Scoped IPv6 addresses and worse."""
    assert host_of(authority) == host_of(authority).lower() or not authority.isascii()


@pytest.mark.parametrize(
    ("path", "alone"), [("/admin?x", "/admin"), ("/ok?/admin", "/ok"), ("/a#b", "/a"), ("/a?b#c?d", "/a"), ("/a", "/a")]
)
def test_c10_the_query_is_no_part_of_the_path(path: str, alone: str) -> None:
    """CVE-2020-8595."""
    assert without_query(path) == alone


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("/admin;a=b", "/admin"),
        ("/;/admin", "/admin"),
        ("/a;x/b;y", "/a/b"),
        ("/;", "/"),
        ("/a", "/a"),
        ("/x/;/;/y", "/x/y"),
    ],
)
def test_c06_params_can_be_taken_off(path: str, other: str) -> None:
    """As servlet containers read it."""
    assert without_params(path) == other


@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        ("/a/{*}", ["/a/b", "/a/b.c"], ["/a", "/a/", "/a/b/c", "/b/b", "a/b"]),
        ("/a/{*}/c", ["/a/b/c"], ["/a//c", "/a/b/b/c", "/a/c", "/a/b/c/"]),
        ("/{*}/{*}", ["/a/b"], ["/a", "/", "//", "/a/b/c"]),
        ("/a/{**}", ["/a/", "/a/b", "/a/b/c", "/a/b/"], ["/a", "/ab", "/b/"]),
        ("/a/{**}/z", ["/a/b/z", "/a/b/c/z", "/a//z"], ["/a/z", "/a/b/zz", "/a/b/z/"]),
        ("/a/{**}/", ["/a/b/", "/a//", "/a/b/c/"], ["/a/", "/a/b"]),
        ("/{*}/b/{**}", ["/a/b/", "/a/b/c/d"], ["/b/c", "//b/c", "/a/b"]),
        ("/{**}", ["/", "/a", "/a/b"], ["", "a"]),
    ],
)
def test_a_template_matches_segments(template: str, matching: list[str], others: list[str]) -> None:
    """`{*}` is one segment that is not empty, `{**}` one or more that may be."""
    matches = compile_template(template)
    assert [path for path in matching if not matches(path)] == []
    assert [path for path in others if matches(path)] == []


@pytest.mark.parametrize(
    "template", ["/a{*}", "/{*}b", "/{a}", "/a/{**}/{**}", "{*}", "/*/{*}", "/{*}*", "/a}/{*}", "/{***}"]
)
def test_what_is_no_template_is_refused(template: str) -> None:
    """An operator is a whole segment, and there is one `{**}` at most."""
    with pytest.raises(ValueError, match="template"):
        compile_template(template)


def test_templates_stand_beside_other_paths() -> None:
    """One list, ORed."""
    matches = compile_paths(["/x", "/y/*", "/a/{*}"])
    assert all(map(matches, ["/x", "/y/z", "/a/b"]))
    assert not any(map(matches, ["/xx", "/a/b/c", ""]))


_SEGMENTS = st.sampled_from(["a", "b", "", "{*}", "{*}"])
_PATHS = st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=1, max_size=6).map(lambda parts: "/" + "/".join(parts))


@st.composite
def _templates(draw: st.DrawFn) -> str:
    segments = draw(st.lists(_SEGMENTS, min_size=1, max_size=5))
    if draw(st.booleans()):
        segments.insert(draw(st.integers(0, len(segments))), "{**}")
    return "/" + "/".join(segments)


def _literally(template: str, path: str) -> bool:
    pieces = re.split(r"(\{\*\*\}|\{\*\})", template)
    expressions = {"{*}": "[^/]+", "{**}": ".*"}
    return re.fullmatch("".join(expressions.get(piece, re.escape(piece)) for piece in pieces), path) is not None


@given(st.lists(_templates(), min_size=1, max_size=6), st.lists(_PATHS, min_size=1, max_size=6))
def test_many_templates_match_what_one_of_them_does(templates: list[str], paths: list[str]) -> None:
    """However they are looked up."""
    matches = compile_templates(templates)
    for path in paths:
        assert matches(path) == any(_literally(template, path) for template in templates)


def test_h10_the_cost_of_a_path_does_not_grow_with_templates_that_differ_in_their_literals() -> None:
    """10,000 of them, tried one by one, were 14 ms of everybody's time for each request."""

    class Path(str):
        cuts_count = 0

        def split(self, *args: Any, **kwargs: Any) -> list[str]:
            Path.cuts_count += 1
            return super().split(*args, **kwargs)

    matches = compile_paths([f"/t/{{*}}/n{number}" for number in range(10_000)])
    assert matches(Path("/t/x/n9999"))
    assert not matches(Path("/t/x/n10000"))
    assert Path.cuts_count == 2


def test_h10_a_template_is_matched_in_linear_time() -> None:
    """There is nothing to backtrack to: each segment is compared once."""
    matches = compile_template("/{**}" + "/{*}" * 200 + "/z")
    assert not matches("/a" * 4_000)
