"""Two engines, one script: step by step, until they differ in a way that `differences.TABLE` knows, or to the end.

What is compared after each step: the calls (adjacent pieces of data of one stream merged), the frames sent, and the
state. Two things are not compared between the engines but with an account that the test keeps of each of them:

- WINDOW_UPDATE. Engines may give credit back in pieces of any size and at any moment. `Windows` checks that what was
  given back is never more than what the sinks took, and never lags behind by half a window or more.
- Whether DATA was beyond a window follows from that: it is judged by the windows *that* engine had announced.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from tests.oracles.differences import GREETINGS, TABLE, Difference
from tests.oracles.observe import Call, Make, Outcome, Player, begin, play_cut, play_unit
from tests.oracles.scripts import LIMITS, Act, Piece, Script
from tests.oracles.stage import Scene, Stage
from tests.oracles.wire import ACK, DATA, SETTINGS, SETTINGS_DEFAULTS, PeerFrame, Sent

AFTER_END = 5
"""Steps that are still played to sessions that are closed."""


def merged_calls(calls: list[Call]) -> list[Call]:
    out: list[Call] = []
    for (name, stream), group in groupby(calls, lambda call: (call.name, call.stream)):
        if name != "data":
            out += group
            continue
        data, flow, end = b"", 0, False
        for call in group:
            assert isinstance(call.body, tuple)
            data, flow, end = data + call.body[0], flow + call.body[1], call.end
        out.append(Call("data", stream, (data, flow), end))
    return out


def merged_frames(sent: list[Sent]) -> list[Sent]:
    """Without WINDOW_UPDATE; the pieces of a body as one."""
    out: list[Sent] = []
    for (kind, stream), group in groupby(sent, lambda one: (one.kind, one.stream)):
        if kind == "DATA":
            frames = list(group)
            out.append(Sent(kind, stream, b"".join(bytes(f.body) for f in frames), frames[-1].end))  # type: ignore[call-overload]
        elif kind != "WINDOW_UPDATE":
            out += group
    return out


def merged_settings(sent: list[Sent]) -> dict[int, int]:
    """What a greeting says altogether, over the defaults of RFC 9113 section 6.5.2."""
    out = dict(SETTINGS_DEFAULTS)
    for one in sent:
        if one.kind == "SETTINGS":
            assert isinstance(one.body, dict)
            out |= one.body
    return out


@dataclass(slots=True)
class Windows:
    """What one engine lets its peer send, by its own announcements."""

    player: Player
    stream_window: int
    connection: int = 65_535
    streams: dict[int, int] = field(default_factory=dict)
    """What was given back for each stream."""
    used: Counter[int] = field(default_factory=Counter)
    """By stream: octets of DATA, padding counted. 0: of the connection."""
    returned: int = 0
    settled: bool = False
    """The peer has acknowledged our SETTINGS: until then a smaller window than the default need not hold."""

    def exceeded(self, frame: PeerFrame) -> bool:
        """Is this DATA beyond what was announced?"""
        if self.used[0] + frame.length > self.connection:
            return True
        account = self.player.accounts.get(frame.stream)
        is_open = account is not None and not (account.peer_ended or account.reset or account.silenced)
        announced = self.stream_window + self.streams.get(frame.stream, 0)
        return is_open and self.used[frame.stream] + frame.length > announced

    def update(self, frame: PeerFrame | None, outcome: Outcome) -> None:
        if frame is not None and frame.kind == DATA:
            self.used[0] += frame.length
            self.used[frame.stream] += frame.length
        self.settled |= frame is not None and frame.kind == SETTINGS and bool(frame.flags & ACK)
        for one in outcome.sent:
            if one.kind == "WINDOW_UPDATE":
                assert isinstance(one.body, int)
                if one.stream:
                    self.streams[one.stream] = self.streams.get(one.stream, 0) + one.body
                else:
                    self.connection += one.body
                    self.returned += one.body
        if not outcome.state.closed:
            self._check()

    def _check(self) -> None:
        held = 0
        window = self.stream_window if self.settled else max(self.stream_window, 65_535)
        for stream, account in self.player.accounts.items():
            held += account.held
            returned = self.streams.get(stream, 0)
            assert returned <= account.flow - account.held, f"stream {stream}: more credit than was taken"
            if not (account.peer_ended or account.reset or account.silenced):
                lag = account.flow - account.held - returned
                assert lag <= window // 2, f"stream {stream}: {lag} octets of credit are kept back"
        lag = self.used[0] - held - self.returned
        limit = LIMITS[self.player.script.limits].connection_window_octets // 2
        assert lag >= 0, "connection: more credit than was taken"
        assert lag <= limit, f"connection: {lag} octets of credit are kept back"


@dataclass(slots=True)
class Verdict:
    """How far two engines went together."""

    steps: int
    difference: Difference | None
    """Where the comparison stopped; None: at the end."""


class Differ(AssertionError):
    """Two engines do not do the same, and no rule says that they may."""


def compare(subject: Make, oracle: Make, script: Script, table: tuple[Difference, ...] = TABLE) -> Verdict:
    """Raises Differ, or AssertionError when one of them breaks the contract by itself."""
    ours, greeting = begin(subject, script)
    theirs, other_greeting = begin(oracle, script)
    _check_greetings(greeting, other_greeting, script)
    stage = Stage(script=script)
    windows = [_windows(ours, greeting), _windows(theirs, other_greeting)]
    units = script.units()
    after_end = 0
    for index, unit in enumerate(units):
        frame = unit.frame if isinstance(unit, Piece) else None
        exceeded = [w.exceeded(frame) if frame and frame.kind == DATA else False for w in windows]
        outcomes = [_normal(play_unit(player, unit)) for player in (ours, theirs)]
        if not _equal(*outcomes):
            scene = Scene(stage, unit, frame, outcomes[0], outcomes[1], exceeded[0], exceeded[1])
            for difference in table:
                if difference.applies(scene):
                    return Verdict(index, difference)
            raise Differ(_report(script, index, unit, scene))
        for window, outcome in zip(windows, outcomes, strict=True):
            window.update(frame, outcome)
        stage.update(unit, frame, outcomes[0])
        after_end += outcomes[0].state.closed
        if after_end > AFTER_END:
            break
    return Verdict(len(units), None)


def _windows(player: Player, greeting: list[Sent]) -> Windows:
    out = Windows(player, merged_settings(greeting)[4])
    for one in greeting:
        if one.kind == "WINDOW_UPDATE":
            assert isinstance(one.body, int)
            out.connection += one.body
    return out


def _check_greetings(ours: list[Sent], theirs: list[Sent], script: Script) -> None:
    settings = [merged_settings(ours), merged_settings(theirs)]
    for name in GREETINGS.get(script.role, ()):
        del settings[0][name], settings[1][name]
    if settings[0] != settings[1]:
        raise Differ(f"they greet with different settings: {settings[0]} and {settings[1]}")
    windows = [sum(one.body for one in g if isinstance(one.body, int) and not one.stream) for g in (ours, theirs)]
    if windows[0] != windows[1]:
        raise Differ(f"they greet with different connection windows: {windows[0]} and {windows[1]}")


def _normal(outcome: Outcome) -> Outcome:
    return Outcome(merged_calls(outcome.calls), outcome.sent, outcome.state, outcome.row)


def _equal(ours: Outcome, theirs: Outcome) -> bool:
    return (
        ours.calls == theirs.calls
        and ours.state == theirs.state
        and (ours.sent == theirs.sent or merged_frames(ours.sent) == merged_frames(theirs.sent))
    )


def check_cuts(subject: Make, script: Script) -> None:
    """One engine does exactly the same however the bytes come, octet for octet what it sends included."""
    player, whole = begin(subject, script)
    calls: list[Call] = []
    for unit in script.units():
        outcome = play_unit(player, unit)
        calls += outcome.calls
        whole += outcome.sent
    cut = play_cut(subject, script)
    if merged_calls(cut.calls) != merged_calls(calls):
        raise Differ(f"cut at {script.cuts} the sinks hear something else:\n{calls}\n{cut.calls}\n{script}")
    if cut.sent != whole:
        raise Differ(f"cut at {script.cuts} it sends something else:\n{whole}\n{cut.sent}\n{script}")
    if cut.state != player.state():
        raise Differ(f"cut at {script.cuts} it ends as {cut.state}, not as {player.state()}\n{script}")


def _report(script: Script, index: int, unit: Piece | Act, scene: Scene) -> str:
    out = [f"step {index}: {unit}"]
    for name, outcome, exceeded in (
        ("subject", scene.ours, scene.exceeds_ours),
        ("oracle", scene.theirs, scene.exceeds_theirs),
    ):
        out.append(f"{name}{' (DATA beyond its window)' if exceeded else ''}:")
        out += [f"    calls {str(call)[:200]}" for call in outcome.calls]
        out += [f"    sends {str(one)[:200]}" for one in merged_frames(outcome.sent)]
        out.append(f"    is    {outcome.state} {outcome.row}")
    return "\n".join([*out, f"stage: {scene.stage}", str(script)])
