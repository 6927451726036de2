"""Dialogues in raw frames with every HTTP/2 engine: what each must make of what a peer may say.

Where RFC 9113 leaves a choice (end a stream or the connection), the test states what may be chosen from.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sidecar.errors import HeadersTooLarge, RequestError
from sidecar.http.engines import HTTP2_ENGINES, http2_engine
from sidecar.http.frames import PREFACE, STREAM_ID_MAX
from sidecar.http.headers import admit_request
from sidecar.http.session import ErrorCode, Fields, Session
from tests.contract.http2 import LIMITS, RESPONSE, Peer, asking, frame, served
from tests.contract.sessions import GET, OK, POST, Handler, StrictSink

pytestmark = pytest.mark.parametrize("engine", HTTP2_ENGINES)


# What it says first


def test_the_greeting_states_every_limit(engine: str) -> None:
    """SETTINGS with our limits, and the connection's window."""
    peer = Peer(engine)
    settings: dict[int, int] = {}
    for said in peer.greeting:
        if isinstance(said, SettingsFrame):
            settings.update(said.settings)
    assert settings.pop(SettingsFrame.ENABLE_CONNECT_PROTOCOL, 0) == 0
    assert settings.pop(SettingsFrame.MAX_FRAME_SIZE, 16_384) == 16_384
    assert settings == {
        SettingsFrame.ENABLE_PUSH: 0,
        SettingsFrame.INITIAL_WINDOW_SIZE: LIMITS.stream_window_octets,
        SettingsFrame.MAX_HEADER_LIST_SIZE: LIMITS.header_list_octets_max,
        SettingsFrame.HEADER_TABLE_SIZE: 4_096,
        SettingsFrame.MAX_CONCURRENT_STREAMS: LIMITS.streams_per_connection_max,
    }
    (window,) = [f for f in peer.greeting if isinstance(f, WindowUpdateFrame)]
    assert (window.stream_id, window.window_increment) == (0, LIMITS.connection_window_octets - 65_535)


@pytest.mark.parametrize("cut", range(1, len(PREFACE)))
def test_the_preface_may_arrive_in_two_pieces(engine: str, cut: int) -> None:
    """RFC 9113 section 3.4: it is a sequence of octets, not a packet."""
    handler = Handler()
    session = http2_engine(engine)(handler, LIMITS)
    data = (
        PREFACE
        + SettingsFrame(0).serialize()
        + HeadersFrame(1, Encoder().encode(GET), flags=["END_HEADERS"]).serialize()
    )
    session.receive(data[:cut])
    assert session.awaits_rest
    session.receive(data[cut:])
    assert len(handler.sinks) == 1


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", b"\x16\x03\x01", b"X"]
)
def test_a38_what_is_not_the_preface_closes_at_once(engine: str, first: bytes) -> None:
    """No echo of what was sent."""
    session = http2_engine(engine)(Handler(), LIMITS)
    session.receive(first)
    assert session.closed
    out = session.take()
    assert first not in out
    assert struct.unpack_from(">LL", out, len(out) - 8)[1] == ErrorCode.PROTOCOL_ERROR


# Header blocks


@pytest.mark.parametrize(("count", "dies"), [(8, False), (9, True)])
def test_a04_the_ninth_continuation_ends_the_connection(engine: str, count: int, dies: bool) -> None:
    """CVE-2024-27316: GOAWAY(ENHANCE_YOUR_CALM) long before memory matters; eight are enough for anybody."""
    peer = Peer(engine)
    peer.read()
    block = peer.encoder.encode([*GET, (b"x-long", b"v" * 20)])
    frames: list[Frame] = [HeadersFrame(1, block[:-count], flags=["END_STREAM"])]
    frames += [ContinuationFrame(1, block[n : n + 1]) for n in range(len(block) - count, len(block))]
    if not dies:
        frames[-1].flags.add("END_HEADERS")
    peer.send(*frames)
    if dies:
        assert peer.goodbye() == ErrorCode.ENHANCE_YOUR_CALM
        assert peer.requests == []
    else:
        assert len(peer.requests) == 1
        assert peer.requests[0].ended


