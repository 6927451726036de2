"""A script is what one connection goes through: bytes of the peer, and what our own side does in between.

It is plain data, so that it can be played to any engine, again and again, and kept as JSON (`regressions/`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from sidecar.config import Limits
from tests.oracles.wire import PeerFrame, Splitter

_FIXED = replace(Limits(), stream_window_octets_max=1_000)
"""Windows that grow are the relay's alone."""
LIMITS = {
    "default": _FIXED,
    "narrow": replace(
        _FIXED,
        stream_window_octets=1_000,
        connection_window_octets=65_535,
        header_list_octets_max=600,
        header_fields_max=10,
        continuation_frames_max=2,
        settings_entries_max=4,
        streams_per_connection_max=3,
    ),
    "poor": replace(
        _FIXED,
        glitches_max=30,
        premature_resets_max=3,
        priority_frames_per_stream_max=2,
        window_updates_per_data_frame_max=1,
        tiny_data_frames_max=3,
        streams_total_max=6,
        control_frames_queued_max=6,
    ),
}
"""Names a script may give. `narrow`: sizes and counts are soon reached. `poor`: budgets are."""


@dataclass(frozen=True, slots=True)
class Octets:
    """The peer sends this."""

    data: bytes
    note: str = ""


@dataclass(frozen=True, slots=True)
class Act:
    """Our side does this; `name` is a method of `observe.Player`. What makes no sense in its place is not done."""

    name: str
    stream: int = 0
    value: int = 0
    """Octets, an error code or seconds."""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    end: bool = False


Step: TypeAlias = Octets | Act


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    role: str
    """Of the engine: "server" or "client"."""
    steps: tuple[Step, ...]
    limits: str = "default"
    stalled: bool = False
    """The socket takes nothing of what is written."""
    reactions: Mapping[str, str] = field(default_factory=dict)
    """Event of a sink -> what it does at once: see `observe.Player`."""
    cuts: tuple[int, ...] = ()
    """Sizes of the pieces in which the bytes come when they come cut; over and over."""

    def units(self) -> list[Unit]:
        """The steps, with the peer's bytes split where frames end."""
        splitter = Splitter(expects_preface=self.role == "server")
        out: list[Unit] = []
        for step in self.steps:
            if isinstance(step, Act):
                out.append(step)
            else:
                out += [Piece(data, frame, step.note) for data, frame in splitter.push(step.data)]
        return out

    def __str__(self) -> str:
        head = f"{self.role}, {self.limits} limits{', stalled' if self.stalled else ''}, {dict(self.reactions)}"
        return "\n".join([head, *(f"  {index:3} {str(unit)[:240]}" for index, unit in enumerate(self.units()))])


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the peer up to the end of a frame, or up to the next thing our side does."""

    data: bytes
    frame: PeerFrame | None
    note: str

    def __str__(self) -> str:
        what = str(self.frame) if self.frame else f"{len(self.data)} octets"
        return f"peer: {what} {self.data[9:41].hex()} {self.note}"


Unit: TypeAlias = Piece | Act


def to_json(script: Script) -> str:
    steps: list[list[Any]] = []
    for step in script.steps:
        if isinstance(step, Octets):
            steps.append(["octets", step.data.hex(), step.note])
        else:
            fields = [[part.decode("latin-1") for part in pair] for pair in step.fields]
            steps.append(["act", step.name, step.stream, step.value, fields, step.end])
    out: dict[str, Any] = {
        "role": script.role,
        "limits": script.limits,
        "stalled": script.stalled,
        "reactions": dict(script.reactions),
        "cuts": list(script.cuts),
    }
    head = json.dumps(out)[:-1]
    lines = ",\n  ".join(json.dumps(step) for step in steps)
    return f'{head}, "steps": [\n  {lines}\n]}}\n'


def from_json(text: str) -> Script:
    raw = json.loads(text)
    steps: list[Step] = []
    for kind, *rest in raw["steps"]:
        if kind == "octets":
            steps.append(Octets(bytes.fromhex(rest[0]), rest[1]))
        else:
            name, stream, value, fields, end = rest
            pairs = tuple((n.encode("latin-1"), v.encode("latin-1")) for n, v in fields)
            steps.append(Act(name, stream, value, pairs, end))
    return Script(
        role=raw["role"],
        limits=raw["limits"],
        stalled=raw["stalled"],
        reactions=raw["reactions"],
        cuts=tuple(raw["cuts"]),
        steps=tuple(steps),
    )


def load(path: Path) -> Script:
    return from_json(path.read_text())
