"""sidecar.identity.bootstrap against a real grpcio server on a real TLS port."""

from __future__ import annotations

import base64
import io
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import pin
from certs.csr import read_csr
from certs.node_key import check, load, public_der
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import new_private_key
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.errors import ConfigError
from sidecar.identity.bootstrap import JoinToken, join, read_token
from sidecar.identity.errors import (
    BindingError,
    ControlPlaneUnreachable,
    IssuedRefused,
    JoinError,
    JoinRefused,
    StateError,
    TokenError,
    WrongPin,
)
from tests.sidecar.control.grpc_peer import grpc_server
from tests.sidecar.mesh import ORDERS, WEB, Mesh
from tests.trio_support import trio_test

MESH = Mesh()
JOIN = "/hauberk.v1.Identity/Join"
SECRET = b"sixteen octets!!"
CONFIG = Config(service="web", namespace="shop", control_plane=Address("127.0.0.1", 1), source="web.yaml")

Answer = Callable[[identity_pb2.JoinRequest, grpc.ServicerContext], identity_pb2.SvidResponse]


def text_of(port: int = 15011, anchor: bytes = b"anchor", secret: bytes = SECRET) -> str:
    def b64(octets: bytes) -> str:
        return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

    return f"hauberk1.0123456789abcdef.{b64(secret)}.{b64(pin(anchor))}.{port}"


def token_for(port: int, mesh: Mesh = MESH) -> JoinToken:
    return JoinToken.parse(text_of(port, mesh.root.der))