def test_a04_a_header_block_beyond_four_limits_is_not_even_collected(engine: str) -> None:
    """Five full frames of 16 KiB are more than four times the limit."""
    peer = Peer(engine)
    piece = b"\x00" * 16_384
    peer.send(HeadersFrame(1, piece), *[ContinuationFrame(1, piece) for _ in range(4)])
    assert peer.goodbye() == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "between",
    [DataFrame(1, b"x"), PingFrame(0, b"12345678"), GoAwayFrame(0, 0, 0), SettingsFrame(0), HeadersFrame(3, b"\x82")],
    ids=lambda frame: type(frame).__name__,
)
def test_a05_another_frame_inside_a_header_block_ends_the_connection(engine: str, between: Frame) -> None:
    """RFC 9113 section 6.10, also for the frames that the gate keeps to itself."""
    peer = Peer(engine)
    peer.send(HeadersFrame(1, peer.encoder.encode(GET)), between)
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR
    assert peer.requests == []


def test_a05_a_continuation_of_another_stream_ends_the_connection(engine: str) -> None:
    """It continues nothing."""
    peer = Peer(engine)
    peer.send(HeadersFrame(1, peer.encoder.encode(GET)), ContinuationFrame(3, b"", flags=["END_HEADERS"]))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


def test_a06_a_continuation_without_headers_ends_the_connection(engine: str) -> None:
    """RFC 9113 section 6.10."""
    peer = Peer(engine)
    peer.send(ContinuationFrame(1, b"\x82", flags=["END_HEADERS"]))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize(("entries", "dies"), [(32, False), (33, True)])
def test_a08_a_settings_frame_of_thousands_ends_the_connection(engine: str, entries: int, dies: bool) -> None:
    """More than 32 entries: GOAWAY(ENHANCE_YOUR_CALM)."""
    peer = Peer(engine)
    peer.read()
    payload = struct.pack(">HL", SettingsFrame.INITIAL_WINDOW_SIZE, 70_000) * entries
    peer.session.receive(struct.pack(">HBBBL", 0, len(payload), 4, 0, 0) + payload)
    if dies:
        assert peer.goodbye() == ErrorCode.ENHANCE_YOUR_CALM
    else:
        served(peer, 1)


# Windows


def test_a18_an_increment_of_zero_ends_the_stream_or_the_connection(engine: str) -> None:
    """RFC 9113 section 6.9: a stream error, which section 5.4.2 lets an endpoint treat as the connection's."""
    peer = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.read()
    peer.session.receive(frame(0x8, 0, 1, bytes(4)))
    assert peer.requests[0].reset_code == ErrorCode.PROTOCOL_ERROR
    if peer.session.closed:
        assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR
    else:
        assert peer.resets() == {1: ErrorCode.PROTOCOL_ERROR}
        served(peer, 3)


def test_a18_an_increment_of_zero_for_the_connection_ends_it(engine: str) -> None:
    """There is no stream to end."""
    peer = Peer(engine)
    peer.session.receive(frame(0x8, 0, 0, bytes(4)))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


def test_a19_a_stream_window_that_overflows_costs_the_stream(engine: str) -> None:
    """RFC 9113 section 6.9.1: RST_STREAM(FLOW_CONTROL_ERROR); the connection lives."""
    peer = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.read()
    peer.send(WindowUpdateFrame(1, 2**31 - 1))
    assert peer.resets() == {1: ErrorCode.FLOW_CONTROL_ERROR}
    assert peer.requests[0].reset_code == ErrorCode.FLOW_CONTROL_ERROR
    served(peer, 3)


def test_a19_a_connection_window_that_overflows_ends_the_connection(engine: str) -> None:
    """GOAWAY(FLOW_CONTROL_ERROR)."""
    peer = Peer(engine)
    peer.send(WindowUpdateFrame(0, 2**31 - 1))
    assert peer.goodbye() == ErrorCode.FLOW_CONTROL_ERROR


