"""One canonical path: rows C01 to C14 of the catalogue of bad inputs."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.rules.errors import PathError
from sidecar.rules.paths import CanonicalPath, canonical


def refused(raw: bytes, method: bytes = b"GET") -> str:
    with pytest.raises(PathError) as caught:
        canonical(raw, method)
    return caught.value.row


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/x/../admin", "/admin"),
        (b"/./admin", "/admin"),
        (b"/../..", "/"),
        (b"/../../admin", "/admin"),
        (b"/a/b/..", "/a/"),
        (b"/a/.", "/a/"),
        (b"/a/./", "/a/"),
        (b"/a/..", "/"),
        (b"/.", "/"),
        (b"/...", "/..."),
        (b"/.well-known/jwks", "/.well-known/jwks"),
        (b"/a/..b/c", "/a/..b/c"),
    ],
)
def test_c01_dot_segments_are_resolved_and_never_leave_the_root(raw: bytes, path: str) -> None:
    """RFC 3986 section 5.2.4."""
    assert canonical(raw).path == path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/%61dmin", "/admin"),
        (b"/%2e%2e/admin", "/admin"),
        (b"/x/%2E%2e/admin", "/admin"),
        (b"/x/.%2e/admin", "/admin"),
        (b"/%7euser/%5f%2D", "/~user/_-"),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        (b"/a%3ab%3Fc", "/a%3Ab%3Fc"),
    ],
)
def test_c02_unreserved_characters_are_decoded_and_other_triplets_upper_cased(raw: bytes, path: str) -> None:
    """RFC 3986 section 6.2.2."""
    assert canonical(raw).path == path


@pytest.mark.parametrize("raw", [b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a%5Cb", b"/..%2fadmin"])
def test_c03_encoded_separators_are_refused(raw: bytes) -> None:
    """What an app would split the path on may not be hidden from policy."""
    assert refused(raw) == "C03"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"//admin", "/admin"),
        (b"//admin/x", "/admin/x"),
        (b"/app///x", "/app/x"),
        (b"/app//", "/app/"),
        (b"//", "/"),
        (b"/a//../b", "/b"),
    ],
)
def test_c04_slashes_are_merged(raw: bytes, path: str) -> None:
    """`//admin/x` has no host in it."""
    assert canonical(raw).path == path


@pytest.mark.parametrize(("raw", "path"), [(b"/\\admin", "/admin"), (b"/app\\..\\admin", "/admin"), (b"/a\\b", "/a/b")])
def test_c05_a_backslash_is_a_slash(raw: bytes, path: str) -> None:
    """Some servers split on it."""
    assert canonical(raw).path == path


@pytest.mark.parametrize(
    ("raw", "path", "without"),
    [
        (b"/admin;a=b", "/admin;a=b", "/admin"),
        (b"/admin;a=b/users;c", "/admin;a=b/users;c", "/admin/users"),
        (b"/;/admin", "/;/admin", "/admin"),
        (b"/admin/;x", "/admin/;x", "/admin/"),
        (b"/;", "/;", "/"),
        (b"/admin", "/admin", "/admin"),
        (b"/a%2eb;x", "/a.b;x", "/a.b"),
    ],
)
def test_c06_the_path_without_parameters_is_there_for_denials(raw: bytes, path: str, without: str) -> None:
    """A servlet container routes `/admin;a=b` to `/admin`."""
    assert canonical(raw) == CanonicalPath(path, path.encode(), without)


@pytest.mark.parametrize("raw", [b"/..;/admin", b"/x/..;a=b/admin", b"/.;/admin", b"/%2e%2e;/x", b"/.%2e;", b"\\..;"])
def test_c06_dot_segments_with_parameters_are_refused(raw: bytes) -> None:
    """Tomcat takes `/..;/` for `/../`, nginx does not."""
    assert refused(raw if raw[:1] == b"/" else b"/" + raw) == "C06"


def test_c07_case_matters() -> None:
    """Paths are compared as they are."""
    assert canonical(b"/Admin").path == "/Admin"


@pytest.mark.parametrize("raw", [b"/a%00", b"/%00/../x", b"/a\0b", b"/a?x=\0"])
def test_c08_nul_is_refused(raw: bytes) -> None:
    """Whatever ends at a NUL sees another path."""
    assert refused(raw) == "C08"


@pytest.mark.parametrize("raw", [b"/admin#x", b"/#", b"/a?b#c"])
def test_c09_fragments_are_refused(raw: bytes) -> None:
    """A fragment is never sent by a client that means well (RFC 9110 section 7.1)."""
    assert refused(raw) == "C09"


@pytest.mark.parametrize(
    ("raw", "path", "target"),
    [
        (b"/admin?x", "/admin", b"/admin?x"),
        (b"/ok?/admin", "/ok", b"/ok?/admin"),
        (b"/ok?a=//b/../c%2f%zz", "/ok", b"/ok?a=//b/../c%2f%zz"),
        (b"/a/../b?c?d", "/b", b"/b?c?d"),
        (b"/a?", "/a", b"/a?"),
        (b"/a?x[]={1}|2", "/a", b"/a?x[]={1}|2"),
    ],
)
def test_c10_the_query_is_forwarded_and_not_matched(raw: bytes, path: str, target: bytes) -> None:
    """Only the path is policy's."""
    assert canonical(raw)[:2] == (path, target)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/%252e%252e/admin", "/%252e%252e/admin"),
        (b"/%25c0%25ae", "/%25c0%25ae"),
        (b"/%2541", "/%2541"),
        (b"/%%34", None),
    ],
)
def test_c11_decoding_happens_once(raw: bytes, path: str | None) -> None:
    """What is decoded twice is two paths."""
    if path is None:
        assert refused(raw) == "C13"
    else:
        assert canonical(raw).path == path


