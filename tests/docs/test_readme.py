"""The first ten minutes of the README, as typed: every command runs, in order, and prints what the page says."""

from __future__ import annotations

import shlex
import sys

import pytest

from tests.docs.markdown import DOCS, ROOT, code, section, table
from tests.docs.transcript import Played, free_ports, missing, play, steps_of

TIMEOUT_S = 60
APP_PORTS = ("8080", "8081")
WRAPPER = """\
#!/bin/sh
case "$1" in
control-plane) shift; set -- control-plane --listen 127.0.0.1:{listen} --join-listen 127.0.0.1:{join} "$@" ;;
run) shift; set -- run --control-plane 127.0.0.1:{listen} "$@" ;;
esac
exec {python} -c 'from control_plane.cli.main import main; main()' "$@"
"""
"""The control plane's ports are no reader's business, but here they must be free ones."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Played:
    directory = tmp_path_factory.mktemp("readme")
    *used, listen, join = free_ports(len(APP_PORTS) + 2)
    return play(
        steps_of(section((ROOT / "README.md").read_text(), "The first ten minutes")),
        directory,
        ports=dict(zip(APP_PORTS, used, strict=True)),
        wrapper=WRAPPER.format(listen=listen, join=join, python=shlex.quote(sys.executable)),
        start=directory,
        timeout_s=TIMEOUT_S,
    )


def test_every_command_of_the_first_ten_minutes_works(ran: Played) -> None:
    """In order, each with exit code 0."""
    ran.assert_all_done("README.md")


def test_every_command_prints_what_the_page_says(ran: Played) -> None:
    """Line by line, but for times, ids, ports and versions."""
    assert sum(step.expected is not None for step in ran.steps) >= 6
    ran.assert_printed()


def test_nothing_is_left_running(ran: Played) -> None:
    """The last step of the page ends all that the steps before it began."""
    ran.assert_nothing_runs()


def test_the_data_directory_holds_what_the_operations_page_says(ran: Played) -> None:
    """Every file with its mode, after a control plane that was stopped."""
    documented = {code(row[0]): row[1] for row in table(section((DOCS / "operations.md").read_text(), "Files")).rows}
    (data_dir,) = ran.directory.glob("*/mesh")
    found = {
        path.relative_to(data_dir).as_posix(): f"{path.stat().st_mode & 0o7777:04o}" for path in data_dir.rglob("*")
    }
    while_running = {"hauberk.db-wal", "hauberk.db-shm", "operator.sock"}
    assert {name.rstrip("/"): mode for name, mode in documented.items() if name not in while_running} == found
    assert while_running <= documented.keys()


@pytest.mark.parametrize(
    ("expected", "output", "line"),
    [
        ("a\nb", "a\nb\n", ""),
        ("a\nb", "a\n", "b"),
        ("a", "a\nb\n", "(only up to) a"),
        ("b", "a\nb\n", "b"),
        ("...\nb", "a\nb\n", ""),
        ("a\n...", "a\nb\n", ""),
        ("a ... c", "a b c\n", ""),
        ("token 0123456789abcdef", "token fedcba9876543210\n", ""),
        ("token 0123456789abcdef", "token none\n", "token 0123456789abcdef"),
    ],
)
def test_the_comparison_of_outputs_can_fail(expected: str, output: str, line: str) -> None:
    """What differs from run to run may differ, and nothing else."""
    assert missing(expected, output) == line
