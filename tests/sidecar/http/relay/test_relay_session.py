"""What is peculiar to the relay: its tables, its bookkeeping, and what the reference engine cannot do."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sidecar.config import Limits
from sidecar.errors import BadRequest, PeerFlood, UpstreamFailed
from sidecar.http.frames import DATA, HEADERS, PREFACE, RST_STREAM, WINDOW_UPDATE
from sidecar.http.relay import RelaySession
from sidecar.http.relay.streams import GONE_MAX, MISPLACED, Cost, Gone, Past
from sidecar.http.session import ErrorCode, Fields
from tests.contract.http2 import LIMITS, Peer, asking, frame, served
from tests.contract.sessions import GET, OK, POST, Handler, StrictSink

TUNNEL: Fields = [(b":method", b"CONNECT"), (b":authority", b"orders.shop:80")]
EXTENDED: Fields = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"orders.shop"),
    (b":path", b"/chat"),
]


def post(peer: Peer, stream: int, fields: Fields = POST) -> StrictSink:
    """A request whose body is still to come."""
    peer.send(peer.head(stream, fields, "END_HEADERS"))
    return peer.requests[-1]


# The tables


def test_every_frame_of_a_stream_has_a_meaning_in_every_state_that_has_no_use_for_it() -> None:
    """A pair that is missing would be a KeyError on a connection. Half-closed, only these two have no use."""
    everywhere = set(product(set(Past) - {Past.HALF_CLOSED_REMOTE}, (DATA, HEADERS, RST_STREAM, WINDOW_UPDATE)))
    half_closed = {(Past.HALF_CLOSED_REMOTE, DATA), (Past.HALF_CLOSED_REMOTE, HEADERS)}
    assert set(MISPLACED) == everywhere | half_closed


def test_what_costs_nothing_has_no_code_and_what_costs_something_has_one() -> None:
    """The code is what the peer is told."""
    assert all((cost is Cost.NOTHING) == (code == 0) for cost, code in MISPLACED.values())


def test_what_is_remembered_of_reset_streams_is_bounded_and_forgetting_is_lenient() -> None:
    """What nobody remembers any more is never taken for a violation."""
    gone = Gone()
    for stream in range(1, 4 * GONE_MAX, 2):
        gone.add(stream, Past.RESET_BY_US)
    last = 4 * GONE_MAX - 1
    assert len(gone._by) == GONE_MAX
    assert gone.past(last) is Past.RESET_BY_US
    assert gone.past(1) is Past.FORGOTTEN
    assert gone.past(last + 2) is Past.ENDED


def test_frames_for_a_stream_long_forgotten_are_ignored() -> None:
    """After so many resets the first of them could be anything."""
    peer = Peer("relay")
    for stream in range(1, 2 * GONE_MAX + 5, 2):
        post(peer, stream)
        peer.session.reset(stream, ErrorCode.CANCEL)
    peer.read()
    peer.send(DataFrame(1, b"late"), RstStreamFrame(1, 0), WindowUpdateFrame(1, 5))
    assert peer.read() == []
    assert not peer.session.closed


# Which stream, and whether it alone


@pytest.mark.parametrize("stream", [1, 3])
def test_a_head_on_a_stream_that_ended_in_order_ends_the_connection(stream: int) -> None:
    """RFC 9113 section 5.1: STREAM_CLOSED for the last one; an older number went backwards (5.1.1)."""
    peer = Peer("relay")
    for number in (1, 3):
        peer.send(peer.head(number))
        peer.session.head(number, OK, True)
    peer.read()
    peer.send(peer.head(stream))
    assert peer.goodbye() == (ErrorCode.STREAM_CLOSED if stream == 3 else ErrorCode.PROTOCOL_ERROR)


def test_a02_data_after_the_peer_ended_its_half_costs_the_stream() -> None:
    """A stream error, which h2 answers in the same way; the connection lives."""
    peer = Peer("relay")
    peer.send(peer.head(1))
    peer.read()
    peer.send(DataFrame(1, b"more"))
    assert peer.resets() == {1: ErrorCode.STREAM_CLOSED}
    assert peer.requests[0].reset_code == ErrorCode.STREAM_CLOSED
    served(peer, 3)


def test_a02_frames_after_the_peers_own_reset_cost_a_reset_once() -> None:
    """RFC 9113 section 5.1: STREAM_CLOSED; from then on they are what crossed our reset."""
    peer = Peer("relay")
    post(peer, 1)
    peer.send(RstStreamFrame(1, ErrorCode.CANCEL))
    peer.read()
    peer.send(DataFrame(1, b"a"), DataFrame(1, b"b"))
    assert peer.resets() == {1: ErrorCode.STREAM_CLOSED}
    served(peer, 3)


def test_a_second_head_that_ends_nothing_costs_the_stream() -> None:
    """RFC 9113 section 8.1: a section after the head must be trailers."""
    peer = Peer("relay")
    sink = post(peer, 1)
    peer.send(peer.head(1, [(b"x-sum", b"1")], "END_HEADERS"))
    assert peer.resets() == {1: ErrorCode.PROTOCOL_ERROR}
    assert sink.reset_code == ErrorCode.PROTOCOL_ERROR
    served(peer, 3)


@pytest.mark.parametrize("end", [False, True])
def test_data_before_a_head_costs_the_stream_of_a_client(end: bool) -> None:
    """A response begins with a head; its credit comes back to the connection."""
    peer, (sink, other) = asking("relay", count=2)
    peer.send(DataFrame(1, b"x" * 100, flags=["END_STREAM"] if end else []))
    assert peer.resets() == {1: ErrorCode.PROTOCOL_ERROR}
    assert sink.reset_code == ErrorCode.PROTOCOL_ERROR
    peer.send(peer.head(3, OK))
    assert other.ended


def test_an_interim_head_that_ends_the_stream_is_malformed() -> None:
    """RFC 9113 section 8.1: only a final head may."""
    peer, (sink,) = asking("relay")
    peer.send(peer.head(1, [(b":status", b"103")]))
    assert sink.reset_code == ErrorCode.PROTOCOL_ERROR
    assert peer.resets() == {1: ErrorCode.PROTOCOL_ERROR}


def test_a_head_from_a_server_on_a_stream_nobody_opened_ends_the_connection() -> None:
    """RFC 9113 section 5.1.1."""
    peer, _ = asking("relay")
    peer.send(peer.head(7, OK))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("octets", [b"\0\0\0\1\0", b"\0\0"])
def test_a_priority_frame_that_is_wrong_costs_the_stream_if_there_is_one(is_open: bool, octets: bytes) -> None:
    """RFC 9113 section 6.3; RST_STREAM of an idle stream would be a fault of ours."""
    peer = Peer("relay")
    if is_open:
        post(peer, 1)
    peer.read()
    peer.session.receive(frame(0x2, 0, 1, octets))
    code = ErrorCode.PROTOCOL_ERROR if len(octets) == 5 else ErrorCode.FRAME_SIZE_ERROR
    if is_open:
        assert peer.resets() == {1: code}
        served(peer, 3)
    else:
        assert peer.goodbye() == code


def test_a_stream_that_depends_on_itself_is_reset_and_its_block_is_decoded_all_the_same() -> None:
    """The compression state is the connection's (RFC 7541 section 2.2)."""
    peer = Peer("relay")
    head = peer.head(1, [*GET, (b"x-new", b"entry")])
    head.flags |= {"PRIORITY"}
    head.depends_on = 1
    peer.send(head)
    assert peer.resets() == {1: ErrorCode.PROTOCOL_ERROR}
    assert peer.requests == []
    peer.send(peer.head(3, [*GET, (b"x-new", b"entry")]))
    assert peer.requests[0].fields == [*GET, (b"x-new", b"entry")]


