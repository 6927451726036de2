"""What is asked on the join port, where a caller has no certificate: how its server is known, and what its answers are.

Theory of operation
-------------------
We hold anchors, perhaps of long ago. A connection that trusts them is tried first. If the server's chain leads to
another anchor, or ours have expired, it is asked for statements (`certs.succession`) over a connection that is not
verified: each is signed by the anchor before, so they prove themselves, whoever hands them out. A second connection
then trusts what they lead to. A server that has only a false statement, or none, is never told anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import ANCHORS_MAX, TrustBundle, pin
from certs.spiffe_id import SpiffeId
from certs.succession import Succession, follow
from certs.svid import X509Svid
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel, open_channel, open_unverified_channel
from sidecar.errors import GRPC_INVALID_ARGUMENT, GRPC_UNAVAILABLE, GRPC_UNIMPLEMENTED
from sidecar.identity.errors import BindingError, IssuedRefused
from sidecar.identity.issued import accept_issued
from sidecar.identity.skew import ClockSkew
from sidecar.net.errors import PeerRefused
from sidecar.net.tls import client_context

ANCHORS_PATH = "/hauberk.v1.Identity/Anchors"
ANCHORS_TIMEOUT_S = 10.0

Ask = Callable[[Channel], Awaitable[identity_pb2.SvidResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What joining, or coming back, gave us."""

    svid: X509Svid
    bundle: TrustBundle
    service: str
    namespace: str
    labels: Mapping[str, str]
    clock_skew_s: float
    """Our clock minus the control plane's."""
    node_expires_at: float = 0.0
    """Until when this node may come back if it is not heard of; Unix seconds, 0: it may not."""


async def ask_join_port(
    address: Address, held: TrustBundle, ask: Ask, clock: Callable[[], float], timeout_s: float
) -> tuple[identity_pb2.SvidResponse, TrustBundle]:
    """The answer of the control plane there, and the anchors one of which it was known by.

    Raises RpcError, of a status other than UNAVAILABLE only if who answered is known, and TlsError if it is not known
    by those `held` nor by those they lead to."""

    async def asked(bundle: TrustBundle) -> identity_pb2.SvidResponse:
        expected = SpiffeId.for_control_plane(bundle.trust_domain)
        async with open_channel(
            address,
            client_context(None, bundle),
            bundle.trust_domain,
            expected,
            clock=clock,
            connect_timeout_s=timeout_s,
        ) as channel:
            return await ask(channel)

    try:
        return await asked(held), held
    except PeerRefused:
        successors = await _successors(address, held, timeout_s)
        if not successors:
            raise
    anchors = (*held.anchors_der, *successors)[-ANCHORS_MAX:]
    led_to = replace(held, anchors_der=anchors)
    return await asked(led_to), led_to


async def _successors(address: Address, held: TrustBundle, timeout_s: float) -> tuple[bytes, ...]:
    """The anchors that those held vouch for. Raises RpcError(UNAVAILABLE)."""
    request = identity_pb2.AnchorsRequest(held_sha256=[pin(der) for der in held.anchors_der])
    try:
        async with open_unverified_channel(address, connect_timeout_s=timeout_s) as channel:
            answer = await channel.unary(ANCHORS_PATH, request, identity_pb2.AnchorsResponse, ANCHORS_TIMEOUT_S)
    except RpcError as error:
        if error.status in (GRPC_UNIMPLEMENTED, GRPC_INVALID_ARGUMENT):
            return ()  # a control plane that does not know the question
        # Nobody has proved who says so: not the word of a control plane that refuses us, however it is put.
        raise RpcError(GRPC_UNAVAILABLE, f"it does not say which trust anchors took over: {error.message}") from error
    statements = (
        Succession(predecessor_sha256=one.predecessor_sha256, successor_der=one.successor_der, signature=one.signature)
        for one in answer.successions
    )
    return follow(held.anchors_der, statements, held.trust_domain)


def joined(
    config: Config,
    response: identity_pb2.SvidResponse,
    key: ec.EllipticCurvePrivateKey,
    trusted: TrustBundle,
    *,
    asked_at: float,
    now: float,
    skew: ClockSkew | None,
) -> Joined:
    """What an answer to Join or Rejoin holds. Raises IssuedRefused, BindingError."""
    if skew is not None:
        skew.heard(response.server_time, before=asked_at, after=now)
    svid, bundle = accept_issued(response, key, trusted.trust_domain, now)
    if not set(trusted.anchors_der) & set(bundle.anchors_der):
        raise IssuedRefused(
            "the control plane sent a trust bundle without the anchor the join token was made for, and without any "
            "that took its place"
        )
    wanted, bound = f"{config.service}.{config.namespace}", f"{response.service}.{response.namespace}"
    if wanted != bound:
        raise BindingError(
            f"{config.source}: service is {wanted}, but the join token was made for {bound}; "
            f"correct `service` and `namespace`, or make a token for {wanted}"
        )
    return Joined(
        svid=svid,
        bundle=bundle,
        service=response.service,
        namespace=response.namespace,
        labels=dict(response.labels),
        clock_skew_s=(asked_at + now) / 2 - response.server_time,
        node_expires_at=response.node_expires_at,
    )
