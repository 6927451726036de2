"""Blocks of addresses, and whose address a request comes from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.addresses import FORWARDED_ENTRIES_MAX, canonical_address, compile_blocks, remote_address

NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "192.0.2.8/31", "2001:db8::/32", "::1", "0.0.0.0/0", "fe80::/10"]


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:1", "10.0.0.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", ""),
        ("10.0.0", ""),
        ("010.0.0.1", ""),
        ("x" * 1_000, ""),
    ],
)
def test_c29_an_address_has_one_spelling(text: str, spelling: str) -> None:
    """A v4-mapped one is IPv4; what is no address is none."""
    assert canonical_address(text) == spelling


def test_c29_a_mapped_address_is_in_the_block_of_its_v4() -> None:
    """`::ffff:10.0.0.1` would pass `10.0.0.0/8` by unread otherwise."""
    assert compile_blocks(["10.0.0.0/8"])("::ffff:10.0.0.1")
    assert not compile_blocks(["::/0"])("10.0.0.1")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "10.0.0", "x", "", "10.0.0.0/-1"])
def test_h11_what_is_no_block_is_refused(text: str) -> None:
    """Host bits included: a slip of one digit would open another network."""
    with pytest.raises(ValueError):  # noqa: PT011 - ipaddress's own, in several words
        compile_blocks([text])


@given(
    st.lists(st.sampled_from(NETWORKS), max_size=4),
    st.one_of(
        st.ip_addresses(), st.sampled_from([ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("192.0.2.9")])
    ),
)
def test_a_block_holds_what_ipaddress_says(blocks: list[str], address: ipaddress.IPv4Address) -> None:
    """Of several, one is enough."""
    if getattr(address, "ipv4_mapped", None):
        address = address.ipv4_mapped  # type: ignore[attr-defined]
    wanted = any(address in ipaddress.ip_network(block) for block in blocks)
    assert compile_blocks(blocks)(str(address)) is wanted


@given(st.lists(st.sampled_from(NETWORKS), max_size=4))
def test_nothing_is_in_no_block(blocks: list[str]) -> None:
    """A missing address is written as the empty text."""
    assert not compile_blocks(blocks)("")


@pytest.mark.parametrize(
    ("values", "count", "address"),
    [
        (["203.0.113.9"], 1, "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9"], 1, "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], 1, "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9, 10.0.0.1"], 2, "203.0.113.9"),
        (["203.0.113.9:4711"], 1, "203.0.113.9"),
        (["[2001:db8::1]:4711"], 1, "2001:db8::1"),
        (["2001:db8::1"], 1, "2001:db8::1"),
        (["203.0.113.9"], 2, ""),
        (["203.0.113.9"], 0, ""),
        (["unknown"], 1, ""),
        ([], 1, ""),
        ([",".join(["10.0.0.1"] * (FORWARDED_ENTRIES_MAX + 1))], 1, ""),
    ],
)
def test_the_remote_address_is_what_the_trusted_proxies_saw(values: list[str], count: int, address: str) -> None:
    """Counted from the right: what stands further left the client may have written itself."""
    assert remote_address(values, count) == address


@given(st.lists(st.text(max_size=40), max_size=4), st.integers(min_value=0, max_value=16))
def test_whatever_is_forwarded_is_an_address_or_none(values: list[str], count: int) -> None:
    """Never an exception."""
    found = remote_address(values, count)
    assert found == "" or str(ipaddress.ip_address(found)) == found