def admit(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
    assert (request.token_id, request.token_secret) == ("0123456789abcdef", SECRET)
    return MESH.answer(request.csr_der)


# The token -------------------------------------------------------------------------------------------------------


def test_a_token_is_read() -> None:
    """All parts, with white space around it; the secret is not in its repr."""
    token = JoinToken.parse(f"  {text_of(15011)}\n")
    assert (token.token_id, token.secret, token.join_port) == ("0123456789abcdef", SECRET, 15011)
    assert token.pin == pin(b"anchor")
    assert "secret" not in repr(token)
    assert SECRET.decode() not in repr(token)


GOOD = text_of()
DAMAGED = {
    "empty": "",
    "another version": GOOD.replace("hauberk1", "hauberk2"),
    "upper case id": GOOD.replace("abcdef", "ABCDEF"),
    "short secret": GOOD.replace(GOOD.split(".")[2], GOOD.split(".")[2][:-1]),
    "padded secret": GOOD.replace(GOOD.split(".")[2], GOOD.split(".")[2] + "=="),
    "secret in two spellings": GOOD.replace(GOOD.split(".")[2], GOOD.split(".")[2][:-1] + "R"),
    "short pin": GOOD.replace(GOOD.split(".")[3], GOOD.split(".")[3][:-1]),
    "no port": GOOD.rpartition(".")[0],
    "port 0": GOOD.replace("15011", "0"),
    "port 65536": GOOD.replace("15011", "65536"),
    "port in other digits": GOOD.replace("15011", "\u0661\u0665"),
    "two lines": GOOD + "\n" + GOOD,
    "more at the end": GOOD + ".x",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_token_is_refused_without_being_shown(what: str) -> None:
    """G13: the error names no part of it."""
    with pytest.raises(TokenError) as caught:
        JoinToken.parse(DAMAGED[what])
    assert isinstance(caught.value, ConfigError)
    parts = GOOD.split(".")
    assert parts[2][:8] not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_a_token_error(text: str) -> None:
    """Nothing else is ever raised."""
    try:
        JoinToken.parse(text)
    except TokenError:
        pass


def test_a_token_is_read_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways in; both bounded."""
    file = tmp_path / "token"
    file.write_text(GOOD + "\n")
    assert read_token(str(file)).secret == SECRET
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert read_token("-").secret == SECRET


@pytest.mark.parametrize("content", [None, b"", b"x" * 100_000, b"\xff\xfe", b"hauberk1.nope"])
def test_a_file_without_a_token_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, huge or binary: the error says which file."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenError, match=str(file)):
        read_token(str(file))


# Joining ---------------------------------------------------------------------------------------------------------


@trio_test
async def test_joining_gives_an_identity() -> None:
    """The whole way: pin, second connection, CSR, answer."""
    with grpc_server(MESH, join={JOIN: admit}, require_client=False) as peer:
        joined = await join(CONFIG, token_for(peer.port), time.time)
    assert joined.svid.spiffe_id == WEB
    assert joined.bundle == MESH.bundle
    assert (joined.service, joined.namespace, joined.labels) == ("web", "shop", {"app": "web"})
    assert abs(joined.clock_skew_s) < 5
    assert "private" not in repr(joined)


@trio_test
async def test_every_join_makes_a_fresh_key() -> None:
    """Two joins, two keys."""
    keys = set()

    def note(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        keys.add(read_csr(request.csr_der).public_key.public_numbers())
        return MESH.answer(request.csr_der)

    with grpc_server(MESH, join={JOIN: note}, require_client=False) as peer:
        for _ in range(2):
            await join(CONFIG, token_for(peer.port), time.time)
    assert len(keys) == 2


@trio_test
async def test_g14_another_control_plane_is_told_nothing() -> None:
    """G14: a server without the pinned anchor never sees the token, whatever it calls itself."""
    asked = []

    def steal(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        asked.append(request)
        return MESH.answer(request.csr_der)

    with (
        grpc_server(Mesh(), join={JOIN: steal}, require_client=False) as peer,
        pytest.raises(WrongPin, match="trust anchor other than the one this token was made for"),
    ):
        await join(CONFIG, token_for(peer.port), time.time)
    assert not asked


@trio_test
async def test_g14_showing_the_pinned_anchor_is_not_enough() -> None:
    """G14: the anchor is public; a chain that merely ends with it is refused on the second connection."""
    asked = []

    def steal(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        asked.append(request)
        return MESH.answer(request.csr_der)

    mallory = Mesh()
    svid = mallory.svid(SpiffeId.for_control_plane(mallory.trust_domain))
    pretender = replace(svid, chain_der=(*svid.chain_der, MESH.root.der))
    with (
        grpc_server(mallory, join={JOIN: steal}, require_client=False, svid=pretender) as peer,
        pytest.raises(JoinError, match="is not the control plane"),
    ):
        await join(CONFIG, token_for(peer.port), time.time)
    assert not asked


@trio_test
async def test_g15_a_workload_of_the_mesh_is_not_the_control_plane() -> None:
    """G15: a certificate of the right anchor with another identity is told nothing either."""
    asked = []

    def steal(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        asked.append(request)
        return MESH.answer(request.csr_der)

    svid = MESH.svid(ORDERS, with_anchor=True)
    with (
        grpc_server(MESH, join={JOIN: steal}, require_client=False, svid=svid) as peer,
        pytest.raises(JoinError, match=str(ORDERS)),
    ):
        await join(CONFIG, token_for(peer.port), time.time)
    assert not asked


@trio_test
async def test_another_trust_domain_is_refused() -> None:
    """A token of another mesh with a configuration of this one: its anchor names itself."""
    other = Mesh(TrustDomain.parse("other.example"))
    svid = other.svid(SpiffeId.for_control_plane(other.trust_domain), with_anchor=True)
    with (
        grpc_server(other, join={JOIN: admit}, require_client=False, svid=svid) as peer,
        pytest.raises(WrongPin, match=r"mesh\.local"),
    ):
        await join(CONFIG, token_for(peer.port, other), time.time)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
@trio_test
async def test_a_refused_token_is_final(code: grpc.StatusCode) -> None:
    """Spent, expired, unknown: what the control plane said is passed on; nothing of the token is in it."""

    def refuse(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        context.abort(code, "this join token was already used")

    with (
        grpc_server(MESH, join={JOIN: refuse}, require_client=False) as peer,
        pytest.raises(JoinRefused, match="already used") as caught,
    ):
        await join(CONFIG, token_for(peer.port), time.time)
    assert SECRET.decode() not in str(caught.value)


WRONG: dict[str, dict[str, Any]] = {
    "no certificate": {"certificate_chain_der": []},
    "another key": {"certificate_chain_der": [MESH.svid(WEB).chain_der[0]]},
    "another CA": {"trust_anchors_der": [Mesh().root.der]},
    "no anchors": {"trust_anchors_der": []},
    "announced another": {"spiffe_id": str(ORDERS)},
    "a control plane's": {"identity": SpiffeId.for_control_plane(MESH.trust_domain)},
    "expired": {"lifetime_s": -10},
}


@pytest.mark.parametrize("what", WRONG)
@trio_test
async def test_a_wrong_answer_is_not_used(what: str) -> None:
    """Even from the right control plane."""

    def err(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        return MESH.answer(request.csr_der, **WRONG[what])

    with grpc_server(MESH, join={JOIN: err}, require_client=False) as peer, pytest.raises(IssuedRefused):
        await join(CONFIG, token_for(peer.port), time.time)


@pytest.mark.parametrize("wrong", [replace(CONFIG, service="orders"), replace(CONFIG, namespace="default")])
@trio_test
async def test_a_token_for_another_service_names_the_configuration(wrong: Config) -> None:
    """Design decision 14: who we are comes from the token; a configuration that says otherwise is a mistake to show."""
    with (
        grpc_server(MESH, join={JOIN: admit}, require_client=False) as peer,
        pytest.raises(BindingError, match=r"web\.yaml: service is .* made for web\.shop") as caught,
    ):
        await join(wrong, token_for(peer.port), time.time)
    assert isinstance(caught.value, ConfigError)


@trio_test
async def test_the_node_key_is_sent_with_its_signature() -> None:
    """Over the token's id and the request for the certificate, so that neither can be put beside another."""
    node_key = new_private_key()
    asked = []
    anchors: list[bytes] = []

    def note(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        asked.append(request)
        return MESH.answer(request.csr_der)

    with grpc_server(MESH, join={JOIN: note}, require_client=False) as peer:
        await join(CONFIG, token_for(peer.port), time.time, node_key=node_key, before_spending=anchors.append)
    (request,) = asked
    check(load(request.node_key_der), request.node_signature, "join", request.token_id.encode(), request.csr_der)
    assert request.node_key_der == public_der(node_key)
    assert anchors == [MESH.root.der]


@trio_test
async def test_a_token_is_not_spent_if_what_comes_before_fails() -> None:
    """A node key that cannot be kept must not be registered."""
    asked = []

    def note(request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        asked.append(request)
        return MESH.answer(request.csr_der)

    def fail(anchor: bytes) -> None:
        raise StateError("cannot be written")

    with (
        grpc_server(MESH, join={JOIN: note}, require_client=False) as peer,
        pytest.raises(StateError, match="cannot be written"),
    ):
        await join(CONFIG, token_for(peer.port), time.time, before_spending=fail)
    assert not asked


@trio_test
async def test_a_port_that_speaks_no_tls_is_unreachable() -> None:
    """Something else listens there; that may change, so it is worth another try."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        async def answer() -> None:
            await trio.lowlevel.wait_readable(listener)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(ControlPlaneUnreachable, match=str(port)):
                await join(CONFIG, token_for(port), time.time)


@trio_test
async def test_a_control_plane_that_hangs_is_unreachable_in_time() -> None:
    """The handshake timeout of the configuration bounds each connection."""
    config = replace(CONFIG, timeouts=replace(CONFIG.timeouts, handshake_s=0.05))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ControlPlaneUnreachable, match=r"0\.05 s"),
    ):
        await join(config, token_for(listener.getsockname()[1]), time.time)


@trio_test
async def test_joining_leaves_nothing_open() -> None:
    """Both connections are closed again, after success and after failure."""
    with grpc_server(MESH, join={JOIN: admit}, require_client=False) as peer:
        await join(CONFIG, token_for(peer.port), time.time)
        mine = sockets_to(peer.port)
        with pytest.raises(WrongPin):
            await join(CONFIG, token_for(peer.port, Mesh()), time.time)
        assert sockets_to(peer.port) == mine == 0


def sockets_to(port: int) -> int:
    """Connected sockets of this process whose other end is `port`; the server's own ends are not counted."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptor = os.dup(int(name))
        except OSError:
            continue
        try:
            with socket.socket(fileno=descriptor) as sock:
                count += sock.getpeername()[1] == port
        except (OSError, IndexError):
            continue
    return count
