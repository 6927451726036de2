"""What befalls the simulated mesh in a year: drawn from a seed before anything runs, so that a seed says it all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0
YEAR_S = 365 * DAY_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One event. `at` and `for_s` in seconds of the simulation."""

    at: float
    kind: str
    """restart | partition | jump | control plane down | control plane restart | control plane jump | revoke identity |
    revoke serial | prepare root | taint intermediate | clone"""
    for_s: float = 0.0
    nodes: tuple[int, ...] = ()
    by_s: float = 0.0
    """How far a clock jumps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How many of each in a year, on average."""

    restarts: float = 600
    partitions: float = 60
    jumps: float = 120
    control_downs: float = 12
    control_restarts: float = 12
    identities_revoked: float = 6
    serials_revoked: float = 12
    roots_prepared: float = 2
    intermediates_tainted: float = 3
    control_jumps: float = 0
    """Of the control plane's clock."""


def schedule(rng: random.Random, node_count: int, rates: Rates, *, from_s: float, until_s: float) -> list[Fault]:
    """All faults between two times, in order."""
    share = (until_s - from_s) / YEAR_S
    found: list[Fault] = []

    def some(rate: float) -> Sequence[float]:
        count = int(rate * share + rng.random())
        return [rng.uniform(from_s, until_s) for _ in range(count)]

    def one() -> tuple[int, ...]:
        return (rng.randrange(node_count),)

    for at in some(rates.restarts):
        # Most are back in a moment; a laptop in a drawer is back after its certificate's end.
        down_s = rng.choice((1.0, 10.0, 10.0, 5 * MINUTE_S, HOUR_S, DAY_S, rng.uniform(1, 50) * DAY_S))
        found.append(Fault(at=at, kind="restart", nodes=one(), for_s=down_s))
    for at in some(rates.partitions):
        # A site is cut off for hours or a day; who is cut off for weeks is one or a few.
        size = rng.choice((1, 1, 3, max(1, node_count // 4), max(1, node_count // 2)))
        is_few = size <= 3
        nodes = tuple(sorted(rng.sample(range(node_count), min(size, node_count))))
        for_s = rng.choice((30.0, HOUR_S, DAY_S, 50 * DAY_S) if is_few else (30.0, HOUR_S, 6 * HOUR_S, 2 * DAY_S))
        for_s *= rng.uniform(0.5, 1.0)
        found.append(Fault(at=at, kind="partition", nodes=nodes, for_s=for_s))
    for at in some(rates.jumps):
        by_s = rng.choice((-1, 1)) * rng.choice((30.0, HOUR_S, 6 * HOUR_S, 3 * DAY_S, 100 * DAY_S))
        found.append(Fault(at=at, kind="jump", nodes=one(), for_s=rng.choice((MINUTE_S, HOUR_S, 2 * DAY_S)), by_s=by_s))
    for at in some(rates.control_downs):
        for_s = rng.choice((MINUTE_S, HOUR_S, 6 * HOUR_S, rng.uniform(0.2, 1) * DAY_S))
        found.append(Fault(at=at, kind="control plane down", for_s=for_s))
    found += [Fault(at=at, kind="control plane down", for_s=1.0) for at in some(rates.control_restarts)]
    for at in some(rates.identities_revoked):
        found.append(Fault(at=at, kind="revoke identity", nodes=one(), for_s=rng.uniform(0.1, 20) * DAY_S))
    found += [Fault(at=at, kind="revoke serial", nodes=one()) for at in some(rates.serials_revoked)]
    found += [Fault(at=at, kind="prepare root") for at in some(rates.roots_prepared)]
    found += [Fault(at=at, kind="taint intermediate") for at in some(rates.intermediates_tainted)]
    for at in some(rates.control_jumps) if rates.control_jumps else ():
        by_s = rng.choice((-1, 1)) * rng.choice((HOUR_S, DAY_S, 10 * DAY_S, 60 * DAY_S))
        found.append(Fault(at=at, kind="control plane jump", for_s=rng.choice((MINUTE_S, HOUR_S, DAY_S)), by_s=by_s))
    return sorted(found, key=lambda fault: (fault.at, fault.kind, fault.nodes))
