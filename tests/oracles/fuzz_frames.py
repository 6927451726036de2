"""Any bytes at all, from a peer and as our own acts: no engine raises, breaks its contract, or keeps more than it may.

An input is two octets of choices and then frames. Frames of kinds from 0xE0 on are not sent: they are acts of our side
(`observe.Player`), of which the flags choose one, the stream is the stream and the payload is what it needs. So one
mutator of bytes reaches both sides of a session. A server is greeted for the fuzzer, which would not guess the preface.

The sinks are the strict ones of `observe`: each ends at most once, and nothing is said after the end. What an engine
sends is parsed by hyperframe and hpack.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable

from sidecar.http.engines import HTTP2_ENGINES, http2_engine
from tests.oracles import wire
from tests.oracles.observe import begin, play_unit
from tests.oracles.scripts import LIMITS, Act, Octets, Piece, Script, Step, Unit

ACTS_FROM = 0xE0
ACTS = (
    "head",
    "data",
    "trailers",
    "informational",
    "reset",
    "consumed",
    "request",
    "ping",
    "drain",
    "wait",
    "shutdown",
)
ACTS_LATE = ("eof",)
REACTIONS: tuple[dict[str, str], ...] = (
    {},
    {"data": "consumed"},
    {"request": "answer", "data": "consumed"},
    {"reset": "reset_others"},
)
BROKEN: tuple[tuple[bytes, bytes], ...] = ((b"x-broken", b"a\r\nb"),)
OK: tuple[tuple[bytes, bytes], ...] = ((b":status", b"200"), (b"content-type", b"text/plain"))
FIELDS: dict[str, tuple[tuple[tuple[bytes, bytes], ...], ...]] = {
    "head": (OK, (*OK, (b"x-long", b"v" * 20_000)), (*OK, *BROKEN)),
    "informational": (((b":status", b"103"), (b"link", b"</a>")),),
    "request": (((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")),),
    "trailers": (((b"x-sum", b"1"),), (), BROKEN),
}
"""What our side may say with each act."""
INPUT_OCTETS_MAX = 16_384
HELD_OCTETS_MAX = 512 * 1_024
"""By a session after any input: one frame, one header block, two tables, replies that wait, and small change."""


def session_of(data: bytes) -> tuple[str, Script]:
    """The engine's name, and what it goes through."""
    choice, flavour = data[0], data[1]
    engine = list(HTTP2_ENGINES)[choice & 1]
    role = "server" if choice & 2 else "client"
    steps: list[Step] = [Octets(wire.PREFACE)] if role == "server" else []
    steps += [Octets(data[2:])]
    return engine, Script(
        role=role,
        limits=list(LIMITS)[(choice >> 2) % len(LIMITS)],
        stalled=bool(choice & 0x40),
        reactions=REACTIONS[flavour % len(REACTIONS)],
        steps=tuple(steps),
    )


def act_of(frame: wire.PeerFrame) -> Act:
    payload = frame.payload
    names = ACTS + ACTS_LATE
    value = int.from_bytes(payload[:2], "big")
    name = names[frame.flags % len(names)]
    choices = FIELDS.get(name, ((),))
    fields = choices[payload[2] % len(choices)] if len(payload) > 2 else choices[0]
    return Act(name, frame.stream, value, fields, bool(len(payload) > 3 and payload[3] & 1))


def one_input(data: bytes) -> None:
    """AssertionError, or whatever an engine raised: a bug."""
    if not 2 <= len(data) <= INPUT_OCTETS_MAX:
        return
    engine, script = session_of(data)
    player, _ = begin(http2_engine(engine), script)
    for unit in script.units():
        frame = unit.frame if isinstance(unit, Piece) else None
        is_act = frame is not None and frame.kind >= ACTS_FROM and frame.length <= wire.FRAME_OCTETS_MAX
        play_unit(player, act_of(frame) if is_act and frame is not None else unit)
    held = held_octets(player.session)
    assert held <= HELD_OCTETS_MAX, f"{held} octets are held"
    player.session.eof()
    assert player.session.closed
    assert player.session.open_streams == 0
    player.session.receive(b"more")
    assert not player.session.wants_read or player.state().closed


def held_octets(root: object) -> int:
    """Of all that a session keeps: its own objects, those of `h2` and its kin, and what they contain; not our sinks."""
    seen: set[int] = set()
    waiting: deque[object] = deque([root])
    total = 0
    while waiting:
        one = waiting.popleft()
        if id(one) in seen:
            continue
        seen.add(id(one))
        inner = _inside(one)
        if inner is not None:
            total += sys.getsizeof(one)
            waiting.extend(inner)
    return total


_OWN = ("sidecar.http.re", "h2.", "hpack.", "hyperframe.")


def _inside(one: object) -> Iterable[object] | None:
    """What `one` contains; None: it is not the session's own."""
    if isinstance(one, (bytes, bytearray, str)):
        return ()
    if isinstance(one, dict):
        return [*one.keys(), *one.values()]
    if isinstance(one, (list, tuple, set, deque)):
        return list(one)
    kind = type(one)
    if not kind.__module__.startswith(_OWN):
        return None
    slots = [getattr(one, name, None) for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
    return [*slots, *getattr(one, "__dict__", {}).values()]


def units_of(data: bytes) -> list[Unit]:
    """For reading a finding."""
    return session_of(data)[1].units()
