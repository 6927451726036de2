"""docs/workload-api.md: its commands as typed, and what it says of bounds, methods and files against the code."""

from __future__ import annotations

import shlex
import sys

import pytest

from protos.spiffe import workload_pb2
from sidecar.config import Config
from sidecar.config_load import parse
from sidecar.identity import svid_files
from sidecar.identity.workload_api import api, calls, endpoint, tokens
from tests.docs.markdown import DOCS, Table, blocks, code, parts, section, table
from tests.docs.transcript import Played, free_ports, play, steps_of

PAGE = (DOCS / "workload-api.md").read_text()
TIMEOUT_S = 60
WRAPPER = """\
#!/bin/sh
case "$1" in
control-plane) shift; set -- control-plane --listen 127.0.0.1:{listen} --join-listen 127.0.0.1:{join} "$@" ;;
run) shift; set -- run --control-plane 127.0.0.1:{listen} "$@" ;;
esac
exec {python} -c 'from control_plane.cli.main import main; main()' "$@"
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    directory = tmp_path_factory.mktemp("workload")
    listen, join = free_ports(2)
    wrapper = WRAPPER.format(listen=listen, join=join, python=shlex.quote(sys.executable))
    steps = steps_of(section(PAGE, "Try it"))
    return play(steps, directory, ports={"0": "0"}, wrapper=wrapper, start=directory, timeout_s=TIMEOUT_S)


def test_every_command_works(played: Played) -> None:
    """In order, each with exit code 0."""
    played.assert_all_done("docs/workload-api.md")


def test_every_command_prints_what_the_page_says(played: Played) -> None:
    """Line by line."""
    assert sum(step.expected is not None for step in played.steps) >= 4
    played.assert_printed()


def test_the_page_has_every_method() -> None:
    """And no other."""
    methods = workload_pb2.DESCRIPTOR.services_by_name["SpiffeWorkloadAPI"].methods
    first = next(part for part in parts(section(PAGE, "What is answered")) if isinstance(part, Table))
    assert [code(row[0]) for row in first.rows] == [one.name for one in methods]


def test_the_page_has_every_file_with_its_name() -> None:
    """In the order in which they are made."""
    assert [code(row[0]) for row in table(section(PAGE, "Files")).rows] == list(svid_files.NAMES)
    assert f"every {['', 'one', 'two', 'three', 'four', 'five'][int(svid_files.RETRY_S)]} seconds" in PAGE
    assert svid_files.GRACE_S == 10
    assert "removed ten seconds later" in PAGE


def test_the_page_has_the_bounds_of_the_code() -> None:
    """A number that moves in the code moves here."""
    bounds = {row[0]: row[1] for row in table(section(PAGE, "Who may ask")).rows}
    assert bounds["connections"].startswith(f"{endpoint.CONNECTIONS_MAX};")
    assert bounds["streams of one connection"] == str(endpoint.STREAMS_MAX)
    size = f"{calls.MESSAGE_OCTETS_MAX // 1024} KiB, head {endpoint.HEADER_LIST_OCTETS_MAX // 1024} KiB"
    assert bounds["size of a request"] == size
    assert f"after {endpoint.CONNECTION_IDLE_S:g} s" in bounds["a connection without a stream"]
    assert f"after {calls.STALLED_MAX_S:g} s" in bounds["a reader that takes nothing although something waits for it"]
    assert bounds["tokens kept"].startswith(f"{tokens.KEPT_MAX} ")
    assert f"1 to {api.AUDIENCES_MAX} audiences of at most {api.AUDIENCE_CHARS_MAX} characters" in PAGE


def test_the_configuration_on_the_page_is_accepted() -> None:
    """And says what the defaults are where it shows them."""
    (example, *_) = blocks(PAGE, "yaml")
    config = parse(example.text, "page")
    assert config.workload_api_mode == Config(service="a").workload_api_mode
    assert config.workload_api
    assert config.svid_dir
