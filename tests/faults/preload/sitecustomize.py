"""Runs in a process under test before anything else: its resolver does what a file says.

The file is named by FAULTS_FILE and holds JSON: {"dns": "fails" or "works"}. It is read for each name. Names ending in
.test are this machine while the resolver works. Its disk: see `faulty_disk`.
"""

from __future__ import annotations

import json
import os
import socket

_path = os.environ.get("FAULTS_FILE", "")
_real = socket.getaddrinfo


def _getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> object:
    if isinstance(host, str) and host.endswith(".test"):
        with open(_path, encoding="ascii") as file:
            if json.load(file)["dns"] == "fails":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        host = "127.0.0.1"
    return _real(host, port, *args, **kwargs)  # type: ignore[arg-type]  # handed on as it came


if _path:
    socket.getaddrinfo = _getaddrinfo  # type: ignore[assignment]  # the same for all who ask here
if os.environ.get("FAULTS_DISK"):
    import faulty_disk  # type: ignore[import-not-found]  # beside this file, which is on the path there

    faulty_disk.install(os.environ["FAULTS_DISK"])
