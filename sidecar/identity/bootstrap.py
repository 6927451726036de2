"""Joining the mesh: from a join token to the first SVID.

Theory of operation
-------------------
The token carries the SHA-256 of the mesh's trust anchor, so nothing is ever trusted on first use (G14):

1. A TLS handshake with the join port that says nothing: no request, no token. The certificate chain the server shows is
   searched for one with the pinned hash. That proves nothing about the server (anybody can show a public certificate);
   it only hands us the anchor, and a hash cannot be met by another one. The connection is closed.
2. A second connection that trusts that one anchor and nothing else, where OpenSSL checks the chain and `check_peer`
   that the server is exactly the control plane's SPIFFE ID: another workload of the mesh will not do (G15). If the mesh
   has changed its root since the token was made, `join_port` follows the statements that lead from the pinned anchor
   to today's.
3. Only then the token's secret is sent, with a signing request for a fresh key, and the node key with its signature:
   by that this node comes back when its certificate is gone (`sidecar.identity.rejoin`).
4. What comes back is checked like a stranger's certificate, its bundle must hold an anchor that we had reason to trust,
   and the service and namespace it was bound to must be those of the configuration.

The token comes from a file or standard input, never from the command line or the environment (G13), and is in no repr,
log or error.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from cryptography.hazmat.primitives.asymmetric import ec

from certs.bundle import TrustBundle, pin
from certs.csr import make_csr
from certs.errors import CertsError
from certs.node_key import JOIN, public_der, sign
from certs.spiffe_id import TrustDomain
from certs.svid import new_private_key
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel
from sidecar.errors import GRPC_CANCELLED, GRPC_DEADLINE_EXCEEDED, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE
from sidecar.identity.errors import ControlPlaneUnreachable, JoinError, JoinRefused, TokenError, WrongPin
from sidecar.identity.join_port import Joined, ask_join_port, joined
from sidecar.identity.skew import ClockSkew
from sidecar.net.dial import dial
from sidecar.net.errors import HandshakeFailed, TlsError
from sidecar.net.tls import client_context, handshake, peer_chain, unverified_client_context

TOKEN_OCTETS_MAX = 1_024
JOIN_PATH = "/hauberk.v1.Identity/Join"
RPC_TIMEOUT_S = 10.0

_TOKEN = re.compile(r"hauberk1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})\.([1-9][0-9]{0,4})")
_WORTH_ANOTHER_TRY = {GRPC_CANCELLED, GRPC_DEADLINE_EXCEEDED, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE}
_NEW_TOKEN = "make a new one with `hauberk token create`"  # noqa: S105 - advice, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """`hauberk1.<id>.<secret>.<pin>.<join port>`, as `hauberk token create` prints it."""

    token_id: str
    """16 hex digits; public."""
    secret: bytes = field(repr=False)
    """16 bytes."""
    pin: bytes
    """SHA-256 of the trust anchor's DER."""
    join_port: int

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises TokenError. White space around the token is allowed, nothing else is."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise TokenError(f"this is not a join token (hauberk1....); {_NEW_TOKEN}")
        token_id, secret, anchor_pin, port = match.groups()
        if int(port) > 65_535:
            raise TokenError(f"the join token names an impossible port; {_NEW_TOKEN}")
        return cls(token_id=token_id, secret=_decode(secret), pin=_decode(anchor_pin), join_port=int(port))


def read_token(path: str) -> JoinToken:
    """The token in the file at `path`, or on standard input if it is "-". Raises TokenError."""
    if not path:
        raise TokenError(
            "no join token, and no state_dir in which an earlier start left a node key: name the token's file with"
            " --token-file, or with join_token_file in the configuration (`hauberk token create` makes one)"
        )
    where = "standard input" if path == "-" else path
    try:
        if path == "-":
            content = sys.stdin.buffer.read(TOKEN_OCTETS_MAX + 1)
        else:
            with open(path, "rb") as file:
                content = file.read(TOKEN_OCTETS_MAX + 1)
    except OSError as error:
        raise TokenError(f"join token: {where}: {os.strerror(error.errno or 0)}") from None
    if len(content) > TOKEN_OCTETS_MAX:
        raise TokenError(f"join token: {where}: longer than {TOKEN_OCTETS_MAX} octets, so not a token")
    try:
        return JoinToken.parse(content.decode("ascii"))
    except UnicodeDecodeError:
        raise TokenError(f"join token: {where}: this is not a join token; {_NEW_TOKEN}") from None
    except TokenError as error:
        raise TokenError(f"join token: {where}: {error}") from None


