"""Header fields whose values are usually secrets: they are compared, and neither told, logged nor shown."""

from __future__ import annotations

_WORDS = (
    "assertion",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "csrf",
    "jwt",
    "key",
    "passwd",
    "password",
    "secret",
    "session",
    "signature",
    "token",
    "xsrf",
)


def is_secret(header: str) -> bool:
    """By its name, in lower case: `authorization`, `set-cookie`, `x-api-key`, `x-session-id`."""
    return any(word in header for word in _WORDS)
