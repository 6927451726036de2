"""The straight line: start every system, warm it up, then round by round drive one after the other with the same work.

All systems of a scenario run at once and only one of them is driven: one that nobody asks anything uses next to no CPU.
Who comes first changes from round to round. A ratio is of two samples of one round, taken within seconds of each other.
"""

from __future__ import annotations

import http.client
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import account, apps, work
from benchmarks.account import Memory
from benchmarks.idle import held
from benchmarks.load import Load, LoadFailed, command, elapsed_s, parse_log, parse_totals, percentile
from benchmarks.scenarios import Scenario
from benchmarks.system import Cores, NotStarted, Running, Setup, System, pinned
from benchmarks.tools import need

LOAD_S = 180.0
ANSWER_S = 10.0
PLAIN = "plain"
"""Ours without the crowd, in scenario 8."""
LAST_WORDS = 1_500
WARM_UP = 0.1
"""Of a round's work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One system, one load, one round."""

    requests: int
    elapsed_s: float
    outbound_cpu_s: float
    inbound_cpu_s: float
    octets: int
    """Of the bodies that count: all requests' or all answers', whichever the load is about."""
    p50_us: float
    p99_us: float
    p999_us: float

    @property
    def cpu_us_per_request(self) -> float:
        return (self.outbound_cpu_s + self.inbound_cpu_s) / self.requests * 1e6

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.elapsed_s

    @property
    def octets_per_cpu_s(self) -> float:
        return self.octets / (self.outbound_cpu_s + self.inbound_cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One system in one scenario."""

    idle: Memory
    """Of both sidecars, before the first request."""
    after: Memory
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """By load, in the order of rounds."""
    connection_octets: Mapping[str, float] = field(default_factory=dict)
    """Resident memory of both sidecars for one idle connection (scenario 7): "app" in the clear, "mesh" with TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    rounds: int
    share: float
    """Of the work each round."""
    cores: Cores
    say: Callable[[str], None]
    """Progress, for people."""


class Driver:
    """Sends loads; everything it needs is written once."""

    def __init__(self, directory: Path, cores: Cores) -> None:
        self._h2load = need("h2load")
        self._directory = directory
        self._cores = cores
        self._rng = random.Random(7)
        self.files = directory / "files"
        work.write_files(self.files)

    def drive(self, load: Load, running: Running) -> Sample:
        """Raises LoadFailed unless every single request was answered 200."""
        before = cpu_of(running)
        outputs, requests = [], []
        processes = []
        for index in range(load.processes):
            log = self._directory / f"load-{index}.log"
            log.unlink(missing_ok=True)
            targets, headers, body = self._what(load, index)
            words = command(self._h2load, load, port=running.port, targets=targets, headers=headers, body=body, log=log)
            processes.append(
                subprocess.Popen(pinned(self._cores.rest, words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
        for process in processes:
            try:
                outputs.append(process.communicate(timeout=LOAD_S)[0].decode())
            except subprocess.TimeoutExpired:
                for one in processes:
                    one.kill()
                raise LoadFailed(f"not answered within {LOAD_S:g} s") from None
        after = cpu_of(running)
        for index, output in enumerate(outputs):
            totals = parse_totals(output)
            if totals.status_2xx != totals.total or totals.succeeded != totals.total:
                raise LoadFailed(f"not every request was answered 200:\n{output[-2_000:]}")
            requests += parse_log((self._directory / f"load-{index}.log").read_text())
        took = sorted(float(one.took_us) for one in requests)
        return Sample(
            requests=len(requests),
            elapsed_s=elapsed_s(requests),
            outbound_cpu_s=after[0] - before[0],
            inbound_cpu_s=after[1] - before[1],
            octets=body_octets(load.kind) * len(requests),
            p50_us=percentile(took, 0.5),
            p99_us=percentile(took, 0.99),
            p999_us=percentile(took, 0.999),
        )

    def _what(self, load: Load, index: int) -> tuple[Path, Sequence[str], Path | None]:
        """Targets, headers and body of one process. Targets are never used twice, not even in another round."""
        rng = self._rng
        path = self._directory / f"targets-{index}"
        choice, headers, body = {
            "get": (work.paths, work.headers, None),
            "grpc": (work.grpc_paths, work.grpc_headers, self.files / "request.grpc"),
            "download": (lambda: [work.large_path()], work.headers, None),
            "upload": (work.paths, work.headers, self.files / "request.large"),
        }[load.kind]
        per_process = load.requests // load.processes
        path.write_text(
            "".join(f"http://{work.SERVICE}.{work.NAMESPACE}:{work.SERVICE_PORT}{target}\n"
                    for target in work.targets(choice(), per_process, rng))
        )  # fmt: skip
        return path, headers(rng), body


def body_octets(kind: str) -> int:
    return {"get": work.BODY_OCTETS, "grpc": 2 * (work.GRPC_OCTETS + 5)}.get(kind, work.LARGE_OCTETS)


def cpu_of(running: Running) -> tuple[float, float]:
    """Seconds of sidecar A and of sidecar B."""
    return sum(map(account.cpu_s, running.outbound)), sum(map(account.cpu_s, running.inbound))


def memory_of(running: Running) -> Memory:
    return account.memory_of_all([*running.outbound, *running.inbound])


def run(scenario: Scenario, systems: Sequence[System], options: Options) -> dict[str, Result]:
    """By the systems' names. Raises LoadFailed and NotStarted, each with what the processes had to say, and Missing."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        try:
            return run_in(directory, scenario, systems, options)
        except (LoadFailed, NotStarted) as error:
            raise type(error)(f"{error}\n{last_words(directory)}") from error


def last_words(directory: Path) -> str:
    """The ends of all logs in it, but those of h2load."""
    logs = [path for path in sorted(directory.rglob("*.log")) if not path.name.startswith("load-")]
    found = {str(path.relative_to(directory)): path.read_text(errors="replace")[-LAST_WORDS:] for path in logs}
    return "".join(f"--- {name}\n{text}\n" for name, text in found.items() if text)


def run_in(directory: Path, scenario: Scenario, systems: Sequence[System], options: Options) -> dict[str, Result]:
    with ExitStack() as stack:
        cores = options.cores
        driver = Driver(directory, cores)
        if scenario.is_http1:
            app = apps.start_http1(stack, directory=directory, files=driver.files, core=cores.rest)
        else:
            app = apps.start_http2(
                stack, directory=directory, files=driver.files, core=cores.rest, is_grpc=scenario.is_grpc
            )
        running: dict[str, Running] = {}
        idle: dict[str, Memory] = {}
        for name, system, crowd in cast_of(scenario, systems):
            own = directory / name
            own.mkdir()
            setup = Setup(app=app, is_http1=scenario.is_http1, crowd=crowd, cores=cores, directory=own)
            running[name] = stack.enter_context(system.start(setup))
            check(name, running[name])
        for name, one in running.items():
            idle[name] = memory_of(one)
            for load in scenario.loads.values():
                driver.drive(load.scaled(options.share * WARM_UP), one)
        held_octets: dict[str, Mapping[str, float]] = {}
        if scenario.idle_connections:
            for name, one in running.items():
                held_octets[name] = hold(stack, one, scenario.idle_connections, cores)
        samples = measure(scenario, running, driver, options)
        return {
            name: Result(
                idle=idle[name],
                after=memory_of(one),
                samples=samples[name],
                connection_octets=held_octets.get(name, {}),
            )
            for name, one in running.items()
        }


def cast_of(scenario: Scenario, systems: Sequence[System]) -> list[tuple[str, System, bool]]:
    """(name, system, whether with the crowd). With a crowd, ours without it is one more: cost must not grow."""
    found = []
    for system in systems:
        found.append((system.name, system, scenario.crowd))
        if scenario.crowd and system.name == "ours":
            found.append((PLAIN, system, False))  # next to what it is compared with, as time goes
    return found


def check(name: str, running: Running) -> None:
    """That policy is in force: what a rule allows is answered, what none allows is denied. Raises NotStarted."""
    for path, wanted in ((work.paths()[-1], 200), (work.DENIED_PATH, 403)):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path, headers={"Host": f"{work.SERVICE}.{work.NAMESPACE}:{work.SERVICE_PORT}"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise NotStarted(f"{name}: GET {path}: {error!r}") from error
        finally:
            connection.close()
        if status != wanted:
            raise NotStarted(f"{name}: GET {path} was answered {status} and not {wanted}")


def hold(stack: ExitStack, running: Running, count: int, cores: Cores) -> dict[str, float]:
    """Opens `count` connections of each kind, held until `stack` ends; octets of resident memory for one of each."""
    found = {}
    for kind, port, files in (("app", running.port, None), ("mesh", running.mesh_port, running.caller)):
        before = memory_of(running).rss_octets
        stack.enter_context(held(port, count, core=cores.rest, files=files))
        found[kind] = (memory_of(running).rss_octets - before) / count
    return found


def measure(
    scenario: Scenario, running: dict[str, Running], driver: Driver, options: Options
) -> dict[str, dict[str, list[Sample]]]:
    samples: dict[str, dict[str, list[Sample]]] = {name: {load: [] for load in scenario.loads} for name in running}
    for number in range(options.rounds):
        order = list(running) if number % 2 == 0 else list(reversed(running))
        for load_name, load in scenario.loads.items():
            for name in order:
                sample = driver.drive(load.scaled(options.share), running[name])
                samples[name][load_name].append(sample)
        for line in round_lines(number, samples):
            options.say(line)
    return samples


def round_lines(number: int, samples: Mapping[str, Mapping[str, Sequence[Sample]]]) -> Iterator[str]:
    """The last round of every system and load, absolute: outbound and inbound sidecar apart, then both."""
    for name, loads in samples.items():
        for load, of in loads.items():
            one = of[-1]
            label = name if load == "all" else f"{name} {load}"
            yield (
                f"  round {number + 1}  {label:12}"
                f" {one.outbound_cpu_s / one.requests * 1e6:7.0f} + {one.inbound_cpu_s / one.requests * 1e6:7.0f}"
                f" = {one.cpu_us_per_request:7.0f} us CPU/request {one.requests_per_s:7.0f}/s"
                f"  p50 {one.p50_us:7.0f}  p99 {one.p99_us:7.0f} us"
            )
