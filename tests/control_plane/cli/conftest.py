"""Fixtures of the command line's tests: the command itself, and a control plane with canned answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from control_plane.cli.main import cli
from tests.control_plane.cli.fake_control_plane import FakeControlPlane, serving

Hauberk = Callable[..., Result]


@pytest.fixture
def hauberk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hauberk:
    """`hauberk("get", "ap", input="...")`, with the user's own environment and home out of reach."""
    for name in ("HAUBERK_SOCKET", "HAUBERK_DATA_DIR", "HAUBERK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def run(*args: str, input: str = "") -> Result:  # noqa: A002  # click's own name for it
        return CliRunner().invoke(cli, args, input=input, prog_name="hauberk")

    return run


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hauberk: Hauberk) -> Iterator[FakeControlPlane]:
    """A control plane that `hauberk` finds by HAUBERK_DATA_DIR."""
    del hauberk  # only its cleared environment is wanted, before ours is set
    with serving(tmp_path / "operator.sock") as fake:
        monkeypatch.setenv("HAUBERK_DATA_DIR", str(tmp_path))
        yield fake