def test_a35_a_window_that_shrinks_below_zero_holds_the_writer_until_it_is_positive(engine: str) -> None:
    """RFC 9113 section 6.9.2: a late INITIAL_WINDOW_SIZE may make what is open negative."""
    peer, (sink,) = asking(engine)
    peer.session.data(sink.stream, b"x" * 1_000, False)
    peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 500}))
    assert peer.session.credit(sink.stream) == 0
    peer.session.want_write(sink.stream)
    peer.send(WindowUpdateFrame(sink.stream, 500))
    assert sink.writable_count == 0
    peer.send(WindowUpdateFrame(sink.stream, 7))
    assert sink.writable_count == 1
    assert peer.session.credit(sink.stream) == 7


def test_a36_padding_counts_as_credit(engine: str) -> None:
    """255 octets of padding and their length octet are part of what the sink must give back."""
    peer = Peer(engine)
    peer.handler.gives_back = False
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.send(DataFrame(1, b"abc", pad_length=255, flags=["PADDED"]))
    (sink,) = peer.requests
    assert bytes(sink.body) == b"abc"
    assert sink.owed == 3 + 255 + 1


def test_a36_padding_beyond_the_payload_ends_the_connection(engine: str) -> None:
    """RFC 9113 section 6.1."""
    peer = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.session.receive(struct.pack(">HBBBL", 0, 4, 0, 0x8, 1) + b"\x04abc")
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


def test_data_beyond_the_window_ends_the_connection(engine: str) -> None:
    """Whoever sends more than it may breaks RFC 9113 section 6.9; nothing is buffered for it."""
    peer = Peer(engine)
    peer.handler.gives_back = False
    peer.send(peer.head(1, POST, "END_HEADERS"))
    peer.send(*[DataFrame(1, b"x" * 16_384) for _ in range(4)])
    assert peer.goodbye() == ErrorCode.FLOW_CONTROL_ERROR
    assert len(peer.requests[0].body) <= LIMITS.stream_window_octets


# HPACK


def test_a22_a_block_that_grows_a_hundredfold_ends_the_connection(engine: str) -> None:
    """CVE-2016-6581: one big entry in the table, then references of one octet each."""
    peer = Peer(engine)
    big = peer.encoder.encode([*GET, (b"x-big", b"v" * 3_900)])
    peer.send(HeadersFrame(1, big, flags=["END_HEADERS", "END_STREAM"]))
    assert len(peer.requests) == 1
    reference = peer.encoder.encode([(b"x-big", b"v" * 3_900)])
    assert len(reference) == 1
    peer.send(HeadersFrame(3, reference * 200, flags=["END_HEADERS", "END_STREAM"]))
    assert peer.goodbye() == ErrorCode.ENHANCE_YOUR_CALM
    assert len(peer.requests) == 1


@pytest.mark.parametrize("octet", [b"\xff", b"\x1f", b"\x3f"])
def test_a23_an_integer_that_runs_on_ends_the_connection(engine: str, octet: bytes) -> None:
    """GOAWAY(COMPRESSION_ERROR), without computing a number of thousands of digits."""
    peer = Peer(engine)
    peer.send(HeadersFrame(1, octet + b"\xff" * 10_000, flags=["END_HEADERS"]))
    assert peer.goodbye() == ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize(
    "block",
    [
        b"\x00\x81\xff\x81\xff",  # Huffman: eight bits of padding
        b"\x00\x81\x00\x01a",  # Huffman: padding that is not ones
        b"\xff\x7f",  # index 190: neither static nor dynamic
        b"\x80",  # index 0
        b"\x3f\xff\xff\x7f",  # table size update beyond what we allow
        b"\x00\x05ab",  # a string that is cut off
    ],
)
def test_a24_a_block_that_does_not_decode_ends_the_connection(engine: str, block: bytes) -> None:
    """RFC 7541: GOAWAY(COMPRESSION_ERROR), for the two tables are no longer one."""
    peer = Peer(engine)
    peer.send(HeadersFrame(1, block, flags=["END_HEADERS"]))
    assert peer.goodbye() == ErrorCode.COMPRESSION_ERROR
    assert peer.requests == []


