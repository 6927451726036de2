"""Coming back with the node key: for whoever slept, or was cut off, or was restarted, until the certificate was gone.

The control plane is known by the anchors held, or by those they lead to (`join_port`); it knows us by the node key,
which signs its nonce together with the request for a certificate. Both ends therefore know whom they talk to although
neither certificate of the last meeting may still be good.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from certs.bundle import TrustBundle
from certs.csr import make_csr
from certs.errors import CertsError
from certs.node_key import REJOIN, sign
from certs.spiffe_id import TrustDomain
from certs.svid import new_private_key
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel
from sidecar.errors import (
    GRPC_NOT_FOUND,
    GRPC_PERMISSION_DENIED,
    GRPC_UNAUTHENTICATED,
    GRPC_UNIMPLEMENTED,
)
from sidecar.identity.errors import ControlPlaneUnreachable, IssuedRefused, JoinError, JoinRefused, WrongPin
from sidecar.identity.join_port import Joined, ask_join_port, joined
from sidecar.identity.skew import ClockSkew
from sidecar.identity.state import Node
from sidecar.net.errors import TlsError

CHALLENGE_PATH = "/hauberk.v1.Identity/Challenge"
REJOIN_PATH = "/hauberk.v1.Identity/Rejoin"
RPC_TIMEOUT_S = 10.0
NONCE_OCTETS = range(16, 65)
_REFUSALS = {GRPC_NOT_FOUND, GRPC_PERMISSION_DENIED, GRPC_UNAUTHENTICATED, GRPC_UNIMPLEMENTED}
"""All else may pass: a nonce, for one, is no good any more when the control plane was restarted since the challenge."""
_WAY_OUT = "make a new join token with `hauberk token create`"


async def rejoin(config: Config, node: Node, clock: Callable[[], float], *, skew: ClockSkew | None = None) -> Joined:
    """One attempt. Raises ControlPlaneUnreachable, IssuedRefused and JoinError (try again soon); WrongPin (whoever
    answers is somebody else: try again); JoinRefused, which holds until somebody does something; BindingError."""
    trust_domain = TrustDomain.parse(config.trust_domain)
    address = Address(config.control_plane.host, node.join_port)
    key = new_private_key()
    asked_at = clock()

    async def ask(channel: Channel) -> identity_pb2.SvidResponse:
        nonlocal asked_at
        challenge = await channel.unary(
            CHALLENGE_PATH, identity_pb2.ChallengeRequest(), identity_pb2.ChallengeResponse, RPC_TIMEOUT_S
        )
        if len(challenge.nonce) not in NONCE_OCTETS:
            raise IssuedRefused(f"the control plane sent a nonce of {len(challenge.nonce)} octets")
        csr = make_csr(key, node.spiffe_id)
        request = identity_pb2.RejoinRequest(
            node_id=node.node_id,
            nonce=challenge.nonce,
            csr_der=csr,
            node_signature=sign(node.key, REJOIN, challenge.nonce, csr),
        )
        asked_at = clock()
        return await channel.unary(REJOIN_PATH, request, identity_pb2.SvidResponse, RPC_TIMEOUT_S)

    try:
        held = TrustBundle.of(trust_domain, node.anchors_der)
        response, trusted = await ask_join_port(address, held, ask, clock, config.timeouts.handshake_s)
    except (CertsError, ssl.SSLError) as error:
        raise WrongPin(f"the trust anchors we have are none of {trust_domain} ({error}); {_WAY_OUT}") from error
    except RpcError as error:
        raise _error(address, error) from error
    except TlsError as error:
        if error.row == "F01":
            raise JoinError(f"{address}: {error}; is this machine's clock right?") from error
        raise WrongPin(
            f"{address} is not the control plane of {trust_domain} by any trust anchor we know, nor by one they vouch "
            f"for ({error}); check the address, or {_WAY_OUT}"
        ) from error
    found = joined(config, response, key, trusted, asked_at=asked_at, now=clock(), skew=skew)
    if node.spiffe_id is not None and found.svid.spiffe_id != node.spiffe_id:
        raise IssuedRefused(f"the control plane took {node.spiffe_id} back as {found.svid.spiffe_id}")
    return found


def _error(address: Address, error: RpcError) -> JoinError:
    if error.status in _REFUSALS:
        return JoinRefused(f"the control plane at {address} does not take this node back: {error.message}; {_WAY_OUT}")
    return ControlPlaneUnreachable(f"{address}: {error.message}")
