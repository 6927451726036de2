"""When a difference is one of those in `differences.TABLE`: one predicate for each, on what happened."""

from __future__ import annotations

import struct

from sidecar.http.session import ErrorCode
from tests.oracles.stage import Past, Scene, goodbye, lives, resets, silent
from tests.oracles.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

_FAULTS = (ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.FLOW_CONTROL_ERROR)


def credit_moments(scene: Scene) -> bool:
    """Each engine is right by its own account."""
    ours = goodbye(scene.ours) == ErrorCode.FLOW_CONTROL_ERROR
    theirs = goodbye(scene.theirs) == ErrorCode.FLOW_CONTROL_ERROR
    return scene.exceeds_ours != scene.exceeds_theirs and (ours, theirs) == (scene.exceeds_ours, scene.exceeds_theirs)


def before_acknowledgement(scene: Scene) -> bool:
    is_early = scene.is_frame(DATA) and not scene.stage.settled
    return is_early and lives(scene.ours) and goodbye(scene.theirs) == ErrorCode.FLOW_CONTROL_ERROR


def first_frame(scene: Scene) -> bool:
    is_settings = scene.is_frame(SETTINGS) and scene.frame is not None and not scene.frame.flags & ACK
    return not scene.stage.greeted and not is_settings and goodbye(scene.ours) == ErrorCode.PROTOCOL_ERROR


def tunnel(scene: Scene) -> bool:
    """An end of the block is enough: the CONTINUATION that completes it counts."""
    if not scene.is_frame(HEADERS, CONTINUATION) or scene.frame is None:
        return False
    stream = scene.frame.stream
    known = scene.stage.streams.get(stream)
    told = [call.name for call in scene.theirs.calls]
    is_reset = resets(scene.ours)[:1] == [(stream, ErrorCode.PROTOCOL_ERROR)]
    return known is not None and known.is_connect and is_reset and ("trailers" in told or not lives(scene.theirs))


def _stream_for_connection(scene: Scene, code: int) -> bool:
    """We reset the frame's stream with `code`; they ended the connection with it."""
    assert scene.frame is not None
    is_reset = (scene.frame.stream, code) in resets(scene.ours)[:1]
    return is_reset and not scene.ours.state.fault and goodbye(scene.theirs) == code


def _is_early(scene: Scene) -> bool:
    """On a stream whose answer has no head yet."""
    assert scene.frame is not None
    known = scene.stage.streams.get(scene.frame.stream)
    return scene.stage.script.role == "client" and known is not None and not known.headed and scene.past is Past.OPEN


def no_head(scene: Scene) -> bool:
    return scene.is_frame(DATA) and _is_early(scene) and _stream_for_connection(scene, ErrorCode.PROTOCOL_ERROR)


def depends_on_itself(scene: Scene) -> bool:
    block = scene.head
    return (
        block is not None
        and block.depends_on == block.stream
        and _stream_for_connection(scene, ErrorCode.PROTOCOL_ERROR)
    )


def bad_priority(scene: Scene) -> bool:
    frame = scene.frame
    if frame is None or frame.kind != PRIORITY:
        return False
    code = ErrorCode.FRAME_SIZE_ERROR if frame.length != 5 else ErrorCode.PROTOCOL_ERROR
    is_bad = frame.length != 5 or frame.depends_on == frame.stream
    return is_bad and _stream_for_connection(scene, code)


def misplaced_head(scene: Scene) -> bool:
    block = scene.head
    if block is None or scene.past is not Past.OPEN:
        return False
    is_second = not _is_early(scene) and not block.flags & END_STREAM
    is_interim_end = _is_early(scene) and bool(block.flags & END_STREAM)
    return (is_second or is_interim_end) and _stream_for_connection(scene, ErrorCode.PROTOCOL_ERROR)


def last_stream_of_clients(scene: Scene) -> bool:
    """The same goodbye for the same fault but for the last stream it names."""
    codes = goodbye(scene.ours), goodbye(scene.theirs)
    return (
        scene.stage.script.role == "client"
        and scene.head is not None
        and codes == (ErrorCode.PROTOCOL_ERROR, ErrorCode.PROTOCOL_ERROR)
        and scene.ours.calls == scene.theirs.calls
    )


def padding_only(scene: Scene) -> bool:
    frame = scene.frame
    return (
        frame is not None
        and frame.kind == HEADERS
        and bool(frame.flags & PADDED)
        and frame.content == b""
        and goodbye(scene.theirs) == ErrorCode.PROTOCOL_ERROR
    )


