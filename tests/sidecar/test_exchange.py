"""An exchange between two sessions: every row of its table, and what must hold whatever both sides do."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.answers import error_answer
from sidecar.config import Limits
from sidecar.errors import (
    BadRequest,
    ConnectFailed,
    Forbidden,
    NotFound,
    RequestError,
    UpstreamFailed,
    UpstreamTimeout,
)
from sidecar.exchange import TABLE, Event, Exchange, State
from sidecar.flow import Flow
from sidecar.http.headers import admit_request, request_fields
from sidecar.http.session import ErrorCode, Fields, Session, StreamSink
from tests.contract.sessions import ENGINES, Engine, Sender, Wire
from tests.sidecar.fakes import FakeSession

LIMITS = Limits()
GET: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", b"/a?q=1")]
HEAD: Fields = [(b":method", b"HEAD"), *GET[1:]]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
GRPC: Fields = [*POST, (b"te", b"trailers"), (b"content-type", b"application/grpc")]
OK: Fields = [(b":status", b"200")]
GRPC_OK: Fields = [*OK, (b"content-type", b"application/grpc")]


class Traced(Exchange):
    """Notes every pair that the table was asked for."""

    __slots__ = ("pairs",)

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.pairs: list[tuple[State, Event]] = []
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def _event(self, event: Event) -> None:
        if self.state is not State.ENDED:
            self.pairs.append((self.state, event))
        super()._event(event)


class Talk:
    """One exchange between two fakes. `again`: upstreams handed out when the first did not process the request."""

    def __init__(self, fields: Fields = GET, *, end: bool = True, down_credit: int = 1_000_000) -> None:
        self.now = 100.0
        self.touched: set[Session] = set()
        self.ended: list[str] = []
        self.parked_again = 0
        self.down = FakeSession(is_server=True, credit=down_credit)
        self.down.peer_ended = end
        self.up = FakeSession(is_server=False)
        self.x = Traced(
            self.down,
            1,
            end,
            touched=self.touched,
            limits=LIMITS,
            clock=lambda: self.now,
            on_end=lambda x: self.ended.append(x.how_ended),
        )
        self.down.sink = self.x.sink
        head = admit_request(fields, end, LIMITS)
        self.x.understood(head)
        self.x.upstream_fields = request_fields(head, [])
        self.x.on_unprocessed = self._park

    def _park(self, x: Exchange) -> None:
        self.parked_again += 1

    def connect(self, *, credit: int = 1_000_000) -> FakeSession:
        self.up = FakeSession(is_server=False, credit=credit)
        self.x.connected(self.up)
        return self.up

    def answer(self, body: bytes = b"hello", fields: Fields = OK) -> None:
        self.up.peer_head(fields, end=not body)
        if body:
            self.up.peer_data(body, end=True)


def connected(fields: Fields = GET, *, end: bool = True) -> Talk:
    talk = Talk(fields, end=end)
    talk.connect()
    return talk


def answering(fields: Fields = GET, *, end: bool = True, head: Fields = OK) -> Talk:
    talk = connected(fields, end=end)
    talk.up.peer_head(head)
    return talk


# Every row


def row_connected() -> Talk:
    talk = connected()
    assert talk.up.heads == [GET]
    assert talk.up.sent_end
    return talk


def row_parked_client_reset() -> Talk:
    talk = Talk(POST, end=False)
    talk.down.peer_resets(ErrorCode.CANCEL)
    assert talk.ended == ["client_reset"]
    assert talk.down.calls == []
    return talk


def row_parked_failed() -> Talk:
    talk = Talk()
    talk.x.fail(NotFound())
    assert talk.down.heads[0][0] == (b":status", b"404")
    assert talk.ended == ["no_route"]
    return talk


def row_unprocessed() -> Talk:
    talk = connected()
    talk.up.peer_resets(ErrorCode.REFUSED_STREAM, unprocessed=True)
    assert talk.parked_again == 1
    assert talk.x.state is State.PARKED
    talk.connect()
    talk.answer()
    assert bytes(talk.down.body) == b"hello"
    assert talk.ended == ["complete"]
    return talk


def row_response_head() -> Talk:
    talk = answering()
    assert talk.down.heads == [OK]
    assert not talk.down.sent_end
    assert talk.ended == []
    return talk


def row_relaying_client_reset() -> Talk:
    talk = connected()
    talk.down.peer_resets(ErrorCode.CANCEL)
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["client_reset"]
    return talk


def row_relaying_upstream_reset() -> Talk:
    talk = connected()
    talk.up.peer_resets(ErrorCode.INTERNAL_ERROR)
    assert talk.down.heads[0][0] == (b":status", b"502")
    assert talk.down.sent_end
    assert talk.ended == ["upstream_reset"]
    return talk


def row_relaying_failed() -> Talk:
    talk = connected()
    talk.x.fail(UpstreamTimeout())
    assert talk.down.heads[0][0] == (b":status", b"504")
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["upstream_timeout"]
    return talk


def row_response_end() -> Talk:
    talk = answering()
    talk.up.peer_data(b"hello", end=True)
    assert bytes(talk.down.body) == b"hello"
    assert talk.down.sent_end
    assert talk.ended == ["complete"]
    return talk


def row_answering_client_reset() -> Talk:
    talk = answering()
    talk.down.peer_resets(ErrorCode.CANCEL)
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["client_reset"]
    return talk


def row_answering_upstream_reset() -> Talk:
    talk = answering()
    talk.up.peer_data(b"part")
    talk.up.peer_resets(ErrorCode.INTERNAL_ERROR)
    assert bytes(talk.down.body) == b"part"
    assert not talk.down.sent_end
    assert talk.down.reset_code == ErrorCode.INTERNAL_ERROR
    assert talk.ended == ["upstream_reset"]
    return talk


def row_answering_failed() -> Talk:
    talk = answering()
    talk.x.fail(Forbidden())
    assert talk.down.reset_code == ErrorCode.CANCEL  # never REFUSED_STREAM: something was done
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["denied"]
    return talk


ROWS: dict[tuple[State, Event], Callable[[], Talk]] = {
    (State.PARKED, Event.CONNECTED): row_connected,
    (State.PARKED, Event.CLIENT_RESET): row_parked_client_reset,
    (State.PARKED, Event.FAILED): row_parked_failed,
    (State.RELAYING, Event.UNPROCESSED): row_unprocessed,
    (State.RELAYING, Event.RESPONSE_HEAD): row_response_head,
    (State.RELAYING, Event.CLIENT_RESET): row_relaying_client_reset,
    (State.RELAYING, Event.UPSTREAM_RESET): row_relaying_upstream_reset,
    (State.RELAYING, Event.FAILED): row_relaying_failed,
    (State.ANSWERING, Event.RESPONSE_END): row_response_end,
    (State.ANSWERING, Event.CLIENT_RESET): row_answering_client_reset,
    (State.ANSWERING, Event.UPSTREAM_RESET): row_answering_upstream_reset,
    (State.ANSWERING, Event.FAILED): row_answering_failed,
}


def test_every_row_has_its_dialogue() -> None:
    """A row that is added to the table is added here."""
    assert ROWS.keys() == TABLE.keys()


@pytest.mark.parametrize("pair", ROWS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_a_row_of_the_table_is_reached_and_does_what_it_says(pair: tuple[State, Event]) -> None:
    """Both sides are checked within the dialogue."""
    talk = ROWS[pair]()
    assert pair in talk.x.pairs
    assert len(talk.ended) == talk.x.is_over


@pytest.mark.parametrize("state", [State.PARKED, State.RELAYING, State.ANSWERING], ids=lambda s: s.name)
@pytest.mark.parametrize("event", Event, ids=lambda e: e.name)
def test_a_pair_that_is_not_in_the_table_raises(state: State, event: Event) -> None:
    """It cannot happen; if it does, nobody guesses what it might mean."""
    if (state, event) in TABLE:
        assert TABLE[state, event][0] in State
        return
    talk = {State.PARKED: Talk, State.RELAYING: connected, State.ANSWERING: answering}[state]()
    with pytest.raises(KeyError):
        talk.x._event(event)


@pytest.mark.parametrize("pair", ROWS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_nothing_is_said_after_the_end(pair: tuple[State, Event]) -> None:
    """Late words of either side, of the pool and of the clock change nothing."""
    talk = ROWS[pair]()
    if not talk.x.is_over:
        talk.x.fail(UpstreamTimeout())
    before = (len(talk.down.calls), len(talk.up.calls), list(talk.ended))
    talk.x.fail(NotFound())
    talk.x.connected(FakeSession(is_server=False))
    talk.x.sink.writable()
    talk.x.sink.reset(ErrorCode.CANCEL, False)
    if talk.up.sink is not None:
        talk.up.sink.writable()
        talk.up.sink.head(OK, True)
        talk.up.sink.informational([(b":status", b"103")])
        talk.up.sink.trailers([])
        talk.up.sink.reset(ErrorCode.CANCEL, True)
    assert (len(talk.down.calls), len(talk.up.calls), talk.ended) == before


# What each side is told


@pytest.mark.parametrize(
    ("error", "status"),
    [(Forbidden(), 403), (NotFound(), 404), (UpstreamFailed(), 502), (ConnectFailed("secret 10.0.0.7:15008"), 503)],
)
def test_i16_an_error_is_answered_as_problem_json_that_reflects_nothing(error: RequestError, status: int) -> None:
    """RFC 9457; the detail is for the log."""
    talk = Talk()
    talk.x.fail(error)
    (head,) = talk.down.heads
    fields = dict(head)
    assert fields[b":status"] == b"%d" % status
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"content-length"] == b"%d" % len(talk.down.body)
    assert json.loads(talk.down.body) == {"type": "about:blank", "title": error.title, "status": status}
    assert b"10.0.0.7" not in bytes(talk.down.body)
    assert talk.down.sent_end
    assert talk.x.status == status


@pytest.mark.parametrize("fields", [GET, HEAD])
def test_b01_a_malformed_request_is_answered_and_its_stream_ends_in_an_error(fields: Fields) -> None:
    """The 400 tells a person; the reset is what a malformed request must get (RFC 9113 section 8.1.1)."""
    talk = Talk(fields)
    talk.x.fail(BadRequest())
    assert talk.down.heads[0][0] == (b":status", b"400")
    assert not talk.down.sent_end
    assert talk.down.reset_code == ErrorCode.PROTOCOL_ERROR
    assert talk.ended == ["bad_request"]


def test_a_denial_carries_its_decision_id() -> None:
    """In a header and in the body, so that an operator can be asked why."""
    talk = Talk()
    talk.x.decision_id = "00c0ffee00c0ffee"
    talk.x.extra_response = [(b"hauberk-decision-id", b"00c0ffee00c0ffee")]
    talk.x.fail(Forbidden("rule shop/deny#0"))
    assert (b"hauberk-decision-id", b"00c0ffee00c0ffee") in talk.down.heads[0]
    assert json.loads(talk.down.body)["decision_id"] == "00c0ffee00c0ffee"
    assert b"shop/deny" not in bytes(talk.down.body)


def test_head_gets_no_body() -> None:
    """But the length that GET would have got (RFC 9110 section 9.3.2)."""
    talk = Talk(HEAD)
    talk.x.fail(NotFound())
    (head,) = talk.down.heads
    assert talk.down.sent_end
    assert talk.down.body == b""
    assert int(dict(head)[b"content-length"]) == len(error_answer(NotFound(), "", is_grpc=False)[1])


def test_grpc_gets_trailers_only() -> None:
    """Status 200, the code in grpc-status, no body (gRPC over HTTP/2, "Responses")."""
    talk = Talk(GRPC, end=False)
    talk.x.decision_id = "00c0ffee00c0ffee"
    talk.x.fail(Forbidden())
    (head,) = talk.down.heads
    fields = dict(head)
    assert fields[b":status"] == b"200"
    assert fields[b"content-type"] == b"application/grpc"
    assert fields[b"grpc-status"] == b"7"
    assert fields[b"grpc-message"] == b"Access denied by policy. (decision 00c0ffee00c0ffee)"
    assert talk.down.sent_end
    assert talk.down.body == b""
    assert (talk.x.status, talk.x.grpc_status) == (403, 7)
    assert talk.down.reset_code == ErrorCode.NO_ERROR  # the rest of the request is not wanted


def test_grpc_that_has_begun_its_answer_gets_the_status_in_trailers() -> None:
    """Too late for a head; a reset would not say why."""
    talk = answering(GRPC, end=False, head=GRPC_OK)
    talk.up.peer_data(b"\0\0\0\0\1a")
    talk.x.fail(Forbidden())
    assert talk.down.trailer_fields == [(b"grpc-status", b"7"), (b"grpc-message", b"Access denied by policy.")]
    assert talk.x.grpc_status == 7
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["denied"]


@pytest.mark.parametrize("trailers_only", [True, False])
def test_the_grpc_status_is_noted(trailers_only: bool) -> None:
    """For the log, from trailers or from a trailers-only head."""
    talk = connected(GRPC, end=False)
    status = [(b"grpc-status", b"5"), (b"grpc-message", b"no")]
    if trailers_only:
        talk.up.peer_head([*GRPC_OK, *status], end=True)
        assert talk.down.heads == [[*GRPC_OK, *status]]
    else:
        talk.up.peer_head(GRPC_OK)
        talk.up.peer_data(b"\0\0\0\0\0")
        talk.up.peer_trailers(status)
        assert talk.down.trailer_fields == status
    assert talk.x.grpc_status == 5
    assert talk.ended == ["complete"]


def test_a_client_without_a_window_gets_at_least_the_status() -> None:
    """An error body needs credit like any other; without it the stream ends after its head."""
    talk = Talk(down_credit=0)
    talk.x.fail(Forbidden())
    assert talk.down.heads[0][0] == (b":status", b"403")
    assert talk.down.body == b""
    assert talk.down.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["denied"]


def test_interim_heads_are_passed_on() -> None:
    """100 and 103 reach the client before the answer."""
    talk = connected(POST, end=False)
    talk.up.peer_informational([(b":status", b"100")])
    talk.up.peer_informational([(b":status", b"103"), (b"link", b"</a>")])
    assert talk.down.interim == [[(b":status", b"100")], [(b":status", b"103"), (b"link", b"</a>")]]
    talk.answer()
    assert talk.ended == ["complete"]


def test_a32_endless_interim_heads_end_in_502() -> None:
    """Ten are plenty."""
    talk = connected()
    for _ in range(10):
        talk.up.peer_informational([(b":status", b"103")])
    assert not talk.x.is_over
    talk.up.peer_informational([(b":status", b"103")])
    assert talk.down.heads[0][0] == (b":status", b"502")
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.x.error is not None
    assert talk.x.error.row == "A32"


@pytest.mark.parametrize(
    "fields",
    [[(b":status", b"101")], [], [(b":status", b"200"), (b"x-a", b"1\r\nx-b: 2")], [(b":status", b"20")]],
)
def test_b35_an_answer_that_is_not_http_becomes_502(fields: Fields) -> None:
    """The client gets a whole answer of ours instead."""
    talk = connected()
    talk.up.peer_head(fields)
    assert talk.down.heads[0][0] == (b":status", b"502")
    assert talk.down.sent_end
    assert talk.up.reset_code == ErrorCode.CANCEL


def test_b12_a_field_of_ours_that_cannot_be_sent_becomes_502() -> None:
    """The session refuses to serialise it; the upstream hears nothing."""
    talk = Talk()
    talk.up.refuses_fields = True
    talk.x.connected(talk.up)
    assert talk.down.heads[0][0] == (b":status", b"502")
    assert talk.x.error is not None
    assert talk.x.error.row == "B12"
    assert talk.up.calls == ["request"]
    assert talk.x._up is None


@pytest.mark.parametrize("sent", [b"123", b"12345678"])
def test_b16_a_request_body_of_another_length_is_refused(sent: bytes) -> None:
    """Shorter or longer than announced: 400, and the request upstream is aborted."""
    talk = connected([*POST, (b"content-length", b"5")], end=False)
    talk.down.peer_data(sent, end=True)
    assert talk.down.heads[0][0] == (b":status", b"400")
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert not talk.up.sent_end
    assert talk.x.error is not None
    assert talk.x.error.row == "B16"
    assert talk.down.flow_returned == talk.down.flow_received


@pytest.mark.parametrize("sent", [b"123", b"12345678"])
def test_b16_a_response_body_of_another_length_breaks_off(sent: bytes) -> None:
    """The client must not take it for whole."""
    talk = answering(head=[*OK, (b"content-length", b"5")])
    talk.up.peer_data(sent, end=True)
    assert talk.down.reset_code is not None
    assert not talk.down.sent_end
    assert talk.ended == ["upstream_failed"]
    assert talk.up.flow_returned == talk.up.flow_received


def test_b37_request_trailers_are_judged() -> None:
    """A pseudo-header field in them is a bad request."""
    talk = connected(POST, end=False)
    talk.down.peer_trailers([(b":path", b"/b")])
    assert talk.down.heads[0][0] == (b":status", b"400")
    assert talk.x.error is not None
    assert talk.x.error.row == "B37"


def test_trailers_follow_the_body_both_ways() -> None:
    """Also when the body had to wait for credit."""
    talk = Talk(POST, end=False, down_credit=2)
    talk.connect(credit=2)
    talk.down.peer_data(b"abcd")
    talk.down.peer_trailers([(b"x-sum", b"1")])
    assert "trailers" not in talk.up.calls
    talk.up.grant(2)
    assert (bytes(talk.up.body), talk.up.trailer_fields) == (b"abcd", [(b"x-sum", b"1")])
    talk.up.peer_head(OK)
    talk.up.peer_data(b"efgh")
    talk.up.peer_trailers([(b"x-sum", b"2")])
    assert talk.ended == []
    talk.down.grant(2)
    assert (bytes(talk.down.body), talk.down.trailer_fields) == (b"efgh", [(b"x-sum", b"2")])
    assert talk.ended == ["complete"]


# Retrying


def test_i14_what_was_handed_on_is_never_sent_again() -> None:
    """An unprocessed request whose body has begun to flow is gone: 502."""
    talk = connected(POST, end=False)
    talk.down.peer_data(b"x")
    talk.up.peer_resets(ErrorCode.REFUSED_STREAM, unprocessed=True)
    assert talk.parked_again == 0
    assert talk.down.heads[0][0] == (b":status", b"502")


def test_a_body_that_still_waits_here_goes_to_the_next_upstream() -> None:
    """Nothing was handed on yet, so all of it can be."""
    talk = Talk(POST, end=False)
    first = talk.connect(credit=0)
    talk.down.peer_data(b"abc", end=True)
    first.peer_resets(ErrorCode.REFUSED_STREAM, unprocessed=True)
    assert talk.parked_again == 1
    second = talk.connect()
    assert bytes(second.body) == b"abc"
    assert second.sent_end
    assert talk.down.flow_returned == 3


def test_trailers_that_were_handed_on_forbid_a_retry() -> None:
    """An empty body with trailers has no octet to count, and yet it was sent."""
    talk = connected(POST, end=False)
    talk.down.peer_trailers([(b"x-sum", b"1")])
    talk.up.peer_resets(ErrorCode.REFUSED_STREAM, unprocessed=True)
    assert talk.parked_again == 0
    assert talk.down.heads[0][0] == (b":status", b"502")


def test_the_first_upstream_is_not_heard_after_a_retry() -> None:
    """Whatever it still says belongs to nobody."""
    talk = connected()
    first = talk.up
    old = first.sink
    assert old is not None
    first.peer_resets(ErrorCode.REFUSED_STREAM, unprocessed=True)
    calls = len(first.calls)
    second = talk.connect()
    old.head([(b":status", b"500")], True)
    old.writable()
    old.trailers([])
    old.reset(ErrorCode.CANCEL, False)
    assert not talk.down.heads
    talk.up = second
    talk.answer()
    assert talk.ended == ["complete"]
    assert len(first.calls) == calls


# Early and late ends


def test_an_early_answer_ends_the_upload_without_an_error() -> None:
    """RFC 9113 section 8.1: RST_STREAM(NO_ERROR) to the client after the whole answer; CANCEL upstream."""
    talk = connected(POST, end=False)
    talk.down.peer_data(b"begin")
    talk.answer(b"enough")
    assert bytes(talk.down.body) == b"enough"
    assert talk.down.reset_code == ErrorCode.NO_ERROR
    assert talk.up.reset_code == ErrorCode.CANCEL
    assert talk.ended == ["complete"]


UPLOAD: Fields = [*POST, (b"content-length", b"5")]


def answered_before_the_end() -> Talk:
    """All octets of the request came; the end of its stream, in a frame of its own, is on its way."""
    talk = connected(UPLOAD, end=False)
    talk.down.peer_data(b"whole")
    talk.answer(b"thanks")
    assert bytes(talk.down.body) == b"thanks"
    assert talk.down.sent_end
    assert talk.ended == []
    assert talk.x.awaits_end
    return talk


def test_an_answer_that_overtakes_the_end_of_the_request_resets_nobody() -> None:
    """The client is just about to end its stream, and may take a reset for a failure; the app's connection is kept."""
    talk = answered_before_the_end()
    talk.down.peer_data(b"", end=True)
    assert talk.ended == ["complete"]
    assert talk.up.sent_end
    assert talk.down.reset_code is talk.up.reset_code is None


