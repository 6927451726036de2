"""`hauberk demo`: what `make demo` shows first. All of it must be so, and nothing of it may be left behind."""

from __future__ import annotations

import secrets
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.http.engines import HTTP2_ENGINES
from tests.e2e.harness import HAUBERK, Process, end_marked, environment, eventually, marked

CHECK_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where demos are started, and how to find what they left."""

    directory: Path
    mark: str

    def start(self, *arguments: str) -> Process:
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        return Process(
            "demo",
            [*HAUBERK, "demo", *arguments],
            log=self.directory / "demo.log",
            environ=environment(self.mark, {"TMPDIR": str(temporary), "COLUMNS": "200"}),
            cwd=self.directory,
        )

    @property
    def processes(self) -> list[int]:
        return marked(self.mark)

    @property
    def files(self) -> list[str]:
        return [path.name for path in (self.directory / "tmp").iterdir()]

    def is_bare(self) -> bool:
        return not self.processes and not self.files


@pytest.fixture
def stage() -> Iterator[Stage]:
    # A socket's path may have 107 octets, and pytest's own directories use up most of them.
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        stage = Stage(directory=Path(directory), mark=secrets.token_hex(8))
        yield stage
        end_marked(stage.mark)


@pytest.mark.slow
@pytest.mark.timeout(CHECK_S + 60)
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
def test_the_demo_checks_itself_within_90_seconds_and_leaves_nothing(stage: Stage, engine: str) -> None:
    """Exit code 0 and a table in which everything was as promised, with either engine."""
    demo = stage.start("--check", "--http2-engine", engine)
    assert demo.wait(CHECK_S) == 0, demo.log
    assert "as promised" in demo.log
    assert "NOT SO" not in demo.log
    assert "root and certificates rotate under load" in demo.log
    assert stage.is_bare(), (stage.processes, stage.files)


@pytest.mark.slow
def test_the_demo_stays_up_until_ctrl_c_and_leaves_nothing(stage: Stage) -> None:
    """And the commands it prints are there to be tried meanwhile."""
    demo = stage.start()
    demo.wait_log("It stays up until Ctrl-C", CHECK_S)
    assert len(stage.processes) >= 8  # itself, a control plane, four sidecars, three apps but for those that share
    assert "export HAUBERK_DATA_DIR=" in demo.log
    demo.signal(signal.SIGINT)
    assert demo.wait(30) == 0, demo.log
    assert "Traceback" not in demo.log
    assert stage.is_bare(), (stage.processes, stage.files)


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["stays", "check"])
@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGINT, 3), (signal.SIGINT, 5)]
)
def test_a_demo_interrupted_at_its_start_leaves_nothing(
    stage: Stage, arguments: list[str], number: int, processes: int
) -> None:
    """With its directory made and so many processes up, the last of them perhaps only just."""
    demo = stage.start(*arguments)
    eventually(lambda: stage.directory.joinpath("tmp").exists() and stage.files, 20, "the demo has begun")
    eventually(lambda: len(stage.processes) >= processes, 20, f"{processes} processes are up")
    demo.signal(number)
    demo.wait(30)
    assert "Traceback" not in demo.log
    assert "internal error" not in demo.log
    if arguments:
        assert demo.popen.returncode != 0  # not everything was so
    # Whoever was started in that very moment is told by the kernel, and needs a moment to hear it.
    eventually(stage.is_bare, 5, f"nothing is left: {demo.log}")


def test_a_demo_interrupted_while_it_shows_leaves_nothing(stage: Stage) -> None:
    """In the middle of its steps, with requests in flight."""
    demo = stage.start("--check")
    demo.wait_log("allowed gRPC call", 60)
    demo.signal(signal.SIGINT)
    demo.wait_log("stopping ...")
    demo.signal(signal.SIGINT)  # an impatient hand changes nothing
    assert demo.wait(30) == 1
    assert "Traceback" not in demo.log
    assert stage.is_bare(), (stage.processes, stage.files)
