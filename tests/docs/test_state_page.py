"""docs/state.md, as typed: backup, restore, audit; and its figures."""

from __future__ import annotations

import shlex
import sys

import pytest

from control_plane.audit import log, refusals
from control_plane.audit.export import OCSF_VERSION
from control_plane.backup import MANIFEST
from tests.docs.markdown import DOCS
from tests.docs.transcript import Played, free_ports, play, steps_of

PAGE = (DOCS / "state.md").read_text()
TIMEOUT_S = 120
PORTS = ("15011", "15012")
WRAPPER = f"""\
#!/bin/sh
[ "$1" = control-plane ] && set -- "$@" --listen 127.0.0.1:0 --join-listen 127.0.0.1:0
exec {shlex.quote(sys.executable)} -c 'from control_plane.cli.main import main; main()' "$@"
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    directory = tmp_path_factory.mktemp("state")
    start = directory / "here"
    start.mkdir()
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return play(steps_of(PAGE), directory, ports=ports, wrapper=WRAPPER, start=start, timeout_s=TIMEOUT_S)


@pytest.mark.slow
def test_every_command_of_the_page_works(played: Played) -> None:
    """In order, each with exit code 0; and what is printed is what the page says."""
    played.assert_all_done("docs/state.md")
    played.assert_printed()
    played.assert_nothing_runs()


def test_the_page_has_the_figures_as_they_are() -> None:
    """Of checkpoints, refused calls and full files."""
    assert f"Every {log.CHECKPOINT_RECORDS:,} records" in PAGE
    assert log.CHECKPOINT_S == 300
    limits = f"at most {refusals.EACH_PEER} a second of one peer, {refusals.ALL} of all, and {refusals.HOUR:,} an hour"
    assert limits in PAGE
    assert f"At {log.ROTATE_OCTETS // 2**20} MiB the file" in PAGE
    assert f"schema.ocsf.io/{OCSF_VERSION}" in PAGE
    assert MANIFEST.removesuffix(".json") in PAGE
