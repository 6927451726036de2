"""sidecar.identity.rejoin: the node key against a fresh nonce, with a control plane that is known first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from certs.csr import read_csr
from certs.errors import InvalidCsr
from certs.node_key import REJOIN, check
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.identity.errors import (
    BindingError,
    ControlPlaneUnreachable,
    IdentityError,
    IssuedRefused,
    JoinRefused,
    WrongPin,
)
from sidecar.identity.join_port import ANCHORS_PATH
from sidecar.identity.rejoin import CHALLENGE_PATH, REJOIN_PATH, rejoin
from sidecar.identity.skew import ClockSkew
from sidecar.identity.state import Node, new_node
from tests.sidecar.control.grpc_peer import grpc_server
from tests.sidecar.identity.test_join_port import JoinPort, forged, statement
from tests.sidecar.mesh import CONTROL_PLANE, ORDERS, WEB, Mesh
from tests.trio_support import trio_test

MESH = Mesh()
CONFIG = Config(service="web", namespace="shop", control_plane=Address("127.0.0.1", 1), source="web.yaml")
NONCE = b"thirty-two octets, and not again"


class Desk:
    """Challenge and Rejoin, played by the test."""

    def __init__(self, mesh: Mesh = MESH) -> None:
        self.mesh = mesh
        self.nonce = NONCE
        self.status: grpc.StatusCode | None = None
        self.replaced: dict[str, Any] = {}
        self.asked: list[identity_pb2.RejoinRequest] = []

    def challenge(
        self, request: identity_pb2.ChallengeRequest, context: grpc.ServicerContext
    ) -> identity_pb2.ChallengeResponse:
        return identity_pb2.ChallengeResponse(nonce=self.nonce)

    def rejoin(self, request: identity_pb2.RejoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        self.asked.append(request)
        if self.status is not None:
            context.abort(self.status, "said the test")
        return self.mesh.answer(request.csr_der, node_expires_at=4e9, **self.replaced)

    @property
    def calls(self) -> dict[str, tuple[Any, Callable[..., Any]]]:
        return {
            CHALLENGE_PATH: (identity_pb2.ChallengeRequest, self.challenge),
            REJOIN_PATH: (identity_pb2.RejoinRequest, self.rejoin),
        }


def node_for(port: int, mesh: Mesh = MESH) -> Node:
    return replace(new_node(port, (mesh.root.der,)), spiffe_id=WEB)


@trio_test
async def test_the_node_key_brings_a_new_certificate() -> None:
    """The nonce and the request for a fresh key are signed by the node key, and by nothing else."""
    desk, skew = Desk(), ClockSkew()
    with grpc_server(MESH, calls=desk.calls, require_client=False) as peer:
        node = node_for(peer.port)
        found = await rejoin(CONFIG, node, time.time, skew=skew)
    (request,) = desk.asked
    assert found.svid.spiffe_id == WEB
    assert found.node_expires_at == 4e9
    assert request.node_id == node.node_id
    assert request.nonce == NONCE
    check(node.key.public_key(), request.node_signature, REJOIN, NONCE, request.csr_der)
    with pytest.raises(InvalidCsr):
        check(node.key.public_key(), request.node_signature, REJOIN, NONCE[::-1], request.csr_der)
    assert read_csr(request.csr_der).public_key.public_numbers() != node.key.public_key().public_numbers()
    assert skew.skew_s is not None
    assert abs(skew.skew_s) < 5


@trio_test
async def test_a_change_of_root_that_was_slept_through_is_followed() -> None:
    """From the anchor held to today's."""
    new = Mesh()
    desk, port = Desk(new), JoinPort(new, [new], [statement(MESH, new)])
    calls = {**desk.calls, ANCHORS_PATH: port.calls[ANCHORS_PATH]}
    with grpc_server(new, calls=calls, require_client=False) as peer:
        found = await rejoin(CONFIG, node_for(peer.port), time.time)
    assert found.bundle == new.bundle