async def join(
    config: Config,
    token: JoinToken,
    clock: Callable[[], float],
    *,
    node_key: ec.EllipticCurvePrivateKey | None = None,
    skew: ClockSkew | None = None,
    before_spending: Callable[[bytes], object] = lambda anchor: None,
) -> Joined:
    """One attempt. `before_spending` is given the pinned anchor just before the token is sent; if it raises, it is not.

    Raises ControlPlaneUnreachable (try again), or what is final: WrongPin, JoinRefused, BindingError, IssuedRefused,
    JoinError."""
    trust_domain = TrustDomain.parse(config.trust_domain)
    address = Address(config.control_plane.host, token.join_port)
    anchor = await _find_anchor(address, token.pin, config.timeouts.handshake_s)
    try:
        pinned = TrustBundle.of(trust_domain, [anchor])
        client_context(None, pinned)
    except (CertsError, ssl.SSLError) as error:
        raise WrongPin(f"the pinned certificate of {address} is no trust anchor of {trust_domain}: {error}") from error
    key = new_private_key()
    request = identity_pb2.JoinRequest(
        token_id=token.token_id,
        token_secret=token.secret,
        csr_der=make_csr(key, None),
        service=config.service,
        namespace=config.namespace,
    )
    if node_key is not None:
        request.node_key_der = public_der(node_key)
        request.node_signature = sign(node_key, JOIN, token.token_id.encode(), request.csr_der)
    asked_at = clock()

    async def ask(channel: Channel) -> identity_pb2.SvidResponse:
        nonlocal asked_at
        before_spending(anchor)
        asked_at = clock()
        return await channel.unary(JOIN_PATH, request, identity_pb2.SvidResponse, RPC_TIMEOUT_S)

    try:
        response, trusted = await ask_join_port(address, pinned, ask, clock, config.timeouts.handshake_s)
    except RpcError as error:
        raise _join_error(address, error) from error
    except TlsError as error:
        raise JoinError(f"{address} is not the control plane of {trust_domain}: {error}") from error
    return joined(config, response, key, trusted, asked_at=asked_at, now=clock(), skew=skew)


async def _find_anchor(address: Address, wanted: bytes, timeout_s: float) -> bytes:
    """The certificate with the hash `wanted` from the chain that `address` shows. Nothing is said to it."""
    try:
        with trio.fail_after(timeout_s):
            ssl_socket = await handshake(await dial(address), unverified_client_context(), server_side=False)
    except trio.TooSlowError:
        raise ControlPlaneUnreachable(f"{address} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise ControlPlaneUnreachable(f"{address}: {error.strerror or error}") from None
    except HandshakeFailed as error:
        raise ControlPlaneUnreachable(f"{address}: {error}") from None
    except TlsError as error:
        raise JoinError(f"{address}: {error}") from None
    with ssl_socket:
        for der in peer_chain(ssl_socket):
            if pin(der) == wanted:
                return der
    raise WrongPin(
        f"the control plane at {address} shows a trust anchor other than the one this token was made for; "
        "check the address, or make a new token at this control plane"
    )


def _join_error(address: Address, error: RpcError) -> JoinError:
    if error.status in _WORTH_ANOTHER_TRY:
        return ControlPlaneUnreachable(f"{address}: {error.message}")
    return JoinRefused(f"the control plane at {address} refused to let us join: {error.message}")


def _decode(text: str) -> bytes:
    """base64url without padding, in its only canonical spelling (RFC 4648 section 3.5)."""
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(octets).rstrip(b"=").decode() != text:
        raise TokenError(f"the join token is damaged; {_NEW_TOKEN}")
    return octets
