"""What both directions of a connection share: its streams, what waits to be sent, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config import Limits
from sidecar.errors import BadRequest, PeerFlood, RequestError, UpstreamFailed
from sidecar.http import frames
from sidecar.http.budgets import Budgets
from sidecar.http.frames import DRAIN_PING, KEEP_ALIVE_PING, STREAM_ID_MAX, WINDOW_DEFAULT
from sidecar.http.relay.faults import ConnectionFault, StreamFault
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import Encoder
from sidecar.http.relay.streams import LOCAL_ENDED, Gone, Past, Stream
from sidecar.http.session import HEADS_OCTETS_MAX, NO_SINK, ErrorCode, ServerHandler

HPACK_TABLE_OCTETS = 4_096


class RelayCore:
    """State of one connection."""

    def __init__(
        self,
        handler: ServerHandler | None,
        limits: Limits,
        clock: Callable[[], float] = lambda: 0.0,
        *,
        extended_connect: bool = False,
    ) -> None:
        self.closed = False
        self.wants_read = True
        self.resume_reading: Callable[[], None] = lambda: None
        self.slice_frames = 0
        self.has_more = False
        self.fault: RequestError | None = None
        self.peer_error = ErrorCode.NO_ERROR
        """Code of the GOAWAY received, or of the fault we found."""
        self.peer_extended_connect = False
        """The peer takes extended CONNECT (RFC 8441 section 3)."""
        self._handler = handler
        self._limits = limits
        self._clock = clock
        self._extended_connect = extended_connect
        self._budgets = Budgets(limits, clock)
        self._streams: dict[int, Stream] = {}
        self._gone = Gone()
        self._blocked: dict[int, None] = {}
        """Streams whose sinks wait for credit, in the order in which they began to."""
        # Received
        self._decoder = Decoder(table_octets_max=HPACK_TABLE_OCTETS, list_octets_max=4 * limits.header_list_octets_max)
        self._highest = 0
        """The last stream the peer opened."""
        self._last_accepted = STREAM_ID_MAX
        """Streams of the peer's beyond this are refused: our final GOAWAY said so."""
        self._in_window = max(limits.connection_window_octets, WINDOW_DEFAULT)
        """Octets the peer may still send on all streams together."""
        self._owed = 0
        """Octets of it given back that the peer has not been told of."""
        self._owed_max = self._in_window // 2
        self._stream_window = max(limits.stream_window_octets, WINDOW_DEFAULT)
        """With which a stream begins. A smaller one holds from the peer's acknowledgement on."""
        self._growth_max = max(0, limits.stream_window_octets_max - self._stream_window)
        self._growth = max(0, self._in_window - limits.streams_per_connection_max * self._stream_window)
        """What of the connection's window is left to be lent to streams whose readers keep up."""
        self._pings = 0
        # Sent
        self._encoder = Encoder(table_octets_max=HPACK_TABLE_OCTETS)
        self._next_stream = 1
        self._peer_streams_max = STREAM_ID_MAX
        self._peer_stream_window = WINDOW_DEFAULT
        self._out_window = WINDOW_DEFAULT
        self._out: list[bytes] = []
        self._queued = 0
        """Octets of DATA in `_out`."""
        self._heads = 0
        """Octets of requests' heads in `_out`."""
        self._unsent = 0
        self._draining = False
        self._greet()

    def __repr__(self) -> str:
        role = "server" if self._handler else "client"
        state = "closed" if self.closed else "draining" if self._draining else "open"
        return f"<http2 relay {role}, {state}, {len(self._streams)} streams>"

    def _greet(self) -> None:
        """The preface (clients) and our SETTINGS, which never change (RFC 9113 section 3.4)."""
        limits = self._limits
        if self._handler is None:
            self._out.append(frames.PREFACE)
        values = {
            frames.HEADER_TABLE_SIZE: HPACK_TABLE_OCTETS,
            frames.ENABLE_PUSH: 0,
            frames.MAX_CONCURRENT_STREAMS: limits.streams_per_connection_max,
            frames.INITIAL_WINDOW_SIZE: limits.stream_window_octets,
            frames.MAX_FRAME_SIZE: frames.FRAME_OCTETS_MAX,
            frames.MAX_HEADER_LIST_SIZE: limits.header_list_octets_max,
        }
        if self._extended_connect:
            values[frames.ENABLE_CONNECT_PROTOCOL] = 1
        self._out.append(frames.settings(values))
        if self._in_window > WINDOW_DEFAULT:
            self._out.append(frames.window_update(0, self._in_window - WINDOW_DEFAULT))

    # Faults

    def _stream_fault(self, fault: StreamFault) -> None:
        """The peer's fault on one stream: reset it, and charge the peer for that (rows A02, A11)."""
        stream = self._streams.pop(fault.stream, None)
        self._out.append(frames.rst_stream(fault.stream, fault.code))
        self._gone.add(fault.stream, Past.RESET_BY_US)
        if stream is not None:
            self._blocked.pop(fault.stream, None)
            self._growth += stream.grown
            stream.sink.reset(fault.code, False)
            self._close_if_drained()
        self._budgets.reply_queued("A11")
        self._budgets.reset_elicited()

    def _connection_fault(self, fault: ConnectionFault) -> None:
        kind = UpstreamFailed if self._handler is None else BadRequest
        self.fault = kind(fault.detail, row=fault.row)
        self._fail(fault.code)

    def _flood(self, flood: PeerFlood) -> None:
        self.fault = flood
        self._fail(ErrorCode.ENHANCE_YOUR_CALM)

    def _fail(self, code: int) -> None:
        """A fault of the connection, or our own wish: say goodbye and end every stream."""
        if self.closed:
            return
        self.peer_error = code
        self._out.append(frames.goaway(self._highest, code))
        self._end_all(code)

    def _end_all(self, code: int) -> None:
        if self.closed:
            return
        self.closed = True
        self._blocked.clear()
        while self._streams:  # one by one: a sink may reset another stream, which then hears nothing more
            stream = self._streams.pop(next(iter(self._streams)))
            if stream.sink is NO_SINK:
                stream.reset_early = code
            else:
                stream.sink.reset(code, False)

    def eof(self) -> None:
        self._end_all(ErrorCode.CANCEL)

    def shutdown(self, code: int) -> None:
        self._fail(code)

    def _forget(self, number: int, stream: Stream) -> None:
        """It ended in order in both directions."""
        del self._streams[number]
        self._growth += stream.grown
        if stream.tiny:
            self._budgets.tiny_taken(stream.tiny)
        if self._draining:
            self._close_if_drained()

    # Draining: GOAWAY 2^31-1 and a PING; when it comes back every stream that crossed is here (RFC 9113 section 6.8)

    def drain(self) -> None:
        if not self._draining and not self.closed and self._handler is not None:
            self._out.append(frames.goaway(STREAM_ID_MAX, ErrorCode.NO_ERROR))
            self._out.append(frames.ping(DRAIN_PING))
        self._draining = True
        self._close_if_drained()

    def _drain_confirmed(self) -> None:
        """Only servers ask with `DRAIN_PING`; whoever answers one that was never sent confirms nothing."""
        if self._handler is None:
            return
        self._last_accepted = self._highest
        self._out.append(frames.goaway(self._highest, ErrorCode.NO_ERROR))
        self._close_if_drained()

    def _close_if_drained(self) -> None:
        """A server waits for the PING of its drain; a client, or the receiver of a GOAWAY, for its streams only."""
        if self._draining and not self._streams and (self._handler is None or self._last_accepted != STREAM_ID_MAX):
            self.closed = True

    # Credit towards the peer

    def credit(self, stream: int) -> int:
        known = self._streams.get(stream)
        if known is None or known.state & LOCAL_ENDED:
            return 0
        room = self._limits.output_octets_max - self._queued - self._unsent
        return max(0, min(room, self._out_window, known.out_window))

    def _wake(self) -> None:
        """Offer the credit there is to those who wait for it, in the order in which they began to wait."""
        for stream in list(self._blocked):
            if stream in self._blocked and self.credit(stream) > 0:
                del self._blocked[stream]
                self._streams[stream].sink.writable()

    # State that is asked for

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    @property
    def draining(self) -> bool:
        return self._draining or self.closed

    @property
    def can_open(self) -> bool:
        return (
            not self._draining
            and not self.closed
            and len(self._streams) < self._peer_streams_max
            and len(self._streams) < self._limits.streams_per_connection_max
            and self._heads + self._queued + self._unsent <= self._limits.output_octets_max + HEADS_OCTETS_MAX
        )

    @property
    def awaits_pong(self) -> bool:
        return self._pings > 0

    def ping(self) -> None:
        if not self.closed:
            self._pings += 1
            self._out.append(frames.ping(KEEP_ALIVE_PING))
