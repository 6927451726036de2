"""`hauberk run` with real processes: order, signals, exit codes, and nothing left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from sidecar.child import CommandError
from sidecar.config import Address, Config, Inbound, Timeouts
from sidecar.rules.snapshot import Protocol
from sidecar.supervise import SidecarHandle, SidecarStopped, child_environ, run_command
from tests.trio_support import trio_test

# What every app of these tests begins with: a line to say things to the test.
PRELUDE = """
import os, signal, socket, sys, time
test = socket.create_connection(("127.0.0.1", int(os.environ["REPORT"])))
def say(text): test.sendall(text.encode() + b"\\n")
def on(number, do): signal.signal(number, do)
def quit(code): say(f"quit {code}"); os._exit(code)
"""


@dataclass
class FakeSidecar:
    """Both the function that runs a sidecar and the handle it gives. Notes what it was asked, in order."""

    events: list[str] = field(default_factory=list)
    ready: trio.Event = field(default_factory=trio.Event)
    listening: trio.Event = field(default_factory=trio.Event)
    drained: trio.Event = field(default_factory=trio.Event)
    draining: trio.Event = field(default_factory=trio.Event)
    waiting: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None
    withdraw_error: Exception | None = None
    outbound_address: str = "127.0.0.1:15001"
    admin_address: str = "127.0.0.1:15000"
    spiffe_id: str = "spiffe://mesh.local/ns/shop/sa/orders"
    workload_api_socket: str = ""

    @classmethod
    def live(cls) -> FakeSidecar:
        """One that is ready at once and has nothing to drain."""
        fake = cls()
        for event in (fake.ready, fake.listening, fake.drained):
            event.set()
        return fake

    async def __call__(self, config: Config, *, task_status: trio.TaskStatus[SidecarHandle]) -> None:
        self.events.append("start")
        task_status.started(self)
        try:
            await self.over.wait()
            if self.error:
                raise self.error
        finally:
            self.events.append("end")

    async def wait_ready(self) -> None:
        self.waiting.set()
        await self.ready.wait()
        self.events.append("ready")

    async def wait_app_listening(self) -> None:
        await self.listening.wait()
        self.events.append("app listens")

    async def withdraw(self) -> None:
        self.events.append("withdraw")
        if self.withdraw_error:
            raise self.withdraw_error

    async def drain(self) -> None:
        self.events.append("drain")
        self.draining.set()
        await self.drained.wait()
        self.events.append("drained")


class Reports:
    """What the app says, line by line."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._stream: trio.SocketStream | None = None
        self._data = b""

    @property
    def port(self) -> int:
        port: int = self._listener.socket.getsockname()[1]
        return port

    async def line(self) -> str:
        """The next line; "" when everybody who could say something is gone."""
        if self._stream is None:
            self._stream = await self._listener.accept()
        while b"\n" not in self._data:
            data = await self._stream.receive_some(4_096)
            if not data:
                return ""
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    async def aclose(self) -> None:
        await self._listener.aclose()
        if self._stream is not None:
            await self._stream.aclose()


@dataclass
class Run:
    """One `hauberk run` in the background."""

    reports: Reports
    done: trio.Event = field(default_factory=trio.Event)
    code: int | None = None
    error: BaseException | None = None

    async def wait(self) -> int:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        assert self.code is not None
        return self.code


def config(*, inbound: bool = False, drain_s: float = 30.0, app_start_s: float = 60.0) -> Config:
    ports = (Inbound(port=80, app=Address("127.0.0.1", 8080), protocol=Protocol.HTTP1),) if inbound else ()
    return Config(
        service="orders",
        inbound=ports,
        timeouts=Timeouts(drain_s=drain_s, app_start_s=app_start_s),
        source="sidecar.yaml",
    )