@pytest.mark.parametrize(("raw", "path"), [(b"/%c0%ae%c0%ae/x", "/%C0%AE%C0%AE/x"), (b"/%ff", "/%FF")])
def test_c12_overlong_utf8_is_opaque(raw: bytes, path: str) -> None:
    """Octets above 0x7f are nobody's dot."""
    assert canonical(raw).path == path


@pytest.mark.parametrize("raw", [b"/%zz", b"/%", b"/a%2", b"/%2", b"/%u0041", b"/% 41"])
def test_c13_broken_triplets_are_refused(raw: bytes) -> None:
    """RFC 3986 section 2.1."""
    assert refused(raw) in ("C13", "B04")


def test_c14_a_trailing_slash_or_dot_is_another_path() -> None:
    """`/admin/` is not `/admin`, unless policy says prefix."""
    assert [canonical(raw).path for raw in (b"/admin", b"/admin/", b"/admin.")] == ["/admin", "/admin/", "/admin."]


@pytest.mark.parametrize("raw", [b"", b"admin", b"http://a/b", b"?x", b"a/../b", b"*x", b"\\admin"])
def test_b03_a_path_begins_with_a_slash(raw: bytes) -> None:
    """gRPC-Go let `Service/Method` past its policy (CVE-2026-33186)."""
    assert refused(raw) == "B03"


def test_b03_the_asterisk_is_for_options_only() -> None:
    """RFC 9112 section 3.2.4."""
    assert canonical(b"*", b"OPTIONS") == CanonicalPath("*", b"*", "*")
    assert refused(b"*", b"GET") == "B03"


@pytest.mark.parametrize("octet", [b" ", b"\t", b"\r", b"\n", b"\x01", b"\x1f", b"\x7f", b"\x80", b"\xff"])
def test_b04_white_space_controls_and_non_ascii_are_refused(octet: bytes) -> None:
    """In the path and in the query alike."""
    assert refused(b"/a" + octet + b"b") == "B04"
    assert refused(b"/a?b" + octet) == "B04"


def test_characters_without_a_place_in_a_path_get_their_legal_spelling() -> None:
    """One spelling for policy: the encoded one."""
    raw = b'/"<>[]^`{|}'
    assert canonical(raw).path == "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D"
    assert canonical(b"/%22%3c%3E%5b%5d%5e%60%7b%7c%7d").path == canonical(raw).path


SLIPPERY = st.lists(
    st.sampled_from(
        [
            b"/",
            b".",
            b"..",
            b";",
            b"%2e",
            b"%2E",
            b"%25",
            b"%",
            b"a",
            b"Z",
            b"\\",
            b"?",
            b"%c3",
            b"{",
            b"|",
            b"*",
            b"=",
            b"~",
        ]
    ),
    max_size=14,
).map(lambda parts: b"/" + b"".join(parts))


@given(SLIPPERY)
@example(b"/a/%2e%2e;/b")
def test_the_canonical_form_is_its_own_canonical_form(raw: bytes) -> None:
    """What the next sidecar sees is what this one judged."""
    try:
        first = canonical(raw)
    except PathError:
        return
    assert canonical(first.target) == first


@given(SLIPPERY)
def test_nothing_is_left_that_could_be_read_in_two_ways(raw: bytes) -> None:
    """No dot segment, no empty segment, no backslash, no query in what policy sees."""
    try:
        path, target, without = canonical(raw)
    except PathError:
        return
    assert path.startswith("/")
    assert target.partition(b"?")[0] == path.encode()
    for text in (path, without):
        segments = text.split("/")[1:]
        assert not {".", ".."} & set(segments)
        assert "" not in segments[:-1]
        assert not set("\\?#") & set(text)
    assert ";" not in without


@given(st.binary(max_size=40))
def test_any_bytes_are_either_refused_with_a_row_or_understood(raw: bytes) -> None:
    """Nothing but PathError is raised."""
    for candidate in (raw, b"/" + raw):
        try:
            known = canonical(candidate).path
        except PathError as error:
            known = error.row
        assert known
