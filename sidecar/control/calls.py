"""The calls of one gRPC connection, client side, sans-IO: bytes in, calls change; bytes out on `take`.

Theory of operation
-------------------
`Calls` owns an h2 connection (the package; this is not the data path), the data path's gate in front of it, which keeps
GOAWAY from h2 (it would end every call) and stops floods, and one `Call` per stream. Whoever owns the socket feeds
`receive`, sends what `take` gives, and asks `pump` for more when the socket has taken all of that; so the bytes that
wait to be sent are bounded by one pump (64 KiB) and the answers to control frames.

Receive credit: a call's window is given back as its bytes arrive while nothing waits in its inbox, and held back while
something does. So a reader that stops reading stops its sender, and one call holds at most one message
(`message_octets_max`) and one window (`WINDOW_OCTETS`).

A call ends exactly once: `is_finished` turns True with `error` set (or None for status OK), and `on_change` is called.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from sidecar.config import Limits
from sidecar.control.errors import RpcError
from sidecar.control.wire import MessageAssembler, head_error, request_head, reset_error, trailers_error
from sidecar.errors import GRPC_CANCELLED, GRPC_INTERNAL, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE, PeerFlood
from sidecar.http.budgets import Budgets
from sidecar.http.gate import Frame, FrameGate, GateFault
from sidecar.http.session import ErrorCode

CALLS_MAX = 16
WINDOW_OCTETS = 1_048_576
CONNECTION_WINDOW_OCTETS = 4_194_304
HEADER_LIST_OCTETS_MAX = 16_384
LIMITS = Limits(header_list_octets_max=HEADER_LIST_OCTETS_MAX)
"""What a control plane may send is bounded as it is for any other peer."""
ENCODER_TABLE_OCTETS_MAX = 4_096
PUMP_OCTETS = 65_536

Code = h2.settings.SettingCodes


class Call:
    """One stream. Made by `Calls.open`."""

    def __init__(self, stream: int, message_octets_max: int, on_change: Callable[[], object]) -> None:
        self.stream = stream
        self.assembler = MessageAssembler(message_octets_max)
        self.inbox: deque[bytes] = deque()
        self.outbox = bytearray()
        """Framed messages that flow control or the socket have not let go yet."""
        self.held = 0
        """Octets of receive credit not given back yet."""
        self.is_closing = False
        """No more messages will be sent; END_STREAM follows the outbox."""
        self.is_half_closed = False
        self.is_remote_closed = False
        self.is_finished = False
        self.error: RpcError | None = None
        self.head: Sequence[tuple[bytes, bytes]] | None = None
        self.trailers: Sequence[tuple[bytes, bytes]] | None = None
        self.on_change = on_change

    def __repr__(self) -> str:
        state = "finished" if self.is_finished else "half-closed" if self.is_half_closed else "open"
        return f"<Call {self.stream} {state}, {len(self.inbox)} waiting, error={self.error}>"


class Calls:
    """The connection. Methods raise RpcError(UNAVAILABLE) once it failed or goes away."""

    def __init__(self, authority: str, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds; it ages the budgets of what the control plane may send."""
        self._authority = authority
        self._budgets = Budgets(LIMITS, clock)
        self._gate = FrameGate(LIMITS, self._budgets, clock, expects_preface=False)
        self._calls: dict[int, Call] = {}
        self._pings_sent = 0
        self.pings_acknowledged = 0
        self.is_going_away = False
        """The control plane said GOAWAY: it takes no more calls, and finishes those it has."""
        self.failure: RpcError | None = None
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                Code.ENABLE_PUSH: 0,
                Code.INITIAL_WINDOW_SIZE: WINDOW_OCTETS,
                Code.MAX_HEADER_LIST_SIZE: HEADER_LIST_OCTETS_MAX,
            },
        )
        self._h2.decoder.max_header_list_size = HEADER_LIST_OCTETS_MAX
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_OCTETS - 65_535)

    # Calls ------------------------------------------------------------------------------------------------------

    def open(
        self, path: str, *, timeout_s: float | None, message_octets_max: int, on_change: Callable[[], object]
    ) -> Call:
        """Begin a call. Raises RpcError: UNAVAILABLE, or RESOURCE_EXHAUSTED with too many calls open."""
        if self.failure is not None:
            raise self.failure
        if self.is_going_away:
            raise RpcError(GRPC_UNAVAILABLE, "the control plane is closing this connection")
        if len(self._calls) >= min(CALLS_MAX, self._h2.remote_settings.max_concurrent_streams):
            raise RpcError(GRPC_RESOURCE_EXHAUSTED, "too many calls are open")
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, request_head(path, self._authority, timeout_s))
        call = Call(stream, message_octets_max, on_change)
        self._calls[stream] = call
        self._budgets.streams_opened += 1
        return call

    def cancel(self, call: Call) -> None:
        """Abandon the call if it has not ended."""
        self._end(call, RpcError(GRPC_CANCELLED, "the call was cancelled"))

    def next_message(self, call: Call) -> bytes | None:
        """The oldest message that waits, or None. Gives credit back when it was the last one."""
        if not call.inbox:
            return None
        message = call.inbox.popleft()
        if not call.inbox and call.held:
            held, call.held = call.held, 0
            self._give_back(call.stream, held)
        return message

    # Bytes out --------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Move at most `PUMP_OCTETS` of waiting messages into frames, as far as the peer's windows go."""
        budget = PUMP_OCTETS
        for call in list(self._calls.values()):
            while call.outbox and budget > 0:
                room = min(self._h2.local_flow_control_window(call.stream), self._h2.max_outbound_frame_size)
                size = min(room, budget, len(call.outbox))
                if size <= 0:
                    break
                self._h2.send_data(call.stream, bytes(call.outbox[:size]))
                self._budgets.data_frames_sent += 1
                del call.outbox[:size]
                budget -= size
            if call.is_closing and not call.outbox and not call.is_half_closed:
                self._h2.end_stream(call.stream)
                call.is_half_closed = True

    def take(self) -> bytes:
        """The bytes to send now. Whoever takes them bounds how many of them wait."""
        self._budgets.replies_sent()
        return self._h2.data_to_send()

    def ping(self) -> int:
        """Queue a PING. Returns what `pings_acknowledged` will at least be when its answer is here."""
        self._pings_sent += 1
        if self.failure is None:
            self._h2.ping(self._pings_sent.to_bytes(8))
        return self._pings_sent

    # Bytes in ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes from the socket. A peer that breaks HTTP/2 fails the connection (see `failure`)."""
        self._gate.push(data)
        try:
            while self.failure is None and (frame := self._gate.pop()) is not None:
                if frame.is_goaway:
                    self._go_away(frame)
                    continue
                for event in self._h2.receive_data(frame.octets):
                    self._handle(event)
        except (GateFault, PeerFlood, h2.exceptions.ProtocolError) as error:
            self.fail(RpcError(GRPC_UNAVAILABLE, f"the control plane broke HTTP/2: {error}"))

    def fail(self, error: RpcError) -> None:
        """The connection is lost: every call ends with `error`. The first failure is remembered."""
        if self.failure is None:
            self.failure = error
        for call in list(self._calls.values()):
            self._end(call, self.failure)

    @property
    def open_calls(self) -> int:
        return len(self._calls)

    # Events -----------------------------------------------------------------------------------------------------

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._data(event)
            case h2.events.ResponseReceived():
                self._head(event)
            case h2.events.TrailersReceived():
                if call := self._calls.get(event.stream_id or 0):
                    call.trailers = _fields(event.headers)
            case h2.events.StreamEnded():
                if call := self._calls.get(event.stream_id or 0):
                    self._stream_ended(call)
            case h2.events.StreamReset():
                if call := self._calls.get(event.stream_id or 0):
                    call.is_half_closed = call.is_remote_closed = True  # nothing of it is left to reset
                    self._end(call, reset_error(int(event.error_code or 0)))
            case h2.events.RemoteSettingsChanged():
                # h2 lets the peer grow our encoder's table without bound; a small one serves us.
                table = self._h2.remote_settings.header_table_size
                self._h2.encoder.header_table_size = min(table, ENCODER_TABLE_OCTETS_MAX)
            case h2.events.PingAckReceived():
                acknowledged = int.from_bytes(event.ping_data or b"")
                if acknowledged <= self._pings_sent:
                    self.pings_acknowledged = max(self.pings_acknowledged, acknowledged)
            case _:
                pass  # windows are asked for in pump; 1xx heads, PINGs and the rest concern nobody here

    def _head(self, event: h2.events.ResponseReceived) -> None:
        call = self._calls.get(event.stream_id or 0)
        if call is None:
            return
        call.head = _fields(event.headers)
        error = head_error(call.head)
        if error is not None:
            self._end(call, error)

    def _data(self, event: h2.events.DataReceived) -> None:
        stream, flow = event.stream_id or 0, event.flow_controlled_length or 0
        call = self._calls.get(stream)
        if call is None:
            self._give_back(stream, flow)
            return
        try:
            messages = call.assembler.receive(event.data or b"")
        except RpcError as error:
            self._give_back(stream, flow)
            self._end(call, error)
            return
        call.inbox.extend(messages)
        if call.inbox:
            call.held += flow
        else:
            self._give_back(stream, flow)
        if messages:
            call.on_change()

    def _stream_ended(self, call: Call) -> None:
        call.is_remote_closed = True
        # A trailers-only answer carries its status in the head.
        error = trailers_error(call.trailers if call.trailers is not None else call.head or ())
        if error is None and not call.assembler.is_between_messages:
            error = RpcError(GRPC_INTERNAL, "the answer ended within a message")
        self._end(call, error)

    def _go_away(self, goaway: Frame) -> None:
        self.is_going_away = True
        last_stream, _ = goaway.goaway
        refused = RpcError(GRPC_UNAVAILABLE, f"the control plane took no more calls {goaway.goaway_debug}".rstrip())
        for stream, call in list(self._calls.items()):
            if stream > last_stream:
                self._end(call, refused)

    def _end(self, call: Call, error: RpcError | None) -> None:
        """The one place where a call ends."""
        if call.is_finished:
            return
        call.is_finished = True
        call.error = error
        call.outbox.clear()
        del self._calls[call.stream]
        held, call.held = call.held, 0
        if self.failure is None:
            self._give_back(call.stream, held)
            if not (call.is_half_closed and call.is_remote_closed):
                self._reset(call.stream)
        call.on_change()

    def _reset(self, stream: int) -> None:
        try:
            self._h2.reset_stream(stream, ErrorCode.CANCEL)
        except h2.exceptions.StreamClosedError:
            pass  # both sides had ended it

    def _give_back(self, stream: int, flow: int) -> None:
        if flow and self.failure is None:
            self._h2.acknowledge_received_data(flow, stream)


def _fields(headers: Sequence[tuple[bytes | str, bytes | str]] | None) -> list[tuple[bytes, bytes]]:
    """h2's header tuples as plain bytes pairs."""
    return [(_octets(name), _octets(value)) for name, value in headers or ()]


def _octets(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
