"""From samples to ratios ours/other, to a table people read, and to results/latest.json.

A ratio is taken round by round, of two samples taken within seconds of each other; min, median and max are over rounds.
Below 1 is better for CPU, latency and memory; above 1 for throughput and bytes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.account import Memory
from benchmarks.runner import PLAIN, Result, Sample
from benchmarks.scenarios import Scenario

Json = dict[str, Any]

PER_REQUEST: Mapping[str, Callable[[Sample], float]] = {
    "cpu_per_request": lambda one: one.cpu_us_per_request,
    "throughput": lambda one: one.requests_per_s,
    "p50": lambda one: one.p50_us,
    "p99": lambda one: one.p99_us,
    "p999": lambda one: one.p999_us,
    "bytes_per_cpu_second": lambda one: one.octets_per_cpu_s,
}


SHORT = ("cpu_per_request_ratio", "throughput_ratio", "p50_ratio", "p99_ratio", "memory_ratio")
"""What the table shows of the comparisons with others than Envoy."""


def spread(values: Sequence[float]) -> Json:
    """min, median, max. ValueError without values."""
    if not values:
        raise ValueError("no values, no spread")
    return {"min": rounded(min(values)), "median": rounded(statistics.median(values)), "max": rounded(max(values))}


def rounded(value: float) -> float:
    """Four significant digits are more than a noisy machine can tell."""
    return float(f"{value:.4g}")


def ratios(ours: Sequence[float], other: Sequence[float]) -> list[float]:
    """Round by round. ValueError if the rounds do not match."""
    return [one / two for one, two in zip(ours, other, strict=True)]


def combined(samples: Sequence[Sequence[Sample]]) -> list[Sample]:
    """A scenario's loads as one: per round, sums of what adds up and the worst of the percentiles."""
    return [
        Sample(
            requests=sum(one.requests for one in parts),
            elapsed_s=sum(one.elapsed_s for one in parts),
            outbound_cpu_s=sum(one.outbound_cpu_s for one in parts),
            inbound_cpu_s=sum(one.inbound_cpu_s for one in parts),
            octets=sum(one.octets for one in parts),
            p50_us=max(one.p50_us for one in parts),
            p99_us=max(one.p99_us for one in parts),
            p999_us=max(one.p999_us for one in parts),
        )
        for parts in zip(*samples, strict=True)
    ]


def absolute(result: Result, loads: Sequence[str]) -> Json:
    """One system's own figures."""

    def figures(samples: Sequence[Sample]) -> Json:
        return {
            "cpu_us_per_request": spread([one.cpu_us_per_request for one in samples]),
            "outbound_cpu_us_per_request": spread([one.outbound_cpu_s / one.requests * 1e6 for one in samples]),
            "inbound_cpu_us_per_request": spread([one.inbound_cpu_s / one.requests * 1e6 for one in samples]),
            "requests_per_s": spread([one.requests_per_s for one in samples]),
            "p50_us": spread([one.p50_us for one in samples]),
            "p99_us": spread([one.p99_us for one in samples]),
            "p999_us": spread([one.p999_us for one in samples]),
            "bytes_per_cpu_second": spread([one.octets_per_cpu_s for one in samples]),
            "requests": samples[0].requests,
        }

    found = figures(combined(list(result.samples.values())))
    if len(loads) > 1:
        found["parts"] = {name: figures(result.samples[name]) for name in loads}
    found["memory"] = {"idle": octets(result.idle), "after": octets(result.after)}
    if result.connection_octets:
        found["idle_connection_octets"] = {name: rounded(value) for name, value in result.connection_octets.items()}
    return found


def octets(memory: Memory) -> Json:
    return {"rss_octets": memory.rss_octets, "pss_octets": memory.pss_octets}


def compared(ours: Result, other: Result, loads: Sequence[str]) -> Json:
    """All ratios ours/other of one scenario."""

    def of(mine: Sequence[Sample], theirs: Sequence[Sample]) -> Json:
        return {
            f"{name}_ratio": spread(ratios([read(one) for one in mine], [read(one) for one in theirs]))
            for name, read in PER_REQUEST.items()
        }

    found = of(combined(list(ours.samples.values())), combined(list(other.samples.values())))
    if len(loads) > 1:
        found["parts"] = {name: of(ours.samples[name], other.samples[name]) for name in loads}
    found["idle_memory_ratio"] = spread([ours.idle.rss_octets / other.idle.rss_octets])
    found["after_memory_ratio"] = spread([ours.after.rss_octets / other.after.rss_octets])
    found["memory_ratio"] = found["after_memory_ratio"]
    if ours.connection_octets and other.connection_octets:
        for kind, value in ours.connection_octets.items():
            found[f"idle_{kind}_connection_memory_ratio"] = spread([value / other.connection_octets[kind]])
        both = sum(ours.connection_octets.values()) / sum(other.connection_octets.values())
        found["memory_ratio"] = spread([both])  # what scenario 7 is about: memory for an idle connection
    return found


def scenario_record(scenario: Scenario, results: Mapping[str, Result], about: Mapping[str, object]) -> Json:
    """One entry of `scenarios`: ratios to Envoy at its top, to others under `against`, and everybody's own figures."""
    loads = list(scenario.loads)
    record: Json = {"title": scenario.title, **about}
    if "ours" in results and "envoy" in results:
        record.update(compared(results["ours"], results["envoy"], loads))
    further = {
        name: compared(results["ours"], result, loads)
        for name, result in results.items()
        if "ours" in results and name not in ("ours", "envoy")
    }
    if PLAIN in further:
        record["growth_ratio"] = further[PLAIN]["cpu_per_request_ratio"]
    if further:
        record["against"] = further
    record["absolute"] = {name: absolute(result, loads) for name, result in results.items()}
    return record


def memory_record(scenarios: Mapping[str, Json]) -> Json | None:
    """Scenario 9, from all others: resident memory idle, and after each. None without a comparison."""
    compared_ones = {name: one for name, one in scenarios.items() if "idle_memory_ratio" in one and name != "9"}
    if not compared_ones:
        return None
    plain = {name: one for name, one in compared_ones.items() if name != "8"}
    idle = [one["idle_memory_ratio"]["median"] for one in (plain or compared_ones).values()]
    return {
        "title": "resident memory, idle and after each scenario",
        "memory_ratio": spread(idle),
        "after": {name: one["after_memory_ratio"] for name, one in compared_ones.items()},
    }


def table(record: Json, number: int | str) -> Iterator[str]:
    """Lines for people: one for each ratio."""
    yield f"scenario {number}: {record['title']}"
    for against, found in [("envoy", record), *record.get("against", {}).items()]:
        parts = [("", found), *found.get("parts", {}).items()]
        for part, ratios_of in parts:
            for name, value in ratios_of.items():
                if name.endswith("_ratio") and (name in SHORT or (against == "envoy" and name != "growth_ratio")):
                    label = f"{part + ' ' if part else ''}{name.removesuffix('_ratio')}"
                    yield (
                        f"  ours/{against:8} {label:28}"
                        f" min {value['min']:8.3f}   median {value['median']:8.3f}   max {value['max']:8.3f}"
                    )


def write(path: Path, header: Mapping[str, object], scenarios: Mapping[str, Json]) -> None:
    """Scenarios that were not run this time stay as they are; each says when and with what it was measured."""
    document: Json = json.loads(path.read_text()) if path.exists() else {}
    merged = {**document.get("scenarios", {}), **scenarios}
    if memory := memory_record(merged):
        merged["9"] = memory
    content = {**header, "scenarios": {name: merged[name] for name in sorted(merged)}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