@asynccontextmanager
async def running(
    fake: Callable[..., Awaitable[None]],
    script: str,
    *,
    settings: Config | None = None,
    own_group: bool | None = None,
) -> AsyncIterator[Run]:
    """`hauberk run -- python -c PRELUDE+script` beside `fake`, until it has ended."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    run = Run(Reports(listener))
    environ = {**os.environ, "REPORT": str(run.reports.port)}
    command = [sys.executable, "-c", PRELUDE + script]

    async def work() -> None:
        try:
            run.code = await run_command(
                settings or config(),
                command,
                start_sidecar=fake,
                environ=environ,
                own_group=own_group,
            )
        except Exception as error:
            run.error = error
        run.done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        yield run
        await run.done.wait()
    await run.reports.aclose()


def send(number: int) -> None:
    """A signal to `hauberk run`, which in these tests is this very process."""
    os.kill(os.getpid(), number)


WAITS = 'on(15, lambda *_: quit(7)); say("up"); time.sleep(1000)'


@trio_test
async def test_r33_the_app_starts_only_when_the_sidecar_is_ready() -> None:
    """Certificate, policy and listeners first: no request of the app can go past the mesh."""
    fake = FakeSidecar()
    fake.drained.set()
    async with running(fake, 'say("up")') as run:
        await fake.waiting.wait()
        assert fake.events == ["start"]
        fake.ready.set()
        assert await run.reports.line() == "up"
        assert await run.wait() == 0
    assert fake.events == ["start", "ready", "withdraw", "drain", "drained", "end"]


@pytest.mark.parametrize(("script", "code"), [("sys.exit(0)", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_a_job_that_ends_ends_its_sidecar_with_its_exit_code(script: str, code: int) -> None:
    """128 + n if signal n ended it, as shells say it."""

    async def main() -> None:
        fake = FakeSidecar.live()
        async with running(fake, script) as run:
            assert await run.wait() == code
        assert fake.events[-1] == "end"

    trio.run(main)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_on_stop_the_sidecar_withdraws_and_drains_before_the_app_is_told(number: int) -> None:
    """Requests in flight end first; then SIGTERM; the exit code is the app's."""

    async def main() -> None:
        fake = FakeSidecar.live()
        fake.drained = trio.Event()
        async with running(fake, WAITS + "\n") as run:
            assert await run.reports.line() == "up"
            send(number)
            await fake.draining.wait()
            assert not run.done.is_set()
            fake.events.append("test")
            fake.drained.set()
            assert await run.reports.line() == "quit 7"
            assert await run.wait() == 7
        assert fake.events == ["start", "ready", "withdraw", "drain", "test", "drained", "end"]

    trio.run(main)


@trio_test
async def test_a_second_stop_signal_skips_the_drain_and_a_third_kills() -> None:
    """Whoever presses Ctrl-C again does not want to wait."""
    fake = FakeSidecar.live()
    fake.drained = trio.Event()
    async with running(fake, 'on(15, lambda *_: say("no")); say("up")\nwhile True: time.sleep(1000)') as run:
        assert await run.reports.line() == "up"
        send(signal.SIGINT)
        await fake.draining.wait()
        send(signal.SIGINT)
        assert await run.reports.line() == "no"
        send(signal.SIGINT)
        assert await run.wait() == 137
    assert "drained" not in fake.events


@trio_test
async def test_an_app_that_ignores_sigterm_is_killed_after_the_drain_time(caplog: pytest.LogCaptureFixture) -> None:
    """And a drain that does not end is not waited for longer than that either."""
    caplog.set_level(logging.WARNING)
    fake = FakeSidecar.live()
    fake.drained = trio.Event()
    async with running(
        fake, 'on(15, signal.SIG_IGN); say("up"); time.sleep(1000)', settings=config(drain_s=0.1)
    ) as run:
        assert await run.reports.line() == "up"
        send(signal.SIGTERM)
        assert await run.wait() == 137
    assert "the app did not stop in time and is killed" in caplog.text


@trio_test
async def test_other_signals_go_on_to_the_app() -> None:
    """Reload and its relatives are the app's business; nothing is stopped."""
    fake = FakeSidecar.live()
    script = """
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    on(number, lambda number, _: say(signal.Signals(number).name))
on(15, lambda *_: quit(0))
say("up")
while True: time.sleep(1000)
"""
    async with running(fake, script) as run:
        assert await run.reports.line() == "up"
        for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
            send(signal.Signals[name])
            assert await run.reports.line() == name
        assert fake.events == ["start", "ready"]
        send(signal.SIGTERM)
        assert await run.wait() == 0


@trio_test
async def test_a_stop_before_the_app_began_starts_no_app() -> None:
    """The sidecar ends, and the exit code tells the signal."""
    fake = FakeSidecar()
    async with running(fake, 'say("up")') as run:
        await fake.waiting.wait()
        send(signal.SIGTERM)
        assert await run.wait() == 143
    assert fake.events == ["start", "end"]


