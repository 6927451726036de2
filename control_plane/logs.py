"""Log lines as JSON on standard error: a constant message, and facts as fields.

log.info("sidecar connected", extra=fields(spiffe_id=..., instance=...))
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_KEY = "hauberk_fields"


def fields(**facts: object) -> dict[str, object]:
    """For `extra=`."""
    return {_KEY: facts}


class JsonFormatter(logging.Formatter):
    """One JSON object a line. A traceback goes into one field, so that a line stays a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _KEY, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def to_standard_error(level: int = logging.INFO) -> None:
    """Sends the whole process's log there. Called once, by the composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # logs a traceback for every RPC we abort on purpose
