"""Log lines and the audit file."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from control_plane.audit import AuditLog
from control_plane.errors import StartError, Unavailable
from control_plane.logs import JsonFormatter, fields
from tests.control_plane.support import NOW


def test_a_line_is_one_json_object_with_facts_as_fields() -> None:
    """Whatever is in them, traceback included."""
    try:
        raise ValueError("two\nlines")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("a.b", logging.ERROR, __file__, 1, "constant message", None, info)
    record.__dict__ |= fields(name_="x\n\u2028", path=Path("/x"))
    line = JsonFormatter().format(record)
    held = json.loads(line)
    assert "\n" not in line
    assert line.isascii()
    assert (held["level"], held["logger"], held["message"]) == ("error", "a.b", "constant message")
    assert (held["name_"], held["path"]) == ("x\n\u2028", "/x")
    assert "ValueError: two" in held["traceback"]


def test_the_audit_file_only_grows_and_is_ours_alone(tmp_path: Path) -> None:
    """Across restarts."""
    for by in ("ann", "bob"):
        audit = AuditLog.open(tmp_path / "audit.jsonl")
        audit.append("token.created", at=NOW, by=by, service="x\ny")
        audit.close()
        audit.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["by"] for line in lines] == ["ann", "bob"]
    assert lines[0] == {"at": NOW, "event": "token.created", "by": "ann", "service": "x\ny"}
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_an_audit_file_that_cannot_be_opened_or_written_is_an_error(tmp_path: Path) -> None:
    """A link is not followed; a full disk is told."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StartError, match="cannot be opened"):
        AuditLog.open(tmp_path / "link")
    full = AuditLog(os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(Unavailable, match="nothing was changed"):
        full.append("token.created", at=NOW, by="ann")
    full.close()
