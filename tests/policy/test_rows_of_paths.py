"""Rows C01 to C14 of the catalogue of bad inputs, from the octets of a head to the verdict: one path, any spelling."""

from __future__ import annotations

import pytest

from tests.policy.heads import ADMIN, BOTH, DENY_ADMIN, admitted, allow, deny, ended


@pytest.mark.parametrize("documents", BOTH)
@pytest.mark.parametrize(
    "target", b"/x/../admin /./admin /../../admin /a/b/../../admin /x/./../admin /x/..//admin".split()
)
def test_c01_dot_segments_lead_nowhere_else(documents: str, target: bytes) -> None:
    """Resolved before anything matches; above the root is the root."""
    assert ended(documents, target) == "deny"
    assert ended(documents, b"/admin/..") == "allow"


@pytest.mark.parametrize("documents", BOTH)
@pytest.mark.parametrize(
    "target", b"/%61dmin /%61%64%6d%69%6e /%61%64%6D%69%6E /x/%2e%2e/admin /x/%2E%2e/admin /%2e/admin".split()
)
def test_c02_an_unreserved_character_is_itself_however_encoded(documents: str, target: bytes) -> None:
    """Decoded once, in either case of the digits, then resolved."""
    assert ended(documents, target) == "deny"


@pytest.mark.parametrize("target", b"/x%2fadmin /x%2Fadmin /x%5cadmin /x%5Cadmin /%2fadmin /admin%2f".split())
def test_c03_encoded_separators_are_refused(target: bytes) -> None:
    """Nobody can say what the app makes of them."""
    assert ended(DENY_ADMIN, target) == "C03"


@pytest.mark.parametrize("documents", BOTH)
@pytest.mark.parametrize("target", b"//admin ///admin /.//admin //x/..//admin".split())
def test_c04_slashes_are_merged(documents: str, target: bytes) -> None:
    """`//admin/x` is no host called admin."""
    assert ended(documents, target) == "deny"
    assert ended(deny("[{to: [{operation: {paths: [/app/x]}}]}]"), b"/app///x") == "deny"


@pytest.mark.parametrize("documents", BOTH)
@pytest.mark.parametrize("target", b"/\\admin /x\\..\\admin /.\\admin /x/..\\admin".split())
def test_c05_a_backslash_is_a_slash(documents: str, target: bytes) -> None:
    """Then resolved."""
    assert ended(documents, target) == "deny"


def test_c05_a_target_that_begins_with_a_backslash_is_refused() -> None:
    """It is no path."""
    assert ended(DENY_ADMIN, b"\\admin") == "B03"


@pytest.mark.parametrize("documents", BOTH)
@pytest.mark.parametrize("target", b"/admin;a=b /;/admin /admin; /;a/;b/admin;c /admin%3Bx /x/../admin;y".split())
def test_c06_parameters_hide_nothing(documents: str, target: bytes) -> None:
    """DENY, and what an ALLOW excepts, hold in both readings."""
    assert ended(documents, target) == "deny"


@pytest.mark.parametrize(
    "target", b"/x/..;/admin /..;/admin /.;/admin /x/%2e%2e;/admin /x/..;a=b/admin /x/..%3b/admin".split()
)
def test_c06_dot_segments_with_parameters_are_refused(target: bytes) -> None:
    """Servlet containers resolve them, others do not."""
    assert ended(DENY_ADMIN, target) == "C06"


def test_c06_parameters_open_nothing() -> None:
    """ALLOW goes by the path as it is forwarded."""
    only = allow(ADMIN)
    assert ended(only, b"/admin") == "allow"
    assert ended(only, b"/admin;x") == "deny"
    assert ended(only, b"/;/admin") == "deny"


def test_c07_case_matters_in_paths() -> None:
    """`/Admin` is another path, to DENY and to ALLOW."""
    assert ended(DENY_ADMIN, b"/Admin") == "allow"
    assert ended(allow(ADMIN), b"/Admin") == "deny"


@pytest.mark.parametrize("target", b"/admin%00 /%00/admin /admin%00.png /admin\x00 /admin\x00.png".split())
def test_c08_nul_is_refused(target: bytes) -> None:
    """Encoded or not."""
    assert ended(DENY_ADMIN, target) == "C08"


@pytest.mark.parametrize("target", b"/admin#x /#/admin /ok?x#/admin /admin#".split())
def test_c09_fragments_are_refused(target: bytes) -> None:
    """They are the client's own business (RFC 9110 section 7.1)."""
    assert ended(DENY_ADMIN, target) == "C09"


@pytest.mark.parametrize("documents", BOTH)
def test_c10_the_query_is_no_part_of_the_path(documents: str) -> None:
    """It neither hides a path nor makes one."""
    assert ended(documents, b"/admin?x") == "deny"
    assert ended(documents, b"/admin?") == "deny"
    assert ended(documents, b"/ok?/admin") == "allow"
    assert ended(documents, b"/ok?/../admin") == "allow"
    assert ended(documents, b"/?/admin") == "allow"


@pytest.mark.parametrize(
    "target", b"/x/%252e%252e/admin /%2561dmin /%25c0%25ae/admin /x/%25c0%25ae%25c0%25ae/admin".split()
)
def test_c11_decoded_exactly_once(target: bytes) -> None:
    """What comes out is another path, forwarded as it was matched."""
    assert ended(DENY_ADMIN, target) == "allow"
    assert admitted(target).target == admitted(target).path.encode("ascii")
    assert b"%25" in admitted(target).target


@pytest.mark.parametrize("target", b"/x/%c0%ae%c0%ae/admin /%c0%afadmin /%e0%80%afadmin /%ff/admin /%ed%a0%80".split())
def test_c12_overlong_and_invalid_utf8_are_opaque(target: bytes) -> None:
    """Octets, decoded by nobody here, forwarded in one spelling."""
    assert ended(DENY_ADMIN, target) == "allow"
    path = admitted(target).path
    assert admitted(target).target == path.encode("ascii")
    assert path.upper() == target.decode("ascii").upper()
    assert ended(deny(f'[{{to: [{{operation: {{paths: ["{path}"]}}}}]}}]'), target) == "deny"


@pytest.mark.parametrize("target", b"/\xc0\xae\xc0\xae/admin /\xff /caf\xc3\xa9".split())
def test_c12_raw_octets_above_ascii_are_refused(target: bytes) -> None:
    """A path is ASCII (RFC 3986 section 2)."""
    assert ended(DENY_ADMIN, target) == "B04"


@pytest.mark.parametrize("target", b"/%zz /admin% /admin%6 /%/admin /%G1 /%%61dmin".split())
def test_c13_broken_triplets_are_refused(target: bytes) -> None:
    """RFC 3986 section 2.1."""
    assert ended(DENY_ADMIN, target) == "C13"


def test_c14_a_slash_or_a_dot_at_the_end_makes_another_path() -> None:
    """Unless the policy says both."""
    assert [ended(DENY_ADMIN, target) for target in (b"/admin", b"/admin/", b"/admin.")] == ["deny", "allow", "allow"]
    both = deny('[{to: [{operation: {paths: [/admin, "/admin/*"]}}]}]')
    assert [ended(both, target) for target in (b"/admin", b"/admin/", b"/admin/.", b"/admin/x/..")] == ["deny"] * 4
    template = deny('[{to: [{operation: {paths: ["/admin/{**}"]}}]}]')
    assert [ended(template, target) for target in (b"/admin", b"/admin/", b"/admin/x/y")] == ["allow", "deny", "deny"]
