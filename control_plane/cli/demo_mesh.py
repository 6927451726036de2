"""The processes of `hauberk demo`: a control plane, three services under `hauberk run`, and a sidecar to call from.

Everything listens on loopback at free ports, and lives in one directory that is removed at the end. What is started
here is a user's own commands; nothing is done behind their back.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

from control_plane.cli.interrupts import Interrupts
from control_plane.cli.verb import CliError

NAMESPACE = "shop"
PORTS = (
    *("listen", "join", "edge", "edge_admin", "web", "web_admin"),
    *("orders", "orders_admin", "billing", "billing_admin", "web_to_orders"),
)
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 12.0
POLL_S = 0.05


class DemoMesh:
    """A context manager: nothing of it is left behind, however it ends."""

    def __init__(self, interrupts: Interrupts, *, keep_dir: bool, http2_engine: str) -> None:
        """To be entered before an interrupt may strike."""
        self._interrupts = interrupts
        self._keep_dir = keep_dir
        self._http2_engine = http2_engine
        self._stack = ExitStack()
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.directory = Path(tempfile.mkdtemp(prefix="hauberk-demo-"))
        self.examples = self._stack.enter_context(as_file(files("deploy") / "examples"))
        self.data_dir = self.directory / "control-plane"
        self.ports = dict(
            zip(
                PORTS,
                _free_ports(len(PORTS)),
                strict=True,
            )
        )

    def __enter__(self) -> DemoMesh:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    # Starting

    def start_control_plane(self) -> None:
        listen = f"127.0.0.1:{self.ports['listen']}"
        join = f"127.0.0.1:{self.ports['join']}"
        self._start(
            "control-plane",
            "control-plane",
            "--data-dir",
            str(self.data_dir),
            "--listen",
            listen,
            "--join-listen",
            join,
        )
        self._wait("the control plane", (self.data_dir / "operator.sock").exists)

    def start_services(self) -> None:
        """All four at once; returns when each is ready."""
        node = shutil.which("node")
        shop = self.examples / "shop"
        billing = [node, str(shop / "billing.mjs")] if node else [sys.executable, str(shop / "billing.py")]
        self._run_service("billing", billing, {}, "http1")
        environ = {"BILLING": f"http://billing.{NAMESPACE}:{self.ports['billing']}"}
        self._run_service("orders", [sys.executable, str(shop / "orders.py")], environ, "http2")
        environ = {"ORDERS": f"127.0.0.1:{self.ports['web_to_orders']}"}
        named = [{"listen": environ["ORDERS"], "service": "orders", "port": self.ports["orders"]}]
        self._run_service("web", [sys.executable, str(shop / "web.py")], environ, "http1", named)
        self._sidecar_config("edge", None, [])
        self._start_edge()
        for name in ("billing", "orders", "web", "edge"):
            self._wait(name, partial(self._is_ready, name))

    def start_edge(self) -> None:
        """Once more, after it was killed: with the same configuration, whose token is spent."""
        self._start_edge()
        self._wait("edge", partial(self._is_ready, "edge"))

    def kill(self, name: str) -> None:
        """As a crash would: nobody is told."""
        for one in [one for one in self._running if one[0] == name]:
            one[1].kill()
            one[1].wait()
            self._running.remove(one)

    def _start_edge(self) -> None:
        self._start("edge", "sidecar", "--config", str(self.directory / "edge.yaml"))

    def _is_ready(self, name: str) -> bool:
        return self.admin(name, "/ready")[0] == 200

    def _run_service(
        self,
        name: str,
        command: list[str],
        environ: dict[str, str],
        protocol: str,
        named: list[dict[str, object]] | None = None,
    ) -> None:
        config = self._sidecar_config(name, protocol, named or [])
        environ = {"PORT": str(self.ports[name]), **environ}
        self._start(name, "run", "--config", str(config), "--", *command, environ=environ)

    def _sidecar_config(self, name: str, protocol: str | None, named: list[dict[str, object]]) -> Path:
        token = self.directory / f"{name}.token"
        self.hauberk("token", "create", "--service", name, "--namespace", NAMESPACE, "--out", str(token))
        port = self.ports[name]
        config = {
            "service": name,
            "namespace": NAMESPACE,
            "control_plane": f"127.0.0.1:{self.ports['listen']}",
            "join_token_file": str(token),
            "state_dir": str(self.directory / f"{name}.state"),
            "mesh_listen": "127.0.0.1:0",
            "inbound": [{"port": port, "app": f"127.0.0.1:{port}", "protocol": protocol}] if protocol else [],
            "outbound": {"listen": f"127.0.0.1:{0 if protocol else port}", "ports": named},
            "admin": f"127.0.0.1:{self.ports[f'{name}_admin']}",
            "health": "127.0.0.1:0",
            "http2_engine": self._http2_engine,
            "timeouts": {"drain_s": 5},
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(config, indent=2) + "\n")  # JSON is YAML
        return path

    def _start(self, name: str, *arguments: str, environ: dict[str, str] | None = None) -> None:
        with self._interrupts.held(), (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "control_plane.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                start_new_session=True,  # Ctrl-C is ours to hear, and to pass on in order
            )
            self._running.append((name, process))

    def _wait(self, name: str, is_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_up():
            for started, process in self._running:
                if process.poll() is not None:
                    raise CliError(f"{started} ended with code {process.returncode}: {self._last_line(started)}")
            if time.monotonic() > deadline:
                raise CliError(f"{name} was not ready after {START_TIMEOUT_S:g} s: {self._last_line(name)}")
            time.sleep(POLL_S)

    def _last_line(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    # Using

    def hauberk(self, *arguments: str) -> str:
        """What a user would type; its standard output. Raises CliError."""
        done = self._typed(*arguments)
        if done.returncode:
            raise CliError(f"`hauberk {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout

    def try_hauberk(self, *arguments: str) -> bool:
        """The same; whether it was done."""
        return self._typed(*arguments).returncode == 0

    def _typed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "control_plane.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "HAUBERK_DATA_DIR": str(self.data_dir)},
        )

    def call(
        self, host: str, path: str, method: str = "GET", body: bytes | None = None, timeout_s: float = 20.0
    ) -> tuple[int, bytes, str]:
        """A request through the edge's sidecar: status, body, decision id."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["edge"], timeout=timeout_s)
        try:
            connection.request(method, path, body, {"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("hauberk-decision-id", "")
        finally:
            connection.close()

    def admin(self, name: str, path: str) -> tuple[int, bytes]:
        """A page of a sidecar's admin port; status 0 while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[f"{name}_admin"], timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def status(self, name: str) -> dict[str, object]:
        content: dict[str, object] = json.loads(self.admin(name, "/status")[1])
        return content

    def resident_octets(self, name: str) -> int:
        """Memory of a sidecar's process."""
        with open(f"/proc/{self.status(name)['pid']}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # Stopping

    def stop(self) -> None:
        """In order: who calls, who is called, the control plane."""
        services = [process for name, process in self._running if name != "control-plane"]
        for processes in (services, [process for name, process in self._running if name == "control-plane"]):
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for process in processes:
                try:
                    process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._running.clear()
        self._stack.close()
        if not self._keep_dir:
            shutil.rmtree(self.directory, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on now. Held all at once, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