def test_the_end_of_an_answered_request_may_have_trailers() -> None:
    """They end its stream as well."""
    talk = answered_before_the_end()
    talk.down.peer_trailers([(b"x-sum", b"1")])
    assert talk.ended == ["complete"]
    assert talk.down.reset_code is None


@pytest.mark.parametrize("what", ["no end", "reset", "too much", "failure"])
def test_an_answered_request_is_complete_however_it_ends(what: str) -> None:
    """Its answer was whole: the end is not waited for long, and nothing that comes instead makes a failure of it."""
    talk = answered_before_the_end()
    if what == "no end":
        talk.x.waive_end()
    elif what == "reset":
        talk.down.peer_resets(ErrorCode.CANCEL)
    elif what == "too much":
        talk.down.peer_data(b"more")
    else:
        talk.x.fail(Forbidden())
    assert talk.ended == ["complete"]
    assert talk.x.error is None
    assert talk.down.reset_code == (None if what == "reset" else ErrorCode.NO_ERROR)
    assert talk.down.flow_returned == talk.down.flow_received


def test_an_upstream_that_answered_in_full_may_refuse_the_rest_of_the_request() -> None:
    """Its reset after the answer is no failure; what the client still owes is thrown away."""
    talk = Talk(POST, end=False, down_credit=2)
    up = talk.connect(credit=0)
    talk.down.peer_data(b"waits")
    up.peer_head(OK)
    up.peer_data(b"answer", end=True)
    up.peer_resets(ErrorCode.NO_ERROR)
    assert talk.ended == []
    talk.down.peer_data(b"late")
    talk.down.grant(100)
    assert bytes(talk.down.body) == b"answer"
    assert talk.ended == ["complete"]
    assert talk.down.flow_returned == talk.down.flow_received == 9


