"""The app's process: started so that it cannot outlive its sidecar, waited for and signalled without a thread.

Decisions and their reasons:

- It is forked from the event loop's own thread, not by `trio.lowlevel.open_process`, which uses a worker thread:
  PR_SET_PDEATHSIG (prctl(2)) fires when the *thread* that forked ends, and trio's worker threads end after ten idle
  seconds. The loop stands still for the few milliseconds of fork and exec, before there is any traffic.
- `preexec_fn` sets PR_SET_PDEATHSIG: a sidecar that is killed takes the app with it (row R33: no app without its
  sidecar). The function makes two system calls and takes no lock. It runs in the child between fork and exec, where
  Python code is only safe while nothing else holds an interpreter lock; the only other thread the sidecar ever has is
  OpenTelemetry's exporter.
- It gets a process group of its own, so that Ctrl-C and `kill 0` reach the sidecar first, which drains before it stops
  the app; signals are sent to the whole group, and what is left of the group when the app's own process ends is killed.
  Not so when standard input is the terminal whose foreground we are: a program in a background group may not read it
  (SIGTTIN), so there the app shares our group, and the terminal's Ctrl-C reaches both at once.
- Its end is awaited on a pidfd (pidfd_open(2), Linux 5.3), which also keeps its pid from being anybody else's.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

import trio

from sidecar.errors import SidecarError

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
"""Shell conventions (POSIX, Shell Command Language 2.8.2)."""

KILL_WAIT_S = 5.0
_PR_SET_PDEATHSIG = 1


class CommandError(SidecarError):
    """The command cannot be started. `exit_code` is what a shell would answer."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def find_program(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """The path of the program `command` names. Raises CommandError.

    Asked before the sidecar starts, so that a slip of the pen does not cost a single-use join token.
    """
    if not command:
        raise CommandError("no command given; write it after --", exit_code=EXIT_NOT_FOUND)
    name = command[0]
    path = environ.get("PATH", os.defpath)
    program = shutil.which(name, path=path)
    if program is not None:
        return program
    if shutil.which(name, mode=os.F_OK, path=path) is not None or os.path.isdir(name):
        raise CommandError(f"{name!r} is not an executable program", exit_code=EXIT_NOT_EXECUTABLE)
    raise CommandError(f"there is no program {name!r}; check its name and PATH", exit_code=EXIT_NOT_FOUND)


def shares_terminal() -> bool:
    """Whether standard input is a terminal and this process group is its foreground."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


class Child:
    """One running app. Always call `end`, or wait until it ends by itself."""

    def __init__(self, popen: subprocess.Popen[bytes], *, own_group: bool) -> None:
        """Use `spawn`."""
        self._popen = popen
        self._own_group = own_group
        self._pidfd = os.pidfd_open(popen.pid)
        self._is_stuck = False

    def __repr__(self) -> str:
        state = "running" if self.exit_code is None else f"ended with {self.exit_code}"
        return f"<Child {self.pid} {state}>"

    @classmethod
    def spawn(cls, program: str, command: Sequence[str], environ: Mapping[str, str], *, own_group: bool) -> Child:
        """Start `program` with `command` as its argv and our standard streams. Raises CommandError."""
        try:
            popen = subprocess.Popen(
                list(command),
                executable=program,
                env=dict(environ),
                process_group=0 if own_group else None,
                preexec_fn=_dies_with(os.getpid()),  # noqa: PLW1509  # see the module's docstring
            )
        except OSError as error:
            is_missing = isinstance(error, FileNotFoundError)
            exit_code = EXIT_NOT_FOUND if is_missing else EXIT_NOT_EXECUTABLE
            raise CommandError(f"{program!r} cannot be started: {error.strerror}", exit_code=exit_code) from None
        return cls(popen, own_group=own_group)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """As a shell tells it: 128 + n if signal n ended it. None while it runs."""
        code = self._popen.returncode
        if code is None:
            return EXIT_SIGNAL_BASE + signal.SIGKILL if self._is_stuck else None
        return code if code >= 0 else EXIT_SIGNAL_BASE - code

    async def wait(self) -> int:
        """Until it ended; its exit code. Several tasks must not wait at the same moment."""
        if self.exit_code is None:
            await trio.lowlevel.wait_readable(self._pidfd)
            if self._own_group:
                # Not yet reaped, so the group's number is still ours.
                self._send_to_group(signal.SIGKILL)
            self._popen.wait()
            os.close(self._pidfd)
        code = self.exit_code
        assert code is not None
        return code

    def signal(self, number: int) -> None:
        """Send a signal to it (to its whole group if it has one of its own); nothing if it has ended."""
        if self.exit_code is not None:
            return
        if self._own_group:
            self._send_to_group(number)
        else:
            signal.pidfd_send_signal(self._pidfd, number)

    def _send_to_group(self, number: int) -> None:
        try:
            os.killpg(self._popen.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # nobody left, or only what changed its user

    async def end(self, grace_s: float) -> int:
        """SIGTERM, `grace_s` to obey, SIGKILL. Its exit code. Shielded, and bounded: for clean-up."""
        with trio.CancelScope(shield=True):
            if self.exit_code is None:
                self.signal(signal.SIGTERM)
                with trio.move_on_after(grace_s):
                    return await self.wait()
                return await self.kill()
        return await self.wait()

    async def kill(self) -> int:
        """SIGKILL, and its exit code."""
        self.signal(signal.SIGKILL)
        with trio.move_on_after(KILL_WAIT_S, shield=True):
            return await self.wait()
        # Stuck in the kernel (a dead network disk): it cannot run any more code of its own.
        self._is_stuck = True
        os.close(self._pidfd)
        return EXIT_SIGNAL_BASE + signal.SIGKILL


def _dies_with(parent: int) -> Callable[[], None]:
    """What the child does before exec: ask for SIGTERM at our death, and die if we are dead already."""
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(EXIT_SIGNAL_BASE + signal.SIGTERM)

    return ask
