"""The API of a control plane without its sockets: calls answer at once, and the clock moves when told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from certs import node_key
from certs.authority_id import key_id
from certs.csr import make_csr
from certs.svid import X509Svid, new_private_key
from control_plane.api.authz import Caller, Role
from control_plane.api.callers import LOCAL_OPERATOR, KnownCallers
from control_plane.app import housekeep, open_state
from control_plane.config import Limits
from control_plane.handlers import apis
from control_plane.model import Node
from protos.hauberk.v1 import admin_pb2, discovery_pb2
from protos.hauberk.v1 import identity_pb2 as pb
from tests.control_plane.support import Clock, config_in, join_request, svid_of

T = TypeVar("T")

STRANGER = Caller(role=Role.ANONYMOUS, name="anonymous", peer="192.0.2.1")


def answer(call: Coroutine[Any, Any, T]) -> T:
    """Of a handler that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    call.close()
    raise AssertionError("the handler waits for something")


@dataclass
class Sidecar:
    """What one holds: its node key, if it has one, and its newest certificate."""

    node: ec.EllipticCurvePrivateKey | None
    svid: X509Svid
    said: pb.SvidResponse = field(repr=False)


class Desk:
    """A control plane and who calls it."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, clock: Clock | None = None, **config: Any) -> None:
        """`clock`: of the control plane before, at a restart."""
        self.clock = clock or Clock()
        wide = Limits(join_burst=100_000, renew_burst=100_000)
        self.config = config_in(directory, **{"limits": wide} | config)
        self.state = open_state(self.config, stack, self.clock)
        self.apis = apis(self.state, self.config.limits, self.clock)
        self._known = KnownCallers(lambda: self.state.authority.bundle, self.state.revoked.current)

    def caller(self, svid: X509Svid) -> Caller:
        """As the server makes it of a connection. Raises Unauthenticated, PermissionDenied."""
        return self._known.of((svid.chain_pem(),), peer="192.0.2.7", now=self.clock())

    def token(self, service: str = "orders", namespace: str = "shop") -> str:
        request = admin_pb2.CreateTokenRequest(service=service, namespace=namespace, ttl_s=86_400)
        return answer(self.apis.admin.create_token(LOCAL_OPERATOR, request)).token

    def join(self, token: str = "", node: ec.EllipticCurvePrivateKey | None = None, service: str = "orders") -> Sidecar:
        key = new_private_key()
        said = answer(self.apis.identity.join(STRANGER, signed_join(token or self.token(service), key, node)))
        return Sidecar(node, svid_of(said, key), said)

    def renew(self, svid: X509Svid) -> X509Svid:
        key = new_private_key()
        request = pb.RenewRequest(csr_der=make_csr(key, None))
        return svid_of(answer(self.apis.identity.renew(self.caller(svid), request)), key)

    def confirm(self, svid: X509Svid) -> None:
        answer(self.apis.identity.confirm(self.caller(svid), pb.ConfirmRequest()))

    def watch(self, svid: X509Svid, instance: str = "a") -> Callable[[], None]:
        """Opens a stream; what ends it. Raises ControlPlaneError."""
        hello = discovery_pb2.Hello(instance=instance, clock=self.clock())
        stream = self.apis.discovery.open_stream(self.caller(svid), hello)
        return lambda: self.apis.discovery.close_stream(*stream)

    def jwt(self, svid: X509Svid, audience: str = "billing") -> pb.JwtSvidResponse:
        request = pb.JwtSvidRequest(audiences=[audience])
        return answer(self.apis.identity.issue_jwt_svid(self.caller(svid), request))

    def nonce(self) -> bytes:
        return answer(self.apis.identity.challenge(STRANGER, pb.ChallengeRequest())).nonce

    def rejoin(self, node: ec.EllipticCurvePrivateKey, **changes: Any) -> X509Svid:
        key = new_private_key()
        request = signed_rejoin(node, key, self.nonce())
        for name, value in changes.items():
            setattr(request, name, value)
        return svid_of(answer(self.apis.identity.rejoin(STRANGER, request)), key)

    def revoke(self, kind: str, value: str, reason: str = "") -> admin_pb2.RevokeResponse:
        request = admin_pb2.RevokeRequest(kind=kind, value=value, reason=reason)
        return answer(self.apis.revoke.revoke(LOCAL_OPERATOR, request))

    def reinstate(self, kind: str, value: str) -> bool:
        request = admin_pb2.ReinstateRequest(kind=kind, value=value)
        return answer(self.apis.revoke.reinstate(LOCAL_OPERATOR, request)).changed

    def revocations(self) -> list[admin_pb2.Revocation]:
        request = admin_pb2.ListRevocationsRequest()
        return list(answer(self.apis.revoke.list_revocations(LOCAL_OPERATOR, request)).revocations)

    def node_of(self, svid: X509Svid) -> Node:
        certificate = self.state.store.certificate(svid.serial)
        assert certificate is not None
        node = self.state.store.node(certificate.node_id)
        assert node is not None
        return node

    def passes(self, seconds: float) -> None:
        """Time goes by; what is due is done. The CA's roots and keys turn over on the way."""
        ends = self.clock.at + seconds
        while self.clock.at < ends:
            self.clock.at = min(ends, self.clock.at + 43_200)
            self.state.ticked_at = self.clock()  # with all the ticks between
            self.state.doubted_until = 0.0
            housekeep(self.state, self.clock())


def signed_join(token: str, key: ec.EllipticCurvePrivateKey, node: ec.EllipticCurvePrivateKey | None) -> pb.JoinRequest:
    request = join_request(token, make_csr(key, None))
    if node is not None:
        request.node_key_der = node_key.public_der(node)
        fresh = request.token_id.encode()
        request.node_signature = node_key.sign(node, node_key.JOIN, fresh, request.csr_der)
    return request


def signed_rejoin(node: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey, nonce: bytes) -> pb.RejoinRequest:
    csr_der = make_csr(key, None)
    return pb.RejoinRequest(
        node_id=node_id_of(node),
        nonce=nonce,
        csr_der=csr_der,
        node_signature=node_key.sign(node, node_key.REJOIN, nonce, csr_der),
    )


def node_id_of(node: ec.EllipticCurvePrivateKey) -> str:

    return key_id(node.public_key())


@contextlib.contextmanager
def opened(directory: Path, **config: Any) -> Iterator[Desk]:
    """A control plane under `directory`, closed at the end. What is there already is taken up."""
    with contextlib.ExitStack() as stack:
        yield Desk(directory, stack, **config)