def wrong_size(scene: Scene) -> bool:
    return (
        scene.is_frame(SETTINGS)
        and scene.frame is not None
        and (scene.frame.length % 6 != 0 or bool(scene.frame.flags & ACK and scene.frame.length))
        and (goodbye(scene.ours), goodbye(scene.theirs)) == (ErrorCode.FRAME_SIZE_ERROR, ErrorCode.PROTOCOL_ERROR)
    )


def two_faults(scene: Scene) -> bool:
    """DATA beyond the window that is wrong in another way, too: which is found first is the engine's affair."""
    if not (scene.is_frame(DATA) and scene.exceeds_ours and scene.exceeds_theirs):
        return False
    return goodbye(scene.ours) == ErrorCode.FLOW_CONTROL_ERROR and goodbye(scene.theirs) is not None


def last_straw(scene: Scene) -> bool:
    codes = goodbye(scene.ours), goodbye(scene.theirs)
    extra = [one for one in scene.ours.sent if one not in scene.theirs.sent]
    return (
        scene.is_frame(SETTINGS, PING)
        and codes == (ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.ENHANCE_YOUR_CALM)
        and scene.ours.row == scene.theirs.row
        and scene.ours.calls == scene.theirs.calls
        and [one.kind for one in extra] in (["SETTINGS_ACK"], ["PING"])
    )


def two_forms(scene: Scene) -> bool:
    frame = scene.frame
    if frame is None or frame.kind not in (DATA, HEADERS) or frame.content is not None:
        return False
    both = PADDED | HAS_PRIORITY
    has_two = frame.stream == 0 or (frame.kind == HEADERS and frame.flags & both == both)
    return has_two and goodbye(scene.ours) in _FAULTS and goodbye(scene.theirs) in _FAULTS


def malformed_promise(scene: Scene) -> bool:
    codes = goodbye(scene.ours), goodbye(scene.theirs)
    return scene.is_frame(PUSH_PROMISE) and codes == (ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR)


def large_and_malformed(scene: Scene) -> bool:
    codes = goodbye(scene.ours), goodbye(scene.theirs)
    return scene.head is not None and codes == (ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.COMPRESSION_ERROR)


def promise_begun(scene: Scene) -> bool:
    is_begun = scene.is_frame(PUSH_PROMISE) and scene.frame is not None and not scene.frame.flags & END_HEADERS
    return is_begun and scene.ours.row == "A31" and lives(scene.theirs) and scene.theirs.state.awaits_rest


def windows_of_the_dead(scene: Scene) -> bool:
    if not scene.is_frame(SETTINGS) or scene.frame is None or scene.frame.length % 6:
        return False
    names = [name for name, _ in struct.iter_unpack(">HI", scene.frame.payload)]
    dead = [stream for stream in scene.stage.streams if scene.stage.past(stream) not in (Past.OPEN, Past.IDLE)]
    is_overflow = goodbye(scene.theirs) == ErrorCode.FLOW_CONTROL_ERROR
    return INITIAL_WINDOW_SIZE in names and bool(dead) and is_overflow and lives(scene.ours)


def large_first_fragment(scene: Scene) -> bool:
    return scene.is_frame(HEADERS) and scene.theirs.row == "A04" and lives(scene.ours)


def repeated_setting(scene: Scene) -> bool:
    if not scene.is_frame(SETTINGS) or scene.frame is None or scene.frame.length % 6:
        return False
    names = [name for name, _ in struct.iter_unpack(">HI", scene.frame.payload)]
    return (
        len(set(names)) < len(names)
        and goodbye(scene.ours) in _FAULTS
        and (lives(scene.theirs) or goodbye(scene.theirs) in _FAULTS)
    )


def empty_and_misplaced(scene: Scene) -> bool:
    frame = scene.frame
    is_empty = frame is not None and frame.kind in (DATA, HEADERS) and not frame.content
    return (
        is_empty
        and (scene.past is not Past.OPEN or _is_early(scene))
        and scene.theirs.row == "A15"
        and scene.ours.row != "A15"
        and not any(call.name == "data" for call in scene.ours.calls)
    )


def reserved_bit(scene: Scene) -> bool:
    frame = scene.frame
    return (
        frame is not None
        and frame.kind == WINDOW_UPDATE
        and frame.payload[:1] >= b"\x80"
        and goodbye(scene.theirs) == ErrorCode.PROTOCOL_ERROR
    )


