"""The frames that carry no part of a message: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM, PRIORITY.

Each method takes (flags, stream, payload) and is a row of `CONTROL`. Each pays into one of the connection's budgets:
they are what floods are made of. Raises as `session` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sidecar.http import frames
from sidecar.http.frames import (
    ACK,
    DRAIN_PING,
    KEEP_ALIVE_PING,
    RST_STREAM,
    STREAM_ID_MAX,
    WINDOW_MAX,
    WINDOW_UPDATE,
    read_long,
    read_two_longs,
)
from sidecar.http.relay.faults import ConnectionFault, StreamFault
from sidecar.http.relay.send import Sending
from sidecar.http.relay.streams import HEADED, MISPLACED, REMOTE_ENDED, Cost, Past, Stream
from sidecar.http.session import ErrorCode


def _check(shape_is_right: bool, detail: str, code: int = ErrorCode.FRAME_SIZE_ERROR, row: str = "") -> None:
    if not shape_is_right:
        raise ConnectionFault(code, detail, row)


class Control(Sending):
    """See the module's docstring."""

    _now = 0.0
    """Monotonic seconds at the last `receive`."""
    _settled = False
    """The peer has acknowledged our SETTINGS."""

    # The connection

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        _check(stream == 0, "SETTINGS of a stream", ErrorCode.PROTOCOL_ERROR)
        _check(len(payload) % 6 == 0, "SETTINGS of a wrong size")
        if flags & ACK:
            _check(not payload, "an acknowledgement that says something")
            self._budgets.glitch("A30", self._now)
            self._settings_acknowledged()
            return
        _check(
            len(payload) <= 6 * self._limits.settings_entries_max,
            "too many settings",
            ErrorCode.ENHANCE_YOUR_CALM,
            "A08",
        )
        row = "A07"
        for name, value in frames.read_settings(payload):
            setting = _SETTINGS.get(name)
            if setting is not None:
                setting(self, value)
            if name == frames.INITIAL_WINDOW_SIZE:
                row = "A35"
        self._out.append(frames.SETTINGS_ACK)
        self._budgets.reply_queued("A07")
        self._budgets.glitch(row, self._now)
        if self._blocked:
            self._wake()

    def _settings_acknowledged(self) -> None:
        """From here on the peer keeps to a stream window that is smaller than the default."""
        if self._settled:
            return
        self._settled = True
        smaller = self._limits.stream_window_octets - self._stream_window
        if smaller < 0:
            self._stream_window += smaller
            for number, stream in self._streams.items():
                stream.in_window += smaller
                if stream.owed * 2 >= self._stream_window + stream.grown and not stream.state & REMOTE_ENDED:
                    self._announce(number, stream)

    def _set_table(self, value: int) -> None:
        self._encoder.peer_table_octets(value)

    def _set_push(self, value: int) -> None:
        is_legal = value == 0 or (value == 1 and self._handler is not None)
        _check(is_legal, "ENABLE_PUSH is wrong", ErrorCode.PROTOCOL_ERROR, "A31")

    def _set_streams(self, value: int) -> None:
        self._peer_streams_max = value

    def _set_window(self, value: int) -> None:
        """RFC 9113 section 6.9.2: what is open changes by the difference, below zero if need be."""
        _check(value <= WINDOW_MAX, "INITIAL_WINDOW_SIZE is too large", ErrorCode.FLOW_CONTROL_ERROR, "A19")
        change = value - self._peer_stream_window
        self._peer_stream_window = value
        for stream in self._streams.values():
            stream.out_window += change
            _check(stream.out_window <= WINDOW_MAX, "a window is too large", ErrorCode.FLOW_CONTROL_ERROR, "A19")

    def _set_frame(self, value: int) -> None:
        is_legal = frames.FRAME_OCTETS_MAX <= value < 2**24
        _check(is_legal, "MAX_FRAME_SIZE is out of range", ErrorCode.PROTOCOL_ERROR)

    def _set_connect(self, value: int) -> None:
        is_legal = value == 1 or (value == 0 and not self.peer_extended_connect)
        _check(is_legal, "ENABLE_CONNECT_PROTOCOL is wrong", ErrorCode.PROTOCOL_ERROR)
        self.peer_extended_connect = value == 1

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        _check(stream == 0, "PING of a stream", ErrorCode.PROTOCOL_ERROR)
        _check(len(payload) == 8, "PING of a wrong size")
        if not flags & ACK:
            self._out.append(frames.ping(payload, ack=True))
            self._budgets.reply_queued("A09")
            self._budgets.glitch("A09", self._now)
            return
        self._budgets.glitch("A30", self._now)
        if payload == KEEP_ALIVE_PING:
            self._pings = 0
        elif payload == DRAIN_PING and self._draining and self._last_accepted == STREAM_ID_MAX:
            self._drain_confirmed()

    def _goaway(self, flags: int, stream: int, payload: bytes) -> None:
        """RFC 9113 section 6.8: streams above the last finish elsewhere, all others here."""
        _check(stream == 0, "GOAWAY of a stream", ErrorCode.PROTOCOL_ERROR)
        _check(len(payload) >= 8, "GOAWAY of a wrong size")
        last, self.peer_error = read_two_longs(payload)
        self._budgets.glitch("A30", self._now)
        if self._handler is not None:
            return  # a client that leaves finishes what it began and then closes
        self._draining = True
        for number in [s for s in self._streams if s > last & STREAM_ID_MAX]:
            unprocessed = self._streams.pop(number, None)
            if unprocessed is None:  # reset by what the sink before it did
                continue
            self._blocked.pop(number, None)
            self._growth += unprocessed.grown
            self._gone.add(number, Past.RESET_BY_US)
            self._out.append(frames.rst_stream(number, ErrorCode.CANCEL))
            unprocessed.sink.reset(ErrorCode.REFUSED_STREAM, True)
        self._close_if_drained()

    # Streams

    def _window_update(self, flags: int, stream: int, payload: bytes) -> None:
        _check(len(payload) == 4, "WINDOW_UPDATE of a wrong size")
        self._budgets.window_update()
        increment = read_long(payload)[0] & WINDOW_MAX
        if stream == 0:
            _check(increment > 0, "an increment of zero", ErrorCode.PROTOCOL_ERROR, "A18")
            self._out_window += increment
            _check(self._out_window <= WINDOW_MAX, "a window is too large", ErrorCode.FLOW_CONTROL_ERROR, "A19")
            if self._blocked:
                self._wake()
            return
        known = self._streams.get(stream)
        if known is None:
            self._misplaced(WINDOW_UPDATE, stream, None)
            return
        if increment == 0:
            raise StreamFault(stream, ErrorCode.PROTOCOL_ERROR)
        known.out_window += increment
        if known.out_window > WINDOW_MAX:
            raise StreamFault(stream, ErrorCode.FLOW_CONTROL_ERROR)
        if stream in self._blocked and self.credit(stream) > 0:
            del self._blocked[stream]
            known.sink.writable()

    def _rst_stream(self, flags: int, stream: int, payload: bytes) -> None:
        _check(stream != 0, "RST_STREAM of no stream", ErrorCode.PROTOCOL_ERROR)
        _check(len(payload) == 4, "RST_STREAM of a wrong size")
        known = self._streams.pop(stream, None)
        if known is None:
            self._misplaced(RST_STREAM, stream, None)
            return
        code = read_long(payload)[0]
        self._blocked.pop(stream, None)
        self._growth += known.grown
        self._gone.add(stream, Past.RESET_BY_PEER)
        known.sink.reset(code, code == ErrorCode.REFUSED_STREAM)
        self._close_if_drained()
        if self._handler is not None:
            age_s = self._now - known.opened_at
            self._budgets.reset_received(age_s=age_s, was_answered=bool(known.state & HEADED))

    def _priority(self, flags: int, stream: int, payload: bytes) -> None:
        """Read for its faults only: RFC 9113 section 5.3.2 has deprecated what it says."""
        _check(stream != 0, "PRIORITY of no stream", ErrorCode.PROTOCOL_ERROR)
        is_open = stream in self._streams
        if len(payload) != 5:
            if is_open:
                raise StreamFault(stream, ErrorCode.FRAME_SIZE_ERROR)
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
        if read_long(payload)[0] & STREAM_ID_MAX == stream:
            if is_open:
                raise StreamFault(stream, ErrorCode.PROTOCOL_ERROR)
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
        self._budgets.priority()

    def _priority_update(self, flags: int, stream: int, payload: bytes) -> None:
        """RFC 9218 section 7.1: ignored, and paid for like its predecessor."""
        self._budgets.priority()

    def _push_promise(self, flags: int, stream: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which we forbade", "A31")

    def _unknown(self, flags: int, stream: int, payload: bytes) -> None:
        """RFC 9113 section 5.5: ignored."""
        self._budgets.glitch("A30", self._now)

    # In the wrong place

    def _misplaced(self, kind: int, number: int, stream: Stream | None) -> None:
        """A frame that the state of its stream has no use for. Raises what it costs."""
        past = Past.HALF_CLOSED_REMOTE if stream is not None else self._past(number)
        cost, code = MISPLACED[past, kind]
        if cost is Cost.CONNECTION:
            raise ConnectionFault(code, f"a frame of kind {kind} on a stream that is {past.name.lower()}")
        if cost is Cost.STREAM:
            raise StreamFault(number, code)
        if kind == RST_STREAM:
            self._budgets.reset_late(self._now)
        elif kind != WINDOW_UPDATE:  # paid for already, and a common farewell: the last of a body was taken
            self._budgets.glitch("A30", self._now)

    def _past(self, stream: int) -> Past:
        """Of a stream that is not open: the peer opens the odd ones if it is the client, and nobody the even ones."""
        is_opened = stream & 1 and stream <= (self._highest if self._handler is not None else self._next_stream - 2)
        return self._gone.past(stream) if is_opened else Past.IDLE


Handle = Callable[[Control, int, int, bytes], None]

CONTROL: Mapping[int, Handle] = {
    frames.PRIORITY: Control._priority,
    frames.RST_STREAM: Control._rst_stream,
    frames.SETTINGS: Control._settings,
    frames.PUSH_PROMISE: Control._push_promise,
    frames.PING: Control._ping,
    frames.GOAWAY: Control._goaway,
    frames.WINDOW_UPDATE: Control._window_update,
    frames.PRIORITY_UPDATE: Control._priority_update,
}

_SETTINGS: Mapping[int, Callable[[Control, int], None]] = {
    frames.HEADER_TABLE_SIZE: Control._set_table,
    frames.ENABLE_PUSH: Control._set_push,
    frames.MAX_CONCURRENT_STREAMS: Control._set_streams,
    frames.INITIAL_WINDOW_SIZE: Control._set_window,
    frames.MAX_FRAME_SIZE: Control._set_frame,
    frames.ENABLE_CONNECT_PROTOCOL: Control._set_connect,
}
