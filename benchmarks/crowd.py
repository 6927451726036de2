"""Workloads that join over the real API, say where they can be reached, and are never called (scenario 8).

`python -m benchmarks.crowd` reads a plan from its standard input's first line, prints a line when everybody is known,
and keeps their streams up until its standard input ends. One process stands for all of them: each service joins with a
token of its own, and each of its instances is a Watch stream, as a sidecar's is.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import trio

from benchmarks.system import NotStarted, ended, pinned
from benchmarks.tools import ROOT
from certs.spiffe_id import SpiffeId, TrustDomain
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.config import Config
from sidecar.config_load import parse
from sidecar.control.rpc import Channel, StreamCall, open_channel
from sidecar.control.watcher import WATCH_PATH
from sidecar.identity.bootstrap import join, read_token
from sidecar.net.tls import client_context

HOLDING = "holding"
PORT = 8080
TOGETHER = 8
"""Joins at once."""
JOINING_S = 60.0

Json = dict[str, Any]


async def _instance(channel: Channel, name: str, address: str, known: trio.MemorySendChannel[str]) -> None:
    async with channel.stream(WATCH_PATH, pb.Snapshot) as call:
        hello = pb.Hello(sidecar_version="0", instance=name, clock=time.time(), certificate_not_after=time.time() + 600)
        await call.send(pb.WatchRequest(hello=hello))
        port = pb.InboundPort(port=PORT, protocol=pb.PROTOCOL_HTTP1)
        await call.send(pb.WatchRequest(advertise=pb.Advertise(address=address, ports=[port])))
        await _acknowledge(call, name, known)


async def _acknowledge(call: StreamCall[pb.Snapshot], name: str, known: trio.MemorySendChannel[str]) -> None:
    is_first = True
    async for snapshot in call:
        await call.send(pb.WatchRequest(ack=pb.Ack(epoch=snapshot.epoch, version=snapshot.version)))
        if is_first:
            await known.send(name)
        is_first = False


async def _service(
    config: Config, addresses: Sequence[str], known: trio.MemorySendChannel[str], limiter: trio.CapacityLimiter
) -> None:
    async with limiter:
        joined = await join(config, read_token(config.join_token_file), time.time)
    domain = TrustDomain.parse(config.trust_domain)
    context = client_context(joined.svid, joined.bundle)
    expected = SpiffeId.for_control_plane(domain)
    async with (
        open_channel(config.control_plane, context, domain, expected, clock=time.time) as channel,
        trio.open_nursery() as nursery,
    ):
        for index, address in enumerate(addresses):
            nursery.start_soon(_instance, channel, f"{config.service}-{index}", address, known)


async def _crowd(plan: Json) -> None:
    send, receive = trio.open_memory_channel[str](1_000)
    limiter = trio.CapacityLimiter(TOGETHER)
    async with trio.open_nursery() as nursery:
        for member in plan["members"]:
            fields = {name: member[name] for name in ("service", "namespace", "join_token_file")}
            config = parse({**fields, "control_plane": plan["control_plane"]}, "plan")
            nursery.start_soon(_service, config, member["addresses"], send, limiter)
        for _ in range(sum(len(member["addresses"]) for member in plan["members"])):
            await receive.receive()
        sys.stdout.write(f"{HOLDING}\n")
        sys.stdout.flush()
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            pass
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def gathered(plan: Json, *, core: str) -> Iterator[None]:
    """While the block runs, everybody in the plan is a member. Raises NotStarted."""
    command = pinned(core, [sys.executable, "-m", "benchmarks.crowd"])
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        process.stdin.flush()
        if process.stdout.readline().decode().strip() != HOLDING:
            raise NotStarted("not all of the crowd could join")
        yield
    finally:
        process.stdin.close()
        ended(process)
        process.stdout.close()


if __name__ == "__main__":
    trio.run(_crowd, json.loads(sys.stdin.readline()))
