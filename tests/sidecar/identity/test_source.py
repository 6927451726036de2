"""sidecar.identity.source: both parts change together, or nothing does."""

from __future__ import annotations

import ssl

import pytest
import trio

from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.errors import NoIdentityYet
from sidecar.identity.source import IdentitySource
from tests.sidecar.mesh import ORDERS, WEB, Mesh, unchecked_svid
from tests.trio_support import trio_test

MESH = Mesh()


def test_f26_there_are_no_contexts_before_both_parts_are_there() -> None:
    """F26: nothing may listen or dial on half an identity."""
    source = IdentitySource()
    for _ in range(2):
        with pytest.raises(NoIdentityYet):
            source.server_context()
        with pytest.raises(NoIdentityYet):
            source.client_context()
        assert not source.is_ready
        source.set(bundle=MESH.bundle)
    source.set(svid=MESH.svid(WEB))
    assert source.is_ready
    assert isinstance(source.server_context(), ssl.SSLContext)


def test_f14_every_change_makes_new_contexts() -> None:
    """F14: contexts are cached within a generation and never outlive it."""
    source = IdentitySource()
    source.set(svid=MESH.svid(WEB), bundle=MESH.bundle)
    first = source.server_context(), source.client_context()
    assert (source.server_context(), source.client_context()) == first
    source.set(svid=MESH.svid(WEB))
    second = source.server_context(), source.client_context()
    assert source.generation == 2
    assert not {*first} & {*second}
    source.set(bundle=Mesh().bundle)
    assert source.generation == 3
    assert source.server_context() is not second[0]


def test_subscribers_hear_of_changes_and_only_of_changes() -> None:
    """Called after the change is in place; equal values are no change; unsubscribing ends it."""
    source, heard = IdentitySource(), []
    unsubscribe = source.subscribe(lambda: heard.append(source.generation))
    svid = MESH.svid(WEB)
    source.set(svid=svid, bundle=MESH.bundle)
    source.set(svid=svid, bundle=MESH.bundle)
    source.set(svid=MESH.svid(WEB))
    unsubscribe()
    unsubscribe()
    source.set(svid=MESH.svid(WEB))
    assert heard == [1, 2]


def test_what_openssl_refuses_changes_nothing() -> None:
    """A certificate for another key, or another trust domain, leaves the old identity whole."""
    source = IdentitySource()
    good = MESH.svid(WEB)
    source.set(svid=good, bundle=MESH.bundle)
    context = source.server_context()
    other = MESH.svid(WEB)
    broken = unchecked_svid(WEB, other.chain_der, good.private_key, not_before=0, not_after=1)
    elsewhere = Mesh(TrustDomain.parse("other.example"))
    stranger = elsewhere.svid(SpiffeId.parse("spiffe://other.example/ns/shop/sa/web"))
    with pytest.raises(ssl.SSLError):
        source.set(svid=broken)
    with pytest.raises(ValueError, match="trust domain"):
        source.set(svid=stranger)
    assert source.svid is good
    assert source.generation == 1
    assert source.server_context() is context


@trio_test
async def test_waiting_ends_when_both_parts_are_there() -> None:
    """`wait_ready` does not return for one half."""
    source = IdentitySource()
    ready = False

    async def wait() -> None:
        nonlocal ready
        await source.wait_ready()
        ready = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        source.set(svid=MESH.svid(ORDERS))
        await trio.testing.wait_all_tasks_blocked()
        assert not ready
        source.set(bundle=MESH.bundle)
    assert ready


def test_repr_says_who_and_shows_no_key() -> None:
    """It may stand in any log."""
    source = IdentitySource()
    assert repr(source) == "<IdentitySource nobody yet, generation 0>"
    source.set(svid=MESH.svid(WEB), bundle=MESH.bundle)
    assert repr(source) == f"<IdentitySource {WEB}, generation 1>"