def test_refused_streams_have_their_blocks_decoded() -> None:
    """The 101st stream is refused; the next one may refer to what its block put into the table."""
    peer = Peer("relay", limits=replace(LIMITS, streams_per_connection_max=1))
    post(peer, 1)
    peer.send(peer.head(3, [*GET, (b"x-new", b"entry")]))
    assert peer.resets() == {3: ErrorCode.REFUSED_STREAM}
    peer.session.head(1, OK, True)
    peer.send(DataFrame(1, b"", flags=["END_STREAM"]), peer.head(5, [*GET, (b"x-new", b"entry")]))
    assert peer.requests[-1].fields == [*GET, (b"x-new", b"entry")]


# Faults say what they were


@pytest.mark.parametrize("is_client", [True, False])
def test_a_fault_of_the_connection_is_kept_for_the_metrics(is_client: bool) -> None:
    """BadRequest where the peer asks, UpstreamFailed where it answers; with the row."""
    peer = Peer("relay", is_client=is_client)
    peer.send(PushPromiseFrame(1, 2))
    assert isinstance(peer.session.fault, BadRequest if is_client else UpstreamFailed)
    assert peer.session.fault.row == "A31"


def test_a_flood_is_kept_for_the_metrics() -> None:
    """With its row; GOAWAY says ENHANCE_YOUR_CALM."""
    peer = Peer("relay", limits=replace(LIMITS, priority_frames_per_stream_max=1))
    peer.send(PriorityFrame(1), PriorityFrame(1))
    assert peer.goodbye() == ErrorCode.ENHANCE_YOUR_CALM
    assert isinstance(peer.session.fault, PeerFlood)
    assert peer.session.fault.row == "A10"


