"""sidecar.identity.join_port: anchors that changed since, followed by statements that prove themselves; no others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest

from certs.bundle import TrustBundle, pin
from certs.succession import Succession, succeed
from certs.svid import X509Svid
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.identity.bootstrap import JOIN_PATH, join
from sidecar.identity.errors import ControlPlaneUnreachable, IssuedRefused, JoinError, WrongPin
from sidecar.identity.join_port import ANCHORS_PATH
from sidecar.identity.rejoin import rejoin
from sidecar.identity.state import new_node
from tests.sidecar.control.grpc_peer import grpc_server
from tests.sidecar.identity.test_bootstrap import token_for
from tests.sidecar.mesh import CONTROL_PLANE, TD, WEB, Mesh
from tests.trio_support import trio_test

CONFIG = Config(service="web", namespace="shop", control_plane=Address("127.0.0.1", 1), source="web.yaml")
OLD, BETWEEN, NEW = Mesh(), Mesh(), Mesh()
FALSE = Mesh()


def statement(older: Mesh, newer: Mesh) -> Succession:
    return succeed(older.root.key, older.root.der, newer.root.der)


def forged() -> Succession:
    """Says that NEW took OLD's place, signed by somebody else."""
    return replace(statement(OLD, NEW), signature=statement(FALSE, NEW).signature)


class JoinPort:
    """Of a control plane under `mesh`, which shows the anchors `shown` behind its chain and tells `statements`."""

    def __init__(self, mesh: Mesh, shown: Sequence[Mesh], statements: Sequence[Succession]) -> None:
        self.mesh = mesh
        self.statements = statements
        self.anchors_sent = [mesh.root.der]
        self.held: list[bytes] = []
        self.anchors_status: grpc.StatusCode | None = None
        self.joins: list[identity_pb2.JoinRequest] = []
        made = mesh.svid(CONTROL_PLANE, with_anchor=True)
        extra = [one.root.der for one in shown if one is not mesh]
        self.svid: X509Svid = replace(made, chain_der=(*made.chain_der, *extra))

    def anchors(
        self, request: identity_pb2.AnchorsRequest, context: grpc.ServicerContext
    ) -> identity_pb2.AnchorsResponse:
        self.held = list(request.held_sha256)
        if self.anchors_status is not None:
            context.abort(self.anchors_status, "whoever says so")
        answer = identity_pb2.AnchorsResponse()
        for one in self.statements:
            answer.successions.add(
                predecessor_sha256=one.predecessor_sha256, successor_der=one.successor_der, signature=one.signature
            )
        return answer

    def join(self, request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        self.joins.append(request)
        return self.mesh.answer(request.csr_der, trust_anchors_der=self.anchors_sent)

    @property
    def calls(self) -> dict[str, tuple[Any, Callable[..., Any]]]:
        return {
            ANCHORS_PATH: (identity_pb2.AnchorsRequest, self.anchors),
            JOIN_PATH: (identity_pb2.JoinRequest, self.join),
        }


@trio_test
async def test_a_token_of_before_a_change_of_root_still_joins() -> None:
    """From the pinned anchor over the one between to the one in force; what is trusted then is today's bundle."""
    port = JoinPort(NEW, [NEW, OLD], [statement(OLD, BETWEEN), statement(BETWEEN, NEW)])
    with grpc_server(NEW, calls=port.calls, require_client=False, svid=port.svid) as peer:
        joined = await join(CONFIG, token_for(peer.port, OLD), time.time)
    assert joined.svid.spiffe_id == WEB
    assert joined.bundle == TrustBundle.of(TD, [NEW.root.der])
    assert port.held == [pin(OLD.root.der)]


@trio_test
async def test_statements_are_not_asked_for_without_need() -> None:
    """The pinned anchor is in force: two connections, one call."""
    port = JoinPort(OLD, [OLD], [])
    with grpc_server(OLD, calls=port.calls, require_client=False, svid=port.svid) as peer:
        await join(CONFIG, token_for(peer.port, OLD), time.time)
    assert not port.held
    assert len(port.joins) == 1


NO_PROOF: dict[str, Callable[[], list[Succession]]] = {
    "no statement": list,
    "signed by somebody else": lambda: [forged()],
    "of an anchor nobody knows": lambda: [statement(FALSE, NEW)],
    "in the wrong order": lambda: [statement(BETWEEN, NEW), statement(OLD, BETWEEN)],
    "to another anchor": lambda: [statement(OLD, BETWEEN)],
}


@pytest.mark.parametrize("what", NO_PROOF)
@trio_test
async def test_g14_a_server_with_a_false_succession_is_told_nothing(what: str) -> None:
    """G14: it shows the pinned anchor, which is public, and statements that prove nothing about its own."""
    port = JoinPort(NEW, [NEW, OLD], NO_PROOF[what]())
    with (
        grpc_server(NEW, calls=port.calls, require_client=False, svid=port.svid) as peer,
        pytest.raises(JoinError, match="is not the control plane"),
    ):
        await join(CONFIG, token_for(peer.port, OLD), time.time)
    assert not port.joins


@pytest.mark.parametrize("status", [one for one in grpc.StatusCode if one is not grpc.StatusCode.OK])
@trio_test
async def test_g14_who_is_not_known_cannot_refuse_us(status: grpc.StatusCode) -> None:
    """G14: whoever stands in between answers the one question that is asked of strangers, with a refusal. It is no
    word of the control plane's: the token is not taken for spent, nor the node for one that is not taken back."""
    port = JoinPort(FALSE, [FALSE, OLD], [])
    port.anchors_status = status
    unknown = status in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT)
    with grpc_server(FALSE, calls=port.calls, require_client=False, svid=port.svid) as peer:
        with pytest.raises(JoinError) as of_join:
            await join(CONFIG, token_for(peer.port, OLD), time.time)
        node = replace(new_node(peer.port, (OLD.root.der,)), spiffe_id=WEB)
        with pytest.raises(JoinError) as of_rejoin:
            await rejoin(CONFIG, node, time.time)
    expected = (JoinError, WrongPin) if unknown else (ControlPlaneUnreachable, ControlPlaneUnreachable)
    assert (type(of_join.value), type(of_rejoin.value)) == expected
    assert not port.joins


@trio_test
async def test_a_bundle_that_nothing_led_to_is_refused() -> None:
    """It was known by one anchor and sends others."""
    port = JoinPort(NEW, [NEW, OLD], [statement(OLD, NEW)])
    with grpc_server(NEW, calls=port.calls, require_client=False, svid=port.svid) as peer:
        port.mesh, port.anchors_sent = FALSE, [FALSE.root.der]
        with pytest.raises(IssuedRefused, match="without the anchor"):
            await join(CONFIG, token_for(peer.port, OLD), time.time)