def head_from(peer: Peer, stream: int) -> tuple[HeadersFrame, ...]:
    return tuple(f for f in peer.read() if isinstance(f, HeadersFrame) and f.stream_id == stream)


def test_a25_a_peer_cannot_grow_our_encoders_table(engine: str) -> None:
    """HEADER_TABLE_SIZE of 2^31 is heard and capped: the block says 4096 before anything else."""
    peer = Peer(engine)
    peer.send(SettingsFrame(0, {SettingsFrame.HEADER_TABLE_SIZE: 2**31 - 1}), peer.head(1))
    peer.session.head(1, OK, True)
    (head,) = head_from(peer, 1)
    peer.decoder.max_allowed_table_size = 2**31
    peer.decoder.decode(head.data)
    assert peer.decoder.header_table_size == 4_096


@pytest.mark.parametrize("size", [0, 100, 4_095])
def test_a25_a_smaller_table_is_announced_in_the_next_block(engine: str, size: int) -> None:
    """RFC 7541 section 4.2. A decoder that shrank its table must be told, or it refuses the block."""
    peer = Peer(engine)
    peer.send(SettingsFrame(0, {SettingsFrame.HEADER_TABLE_SIZE: size}))
    peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 70_000}), peer.head(1))
    peer.session.head(1, OK, True)
    (head,) = head_from(peer, 1)
    peer.decoder.max_allowed_table_size = size
    assert (b":status", b"200") in [tuple(h) for h in peer.decoder.decode(head.data, raw=True)]
    assert peer.decoder.header_table_size == size


def test_secrets_are_never_indexed(engine: str) -> None:
    """RFC 7541 section 7.1.3: credentials stay out of tables, here and downstream."""
    peer = Peer(engine, is_client=False)
    sink = StrictSink(is_client=True)
    fields = [*GET, (b"authorization", b"Bearer t"), (b"cookie", b"a=1"), (b"x-plain", b"1")]
    peer.session.request(fields, True, sink)
    (head,) = [f for f in peer.read() if isinstance(f, HeadersFrame)]
    decoded = peer.decoder.decode(head.data, raw=True)
    assert {bytes(h[0]) for h in decoded if not h.indexable} == {b"authorization", b"cookie"}


# Heads too large for one stream


@pytest.mark.parametrize(
    "fields",
    [[(b"x-%d" % n, b"v") for n in range(101)], [(b"cookie", b"c")] * 101, [(b"x-big", b"v" * 17_000)]],
    ids=["101 fields", "101 cookie crumbs", "17 kB"],
)
def test_a21_a26_a_list_over_the_limit_is_one_streams_affair(engine: str, fields: Fields) -> None:
    """Up to four times the limit it is decoded, and judged as 431 by `headers`; the connection lives."""
    peer = Peer(engine)
    block = peer.encoder.encode([*GET, *fields])
    pieces = [block[i : i + 16_000] for i in range(0, len(block), 16_000)]
    frames: list[Frame] = [HeadersFrame(1, pieces[0], flags=["END_STREAM"])]
    frames += [ContinuationFrame(1, piece) for piece in pieces[1:]]
    frames[-1].flags.add("END_HEADERS")
    peer.send(*frames)
    (sink,) = peer.requests
    assert sink.fields is not None
    with pytest.raises(HeadersTooLarge) as caught:
        admit_request(sink.fields, True, LIMITS)
    assert caught.value.http_status == 431
    peer.session.head(1, [(b":status", b"431")], True)
    peer.read()
    served(peer, 3)


