"""A real mesh for tests: the commands a user types, each in its own process, on free loopback ports, in one directory.

    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        orders = mesh.run("orders", [PYTHON, APP], inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)

Every process is a leader of its own session and carries the mesh's mark in its environment, so that at the end nothing
of it is left, whatever became of its parents. Nothing here sleeps for luck: `eventually` polls until a deadline. When a
test fails, `tests.e2e.reporting` adds the last lines of every process's log to its report.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from control_plane.cli.client import Client
from protos.hauberk.v1 import admin_pb2
from sidecar.config import Config
from tests.e2e.clients import outcome

M = TypeVar("M", bound=Message)

PYTHON = sys.executable
HAUBERK = [PYTHON, "-m", "control_plane.cli"]
APPS = Path(__file__).parent / "apps"
UVICORN = [PYTHON, "-m", "uvicorn", "--app-dir", str(APPS), "--no-access-log", "--log-level", "warning", "web:app"]
WEB_APP = [*UVICORN, "--port", "{port}"]
"""`apps/web.py` on uvicorn, for `Mesh.run`."""
GRPC_APP = [PYTHON, str(APPS / "greeter.py")]
JOB = [PYTHON, str(APPS / "job.py")]
NAMESPACE = "shop"
START_S = 30.0
STOP_S = 15.0
POLL_S = 0.02
MARK = "MESH_UNDER_TEST"
LOG_TAIL = 20

# What the tests' own environment must not decide.
SCRUBBED = (
    "OTEL_",
    "HAUBERK_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "COV_",
)

ALLOW_ALL = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: everybody, namespace: {NAMESPACE}}}
spec: {{action: ALLOW, rules: [{{from: [{{source: {{principals: ["*"]}}}}]}}]}}
"""

alive: list[Mesh] = []
"""Meshes whose logs a failing test's report should show."""


def eventually(is_so: Callable[[], object], within_s: float, what: str) -> None:
    """Polls until `is_so()` is true; AssertionError with `what` and its last value after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (last := is_so()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what} (last: {last!r})")
        time.sleep(POLL_S)


def environment(mark: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
    return {**given, MARK: mark, **(more or {})}


def marked(mark: str) -> list[int]:
    """Process ids of everything alive that inherited the mark, whoever its parent is now. Zombies are not alive."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                pass  # gone already, or another user's
    return found


def end_marked(mark: str) -> list[int]:
    """Kills what is left; the process ids that were."""
    left = marked(mark)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    eventually(lambda: not marked(mark), 5, "killed processes are gone")
    return left


class Process:
    """One process, with what it says: a log of its own name, in which others of that name may have written before."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environ: Mapping[str, str], cwd: Path) -> None:
        self.name = name
        self.log_path = log
        self._log_begins = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=cwd,
                start_new_session=True,
            )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Process {self.name} {self.popen.pid} {'runs' if self.is_running else self.popen.returncode}>"

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    @property
    def log(self) -> str:
        with self.log_path.open("rb") as file:
            file.seek(self._log_begins)
            return file.read().decode(errors="replace")

    def signal(self, number: int) -> None:
        if self.is_running:
            self.popen.send_signal(number)

    def wait(self, within_s: float = STOP_S) -> int:
        """The exit code. AssertionError if it does not end."""
        eventually(lambda: not self.is_running, within_s, f"{self.name} ends")
        return int(self.popen.returncode)

    def stop(self, within_s: float = STOP_S) -> int:
        self.signal(signal.SIGTERM)
        return self.wait(within_s)

    def kill(self) -> None:
        """SIGKILL to this process alone, as an out-of-memory killer would."""
        self.popen.kill()
        self.popen.wait()

    def wait_log(self, text: str, within_s: float = START_S) -> None:
        eventually(lambda: text in self.log or not self.is_running, within_s, f"{self.name} says {text!r}")
        assert text in self.log, f"{self.name} ended with {self.popen.returncode} and never said {text!r}"


@dataclass(frozen=True, slots=True)
class Inbound:
    """One port of a service. `app`: "127.0.0.1:8080" or "unix:/path"; empty: a free port, found as `Member.app`.
    `plaintext`: where callers without mTLS come in; off: nowhere."""

    port: int
    app: str = ""
    protocol: str = "http1"
    plaintext: str = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A sidecar, alone or with its app."""

    name: str
    process: Process
    admin: int
    proxy: int
    """The outbound listener."""
    app: int
    """Where its app listens, if it is to choose."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Service -> the local port that stands for it."""

    def page(self, path: str) -> tuple[int, str]:
        """A page of the admin port; status 0 while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    @property
    def is_ready(self) -> bool:
        return self.page("/ready")[0] == 200

    @property
    def status(self) -> dict[str, Any]:
        code, text = self.page("/status")
        content: dict[str, Any] = json.loads(text) if code == 200 else {}
        return content

    @property
    def is_connected(self) -> bool:
        return bool(self.status.get("control_plane_connected"))

    @property
    def resident_octets(self) -> int:
        """Memory of the sidecar's process."""
        resident = Path(f"/proc/{self.status['pid']}/statm").read_text().split()[1]
        return int(resident) * os.sysconf("SC_PAGE_SIZE")