# Windows


def test_a_small_window_holds_only_from_the_acknowledgement_on() -> None:
    """RFC 9113 section 6.9.3: until it has read our SETTINGS the peer may believe in 65,535."""
    limits = replace(LIMITS, stream_window_octets=1_024, stream_window_octets_max=1_024)
    peer = Peer("relay", limits=limits)
    sink = post(peer, 1)
    sink._gives_back = False
    peer.send(DataFrame(1, b"x" * 10_000))
    assert sink.owed == 10_000
    peer.send(SettingsFrame(0, flags=["ACK"]))
    peer.read()
    sink.give_back()
    (window,) = [f for f in peer.read() if isinstance(f, WindowUpdateFrame)]
    assert (window.stream_id, window.window_increment) == (1, 10_000)
    peer.send(DataFrame(1, b"x" * 1_024))
    assert not peer.session.closed
    peer.send(DataFrame(1, b"x"))
    assert peer.goodbye() == ErrorCode.FLOW_CONTROL_ERROR


def test_what_was_owed_before_the_acknowledgement_is_not_forgotten() -> None:
    """With the small window half of it is owed at once; nobody else would say so."""
    peer = Peer("relay", limits=replace(LIMITS, stream_window_octets=1_024, stream_window_octets_max=1_024))
    post(peer, 1)
    peer.send(DataFrame(1, b"x" * 1_024))
    assert [f for f in peer.read() if isinstance(f, WindowUpdateFrame)] == []
    peer.send(SettingsFrame(0, flags=["ACK"]))
    (window,) = [f for f in peer.read() if isinstance(f, WindowUpdateFrame)]
    assert (window.stream_id, window.window_increment) == (1, 1_024)


def test_an_empty_end_needs_no_window_even_below_zero() -> None:
    """RFC 9113 section 6.9: a frame of no octets is not flow-controlled. Our SETTINGS made this window negative."""
    peer = Peer("relay", limits=replace(LIMITS, stream_window_octets=1_024, stream_window_octets_max=1_024))
    sink = post(peer, 1)
    sink._gives_back = False
    peer.send(DataFrame(1, b"x" * 10_000), SettingsFrame(0, flags=["ACK"]), DataFrame(1, b"", flags=["END_STREAM"]))
    assert sink.ended
    assert not peer.session.closed


def test_credit_goes_back_in_halves_of_a_window() -> None:
    """One WINDOW_UPDATE for many frames, and none for a stream that has ended."""
    peer = Peer("relay", limits=replace(LIMITS, stream_window_octets_max=65_535))
    post(peer, 1)
    peer.send(*(DataFrame(1, b"x" * 1_000) for _ in range(60)))
    updates = [f for f in peer.read() if isinstance(f, WindowUpdateFrame)]
    assert [(f.stream_id, f.window_increment) for f in updates] == [(1, 33_000)]
    peer.send(DataFrame(1, b"x" * 9_000, flags=["END_STREAM"]))
    assert [f for f in peer.read() if isinstance(f, WindowUpdateFrame)] == []


def windows(peer: Peer, stream: int) -> list[int]:
    """Increments for `stream`."""
    return [f.window_increment for f in peer.read() if isinstance(f, WindowUpdateFrame) and f.stream_id == stream]


