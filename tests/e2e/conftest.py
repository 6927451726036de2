"""Failed tests show the logs of the processes they ran."""

from __future__ import annotations

from tests.e2e.reporting import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]
