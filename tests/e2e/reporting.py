"""Adds to the report of a failed test what the processes of its mesh said last. For a `conftest.py` to import."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.e2e.harness import LOG_TAIL, alive


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: Any = yield
    if report.failed:
        for mesh in alive:
            for process in mesh.processes:
                if process.log_path.exists():
                    tail = "\n".join(process.log.splitlines()[-LOG_TAIL:])
                    report.sections.append((f"{process!r}", tail))
    return report  # type: ignore[no-any-return]  # a TestReport
