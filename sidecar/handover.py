"""From the command line's process to the sidecar's: the same process, begun anew with less in it.

`hauberk` reads arguments (click) and the configuration (PyYAML), both of no use afterwards, and Python gives no memory
back for a module once imported. So with the configuration read and checked, the process executes itself anew
(execve(2): same pid, same standard streams, same environment) as `python -m sidecar`, and finds the configuration in
a memory file (memfd_create(2)), which has no name and is closed before the app starts.

The environment has only what the user set: the configuration holds no secret, and is not in the arguments either,
where it would be long to look at. `-P` keeps the working directory off the import path, as it is for `hauberk`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sidecar.config import Config
from sidecar.describe import dump, undump


def become_sidecar(config: Config, command: Sequence[str] = ()) -> NoReturn:
    """Run as a sidecar with `config`, beside `command` if there is one. Raises OSError, or does not return."""
    descriptor = os.memfd_create("configuration", 0)  # not close-on-exec: it is to be inherited, this once
    octets = dump(config)
    written = os.write(descriptor, octets)
    assert written == len(octets)
    os.lseek(descriptor, 0, os.SEEK_SET)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [sys.executable, "-P", "-m", "sidecar", str(descriptor), *command]
    os.execv(sys.executable, arguments)  # noqa: S606 - a list, no shell, our own interpreter


def received_config(descriptor: int) -> Config:
    """What `become_sidecar` was given; `descriptor` is closed, so that the app does not inherit it."""
    with open(descriptor, "rb") as file:
        return undump(file.read())
