"""Floods of frames, each legal by itself, against every HTTP/2 engine (security.md section A).

Each is stopped after a number of frames that the test states; what is held meanwhile is counted, no time is measured.
The connection beside the attacker's notices nothing. And whoever works hard but honestly is never taken for a flood.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, repeat

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sidecar.config import Limits
from sidecar.errors import PeerFlood
from sidecar.http.budgets import PREMATURE_S, REFILL_S
from sidecar.http.engines import HTTP2_ENGINES
from sidecar.http.frames import STREAM_ID_MAX
from sidecar.http.session import ErrorCode
from tests.contract.http2 import LIMITS, Peer, asking, frame, served
from tests.contract.sessions import GET, OK, POST, StrictSink

pytestmark = pytest.mark.parametrize("engine", HTTP2_ENGINES)

BIG_WINDOWS = SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})


class Clock:
    """Monotonic seconds; stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def at(engine: str, limits: Limits = LIMITS) -> tuple[Peer, Clock]:
    clock = Clock()
    peer = Peer(engine, limits=limits, clock=clock)
    peer.read()
    return peer, clock


def flood(peer: Peer, octets: Iterator[bytes], *, most: int, reads: bool = True) -> int:
    """Send one after the other until the connection ends. Returns how many it took; more than `most` is a failure.

    `reads`: the attacker takes everything off its socket at once."""
    waiting = 0
    for sent in range(1, most + 1):
        peer.session.receive(next(octets))
        if peer.session.closed:
            return sent
        waiting = 0 if reads else waiting + len(peer.session.take())
        if reads:
            peer.session.take()
        peer.session.sent(waiting)
    raise AssertionError(f"{most} were not enough")


def stopped(peer: Peer, row: str) -> None:
    """Said goodbye as the catalogue wants it, every request given up, and the reason told."""
    last = peer.read()[-1]
    assert isinstance(last, GoAwayFrame)
    assert last.error_code == ErrorCode.ENHANCE_YOUR_CALM
    assert isinstance(peer.session.fault, PeerFlood)
    assert peer.session.fault.row == row
    assert peer.session.open_streams == 0
    assert all(sink.over for sink in peer.requests)


def requests(peer: Peer, *more: Callable[[int], Frame]) -> Iterator[bytes]:
    """A request, and what comes right behind it, on one stream after the other."""
    for stream in count(1, 2):
        frames = [peer.head(stream, POST, "END_HEADERS"), *[one(stream) for one in more]]
        yield b"".join(f.serialize() for f in frames)


def forever(one: Frame | bytes) -> Iterator[bytes]:
    return repeat(one if isinstance(one, bytes) else one.serialize())


# A01, A02, A03: requests thrown away


def rapid_reset(peer: Peer) -> Iterator[bytes]:
    return requests(peer, lambda stream: RstStreamFrame(stream, ErrorCode.CANCEL))


def test_a01_rapid_reset_is_stopped_after_250_requests(engine: str) -> None:
    """CVE-2023-44487: as fast as it comes, in pieces or at once."""
    peer, _ = at(engine)
    bystander = Peer(engine)
    assert flood(peer, rapid_reset(peer), most=300) == LIMITS.premature_resets_max + 1
    stopped(peer, "A01")
    served(bystander, 1)


def test_a01_what_was_answered_before_is_not_saved_up_for_an_attack(engine: str) -> None:
    """A thousand answered requests pay for a debt, and there was none."""
    peer, _ = at(engine)
    for stream in range(1, 2_001, 2):
        served(peer, stream)
    attack = rapid_reset(peer)
    for _ in range(1_000):
        next(attack)
    assert flood(peer, attack, most=300) <= LIMITS.premature_resets_max + 1
    stopped(peer, "A01")


def test_a01_hedged_requests_that_are_cancelled_are_no_attack(engine: str) -> None:
    """One of ten is given up at once, the others are answered: for as long as the client likes."""
    peer, _ = at(engine)
    for number in range(5_000):
        stream = 2 * number + 1
        if number % 10:
            served(peer, stream)
        else:
            peer.send(peer.head(stream), RstStreamFrame(stream, ErrorCode.CANCEL))
            peer.read()
    assert not peer.session.closed