def test_activity_is_a_byte_in_either_direction() -> None:
    """What the sweep looks at."""
    talk = answering(POST, end=False)
    seen = []
    steps: list[Callable[[], None]] = [
        lambda: talk.down.peer_data(b"x"),
        lambda: talk.up.peer_data(b"y"),
        talk.x.sink.writable,
    ]
    for step in steps:
        talk.now += 1
        step()
        seen.append(talk.x.activity)
    assert seen == [101.0, 102.0, 103.0]
    assert talk.x.started == 100.0


# Flows


def test_a_slow_reader_holds_its_sender_back() -> None:
    """Credit goes back only for what was handed on; the rest waits in the flow."""
    talk = answering()
    talk.down._credit = 10
    talk.up.peer_data(b"x" * 25, padding=5)
    assert talk.x.response is not None
    assert (talk.x.response.held, talk.up.flow_returned) == (15, 10)
    talk.down.grant(10)
    assert (talk.x.response.held, talk.up.flow_returned) == (5, 20)
    talk.down.grant(10)
    assert (talk.x.response.held, talk.up.flow_returned) == (0, 30)  # the padding went with the last octet


class Breaking(FakeSession):
    """Its stream breaks while it is being written to."""

    def data(self, stream: int, data: bytes, end: bool) -> None:
        super().data(stream, data, end)
        if not self.peer_reset:
            self.peer_resets(ErrorCode.INTERNAL_ERROR)