def test_a26_a_list_beyond_four_times_the_limit_ends_the_connection(engine: str) -> None:
    """GOAWAY(ENHANCE_YOUR_CALM): it is not even decoded."""
    peer = Peer(engine)
    fields = [*GET, *[(b"x-%d" % n, b"0" * 15_000) for n in range(5)]]
    block = peer.encoder.encode(fields, huffman=True)
    assert len(block) < 4 * LIMITS.header_list_octets_max
    pieces = [block[i : i + 16_000] for i in range(0, len(block), 16_000)]
    frames: list[Frame] = [HeadersFrame(1, pieces[0]), *[ContinuationFrame(1, piece) for piece in pieces[1:]]]
    frames[-1].flags.add("END_HEADERS")
    peer.send(*frames)
    assert peer.goodbye() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_malformed_head_reaches_the_judge_and_costs_its_stream_only(engine: str) -> None:
    """`h2` judges nothing: a bad head is refused by `headers`, and the next stream is served (rows B01, B10, B11)."""
    peer = Peer(engine)
    bad: list[Fields] = [
        [*GET, (b"X-Upper", b"1")],
        [*GET, (b"x-a", b"1\r\nx-b: 2")],
        [*GET[1:]],
        [*GET, GET[0]],
        [(b"x-a", b"1"), *GET],
        [*GET, (b"", b"1")],
        [*GET, (b"connection", b"close")],
        [*GET, (b"content-length", b"5")],
    ]
    for number, fields in enumerate(bad):
        peer.send(peer.head(2 * number + 1, fields))
        sink = peer.requests[-1]
        assert sink.fields is not None
        with pytest.raises(RequestError):
            admit_request(sink.fields, True, LIMITS)
        peer.session.reset(sink.stream, ErrorCode.PROTOCOL_ERROR)
        sink.silenced = True
    assert len(peer.requests) == len(bad)
    peer.read()
    served(peer, 2 * len(bad) + 1)


def test_b16_a_body_that_is_not_as_long_as_announced_is_not_the_connections_fault(engine: str) -> None:
    """`h2` would end the connection; the exchange counts, per stream (RFC 9113 section 8.1.1)."""
    peer = Peer(engine)
    peer.send(peer.head(1, [*POST, (b"content-length", b"2")], "END_HEADERS"))
    peer.send(DataFrame(1, b"far more than two", flags=["END_STREAM"]))
    assert bytes(peer.requests[0].body) == b"far more than two"
    assert peer.requests[0].ended
    peer.read()
    served(peer, 3)


# Frames


@pytest.mark.parametrize("kind", [0, 1, 4, 0x42])
def test_a27_a_frame_that_is_too_large_ends_the_connection_before_its_body(engine: str, kind: int) -> None:
    """GOAWAY(FRAME_SIZE_ERROR) at its nine octets of head."""
    peer = Peer(engine)
    peer.session.receive(struct.pack(">HBBBL", 16_385 >> 8, 16_385 & 0xFF, kind, 0, 1))
    assert peer.goodbye() == ErrorCode.FRAME_SIZE_ERROR


def test_a27_a_frame_of_exactly_the_limit_is_served(engine: str) -> None:
    """16,384 octets."""
    peer = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"), DataFrame(1, b"x" * 16_384))
    assert len(peer.requests[0].body) == 16_384


def test_a28_one_stream_too_many_is_refused_alone(engine: str) -> None:
    """RST_STREAM(REFUSED_STREAM): safe to retry. The connection and the open streams live."""
    peer = Peer(engine, limits=replace(LIMITS, streams_per_connection_max=2))
    peer.send(peer.head(1), peer.head(3), peer.head(5))
    assert len(peer.requests) == 2
    assert peer.resets() == {5: ErrorCode.REFUSED_STREAM}
    peer.session.head(1, OK, True)
    peer.read()
    served(peer, 7)


