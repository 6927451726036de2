"""docs/policy.md, as typed: a control plane, sidecars and curl; every command works and prints what the page says."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, ROOT
from tests.docs.transcript import Played, free_ports, play, steps_of, with_ports

pytestmark = pytest.mark.slow

TIMEOUT_S = 100
EXAMPLE = Path("deploy/examples/first-policies")
PORTS = ("15011", "15012", "8081", "8082", "8088", "9001", "9002", "9101", "9102", "9103")
"""What listens where in the example and on the page."""
WRAPPER = f"""\
#!/bin/sh
exec {shlex.quote(sys.executable)} -c 'from control_plane.cli.main import main; main()' "$@"
"""


def play_page(directory: Path, text: str) -> Played:
    """Begins where a reader does, in a checkout, but with other ports in the example's files."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    checkout = directory / "checkout"
    shutil.copytree(ROOT / EXAMPLE, checkout / EXAMPLE)
    shell = checkout / EXAMPLE / "shop.sh"
    shell.write_text(with_ports(shell.read_text(), ports))
    return play(steps_of(text), directory, ports=ports, wrapper=WRAPPER, start=checkout, timeout_s=TIMEOUT_S)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play_page(tmp_path_factory.mktemp("tutorial"), (DOCS / "policy.md").read_text())


def test_every_command_of_the_tutorial_works(played: Played) -> None:
    """In order, each with exit code 0."""
    played.assert_all_done("docs/policy.md")


def test_every_command_prints_what_the_tutorial_says(played: Played) -> None:
    """Line by line, but for times, ids, ports and versions."""
    assert sum(step.expected is None for step in played.steps) <= 1
    played.assert_printed()


def test_the_shop_is_gone_at_the_end(played: Played) -> None:
    """Its last step ends all that the steps before it began."""
    played.assert_nothing_runs()