def test_a_target_that_breaks_while_it_is_written_to_leaks_nothing() -> None:
    """Contract 5: the call may come back into the exchange, which then empties the very queue that is pumped."""
    talk = Talk(POST, end=False)
    up = Breaking(is_server=False, credit=2)
    talk.x.connected(up)
    talk.down.peer_data(b"abcdef")
    assert talk.ended == ["upstream_reset"]
    assert talk.down.flow_returned == 6


@given(
    pieces=st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 5)), max_size=20),
    grants=st.lists(st.integers(1, 15), max_size=40),
)
def test_a_flow_keeps_order_and_gives_all_credit_back(pieces: list[tuple[bytes, int]], grants: list[int]) -> None:
    """However credit dribbles in."""
    source, target = FakeSession(is_server=True), FakeSession(is_server=False, credit=0)
    flow = Flow(source, 1, set())

    class Pump:
        def writable(self) -> None:
            flow.pump()

    target.request(POST, False, Pump())  # type: ignore[arg-type]  # a flow's target only ever says writable
    flow.open(target, 1)
    for data, padding in pieces:
        source.flow_received += len(data) + padding
        flow.push(data, len(data) + padding, False)
    flow.finish([])
    for octets in grants:
        target.grant(octets)
        assert source.flow_returned <= len(target.body) + sum(p for _, p in pieces)
    whole = b"".join(data for data, _ in pieces)
    assert whole.startswith(bytes(target.body))
    target.grant(1_000)
    assert bytes(target.body) == whole
    assert flow.ended
    assert target.sent_end
    assert source.flow_returned == source.flow_received
    assert flow.octets == len(whole)
    assert flow.held == 0


