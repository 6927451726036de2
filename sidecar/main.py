"""Two ways to start a sidecar: alone (`hauberk sidecar`) or with its app (`hauberk run`); each gives an exit code."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

import trio

from sidecar.app import Sidecar
from sidecar.config import Config
from sidecar.errors import SidecarError
from sidecar.supervise import SidecarHandle, run_command
from sidecar.telemetry.logs import to_standard_error

log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED = 0, 1


def run_sidecar(config: Config) -> int:
    """Until SIGTERM or SIGINT: deregister, drain, leave. A second signal leaves at once."""
    to_standard_error()
    _settle()
    try:
        trio.run(_run_until_stopped, config)
    except BaseExceptionGroup as group:
        return _report(_only(group))
    except SidecarError as e:
        return _report(e)
    return EXIT_OK


def run_with_app(config: Config, command: Sequence[str]) -> int:
    """The app's exit code, or 1 if the sidecar could not do its part, 126 or 127 if the app could not be started."""
    to_standard_error()
    _settle()

    async def run() -> int:
        return await run_command(config, command, start_sidecar=start, environ=os.environ)

    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        return _report(_only(group))
    except SidecarError as e:
        return _report(e)


def _settle() -> None:
    """What was imported stays: the collector need not walk 40,000 objects again, 11 ms each time, to find that out."""
    gc.collect()
    gc.freeze()


async def start(config: Config, *, task_status: trio.TaskStatus[SidecarHandle]) -> None:
    """`StartSidecar`: hands out the sidecar as soon as its listeners are up, and runs it until cancelled."""
    sidecar = Sidecar(config, os.environ)
    async with trio.open_nursery() as nursery:
        await nursery.start(sidecar.run)
        task_status.started(sidecar)


async def _run_until_stopped(config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            sidecar = Sidecar(config, os.environ)
            await nursery.start(sidecar.run)
            log.info(
                "sidecar started",
                extra={
                    "mesh": str(sidecar.mesh_address),
                    "outbound": sidecar.outbound_address,
                    "admin": sidecar.admin_address,
                },
            )
            async for _ in signals:
                break
            log.info("stopping")
            async with trio.open_nursery() as leaving:
                leaving.start_soon(_leave, sidecar, leaving.cancel_scope)
                async for _ in signals:
                    leaving.cancel_scope.cancel()
                    break
            nursery.cancel_scope.cancel()


async def _leave(sidecar: Sidecar, done: trio.CancelScope) -> None:
    await sidecar.withdraw()
    await sidecar.drain()
    done.cancel()


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of a group of groups; a bug, and anything else that is not ours, propagates."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, (SidecarError, KeyboardInterrupt)):
        return error
    raise group


def _report(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    sys.stderr.write(f"hauberk: {error}\n")
    return int(getattr(error, "exit_code", EXIT_FAILED))
