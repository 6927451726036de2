"""What the rest of the sidecar says through an HTTP/2 connection: calls become frames, which wait to be sent together.

Everything said for a stream that is gone, or after our half of it ended, is ignored: the peer may have reset it in the
same slice. A head is encoded before anything is changed, so a field that HTTP cannot carry costs nothing (row B12).
"""

from __future__ import annotations

from sidecar.http import frames
from sidecar.http.frames import (
    CONTINUATION,
    DATA,
    DATA_OCTETS_MAX,
    END_HEADERS,
    END_STREAM,
    FRAME_OCTETS_MAX,
    HEAD,
    HEADERS,
    STREAM_ID_MAX,
    window_update,
)
from sidecar.http.relay.core import RelayCore
from sidecar.http.relay.streams import HEADED, LOCAL_ENDED, REMOTE_ENDED, TUNNEL, Past, Stream
from sidecar.http.session import Fields, StreamSink

_pack_head = HEAD.pack
_CONNECT = (b":method", b"CONNECT")


class Sending(RelayCore):
    """See the module's docstring."""

    # Heads

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        assert self.can_open
        block = self._encoder.encode(fields)
        number = self._next_stream
        self._next_stream += 2
        state = LOCAL_ENDED if end else TUNNEL if _CONNECT in fields[:5] else 0
        self._streams[number] = Stream(sink, state, self._stream_window, self._peer_stream_window, self._clock())
        self._send_block(number, block, END_STREAM if end else 0)
        self._heads += len(block)
        budgets = self._budgets
        budgets.streams_opened += 1
        if budgets.streams_opened >= self._limits.streams_total_max or number > STREAM_ID_MAX - 3:
            self.drain()  # row A41
        return number

    def informational(self, stream: int, fields: Fields) -> None:
        known = self._streams.get(stream)
        if known is not None and not known.state & (LOCAL_ENDED | HEADED):
            self._send_block(stream, self._encoder.encode(fields), 0)

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        known = self._streams.get(stream)
        if known is None or known.state & (LOCAL_ENDED | HEADED):
            return
        block = self._encoder.encode(fields)
        known.state |= HEADED
        self._send_block(stream, block, END_STREAM if end else 0)
        if end:
            self._local_ended(stream, known)

    def trailers(self, stream: int, fields: Fields) -> None:
        known = self._streams.get(stream)
        if known is None or known.state & LOCAL_ENDED or (self._handler is not None and not known.state & HEADED):
            return
        if not fields:  # a section of which nothing may cross
            self.data(stream, b"", True)
            return
        self._send_block(stream, self._encoder.encode(fields), END_STREAM)
        self._local_ended(stream, known)

    def _send_block(self, stream: int, block: bytes, flags: int) -> None:
        """HEADERS, and CONTINUATION for what does not fit."""
        size = len(block)
        if size <= FRAME_OCTETS_MAX:
            self._out.append(_pack_head(size >> 8, size & 0xFF, HEADERS, flags | END_HEADERS, stream) + block)
            return
        kind = HEADERS
        for start in range(0, size, FRAME_OCTETS_MAX):
            if start + FRAME_OCTETS_MAX >= size:
                flags |= END_HEADERS
            self._out.append(frames.frame(kind, flags, stream, block[start : start + FRAME_OCTETS_MAX]))
            kind, flags = CONTINUATION, 0

    def _local_ended(self, number: int, stream: Stream) -> None:
        stream.state |= LOCAL_ENDED
        self._budgets.answered += 1
        if self._blocked:
            self._blocked.pop(number, None)
        if stream.state & REMOTE_ENDED:
            self._forget(number, stream)

    # Bodies

    def data(self, stream: int, data: bytes, end: bool) -> None:
        known = self._streams.get(stream)
        if known is None or known.state & LOCAL_ENDED or (self._handler is not None and not known.state & HEADED):
            return
        size = len(data)
        out = self._out
        if size <= FRAME_OCTETS_MAX:
            out.append(_pack_head(size >> 8, size & 0xFF, DATA, END_STREAM if end else 0, stream))
            out.append(data)
            self._budgets.data_frames_sent += 1
        else:
            for start in range(0, size, DATA_OCTETS_MAX):
                piece = data[start : start + DATA_OCTETS_MAX]
                last = end and start + DATA_OCTETS_MAX >= size
                octets = len(piece)
                out.append(_pack_head(octets >> 8, octets & 0xFF, DATA, END_STREAM if last else 0, stream))
                out.append(piece)
                self._budgets.data_frames_sent += 1
        self._queued += size
        self._out_window -= size
        known.out_window -= size
        if end:
            self._local_ended(stream, known)

    def want_write(self, stream: int) -> None:
        known = self._streams.get(stream)
        if known is not None and not known.state & LOCAL_ENDED:
            self._blocked[stream] = None

    def consumed(self, stream: int, flow: int) -> None:
        """Credit goes back in large pieces: half a window at a time (RFC 9113 section 6.9)."""
        if flow <= 0 or self.closed:
            return
        self._give_back(flow)
        known = self._streams.get(stream)
        if known is None:
            return
        known.owed += flow
        window = self._stream_window + known.grown
        if known.tiny and known.in_window + known.owed >= window:  # nothing waits
            self._budgets.tiny_taken(known.tiny)
            known.tiny = 0
        if known.owed * 2 >= window and not known.state & REMOTE_ENDED:
            self._announce(stream, known)

    def _give_back(self, flow: int) -> None:
        """The connection's part of it."""
        self._owed += flow
        if self._owed >= self._owed_max:
            self._out.append(window_update(0, self._owed))
            self._in_window += self._owed
            self._owed = 0

    def _announce(self, number: int, stream: Stream) -> None:
        """Tell the peer of what one stream owes it. If nothing of the stream waits its reader keeps up, and its window
        is doubled as long as there is something to lend: a slow reader holds a small window, a fast one is not held up
        by it."""
        window = self._stream_window + stream.grown
        if stream.in_window + stream.owed >= window and self._growth:
            more = min(window, self._growth_max - stream.grown, self._growth)
            stream.grown += more
            stream.owed += more
            self._growth -= more
        self._out.append(window_update(number, stream.owed))
        stream.in_window += stream.owed
        stream.owed = 0

    def reset(self, stream: int, code: int) -> None:
        known = self._streams.pop(stream, None)
        if known is not None:
            self._blocked.pop(stream, None)
            self._growth += known.grown
            self._gone.add(stream, Past.RESET_BY_US)
            self._out.append(frames.rst_stream(stream, code))
            self._close_if_drained()

    # The socket

    def take(self) -> bytes:
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        self._queued = self._heads = 0
        self._unsent += len(data)
        return data

    def sent(self, unsent: int) -> None:
        if self._budgets.has_replies:
            self._budgets.replies_sent(self._unsent - unsent, unsent)
        self._unsent = unsent
        if self._blocked:
            self._wake()