@pytest.mark.parametrize("timeout_s", [PREMATURE_S, 1.0])
def test_a01_an_incident_in_which_every_request_times_out_is_no_attack(engine: str, timeout_s: float) -> None:
    """A hundred at a time wait in vain and are given up; nothing is answered for minutes."""
    peer, clock = at(engine)
    for round_ in range(50):
        streams = [2 * (100 * round_ + n) + 1 for n in range(100)]
        peer.send(*[peer.head(stream) for stream in streams])
        clock.now += timeout_s
        peer.send(*[RstStreamFrame(stream, ErrorCode.CANCEL) for stream in streams])
        peer.read()
    assert len(peer.requests) == 5_000
    assert not peer.session.closed


def test_a01_streams_cancelled_after_their_head_came_are_no_attack(engine: str) -> None:
    """Whoever has seen enough of an answer stops it."""
    peer, _ = at(engine)
    for stream in range(1, 2_001, 2):
        peer.send(peer.head(stream))
        peer.session.head(stream, OK, False)
        peer.send(RstStreamFrame(stream, ErrorCode.CANCEL))
        peer.read()
    assert not peer.session.closed


def test_a01_a_few_cancelled_in_each_second_are_no_attack(engine: str) -> None:
    """Time pays, too: twenty a second for minutes, none of them answered."""
    peer, clock = at(engine)
    for stream in range(1, 10_001, 2):
        peer.send(peer.head(stream), RstStreamFrame(stream, ErrorCode.CANCEL))
        peer.read()
        clock.now += 0.05
    assert not peer.session.closed


MADE_YOU_RESET: dict[str, Callable[[int], Frame]] = {
    "a window that overflows": lambda stream: WindowUpdateFrame(stream, 2**31 - 1),
    "DATA after the end": lambda stream: DataFrame(stream, b"x"),
    "HEADERS after the end": lambda stream: HeadersFrame(stream, b"\x82", flags=["END_HEADERS", "END_STREAM"]),
}


@pytest.mark.parametrize("how", MADE_YOU_RESET)
def test_a02_a11_requests_we_are_made_to_reset_are_stopped_after_250(engine: str, how: str) -> None:
    """CVE-2025-8671: each request is admitted, then a fault of its stream makes us give it up."""
    peer, _ = at(engine)
    bystander = Peer(engine)

    def attack() -> Iterator[bytes]:
        for stream in count(1, 2):
            yield peer.head(stream).serialize() + MADE_YOU_RESET[how](stream).serialize()

    assert flood(peer, attack(), most=300, reads=False) == LIMITS.premature_resets_max + 1
    assert len(peer.requests) == LIMITS.premature_resets_max + 1
    stopped(peer, "A02")
    served(bystander, 1)


@pytest.mark.parametrize(
    "octets", [frame(8, 0, 1, bytes(4)), frame(2, 0, 1, b"abcd"), frame(2, 0, 1, bytes(3) + b"\1\3")]
)
def test_a02_malformed_frames_of_a_stream_cost_it_or_the_connection(engine: str, octets: bytes) -> None:
    """A zero increment, PRIORITY of a wrong size or of itself: RST_STREAM, which counts, or GOAWAY at once."""
    peer, _ = at(engine)

    def attack() -> Iterator[bytes]:
        for stream in count(1, 2):
            yield (
                peer.head(stream, POST, "END_HEADERS").serialize()
                + octets[:5]
                + struct.pack(">L", stream)
                + (octets[9:] if len(octets) != 14 else struct.pack(">LB", stream, 3))
            )

    assert flood(peer, attack(), most=300) <= LIMITS.premature_resets_max + 1
    assert all(sink.over for sink in peer.requests)


