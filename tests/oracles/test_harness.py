"""The harness can fail: engines that are a little wrong are told from those that are right, by a few scripts."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from sidecar.http.engines import http2_engine
from sidecar.http.reference import ReferenceSession
from sidecar.http.session import Fields, Session
from tests.oracles.compare import check_cuts, compare
from tests.oracles.generate import script
from tests.oracles.minimize import minimized
from tests.oracles.observe import Make
from tests.oracles.scripts import LIMITS, Script, from_json, to_json
from tests.oracles.wire import PREFACE, PeerFrame, Splitter, frame

REFERENCE = http2_engine("reference")


class KeepsCredit(ReferenceSession):
    def consumed(self, stream: int, flow: int) -> None: ...


class GivesTooMuch(ReferenceSession):
    def consumed(self, stream: int, flow: int) -> None:
        super().consumed(stream, flow + 40_000)


class SaysAnotherCode(ReferenceSession):
    def reset(self, stream: int, code: int) -> None:
        super().reset(stream, code ^ 1)


class ForgetsTheEnd(ReferenceSession):
    def data(self, stream: int, data: bytes, end: bool) -> None:
        super().data(stream, data, False)


class LosesAField(ReferenceSession):
    def trailers(self, stream: int, fields: Fields) -> None:
        super().trailers(stream, fields[1:])


class LosesAnOctet(ReferenceSession):
    def data(self, stream: int, data: bytes, end: bool) -> None:
        super().data(stream, data[1:], end)


class NeedsWholeFrames(ReferenceSession):
    """Passes over what is left of a frame when less than three octets come at once."""

    def receive(self, data: bytes) -> None:
        super().receive(data if len(data) > 2 else b"")


class NeverWakes(ReferenceSession):
    def want_write(self, stream: int) -> None: ...


class StaysOpen(ReferenceSession):
    def eof(self) -> None: ...


def narrower(*args: object) -> Session:
    handler, limits, clock = args
    return REFERENCE(handler, replace(limits, streams_per_connection_max=2), clock)  # type: ignore[arg-type, type-var]


def poorer(*args: object) -> Session:
    """Greets as it should and has smaller budgets."""
    handler, limits, clock = args
    return REFERENCE(handler, replace(limits, glitches_max=20), clock)  # type: ignore[arg-type, type-var]


WRONG: list[Make] = [
    KeepsCredit,
    GivesTooMuch,
    SaysAnotherCode,
    ForgetsTheEnd,
    LosesAField,
    LosesAnOctet,
    NeedsWholeFrames,
    NeverWakes,
    StaysOpen,
    narrower,
    poorer,
]


def differs(make: Make, candidate: Script) -> bool:
    try:
        difference = compare(make, REFERENCE, candidate).difference
        check_cuts(make, candidate)
    except AssertionError:
        return True
    assert difference is None, "the table has no excuse for two that are one engine"
    return False


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_an_engine_that_is_a_little_wrong_is_found(make: Make) -> None:
    """Within 400 scripts, where hundreds of thousands are tried."""
    for seed in range(400):
        candidate = script(Random(seed), "server" if seed % 2 else "client")
        if differs(make, candidate):
            break
    else:
        pytest.fail("nothing was noticed")
    small = minimized(candidate, lambda fewer: differs(make, fewer))
    assert len(small.steps) <= min(10, len(candidate.steps))
    assert differs(make, from_json(to_json(small)))


def test_scripts_survive_json() -> None:
    """What is kept in `regressions/` is what was played."""
    for seed in range(50):
        for role in ("server", "client"):
            one = script(Random(seed), role)
            assert from_json(to_json(one)) == one
            assert one.limits in LIMITS


def test_the_splitter_finds_frames_where_they_end() -> None:
    """Also in pieces, and a frame that is too large is given up after its head."""
    splitter = Splitter(expects_preface=True)
    ping = frame(6, 0, 0, b"12345678")
    pieces = [
        p for data in (PREFACE[:5], PREFACE[5:] + ping[:4], ping[4:] + ping, b"\xff") for p in splitter.push(data)
    ]
    assert b"".join(data for data, _ in pieces) == PREFACE + ping + ping + b"\xff"
    assert [str(f) for _, f in pieces if f] == ["PING flags=0x0 stream=0 length=8"] * 2
    (found,) = Splitter(expects_preface=False).push(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
    assert found[1] == PeerFrame(0, 0, 1, b"", 0xFFFFFF)