# Whatever both sides do

EVENTS = (
    "connect",
    "down_data",
    "down_end",
    "down_trailers",
    "down_reset",
    "down_grant",
    "up_grant",
    "up_interim",
    "up_head",
    "up_head_end",
    "up_data",
    "up_end",
    "up_trailers",
    "up_reset",
    "up_unprocessed",
    "fail",
)


class Machine:
    """Two fakes that say what the plan says, as far as an engine could say it at that moment."""

    def __init__(self, fields: Fields, *, end: bool, down_credit: int, up_credit: int) -> None:
        self.talk = Talk(fields, end=end, down_credit=down_credit)
        self.talk.up.peer_reset = True  # none yet
        self.up_credit = up_credit
        self.ups: list[FakeSession] = []
        self.padding = 0
        self.has_head = False
        self.calls_at_end: list[int] | None = None

    @property
    def up(self) -> FakeSession:
        return self.talk.up

    def do(self, event: str, size: int) -> None:
        talk, down, up = self.talk, self.talk.down, self.talk.up
        if event == "connect" and talk.x.state is State.PARKED:
            self.has_head = False
            self.ups.append(talk.connect(credit=self.up_credit))
        elif event == "fail":
            talk.x.fail(Forbidden())
        elif event == "down_grant":
            down.grant(size)
        elif event == "up_grant" and self.ups:
            up.grant(size)
        elif event == "down_reset" and not down.is_gone:
            down.peer_resets(ErrorCode.CANCEL)
        elif event.startswith("down_") and down.may_speak:
            self.down_speaks(event, size)
        elif event in ("up_reset", "up_unprocessed") and self.ups and not up.is_gone:
            up.peer_resets(ErrorCode.CANCEL, unprocessed=event == "up_unprocessed" and not self.has_head)
        elif event.startswith("up_") and self.ups and up.may_speak:
            self.up_speaks(event, size)

    def down_speaks(self, event: str, size: int) -> None:
        self.padding += size % 3
        if event == "down_data":
            self.talk.down.peer_data(b"q" * size, padding=size % 3)
        elif event == "down_end":
            self.talk.down.peer_data(b"q" * size, padding=size % 3, end=True)
        elif event == "down_trailers":
            self.talk.down.peer_trailers([(b"x-sum", b"1")])

    def up_speaks(self, event: str, size: int) -> None:
        if not self.has_head:
            if event == "up_interim":
                self.up.peer_informational([(b":status", b"103")])
            elif event in ("up_head", "up_head_end"):
                self.has_head = True
                self.up.peer_head(OK, end=event == "up_head_end")
            return
        self.padding += size % 3
        if event in ("up_data", "up_end"):
            self.up.peer_data(b"a" * size, padding=size % 3, end=event == "up_end")
        elif event == "up_trailers":
            self.up.peer_trailers([(b"grpc-status", b"0")])

    def check(self) -> None:
        talk, down = self.talk, self.talk.down
        assert len(talk.ended) == talk.x.is_over
        assert len(down.heads) <= 1
        for up in self.ups:
            assert bytes(down.received).startswith(bytes(up.body))
        if talk.x.error is None or self.has_head:
            assert not self.ups or bytes(self.up.received).startswith(bytes(down.body))
        if not talk.x.is_over:
            forwarded = max((len(up.body) for up in self.ups), default=0)
            assert down.flow_returned <= forwarded + self.padding
            assert not self.ups or self.up.flow_returned <= len(down.body) + self.padding
            return
        assert down.flow_returned == down.flow_received
        assert all(up.flow_returned == up.flow_received for up in self.ups)
        assert all(up.is_gone or up.sent_end for up in self.ups)
        assert down.is_gone or down.sent_end
        calls = [len(up.calls) for up in self.ups]
        assert self.calls_at_end in (None, calls), "an upstream was spoken to after the end"
        self.calls_at_end = calls


