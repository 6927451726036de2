"""Where the time of one sidecar goes: ours alone, driven by a scenario's load, under py-spy or perf.

    .venv/bin/python -m benchmarks.profile --scenario 1 --sidecar inbound --engine relay

py-spy samples Python frames; its table says how much of the time at work went to a function itself and to what it
called. perf counts what the process does in the kernel and in C, which for a proxy is where TLS and the sockets are.
`--output` keeps the stacks (py-spy: collapsed, one stack a line, what flame graph tools read; perf: perf.data).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks import apps, tools
from benchmarks.load import Load, LoadFailed
from benchmarks.ours import Ours
from benchmarks.runner import Driver, last_words
from benchmarks.scenarios import SCENARIOS
from benchmarks.system import Cores, NotStarted, Running, Setup, pinned
from sidecar.config import Config

WAITING = "EpollIOManager.get_events"
RATE = 400
"""Samples a second; not a divisor of anything periodic in the program would be better still."""


def parse_collapsed(lines: Iterable[str]) -> Counter[tuple[str, ...]]:
    """`a;b;c 12` -> {(a, b, c): 12}. ValueError for a line that is none."""
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        frames, _, count = line.rpartition(" ")
        stacks[tuple(frames.split(";"))] += int(count)
    return stacks


def at_work(stacks: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """Without those that wait for a socket, or to get their core back: py-spy cannot tell one from the other."""
    return Counter({stack: count for stack, count in stacks.items() if not stack[-1].startswith(WAITING)})


def summed(stacks: Counter[tuple[str, ...]]) -> list[tuple[str, float, float]]:
    """(function, share itself, share with what it called), most itself first."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for frame in set(stack):
            total[frame] += count
    everything = stacks.total() or 1
    found = [(name, own[name] / everything, total[name] / everything) for name in total]
    return sorted(found, key=lambda one: (-one[1], -one[2], one[0]))


def table(stacks: Counter[tuple[str, ...]], rows: int) -> Iterator[str]:
    yield "  itself   with callees   function"
    for name, own, total in summed(stacks)[:rows]:
        yield f"  {own:6.1%}   {total:12.1%}   {name}"


def under_py_spy(pid: int, seconds: int, output: Path, *, core: str, by_line: bool) -> list[str]:
    command = [
        tools.in_venv("py-spy"), "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(RATE),
        "--format", "raw", "--output", str(output), "--nonblocking", *([] if by_line else ["--function"]),
    ]  # fmt: skip
    subprocess.run(pinned(core, command), check=True, stdout=subprocess.DEVNULL)
    return list(table(at_work(parse_collapsed(output.read_text().splitlines())), 60))


def under_perf(pid: int, seconds: int, output: Path, *, core: str) -> list[str]:
    perf = tools.need("perf")
    record = [perf, "record", "-e", "cpu-clock", "-F", "999", "-g", "-p", str(pid), "-o", str(output)]
    subprocess.run(pinned(core, [*record, "--", "sleep", str(seconds)]), check=True, capture_output=True)
    report = [perf, "report", "-i", str(output), "--no-children", "--stdio", "-g", "none", "--percent-limit", "0.5"]
    return subprocess.run(report, check=True, capture_output=True, text=True).stdout.splitlines()


def kept_busy(driver: Driver, load: Load, running: Running, done: threading.Event) -> None:
    """Load until `done` is set."""
    while not done.is_set():
        driver.drive(load, running)


@click.command(help="One sidecar of ours under load, and where its time goes.")
@click.option("--scenario", "number", default=1, show_default=True, type=click.Choice([str(one) for one in SCENARIOS]))
@click.option("--part", help="Which load of a scenario that has several: down or up.")
@click.option("--sidecar", default="inbound", show_default=True, type=click.Choice(["inbound", "outbound"]))
@click.option(
    "--engine", default=Config(service="-").http2_engine, show_default=True, type=click.Choice(["relay", "reference"])
)
@click.option(
    "--tree",
    default=tools.ROOT,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The checkout to run; this one.",
)
@click.option("--tool", default="py-spy", show_default=True, type=click.Choice(["py-spy", "perf"]))
@click.option("--by-line", is_flag=True, help="py-spy: lines instead of functions.")
@click.option("--seconds", default=8, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Keep the stacks here.")
def main(
    number: str,
    part: str | None,
    sidecar: str,
    engine: str,
    tree: Path,
    tool: str,
    by_line: bool,
    seconds: int,
    output: Path | None,
) -> None:
    scenario = SCENARIOS[int(number)]
    load = scenario.loads[part] if part else next(iter(scenario.loads.values()))
    cores = Cores.choose()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        directory = Path(name)
        try:
            driver = Driver(directory, cores)
            if scenario.is_http1:
                app = apps.start_http1(stack, directory=directory, files=driver.files, core=cores.rest)
            else:
                app = apps.start_http2(
                    stack, directory=directory, files=driver.files, core=cores.rest, is_grpc=scenario.is_grpc
                )
            own = directory / "ours"
            own.mkdir()
            setup = Setup(app=app, is_http1=scenario.is_http1, crowd=scenario.crowd, cores=cores, directory=own)
            running = stack.enter_context(Ours(engine, tree=tree.resolve()).start(setup))
            pid = (running.inbound if sidecar == "inbound" else running.outbound)[0]
            driver.drive(load.scaled(0.1), running)
            done = threading.Event()
            busy = threading.Thread(target=kept_busy, args=(driver, load, running, done))
            busy.start()
            try:
                file = output or directory / "stacks"
                if tool == "perf":
                    lines = under_perf(pid, seconds, file, core=cores.rest)
                else:
                    lines = under_py_spy(pid, seconds, file, core=cores.rest, by_line=by_line)
            finally:
                done.set()
                busy.join()
        except (tools.Missing, NotStarted, LoadFailed) as error:
            click.echo(f"profile: {error}\n{last_words(directory)}", err=True)
            sys.exit(1)
    for line in lines:
        click.echo(line)


if __name__ == "__main__":
    main()
