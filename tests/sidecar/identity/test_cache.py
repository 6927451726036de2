"""sidecar.identity.cache: what this node sealed is unsealed, and nothing else ever is (J09)."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.svid import X509Svid, new_private_key
from sidecar.identity.cache import Cached, CacheRefused, seal, unseal
from tests.certs.forge import NOW
from tests.sidecar.mesh import TD, WEB, Mesh

MESH = Mesh(clock=lambda: NOW)
NODE_KEY = new_private_key()


@functools.cache
def cached() -> Cached:
    made = MESH.svid(WEB, lifetime_s=3600)
    return Cached(
        svid=X509Svid.of(made.chain_der, made.private_key, TD, NOW),
        bundle=MESH.bundle,
        snapshot=b"a snapshot as it came",
        received_at=NOW,
        saved_at=NOW + 1,
        sequence=7,
    )


@functools.cache
def sealed() -> bytes:
    return seal(cached(), NODE_KEY)


def test_what_was_sealed_is_unsealed() -> None:
    """All of it, with a key that works."""
    found = unseal(sealed(), NODE_KEY, TD, NOW + 10)
    assert found == cached()
    assert found.svid.private_key.private_numbers() == cached().svid.private_key.private_numbers()


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_j09_no_bit_of_it_can_be_changed(at: int, bit: int) -> None:
    """J09: wherever it was altered, it is not taken."""
    octets = bytearray(sealed())
    octets[at % len(octets)] ^= 1 << bit
    with pytest.raises(CacheRefused):
        unseal(bytes(octets), NODE_KEY, TD, NOW)


@given(st.one_of(st.binary(max_size=200), st.integers(0, 3_000).map(lambda n: sealed()[:n])))
def test_j09_a_part_of_it_or_anything_else_is_not_taken(content: bytes) -> None:
    """J09: a torn write, an empty file, other bytes."""
    if content != sealed():
        with pytest.raises(CacheRefused):
            unseal(content, NODE_KEY, TD, NOW)


def test_j09_the_cache_of_another_node_is_not_taken() -> None:
    """J09: another node key, another tag."""
    with pytest.raises(CacheRefused, match="another node's"):
        unseal(seal(cached(), new_private_key()), NODE_KEY, TD, NOW)


def test_r02_a_certificate_that_has_ended_is_not_taken() -> None:
    """R02: the greatest age is the certificate's end."""
    assert unseal(sealed(), NODE_KEY, TD, cached().svid.not_after - 1) == cached()
    with pytest.raises(CacheRefused, match="expired"):
        unseal(sealed(), NODE_KEY, TD, cached().svid.not_after)


def test_a_cache_from_the_future_is_not_taken() -> None:
    """The clock was set back: what the cache says of time cannot be held against it."""
    with pytest.raises(CacheRefused, match="in the future"):
        unseal(sealed(), NODE_KEY, TD, cached().saved_at - 61)
    assert unseal(sealed(), NODE_KEY, TD, cached().saved_at - 30) == cached()


def test_another_trust_domains_is_not_taken() -> None:
    """The configuration was changed since."""
    other = type(TD).parse("other.local")
    with pytest.raises(CacheRefused, match="of no use"):
        unseal(sealed(), NODE_KEY, other, NOW)


def test_its_repr_shows_no_key() -> None:
    """Nor the policy."""
    assert "snapshot as" not in repr(cached())
    assert "PRIVATE" not in repr(cached())
