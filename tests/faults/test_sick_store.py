"""The control plane's store is slow for 5 s a write, locked, read-only or gone, beside a mesh with load (R25).

A write that waits for the disk holds the control plane's event loop. gRPC answers PINGs from a thread of its own, so
sidecars keep their streams meanwhile, however many writers wait in a row.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from control_plane.audit.verify import files_of, store_facts, verify
from protos.hauberk.v1 import admin_pb2
from tests.e2e.clients import load
from tests.e2e.harness import ALLOW_ALL, NAMESPACE, WEB_APP, Inbound, Mesh, eventually
from tests.faults.environment import Disk

LIFETIME_S = 60
"""Half of it is over while the writers wait, so a renewal is due then; the end is not."""
WRITERS = 8
SLOW_S = 5.0
"""Of one write."""
PATIENCE_S = 30.0
"""Of a sidecar whose control plane says nothing: a PING after 10 s, 20 s for its answer."""
ANSWERED_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one writer heard."""

    service: str
    status: str
    text: str


@pytest.mark.slow
@pytest.mark.parametrize("how", ["slow", "locked", "read-only", "gone"])
def test_r25_no_request_fails_while_the_store_is_sick(how: str, tmp_path: Path) -> None:
    """Nor does a Watch stream. Who writes is told UNAVAILABLE, or yes when it is durable, however late; and after a
    restart that is what there is."""
    disk = Disk(tmp_path)
    with Mesh(tmp_path, certificate_lifetime_s=LIFETIME_S) as mesh:
        control_plane = mesh.start_control_plane(disk.environ)
        mesh.apply(ALLOW_ALL)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], access_log="denied")
        web = mesh.sidecar("web", calls={"orders": 8080}, access_log="denied")
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        with load(web.ports["orders"], pause_s=0.02) as seen:
            eventually(lambda: seen.answered > 50, 20, "load flows")
            with sick(how, mesh, disk):
                began = time.monotonic()
                answers = written_at_once(mesh)
                took_s = time.monotonic() - began
                mesh.operator("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)
            for member in (orders, web):
                assert member.is_ready
                assert member.is_connected
                assert "reconnecting to the control plane" not in member.process.log
            check_answers(how, answers, took_s)
            control_plane.kill()
            disk.set()
            check_durable(mesh, answers)
            mesh.start_control_plane(disk.environ)
            for member in (orders, web):
                before = member.status["renewals"]
                eventually(lambda: member.is_connected, 30, "it is back")  # noqa: B023
                eventually(lambda: member.status["renewals"] > before, LIFETIME_S, "it is renewed")  # noqa: B023
            assert seen.failed == 0, (seen.counted, seen.failures)


def check_answers(how: str, answers: list[Answer], took_s: float) -> None:
    """gRPC itself cancels a call that was handed to nobody for 30 s; everybody else is answered."""
    told = {one.status for one in answers}
    if how == "slow":
        assert {"OK"} <= told <= {"OK", "CANCELLED"}, answers
        assert took_s > PATIENCE_S, "the loop was away for longer than sidecars wait for a sign of life"
    else:
        assert told == {"UNAVAILABLE"}, answers
        assert all("nothing was changed" in one.text for one in answers)
    if how == "locked":
        assert SLOW_S * 0.9 < took_s < WRITERS * SLOW_S, "one waits for the rest of them"


@contextlib.contextmanager
def sick(how: str, mesh: Mesh, disk: Disk) -> Iterator[None]:
    """The store of the control plane is. "read-only" ends with the process."""
    path = mesh.data_dir / "hauberk.db"
    if how == "gone":
        aside = path.rename(path.with_name("aside"))
        yield
        aside.rename(path)
    elif how == "locked":
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as somebody_else:
            somebody_else.execute("BEGIN IMMEDIATE")
            yield
            somebody_else.execute("ROLLBACK")
    else:
        disk.set(fsync_s=SLOW_S if how == "slow" else 0, read_only=how == "read-only")
        if how == "read-only":
            eventually(lambda: write(mesh, "probe").status != "OK", 10, "the disk is read-only")
        yield
        disk.set()


def written_at_once(mesh: Mesh) -> list[Answer]:
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(lambda number: write(mesh, f"writer-{number}"), range(WRITERS)))


def write(mesh: Mesh, service: str) -> Answer:
    """A join token for it is made, or is not."""
    request = admin_pb2.CreateTokenRequest(service=service, namespace=NAMESPACE, ttl_s=600)
    with grpc.insecure_channel(f"unix:{mesh.data_dir / 'operator.sock'}") as channel:
        call = channel.unary_unary(
            "/hauberk.v1.Admin/CreateToken",
            request_serializer=admin_pb2.CreateTokenRequest.SerializeToString,
            response_deserializer=admin_pb2.CreateTokenResponse.FromString,
        )
        try:
            token = call(request, timeout=ANSWERED_S).token
        except grpc.RpcError as error:
            return Answer(service=service, status=error.code().name, text=error.details() or "")
    return Answer(service=service, status="OK", text=token.split(".")[1])


def check_durable(mesh: Mesh, answers: list[Answer]) -> None:
    """What was acknowledged is in the store, what was refused is not, and the audit file agrees with the store."""
    with contextlib.closing(sqlite3.connect(mesh.data_dir / "hauberk.db")) as store:
        held = set(store.execute("SELECT token_id, service FROM join_token WHERE service LIKE 'writer-%'"))
    assert held == {(one.text, one.service) for one in answers if one.status == "OK"}
    facts = store_facts(mesh.data_dir)
    report = verify(files_of(mesh.data_dir), key=facts.public_key, stored=facts.head)
    assert report.problem is None