@given(
    fields=st.sampled_from([GET, HEAD, POST, GRPC, [*POST, (b"content-length", b"40")]]),
    end=st.booleans(),
    windows=st.tuples(st.sampled_from([0, 10, 10_000]), st.sampled_from([0, 10, 10_000])),
    plan=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(1, 40)), max_size=30),
)
def test_whatever_both_sides_do_an_exchange_ends_once_and_leaks_nothing(
    fields: Fields, end: bool, windows: tuple[int, int], plan: list[tuple[str, int]]
) -> None:
    """Exactly one final answer; bytes forwarded are a prefix of bytes received; credit returned <= bytes forwarded
    while it lives and == bytes received after its end; no upstream hears a word after the end."""
    if end and any(name == b"content-length" for name, _ in fields):
        fields = POST
    machine = Machine(fields, end=end, down_credit=windows[0], up_credit=windows[1])
    for event, size in plan:
        machine.do(event, size)
        machine.check()
    machine.talk.x.fail(UpstreamTimeout())
    machine.check()
    assert len(machine.talk.ended) == 1
    for event, size in plan:  # and once more, to the dead
        machine.do(event, size)
        machine.check()


# Between real sessions


class Chain:
    """A client, an exchange, a server: two wires with real sessions at all four ends.

    The two near sessions are flushed only if the exchange (or their own reading) touched them, as the driver does."""

    def __init__(self, down: Engine, up: Engine, *, gives_back: bool = True) -> None:
        self.touched: set[Session] = set()
        self.ended: list[str] = []
        self.exchanges: list[Exchange] = []
        self.down = Wire(down, serve=self)
        self.up = Wire(up, gives_back=gives_back)
        self.near = {self.down.server, self.up.client}
        for wire in (self.down, self.up):
            wire.flushes = self._flushes
            wire.received = self._received
        self.touched |= self.near
        self.pump()

    def _flushes(self, session: Session) -> bool:
        if session not in self.near:
            return True
        is_touched = session in self.touched
        self.touched.discard(session)
        return is_touched

    def _received(self, session: Session) -> None:
        if session in self.near:
            self.touched.add(session)

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        exchange = Exchange(
            session,
            stream,
            end,
            touched=self.touched,
            limits=LIMITS,
            clock=lambda: 0.0,
            on_end=lambda x: self.ended.append(x.how_ended),
        )
        self.exchanges.append(exchange)
        try:
            head = admit_request(fields, end, LIMITS)
            exchange.understood(head)
            exchange.upstream_fields = request_fields(head, [])
            if self.up.client.can_open:
                exchange.connected(self.up.client)
            else:
                exchange.fail(ConnectFailed())
        except BadRequest as e:
            exchange.fail(e)
        return exchange.sink

    def pump(self) -> None:
        for _ in range(10_000):
            self.down.pump()
            self.up.pump()
            if not self.touched:
                return
        raise AssertionError("it never comes to rest")

    @property
    def held(self) -> int:
        return sum(x.request.held + (x.response.held if x.response else 0) for x in self.exchanges)


