"""gRPC, server side: every way a call can begin, be answered and end, as dialogues on both engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.control.errors import RpcError
from sidecar.control.wire import decode_text, decode_timeout, encode_text, frame_message
from sidecar.http.session import ErrorCode, Fields
from sidecar.identity.workload_api.calls import MESSAGE_OCTETS_MAX, STALLED_MAX_S, Answer, Call
from tests.sidecar.identity.workload_api.dialogue import GRPC, Dialogue, replaced

OK, INVALID, DEADLINE, DENIED, EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 4, 7, 8, 12, 13

engines = pytest.mark.parametrize("engine", ["relay", "reference"])


def echo(call: Call, message: bytes) -> None:
    call.answer(frame_message(message))


def refuse(call: Call, message: bytes) -> None:
    raise RpcError(DENIED, "50 % är nej")


def methods(**more: Answer) -> Callable[[str], Answer | None]:
    known: dict[str, Answer] = {"Echo": echo, "Refuse": refuse, **more}
    return lambda path: known.get(path.removeprefix("/SpiffeWorkloadAPI/"))


class Kept:
    """A method that keeps its calls for the test to answer."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.over = 0

    def __call__(self, call: Call, message: bytes) -> None:
        self.calls.append(call)
        call.abandoned = self._over

    def _over(self) -> None:
        self.over += 1


@engines
def test_a_call_is_answered_with_a_message_and_a_status(engine: str) -> None:
    """Head, message, trailers."""
    heard = Dialogue(engine, methods()).call(b"hello")
    assert heard.heads[0][b":status"] == b"200"
    assert heard.heads[0][b"content-type"] == b"application/grpc"
    assert (heard.messages, heard.status, heard.ended, heard.reset_code) == ([b"hello"], OK, True, None)


@engines
def test_a_method_that_refuses_answers_with_a_status_alone(engine: str) -> None:
    """And its text is percent-encoded, which a client reads back."""
    heard = Dialogue(engine, methods()).call(fields=replaced(path=b"/SpiffeWorkloadAPI/Refuse"))
    assert (heard.status, heard.ended, heard.messages) == (DENIED, True, [])
    assert heard.text == b"50 %25 %C3%A4r nej"
    assert decode_text(heard.text) == "50 % är nej"


WRONG_HEADS: list[tuple[Fields, int]] = [
    (replaced(workload_spiffe_io=None), INVALID),
    (replaced(workload_spiffe_io=b"True"), INVALID),
    (replaced(workload_spiffe_io=b"1"), INVALID),
    ([*GRPC, (b"workload.spiffe.io", b"true")], INVALID),
    ([*replaced(workload_spiffe_io=b"false"), (b"workload.spiffe.io", b"true")], INVALID),
    (replaced(path=b"/SpiffeWorkloadAPI/Nothing"), UNIMPLEMENTED),
    (replaced(path=b"/spiffe.Other/Echo"), UNIMPLEMENTED),
    (replaced(path=b"/SpiffeWorkloadAPI/Echo?a=b"), UNIMPLEMENTED),
    ([*GRPC, (b"grpc-encoding", b"gzip")], UNIMPLEMENTED),
    ([*GRPC, (b"grpc-timeout", b"soon")], INVALID),
    ([*GRPC, (b"grpc-timeout", b"123456789S")], INVALID),
]


@engines
@pytest.mark.parametrize(("fields", "status"), WRONG_HEADS)
def test_g29_a_wrong_head_is_answered_before_any_message_is_read(engine: str, fields: Fields, status: int) -> None:
    """Without the security header, exactly once and exactly `true`, no method is reached."""
    dialogue = Dialogue(engine, methods())
    heard = dialogue.call(None, fields)
    assert (heard.status, heard.ended) == (status, True)
    assert not dialogue.calls.open
    assert len(dialogue.refused) == (status == INVALID and b"grpc-timeout" not in dict(fields))
    assert dialogue.call(b"next").messages == [b"next"]  # the connection is none the worse for it


@engines
def test_g29_the_header_is_asked_for_before_a_method_is_looked_up(engine: str) -> None:
    """Who may not ask does not learn either which methods there are."""
    fields = replaced(workload_spiffe_io=None, path=b"/SpiffeWorkloadAPI/Nothing")
    assert Dialogue(engine, methods()).call(None, fields).status == INVALID


