"""How long a change of policy takes to reach every sidecar, and an open stream to end that lost its right.

`python -m benchmarks.policy_propagation [--sidecars N] [--rounds N] [--out FILE]`

A control plane and N sidecars run as they do in a mesh, each in its own process, on this machine. A policy that every
sidecar needs is changed back and forth by the call that `hauberk apply --wait` makes. Measured from the call, in ms:

    acknowledged   until it returns: every sidecar has the change in force and said so
    enforced       until new requests, through the caller's sidecar, are answered by it at SAMPLED of the services
    reset          until a response that was being streamed to a caller who lost the right has ended

`acknowledged` and `enforced` are also given with the search for who gains and who loses before storing.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.ours import revision
from benchmarks.tools import ROOT
from control_plane.cli.client import Client
from protos.hauberk.v1 import admin_pb2, config_pb2
from tests.e2e.harness import NAMESPACE, Inbound, Member, Mesh, eventually

SAMPLED = 4
WARM_UP = 5
STREAM_ROUNDS = 20
PORT = 8080
POLL_S = 0.002
WAIT_S = 30.0
START_AT_ONCE = 5
TARGET_MS = 250.0
RESET_TARGET_MS = 1_000.0


class App(http.server.BaseHTTPRequestHandler):
    """Answers every service's requests; `/stream` never ends by itself."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/stream":
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"1\r\n.\r\n")
                time.sleep(0.05)
        except OSError:
            pass  # the sidecar has ended it

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def app() -> Iterator[int]:
    """Its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def policy(caller: str) -> str:
    """Needed by every sidecar of the namespace; JSON is YAML."""
    principal = f"mesh.local/ns/{NAMESPACE}/sa/{caller}"
    return json.dumps(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "all", "namespace": NAMESPACE},
            "spec": {"action": "ALLOW", "rules": [{"from": [{"source": {"principals": [principal]}}]}]},
        }
    )


class Bench:
    """A mesh that runs."""

    def __init__(self, mesh: Mesh, operator: Client, caller: Member, services: Sequence[str]) -> None:
        self._mesh = mesh
        self._operator = operator
        self._caller = caller
        self._services = services

    def apply(self, allowed: bool, *, impact: bool) -> int:
        """How many sidecars acknowledged it. AssertionError if not all did."""
        text = policy("caller" if allowed else "nobody")
        request = config_pb2.ApplyRequest(
            files=[config_pb2.SourceFile(name="all.yaml", text=text)],
            wait=True,
            wait_timeout_s=WAIT_S,
            skip_impact=not impact,
        )
        answer = self._operator.call("Config/Apply", request, config_pb2.ApplyResponse, timeout_s=WAIT_S + 5)
        assert not answer.propagation.pending, answer
        assert not answer.propagation.rejected, answer
        return len(answer.propagation.acknowledged)

    def one_change(self, allowed: bool, *, impact: bool) -> tuple[float, float]:
        """(acknowledged, enforced), in milliseconds from the call."""
        enforced: list[float] = []
        begun = time.perf_counter()
        watchers = [
            threading.Thread(target=self._watch, args=(name, 200 if allowed else 403, begun, enforced))
            for name in self._sampled()
        ]
        for one in watchers:
            one.start()
        count = self.apply(allowed, impact=impact)
        acknowledged = (time.perf_counter() - begun) * 1e3
        for one in watchers:
            one.join()
        assert count == len(self._services) + 1, f"{count} sidecars acknowledged"
        assert len(enforced) == len(watchers), "a request was never judged by the new policy"
        return acknowledged, max(enforced)

    def one_reset(self) -> float:
        """Milliseconds from the call that takes the right away until the response ended."""
        self.apply(True, impact=False)
        connection = http.client.HTTPConnection("127.0.0.1", self._caller.ports[self._services[0]], timeout=WAIT_S)
        connection.request("GET", "/stream")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read(1) == b"."
        ended: list[float] = []

        def read() -> None:
            try:
                while answer.read(1):
                    pass
            except (OSError, http.client.HTTPException):
                pass  # cut off, as it should be
            ended.append(time.perf_counter())

        reader = threading.Thread(target=read)
        reader.start()
        begun = time.perf_counter()
        self.apply(False, impact=False)
        reader.join(WAIT_S)
        connection.close()
        return (ended[0] - begun) * 1e3

    def _sampled(self) -> list[str]:
        step = max(len(self._services) // SAMPLED, 1)
        return list(self._services[::step][:SAMPLED])

    def _watch(self, name: str, wanted: int, begun: float, enforced: list[float]) -> None:
        """Asks until the answer is the new policy's."""
        connection = http.client.HTTPConnection("127.0.0.1", self._caller.ports[name], timeout=WAIT_S)
        while time.perf_counter() < begun + WAIT_S:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            if answer.status == wanted:
                enforced.append((time.perf_counter() - begun) * 1e3)
                break
            time.sleep(POLL_S)
        connection.close()


