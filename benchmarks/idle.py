"""Connections that are opened, used for one request and then held: what 1,000 of them cost in memory.

`python -m benchmarks.idle PORT COUNT` opens them, prints a line when all were answered, and holds them until its
standard input ends.
"""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events

from benchmarks import work
from benchmarks.system import NotStarted, ended, pinned

HOLDING = "holding"
ANSWER_S = 30.0


def open_one(port: int, rng: random.Random) -> socket.socket:
    """An HTTP/2 connection on which one request was answered. NotStarted if it was not."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
    session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    session.initiate_connection()
    target = next(work.targets(work.paths(), 1, rng))
    fields = [tuple(header.split(": ", 1)) for header in work.headers(rng)]
    head = [(":method", "GET"), (":scheme", "http"), (":authority", work.SERVICE), (":path", target), *fields]
    session.send_headers(1, head, end_stream=True)
    sock.sendall(session.data_to_send())
    while data := sock.recv(65_536):
        for event in session.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived) and dict(event.headers)[":status"] != "200":
                raise NotStarted(f"an idle connection was answered {dict(event.headers)[':status']}")
            if isinstance(event, h2.events.StreamEnded):
                sock.sendall(session.data_to_send())
                return sock
        sock.sendall(session.data_to_send())
    raise NotStarted("an idle connection was closed instead of answered")


@contextlib.contextmanager
def held(port: int, count: int, *, core: int) -> Iterator[None]:
    """While the block runs, a process holds `count` connections. Raises NotStarted."""
    command = pinned(core, [sys.executable, "-m", "benchmarks.idle", str(port), str(count)])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline().decode().strip() != HOLDING:
            raise NotStarted(f"{count} idle connections could not be opened")
        yield
    finally:
        process.stdin.close()
        ended(process)
        process.stdout.close()


def main() -> None:
    port, count = map(int, sys.argv[1:])
    rng = random.Random(port)
    connections = [open_one(port, rng) for _ in range(count)]
    sys.stdout.write(f"{HOLDING}\n")
    sys.stdout.flush()
    sys.stdin.read()
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main()
