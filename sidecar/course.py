"""The course of an exchange as a table: (state, event) -> (next state, action). `exchange` acts by it.

    PARKED     the head is understood and permitted; a connection is being found (or a name looked up)
    RELAYING   the request was opened upstream; no final response head yet
    ANSWERING  the response head was passed on; from here on an error can only break off
    ENDED      nothing more is said on either side; `on_end` was called

A pair that is not in the table cannot happen, and raises.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    __hash__ = object.__hash__  # by identity: Enum's own is Python code, and the table is asked thrice a request

    PARKED = auto()
    RELAYING = auto()
    ANSWERING = auto()
    ENDED = auto()


class Event(Enum):
    __hash__ = object.__hash__

    CONNECTED = auto()
    UNPROCESSED = auto()
    """The upstream certainly did not act on the request, and we still have all of it."""
    RESPONSE_HEAD = auto()
    RESPONSE_END = auto()
    """The whole response was handed to the downstream session."""
    CLIENT_RESET = auto()
    UPSTREAM_RESET = auto()
    FAILED = auto()
    """A `RequestError` of ours: refused, timed out, revoked, invalid upstream answer."""


TABLE: dict[tuple[State, Event], tuple[State, str]] = {
    (State.PARKED, Event.CONNECTED): (State.RELAYING, "open_upstream"),
    (State.PARKED, Event.CLIENT_RESET): (State.ENDED, "end"),
    (State.PARKED, Event.FAILED): (State.ENDED, "answer_error"),
    (State.RELAYING, Event.UNPROCESSED): (State.PARKED, "park_again"),
    (State.RELAYING, Event.RESPONSE_HEAD): (State.ANSWERING, "pass_head"),
    (State.RELAYING, Event.CLIENT_RESET): (State.ENDED, "end"),
    (State.RELAYING, Event.UPSTREAM_RESET): (State.ENDED, "answer_error"),
    (State.RELAYING, Event.FAILED): (State.ENDED, "answer_error"),
    (State.ANSWERING, Event.RESPONSE_END): (State.ENDED, "end"),
    (State.ANSWERING, Event.CLIENT_RESET): (State.ENDED, "end"),
    (State.ANSWERING, Event.UPSTREAM_RESET): (State.ENDED, "break_off"),
    (State.ANSWERING, Event.FAILED): (State.ENDED, "break_off"),
}
