"""The frame lane: received bytes become frames, and frames become calls.

Theory of operation
-------------------
`receive` cuts what came into frames and runs each to its end before it looks at the next: a request's head goes through
policy and out on another connection's session within one call. Only an unfinished frame is kept, so at most one frame
and one header block wait here.

The two frames that requests are made of have methods of their own, `_data` and `_headers`, and come first; the rest is
the table `control.CONTROL`. Each method checks in this order: the frame's shape (RFC 9113 section 6), then the
connection's account (flow control, HPACK), which must be kept whatever becomes of the stream, then the stream's state.
For a stream that has no use for the frame, `streams.MISPLACED` says what that costs.

Faults are raised: `StreamFault` costs one stream, `ConnectionFault` and `PeerFlood` the connection. They are dealt with
in `receive` and `_lane`, and nowhere else. What a header says is not judged here: a malformed head is an ordinary
request to this engine, and costs no more than its stream (`sidecar.http.headers`).
"""

from __future__ import annotations

from sidecar.errors import PeerFlood
from sidecar.http import frames
from sidecar.http.budgets import TINY_OCTETS
from sidecar.http.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_OCTETS_MAX,
    HAS_PRIORITY,
    HEAD_OCTETS,
    HEADERS,
    PADDED,
    PREFACE,
    STREAM_ID_MAX,
    read_long,
)
from sidecar.http.relay.control import CONTROL, Control
from sidecar.http.relay.errors import HpackError, ListTooLarge
from sidecar.http.relay.faults import ConnectionFault, StreamFault
from sidecar.http.relay.streams import (
    HEADED,
    LOCAL_ENDED,
    REMOTE_ENDED,
    TUNNEL,
    Past,
    Stream,
)
from sidecar.http.session import NO_SINK, ErrorCode, Fields

_CONNECT = (b":method", b"CONNECT")
_unpack_head = frames.HEAD.unpack_from


class _Block:
    """A header block whose CONTINUATION frames have not all arrived."""

    __slots__ = ("continuations", "depends_on_itself", "flags", "octets", "stream")

    def __init__(self, stream: int, flags: int, octets: bytes, depends_on_itself: bool) -> None:
        self.stream = stream
        self.flags = flags
        self.octets = bytearray(octets)
        self.depends_on_itself = depends_on_itself
        self.continuations = 0


