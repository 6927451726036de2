"""One engine goes through a script: what it told its sinks, what it sent, and the state it was in after each step.

The sinks are strict: an engine that breaks the contract of `sidecar.http.session` fails here by itself, without any
other engine to compare it with.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import NamedTuple, TypeAlias

from sidecar.http.session import ErrorCode, Fields, Session, StreamSink
from tests.oracles.scripts import LIMITS, Act, Piece, Script
from tests.oracles.wire import (
    ACK,
    SETTINGS,
    PeerFrame,
    Reader,
    Sent,
)

Make: TypeAlias = Callable[..., Session]
"""An engine: (handler or None, limits, clock) -> session."""

OK: Fields = [(b":status", b"200"), (b"content-type", b"text/plain")]
REACTION_OCTETS = {"consumed": 1 << 20, "data": 400, "answer": 400}


class Call(NamedTuple):
    """One call of a sink or the handler."""

    name: str
    stream: int
    body: object = None
    """Fields, octets, or (code, unprocessed)."""
    end: bool = False


class State(NamedTuple):
    closed: bool
    draining: bool
    open_streams: int
    can_open: bool
    """Clients; False for servers."""
    awaits_pong: bool
    awaits_rest: bool
    credit: tuple[tuple[int, int], ...]
    """Of each stream that was ever opened, where it is not 0."""
    fault: str
    """Class of the session's fault."""


@dataclass(slots=True)
class Outcome:
    """Of one unit of a script."""

    calls: list[Call]
    sent: list[Sent]
    state: State
    row: str
    """Of the fault, in the catalogue of bad inputs."""


@dataclass(slots=True)
class Account:
    """What a stream's sink was given and holds, and how far our own half has come."""

    opened: bool = True
    headed: bool = False
    """Servers: we sent the final head."""
    we_ended: bool = False
    peer_headed: bool = False
    peer_ended: bool = False
    silenced: bool = False
    reset: bool = False
    wants_write: bool = False
    flow: int = 0
    """Octets of credit that came."""
    held: int = 0
    """Octets of it not given back."""


@dataclass(slots=True, eq=False)
class Player:
    """Makes the session, plays our side, and keeps the record."""

    make: Make
    script: Script
    calls: list[Call] = field(default_factory=list)
    accounts: dict[int, Account] = field(default_factory=dict)
    now: float = 0.0
    unsent: int = 0
    session: Session = field(init=False)
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        handler = _Handler(self) if self.script.role == "server" else None
        self.session = self.make(handler, LIMITS[self.script.limits], lambda: self.now)
        self.reader = Reader(is_server=handler is not None)

    # Playing

    def peer_says(self, frame: PeerFrame | None) -> None:
        """Keep the reader in step with the peer's SETTINGS before the engine reacts to them."""
        if frame is None or frame.kind != SETTINGS or frame.flags & ACK or len(frame.payload) % 6:
            return
        self.reader.peer_settings(dict(struct.iter_unpack(">HI", frame.payload)))

    def flush(self) -> list[Sent]:
        out = self.session.take()
        self.unsent = self.unsent + len(out) if self.script.stalled else 0
        self.session.sent(self.unsent)
        return self.reader.read(out)

    def react(self, event: str, stream: int) -> None:
        reaction = self.script.reactions.get(event)
        if reaction is not None:
            value = REACTION_OCTETS.get(reaction, ErrorCode.CANCEL)
            self.act(Act(reaction, stream, value, tuple(OK), True))

    def act(self, act: Act) -> None:
        """Do it if the contract lets our side do it now. Both engines have told us the same so far, so both are
        asked for the same."""
        do = getattr(self, f"_{act.name}")
        do(act)

    def _may_send(self, act: Act, *, headed: bool) -> Account | None:
        account = self.accounts.get(act.stream)
        if account is None or account.we_ended or account.silenced or account.reset:
            return None
        if self.script.role == "server" and account.headed != headed:
            return None
        return account

    def _head(self, act: Act) -> None:
        account = self._may_send(act, headed=False)
        if account is None or self.script.role != "server":
            return
        try:
            self.session.head(act.stream, list(act.fields), act.end)
        except ValueError:
            self.calls.append(Call("ValueError", act.stream))
            return
        account.headed, account.we_ended = True, act.end

    def _informational(self, act: Act) -> None:
        if self.script.role == "server" and self._may_send(act, headed=False):
            self.session.informational(act.stream, list(act.fields))

    def _data(self, act: Act) -> None:
        account = self._may_send(act, headed=True)
        if account is None or account.wants_write:
            return
        credit = self.session.credit(act.stream)
        if act.value and not credit:
            account.wants_write = True
            self.session.want_write(act.stream)
            return
        account.we_ended = act.end
        self.session.data(act.stream, b"d" * min(act.value, credit), act.end)

    def _trailers(self, act: Act) -> None:
        account = self._may_send(act, headed=True)
        if account is None:
            return
        try:
            self.session.trailers(act.stream, list(act.fields))
        except ValueError:
            self.calls.append(Call("ValueError", act.stream))
            return
        account.we_ended = True

    def _answer(self, act: Act) -> None:
        """A whole answer at once."""
        self._head(Act("head", act.stream, 0, tuple(OK), False))
        self._data(Act("data", act.stream, act.value, (), True))

    def _reset(self, act: Act) -> None:
        account = self.accounts.get(act.stream)
        if account is not None:
            account.silenced = True
        self.session.reset(act.stream, act.value)

    def _reset_others(self, act: Act) -> None:
        for stream in list(self.accounts):
            if stream != act.stream:
                self._reset(Act("reset", stream, ErrorCode.CANCEL))

    def _consumed(self, act: Act) -> None:
        account = self.accounts.get(act.stream)
        if account is not None and account.held:
            octets = min(act.value, account.held)
            account.held -= octets
            self.session.consumed(act.stream, octets)

    def _request(self, act: Act) -> None:
        if self.script.role != "client" or not self.session.can_open:
            return
        sink = _Sink(self, 0)
        try:
            sink.stream = self.session.request(list(act.fields), act.end, sink)
        except ValueError:
            self.calls.append(Call("ValueError", 0))
            return
        self.accounts[sink.stream] = Account(headed=True, we_ended=act.end)

    def _drain(self, act: Act) -> None:
        self.session.drain()

    def _shutdown(self, act: Act) -> None:
        self.session.shutdown(act.value)

    def _ping(self, act: Act) -> None:
        self.session.ping()

    def _eof(self, act: Act) -> None:
        self.session.eof()

    def _wait(self, act: Act) -> None:
        self.now += act.value

    # Looking

    def state(self) -> State:
        session = self.session
        credit = [(stream, octets) for stream in self.accounts if (octets := session.credit(stream))]
        if session.closed:
            assert session.open_streams == 0, "a closed session with open streams"
            assert not credit, "credit of a closed session"
        return State(
            session.closed,
            session.draining,
            session.open_streams,
            self.script.role == "client" and session.can_open,
            session.awaits_pong,
            session.awaits_rest and not session.closed,
            () if self.script.stalled else tuple(credit),
            type(session.fault).__name__ if session.fault else "",
        )


