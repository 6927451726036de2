"""The control plane's own certificate, while a connection to it lives."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.lowlevel import ParkingLot

from certs.bundle import TrustBundle
from sidecar.identity.source import IdentitySource
from sidecar.net.errors import TlsError
from sidecar.net.tls import PeerCertificate
from sidecar.net.trust import why_not

DISTRUSTED_MAX_S = 3.0
"""Within the 5 s of row F15, and longer than the `ANCHORS_SPREAD_S` over which a fleet comes again by itself."""


async def wait_distrusted(peer: PeerCertificate, trust: IdentitySource, clock: Callable[[], float]) -> TlsError:
    """Until the peer of a connection has been without our trust for `DISTRUSTED_MAX_S`; returns why it is. `clock`:
    Unix seconds."""
    verified_under: TrustBundle | None = None
    changed = ParkingLot()
    unsubscribe = trust.subscribe(changed.unpark_all)
    try:
        while True:
            bundle = trust.bundle
            if bundle is not None:
                if error := why_not(peer, bundle, trust.revocations, clock(), verified_under):
                    await trio.sleep(DISTRUSTED_MAX_S)
                    return error
                verified_under = bundle
            await changed.park()
    finally:
        unsubscribe()