@trio_test
async def test_a_control_plane_that_is_gone_does_not_keep_the_app_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Withdrawing fails, is told, and everything else goes its way."""
    fake = FakeSidecar.live()
    fake.withdraw_error = OSError("connection refused")
    async with running(fake, WAITS) as run:
        assert await run.reports.line() == "up"
        send(signal.SIGTERM)
        assert await run.wait() == 7
    assert "a step of stopping failed" in caplog.text
    assert "drained" in fake.events


@trio_test
async def test_r33_a_sidecar_that_fails_stops_its_app_and_the_error_goes_on() -> None:
    """An app without its sidecar is neither protected nor able to reach anybody."""
    fake = FakeSidecar.live()
    fake.error = RuntimeError("certificate expired")
    async with running(fake, WAITS) as run:
        assert await run.reports.line() == "up"
        fake.over.set()
        assert await run.reports.line() == "quit 7"
        with pytest.raises(RuntimeError, match="certificate expired"):
            await run.wait()


@trio_test
async def test_r33_a_sidecar_that_just_ends_is_a_failure_too() -> None:
    """It has no business to end before its app."""
    fake = FakeSidecar.live()
    async with running(fake, WAITS) as run:
        assert await run.reports.line() == "up"
        fake.over.set()
        with pytest.raises(SidecarStopped):
            await run.wait()


@trio_test
async def test_a_sidecar_that_cannot_start_is_the_error_and_no_app_runs() -> None:
    """A refused join token, a port in use: as `start_sidecar` raised it, not in a group."""

    async def refuse(config: Config, *, task_status: trio.TaskStatus[SidecarHandle]) -> None:
        raise OSError("port 15008 is in use")

    async with running(refuse, 'say("up")') as run:
        with pytest.raises(OSError, match="port 15008 is in use"):
            await run.wait()


@trio_test
async def test_a_command_that_cannot_be_started_is_told_before_the_sidecar_starts(tmp_path: Path) -> None:
    """127 for what is not there, 126 for what is no program; the single-use join token is not spent."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    for command, code, says in (
        (["no-such-program"], 127, "there is no program 'no-such-program'"),
        ([str(tmp_path / "missing")], 127, "there is no program"),
        ([str(script)], 126, "is not an executable program"),
        ([str(tmp_path)], 126, "is not an executable program"),
        ([], 127, "no command given"),
    ):
        fake = FakeSidecar.live()
        with pytest.raises(CommandError, match=says) as caught:
            await run_command(config(), command, start_sidecar=fake, environ=os.environ)
        assert caught.value.exit_code == code
        assert fake.events == []


@trio_test
async def test_a_program_the_kernel_refuses_is_told_and_ends_the_sidecar(tmp_path: Path) -> None:
    """Found only by exec: a missing interpreter (127), no format the kernel knows (126)."""
    for content, code in ((b"#!/no/such/interpreter\n", 127), (b"\x00\x01\x02", 126)):
        program = tmp_path / f"program{code}"
        program.write_bytes(content)
        program.chmod(0o755)
        fake = FakeSidecar.live()
        with pytest.raises(CommandError, match="cannot be started") as caught:
            await run_command(config(), [str(program)], start_sidecar=fake, environ={})
        assert caught.value.exit_code == code
        assert fake.events == ["start", "ready", "end"]


@trio_test
async def test_an_app_that_does_not_listen_is_named_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    """The address and where it was configured; and again, for the first warning has scrolled away."""
    caplog.set_level(logging.WARNING)
    fake = FakeSidecar.live()
    fake.listening = trio.Event()
    async with running(fake, WAITS, settings=config(inbound=True, app_start_s=0.02)) as run:
        assert await run.reports.line() == "up"
        while len([record for record in caplog.records if "does not listen" in record.message]) < 2:
            await trio.sleep(0)
        assert "after 0.02 s the app does not listen on 127.0.0.1:8080 yet" in caplog.text
        assert "sidecar.yaml" in caplog.text
        fake.listening.set()
        send(signal.SIGTERM)
        assert await run.wait() == 7


