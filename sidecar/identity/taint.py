"""Whether a certificate stands under an authority that everybody is to leave."""

from __future__ import annotations

from collections.abc import Collection

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.svid import X509Svid
from certs.verify import verify_chain


def tainted_above(svid: X509Svid, bundle: TrustBundle, tainted: Collection[str], now: float) -> frozenset[str]:
    """Those of the authorities `tainted` that the chain leads through or to; `now` in Unix seconds."""
    if not tainted:
        return frozenset()
    found = {one for one in authority_ids(svid.chain_der[1:]) if one in tainted}
    for anchor in bundle.anchors_der:
        (anchor_id,) = authority_ids((anchor,))
        if anchor_id in tainted and anchor_id not in found:
            try:
                verify_chain(svid.chain_der, TrustBundle.of(bundle.trust_domain, [anchor]), now)
            except CertsError:
                continue  # it leads to another
            found.add(anchor_id)
    return frozenset(found)
