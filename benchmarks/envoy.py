"""Envoy as two sidecars: two processes of one worker thread each."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks import envoy_config, tools, work
from benchmarks.certificates import issue
from benchmarks.system import Pair, Running, Setup, free_port, started, wait_until


class Envoy:
    name = "envoy"

    def __init__(self) -> None:
        self._executable = tools.envoy()
        self.version = tools.first_line(self._executable, "--version").partition("version: ")[2]

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        names = {"a": work.principal(work.CALLER), "b": work.principal(work.SERVICE)}
        files = issue(setup.directory / "certificates", names)
        port, mesh_port, admins = free_port(), free_port(), (free_port(), free_port())
        strangers = [work.stranger_ports(index) for index in range(work.CROWD_SERVICES)] if setup.crowd else []
        sides = {
            "inbound": envoy_config.inbound(
                admin=admins[1], mesh_port=mesh_port, app=setup.app, is_http1=setup.is_http1, files=files["b"],
                rules=setup.rules,
            ),
            "outbound": envoy_config.outbound(
                admin=admins[0], port=port, mesh_port=mesh_port, files=files["a"], strangers=strangers
            ),
        }  # fmt: skip
        with ExitStack() as stack:
            pids = {}
            for side, config in sides.items():
                path = setup.directory / f"envoy-{side}.json"
                path.write_text(json.dumps(config, indent=1))
                command = [
                    self._executable, "--config-path", str(path), "--concurrency", "1", "--disable-hot-restart",
                    "--log-level", "warning",
                ]  # fmt: skip
                process = started(
                    stack, f"envoy-{side}", command, core=getattr(setup.cores, side), directory=setup.directory,
                    environ=dict(os.environ),
                )  # fmt: skip
                admin = int(config["admin"]["address"]["socket_address"]["port_value"])
                log: Path = setup.directory / f"envoy-{side}.log"
                wait_until(lambda admin=admin: _is_ready(admin), f"envoy {side} is ready", (process, log))  # type: ignore[misc]  # bound now
                pids[side] = process.pid
            yield Pair(
                port=port,
                mesh_port=mesh_port,
                caller=files["a"],
                outbound=[pids["outbound"]],
                inbound=[pids["inbound"]],
            )


def _is_ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
