"""Log lines."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from control_plane.logs import JsonFormatter, fields


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
