"""One control plane and a thousand sidecars: joining, issuing, pushing, and coming back after a restart.

`python -m benchmarks.fleet [--sidecars N] [--pushes N] [--restarts N] [--python PYTHON] [--out FILE]`

The control plane is the real one, in its own process. The sidecars are what a sidecar has towards its control plane,
over real sockets, all in one other process (`benchmarks.fleet_members`), so that a machine of two cores has one for
each. The control plane is run by the fastest CPython that is installed (`benchmarks.interpreter`). Measured:

    join     from the first token shown until the last sidecar holds a certificate, and its first snapshot; and what a
             certificate costs the control plane, in its own CPU time
    issue    certificates renewed as fast as some of the sidecars can ask; for each second of the control plane's CPU
             time, with what the resting fleet costs it meanwhile, and without
    push     from the call that applies a policy which concerns everybody until the last has it in force and said so
    restart  the control plane is killed and started again: from its start until the last sidecar watches it again

Jitter and back-off are those of real sidecars.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import account, interpreter
from benchmarks.ours import revision
from benchmarks.tools import ROOT
from control_plane.cli.client import Client
from protos.hauberk.v1 import admin_pb2, config_pb2
from tests.e2e.harness import NAMESPACE, Mesh, Process

SERVICES = 100
WAIT_S = 60.0
ISSUE_S = 10.0
REST_S = 10.0
"""The heartbeats of a thousand streams cost something too, and are not issuing."""
ISSUE_AT_ONCE = 64
TARGETS = {"restart_back_s": 60.0, "issued_per_cpu_s": 500.0, "push_s": 2.0}
LIMITS = {
    "join_rate_per_s": 10_000,
    "join_burst": 10_000,
    "renew_rate_per_s": 100_000,
    "renew_burst": 100_000,
}
"""All sidecars share one IP address here; what is measured is not the limit on one address."""

Json = dict[str, Any]


class FleetMesh(Mesh):
    """A mesh whose control plane is run by a certain interpreter."""

    def __init__(self, directory: Path, python: str) -> None:
        super().__init__(directory, limits=LIMITS)
        self._python = python

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Process:
        command = [self._python if word == sys.executable else word for word in command]
        return super().start(name, command, {"PYTHONPATH": str(ROOT), **(environ or {})})


class Members:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, command: Json) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Json:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the process of the sidecars has ended; its messages are above")
        answer: Json = json.loads(line)
        return answer

    def ask(self, command: Json) -> Json:
        self.tell(command)
        return self.hear()


@contextmanager
def members() -> Iterator[Members]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet_members"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Members(process)
    finally:
        process.terminate()
        process.wait()


class Bench:
    """The mesh while it is measured."""

    def __init__(self, mesh: Mesh, control_plane: Process, fleet: Members, count: int) -> None:
        self._mesh = mesh
        self._control_plane = control_plane
        self._fleet = fleet
        self._count = count

    def join(self) -> Json:
        with Client(self._mesh.data_dir / "operator.sock") as operator:
            plan = {
                "control_plane": f"127.0.0.1:{self._mesh.listen}",
                "members": [self._member(operator, number) for number in range(self._count)],
            }
        before = self._cpu_s()
        found = self._fleet.ask({"join": plan})
        cpu_s = self._cpu_s() - before
        return {**rounded(found), "control_plane_cpu_s": round(cpu_s, 2)}

    def issue(self) -> Json:
        resting = self._cpu_s()
        time.sleep(REST_S)
        before = self._cpu_s()
        share = (before - resting) / REST_S
        found = self._fleet.ask({"renew": ISSUE_S, "at_once": min(ISSUE_AT_ONCE, self._count)})
        cpu_s = self._cpu_s() - before
        return {
            "certificates": found["certificates"],
            "per_s": round(found["certificates"] / found["seconds"], 1),
            "per_cpu_s": round(found["certificates"] / cpu_s, 1),
            "resting_cpu_share": round(share, 3),
            "per_cpu_s_beside_the_resting_fleet": round(found["certificates"] / (cpu_s - share * found["seconds"]), 1),
        }

    def push(self, number: int) -> float:
        """Seconds until the last sidecar acknowledged."""
        action = "ALLOW" if number % 2 else "DENY"
        policy = {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "all", "namespace": NAMESPACE},
            "spec": {"action": action, "rules": [{"to": [{"operation": {"paths": [f"/{number}"]}}]}]},
        }
        request = config_pb2.ApplyRequest(
            files=[config_pb2.SourceFile(name="all.yaml", text=json.dumps(policy))],
            wait=True,
            wait_timeout_s=WAIT_S,
            skip_impact=True,
        )
        with Client(self._mesh.data_dir / "operator.sock") as operator:
            begun = time.perf_counter()
            answer = operator.call("Config/Apply", request, config_pb2.ApplyResponse, timeout_s=WAIT_S + 5)
            took_s = time.perf_counter() - begun
        told = len(answer.propagation.acknowledged)
        assert told == self._count, f"{told} of {self._count} sidecars acknowledged"
        return took_s

    def restart(self) -> Json:
        """The control plane is killed, as by an operator in a hurry, and started again."""
        self._fleet.tell({"lost": True})
        self._control_plane.kill()
        self._fleet.hear()
        begun = time.perf_counter()
        self._control_plane = self._mesh.start_control_plane()
        started_s = time.perf_counter() - begun
        before = self._cpu_s()
        found = self._fleet.ask({"back": True})
        back_s = time.perf_counter() - begun
        each = found["each_s"]
        return {
            "start_s": round(started_s, 2),
            "back_s": round(back_s, 2),
            "median_after_start_s": round(statistics.median(each), 2),
            "control_plane_cpu_share": round((self._cpu_s() - before) / found["back_s"], 2),
        }

    def memory_mb(self) -> float:
        return round(account.memory(self._control_plane.popen.pid).rss_octets / 1e6, 1)

    def _member(self, operator: Client, number: int) -> Json:
        service = f"service-{number % min(SERVICES, self._count)}"
        request = admin_pb2.CreateTokenRequest(service=service, namespace=NAMESPACE, ttl_s=3_600)
        path = self._mesh.directory / f"{number}.token"
        path.write_text(operator.call("Admin/CreateToken", request, admin_pb2.CreateTokenResponse).token)
        return {"service": service, "namespace": NAMESPACE, "join_token_file": str(path)}

    def _cpu_s(self) -> float:
        return account.cpu_s(self._control_plane.popen.pid)


def rounded(found: Json) -> Json:
    return {name: round(value, 3) for name, value in found.items()}


def spread(values: Sequence[float]) -> Json:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
        "count": len(values),
    }


def measure(count: int, pushes: int, restarts: int, python: str) -> Json:
    with (
        tempfile.TemporaryDirectory(prefix="fl") as directory,
        FleetMesh(Path(directory), python) as mesh,
        members() as fleet,
    ):
        bench = Bench(mesh, mesh.start_control_plane(), fleet, count)
        found: Json = {"join": told("join", bench.join())}
        found["issue"] = told("issue", bench.issue())
        found["push_s"] = told("push", spread([bench.push(number) for number in range(pushes)]))
        found["restarts"] = told("restarts", [bench.restart() for _ in range(restarts)])
        found["push_after_restart_s"] = told("push after restart", round(bench.push(pushes), 3))
        found["control_plane_rss_mb"] = told("memory", bench.memory_mb())
        return found


def told(what: str, found: Any) -> Any:
    sys.stderr.write(f"{what}: {json.dumps(found)}\n")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--sidecars", type=int, default=1_000)
    parser.add_argument("--pushes", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--python", default="fastest", help="`fastest`, the project's `own`, or a path")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "fleet.json")
    given = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each sidecar is a socket on both sides
    load = os.getloadavg()[0]
    python = interpreter.fastest() if given.python == "fastest" else given.python
    python = interpreter.equipped(sys.executable if python == "own" else python)
    result = {
        "sidecars": given.sidecars,
        "machine": {
            "cores": os.cpu_count(),
            "load_at_begin": round(load, 2),
            "python": interpreter.version_of(python),
            "python_of_the_sidecars": platform.python_version(),
        },
        "revision": revision(ROOT),
        "targets": TARGETS,
        **measure(given.sidecars, given.pushes, given.restarts, python),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
