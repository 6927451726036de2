"""`python -m benchmarks`: what `make bench` runs."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from benchmarks import interpreter, report, tools
from benchmarks.envoy import Envoy
from benchmarks.haproxy import HAProxy
from benchmarks.load import LoadFailed
from benchmarks.ours import Ours
from benchmarks.runner import Options, run
from benchmarks.scenarios import SCENARIOS
from benchmarks.system import APART, FREE, TOGETHER, Cores, NotStarted, System
from sidecar.config import Config

LATEST = tools.ROOT / "benchmarks" / "results" / "latest.json"
QUICK = 0.2
NAMES = ("ours", "base", "envoy", "haproxy")


def machine(cores: Cores) -> dict[str, object]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "pinned": asdict(cores),
    }


def systems_of(names: Sequence[str], engine: str, tree: Path, base: Path | None, python: str) -> list[System]:
    """Raises Missing."""
    made: list[System] = []
    if "ours" in names:
        made.append(Ours(engine, tree=tree.resolve(), python=python))
    if "base" in names and base:
        made.append(Ours(engine, name="base", tree=base.resolve(), python=python))
    if "envoy" in names:
        made.append(Envoy())
    if "haproxy" in names and tools.find("haproxy"):
        made.append(HAProxy())
    return made


@click.command(help="Paired runs against Envoy, as ratios. docs/performance.md says how to read them.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option(
    "--scenario",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(SCENARIOS)),
    help="Again for more; all. Scenario 9, memory, is read off whichever run.",
)
@click.option(
    "--engine", default=Config(service="-").http2_engine, show_default=True, type=click.Choice(["relay", "reference"])
)
@click.option("--pinning", default=TOGETHER, show_default=True, type=click.Choice([TOGETHER, APART, FREE]))
@click.option("--quick", is_flag=True, help="A fifth of the work; writes nothing without --output.")
@click.option("--only", type=click.Choice(NAMES), help="One system, absolute figures, no ratios.")
@click.option("--without", multiple=True, type=click.Choice(NAMES[1:]), help="Leave this one out.")
@click.option(
    "--tree",
    default=tools.ROOT,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The checkout to run as ours; this one.",
)
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkout of this project, as one more column: what a change gave.",
)
@click.option(
    "--python",
    default="fastest",
    show_default=True,
    help="What runs our sidecars: the fastest CPython that is installed, the project's `own`, or a path.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Where results go; results/latest.json.")
def main(
    rounds: int, numbers: tuple[int, ...], engine: str, pinning: str, quick: bool, only: str | None,
    without: tuple[str, ...], tree: Path, base: Path | None, python: str, output: Path | None,
) -> None:  # fmt: skip
    names = [only] if only else [name for name in NAMES if name not in without]
    path = output or (None if quick or only or tree.resolve() != tools.ROOT.resolve() else LATEST)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        if python == "fastest":
            python = interpreter.fastest()
        elif python == "own":
            python = sys.executable
        systems = systems_of(names, engine, tree, base, python)
        options = Options(rounds=rounds, share=QUICK if quick else 1.0, cores=Cores.choose(pinning), say=click.echo)
        versions = {system.name: system.version for system in systems}
        records = {}
        for number in numbers or SCENARIOS:
            scenario = SCENARIOS[number]
            click.echo(f"scenario {number}: {scenario.title}")
            results = run(scenario, systems, options)
            about: dict[str, object] = {
                "date": now(),
                "engine": engine,
                "pinning": pinning,
                "rounds": rounds,
                "quick": quick,
                "versions": versions,
            }
            records[str(number)] = report.scenario_record(scenario, results, about)
            for line in report.table(records[str(number)], number):
                click.echo(line)
    except (tools.Missing, NotStarted, LoadFailed) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
    if path:
        report.write(
            path, {"date": now(), "machine": machine(options.cores), "versions": versions, "engine": engine}, records
        )
        click.echo(f"written to {path}")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
