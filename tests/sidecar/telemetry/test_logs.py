"""The sidecar's own log: one line a record, and never in the event loop's way."""

from __future__ import annotations

import io
import json
import logging
import threading
import types
from collections.abc import Iterator

import pytest

from sidecar.telemetry import logs


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """A log of our own on a standard error of our own."""
    text, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", text)
    logs.to_standard_error()
    yield text
    root.handlers[:] = before
    root.setLevel(level)


def test_a_record_is_one_line_of_json_with_its_facts(stream: io.StringIO) -> None:
    """A line break in a fact stays inside its string (row D07)."""
    logging.getLogger("x").info("joined", extra={"spiffe_id": "spiffe://a/b", "said": "a\nb"})
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("time")
    assert record == {"level": "info", "message": "joined", "spiffe_id": "spiffe://a/b", "said": "a\nb"}


def test_a_traceback_stays_in_its_line(stream: io.StringIO) -> None:
    """So that whoever collects lines keeps it together."""
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("x").exception("unexpected")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: no" in json.loads(line)["traceback"]


def test_on_a_terminal_it_is_text_and_controls_are_shown_as_question_marks() -> None:
    """An escape sequence in what a peer sent must not reach the terminal (row D07)."""
    record = logging.makeLogRecord({"msg": "hello \x1b[2J", "levelno": logging.WARNING, "levelname": "WARNING"})
    record.__dict__["fact"] = "a\rb"
    assert logs.TextFormatter().format(record) == "hauberk: warning: hello ?[2J (fact=a?b)"


def test_i08_while_routed_lines_are_handed_on_and_not_written(stream: io.StringIO) -> None:
    """A full pipe then stops nothing; afterwards lines are written again."""
    lines: list[bytes] = []
    with logs.log_through(lines.append):
        logging.getLogger("x").info("inside")
        assert stream.getvalue() == ""
    logging.getLogger("x").info("after")
    assert [json.loads(line)["message"] for line in lines] == ["inside"]
    assert json.loads(stream.getvalue())["message"] == "after"


def test_lines_of_other_threads_are_written_at_once(stream: io.StringIO) -> None:
    """The queue is the event loop's own."""
    lines: list[bytes] = []
    with logs.log_through(lines.append):
        thread = threading.Thread(target=lambda: logging.getLogger("x").info("exporter"))
        thread.start()
        thread.join()
    assert lines == []
    assert json.loads(stream.getvalue())["message"] == "exporter"


def test_what_cannot_be_raised_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Python would print it to standard error, past everything that keeps a full pipe from stopping the loop."""
    found = types.SimpleNamespace(exc_type=KeyError, exc_value=KeyError("x"), object=None)
    logs.unraisable(found)
    (record,) = caplog.records
    assert record.getMessage() == "unexpected error where none can be raised"
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
