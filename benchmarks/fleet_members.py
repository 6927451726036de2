"""The sidecars of `benchmarks.fleet`: what a sidecar has towards its control plane, a thousand times in one process.

Each joins with a token of its own, holds its identity, keeps its Watch stream with the code that real sidecars run
(`ControlLink`, back-off and jitter included), decodes and acknowledges every snapshot. Only the data plane is missing.

It reads one command a line from standard input and answers each with one line of JSON:

    {"join": PLAN}          when all have a certificate and their first snapshot: seconds
    {"lost": true}          when no stream is up any more: seconds
    {"back": true}          when every stream is up again and brought a snapshot: seconds, and of each member
    {"renew": S, "at_once": N}  how many certificates were issued in S seconds, N members asking at once
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from certs.csr import make_csr
from certs.svid import new_private_key
from sidecar.config import Config
from sidecar.config_load import parse
from sidecar.control.watcher import ControlLink
from sidecar.identity.bootstrap import join, read_token
from sidecar.identity.source import IdentitySource
from sidecar.rules.snapshot import Snapshot

JOINING_AT_ONCE = 16
POLL_S = 0.01

Json = dict[str, Any]


class Fleet:
    """All members, and what is asked of them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._links: list[ControlLink] = []
        self._snapshots: list[int] = []
        """How many each member has applied."""
        self._certificates = 0

    async def join(self, plan: Json) -> Json:
        begun = time.perf_counter()
        limiter = trio.CapacityLimiter(JOINING_AT_ONCE)
        async with trio.open_nursery() as joining:
            for number, member in enumerate(plan["members"]):
                config = parse({**member, "control_plane": plan["control_plane"]}, "plan")
                joining.start_soon(self._join_one, number, config, limiter)
        joined = time.perf_counter()
        await until(lambda: len(self._links) == len(plan["members"]) and all(self._snapshots))
        return {"joined_s": joined - begun, "watching_s": time.perf_counter() - begun}

    async def lost(self) -> Json:
        begun = time.perf_counter()
        await until(lambda: not any(link.connected for link in self._links))
        self._snapshots = [0] * len(self._snapshots)
        return {"lost_s": time.perf_counter() - begun}

    async def back(self) -> Json:
        begun = time.perf_counter()
        each: dict[int, float] = {}

        def note() -> bool:
            for number, link in enumerate(self._links):
                if number not in each and link.connected:
                    each[number] = time.perf_counter() - begun
            return len(each) == len(self._links)

        await until(note)
        return {"back_s": time.perf_counter() - begun, "each_s": sorted(each.values())}

    async def renew(self, seconds: float, at_once: int) -> Json:
        begun = time.perf_counter()
        before, end = self._certificates, begun + seconds
        async with trio.open_nursery() as asking:
            for link in self._links[:at_once]:
                asking.start_soon(self._renew_until, link, end)
        took = time.perf_counter() - begun
        return {"certificates": self._certificates - before, "seconds": took}

    async def _renew_until(self, link: ControlLink, end: float) -> None:
        """One request made before and sent again and again: what is measured is the control plane, not our keys."""
        csr = make_csr(new_private_key(), None)
        while time.perf_counter() < end:
            await link.renew(csr)
            self._certificates += 1

    async def _join_one(self, number: int, config: Config, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            joined = await join(config, read_token(config.join_token_file), time.time)
        source = IdentitySource()
        source.set(svid=joined.svid, bundle=joined.bundle)
        self._snapshots.append(0)
        link = ControlLink(
            config=config,
            identity=joined.svid.spiffe_id,
            source=source,
            on_snapshot=partial(self._applied, len(self._snapshots) - 1),
            instance=f"member-{number}",
            clock=time.time,
            rng=random.Random(number),
        )
        self._links.append(link)
        await self._nursery.start(link.run)

    async def _applied(self, number: int, snapshot: Snapshot) -> None:
        self._snapshots[number] += 1


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await trio.sleep(POLL_S)


async def obey() -> None:
    async with trio.open_nursery() as nursery:
        fleet = Fleet(nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            match json.loads(line):
                case {"join": plan}:
                    answer = await fleet.join(plan)
                case {"lost": _}:
                    answer = await fleet.lost()
                case {"back": _}:
                    answer = await fleet.back()
                case {"renew": seconds, "at_once": at_once}:
                    answer = await fleet.renew(seconds, at_once)
                case other:
                    raise ValueError(f"unknown command: {other}")
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # each says that it lost its control plane
    trio.run(obey)