class _Handler:
    def __init__(self, player: Player) -> None:
        self._player = player

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        player = self._player
        assert stream not in player.accounts, "two requests on one stream"
        player.accounts[stream] = Account(peer_headed=True, peer_ended=end)
        player.calls.append(Call("request", stream, list(fields), end))
        player.react("request", stream)
        return _Sink(player, stream)


class _Sink:
    """Records, reacts, and fails when it is told what it must not be told."""

    def __init__(self, player: Player, stream: int) -> None:
        self._player = player
        self.stream = stream

    def _account(self, name: str) -> Account:
        account = self._player.accounts[self.stream]
        assert not account.silenced, f"{name} after our own reset"
        assert not account.reset, f"{name} after a reset"
        assert not account.peer_ended or name in ("reset", "writable"), f"{name} after the end"
        return account

    def _told(self, call: Call) -> None:
        self._player.calls.append(call)
        self._player.react(call.name, self.stream)

    def informational(self, fields: Fields) -> None:
        assert not self._account("informational").peer_headed
        self._told(Call("informational", self.stream, list(fields)))

    def head(self, fields: Fields, end: bool) -> None:
        account = self._account("head")
        assert not account.peer_headed
        account.peer_headed, account.peer_ended = True, end
        self._told(Call("head", self.stream, list(fields), end))

    def data(self, data: bytes, flow: int, end: bool) -> None:
        account = self._account("data")
        assert account.peer_headed
        assert flow >= len(data)
        account.flow += flow
        account.held += flow
        account.peer_ended = end
        self._told(Call("data", self.stream, (data, flow), end))

    def trailers(self, fields: Fields) -> None:
        account = self._account("trailers")
        assert account.peer_headed
        account.peer_ended = True
        self._told(Call("trailers", self.stream, list(fields)))

    def reset(self, code: int, unprocessed: bool) -> None:
        self._account("reset").reset = True
        self._told(Call("reset", self.stream, (code, unprocessed)))

    def writable(self) -> None:
        account = self._account("writable")
        assert account.wants_write
        assert self._player.session.credit(self.stream) > 0
        account.wants_write = False
        self._told(Call("writable", self.stream))


def begin(make: Make, script: Script) -> tuple[Player, list[Sent]]:
    """The session, and its greeting."""
    player = Player(make, script)
    return player, player.flush()


def play_unit(player: Player, unit: Piece | Act) -> Outcome:
    if isinstance(unit, Act):
        player.act(unit)
    else:
        player.peer_says(unit.frame)
        player.session.receive(unit.data)
    sent = player.flush()
    calls, player.calls = player.calls, []
    fault = player.session.fault
    return Outcome(calls, sent, player.state(), (fault.row or "") if fault else "")


def play_cut(make: Make, script: Script) -> Outcome:
    """The whole script with the peer's bytes cut at `script.cuts`, across the bounds of frames, and run a few frames at
    a time."""
    player, sent = begin(make, script)
    sizes = cycle(script.cuts or (1 << 20,))
    player.session.slice_frames = sum(script.cuts) % 4
    waiting = b""
    for unit in [*script.units(), None]:
        if isinstance(unit, Piece):
            player.peer_says(unit.frame)
            waiting += unit.data
            continue
        while waiting:
            size = max(1, next(sizes))
            player.session.receive(waiting[:size])
            while player.session.has_more:
                player.session.receive(b"")
            waiting = waiting[size:]
        sent += player.flush()
        if unit is not None:
            player.act(unit)
            sent += player.flush()
    fault = player.session.fault
    return Outcome(player.calls, sent, player.state(), (fault.row or "") if fault else "")
