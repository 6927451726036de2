"""The tests' own tools: a skip fails in CI, an async test runs, hangs are ended, and the clock jumps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.trio_support import trio_test

HERE = Path(__file__).parent
SKIPS = {
    "inside": "import pytest\ndef test_x():\n    pytest.skip('no tool')\n",
    "marked": "import pytest\n@pytest.mark.skip(reason='no tool')\ndef test_x(): ...\n",
    "fixture": "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no tool')\ndef test_x(f): ...\n",
    "whole_file": "import pytest\npytest.importorskip('no_tool')\ndef test_x(): ...\n",
    "expected_failure": "import pytest\n@pytest.mark.xfail\ndef test_x():\n    assert False\n",
}


def run_pytest(directory: Path, *, ci: str) -> subprocess.CompletedProcess[str]:
    """SKIPS beside our conftest.py, in another process."""
    shutil.copy(HERE / "conftest.py", directory)
    (directory / "pytest.ini").write_text("[pytest]\n")
    for name, code in SKIPS.items():
        (directory / f"test_{name}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", "-rA", "."]
    environment = {**os.environ, "CI": ci}
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, env=environment)


def test_a_skip_is_a_failure_in_ci_and_only_there(tmp_path: Path) -> None:
    """What is missing there must be noticed; what is missing here need not stop anybody. An xfail is not a skip."""
    in_ci = run_pytest(tmp_path, ci="true")
    assert in_ci.returncode == 1
    assert "1 failed, 1 xfailed, 3 errors" in in_ci.stdout
    assert in_ci.stdout.count("skipped, which CI does not allow") >= 4
    elsewhere = run_pytest(tmp_path, ci="")
    assert elsewhere.returncode == 0
    assert "4 skipped, 1 xfailed" in elsewhere.stdout


@trio_test
async def test_an_async_test_runs_in_its_loop_with_fixtures(tmp_path: Path) -> None:
    """Fixtures come by name, as everywhere."""
    await trio.lowlevel.checkpoint()
    assert tmp_path.is_dir()


def test_an_async_test_fails_when_it_fails() -> None:
    """And what it raised arrives as it was."""

    @trio_test
    async def failing() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError

    with pytest.raises(LookupError):
        failing()


def test_a_test_that_hangs_is_ended() -> None:
    """Long before pytest's own limit."""

    @trio_test(timeout_s=0.01)
    async def hanging() -> None:
        await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        hanging()


@trio_test(autojump=True)
async def test_the_clock_jumps_when_everybody_waits() -> None:
    """An hour costs nothing."""
    began = trio.current_time()
    await trio.sleep(3_600)
    assert trio.current_time() - began == pytest.approx(3_600)
