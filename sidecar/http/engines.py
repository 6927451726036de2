"""Which HTTP/2 engine is used: the one place that knows their names. Each is imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from sidecar.config import Limits
from sidecar.http.session import ServerHandler, Session

HTTP2_ENGINES = {
    "reference": "sidecar.http.reference:ReferenceSession",
    "relay": "sidecar.http.relay:RelaySession",
}
"""Name in the configuration -> module:class."""

Clock = Callable[[], float]


class Engine(Protocol):
    """How a session is made: of the server if there is a `handler`, else of the client."""

    def __call__(self, handler: ServerHandler | None, limits: Limits, clock: Clock = ...) -> Session: ...


def http2_engine(name: str) -> Engine:
    """KeyError for an engine that does not exist."""
    module, _, kind = HTTP2_ENGINES[name].partition(":")
    return cast("Engine", getattr(import_module(module), kind))


def http2_session(engine: str, handler: ServerHandler | None, limits: Limits, clock: Clock) -> Session:
    """A server session if there is a `handler`, else a client session. KeyError for an engine that does not exist.

    `clock`: monotonic seconds; a session reads it to age its budgets, and does nothing at any time by itself."""
    return http2_engine(engine)(handler, limits, clock)
