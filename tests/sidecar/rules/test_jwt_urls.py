"""Where keys may be fetched from (row E23)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.jwt_urls import discovery_url, may_dial, parse_url


@pytest.mark.parametrize(
    ("text", "host", "port", "target"),
    [
        ("https://issuer.example", "issuer.example", 443, "/"),
        ("https://Issuer.Example:8443/keys?a=b", "issuer.example", 8443, "/keys?a=b"),
        ("https://[2001:DB8::1]/keys", "2001:db8::1", 443, "/keys"),
        ("http://localhost:8080/keys", "localhost", 8080, "/keys"),
        ("http://127.0.0.1/keys", "127.0.0.1", 80, "/keys"),
        ("http://[::1]:80/", "::1", 80, "/"),
    ],
)
def test_a_url_is_read_in_one_way(text: str, host: str, port: int, target: str) -> None:
    """And written again it reads the same."""
    url = parse_url(text)
    assert (url.host, url.port, url.target) == (host, port, target)
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://issuer.example/keys", "ftp://issuer.example", "https://user@issuer.example", "https://u:p@issuer.example",
        "https://", "https:///keys", "https://issuer.example#x", "https://issuer.example/a b", "https://issuer.example\\x",
        "https://issuer.example:0", "https://issuer.example:65536", "https://issuer.example:", "https://1.2.3",
        "https://0x7f000001", "https://2130706433", "https://127.1", "https://issuer..example", "https://é.example",
        "https://[::1", "https://[fe80::1%25eth0]/", "//issuer.example", "issuer.example", "https://a/\n", "HTTPS://a.b/",
        "https://issuer.example/" + "x" * 2_048, "http://10.0.0.1/", "http://localhost.evil.example/", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_e23_every_other_url_is_refused(text: str) -> None:
    """Above all plaintext, and hosts that are numbers in disguise."""
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)


def test_discovery_is_at_the_issuer() -> None:
    """With or without its last slash (OpenID Connect Discovery 1.0 section 4.1)."""
    for issuer in ("https://issuer.example/realms/shop", "https://issuer.example/realms/shop/"):
        assert str(discovery_url(issuer)) == "https://issuer.example/realms/shop/.well-known/openid-configuration"
    with pytest.raises(ValueError, match="has a query"):
        discovery_url("https://issuer.example/?a=b")


INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::", "::1",
    "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1",
    "64:ff9b::169.254.169.254", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1",
    "100::1", "", "issuer.example",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_e23_addresses_that_are_not_of_the_public_internet_are_not_dialled(address: str) -> None:
    """Loopback, link-local, private, shared, multicast, reserved, clouds' metadata, and all of these within IPv6."""
    assert not may_dial(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_public_addresses_are_dialled(address: str) -> None:
    """Also where an IPv6 address hides a public IPv4 one."""
    assert may_dial(address)


def test_e23_what_is_allowed_is_allowed_and_no_more() -> None:
    """A mapped address is judged as the one it is."""
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::1/128")]
    assert may_dial("10.1.2.3", allowed)
    assert may_dial("::ffff:10.1.2.3", allowed)
    assert may_dial("::1", allowed)
    assert not may_dial("10.2.0.1", allowed)
    assert not may_dial("127.0.0.1", allowed)


@given(st.ip_addresses())
def test_e23_only_global_addresses_are_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever else is asked, `ipaddress` agrees."""
    if may_dial(str(address)):
        assert address.is_global
        assert not address.is_multicast


@given(st.text())
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """Nothing else happens."""
    for one in (text, f"https://{text}"):
        try:
            url = parse_url(one)
        except ValueError:
            continue
        assert parse_url(str(url)) == url
