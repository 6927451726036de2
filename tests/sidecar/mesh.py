"""A mesh's certificates for tests with real handshakes: valid now, by the real clock, because OpenSSL looks at that.

Tests without handshakes may bring their own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import TrustBundle
from certs.csr import read_csr
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid, new_private_key
from protos.hauberk.v1 import identity_pb2
from tests.certs.forge import Authority, make_ca, make_leaf, uri

TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.for_workload(TD, "shop", "web")
ORDERS = SpiffeId.for_workload(TD, "shop", "orders")
CONTROL_PLANE = SpiffeId.for_control_plane(TD)


class Mesh:
    """One CA and what it signs."""

    def __init__(self, trust_domain: TrustDomain = TD, clock: Callable[[], float] = time.time) -> None:
        now = clock()
        self.trust_domain = trust_domain
        self.clock = clock
        self.root = make_ca(names=(uri(trust_domain.uri),), not_before=now - 86_400, not_after=now + 86_400)
        self.bundle = TrustBundle.of(trust_domain, [self.root.der])

    def intermediates(self, count: int) -> list[Authority]:
        """A chain of signing certificates, the one nearest to the root first."""
        now = time.time()
        chain = [self.root]
        for number in range(count):
            issuer = chain[-1]
            chain.append(make_ca(f"i{number}", issuer=issuer, not_before=now - 3600, not_after=now + 3600))
        return chain[1:]

    def svid(
        self,
        identity: SpiffeId,
        *,
        lifetime_s: float = 3600,
        starts_in_s: float = -60,
        chain: Sequence[Authority] = (),
        with_anchor: bool = False,
        **replaced: Any,
    ) -> X509Svid:
        """An SVID; `replaced` goes to the forger, so that it may be an illegal one. Nothing is checked."""
        now = self.clock()
        key = new_private_key()
        leaf = make_leaf(
            chain[-1] if chain else self.root,
            key=key.public_key(),
            not_before=now + starts_in_s,
            not_after=now + lifetime_s,
            **{"names": (uri(str(identity)),), **replaced},
        )
        rest = [one.der for one in reversed(chain)] + ([self.root.der] if with_anchor else [])
        return unchecked_svid(identity, [leaf, *rest], key, not_before=now + starts_in_s, not_after=now + lifetime_s)

    def answer(
        self, csr_der: bytes, identity: SpiffeId = WEB, *, lifetime_s: float = 3600, **replaced: Any
    ) -> identity_pb2.SvidResponse:
        """What a control plane answers to Join or Renew; `replaced` fields may make it a wrong one."""
        now = self.clock()
        leaf = make_leaf(
            self.root,
            names=(uri(str(identity)),),
            key=read_csr(csr_der).public_key,
            not_before=now - 60,
            not_after=now + lifetime_s,
        )
        fields: dict[str, Any] = {
            "spiffe_id": str(identity),
            "certificate_chain_der": [leaf],
            "trust_anchors_der": [self.root.der],
            "service": identity.service_account or "",
            "namespace": identity.namespace or "",
            "labels": {"app": identity.service_account or ""},
            "server_time": now,
        }
        return identity_pb2.SvidResponse(**{**fields, **replaced})


def unchecked_svid(
    identity: SpiffeId,
    chain_der: Sequence[bytes],
    key: ec.EllipticCurvePrivateKey,
    *,
    not_before: float,
    not_after: float,
) -> X509Svid:
    return X509Svid(
        spiffe_id=identity,
        chain_der=tuple(chain_der),
        private_key=key,
        not_before=float(int(not_before)),
        not_after=float(int(not_after)),
        serial=4711,
    )