@contextmanager
def running(directory: Path, sidecars: int) -> Iterator[Bench]:
    """`sidecars` services with their sidecars, and a caller's."""
    services = [f"s{number:02}" for number in range(sidecars)]
    with app() as app_port, Mesh(directory) as mesh:
        mesh.start_control_plane()
        members: list[Member] = []
        for start in range(0, sidecars, START_AT_ONCE):  # a few at once: a start takes a second of a core
            batch = [
                mesh.sidecar(name, inbound=[Inbound(PORT, f"127.0.0.1:{app_port}")], access_log="off")
                for name in services[start : start + START_AT_ONCE]
            ]
            mesh.wait_ready(*batch)
            members += batch
        caller = mesh.sidecar("caller", calls=dict.fromkeys(services, PORT), access_log="off")
        mesh.wait_ready(caller)
        with Client(mesh.data_dir / "operator.sock") as operator:

            def connected() -> bool:
                status = operator.call("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)
                return sum(one.connected for one in status.workloads) == sidecars + 1

            eventually(connected, WAIT_S, "every sidecar is connected")
            bench = Bench(mesh, operator, caller, services)
            bench.apply(True, impact=False)
            mesh.wait_reached(caller, *services)
            yield bench


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    p99 = ordered[max(math.ceil(0.99 * len(ordered)) - 1, 0)]  # nearest rank
    return {
        "count": len(ordered),
        "min": round(ordered[0], 1),
        "median": round(statistics.median(ordered), 1),
        "p99": round(p99, 1),
        "max": round(ordered[-1], 1),
    }


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    for number in range(WARM_UP):
        bench.one_change(number % 2 == 1, impact=False)
    found: dict[str, Any] = {}
    for name, impact, count in (("plain", False, rounds), ("with_impact", True, max(rounds // 4, 10))):
        bench.apply(True, impact=False)
        times = [bench.one_change(number % 2 == 1, impact=impact) for number in range(count)]
        found[name] = {
            "acknowledged_ms": summary([one for one, _ in times]),
            "enforced_ms": summary([one for _, one in times]),
        }
        say(f"{name}: {json.dumps(found[name])}")
    found["reset_ms"] = summary([bench.one_reset() for _ in range(STREAM_ROUNDS)])
    say(f"reset: {json.dumps(found['reset_ms'])}")
    return found


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy_propagation")
    parser.add_argument("--sidecars", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "policy_propagation.json")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pp") as directory, running(Path(directory), given.sidecars) as bench:
        say(f"{given.sidecars} sidecars and a caller's are up")
        load = os.getloadavg()[0]
        found = measure(bench, given.rounds)
    result = {
        "sidecars": given.sidecars,
        "processes": "one each",
        "machine": {"cores": os.cpu_count(), "load_at_begin": round(load, 2), "python": platform.python_version()},
        "revision": revision(ROOT),
        "targets_ms": {"enforced_p99": TARGET_MS, "reset_max": RESET_TARGET_MS},
        **found,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