@pytest.mark.parametrize("second", [2, 1, 3])
def test_a29_a_stream_id_that_is_even_or_does_not_grow_ends_the_connection(engine: str, second: int) -> None:
    """RFC 9113 section 5.1.1; a head on a stream that is over, also if never used, may be called STREAM_CLOSED."""
    peer = Peer(engine)
    peer.send(peer.head(5))
    peer.session.head(5, OK, True)
    peer.read()
    peer.send(peer.head(second))
    codes = {ErrorCode.PROTOCOL_ERROR} if second == 2 else {ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED}
    assert peer.goodbye() in codes
    assert len(peer.requests) == 1


def test_a31_a_push_promise_ends_the_connection(engine: str) -> None:
    """We said ENABLE_PUSH=0 (RFC 9113 section 8.4), and a client may never push."""
    peer, _ = asking(engine)
    peer.send(PushPromiseFrame(1, 2, peer.encoder.encode(GET), flags=["END_HEADERS"]))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR
    server = Peer(engine)
    server.send(server.head(1, POST, "END_HEADERS"))
    server.send(PushPromiseFrame(1, 2, server.encoder.encode(GET), flags=["END_HEADERS"]))
    assert server.goodbye() == ErrorCode.PROTOCOL_ERROR


def test_a31_a_server_that_says_enable_push_ends_the_connection(engine: str) -> None:
    """RFC 9113 section 6.5.2."""
    peer, _ = asking(engine)
    peer.send(SettingsFrame(0, {SettingsFrame.ENABLE_PUSH: 1}))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("stream", [2, 3])
def test_a_reset_of_a_stream_that_never_was_ends_the_connection(engine: str, stream: int) -> None:
    """RFC 9113 section 6.4, in both roles and for both sides' streams."""
    server = Peer(engine)
    server.send(server.head(1), RstStreamFrame(stream, 8))
    assert server.goodbye() == ErrorCode.PROTOCOL_ERROR
    client, _ = asking(engine)
    client.send(RstStreamFrame(stream, 8))
    assert client.goodbye() == ErrorCode.PROTOCOL_ERROR


def test_data_after_both_sides_ended_ends_the_connection(engine: str) -> None:
    """RFC 9113 section 5.1, state "closed": the peer cannot have been surprised by anything."""
    server = Peer(engine)
    server.send(server.head(1))
    server.session.head(1, OK, True)
    server.read()
    server.send(DataFrame(1, b"more", flags=["END_STREAM"]))
    assert server.goodbye() == ErrorCode.STREAM_CLOSED
    client, _ = asking(engine, end=True)
    client.send(HeadersFrame(1, RESPONSE, flags=["END_HEADERS", "END_STREAM"]))
    client.send(DataFrame(1, b"more", flags=["END_STREAM"]))
    assert client.goodbye() == ErrorCode.STREAM_CLOSED


def test_a_client_greets_with_one_settings_frame(engine: str) -> None:
    """How many streams a server may open is not to be said where none may be."""
    peer = Peer(engine, is_client=False)
    assert [type(said) for said in peer.greeting].count(SettingsFrame) == 1


def test_frames_before_a_wrong_one_in_the_same_read_are_not_lost(engine: str) -> None:
    """The request is told, then the connection ends it."""
    peer = Peer(engine)
    peer.send(peer.head(1), ContinuationFrame(1, b""))
    (sink,) = peer.requests
    assert sink.fields is not None
    assert sink.reset_code == ErrorCode.PROTOCOL_ERROR


def test_frames_of_unknown_kinds_are_ignored(engine: str) -> None:
    """RFC 9113 section 5.5, and PRIORITY says nothing to us."""
    peer = Peer(engine)
    peer.session.receive(struct.pack(">HBBBL", 0, 3, 0x42, 0xFF, 1) + b"abc")
    peer.send(PriorityFrame(9, stream_weight=3))
    peer.read()
    served(peer, 1)