def test_the_window_of_a_stream_whose_reader_keeps_up_is_doubled_up_to_its_maximum() -> None:
    """Large bodies then need no round trip for each 32 KiB."""
    peer = Peer("relay")
    post(peer, 1)
    increments = []
    for _ in range(20):
        peer.send(*(DataFrame(1, b"x" * 16_384) for _ in range(2)), DataFrame(1, b"x"))
        increments += windows(peer, 1)
    grown = sum(increments) - 20 * (2 * 16_384 + 1)
    assert 0 < LIMITS.stream_window_octets + grown <= LIMITS.stream_window_octets_max
    assert increments[0] > 65_535  # what was taken, and as much again as the window was


def test_the_window_of_a_stream_whose_reader_lags_does_not_grow() -> None:
    """It would hold more of what nobody takes."""
    peer = Peer("relay")
    sink = post(peer, 1)
    sink._gives_back = False
    peer.send(*(DataFrame(1, b"x" * 10_000) for _ in range(6)))
    sink.give_back(33_000)
    assert windows(peer, 1) == [33_000]


def test_windows_grow_only_by_what_the_connection_has_left_and_give_it_back_at_their_end() -> None:
    """R20: the windows of all streams together are never more than the connection's."""
    limits = replace(LIMITS, streams_per_connection_max=4, connection_window_octets=4 * 65_535 + 100_000)
    peer = Peer("relay", limits=limits)

    def grow(stream: int) -> int:
        peer.send(*(DataFrame(stream, b"x" * 11_000) for _ in range(3)))
        return sum(windows(peer, stream)) - 33_000

    post(peer, 1)
    post(peer, 3)
    assert (grow(1), grow(3)) == (65_535, 100_000 - 65_535)
    peer.send(RstStreamFrame(1, ErrorCode.CANCEL))
    post(peer, 5)
    assert grow(5) == 65_535


# Sending


def test_a_head_that_does_not_fit_one_frame_goes_on_in_continuations() -> None:
    """RFC 9113 section 6.10; nothing stands between them, and the last one says that it is."""
    peer = Peer("relay", limits=replace(LIMITS, header_list_octets_max=100_000))
    peer.send(peer.head(1))
    peer.read()
    value = b"v" * 40_000
    peer.session.head(1, [*OK, (b"x-large", value)], True)
    first, second, third = peer.read()
    assert isinstance(first, HeadersFrame)
    assert isinstance(second, ContinuationFrame)
    assert isinstance(third, ContinuationFrame)
    assert (set(first.flags), set(second.flags), set(third.flags)) == ({"END_STREAM"}, set(), {"END_HEADERS"})
    peer.decoder.max_header_list_size = 100_000
    fields = peer.decoder.decode(first.data + second.data + third.data, raw=True)
    assert (b"x-large", value) in [tuple(field) for field in fields]


@pytest.mark.parametrize("end", [False, True])
def test_a_body_larger_than_a_frame_is_cut_and_only_the_last_piece_ends(end: bool) -> None:
    """What fills one TLS record with its head, whatever the peer would take."""
    peer = Peer("relay")
    peer.send(SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 1_000_000}), peer.head(1))
    peer.session.head(1, OK, False)
    peer.read()
    peer.session.data(1, b"x" * 40_000, end)
    pieces = [f for f in peer.read() if isinstance(f, DataFrame)]
    assert [len(f.data) for f in pieces] == [16_375, 16_375, 7_250]
    assert ["END_STREAM" in f.flags for f in pieces] == [False, False, end]


def test_nothing_is_said_before_a_head_or_after_a_second() -> None:
    """A server's body or trailers before its head, a second head, an interim head after it: none of it is sent."""
    peer = Peer("relay")
    peer.send(peer.head(1))
    peer.read()
    session = peer.session
    session.data(1, b"x", False)
    session.trailers(1, [(b"x-sum", b"1")])
    assert peer.read() == []
    session.head(1, OK, False)
    assert len(peer.read()) == 1
    session.head(1, OK, False)
    session.informational(1, [(b":status", b"103")])
    assert peer.read() == []


# The end