pairs = pytest.mark.parametrize("down", ENGINES, ids=str), pytest.mark.parametrize("up", ENGINES, ids=str)


@pairs[0]
@pairs[1]
@given(
    sizes=st.tuples(st.sampled_from([0, 1, 65_535, 65_536, 200_000]), st.sampled_from([0, 1, 65_535, 65_536, 200_000])),
    trailers=st.booleans(),
    lazy=st.sampled_from([3_000, 50_000, 1_000_000]),
    cuts=st.lists(st.integers(1, 5_000), max_size=20),
)
def test_bodies_pass_whole_between_any_two_engines_at_the_readers_pace(
    down: Engine, up: Engine, sizes: tuple[int, int], trailers: bool, lazy: int, cuts: list[int]
) -> None:
    """And what waits in between stays within windows and bounds, however long the body."""
    chain = Chain(down, up, gives_back=False)
    chain.down.cut(cuts)
    asked, answered = b"q" * sizes[0], b"a" * sizes[1]
    sink = chain.down.request(POST, False, gives_back=False)
    if asked:
        Sender(sink, asked).go()
    else:
        chain.down.client.data(sink.stream, b"", True)
    chain.pump()
    (server,) = chain.up.handler.sinks
    while not server.ended:
        assert chain.held <= LIMITS.stream_window_octets + 65_536
        server.give_back(lazy)
        chain.pump()
    tail: Fields | None = [(b"x-sum", b"1")] if trailers else None
    chain.up.server.head(server.stream, OK, not answered and not trailers)
    if answered or trailers:
        Sender(server, answered, tail).go()
    chain.pump()
    while not sink.ended:
        assert chain.held <= LIMITS.stream_window_octets + 65_536
        sink.give_back(lazy)
        chain.pump()
    assert (bytes(server.body), bytes(sink.body), sink.trailer_fields) == (asked, answered, tail)
    assert chain.ended == ["complete"]
    assert chain.held == 0
    if down.is_multiplexed:
        assert chain.down.client.open_streams == 0
    chain.down.request(GET, True)  # the connections live
    chain.pump()
    assert len(chain.up.handler.sinks) == 2