@engines
@pytest.mark.parametrize(
    ("fields", "http_status"),
    [
        (replaced(method=b"GET"), b"405"),
        (replaced(content_type=b"application/json"), b"415"),
        (replaced(content_type=b"application/grpc-web"), b"415"),
        (replaced(content_type=None), b"415"),
    ],
)
def test_g29_what_is_no_grpc_gets_an_http_status_and_nothing_else(
    engine: str, fields: Fields, http_status: bytes
) -> None:
    """A browser's or a webhook's request does not become a call."""
    heard = Dialogue(engine, methods()).call(None, fields)
    assert heard.heads == [{b":status": http_status}]
    assert heard.ended


@engines
def test_a_content_type_may_say_what_the_messages_are(engine: str) -> None:
    """`+proto`, and parameters."""
    for kind in (b"application/grpc+proto", b"application/grpc; charset=utf-8"):
        assert Dialogue(engine, methods()).call(b"a", replaced(content_type=kind)).status == OK


@engines
@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"", INTERNAL),
        (b"\0\0\0", INTERNAL),
        (frame_message(b"abc")[:-1], INTERNAL),
        (frame_message(b"a") + frame_message(b"b"), INTERNAL),
        (b"\1" + frame_message(b"a")[1:], INTERNAL),
        (b"\0" + (MESSAGE_OCTETS_MAX + 1).to_bytes(4), EXHAUSTED),
        (b"\0\xff\xff\xff\xff", EXHAUSTED),
    ],
)
def test_a_body_that_is_not_one_message_is_refused(engine: str, octets: bytes, status: int) -> None:
    """None, a part, two, a compressed one, one too large (before it has come)."""
    dialogue = Dialogue(engine, methods())
    heard = dialogue.call(None)
    dialogue.write(heard, octets, end=True)
    assert (heard.status, heard.messages) == (status, [])
    assert not dialogue.calls.open


@engines
def test_a_call_that_ends_with_its_head_is_refused(engine: str) -> None:
    """It never had a message."""
    dialogue = Dialogue(engine, methods())
    heard = dialogue.call(None, None)
    other = dialogue.client.request(GRPC, True, heard)
    dialogue.settle()
    assert other
    assert heard.status == INTERNAL


@engines
@pytest.mark.parametrize("sizes", [[1] * 20, [5, 15], [19, 1]])
def test_a_message_may_come_in_any_pieces(engine: str, sizes: list[int]) -> None:
    """One octet a frame, or all at once."""
    dialogue = Dialogue(engine, methods())
    heard, octets = dialogue.call(None), frame_message(b"x" * 15)
    for size in sizes:
        piece, octets = octets[:size], octets[size:]
        dialogue.write(heard, piece, end=not octets)
    assert heard.messages == [b"x" * 15]


@engines
def test_a_message_that_does_not_come_is_not_waited_for(engine: str) -> None:
    """DEADLINE_EXCEEDED; a call that has its message may take as long as it likes."""
    kept = Kept()
    dialogue = Dialogue(engine, methods(Keep=kept))
    slow, listening = dialogue.call(None), dialogue.call(b"", replaced(path=b"/SpiffeWorkloadAPI/Keep"))
    dialogue.now += 11
    dialogue.calls.sweep(10)
    dialogue.settle()
    assert (slow.status, listening.status) == (DEADLINE, None)


@engines
def test_a_call_ends_when_its_own_time_is_over(engine: str) -> None:
    """grpc-timeout, also for a stream."""
    kept = Kept()
    dialogue = Dialogue(engine, methods(Keep=kept))
    heard = dialogue.call(b"", [*replaced(path=b"/SpiffeWorkloadAPI/Keep"), (b"grpc-timeout", b"1500m")])
    dialogue.now += 1
    dialogue.calls.sweep(10)
    assert kept.over == 0
    dialogue.now += 1
    dialogue.calls.sweep(10)
    dialogue.settle()
    assert (heard.status, kept.over) == (DEADLINE, 1)


