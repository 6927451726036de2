"""Samples and results with made-up figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.account import Memory
from benchmarks.runner import Result, Sample


def sample(cpu_us: float, *, requests: int = 100, elapsed_s: float = 1.0, latency_us: float = 1_000.0) -> Sample:
    """`cpu_us` for each request, a quarter of it in the outbound sidecar."""
    return Sample(
        requests=requests,
        elapsed_s=elapsed_s,
        outbound_cpu_s=cpu_us * requests / 4e6,
        inbound_cpu_s=cpu_us * requests * 3 / 4e6,
        octets=1_024 * requests,
        p50_us=latency_us,
        p99_us=2 * latency_us,
        p999_us=3 * latency_us,
    )


def result(
    rounds: Mapping[str, Sequence[Sample]], *, idle: int = 50, after: int = 100, held: Mapping[str, float] | None = None
) -> Result:
    """`idle` and `after` in octets of resident memory."""
    return Result(
        idle=Memory(rss_octets=idle, pss_octets=idle // 2),
        after=Memory(rss_octets=after, pss_octets=after // 2),
        samples={name: list(samples) for name, samples in rounds.items()},
        connection_octets=held or {},
    )
