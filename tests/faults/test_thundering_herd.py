"""Two hundred members of a mesh lose their control plane in one moment, and come back one after the other (R29).

The members are those of `benchmarks.fleet`, which does the same with a thousand.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks.account import cpu_s
from benchmarks.fleet_members import Fleet
from protos.hauberk.v1 import admin_pb2
from tests.e2e.harness import ALLOW_ALL, Mesh, Process
from tests.trio_support import trio_test

MEMBERS = 200
BACK_S = 60.0
AWAY_S = 8.0
"""So long that everybody has backed off to the longest delay, 5 s: 0.1 + 0.2 + ... + 3.2 s are 6.3 s."""
AT_ONCE_MAX = MEMBERS // 5
"""Of them within any tenth of a second."""
CPU_MAX = 0.8
"""Of one core, from when it listens until everybody is back."""


def plan(mesh: Mesh) -> dict[str, Any]:
    def member(number: int) -> dict[str, object]:
        service = f"service-{number}"
        return {"service": service, "namespace": "shop", "join_token_file": str(mesh.token(service))}

    return {"control_plane": f"127.0.0.1:{mesh.listen}", "members": [member(number) for number in range(MEMBERS)]}


def first_calls(records: list[logging.LogRecord], since: float) -> list[float]:
    """When members planned to call next, of those who planned it before `since` and for after it; Unix seconds.

    Not when they were noticed to be back: the two processes of this test may be kept waiting for a CPU."""
    planned = [
        (one.created, one.created + one.__dict__["retry_in_s"])
        for one in records
        if one.getMessage() == "reconnecting to the control plane"
    ]
    return [due for made, due in planned if made < since <= due]


def most_within(times: list[float], span_s: float) -> int:
    """The largest number of `times` within one span."""
    return max(sum(begin <= one < begin + span_s for one in times) for begin in times)


@dataclass(slots=True)
class Return:
    """Of the control plane; times are monotonic."""

    process: Process | None = None
    listening_at: float = 0.0
    listening_unix: float = 0.0
    cpu_before_s: float = 0.0

    async def start(self, mesh: Mesh) -> None:
        self.process = await trio.to_thread.run_sync(mesh.start_control_plane)
        self.listening_unix = time.time()
        self.listening_at, self.cpu_before_s = time.monotonic(), cpu_s(self.process.popen.pid)

    def cpu_share(self) -> float:
        """Of one core, until now."""
        assert self.process is not None
        return (cpu_s(self.process.popen.pid) - self.cpu_before_s) / (time.monotonic() - self.listening_at)


@pytest.mark.slow
@trio_test(timeout_s=110)
async def test_r29_a_herd_comes_back_spread_and_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All are back within 60 s of its start, no tenth of a second is when a fifth of them call, the control plane has
    a fifth of a core to spare, and each member has what was changed in the first moments after the restart."""
    with Mesh(tmp_path, limits={"join_rate_per_s": 1_000, "join_burst": 1_000}) as mesh:
        control_plane = await trio.to_thread.run_sync(mesh.start_control_plane)
        members = await trio.to_thread.run_sync(plan, mesh)
        async with trio.open_nursery() as nursery:
            fleet = Fleet(nursery)
            await fleet.join(members)
            control_plane.kill()
            await fleet.lost()
            await trio.sleep(AWAY_S)
            again = Return()
            nursery.start_soon(again.start, mesh)
            began = time.monotonic()
            await fleet.back()
            cpu = again.cpu_share()
            assert time.monotonic() - began <= BACK_S
            calls = first_calls(caplog.records, again.listening_unix)
            assert len(calls) > MEMBERS / 2
            assert most_within(calls, 0.1) <= AT_ONCE_MAX, sorted(calls)
            assert cpu <= CPU_MAX
            await trio.to_thread.run_sync(mesh.apply, ALLOW_ALL)
            status = await trio.to_thread.run_sync(
                mesh.operator, "Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse
            )
            assert sum(one.connected for one in status.workloads) == MEMBERS
            assert {one.acknowledged_version for one in status.workloads} == {status.version}
            nursery.cancel_scope.cancel()