def counted_first(scene: Scene) -> bool:
    codes = goodbye(scene.ours), goodbye(scene.theirs)
    rows = ("A04", "A07", "A08", "A09", "A10", "A15", "A17", "A30", "A35")
    return (
        codes[0] in (*_FAULTS, ErrorCode.STREAM_CLOSED)
        and codes[1] == ErrorCode.ENHANCE_YOUR_CALM
        and scene.theirs.row in rows
    )


def in_a_block(scene: Scene) -> bool:
    return scene.stage.head is not None and scene.ours.row == "A05" and goodbye(scene.theirs) is not None


def begun_again(scene: Scene) -> bool:
    codes = goodbye(scene.ours), goodbye(scene.theirs)
    return (
        scene.head is not None
        and scene.past in (Past.ENDED, Past.SKIPPED)
        and codes == (ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED)
    )


def reset_twice(scene: Scene) -> bool:
    frame = scene.frame
    if frame is None or frame.kind not in (DATA, HEADERS, CONTINUATION) or scene.past is not Past.RESET_BY_US:
        return False
    is_again = resets(scene.theirs) == [(frame.stream, ErrorCode.STREAM_CLOSED)]
    return scene.stage.streams[frame.stream].peer_reset and silent(scene.ours) and is_again


def connect_withdrawn(scene: Scene) -> bool:
    if not scene.is_frame(SETTINGS) or scene.frame is None or scene.frame.length % 6:
        return False
    is_withdrawn = (8, 0) in struct.iter_unpack(">HI", scene.frame.payload)
    is_noticed = lives(scene.theirs) or goodbye(scene.theirs) in _FAULTS  # of another entry
    return is_withdrawn and goodbye(scene.ours) == ErrorCode.PROTOCOL_ERROR and is_noticed


def empty_run(scene: Scene) -> bool:
    frame = scene.frame
    is_empty = frame is not None and frame.kind in (DATA, HEADERS, CONTINUATION) and not frame.content
    one, other = (scene.ours, scene.theirs) if scene.ours.row == "A15" else (scene.theirs, scene.ours)
    return is_empty and one.row == "A15" and lives(other)


def no_increment(scene: Scene) -> bool:
    frame = scene.frame
    if frame is None or frame.kind != WINDOW_UPDATE or frame.stream == 0 or any(frame.payload):
        return False
    if scene.past in (Past.OPEN, Past.HALF_CLOSED_REMOTE):
        return _stream_for_connection(scene, ErrorCode.PROTOCOL_ERROR)
    return silent(scene.ours) and goodbye(scene.theirs) == ErrorCode.PROTOCOL_ERROR


def interim_request(scene: Scene) -> bool:
    if scene.head is None or goodbye(scene.theirs) != ErrorCode.PROTOCOL_ERROR:
        return False
    heads = [call.body for call in scene.ours.calls[:1] if call.name == "request"]
    return any(isinstance(head, list) and any(f[0] == b":status" and f[1][:1] == b"1" for f in head) for head in heads)


def interim_trailers(scene: Scene) -> bool:
    told = [call.body for call in scene.ours.calls if call.name == "trailers"]
    return goodbye(scene.theirs) == ErrorCode.PROTOCOL_ERROR and any(
        isinstance(fields, list) and any(f[0] == b":status" and f[1][:1] == b"1" for f in fields) for fields in told
    )


def late_block(scene: Scene) -> bool:
    is_begun = scene.is_frame(HEADERS) and scene.frame is not None and not scene.frame.flags & END_HEADERS
    return is_begun and scene.past is not Past.OPEN and silent(scene.ours) and scene.theirs.row == "A30"


def head_after_end(scene: Scene) -> bool:
    return (
        scene.head is not None
        and scene.past is Past.HALF_CLOSED_REMOTE
        and resets(scene.ours)[:1] == [(scene.head.stream, ErrorCode.STREAM_CLOSED)]
        and goodbye(scene.theirs) == ErrorCode.PROTOCOL_ERROR
    )


def skipped(scene: Scene) -> bool:
    codes = (ErrorCode.STREAM_CLOSED, ErrorCode.PROTOCOL_ERROR)
    return (
        scene.is_frame(DATA, HEADERS, CONTINUATION, RST_STREAM, WINDOW_UPDATE)
        and scene.past is Past.SKIPPED
        and (goodbye(scene.ours) in codes or silent(scene.ours))
    )


def extension(scene: Scene) -> bool:
    assert scene.frame is not None
    return scene.frame.kind == 0x0A and silent(scene.ours) and not lives(scene.theirs)
