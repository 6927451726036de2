"""A record of every mutation and issuance: one JSON object a line, appended to `<data dir>/audit.jsonl`.

A mutation is written down before it is committed, inside its transaction: if the record cannot be written, nothing is
changed and the caller is told so (security.md G30). The file is ours alone (0600) and holds no secret. Refused calls
go to the log only. A hash chain over the lines comes later; the format leaves room for it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from control_plane.errors import StartError, Unavailable

Field = str | int | float | bool | None | list[str]


class AuditLog:
    """Appends whole lines; one write each, so that a crash leaves at most one torn line at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, path: Path) -> AuditLog:
        """Raises StartError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return cls(os.open(path, flags, 0o600))
        except OSError as error:
            raise StartError(f"{path}: the audit file cannot be opened ({error.strerror})") from error

    def append(self, event: str, *, at: float, by: str, **fields: Field) -> None:
        """`event` is a constant such as "token.created". Raises Unavailable if it cannot be written."""
        line = json.dumps({"at": round(at, 3), "event": event, "by": by, **fields}, ensure_ascii=True) + "\n"
        data = line.encode("ascii")
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(28, "written in part")
        except OSError as error:
            raise Unavailable(
                "the audit record cannot be written, so nothing was changed; free space in the control plane's data"
                " directory and try again"
            ) from error

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