def test_a40_data_after_a_reset_is_not_told(engine: str) -> None:
    """CVE-2026-26311: both in one read. The connection's credit is not lost."""
    peer = Peer(engine)
    peer.send(peer.head(1, POST, "END_HEADERS"), RstStreamFrame(1, 8), DataFrame(1, b"late", flags=["END_STREAM"]))
    assert peer.requests[0].body == b""
    assert peer.requests[0].reset_code == 8
    served(peer, 3)


def test_what_arrives_for_a_stream_we_reset_gives_its_credit_back(engine: str) -> None:
    """The sender could not know yet; the connection's window must not leak."""
    peer = Peer(engine, limits=replace(LIMITS, connection_window_octets=65_535))
    for number in range(8):
        stream = 2 * number + 1
        peer.send(peer.head(stream, POST, "END_HEADERS"))
        sink = peer.requests[-1]
        sink.reset_it(ErrorCode.CANCEL)
        peer.send(DataFrame(stream, b"x" * 16_384))
    window = sum(f.window_increment for f in peer.read() if isinstance(f, WindowUpdateFrame) and f.stream_id == 0)
    assert window >= 8 * 16_384 - 65_535 // 2
    served(peer, 101)


# The end


def test_a33_a_goaway_lets_streams_below_it_finish_and_returns_those_above(engine: str) -> None:
    """RFC 9113 section 6.8: above the last id nothing was processed, so it may be sent again whatever its method."""
    peer, (first, second, third) = asking(engine, count=3)
    peer.send(GoAwayFrame(0, last_stream_id=1, error_code=0))
    assert not peer.session.can_open
    assert peer.session.draining
    assert [s.reset_code for s in (first, second, third)] == [None, ErrorCode.REFUSED_STREAM, ErrorCode.REFUSED_STREAM]
    assert second.unprocessed
    assert third.unprocessed
    peer.session.data(first.stream, b"rest", True)
    (data,) = [f for f in peer.read() if isinstance(f, DataFrame)]
    assert data.data == b"rest"
    assert not peer.session.closed
    peer.send(HeadersFrame(1, RESPONSE, flags=["END_HEADERS"]), DataFrame(1, b"all", flags=["END_STREAM"]))
    assert bytes(first.body) == b"all"
    assert first.ended
    assert peer.session.closed


def test_a33_the_graceful_pair_of_goaways_costs_nothing(engine: str) -> None:
    """2^31-1 first: everything goes on. The true last id then: what is above comes back."""
    peer, (first, second) = asking(engine, count=2, end=True)
    peer.send(GoAwayFrame(0, last_stream_id=STREAM_ID_MAX, error_code=0))
    assert not peer.session.can_open
    assert first.reset_code is None
    assert second.reset_code is None
    peer.send(GoAwayFrame(0, last_stream_id=1, error_code=0))
    assert second.unprocessed
    peer.send(HeadersFrame(1, RESPONSE, flags=["END_HEADERS", "END_STREAM"]))
    assert first.ended
    assert peer.session.closed


def test_a33_a_sink_that_resets_its_sibling_during_a_goaway_is_survived(engine: str) -> None:
    """Contract 5: the sibling then hears nothing."""
    peer, (first, second, third) = asking(engine, count=3)
    second.on_event = lambda name: third.reset_it(ErrorCode.CANCEL)
    peer.send(GoAwayFrame(0, last_stream_id=1, error_code=0))
    assert second.unprocessed
    assert third.reset_code is None
    assert first.reset_code is None


def test_a33_a_goaway_with_an_error_is_remembered(engine: str) -> None:
    """For the log: the peer said why."""
    peer, _ = asking(engine)
    peer.send(GoAwayFrame(0, last_stream_id=1, error_code=ErrorCode.ENHANCE_YOUR_CALM))
    assert vars(peer.session)["peer_error"] == ErrorCode.ENHANCE_YOUR_CALM