def test_a41_after_its_last_stream_a_client_opens_no_more() -> None:
    """The pool sees a draining session and dials another; what is open finishes."""
    peer, (first, second) = asking("relay", limits=replace(LIMITS, streams_total_max=2), count=2, end=True)
    assert peer.session.draining
    assert not peer.session.can_open
    peer.send(peer.head(1, OK))
    assert not peer.session.closed
    peer.send(peer.head(3, OK))
    assert first.ended
    assert second.ended
    assert peer.session.closed


def test_a_server_that_shuts_down_names_the_last_stream_it_has_seen() -> None:
    """RFC 9113 section 6.8."""
    peer = Peer("relay")
    peer.send(peer.head(5))
    peer.read()
    peer.session.shutdown(ErrorCode.NO_ERROR)
    (goaway,) = [f for f in peer.read() if isinstance(f, GoAwayFrame)]
    assert goaway.last_stream_id == 5


# CONNECT


def tunnelling(*, extended: bool) -> tuple[RelaySession, RelaySession, Handler]:
    """Client and server that have greeted each other."""
    handler = Handler()
    server = RelaySession(handler, Limits(), extended_connect=extended)
    client = RelaySession(None, Limits())
    exchange(client, server)
    return client, server, handler


def exchange(one: RelaySession, other: RelaySession) -> None:
    while (said := one.take()) + (answered := other.take()):
        one.sent(0)
        other.sent(0)
        other.receive(said)
        one.receive(answered)


@pytest.mark.parametrize("extended", [True, False])
def test_extended_connect_is_advertised_if_it_is_wanted(extended: bool) -> None:
    """RFC 8441 section 3; nothing else tells a client that it may."""
    client, _, _ = tunnelling(extended=extended)
    assert client.peer_extended_connect is extended


@pytest.mark.parametrize("values", [[2], [1, 0]])
def test_an_extended_connect_setting_that_is_wrong_ends_the_connection(values: list[int]) -> None:
    """RFC 8441 section 3: 0 or 1, and never back to 0."""
    peer = Peer("relay", is_client=False)
    for value in values:
        peer.session.receive(frame(0x4, 0, 0, b"\0\x08" + value.to_bytes(4, "big")))
    assert peer.goodbye() == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("head", [TUNNEL, EXTENDED])
def test_a_tunnel_carries_octets_both_ways_and_each_way_ends_alone(head: Fields) -> None:
    """RFC 9113 section 8.5, RFC 8441 section 5: DATA after the 2xx, END_STREAM is a FIN."""
    client, server, handler = tunnelling(extended=True)
    sink = StrictSink(is_client=True)
    sink.attach(client, client.request(head, False, sink))
    exchange(client, server)
    (asked,) = handler.sinks
    assert asked.fields == head
    server.head(asked.stream, [(b":status", b"200")], False)
    client.data(sink.stream, b"ping", True)
    exchange(client, server)
    assert (bytes(asked.body), asked.ended) == (b"ping", True)
    server.data(asked.stream, b"pong", True)
    exchange(client, server)
    assert (bytes(sink.body), sink.ended) == (b"pong", True)
    assert client.open_streams == server.open_streams == 0


def test_a_tunnel_has_no_trailers() -> None:
    """RFC 9113 section 8.5: anything but DATA and the management of the stream is a stream error."""
    peer = Peer("relay")
    sink = post(peer, 1, TUNNEL)
    peer.session.head(1, OK, False)
    peer.read()
    peer.send(peer.head(1, [(b"x-sum", b"1")]))
    assert peer.resets() == {1: ErrorCode.PROTOCOL_ERROR}
    assert sink.reset_code == ErrorCode.PROTOCOL_ERROR


def test_a_frame_that_drips_in_is_put_together_at_a_cost_linear_in_its_size() -> None:
    """I01: a frame of 16,384 octets, octet by octet; what waits is never copied anew with each."""
    session = RelaySession(handler := Handler(), LIMITS)
    session.receive(PREFACE + frame(0x4, 0, 0))
    whole = frame(0x0, 0, 1, b"x" * 16_384)
    peer = Peer("relay")
    session.receive(peer.head(1, POST, "END_HEADERS").serialize())
    kept: set[int] = set()
    for octet in whole[:-1]:
        session.receive(bytes((octet,)))
        kept.add(id(session._more))
    assert len(kept) <= 3  # one buffer, not one for each octet
    assert not handler.sinks[0].body
    session.receive(whole[-1:])
    assert len(handler.sinks[0].body) == 16_384
