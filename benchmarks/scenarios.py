"""THE TABLE: what is measured, scenario by scenario, in the numbering and words of the goal.

Each scenario is one or more loads, run one after the other in every round. A share of the work (`--quick`) changes how
many requests are made, never how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.load import Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    number: int
    title: str
    loads: Mapping[str, Load]
    """By name; a single one is called "all"."""
    is_http1: bool = False
    """What the app speaks."""
    is_grpc: bool = False
    """Every answer ends in trailers."""
    crowd: bool = False
    """500 endpoints and 5,000 rules that match nothing."""
    idle_connections: int = 0
    """Held open while the load runs."""


BUSY = Load(requests=20_000)
"""Eight connections of sixteen streams each: eight h2loads, so that each connection has headers of its own."""

SCENARIOS: Mapping[int, Scenario] = {
    one.number: one
    for one in (
        Scenario(number=1, title="HTTP/2, 1 KiB, 8 x 16 streams, 200 paths", loads={"all": BUSY}),
        Scenario(
            number=2,
            title="HTTP/1.1 at both ends, 1 KiB, 128 connections, 200 paths",
            loads={"all": Load(requests=20_000, connections=16, streams=1, is_http1=True)},
            is_http1=True,
        ),
        Scenario(number=3, title="gRPC, unary, 100 B", loads={"all": Load(requests=20_000, kind="grpc")}, is_grpc=True),
        Scenario(
            number=4,
            title="one stream at a time",
            loads={"all": Load(requests=5_000, processes=1, streams=1)},
        ),
        Scenario(
            number=5, title="open loop, 1,000 requests a second", loads={"all": Load(requests=10_000, rate=1_000)}
        ),
        Scenario(
            number=6,
            title="10 MB bodies, down and up",
            loads={
                "down": Load(requests=40, processes=2, streams=2, kind="download"),
                "up": Load(requests=40, processes=2, streams=2, kind="upload"),
            },
        ),
        Scenario(
            number=7,
            title="1,000 idle connections and 100 busy ones",
            loads={"all": Load(requests=20_000, processes=4, connections=25, streams=1)},
            idle_connections=1_000,
        ),
        Scenario(
            number=8,
            title="scenario 1 with 500 endpoints and 5,000 rules that match nothing",
            loads={"all": Load(requests=10_000)},
            crowd=True,
        ),
    )
}
"""Scenario 9, resident memory, is read off all others: idle before the load, and after it."""
