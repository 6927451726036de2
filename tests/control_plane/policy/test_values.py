"""control_plane/policy/values.py: what values may look like. Tables of what is taken and what is refused."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.policy import values
from control_plane.policy.values import BadValue, Check
from sidecar.http.authority import parse_authority

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
    (
        values.path,
        ["/{*}", "/{**}", "/a/{**}", "/a/{*}/b", "/{*}/a/{**}", "/a/{**}/b.txt", "/{*}/{*}/", "/.well-known/{*}"],
    ),
    (values.block, ["10.0.0.0/8", "10.1.2.3", "10.1.2.3/32", "0.0.0.0/0", "::/0", "::1", "2001:db8::/32", "fe80::1"]),
    (values.service_account("shop"), ["a/b", "shop/web", "a-1/b.c_D"]),
    (values.pattern, ["a", "a b", "*", "a*", "*a", "https://issuer/*", "{x}"]),
    (values.claim_pattern, ["Gr\u00f6\u00dfe", "a", "*"]),
    (values.server_name, ["a.b", "*.b", "*"]),
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
    (values.host, ["[:::]", "[1.2.3.4]", "[::1%1]", "a..b", ".a", "*..a", "a..*", ".*"]),
    (values.server_name, ["[::1]", "[2001:DB8::1]", "a.", ""]),
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
            "/a}",
            "/a{*}",
            "/{*}a/b",
            "/{**}/{*}",
            "/{**}/a/{**}",
            "/{*}/a*",
            "/{*}/*",
            "*/{*}",
            "{*}",
            "a/{*}",
            "/{***}",
            "/{}",
            "/{a}",
            "/{*}//a",
            "/{*}/../a",
            "/{*}/%61",
            "/{*}?a",
            "/{*}" * 800,
            "/" + "a" * 3000,
        ],
    ),
    (
        values.block,
        [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/255.0.0.0",
            "10.0.0",
            "10.0.0.0.0",
            "010.0.0.1",
            "10.0.0.256",
            "1",
            "::1/64",
            "fe80::1%eth0",
            ":::",
            "::/129",
            "[::1]",
            "10.0.0.1 ",
            "10.0.0.1:80",
            "localhost",
            "*",
            "\u0661.2.3.4",
            "1" * 3000,
        ],
    ),
    (values.service_account("shop"), ["", "/", "a/", "/a", "a/b/c", "shop/*", "*", "A/b", "a b", "a\n", ".", "\u0430"]),
    (values.exact, ["", " a", "a ", "a\n", "\u0430", "a\0", "a" * 3000]),
    (values.pattern, ["", "a*b", "**", "\u0430*", " *", "a" * 3000]),
    (values.claim_pattern, ["", "a*b", "a\u200bb", "a\n*"]),
    (values.header_name, ["", "a b", "a:", ":path", "\u0430", "a" * 200]),
    (values.server_name, ["", "a:80", "a..b*c", "a/b", "\u0430.b"]),
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
        (values.path, "/{**}/{*}", "use {*} for one segment"),
        (values.block, "10.1.2.3/8", "write 10.0.0.0/8 or 10.1.2.3"),
    ],
)
def test_a_refusal_says_what_to_write(check: Check, text: str, hint: str) -> None:
    """The commonest mistakes, each with its way out."""
    with pytest.raises(BadValue) as caught:
        check(text)
    assert caught.value.hint == hint


@given(st.sampled_from([check for check, _ in TAKEN]), st.text(max_size=80))
def test_any_text_is_taken_or_refused(check: Check, text: str) -> None:
    """What is taken is ASCII (H12), but for what issuers write."""
    try:
        assert check(text).isascii() or check is values.claim_pattern
    except BadValue:
        return


@pytest.mark.parametrize(
    ("check", "text", "canonical"),
    [
        (values.block, "2001:DB8:0::/32", "2001:db8::/32"),
        (values.block, "::0001", "::1"),
        (values.block, "::ffff:10.0.0.0/104", "10.0.0.0/8"),
        (values.block, "::ffff:0:0/96", "0.0.0.0/0"),
        (values.block, "::ffff:10.1.2.3", "10.1.2.3"),
        (values.service_account("shop"), "web", "shop/web"),
        (values.header_name, "X-Token", "x-token"),
        (values.server_name, "Shop.Example", "shop.example"),
        (values.host, "[2001:DB8:0:0::1]", "[2001:db8::1]"),
        (values.host, "[::ffff:a00:1]", "[::ffff:10.0.0.1]"),
    ],
)
def test_h11_what_has_several_spellings_gets_one(check: Check, text: str, canonical: str) -> None:
    """The evaluator compares texts; a mapped address is compared as the IPv4 it is (C29)."""
    assert check(text) == canonical


@given(st.ip_addresses(v=6), st.booleans(), st.booleans())
def test_c17_an_ipv6_host_of_a_policy_is_that_of_a_request(address: IPv6Address, long: bool, upper: bool) -> None:
    """In whatever spelling either has it: a DENY on one that no request ever has would protect nothing."""
    text = f"[{address.exploded if long else address}]"
    assert values.host(text.upper() if upper else text) == parse_authority(f"[{address}]:80".encode()).host


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("1.5s", 1.5), ("1m", 60.0), ("0.001s", 0.001)]
)
def test_a_timeout_may_be_less_than_a_second(text: str, seconds: float) -> None:
    """Up to a minute."""
    assert values.timeout_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "0s", "61s", "1h", "-1s", "1e3s", "1.s", "NaNs", "5s\n", "0.5ms"])
def test_other_timeouts_are_refused(text: str) -> None:
    """Too short, too long, or not clear."""
    with pytest.raises(BadValue):
        values.timeout_s(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86_400.0),
        ("1970-01-02t01:00:00+01:00", 86_400.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
    ],
)
def test_a_point_in_time_has_its_offset(text: str, seconds: float) -> None:
    """RFC 3339 -> Unix seconds."""
    assert values.point_in_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-12-31",
        "2026-12-31T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-12-31 00:00:00Z",
        "soon",
        "1969-01-01T00:00:00Z",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    """One without an offset would mean another moment to each who reads it."""
    with pytest.raises(BadValue):
        values.point_in_time(text)