@trio_test
async def test_what_an_app_leaves_of_its_group_does_not_outlive_it() -> None:
    """A server that a shell started in the background would hold its port for ever."""
    fake = FakeSidecar.live()
    script = 'pid = os.fork()\nif pid == 0: on(15, signal.SIG_IGN); say("left"); time.sleep(1000)\ntime.sleep(1000)'
    async with running(fake, script, own_group=True) as run:
        assert await run.reports.line() == "left"
        send(signal.SIGTERM)
        assert await run.wait() == 143
        assert await run.reports.line() == ""  # the kernel closed the last one's socket


@trio_test
async def test_on_a_terminal_the_app_stays_in_our_group() -> None:
    """Else it could not read the terminal; signals go to its process alone."""
    for own_group in (True, False):
        fake = FakeSidecar.live()
        async with running(fake, "say(str(os.getpgrp()))\n" + WAITS, own_group=own_group) as run:
            group = int(await run.reports.line())
            assert (group == os.getpgrp()) is not own_group
            assert await run.reports.line() == "up"
            send(signal.SIGTERM)
            assert await run.wait() == 7


@trio_test
async def test_r33_an_app_dies_with_a_sidecar_that_is_killed() -> None:
    """kill -9 of `hauberk run`: the kernel tells the app (PR_SET_PDEATHSIG)."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    reports = Reports(listener)
    driver = f"""
import os, sys, trio
from sidecar.config import Config
from sidecar.supervise import run_command
class Fake:
    outbound_address, admin_address, spiffe_id, workload_api_socket = "", "", "", ""
    async def __call__(self, config, *, task_status):
        task_status.started(self)
        await trio.sleep_forever()
    async def wait_ready(self): pass
command = [sys.executable, "-c", {PRELUDE + WAITS!r}]
trio.run(lambda: run_command(Config(service="a"), command, start_sidecar=Fake(), environ=os.environ))
"""
    environ = {**os.environ, "REPORT": str(reports.port)}
    with subprocess.Popen([sys.executable, "-c", driver], env=environ) as process:
        try:
            assert await reports.line() == "up"
        finally:
            process.kill()
    assert await reports.line() == "quit 7"
    await reports.aclose()


def test_the_app_is_told_how_to_reach_the_mesh() -> None:
    """Proxy variables in both spellings, addresses, its identity; OTEL variables as they were."""
    given = child_environ({"PATH": "/bin", "OTEL_SERVICE_NAME": "x", "HTTP_PROXY": "http://old"}, FakeSidecar())
    assert given == {
        "PATH": "/bin",
        "OTEL_SERVICE_NAME": "x",
        "HTTP_PROXY": "http://127.0.0.1:15001",
        "http_proxy": "http://127.0.0.1:15001",
        "NO_PROXY": "localhost,127.0.0.1,::1",
        "no_proxy": "localhost,127.0.0.1,::1",
        "HAUBERK_OUTBOUND": "127.0.0.1:15001",
        "HAUBERK_ADMIN": "127.0.0.1:15000",
        "HAUBERK_SPIFFE_ID": "spiffe://mesh.local/ns/shop/sa/orders",
    }


def test_g13_the_app_never_sees_a_join_token() -> None:
    """Neither the token nor where it lies."""
    given = child_environ({"HAUBERK_JOIN_TOKEN": "x", "HAUBERK_JOIN_TOKEN_FILE": "/t", "HAUBERK_X": "1"}, FakeSidecar())
    assert not any(name.startswith("HAUBERK_JOIN_TOKEN") for name in given)
    assert given["HAUBERK_X"] == "1"


def test_the_app_is_told_where_the_workload_api_is() -> None:
    """By the name that every SPIFFE client looks for; what its user set stands if there is none of ours."""
    handle = FakeSidecar(workload_api_socket="unix:///run/agent.sock")
    assert child_environ({}, handle)["SPIFFE_ENDPOINT_SOCKET"] == "unix:///run/agent.sock"
    given = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/other.sock"}
    assert child_environ(given, FakeSidecar())["SPIFFE_ENDPOINT_SOCKET"] == "unix:///run/other.sock"


def test_a_no_proxy_of_the_user_is_kept() -> None:
    """In either spelling; and without an outbound listener no proxy is named at all."""
    given = child_environ({"no_proxy": "db.internal"}, FakeSidecar())
    assert given["no_proxy"] == "db.internal"
    assert "NO_PROXY" not in given
    given = child_environ({}, FakeSidecar(outbound_address=""))
    assert not any("proxy" in name.lower() for name in given)
    assert "HAUBERK_OUTBOUND" not in given