class Mesh:
    """A context manager. `directory` should be a test's own; sockets in it need a short path."""

    def __init__(self, directory: Path, **control_plane: object) -> None:
        """`control_plane`: fields of its configuration file."""
        self.directory = directory
        self.data_dir = directory / "cp"
        self.processes: list[Process] = []
        self._mark = secrets.token_hex(8)
        self._held = ExitStack()
        self.listen, self.join_listen = self.free_port(), self.free_port()
        self._config = {
            "listen": f"127.0.0.1:{self.listen}",
            "join_listen": f"127.0.0.1:{self.join_listen}",
            "limits": {"join_rate_per_s": 1_000, "join_burst": 1_000},
            **control_plane,
        }

    def __enter__(self) -> Mesh:
        alive.append(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self.stop()
        finally:
            alive.remove(self)

    # Ports

    def free_port(self) -> int:
        """A port that is nobody's, and nobody's until the end: it stays bound here, without listening.

        Linux lets a second socket with SO_REUSEADDR listen on it, but chooses it for nobody who asks for any port."""
        sock = self._held.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])

    # Processes

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Process:
        process = Process(
            name,
            command,
            log=self.directory / f"{name}.log",
            environ=environment(self._mark, {"HAUBERK_DATA_DIR": str(self.data_dir), **(environ or {})}),
            cwd=self.directory,
        )
        self.processes.append(process)
        return process

    def hauberk(self, *arguments: str, text: str = "", within_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """What a user types, to its end; `text` on standard input."""
        return subprocess.run(
            [*HAUBERK, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=within_s,
            cwd=self.directory,
            env=environment(self._mark, {"HAUBERK_DATA_DIR": str(self.data_dir)}),
        )

    def done(self, *arguments: str, text: str = "") -> str:
        """Standard output of a command that must work."""
        run = self.hauberk(*arguments, text=text)
        assert run.returncode == 0, f"hauberk {' '.join(arguments)}: {run.stderr}"
        return run.stdout

    def operator(self, method: str, request: Message, answer: type[M]) -> M:
        """A call on the operator's socket, as the command line makes it, without the time a process takes."""
        with Client(self.data_dir / "operator.sock") as control_plane:
            return control_plane.call(method, request, answer)

    def start_control_plane(self, environ: Mapping[str, str] | None = None) -> Process:
        """Also again after its end: same directory, same ports."""
        config = self.directory / "control-plane.yaml"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        command = [*HAUBERK, "control-plane", "--data-dir", str(self.data_dir), "--config", str(config)]
        process = self.start("control-plane", command, environ)
        process.wait_log("control plane listening")
        return process

    def token(self, service: str, *, ttl_s: float = 600.0) -> Path:
        """A file with a new join token."""
        path = self.directory / f"{service}-{secrets.token_hex(4)}.token"
        request = admin_pb2.CreateTokenRequest(service=service, namespace=NAMESPACE, ttl_s=ttl_s)
        path.write_text(self.operator("Admin/CreateToken", request, admin_pb2.CreateTokenResponse).token)
        return path

    def sidecar(self, name: str, *, environ: Mapping[str, str] | None = None, **more: Any) -> Member:
        """`hauberk sidecar`; `more` as for `configure`."""
        config, ports = self.configure(name, **more)
        return self._member(name, [*HAUBERK, "sidecar", "--config", str(config)], ports, environ or {})

    def run(
        self, name: str, command: Sequence[str], *, environ: Mapping[str, str] | None = None, **more: Any
    ) -> Member:
        """`hauberk run`; the app finds its port in $PORT, and where its command says {port}."""
        config, ports = self.configure(name, **more)
        environ = {"PORT": str(ports["app"]), **(environ or {})}
        command = [word.replace("{port}", str(ports["app"])) for word in command]
        return self._member(name, [*HAUBERK, "run", "--config", str(config), "--", *command], ports, environ)

    def _member(self, name: str, command: Sequence[str], ports: dict[str, Any], environ: Mapping[str, str]) -> Member:
        return Member(name=name, process=self.start(name, command, environ), **ports)

    def configure(
        self,
        name: str,
        *,
        service: str = "",
        inbound: Iterable[Inbound] = (),
        calls: Mapping[str, int] | None = None,
        token: Path | None = None,
        **more: Any,
    ) -> tuple[Path, dict[str, Any]]:
        """A sidecar's configuration file, and the ports it has. `calls`: service -> port, each on a local port.

        `more`: fields of the file, in place of what is written here."""
        service = service or name
        app = self.free_port()
        named = {callee: self.free_port() for callee in calls or {}}
        ports = {"admin": self.free_port(), "proxy": self.free_port(), "app": app, "ports": named}
        config = {
            "service": service,
            "namespace": NAMESPACE,
            "control_plane": f"127.0.0.1:{self.listen}",
            "join_token_file": str(token or self.token(service)),
            "mesh_listen": "127.0.0.1:0",
            "inbound": [
                {
                    "port": one.port,
                    "app": one.app or f"127.0.0.1:{app}",
                    "protocol": one.protocol,
                    "plaintext": one.plaintext,
                }
                for one in inbound
            ],
            "outbound": {
                "listen": f"127.0.0.1:{ports['proxy']}",
                "ports": [
                    {"listen": f"127.0.0.1:{named[callee]}", "service": callee, "port": port}
                    for callee, port in (calls or {}).items()
                ],
            },
            "admin": f"127.0.0.1:{ports['admin']}",
            "health": "off",
            "timeouts": {"drain_s": 5},
            "http2_engine": Config(service=service).http2_engine,
            **more,
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(config, indent=2))
        return path, ports

    def wait_ready(self, *members: Member) -> None:
        for member in members:
            eventually(
                lambda member=member: member.is_ready or not member.process.is_running,  # type: ignore[misc]  # bound now
                START_S,
                f"{member.name} is ready",
            )
            assert member.process.is_running, f"{member.name} ended: {member.process.log[-2000:]}"

    def wait_reached(self, caller: Member, *services: str) -> None:
        """Until `caller` has heard where they are. An endpoint that is ready has only just begun to tell."""
        for service in services:
            port = caller.ports[service]
            eventually(
                lambda port=port: outcome(port) not in (503, "ConnectionRefusedError"),  # type: ignore[misc]  # bound now
                10,
                f"{caller.name} knows where {service} is",
            )

    # Policy

    def apply(self, *documents: str) -> None:
        """And wait until every sidecar concerned has it."""
        self.done("apply", "-f", "-", "--wait", text="---\n".join(documents))

    def workloads(self) -> list[dict[str, Any]]:
        """What `hauberk status` shows."""
        answer = self.operator("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)
        return [MessageToDict(one, preserving_proto_field_name=True) for one in answer.workloads]

    # The end

    def stop(self) -> None:
        """Sidecars first, then the control plane; whatever does not go is killed, and so is what they left."""
        last = [process for process in self.processes if process.name == "control-plane"]
        for group in ([process for process in self.processes if process not in last], last):
            for process in group:
                process.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            for process in group:
                try:
                    process.popen.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
        end_marked(self._mark)
        self._held.close()
