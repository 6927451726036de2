"""sidecar.identity.taint: which tainted authorities a certificate stands under."""

from __future__ import annotations

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from sidecar.identity.taint import tainted_above
from tests.sidecar.mesh import TD, WEB, Mesh


def test_an_intermediate_of_the_chain_and_the_anchor_it_leads_to_count() -> None:
    """And no others, though they are tainted and trusted."""
    mesh, other = Mesh(), Mesh()
    (intermediate,) = mesh.intermediates(1)
    svid = mesh.svid(WEB, chain=[intermediate])
    bundle = TrustBundle.of(TD, [other.root.der, mesh.root.der])
    (own, root, foreign) = authority_ids((intermediate.der, mesh.root.der, other.root.der))
    now = mesh.clock()
    assert tainted_above(svid, bundle, {own}, now) == {own}
    assert tainted_above(svid, bundle, {root, foreign}, now) == {root}
    assert tainted_above(svid, bundle, {foreign}, now) == set()
    assert tainted_above(svid, bundle, set(), now) == set()