def test_a34_a_goaway_then_no_streams_allowed_is_a_drain_like_any_other(engine: str) -> None:
    """CVE-2021-32780."""
    peer, (sink,) = asking(engine)
    peer.send(GoAwayFrame(0, last_stream_id=1), SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 0}))
    peer.session.data(sink.stream, b"", True)
    peer.send(HeadersFrame(1, RESPONSE, flags=["END_HEADERS", "END_STREAM"]))
    assert sink.ended
    assert peer.session.closed


def test_a_stream_the_server_refused_comes_back_unprocessed(engine: str) -> None:
    """RFC 9113 section 8.7: REFUSED_STREAM and nothing else."""
    peer, (first, second) = asking(engine, count=2)
    peer.send(RstStreamFrame(1, ErrorCode.REFUSED_STREAM), RstStreamFrame(3, ErrorCode.CANCEL))
    assert (first.unprocessed, second.unprocessed) == (True, False)
    assert second.reset_code == ErrorCode.CANCEL


def test_the_peers_stream_limit_is_never_overrun(engine: str) -> None:
    """`can_open` is False at its MAX_CONCURRENT_STREAMS, and True when one has ended."""
    peer, (sink,) = asking(engine, end=True)
    peer.send(SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 1}))
    could = [peer.session.can_open]
    peer.send(HeadersFrame(1, RESPONSE, flags=["END_HEADERS", "END_STREAM"]))
    could.append(peer.session.can_open)
    assert could == [False, True]
    assert sink.ended


def test_r14_a_drain_is_goaway_ping_and_the_true_last_id_when_the_ping_is_back(engine: str) -> None:
    """What the peer sent before it read our GOAWAY is served; what comes after is refused; then the end."""
    peer = Peer(engine)
    peer.send(peer.head(1))
    peer.read()
    peer.session.drain()
    first, ping = peer.read()
    assert isinstance(first, GoAwayFrame)
    assert (first.last_stream_id, first.error_code) == (STREAM_ID_MAX, 0)
    assert isinstance(ping, PingFrame)
    peer.send(peer.head(3))  # crossed with the GOAWAY
    assert len(peer.requests) == 2
    peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    (final,) = peer.read()
    assert isinstance(final, GoAwayFrame)
    assert (final.last_stream_id, final.error_code) == (3, 0)
    peer.send(peer.head(5))
    assert len(peer.requests) == 2
    assert peer.resets() == {5: ErrorCode.REFUSED_STREAM}
    peer.session.head(1, OK, True)
    assert "draining" in repr(peer.session)
    peer.session.head(3, OK, True)
    assert peer.session.closed
    assert sum(isinstance(f, HeadersFrame) for f in peer.read()) == 2


def test_a_ping_ack_nobody_waits_for_says_nothing(engine: str) -> None:
    """Whoever guesses our PING's payload ends no connection with it."""
    another = Peer(engine)
    another.read()
    another.session.drain()
    (asked,) = (f for f in another.read() if isinstance(f, PingFrame))
    peer = Peer(engine)
    peer.send(PingFrame(0, asked.opaque_data, flags=["ACK"]))
    peer.read()
    served(peer, 1)


def test_shutdown_says_goodbye_with_its_code_and_the_last_stream(engine: str) -> None:
    """The peer learns which requests were seen."""
    peer = Peer(engine)
    peer.send(peer.head(7))
    peer.read()
    session: Session = peer.session
    session.shutdown(ErrorCode.INADEQUATE_SECURITY)
    (goodbye,) = peer.read()
    assert isinstance(goodbye, GoAwayFrame)
    assert (goodbye.last_stream_id, goodbye.error_code) == (7, ErrorCode.INADEQUATE_SECURITY)
    assert peer.requests[0].reset_code == ErrorCode.INADEQUATE_SECURITY


def test_pings_are_answered(engine: str) -> None:
    """RFC 9113 section 6.7."""
    peer = Peer(engine)
    peer.read()
    peer.send(PingFrame(0, b"whoareu?"))
    (pong,) = peer.read()
    assert isinstance(pong, PingFrame)
    assert pong.opaque_data == b"whoareu?"
    assert "ACK" in pong.flags
