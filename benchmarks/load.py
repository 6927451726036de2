"""h2load: its command, what it prints, and its log of requests, from which latencies are computed.

The log has one line a request: start in microseconds since the epoch, status, microseconds until the answer's end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class LoadFailed(Exception):
    """Not every request was answered as it should be: what was measured means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How one system is driven. `processes` h2loads run at once, each with headers of its own."""

    requests: int
    """Of all processes together."""
    processes: int = 8
    connections: int = 1
    """Of each process."""
    streams: int = 16
    """At once on each connection."""
    is_http1: bool = False
    kind: str = "get"
    """get | grpc | download | upload: which targets, headers and body."""
    rate: float = 0.0
    """Requests a second of all processes together, whatever the answers do; 0: as fast as answers come."""

    def scaled(self, factor: float) -> Load:
        """The same with fewer requests, at least one for every stream."""
        least = self.processes * self.connections * min(self.streams, 4)
        share = max(1, round(max(self.requests * factor, least) / self.processes))
        return Load(
            requests=share * self.processes, processes=self.processes, connections=self.connections,
            streams=self.streams, is_http1=self.is_http1, kind=self.kind, rate=self.rate,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of the log."""

    start_us: int
    status: int
    took_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What one h2load says at its end."""

    total: int
    succeeded: int
    status_2xx: int
    octets: int
    """Received: frames and all."""


TOTALS = re.compile(
    r"^requests: (?P<total>\d+) total, \d+ started, \d+ done, (?P<succeeded>\d+) succeeded, .*\n"
    r"status codes: (?P<status_2xx>\d+) 2xx, .*\n"
    r"traffic: \S+ \((?P<octets>\d+)\) total",
    re.MULTILINE,
)


def parse_totals(output: str) -> Totals:
    """LoadFailed if there are none."""
    found = TOTALS.search(output)
    if not found:
        raise LoadFailed(f"h2load did not finish:\n{output[-2_000:]}")
    return Totals(**{name: int(number) for name, number in found.groupdict().items()})


def parse_log(text: str) -> list[Request]:
    """ValueError for a line that is none; columns that are added later are left alone."""
    requests = []
    for line in text.splitlines():
        start, status, took, *_later = line.split("\t")
        requests.append(Request(start_us=int(start), status=int(status), took_us=int(took)))
    return requests


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed (nearest rank). ValueError without values."""
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def elapsed_s(requests: Sequence[Request]) -> float:
    """From the first request's start to the last answer's end."""
    return (max(one.start_us + one.took_us for one in requests) - min(one.start_us for one in requests)) / 1e6


def command(
    h2load: str, load: Load, *, port: int, targets: Path, headers: Sequence[str], body: Path | None, log: Path
) -> list[str]:
    """Of one of the processes."""
    per_client = load.processes * load.connections
    return [
        h2load,
        f"--requests={load.requests // load.processes}",
        f"--clients={load.connections}",
        f"--max-concurrent-streams={load.streams}",
        f"--input-file={targets}",
        f"--base-uri=http://127.0.0.1:{port}",
        f"--log-file={log}",
        *(["--h1"] if load.is_http1 else []),
        *([f"--rps={load.rate / per_client:g}"] if load.rate else []),
        *([f"--data={body}"] if body else []),
        *(word for header in headers for word in ("--header", header)),
    ]
