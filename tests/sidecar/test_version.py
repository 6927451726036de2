"""One version, said twice."""

from __future__ import annotations

from importlib.metadata import version

from sidecar.version import VERSION


def test_the_constant_is_the_version_that_is_installed() -> None:
    """`sidecar.version` says why it is a constant."""
    assert version("hauberk") == VERSION
