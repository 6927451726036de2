"""sidecar.membership: every way in, and what is kept on the way, against a real grpcio server on a real TLS port."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from certs.node_key import public_der
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Address, Config
from sidecar.identity.bootstrap import JOIN_PATH
from sidecar.identity.errors import JoinRefused, StateError, TokenError, WrongPin
from sidecar.identity.source import IdentitySource
from sidecar.identity.state import StateDir, new_node
from sidecar.membership import Membership
from tests.sidecar.control.grpc_peer import Peer, grpc_server
from tests.sidecar.identity.test_bootstrap import text_of
from tests.sidecar.identity.test_rejoin import Desk
from tests.sidecar.mesh import WEB, Mesh
from tests.trio_support import trio_test

MESH = Mesh()
DENIED = grpc.StatusCode.PERMISSION_DENIED


class Office(Desk):
    """A control plane's join port: it spends tokens and knows node keys."""

    def __init__(self, mesh: Mesh = MESH) -> None:
        super().__init__(mesh)
        self.joins: list[identity_pb2.JoinRequest] = []
        self.used: set[str] = set()
        self.known: set[bytes] = set()
        self.loses_answers = False

    def join(self, request: identity_pb2.JoinRequest, context: grpc.ServicerContext) -> identity_pb2.SvidResponse:
        self.joins.append(request)
        if request.token_id in self.used:
            context.abort(DENIED, "this join token was already used")
        self.used.add(request.token_id)
        self.known.add(request.node_key_der)
        if self.loses_answers:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        return self.mesh.answer(request.csr_der)

    @property
    def calls(self) -> dict[str, tuple[Any, Callable[..., Any]]]:
        return {**super().calls, JOIN_PATH: (identity_pb2.JoinRequest, self.join)}


@contextmanager
def office(port: int = 0) -> Iterator[tuple[Office, Peer]]:
    desk = Office()
    with grpc_server(MESH, calls=desk.calls, require_client=False, port=port) as peer:
        yield desk, peer


@contextmanager
def membership(port: int, token: Path | None = None, **more: Any) -> Iterator[tuple[Membership, IdentitySource]]:
    config = Config(
        service="web",
        namespace="shop",
        control_plane=Address("127.0.0.1", 1),
        join_token_file=str(token or ""),
        source="web.yaml",
        **more,
    )
    source = IdentitySource()
    one = Membership(config, source, clock=time.time, rng=random.Random(1))
    try:
        yield one, source
    finally:
        one.close()


def token_file(directory: Path, port: int, token_id: str = "0123456789abcdef") -> Path:
    path = directory / f"{token_id}.token"
    path.write_text(text_of(port, MESH.root.der).replace("0123456789abcdef", token_id))
    return path


@trio_test
async def test_a_token_is_needed_once_and_then_the_node_key_does(tmp_path: Path) -> None:
    """The first start joins and keeps the key; the second comes back with it, and looks at no token."""
    state_dir = str(tmp_path / "state")
    with office() as (desk, peer):
        with membership(peer.port, token_file(tmp_path, peer.port), state_dir=state_dir) as (one, source):
            await one.enter()
            assert source.svid is not None
            first = source.svid
        with membership(peer.port, tmp_path / "gone", state_dir=state_dir) as (one, source):
            await one.enter()
            assert source.svid is not None
            assert source.svid.spiffe_id == first.spiffe_id == WEB
            assert source.svid.chain_der != first.chain_der
            assert one.missing() == []
            assert one.status()["node_expires_at"] == 4e9
    assert len(desk.joins) == 1
    assert len(desk.asked) == 1


def test_without_token_and_state_the_start_is_refused(tmp_path: Path) -> None:
    """Also with a directory that is empty, which then belongs to nobody."""
    for state_dir in ("", str(tmp_path / "state")):
        with pytest.raises(TokenError, match="no join token"), membership(1, state_dir=state_dir):
            pass
    StateDir(str(tmp_path / "state")).close()


@trio_test
async def test_r01_an_absent_control_plane_is_tried_again_until_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R01: started before its control plane; each failure is said with the delay, then it is in."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    def failures() -> list[Any]:
        return [one for one in caplog.records if one.getMessage().startswith("cannot reach the control plane")]

    with membership(port, token_file(tmp_path, port)) as (one, source):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.enter)
            while len(failures()) < 2:
                await trio.sleep(0.01)
            assert one.missing() == ["certificate"]
            with office(port):
                await source.wait_ready()
    delays = [record.retry_in_s for record in failures()]
    assert 0.09 <= delays[0] <= 0.11
    assert 0.18 <= delays[1] <= 0.22