STEPS = (
    "ask",
    "ask_end",
    "client_reset",
    "answer",
    "answer_more",
    "answer_end",
    "server_reset",
    "lose_up",
    "lose_down",
    "fail",
    "give",
)


@pairs[0]
@pairs[1]
@given(plan=st.lists(st.sampled_from(STEPS), max_size=14), cuts=st.lists(st.integers(1, 300), max_size=20))
def test_any_course_of_events_between_two_engines_ends_each_exchange_once(
    down: Engine, up: Engine, plan: list[str], cuts: list[int]
) -> None:
    """Resets, lost connections and refusals at any point: one end, and only bytes that were sent arrive."""
    chain = Chain(down, up, gives_back=False)
    chain.up.cut(cuts)
    sink = chain.down.request(POST, False)
    asked = answered = b""
    chain.pump()
    for step in plan:
        server = chain.up.handler.sinks[0] if chain.up.handler.sinks else None
        if step in ("ask", "ask_end"):
            piece = b"q" * min(9_000, chain.down.client.credit(sink.stream))
            asked += piece
            chain.down.client.data(sink.stream, piece, step == "ask_end")
        elif step == "client_reset":
            sink.reset_it(ErrorCode.CANCEL)
        elif step == "fail":
            chain.exchanges[0].fail(UpstreamTimeout())
        elif step == "lose_up":
            chain.up.lose()
        elif step == "lose_down":
            chain.down.lose()
        elif server is not None and step == "give":
            server.give_back()
        elif (
            server is not None
            and step == "answer"
            and not server.silenced
            and not chain.up.server.credit(server.stream)
        ):
            chain.up.server.head(server.stream, OK, False)
        elif server is not None and step in ("answer_more", "answer_end"):
            piece = b"a" * min(9_000, chain.up.server.credit(server.stream))
            answered += piece
            if piece:
                chain.up.server.data(server.stream, piece, step == "answer_end")
        elif server is not None and step == "server_reset":
            server.reset_it(ErrorCode.INTERNAL_ERROR)
        chain.pump()
    chain.up.lose()
    chain.pump()
    chain.down.lose()
    chain.pump()
    assert len(chain.ended) == len(chain.exchanges) == 1
    assert sink.over or sink.silenced
    for server in chain.up.handler.sinks:
        assert asked.startswith(bytes(server.body))
        assert server.over or server.silenced
    status = dict(sink.fields or []).get(b":status", b"200")
    if status == b"200":
        assert answered.startswith(bytes(sink.body))
    assert chain.held == 0