def calls_made(work: Callable[[], None]) -> int:
    """Python functions entered: the cost of a piece of work, without a clock."""
    made = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def test_a03_the_last_of_ten_thousand_resets_costs_no_more_than_the_first(engine: str) -> None:
    """CVE-2021-32778: bookkeeping of streams that are over must not grow with their number."""
    peer, _ = at(engine, replace(LIMITS, premature_resets_max=1_000_000))
    attack = rapid_reset(peer)

    def hundred() -> None:
        for _ in range(100):
            peer.session.receive(next(attack))
            peer.session.take()
        assert all(sink.over for sink in peer.requests)
        peer.requests.clear()

    hundred()
    first = calls_made(hundred)
    for _ in range(97):
        hundred()
    assert calls_made(hundred) < 1.5 * first
    assert peer.session.open_streams == 0


# A07, A08, A09: what must be answered


@pytest.mark.parametrize(
    ("row", "one"),
    [
        ("A07", SettingsFrame(0)),
        ("A07", SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 1})),
        ("A09", PingFrame(0, b"12345678")),
    ],
)
def test_a07_a09_answers_nobody_reads_end_the_connection_at_a_thousand(engine: str, row: str, one: Frame) -> None:
    """CVE-2019-9512, 9515: what waits is bounded long before the megabyte that a connection may queue."""
    peer, _ = at(engine)
    bystander = Peer(engine)
    most = LIMITS.control_frames_queued_max + 1
    assert flood(peer, forever(one), most=most, reads=False) > most - 5
    stopped(peer, row)
    served(bystander, 1)


@pytest.mark.parametrize(
    ("row", "one", "most"),
    [
        ("A07", SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 1}), LIMITS.glitches_max // 10 + 1),
        ("A09", PingFrame(0, b"12345678"), LIMITS.glitches_max + 1),
    ],
)
def test_a07_a09_a_flood_whose_answers_are_read_is_stopped_too(engine: str, row: str, one: Frame, most: int) -> None:
    """It costs work that is worth nothing; SETTINGS ten times as much as PING."""
    peer, _ = at(engine)
    assert flood(peer, forever(one), most=most) > most - 20
    stopped(peer, row)


def test_a09_a_client_that_measures_bandwidth_over_a_full_socket_is_no_flood(engine: str) -> None:
    """gRPC asks once in a round trip while it downloads. The socket is never empty, but every answer leaves in turn."""
    peer, clock = at(engine)
    peer.send(BIG_WINDOWS, WindowUpdateFrame(0, 2**31 - 1 - 65_535), peer.head(1))
    peer.session.head(1, OK, False)
    for _ in range(5_000):
        clock.now += 0.1
        peer.send(PingFrame(0, b"\x02\x04\x10\x10\t\x0e\x07\x07"))
        peer.session.data(1, b"x" * 1_000, False)
        peer.session.take()
        peer.session.sent(1_500)
        assert not peer.session.closed


def test_a09_questions_in_one_slice_are_counted_before_anything_was_sent(engine: str) -> None:
    """64 KiB of PING and not a byte sent in between: at most a thousand answers are built."""
    peer, _ = at(engine)
    peer.session.receive(PingFrame(0, b"12345678").serialize() * 3_855)
    out = peer.session.take()
    assert peer.session.closed
    assert len(out) <= 17 * (LIMITS.control_frames_queued_max + 1) + 17


# A10, A15, A16, A17, A30, A35: what means nothing


@pytest.mark.parametrize("octets", [PriorityFrame(7, stream_weight=3).serialize(), frame(0x10, 0, 0, b"\0\0\0\1u=1")])
def test_a10_priorities_are_stopped_after_a_hundred_for_each_stream(engine: str, octets: bytes) -> None:
    """CVE-2019-9513; PRIORITY of RFC 9113 and PRIORITY_UPDATE of RFC 9218 alike."""
    peer, _ = at(engine)
    bystander = Peer(engine)
    served(peer, 1)
    most = 2 * LIMITS.priority_frames_per_stream_max + 1
    assert flood(peer, forever(octets), most=most) == most
    stopped(peer, "A10")
    served(bystander, 1)