@trio_test
async def test_an_answer_that_was_lost_costs_no_token(tmp_path: Path) -> None:
    """The token was spent and nobody heard of it: the node key that went with it says so."""
    with office() as (desk, peer), membership(peer.port, token_file(tmp_path, peer.port)) as (one, source):
        desk.loses_answers = True
        await one.enter()
        assert source.is_ready
        assert len(desk.joins) == 2
        assert len(desk.known) == 1, "the same node key, else nobody could tell"
        assert len(desk.asked) == 1


@trio_test
async def test_killed_between_spending_the_token_and_hearing_the_answer_it_comes_back(tmp_path: Path) -> None:
    """The key is on the disk before the token is on the wire; with or without the token that was spent."""
    with office() as (desk, peer):
        for number, has_token in enumerate((True, False)):
            path = str(tmp_path / f"state{number}")
            token = token_file(tmp_path, peer.port)
            desk.used.add("0123456789abcdef")
            state = StateDir(path)
            config = Config(service="web", namespace="shop")
            node = new_node(peer.port, (MESH.root.der,))
            state.save_key(node)
            state.save(config, node)
            state.close()
            with membership(peer.port, token if has_token else tmp_path / "gone", state_dir=path) as (one, source):
                await one.enter()
                assert source.is_ready
        assert len(desk.asked) == 2
        assert public_der(node.key) not in desk.known, "it was the node key that brought it in"


@trio_test
async def test_a_token_is_not_spent_when_the_key_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R31: the disk is full at the first start."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with office() as (desk, peer):
        path = token_file(tmp_path, peer.port)
        with membership(peer.port, path, state_dir=str(tmp_path / "state")) as (one, _):
            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(StateError, match="cannot be written: No space left"):
                await one.enter()
    assert not desk.joins


@trio_test
async def test_a_refused_node_joins_anew_if_there_is_a_token_and_else_says_the_way_out(tmp_path: Path) -> None:
    """The control plane forgot the node: a token given as well is used then, with another node key; one that was
    used before is not tried again."""
    state_dir = str(tmp_path / "state")
    with office() as (desk, peer):
        first, second = (token_file(tmp_path, peer.port, f"{n}" * 16) for n in (1, 2))
        with membership(peer.port, first, state_dir=state_dir) as (one, source):
            await one.enter()
        desk.status = DENIED
        with (
            membership(peer.port, tmp_path / "gone", state_dir=state_dir) as (one, source),
            pytest.raises(JoinRefused, match="make a new join token with `hauberk token create`"),
        ):
            await one.enter()
        with membership(peer.port, second, state_dir=state_dir) as (one, source):
            await one.enter()
            assert source.is_ready
            with pytest.raises(JoinRefused):
                await one._rejoin()
            assert len(desk.joins) == 2
            second.write_text(text_of(peer.port, MESH.root.der))
            await one._rejoin()
    assert [request.token_id for request in desk.joins] == ["1" * 16, "2" * 16, "0123456789abcdef"]
    assert len(desk.known) == 3


@trio_test
async def test_another_control_plane_in_its_place_is_told_nothing(tmp_path: Path) -> None:
    """The state's anchors say who it must be."""
    state_dir = str(tmp_path / "state")
    with office() as (_, peer), membership(peer.port, token_file(tmp_path, peer.port), state_dir=state_dir) as (one, _):
        await one.enter()
        port = peer.port
    impostor = Office(Mesh())
    with (
        grpc_server(impostor.mesh, calls=impostor.calls, require_client=False, port=port),
        membership(port, tmp_path / "gone", state_dir=state_dir) as (one, _),
        pytest.raises(WrongPin, match="nor by one they vouch for"),
    ):
        await one.enter()
    assert not impostor.asked


@trio_test
async def test_a_cache_is_kept_and_taken_only_if_it_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """R02: with it the certificate of before, without asking anybody; without it none of that is written or read."""
    state_dir = str(tmp_path / "state")
    with (
        office() as (_, peer),
        membership(peer.port, token_file(tmp_path, peer.port), state_dir=state_dir, cache=True) as (one, source),
    ):
        await one.enter()
        held = source.svid
    assert (tmp_path / "state" / "cache").stat().st_mode & 0o777 == 0o600
    with membership(1, tmp_path / "gone", state_dir=state_dir, cache=True) as (one, source):
        await one.enter()
        assert source.svid == held
        assert not one.is_stale, "the certificate is as good as it was; the policy is another matter"
    (tmp_path / "state" / "cache").chmod(0o644)
    caplog.set_level(logging.WARNING)
    with membership(1, tmp_path / "gone", state_dir=state_dir, cache=True) as (one, source):
        with trio.move_on_after(0.2):
            await one.enter()
        assert source.svid is None
    assert "mode is 0644" in str([getattr(record, "error", "") for record in caplog.records])
