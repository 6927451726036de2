"""`hauberk run -- COMMAND`: one life for a sidecar and its app (row R33).

    start   sidecar; wait until certificate, policy and listeners are live; only then the app
    run     SIGHUP, SIGUSR1 and SIGUSR2 go on to the app
    stop    on SIGTERM or SIGINT: withdraw (no new requests come), drain (those in flight end, `drain_s` at most),
            SIGTERM to the app, `drain_s`, SIGKILL; then the sidecar
    end     with the app's exit code, 128 + n if signal n ended it

An app that ends by itself (a job) ends its sidecar the same way. A second SIGTERM or SIGINT skips the drain, a third
kills the app. If the sidecar fails, the app is stopped and the error goes on: an app without its sidecar would be
neither protected nor able to reach anybody.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import trio

from sidecar.child import EXIT_SIGNAL_BASE, Child, find_program, shares_terminal
from sidecar.config import Config
from sidecar.errors import SidecarError

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
FORWARDED_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
WITHDRAW_TIMEOUT_S = 5.0

# How urgently we were asked to stop.
STOP, HURRY, KILL = 1, 2, 3

TOKEN_VARIABLES = "HAUBERK_JOIN_TOKEN"  # noqa: S105  # how the names of such variables begin
LOCAL_HOSTS = "localhost,127.0.0.1,::1"


class SidecarHandle(Protocol):
    """What `hauberk run` needs of a started sidecar."""

    @property
    def outbound_address(self) -> str:
        """ "127.0.0.1:15001" as bound; "" if off."""

    @property
    def admin_address(self) -> str:
        """ "127.0.0.1:15000" as bound."""

    @property
    def spiffe_id(self) -> str:
        """Known once ready."""

    @property
    def workload_api_socket(self) -> str:
        """ "unix:///run/hauberk/agent.sock"; "" if off."""

    async def wait_ready(self) -> None:
        """Until certificate, policy and listeners are live."""

    async def wait_app_listening(self) -> None:
        """Until the app accepts connections on every inbound port. May be cancelled and called again."""

    async def withdraw(self) -> None:
        """Tell the control plane that no more requests shall come."""

    async def drain(self) -> None:
        """Take no new requests; until those in flight have ended."""


class StartSidecar(Protocol):
    """Runs a sidecar until cancelled; gives its handle as soon as there is one (before it is ready)."""

    def __call__(self, config: Config, *, task_status: trio.TaskStatus[SidecarHandle]) -> Awaitable[None]: ...


class SidecarStopped(SidecarError):
    """The sidecar ended while its app was still to run."""


class _StopRequests:
    """Counts SIGTERM and SIGINT, and cancels whatever was only to go on until so many had come."""

    def __init__(self) -> None:
        self.level = 0
        self.first: int = signal.SIGTERM
        self._scopes: list[tuple[int, trio.CancelScope]] = []

    def add(self, number: int) -> None:
        if self.level == 0:
            self.first = number
        self.level += 1
        for level, scope in self._scopes:
            if self.level >= level:
                scope.cancel()

    @contextmanager
    def until(self, level: int) -> Iterator[None]:
        """Cancel the block as soon as `level` stop signals have come."""
        with trio.CancelScope() as scope:
            if self.level >= level:
                scope.cancel()
            entry = (level, scope)
            self._scopes.append(entry)
            try:
                yield
            finally:
                self._scopes.remove(entry)


async def run_command(
    config: Config,
    command: Sequence[str],
    *,
    start_sidecar: StartSidecar,
    environ: Mapping[str, str],
    own_group: bool | None = None,
) -> int:
    """Run `command` beside a sidecar, until both have ended; the exit code to leave with.

    `environ` is the command's environment before we add to it. `own_group` forces or forbids a process group of its
    own (None: as `sidecar.child` explains). Raises CommandError (with an `exit_code`) if the command cannot be started,
    and whatever `start_sidecar` raises.
    """
    program = find_program(command, environ)
    if own_group is None:
        own_group = not shares_terminal()
    run = _Run(config, start_sidecar)

    def spawn(handle: SidecarHandle) -> Child:
        return Child.spawn(program, command, child_environ(environ, handle), own_group=own_group)

    try:
        with trio.open_signal_receiver(*STOP_SIGNALS, *FORWARDED_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.listen, signals)
                code = await run.main(nursery, spawn)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _only(group) from None
    return code


class _Run:
    """The phases of one `hauberk run`, in their order."""

    def __init__(self, config: Config, start_sidecar: StartSidecar) -> None:
        self._config = config
        self._start_sidecar = start_sidecar
        self._stop = _StopRequests()
        self._child: Child | None = None

    async def listen(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number in STOP_SIGNALS:
                self._stop.add(number)
            elif self._child is not None:
                self._child.signal(number)

    async def main(self, nursery: trio.Nursery, spawn: Callable[[SidecarHandle], Child]) -> int:
        handle: SidecarHandle | None = None
        is_ready = False
        with self._stop.until(STOP):
            handle = await nursery.start(self._sidecar)
            assert handle is not None
            await handle.wait_ready()
            is_ready = True
        if handle is None or not is_ready:
            return EXIT_SIGNAL_BASE + self._stop.first
        child = self._child = spawn(handle)
        log.info("the app was started", extra={"pid": child.pid})
        try:
            nursery.start_soon(self._watch_app, handle)
            with self._stop.until(STOP):
                await child.wait()
            await self._leave(handle)
            return await self._stop_app(child)
        finally:
            if child.exit_code is None:
                await child.end(self._config.timeouts.drain_s)

    async def _sidecar(self, *, task_status: trio.TaskStatus[SidecarHandle]) -> None:
        await self._start_sidecar(self._config, task_status=task_status)
        raise SidecarStopped("the sidecar ended before its app")

    async def _leave(self, handle: SidecarHandle) -> None:
        """No new requests, then none in flight. Also after the app's end: its last answers may still be on the way."""
        with self._stop.until(HURRY), trio.move_on_after(WITHDRAW_TIMEOUT_S):
            await _try("withdraw", handle.withdraw)
        with self._stop.until(HURRY), trio.move_on_after(self._config.timeouts.drain_s):
            await _try("drain", handle.drain)

    async def _stop_app(self, child: Child) -> int:
        if child.exit_code is None:
            child.signal(signal.SIGTERM)
            with self._stop.until(KILL), trio.move_on_after(self._config.timeouts.drain_s):
                return await child.wait()
            log.warning("the app did not stop in time and is killed", extra={"pid": child.pid})
            return await child.kill()
        return child.exit_code

    async def _watch_app(self, handle: SidecarHandle) -> None:
        """Say so if the app does not begin to listen."""
        ports = self._config.inbound
        if not ports:
            return
        seconds = self._config.timeouts.app_start_s
        waited_s = 0.0
        while True:
            with trio.move_on_after(seconds):
                await handle.wait_app_listening()
                break
            waited_s += seconds
            log.warning(
                "after %g s the app does not listen on %s yet; requests to it fail until it does "
                "(check the app's own settings, and `inbound` in %s)",
                waited_s,
                ", ".join(str(port.app) for port in ports),
                self._config.source,
            )


def child_environ(environ: Mapping[str, str], handle: SidecarHandle) -> dict[str, str]:
    """The app's environment: how to reach the mesh, and no join token (row G13)."""
    given = {name: value for name, value in environ.items() if not name.startswith(TOKEN_VARIABLES)}
    given["HAUBERK_ADMIN"] = handle.admin_address
    given["HAUBERK_SPIFFE_ID"] = handle.spiffe_id
    if handle.workload_api_socket:
        given["SPIFFE_ENDPOINT_SOCKET"] = handle.workload_api_socket
    if handle.outbound_address:
        given["HAUBERK_OUTBOUND"] = handle.outbound_address
        given["HTTP_PROXY"] = given["http_proxy"] = f"http://{handle.outbound_address}"
        if "NO_PROXY" not in given and "no_proxy" not in given:
            given["NO_PROXY"] = given["no_proxy"] = LOCAL_HOSTS
    return given


async def _try(what: str, step: Callable[[], Awaitable[None]]) -> None:
    """A step of stopping that must not keep us from stopping (the control plane may be gone)."""
    try:
        await step()
    except Exception:
        log.exception("a step of stopping failed", extra={"step": what})


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in a group of groups of one; the group if there are several."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
