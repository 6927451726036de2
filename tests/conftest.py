"""For every test: which Hypothesis profile runs, and in CI a skipped test is a failed one.

A skip in CI means that something the tests need is missing there (a tool, a kernel feature) and that nobody would
notice.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import hypothesis
import pytest

from sidecar.config import Config
from sidecar.http.engines import HTTP2_ENGINES

# gRPC's own handlers around fork(2) abort the child now and then when its threads are busy, and tests that start
# programs share their process with tests that use gRPC. (The sidecar, which forks the app, has no gRPC in it.)
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
PROFILE = "ci" if IN_CI else "dev"

# No deadlines: how long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
hypothesis.settings.load_profile(PROFILE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--http2-engine", help="Use this HTTP/2 engine wherever a test names none, in place of the default."
    )


def pytest_configure(config: pytest.Config) -> None:
    engine = config.getoption("--http2-engine")
    if engine:  # the meshes of tests/e2e, which are processes, are told by their configuration
        defaults = Config.__init__.__kwdefaults__
        assert engine in HTTP2_ENGINES
        assert defaults is not None
        defaults["http2_engine"] = engine


def pytest_report_header() -> str:
    replay = "derandomized: every run tries the same examples" if IN_CI else "replay with the blob a failure prints"
    return f"hypothesis {hypothesis.__version__}: profile {PROFILE!r}, {replay}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip inside or before a test into its failure. An expected failure (xfail) is not a skip."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turns the skip of a whole file (`pytest.importorskip` at its top) into an error."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped, which CI does not allow: {report.longrepr}"
    return report
