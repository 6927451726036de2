"""The sidecar's own log on standard error: a constant message, and facts as fields.

JSON, one object a line; on a terminal, text for people. Facts are given as `extra={...}`, and never hold a secret.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

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


class Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error or, while `through` is set, hands each line on: a full pipe must not stop the loop.

    Lines of other threads (OpenTelemetry's exporter has one) are always written at once."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.through: Callable[[bytes], None] | None = None
        self._own_thread = _this_thread()

    def emit(self, record: logging.LogRecord) -> None:
        if self.through is None or record.thread != self._own_thread:
            super().emit(record)
            return
        try:
            self.through(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            self.handleError(record)


def _this_thread() -> int | None:
    return logging.LogRecord("", logging.INFO, "", 0, "", (), None).thread


@contextmanager
def log_through(write: Callable[[bytes], None]) -> Iterator[None]:
    """While the block runs, the log's lines go to `write`, which must not wait."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, Handler)]
    for handler in handlers:
        handler.through = write
    try:
        yield
    finally:
        for handler in handlers:
            handler.through = None


def unraisable(found: sys.UnraisableHookArgs) -> None:
    """What CPython finds wrong where nobody can be told: a line of the log, and not of standard error, which may wait.

    Not told: a TLS client's server name that is no text. Anybody may send one; the handshake fails and is counted."""
    if isinstance(found.exc_value, UnicodeDecodeError) and isinstance(found.object, bytes):
        return
    error = found.exc_value or found.exc_type()
    logging.getLogger(__name__).error("unexpected error where none can be raised", exc_info=error)


def to_standard_error(level: int = logging.INFO) -> None:
    """Send the whole process's log there. Called once, by `sidecar.main`."""
    sys.unraisablehook = unraisable
    handler = Handler()
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