@trio_test
async def test_a_control_plane_of_another_root_that_nobody_vouches_for_is_told_nothing() -> None:
    """Final until somebody acts: said with both ways out."""
    new = Mesh()
    desk, port = Desk(new), JoinPort(new, [new], [forged()])
    calls = {**desk.calls, ANCHORS_PATH: port.calls[ANCHORS_PATH]}
    with (
        grpc_server(new, calls=calls, require_client=False) as peer,
        pytest.raises(WrongPin, match=r"check the address, or make a new join token"),
    ):
        await rejoin(CONFIG, node_for(peer.port), time.time)
    assert not desk.asked


@trio_test
async def test_g15_a_workload_of_the_mesh_is_not_the_control_plane() -> None:
    """G15: the right root, another identity."""
    desk = Desk()
    with (
        grpc_server(MESH, calls=desk.calls, require_client=False, svid=MESH.svid(ORDERS)) as peer,
        pytest.raises(WrongPin, match=str(CONTROL_PLANE)),
    ):
        await rejoin(CONFIG, node_for(peer.port), time.time)
    assert not desk.asked


REFUSALS = {
    grpc.StatusCode.PERMISSION_DENIED: JoinRefused,
    grpc.StatusCode.UNAUTHENTICATED: JoinRefused,
    grpc.StatusCode.NOT_FOUND: JoinRefused,
    grpc.StatusCode.UNIMPLEMENTED: JoinRefused,
    grpc.StatusCode.INVALID_ARGUMENT: ControlPlaneUnreachable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ControlPlaneUnreachable,
    grpc.StatusCode.UNAVAILABLE: ControlPlaneUnreachable,
    grpc.StatusCode.INTERNAL: ControlPlaneUnreachable,
}


@pytest.mark.parametrize("status", REFUSALS)
@trio_test
async def test_what_is_final_and_what_may_pass(status: grpc.StatusCode) -> None:
    """A refusal of the node is final and says the way out; a nonce of before a restart, a limit, a fault are not."""
    desk = Desk()
    desk.status = status
    with (
        grpc_server(MESH, calls=desk.calls, require_client=False) as peer,
        pytest.raises(REFUSALS[status], match="said the test") as caught,
    ):
        await rejoin(CONFIG, node_for(peer.port), time.time)
    assert ("hauberk token create" in str(caught.value)) is (REFUSALS[status] is JoinRefused)


@trio_test
async def test_nobody_there_is_no_refusal() -> None:
    """Try again."""
    with grpc_server(MESH, require_client=False) as peer:
        port = peer.port
    with pytest.raises(ControlPlaneUnreachable):
        await rejoin(CONFIG, node_for(port), time.time)


WRONG: dict[str, tuple[dict[str, Any], type[IdentityError]]] = {
    "another identity": ({"identity": ORDERS}, BindingError),
    "another service account": ({"spiffe_id": str(ORDERS)}, IssuedRefused),
    "foreign anchors": ({"trust_anchors_der": [Mesh().root.der]}, IssuedRefused),
    "ended already": ({"lifetime_s": -10}, IssuedRefused),
}


@pytest.mark.parametrize("what", WRONG)
@trio_test
async def test_a_wrong_answer_is_not_taken(what: str) -> None:
    """Judged like a stranger's certificate."""
    desk = Desk()
    desk.replaced, error = WRONG[what]
    with grpc_server(MESH, calls=desk.calls, require_client=False) as peer, pytest.raises(error):
        await rejoin(CONFIG, node_for(peer.port), time.time)


@pytest.mark.parametrize("nonce", [b"", b"short", b"x" * 65])
@trio_test
async def test_a_nonce_that_is_none_is_not_signed(nonce: bytes) -> None:
    """What is signed must be good once."""
    desk = Desk()
    desk.nonce = nonce
    with grpc_server(MESH, calls=desk.calls, require_client=False) as peer, pytest.raises(IssuedRefused, match="nonce"):
        await rejoin(CONFIG, node_for(peer.port), time.time)
    assert not desk.asked
