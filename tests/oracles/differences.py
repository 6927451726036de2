"""The differences between the relay engine and the reference that are allowed, each with its reason.

A rule looks at what happened: the frame that provoked it, the state of its stream, and what each engine did. The
comparison of a script ends where a rule applies, because from there on the engines are in different states. Every rule
has a script in `regressions/` that needs it; one that no script needs is to be taken out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.oracles import rules
from tests.oracles.stage import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    name: str
    section: str
    """Of RFC 9113, unless another is named."""
    reason: str
    applies: Callable[[Scene], bool]


GREETINGS: dict[str, dict[int, str]] = {
    "client": {3: "RFC 9113 section 5.1.2: a client's limit is for streams its server begins, and those it forbids."},
}
"""Role -> settings in which the engines' first SETTINGS may differ, and why."""


TABLE: tuple[Difference, ...] = (
    Difference(
        name="an answer that begins without a head",
        section="8.1",
        reason="The relay resets that stream; h2 ends the connection with all its streams.",
        applies=rules.no_head,
    ),
    Difference(
        name="a header block that depends on itself",
        section="5.3 (RFC 7540 section 5.3.1)",
        reason="A stream error, as RFC 7540 says; h2 ends the connection.",
        applies=rules.depends_on_itself,
    ),
    Difference(
        name="PRIORITY of a wrong size, or that depends on itself, on an open stream",
        section="6.3",
        reason="A stream error, as RFC 9113 says of its size; h2 ends the connection.",
        applies=rules.bad_priority,
    ),
    Difference(
        name="a head where none belongs",
        section="8.1",
        reason="A second head, trailers that do not end the stream, or a 1xx head that does: malformed, which is a"
        " stream error (8.1.1); h2 ends the connection.",
        applies=rules.misplaced_head,
    ),
    Difference(
        name="the last stream of a client's GOAWAY",
        section="6.8",
        reason="The relay accepts no stream from a server and says 0; h2 counts the one it has just refused.",
        applies=rules.last_stream_of_clients,
    ),
    Difference(
        name="padding and nothing else",
        section="6.2",
        reason="A header block fragment may be empty however long its padding; hyperframe refuses it.",
        applies=rules.padding_only,
    ),
    Difference(
        name="code for SETTINGS of a wrong size",
        section="6.5",
        reason="The relay says FRAME_SIZE_ERROR, as RFC 9113 wants; h2 PROTOCOL_ERROR.",
        applies=rules.wrong_size,
    ),
    Difference(
        name="DATA with two faults",
        section="5.4",
        reason="The relay keeps the connection's account first; h2 parses first.",
        applies=rules.two_faults,
    ),
    Difference(
        name="a setting that is given twice",
        section="6.5.3",
        reason="The relay judges every entry in order; hyperframe keeps only the last value of each.",
        applies=rules.repeated_setting,
    ),
    Difference(
        name="an empty frame where none belongs",
        section="5.4",
        reason="The relay first looks whether the stream has a use for a frame; the gate, which knows no streams,"
        " charges for empty ones before.",
        applies=rules.empty_and_misplaced,
    ),
    Difference(
        name="what ends a run of empty frames",
        section="10.5",
        reason="To the relay a frame that its stream has no use for neither is an empty one nor makes up for one; the"
        " gate, which knows no streams, counts it.",
        applies=rules.empty_run,
    ),
    Difference(
        name="WINDOW_UPDATE of nothing",
        section="6.9",
        reason="On a stream an increment of zero is a stream error, and nothing on one that is over; hyperframe refuses"
        " the frame and h2 ends the connection.",
        applies=rules.no_increment,
    ),
    Difference(
        name="a request with the status of an interim answer",
        section="8.3",
        reason="To the relay an ordinary malformed request, which is refused by itself; h2 ends the connection.",
        applies=rules.interim_request,
    ),
    Difference(
        name="trailers with the status of an interim answer",
        section="8.1",
        reason="To the relay trailers with a pseudo-header field, which is malformed and refused by itself a layer"
        " above; h2 ends the connection.",
        applies=rules.interim_trailers,
    ),
    Difference(
        name="when a late header block is charged",
        section="5.1",
        reason="The relay charges a block that its stream has no use for when it is complete; the gate when it begins.",
        applies=rules.late_block,
    ),
    Difference(
        name="a 1xx head after the end",
        section="5.1",
        reason="A stream error, as any head on a half-closed stream; h2 has no row for a 1xx head there and ends the"
        " connection.",
        applies=rules.head_after_end,
    ),
    Difference(
        name="the reserved bit of WINDOW_UPDATE",
        section="6.9",
        reason="It is ignored, as RFC 9113 wants; hyperframe takes it for a part of the number.",
        applies=rules.reserved_bit,
    ),
    Difference(
        name="a fault and the last straw",
        section="5.4",
        reason="The gate counts frames before anybody reads them; the relay looks for faults of form first.",
        applies=rules.counted_first,
    ),
    Difference(
        name="DATA or HEADERS with two faults of form",
        section="6.2",
        reason="Its padding does not fit, and neither does its priority or its stream: either code is true.",
        applies=rules.two_forms,
    ),
    Difference(
        name="the code for a malformed PUSH_PROMISE",
        section="6.6",
        reason="The relay refuses the frame for its kind; hyperframe finds it too short before anybody asks.",
        applies=rules.malformed_promise,
    ),
    Difference(
        name="a header list that is too large and malformed",
        section="3.2 of RFC 7541",
        reason="The relay sees by its size that a block must hold more fields than fit, before it looks at each.",
        applies=rules.large_and_malformed,
    ),
    Difference(
        name="a PUSH_PROMISE that goes on",
        section="6.6",
        reason="The relay refuses it at once, hyperframe when its header block is complete.",
        applies=rules.promise_begun,
    ),
    Difference(
        name="windows of streams that are over",
        section="6.9.2",
        reason="A new INITIAL_WINDOW_SIZE is added to the windows of open streams; h2 adds it to those of streams that"
        " are over, too, where it may overflow.",
        applies=rules.windows_of_the_dead,
    ),
    Difference(
        name="a header block with one large fragment",
        section="6.2",
        reason="The gate measures every fragment, the relay the whole block once it goes on (and its fields while"
        " decoding): one frame is held in either case.",
        applies=rules.large_first_fragment,
    ),
    Difference(
        name="two faults inside a header block",
        section="6.10",
        reason="The relay sees at once that a frame does not belong there; hyperframe reads it first.",
        applies=rules.in_a_block,
    ),
    Difference(
        name="a stream that ended begins again",
        section="5.1.1",
        reason="A number that does not grow is a PROTOCOL_ERROR, HEADERS of a closed stream is STREAM_CLOSED: both are"
        " true, and both end the connection.",
        applies=rules.begun_again,
    ),
    Difference(
        name="a stream that was reset by both sides",
        section="5.1",
        reason="Once the relay has answered what came after the peer's reset, it ignores the rest; h2 answers again.",
        applies=rules.reset_twice,
    ),
    Difference(
        name="extended CONNECT is withdrawn",
        section="3 of RFC 8441",
        reason="A sender of 1 must not send 0 later; h2 does not look.",
        applies=rules.connect_withdrawn,
    ),
    Difference(
        name="the last straw is answered",
        section="5.4.1",
        reason="The relay has queued its acknowledgement when the budget turns out to be spent; the gate asks before.",
        applies=rules.last_straw,
    ),
    Difference(
        name="a frame of a stream that was skipped",
        section="5.1.1",
        reason="Such a stream is closed, and nobody has to remember how. The relay calls it one that ended: DATA and"
        " HEADERS cost the connection, the rest nothing. h2 resets the stream or ends the connection.",
        applies=rules.skipped,
    ),
    Difference(
        name="ALTSVC",
        section="5.5",
        reason="To the relay an unknown kind, which is ignored; hyperframe reads it and h2 refuses a malformed one.",
        applies=rules.extension,
    ),
    Difference(
        name="a small window before the peer knows of it",
        section="6.9.2",
        reason="The relay lets a peer use the default window until it has acknowledged our SETTINGS; h2 does not wait.",
        applies=rules.before_acknowledgement,
    ),
    Difference(
        name="the first frame is SETTINGS",
        section="3.4",
        reason="The relay ends a connection that begins with another frame; h2 takes any.",
        applies=rules.first_frame,
    ),
    Difference(
        name="trailers in a tunnel",
        section="8.5",
        reason="After CONNECT only DATA may follow; h2 does not look at the method. (A layer above refuses CONNECT.)",
        applies=rules.tunnel,
    ),
    Difference(
        name="credit comes back at different moments",
        section="6.9",
        reason="An engine is free to choose when it gives back credit; DATA is judged by the window it had announced.",
        applies=rules.credit_moments,
    ),
)
