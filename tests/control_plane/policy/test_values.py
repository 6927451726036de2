"""control_plane/policy/values.py: what values may look like. Tables of what is taken and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.policy import values
from control_plane.policy.values import BadValue, Check

TAKEN: list[tuple[Check, list[str]]] = [
    (values.dns_label, ["a", "shop", "a-1", "0", "a" * 63]),
    (values.dns_subdomain, ["a", "allow-web.v2", "a.b.c"]),
    (values.label_key, ["app", "app.kubernetes.io/name", "a_b", "A"]),
    (values.label_value, ["", "web", "V1_2.3-x", "a" * 63]),
    (values.trust_domain, ["mesh.local", "cluster.local", "a_b"]),
    (
        values.principal,
        [
            "mesh.local/ns/shop/sa/web",
            "mesh.local/hauberk/operator/ada",
            "mesh.local/ns/shop/*",
            "mesh.local/ns/shop/sa/web*",
            "*/sa/web",
            "*/ns/shop/sa/web",
            "*web",
            "*",
        ],
    ),
    (values.namespace_pattern, ["shop", "test-*", "*-prod", "*"]),
    (values.host, ["billing.shop", "Billing.Shop", "*.example.com", "api.*", "*", "10.0.0.1", "[::1]"]),
    (values.port, ["1", "80", "65535"]),
    (values.method, ["GET", "M-SEARCH", "P*", "*T", "*"]),
    (
        values.path,
        ["/", "/*", "*", "*.png", "/a/b", "/a/", "/a;v=1", "/a%2A", "/.well-known/*", "/.*", "*..", "/a:b@c!$&'()+,=~"],
    ),
]

REFUSED: list[tuple[Check, list[str]]] = [
    (values.dns_label, ["", "A", "-a", "a-", "a.b", "a_b", "a" * 64, "a\n", "\u0430", "a\0b", "*"]),
    (values.dns_subdomain, ["", ".", "a.", ".a", "a..b", "a/b", "a#0", "A", "a." * 150]),
    (values.label_key, ["", "/", "a/", "/a", "a/b/c", "A/b", "a b", "a*", "-a", "a" * 64]),
    (values.label_value, ["*", "a*", " ", "-a", "a-", "a" * 64, "a\n"]),
    (values.trust_domain, ["", "Mesh", "a/b", "a b", "a\n", "*"]),
    (
        values.principal,
        [
            "",
            "spiffe://mesh.local/ns/a/sa/b",
            "spiffe://*",
            "mesh.local",
            "mesh.local/",
            "/ns/a/sa/b",
            "/ns/*",
            "Mesh.local/ns/a/sa/b",
            "mesh.local/ns//sa/b",
            "mesh.local/ns/a/sa/../b",
            "mesh.local/ns/a/sa/b/",
            "mesh.local/ns/*/sa/b",
            "*a*",
            "**",
            "*/",
            "*//a",
            "mesh.local/ns/a b/sa/c",
            "mesh.local/ns/\u0430/sa/c",
            "mesh.local/ns/a/sa/b\n",
            "mesh.local/a?b",
            "a" * 3000,
        ],
    ),
    (values.namespace_pattern, ["", "Shop", "a.b", "a*b", "*a*", "sh op*", "a" * 64]),
    (values.host, ["", "a:80", "*:80", "a*b", "a b", "a/b", "http://a", "a.", "*.a.", "::1", "\u0430.b", "a,b"]),
    (values.port, ["", "0", "080", "010", "65536", "99999", "80*", "*", "1:30", "-1", "8e1", "0x50", "\u0668", "80 "]),
    (values.method, ["", "get", "Get", "G*T", "G T", "GET\n", "G\u00cbT", "*t"]),
    (
        values.path,
        [
            "",
            "admin",
            "a*",
            "/a*b",
            "*/a*",
            "/a?b",
            "/a#b",
            "/a b",
            "/\u00e9",
            "/a\n",
            "/\0",
            "//admin",
            "/a//b",
            "*//b",
            "/a//*",
            "/./a",
            "/a/..",
            "/a/../b",
            "*/../b",
            "/a/./*",
            "/%61dmin",
            "/a%2a",
            "/a%2Fb",
            "/a%2f*",
            "/a%5Cb",
            "/a%00",
            "/a%",
            "/a%zz",
            "/a%4*",
            "/a\\b",
            "/a{b",
            '/a"b',
            "/{*}/x",
            "/a/{**}",
            "/" + "a" * 3000,
        ],
    ),
]


def _pairs(table: list[tuple[Check, list[str]]]) -> list[tuple[Check, str]]:
    return [(check, text) for check, texts in table for text in texts]


@pytest.mark.parametrize(("check", "text"), _pairs(TAKEN))
def test_taken_as_it_is(check: Check, text: str) -> None:
    """Nothing is rewritten."""
    assert check(text) == text


@pytest.mark.parametrize(("check", "text"), _pairs(REFUSED))
def test_h12_refused(check: Check, text: str) -> None:
    """With a message that is printable ASCII and short."""
    with pytest.raises(BadValue) as caught:
        check(text)
    said = caught.value.message + caught.value.hint
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize(
    "text", ["", "0s", "1s", "24h1s", "25h", "1d", "h", "-1h", "1.5h", "1 h", "30", "1m1h", "1h\n", "999999h"]
)
def test_other_lifetimes_are_refused(text: str) -> None:
    """Too short, too long, or not clear."""
    with pytest.raises(BadValue):
        values.certificate_lifetime_s(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("30s", 30), ("90s", 90), ("1m", 60), ("1h", 3600), ("1h30m", 5400), ("24h", 86_400)],
)
def test_lifetimes_are_whole_seconds(text: str, seconds: int) -> None:
    """From two seconds to a day."""
    assert values.certificate_lifetime_s(text) == seconds


@pytest.mark.parametrize(
    ("check", "text", "hint"),
    [
        (values.principal, "spiffe://mesh.local/ns/a/sa/b", "write 'mesh.local/ns/a/sa/b'"),
        (values.method, "get", "write 'GET'"),
        (values.path, "admin", "write '/admin'"),
        (values.path, "/%61", "write a for %61"),
        (values.path, "/%c3", "write %C3 for %c3"),
        (values.host, "a:80", "remove it and use `ports`"),
        (values.path, "/{*}", "use `prefix*` or `*suffix`"),
    ],
)
def test_a_refusal_says_what_to_write(check: Check, text: str, hint: str) -> None:
    """The commonest mistakes, each with its way out."""
    with pytest.raises(BadValue) as caught:
        check(text)
    assert caught.value.hint == hint


@given(st.sampled_from([check for check, _ in TAKEN]), st.text(max_size=80))
def test_any_text_is_taken_or_refused(check: Check, text: str) -> None:
    """What is taken is ASCII (H12)."""
    try:
        assert check(text).isascii()
    except BadValue:
        return
