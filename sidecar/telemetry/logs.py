"""The sidecar's own log on standard error: a constant message, and facts as fields.

JSON, one object a line; on a terminal, text for people. Facts are given as `extra={...}`, and never hold a secret.
"""

from __future__ import annotations

import json
import logging
import sys

from sidecar.telemetry.access_log import rfc3339

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def facts_of(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a traceback is one field of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **facts_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """For a terminal: `hauberk: warning: message (fact=value)`."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        facts = ", ".join(f"{name}={_printable(value)}" for name, value in facts_of(record).items())
        text = f"hauberk: {level}{_printable(record.getMessage())}{f' ({facts})' if facts else ''}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _printable(value: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(value))


def to_standard_error(level: int = logging.INFO) -> None:
    """Send the whole process's log there. Called once, by `sidecar.main`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