def test_a10_a_browser_sets_a_priority_for_each_request(engine: str) -> None:
    """One update a stream, for ever."""
    peer, _ = at(engine)
    for stream in range(1, 3_001, 2):
        peer.session.receive(frame(0x10, 0, 0, struct.pack(">L", stream) + b"u=1"))
        served(peer, stream)


EMPTY: dict[str, bytes] = {
    "DATA": DataFrame(1, b"").serialize(),
    "DATA of padding": DataFrame(1, b"", pad_length=255, flags=["PADDED"]).serialize(),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a15_the_second_empty_frame_in_a_row_ends_the_connection(engine: str, kind: str) -> None:
    """CVE-2019-9518: nothing, that ends nothing. Padding is nothing, too."""
    peer, _ = at(engine)
    bystander = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"))
    assert flood(peer, forever(EMPTY[kind]), most=3) == LIMITS.empty_frames_max + 1
    stopped(peer, "A15")
    served(bystander, 1)


@pytest.mark.parametrize("first", [b"", b"\x82"])
def test_a15_a_header_block_of_empty_frames_ends_the_connection(engine: str, first: bytes) -> None:
    """HEADERS and CONTINUATION that carry nothing, and go on."""
    peer, _ = at(engine)
    peer.send(HeadersFrame(1, first))
    assert flood(peer, forever(ContinuationFrame(1, b"")), most=3) <= 2
    stopped(peer, "A15")


def test_a15_an_empty_frame_now_and_then_is_a_flush(engine: str) -> None:
    """Some clients send one when their app flushes; and an empty one that ends the stream is the usual end."""
    peer, _ = at(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"))
    for _ in range(500):
        peer.send(DataFrame(1, b""), DataFrame(1, b"content"))
    peer.send(DataFrame(1, b"", flags=["END_STREAM"]))
    (sink,) = peer.requests
    assert bytes(sink.body) == 500 * b"content"
    assert sink.ended


def test_a16_tiny_frames_that_nobody_takes_are_stopped(engine: str) -> None:
    """The window would let 65,535 of one octet wait on each stream."""
    limits = replace(LIMITS, tiny_data_frames_max=1_000)
    peer, _ = at(engine, limits)
    bystander = Peer(engine)
    peer.handler.gives_back = False
    peer.send(*[peer.head(stream, POST, "END_HEADERS") for stream in (1, 3)])
    attack = (DataFrame(1 + 2 * (n % 2), b"x").serialize() for n in count())
    assert flood(peer, attack, most=1_010) <= 1_003
    stopped(peer, "A16")
    served(bystander, 1)


def test_a16_a_fast_stream_does_not_pay_for_the_tiny_frames_of_a_slow_one(engine: str) -> None:
    """Else an attacker would keep one that is read beside those that are not."""
    peer, _ = at(engine, replace(LIMITS, tiny_data_frames_max=1_000))
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.handler.gives_back = False
    peer.send(peer.head(3, POST, "END_HEADERS"))
    attack = (DataFrame(1 + 2 * (n % 2), b"x").serialize() for n in count())
    assert flood(peer, attack, most=2_010) <= 2_006
    stopped(peer, "A16")


def test_a16_a_stream_of_small_messages_whose_reader_keeps_up_is_free(engine: str) -> None:
    """gRPC: ten thousand in a second, for as long as they are read."""
    peer, _ = at(engine, replace(LIMITS, tiny_data_frames_max=100))
    peer.send(peer.head(1, POST, "END_HEADERS"))
    message = DataFrame(1, b"\0\0\0\0\5hello").serialize()
    for _ in range(10_000):
        peer.session.receive(message)
        peer.session.take()
    assert not peer.session.closed


def test_a16_a_reader_that_stalls_while_small_messages_fill_every_window_is_no_flood(engine: str) -> None:
    """A hundred streams, 100 octets a message, until the windows are full: then the clients wait, and nobody dies."""
    peer, _ = at(engine)
    peer.handler.gives_back = False
    streams = range(1, 201, 2)
    peer.send(*[peer.head(stream, POST, "END_HEADERS") for stream in streams])
    for _ in range(LIMITS.stream_window_octets // 100):
        peer.send(*[DataFrame(stream, b"m" * 100) for stream in streams])
    assert not peer.session.closed
    assert {len(sink.body) for sink in peer.requests} == {65_500}


def test_a17_window_updates_without_data_are_stopped(engine: str) -> None:
    """Five, and two for each stream, of the connection or of the stream."""
    for stream in (0, 1):
        peer, _ = at(engine)
        bystander = Peer(engine)
        peer.send(peer.head(1))
        assert flood(peer, forever(WindowUpdateFrame(stream, 1)), most=8) == 8
        stopped(peer, "A17")
        served(bystander, 1)


def test_a17_a_download_may_be_acknowledged_twice_for_every_frame(engine: str) -> None:
    """For the stream and for the connection, however small the frames."""
    peer, _ = at(engine)
    peer.send(peer.head(1))
    peer.session.head(1, OK, False)
    for _ in range(2_000):
        peer.session.data(1, b"x", False)
        peer.session.take()
        peer.session.sent(0)
        peer.send(WindowUpdateFrame(0, 1), WindowUpdateFrame(1, 1))
    assert not peer.session.closed


USELESS: dict[str, bytes] = {
    "an unknown kind": frame(0x42, 0xFF, 1, b"abc"),
    "an acknowledgement of no PING": frame(6, 1, 0, b"12345678"),
    "GOAWAY": GoAwayFrame(0, 0, 0).serialize(),
}


@pytest.mark.parametrize("what", USELESS)
def test_a30_frames_of_no_use_are_stopped_when_they_are_many(engine: str, what: str) -> None:
    """Ten thousand at once, 333 a second for ever."""
    peer, _ = at(engine)
    bystander = Peer(engine)
    assert flood(peer, forever(USELESS[what]), most=LIMITS.glitches_max + 1) > LIMITS.glitches_max - 20
    stopped(peer, "A30")
    served(bystander, 1)


def test_a30_time_forgives_frames_of_no_use(engine: str) -> None:
    """A peer with an extension that we do not know, at its own pace."""
    peer, clock = at(engine)
    for _ in range(2 * LIMITS.glitches_max):
        peer.session.receive(USELESS["an unknown kind"])
        clock.now += REFILL_S / LIMITS.glitches_max
    served(peer, 1)


def test_a30_resets_of_streams_that_are_over_are_stopped(engine: str) -> None:
    """One for each stream may have crossed its end; more are useless."""
    peer, _ = at(engine)
    served(peer, 1)
    most = LIMITS.glitches_max + 2
    assert flood(peer, forever(RstStreamFrame(1, ErrorCode.CANCEL)), most=most) > LIMITS.glitches_max - 20
    stopped(peer, "A30")


def test_a30_a_reset_that_crosses_the_end_of_its_stream_costs_nothing(engine: str) -> None:
    """Hedging at any rate: the slower answer is cancelled when it has just gone out."""
    peer, _ = at(engine, replace(LIMITS, glitches_max=100))
    for stream in range(1, 2_001, 2):
        served(peer, stream)
        peer.send(RstStreamFrame(stream, ErrorCode.CANCEL))
    assert not peer.session.closed


def test_a30_data_that_crosses_our_reset_costs_neither_streams_nor_resets(engine: str) -> None:
    """A right is revoked while a window of small messages is on its way."""
    peer, _ = at(engine)
    for stream in range(1, 21, 2):
        peer.send(peer.head(stream, POST, "END_HEADERS"))
        peer.requests[-1].reset_it(ErrorCode.CANCEL)
        peer.read()
        peer.send(*[DataFrame(stream, b"m" * 100) for _ in range(600)])
    assert not peer.session.closed
    served(peer, 101)


def test_a28_streams_beyond_the_limit_are_stopped_when_they_are_many(engine: str) -> None:
    """Each costs a header block. A thousand before our SETTINGS were read are forgiven."""
    peer, _ = at(engine, replace(LIMITS, streams_per_connection_max=1))
    bystander = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"))
    attack = (peer.head(stream).serialize() for stream in count(3, 2))
    most = LIMITS.glitches_max // 10 + 1
    assert flood(peer, attack, most=most) > most - 5
    assert len(peer.requests) == 1
    stopped(peer, "A28")
    served(bystander, 1)


def test_a35_windows_that_flip_under_a_hundred_streams_are_stopped(engine: str) -> None:
    """Each flip changes every open stream; a thousand are more than anybody needs."""
    peer, _ = at(engine)
    bystander = Peer(engine)
    peer.send(*[peer.head(stream) for stream in range(1, 201, 2)])
    flips = (SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65_535 + n % 2}).serialize() for n in count())
    most = LIMITS.glitches_max // 10 + 1
    assert flood(peer, flips, most=most) <= most
    stopped(peer, "A35")
    served(bystander, 1)


# A41: the life of a connection


def test_a41_a_connection_that_has_carried_enough_is_drained_in_good_order(engine: str) -> None:
    """GOAWAY and PING after the last stream; what crossed it is served."""
    peer, _ = at(engine, replace(LIMITS, streams_total_max=3))
    served(peer, 1)
    served(peer, 3)
    was_draining = peer.session.draining
    peer.send(peer.head(5))
    assert (was_draining, peer.session.draining) == (False, True)
    first, ping = peer.read()
    assert isinstance(first, GoAwayFrame)
    assert (first.last_stream_id, first.error_code) == (STREAM_ID_MAX, ErrorCode.NO_ERROR)
    assert isinstance(ping, PingFrame)
    served(peer, 7)
    peer.session.head(5, OK, True)
    peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    assert peer.session.closed
    assert all(sink.reset_code is None for sink in peer.requests)
    assert peer.session.fault is None


def test_a41_a_client_lets_another_connection_take_over(engine: str) -> None:
    """No stream is opened beyond the limit; those that are open finish."""
    peer, (one, two) = asking(engine, limits=replace(LIMITS, streams_total_max=2), count=2, end=True)
    assert not peer.session.can_open
    assert peer.session.draining
    for sink in (one, two):
        peer.send(HeadersFrame(sink.stream, peer.encoder.encode(OK), flags=["END_HEADERS", "END_STREAM"]))
    assert one.ended
    assert two.ended
    assert peer.session.closed


# The other way round: an upstream that floods us


@pytest.mark.parametrize(
    ("row", "one"),
    [
        ("A07", SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 7})),
        ("A09", PingFrame(0, b"12345678")),
        ("A10", PriorityFrame(7, stream_weight=3)),
        ("A17", WindowUpdateFrame(0, 1)),
    ],
)
def test_a07_a09_a10_a17_a_server_that_floods_is_said_goodbye(engine: str, row: str, one: Frame) -> None:
    """The same bounds hold on connections we opened; what waits there is told."""
    peer, (sink,) = asking(engine)
    assert flood(peer, forever(one), most=LIMITS.control_frames_queued_max + 1, reads=False)
    assert sink.reset_code == ErrorCode.ENHANCE_YOUR_CALM
    assert peer.session.fault is not None
    assert peer.session.fault.row == row


def test_a15_a_server_that_sends_empty_data_is_said_goodbye(engine: str) -> None:
    """Its answer would never end."""
    peer, (sink,) = asking(engine, end=True)
    peer.send(HeadersFrame(1, peer.encoder.encode(OK), flags=["END_HEADERS"]))
    assert flood(peer, forever(DataFrame(1, b"")), most=2) == 2
    assert sink.reset_code == ErrorCode.ENHANCE_YOUR_CALM


def test_a12_a_name_of_no_octets_reaches_the_judge_and_costs_its_stream(engine: str) -> None:
    """CVE-2019-9516: nothing is kept for it."""
    peer, _ = at(engine)
    for stream in range(1, 401, 2):
        peer.send(peer.head(stream, [*GET, (b"", b"")]))
        sink: StrictSink = peer.requests[-1]
        assert sink.fields is not None
        assert sink.fields[-1] == (b"", b"")
        peer.session.head(stream, [(b":status", b"400")], True)
        peer.read()
    assert peer.session.open_streams == 0
    served(peer, 401)
