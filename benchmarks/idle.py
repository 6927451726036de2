"""Connections that are opened, used for one request and then held: what 1,000 of them cost in memory.

`python -m benchmarks.idle PORT COUNT [CHAIN KEY ANCHORS]` opens them, in the clear or as another sidecar would, prints
a line when all were answered, and holds them until its standard input ends.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events

from benchmarks import work
from benchmarks.certificates import Files
from benchmarks.system import NotStarted, ended, pinned
from benchmarks.tools import ROOT

AUTHORITY = f"{work.SERVICE}.{work.NAMESPACE}:{work.SERVICE_PORT}"
HOLDING = "holding"
ANSWER_S = 30.0


def context_of(chain: str, key: str, anchors: str) -> ssl.SSLContext:
    """As sidecars have it; who answers is the systems' concern, not this test's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(anchors)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    return context


def open_one(port: int, rng: random.Random, context: ssl.SSLContext | None) -> socket.socket:
    """An HTTP/2 connection on which one request was answered. NotStarted if it was not."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
    if context:
        sock = context.wrap_socket(sock, server_hostname=work.SERVICE)
    session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    session.initiate_connection()
    target = next(work.targets(work.paths(), 1, rng))
    fields = [(name, value) for name, _, value in (header.partition(": ") for header in work.headers(rng))]
    head = [
        (":method", "GET"),
        (":scheme", "https" if context else "http"),
        (":authority", AUTHORITY),
        (":path", target),
        *fields,
    ]
    session.send_headers(1, head, end_stream=True)
    sock.sendall(session.data_to_send())
    while data := sock.recv(65_536):
        for event in session.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived) and (b":status", b"200") not in event.headers:
                raise NotStarted(f"the request on an idle connection was answered {event.headers}")
            if isinstance(event, h2.events.StreamEnded):
                sock.sendall(session.data_to_send())
                return sock
        sock.sendall(session.data_to_send())
    raise NotStarted("an idle connection was closed instead of answered")


@contextlib.contextmanager
def held(port: int, count: int, *, core: str, files: Files | None = None) -> Iterator[None]:
    """While the block runs, a process holds `count` connections, with mutual TLS if `files`. Raises NotStarted."""
    words = [sys.executable, "-m", "benchmarks.idle", str(port), str(count)]
    if files:
        words += [str(files.chain), str(files.key), str(files.anchors)]
    process = subprocess.Popen(pinned(core, words), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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
    port, count, files = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    context = context_of(*files) if files else None
    rng = random.Random(port)
    connections = [open_one(port, rng, context) for _ in range(count)]
    sys.stdout.write(f"{HOLDING}\n")
    sys.stdout.flush()
    sys.stdin.read()
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main()
