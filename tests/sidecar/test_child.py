"""One child process: started, signalled, waited for, ended; the plain parts `hauberk run` is made of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from sidecar.child import Child, CommandError, find_program
from tests.trio_support import trio_test


def spawn(script: str, *, own_group: bool = True) -> Child:
    return Child.spawn(sys.executable, ["app", "-c", script], os.environ, own_group=own_group)


@trio_test
async def test_the_exit_code_can_be_asked_for_again() -> None:
    """None while it runs; then the same for everybody, and signals go nowhere."""
    child = spawn("raise SystemExit(5)")
    assert f"<Child {child.pid} running>" == repr(child)
    assert await child.wait() == 5
    assert await child.wait() == 5
    assert await child.end(1.0) == 5
    child.signal(signal.SIGKILL)
    assert repr(child) == f"<Child {child.pid} ended with 5>"


@pytest.mark.parametrize("own_group", [True, False])
@trio_test
async def test_ending_is_a_request_first(own_group: bool) -> None:
    """SIGTERM ends what does not mind it; 128 + 15."""
    child = spawn("import time; time.sleep(1000)", own_group=own_group)
    assert await child.end(30.0) == 143


@trio_test
async def test_ending_is_by_force_when_time_is_up() -> None:
    """SIGKILL cannot be ignored; 128 + 9."""
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(1000)"
    child = spawn(script)
    assert await child.end(0.0) in (137, 143)  # 143 if it had not come to ignoring it yet


def test_the_program_is_found_on_the_path_it_will_have() -> None:
    """Its own PATH counts, not ours; a path is taken as it is."""
    assert find_program(["sh"], {"PATH": "/nowhere:/bin"}) == "/bin/sh"
    assert find_program(["/bin/sh"], {"PATH": "/nowhere"}) == "/bin/sh"
    with pytest.raises(CommandError):
        find_program(["sh"], {"PATH": "/nowhere"})


def test_a_foreground_terminal_is_recognised() -> None:
    """Only there must the app share our process group."""
    question = "import os, sys; from sidecar.child import shares_terminal; sys.exit(shares_terminal())"
    without = subprocess.run([sys.executable, "-c", question], stdin=subprocess.DEVNULL)
    assert without.returncode == 0
    # pty.fork makes a session whose terminal has the child in its foreground; it wants a process without threads.
    in_terminal = f"""
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-c", {question!r}])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    within = subprocess.run([sys.executable, "-c", in_terminal])
    assert within.returncode == 1