@engines
def test_a_slow_reader_gets_the_newest_and_not_all(engine: str) -> None:
    """What was begun is finished; of what came meanwhile only the last; nothing piles up."""
    kept = Kept()
    dialogue = Dialogue(engine, methods(Keep=kept))
    heard = dialogue.call(b"", replaced(path=b"/SpiffeWorkloadAPI/Keep"), takes=False)
    (call,) = kept.calls
    messages = [bytes([number]) * 100_000 for number in range(5)]
    for message in messages:
        call.send(frame_message(message))
        dialogue.settle()
    heard.takes = True
    dialogue.client.consumed(heard.stream, heard.held)
    dialogue.settle()
    assert heard.messages == [messages[0], messages[-1]]


@engines
def test_an_error_waits_for_the_message_that_is_being_sent(engine: str) -> None:
    """A part of a message would hide the status."""
    kept = Kept()
    dialogue = Dialogue(engine, methods(Keep=kept))
    heard = dialogue.call(b"", replaced(path=b"/SpiffeWorkloadAPI/Keep"), takes=False)
    (call,) = kept.calls
    call.send(frame_message(b"a" * 100_000))
    call.send(frame_message(b"b" * 100_000))
    call.finish(RpcError(DENIED, "revoked"))
    call.send(frame_message(b"c"))
    dialogue.settle()
    assert not heard.ended
    heard.takes = True
    dialogue.client.consumed(heard.stream, heard.held)
    dialogue.settle()
    assert (heard.messages, heard.status) == ([b"a" * 100_000], DENIED)


@engines
def test_a_reader_that_takes_nothing_loses_its_call(engine: str) -> None:
    """Only that call, and only when something waits for it."""
    kept = Kept()
    dialogue = Dialogue(engine, methods(Keep=kept))
    path = b"/SpiffeWorkloadAPI/Keep"
    stuck, quiet = dialogue.call(b"", replaced(path=path), takes=False), dialogue.call(b"", replaced(path=path))
    kept.calls[0].send(frame_message(b"a" * 100_000))
    kept.calls[1].send(frame_message(b"a"))
    dialogue.settle()
    dialogue.now += STALLED_MAX_S + 1
    dialogue.calls.sweep(10)
    dialogue.settle()
    assert (stuck.reset_code, quiet.reset_code, kept.over) == (ErrorCode.CANCEL, None, 1)
    kept.calls[0].send(frame_message(b"b"))
    kept.calls[0].finish()
    dialogue.settle()
    assert not stuck.ended


@engines
def test_a_caller_that_gives_up_is_forgotten(engine: str) -> None:
    """The method hears of it once, and what it says afterwards goes nowhere."""
    kept = Kept()
    dialogue = Dialogue(engine, methods(Keep=kept))
    heard = dialogue.call(b"", replaced(path=b"/SpiffeWorkloadAPI/Keep"))
    dialogue.client.reset(heard.stream, ErrorCode.CANCEL)
    dialogue.settle()
    (call,) = kept.calls
    call.send(frame_message(b"a"))
    call.finish()
    dialogue.settle()
    assert (kept.over, call.is_over, dialogue.calls.open) == (1, True, set())
    assert not heard.body


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.booleans())
def test_any_octets_for_a_message_end_the_call_at_most_once(pieces: list[bytes], end: bool) -> None:
    """Nothing raises, no call is left open that was ended, and the connection goes on."""
    dialogue = Dialogue("relay", methods())
    heard = dialogue.call(None)
    for piece in pieces:
        dialogue.write(heard, piece)
    if end:
        dialogue.write(heard, b"", end=True)
        assert heard.status is not None
        assert not dialogue.calls.open
    assert dialogue.call(b"next").messages == [b"next"]


@given(st.text(max_size=200))
def test_the_text_of_a_status_is_printable_ascii_and_reads_back(text: str) -> None:
    """Whatever an error says."""
    encoded = encode_text(text)
    assert all(0x20 <= octet < 0x7F for octet in encoded)
    assert decode_text(encoded) == "".join(c if c.isprintable() else " " for c in text)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1H", 3600.0), (b"2M", 120.0), (b"3S", 3.0), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9)]
)
def test_a_timeout_is_digits_and_a_unit(value: bytes, seconds: float) -> None:
    """gRPC over HTTP/2, Timeout."""
    assert decode_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"999999999S", b" 1S", b"\xd9\xa1S"])
def test_a_timeout_that_is_none_is_refused(value: bytes) -> None:
    """ValueError."""
    with pytest.raises(ValueError, match="grpc-timeout"):
        decode_timeout(value)
