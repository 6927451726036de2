"""Which HTTP/2 engine is used: the one place that knows their names."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config import Limits
from sidecar.http.reference import ReferenceSession
from sidecar.http.session import ServerHandler

HTTP2_ENGINES = {"reference": ReferenceSession}


def http2_session(
    engine: str, handler: ServerHandler | None, limits: Limits, clock: Callable[[], float]
) -> ReferenceSession:
    """A server session if there is a `handler`, else a client session. KeyError for an engine that does not exist.

    `clock`: monotonic seconds; a session reads it to age its budgets, and does nothing at any time by itself."""
    return HTTP2_ENGINES[engine](handler, limits, clock)