class RelaySession(Control):
    """`sidecar.http.session.Session` on our own frames. A server session has a `handler`, a client session has none.

    (What is a class attribute here costs an idle connection nothing.)"""

    _prefaced = 0
    """Octets of a client's preface that have come."""
    _in = b""
    """The beginning of a frame."""
    _more: bytearray | None = None
    """The same, while further pieces of it come that do not complete it."""
    _needed = 0
    """Octets that complete it; or its head, as long as that is not here."""
    _greeted = False
    """The peer's first SETTINGS came."""
    _block: _Block | None = None
    _any_order = False
    """False: the next frame must be one certain kind (`_check_order`)."""
    _empty_run = False
    """The last DATA, HEADERS or CONTINUATION was empty and ended nothing."""

    @property
    def awaits_rest(self) -> bool:
        is_prefaced = self._handler is None or self._prefaced == len(PREFACE)
        return bool(self._in or self._more or self._block or not is_prefaced)

    def receive(self, data: bytes) -> None:
        if self.closed:
            return
        self._now = self._clock()
        self.has_more = False
        try:
            if self._prefaced < len(PREFACE) and self._handler is not None:
                data = self._strip_preface(data)
            if self._in or self._more is not None:
                data = self._join(data)
            self._lane(data)
        except ConnectionFault as e:
            self._connection_fault(e)
        except PeerFlood as e:
            self._flood(e)

    def _strip_preface(self, data: bytes) -> bytes:
        """RFC 9113 section 3.4."""
        came = PREFACE[self._prefaced : self._prefaced + len(data)]
        if not data.startswith(came):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface", "A38")
        self._prefaced += len(came)
        return data[len(came) :]

    def _join(self, data: bytes) -> bytes:
        """What waited and `data`, if that completes something; b"" if not. However small the pieces, the cost of a
        frame is linear in its size."""
        if self._more is None:
            self._more, self._in = bytearray(self._in), b""
        self._more += data
        if len(self._more) < self._needed:
            return b""
        whole, self._more = bytes(self._more), None
        return whole

    def _lane(self, data: bytes) -> None:
        """Run every whole frame in `data`; keep the rest. Raises ConnectionFault, PeerFlood."""
        at, size = 0, len(data)
        left = self.slice_frames
        while True:
            start = at + HEAD_OCTETS
            if start > size:
                self._needed = HEAD_OCTETS
                break
            high, low, kind, flags, stream = _unpack_head(data, at)
            end = start + (high << 8 | low)
            if end - start > FRAME_OCTETS_MAX:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "frame is too large", "A27")
            if end > size:
                self._needed = end - at
                break
            at = end
            stream &= STREAM_ID_MAX
            if not self._any_order:
                self._check_order(kind, flags, stream)
            try:
                if kind == DATA:
                    self._data(flags, stream, data, start, end)
                elif kind == HEADERS:
                    self._headers(flags, stream, data, start, end)
                elif kind == CONTINUATION:
                    self._continuation(flags, data[start:end])
                else:
                    CONTROL.get(kind, Control._unknown)(self, flags, stream, data[start:end])
            except StreamFault as e:
                self._stream_fault(e)
            if self.closed:
                return
            left -= 1
            if not left:
                self.has_more = at < size
                self._needed = 0
                break
        if at < size:
            self._in = data[at:]

    def _check_order(self, kind: int, flags: int, stream: int) -> None:
        """SETTINGS come first (RFC 9113 section 3.4), and nothing between the frames of a header block (6.10)."""
        block = self._block
        if not self._greeted:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS", "A38")
            self._greeted = True
            self._any_order = True
        elif block is not None and (kind != CONTINUATION or stream != block.stream):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "another frame inside a header block", "A05")

    def _empty(self) -> None:
        self._empty_run = True
        self._budgets.empty()

    def _not_empty(self) -> None:
        self._empty_run = False
        self._budgets.not_empty()

    # DATA

    def _data(self, flags: int, number: int, data: bytes, start: int, end: int) -> None:
        """RFC 9113 section 6.1."""
        flow = end - start
        if flags & PADDED:
            start, end = _unpad(data, start, end)
        self._in_window -= flow
        if self._in_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
        stream = self._streams.get(number)
        if stream is None or stream.state & REMOTE_ENDED:
            if number == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA of no stream")
            self._give_back(flow)
            self._misplaced(DATA, number, stream)
            return
        stream.in_window -= flow
        if stream.in_window < 0 and flow:  # an empty one may come however small the window is (RFC 9113 section 6.9)
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond its stream's window")
        if self._handler is None and not stream.state & HEADED:
            self._give_back(flow)
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR)
        if flags & END_STREAM:
            self._remote_ended(number, stream)
            stream.sink.data(data[start:end], flow, True)
            return
        size = end - start
        if size < TINY_OCTETS:
            if not size:
                self._empty()
            elif stream.in_window + flow + stream.owed < self._stream_window + stream.grown:
                stream.tiny += 1
                self._budgets.tiny_data()
        if size and self._empty_run:
            self._not_empty()
        stream.sink.data(data[start:end], flow, False)

    def _remote_ended(self, number: int, stream: Stream) -> None:
        stream.state |= REMOTE_ENDED
        if stream.state & LOCAL_ENDED:
            self._forget(number, stream)

    # Header blocks

    def _headers(self, flags: int, number: int, data: bytes, start: int, end: int) -> None:
        """RFC 9113 section 6.2."""
        depends_on_itself = False
        if flags & (PADDED | HAS_PRIORITY):
            if flags & PADDED:
                start, end = _unpad(data, start, end)
            if flags & HAS_PRIORITY:
                if end - start < 5:
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS end within their priority")
                depends_on_itself = read_long(data, start)[0] & STREAM_ID_MAX == number
                start += 5
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS of no stream")
        if start == end:
            if not flags & END_STREAM:
                self._empty()
        elif self._empty_run:
            self._not_empty()
        if flags & END_HEADERS:
            self._whole_block(flags, number, data[start:end], depends_on_itself)
        else:
            self._block = _Block(number, flags, data[start:end], depends_on_itself)
            self._any_order = False

    def _continuation(self, flags: int, payload: bytes) -> None:
        """RFC 9113 section 6.10."""
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS", "A06")
        block.continuations += 1
        block.octets += payload
        too_large = len(block.octets) > 4 * self._limits.header_list_octets_max
        if too_large or block.continuations > self._limits.continuation_frames_max:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block is too large", "A04")
        if not payload and not flags & END_HEADERS:
            self._empty()
        if flags & END_HEADERS:
            self._block = None
            self._any_order = True
            self._whole_block(block.flags, block.stream, bytes(block.octets), block.depends_on_itself)

    def _whole_block(self, flags: int, number: int, block: bytes, depends_on_itself: bool) -> None:
        try:
            fields = self._decoder.decode(block)
        except HpackError as e:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(e), "A24") from None
        except ListTooLarge as e:  # up to four times the limit one stream is answered 431
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, str(e), "A26") from None
        stream = self._streams.get(number)
        end = bool(flags & END_STREAM)
        if stream is None:
            if depends_on_itself and number > self._highest and self._handler is not None:
                self._highest = number
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR)
            self._request(number, fields, end)
        elif stream.state & REMOTE_ENDED:
            self._misplaced(HEADERS, number, stream)
        elif depends_on_itself:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR)
        elif self._handler is None and not stream.state & HEADED:
            self._response(number, stream, fields, end)
        elif not end or stream.state & TUNNEL:  # a second head, or more than DATA in a tunnel
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR)
        else:
            self._remote_ended(number, stream)
            stream.sink.trailers(fields)

    def _request(self, number: int, fields: Fields, end: bool) -> None:
        handler = self._handler
        if handler is None or (number & 1 and number <= self._highest):
            if number < self._highest and self._past(number) is Past.ENDED:  # or skipped: either way it went back
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream numbers do not grow", "A29")
            self._misplaced(HEADERS, number, None)
            return
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's stream has an odd number", "A29")
        self._highest = number
        budgets, limits = self._budgets, self._limits
        if len(self._streams) >= limits.streams_per_connection_max or number > self._last_accepted:
            self._out.append(frames.rst_stream(number, ErrorCode.REFUSED_STREAM))
            self._gone.add(number, Past.RESET_BY_US)
            budgets.reply_queued("A28")
            budgets.glitch("A28", self._now)
            return
        state = REMOTE_ENDED if end else TUNNEL if _CONNECT in fields[:5] else 0
        stream = Stream(NO_SINK, state, self._stream_window, self._peer_stream_window, self._now)
        self._streams[number] = stream
        budgets.streams_opened += 1
        if budgets.streams_opened == limits.streams_total_max:
            self.drain()  # row A41
        sink = handler.request(self, number, fields, end)
        stream.sink = sink
        if stream.reset_early is not None:
            sink.reset(stream.reset_early, False)

    def _response(self, number: int, stream: Stream, fields: Fields, end: bool) -> None:
        """A head of the answer: interim ones until one is final (RFC 9113 section 8.1)."""
        if fields and fields[0][0] == b":status" and fields[0][1][:1] == b"1":
            if end:
                raise StreamFault(number, ErrorCode.PROTOCOL_ERROR)
            stream.sink.informational(fields)
            return
        stream.state |= HEADED
        if end:
            self._remote_ended(number, stream)
        stream.sink.head(fields, end)


def _unpad(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the payload of a padded frame stands (RFC 9113 section 6.1)."""
    if start == end:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "no room for the length of the padding", "A36")
    padded = end - data[start]
    if padded <= start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame", "A36")
    return start + 1, padded
