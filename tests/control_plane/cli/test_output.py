"""What people see is escaped, what programs read is whole."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from control_plane.cli import output
from control_plane.cli.output import clock, plain, print_data, print_table, printable, span, until
from protos.hauberk.v1 import admin_pb2, config_pb2


@given(st.text())
def test_nothing_a_terminal_would_act_on_is_printed(text: str) -> None:
    """Escape sequences in a reason from a sidecar must not repaint the operator's screen."""
    assert all(char.isprintable() or char == "\n" for char in printable(text))


@given(st.text(st.characters(categories=("L", "N", "P"))))
def test_printable_text_is_left_alone(text: str) -> None:
    """Escaping is for what needs it."""
    assert printable(text) == text


def test_escapes_are_shown_as_escapes() -> None:
    """So that one can see that somebody tried."""
    assert printable("a\x1b[31mb\u202ec") == "a\\x1b[31mb\\u202ec"


def test_a_table_off_a_terminal_keeps_every_line_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """grep and awk want one row a line, however long, and markup to be text."""
    print_table(["A", "B"], [["x" * 300, "[bold]y[/bold]"], ["\x1b[2J", ""]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["x" * 300, "[bold]y[/bold]"]
    assert lines[2] == "\\x1b[2J"


@pytest.mark.parametrize(
    ("cells", "lines"),
    [
        (["x" * 20, "word " * 4], ["x" * 20 + "  word word word word"]),
        (["x" * 20, "word " * 12], ["x" * 20 + "  " + " ".join(["word"] * 7), " " * 22 + " ".join(["word"] * 5)]),
        (["x" * 50, "y" * 30], ["x" * 50 + "  " + "y" * 30]),
        (["x" * 50, "y"], ["x" * 50 + "  y"]),
    ],
    ids=["fits", "last one folds", "left to the terminal", "short last one"],
)
def test_a_table_on_a_narrow_terminal_can_be_read(
    cells: list[str], lines: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cell but the last of a line is folded, and that one not to a few characters."""
    terminal = Console(force_terminal=True, color_system=None, width=60)
    monkeypatch.setattr(output, "console", lambda: terminal)
    print_table(["A", "B"], [cells])
    assert capsys.readouterr().out.splitlines()[1:] == lines


def test_a_message_becomes_plain_data_with_every_field() -> None:
    """64-bit numbers stay numbers, maps and lists are there when empty, nested messages are unfolded."""
    message = admin_pb2.StatusResponse(epoch=2**63, workloads=[admin_pb2.WorkloadStatus(labels={"b": "2", "a": "1"})])
    data = plain(message)
    assert data["epoch"] == 2**63
    assert data["trust_domain"] == ""
    assert list(data["workloads"][0]["labels"].items()) == [("a", "1"), ("b", "2")]
    assert plain(config_pb2.ApplyResponse())["propagation"] == {"acknowledged": [], "pending": [], "rejected": []}


def test_a_number_json_cannot_hold_is_null() -> None:
    """JSON has no infinity."""
    assert plain(admin_pb2.StatusResponse(server_time=float("inf")))["server_time"] is None


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_data_can_be_read_back(output: str, read: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Both formats carry the same."""
    assert callable(read)
    data = {"z": 1, "a": ["é"], "t": 1.5, "n": None}
    print_data(data, output)
    out = capsys.readouterr().out
    assert read(out) == data
    assert "é" in out


@pytest.mark.parametrize("text", ["\x1b[2J", "\x7f", "\x9b2J", "\x85", "\u202eabc", "\u2028", "é\x9d0;x\x9c"])
@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_nothing_a_terminal_would_act_on_is_printed_for_programs(
    output: str, read: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A header's value may hold C1 controls, and what a sidecar says of itself anything: programs are often people."""
    assert callable(read)
    data = {"a": [text]}
    print_data(data, output)
    out = capsys.readouterr().out
    assert read(out) == data
    assert all(char.isprintable() or char == "\n" for char in out)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (59.6, "1m"), (61, "1m 1s"), (3_600, "1h"), (5_400, "1h 30m"), (90_061, "1d 1h"),
     (-3, "-3s"), (float("inf"), "-"), (86_461, "1d 1m")],
)  # fmt: skip
def test_a_span_is_told_in_two_units(seconds: float, text: str) -> None:
    """Enough for people."""
    assert span(seconds) == text


def test_points_in_time_are_told_from_now() -> None:
    """And zero means never."""
    assert until(1_000, 940) == "in 1m"
    assert until(1_000, 1_003) == "3s ago"
    assert until(0, 1_000) == "-"
    assert clock(0) == "-"
    assert clock(1_800_000_000) == "2027-01-15T08:00:00Z"
    assert clock(1e300) == "-"
