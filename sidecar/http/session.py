"""The interface between an HTTP protocol engine and the rest of the sidecar: calls in, bytes out; bytes in, calls out.

Theory of operation
-------------------
A `Session` is one connection's protocol state machine, HTTP/1.1 or HTTP/2, in the role of server or client. It does
no I/O; the clock it is given only ages budgets and never makes anything happen by itself. Whoever owns the socket
(`sidecar.net.connection`) feeds it what was received and sends what it has to say. Whoever owns the requests
(`sidecar.exchange`) is told what happened on each stream through a `StreamSink` and speaks through the session's
methods. HTTP/1.1 is a session with one stream open at a time, so nothing above this interface knows which version it
talks to.

Heads travel as `Fields`: a list of (name, value) byte pairs, lower-case names, pseudo-header fields first, in the shape
of RFC 9113 section 8.3. An HTTP/1.1 session translates to and from that shape: the request target and Host become
`:method`, `:scheme`, `:authority`, `:path` (and no `host`); the status line becomes `:status`. Framing fields that
belong to one connection (`transfer-encoding`, `connection`, ...) never pass this interface, in either
direction; `content-length` does.

Flow control. `data(..., flow=n)` hands the sink n octets of credit with the bytes. The sink must give them back with
`consumed(stream, n)` when the *other side* took them, not before: that is what makes a slow reader slow its sender.
An HTTP/1.1 session has no windows; it stops wanting to read (`wants_read`) while more than its bound is not consumed.
To write, ask `credit(stream)`, send at most that much, keep the rest and call `want_write(stream)` to be told once,
through `StreamSink.writable()`, when there is credit again. Credit counts the peer's windows *and* what the socket has
not taken yet, so the bytes queued in one session are bounded whatever the peer does.

What every engine must do (the contract suite in tests/contract/ runs on each):

1. `receive` never raises for a peer's fault. A fault of one stream resets that stream; a fault of the connection queues
   the protocol's goodbye, ends every open stream through its sink, and sets `closed`.
2. Every stream ends exactly once for its sink: `data(end=True)`, `head(end=True)`, `trailers()` or `reset()`.
   Only `reset()` may follow an orderly end, while our own half of the stream is open: the peer wants no more of it.
   After the sink's stream was reset by us with `reset(stream, code)` its sink hears nothing more.
3. Calls for a stream that is already gone are ignored (the peer may have reset it in the same slice), except
   `consumed`: whoever was handed `flow` octets gives every one back, also those it throws away after the stream's end,
   because the connection's window is shared.
4. Nothing is sent that is not valid HTTP: CR, LF or NUL in a field raises `ValueError` before a byte is queued.
5. A sink may call back into any session, this one included, from inside a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from sidecar.errors import RequestError

Field: TypeAlias = tuple[bytes, bytes]
Fields: TypeAlias = list[Field]

HEADS_OCTETS_MAX = 524_288
"""Beyond the output limit, heads that wait for an HTTP/2 peer to read: no stream is opened while there are more. One
caller's would else fill what the connection may hold at all, which then ends for every caller (row A14)."""


class ErrorCode:
    """HTTP/2 error codes (RFC 9113 section 7); HTTP/1.1 sessions translate them to closing the connection."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class StreamSink(Protocol):
    """One end of an exchange: where the events of one stream go."""

    def informational(self, fields: Fields) -> None:
        """A 1xx response head (clients only; never 101)."""

    def head(self, fields: Fields, end: bool) -> None:
        """The final response head (clients only; a server's request head goes to `ServerHandler.request`)."""

    def data(self, data: bytes, flow: int, end: bool) -> None:
        """Body bytes. `flow` octets of credit come with them (padding counted), to be returned by `consumed`."""

    def trailers(self, fields: Fields) -> None:
        """The trailer section; the stream's receiving half is over."""

    def reset(self, code: int, unprocessed: bool) -> None:
        """The stream ended abnormally: peer's reset, or the connection failed.

        `unprocessed` is True only if the peer certainly never acted on the request (REFUSED_STREAM, or above the last
        stream of a GOAWAY: RFC 9113 section 8.7), so that it may be sent again whatever its method."""

    def writable(self) -> None:
        """`credit(stream)` is positive again, after `want_write(stream)`."""


class _NoSink:
    """Stands in while the handler decides; a session calls nothing on a stream before its handler returned."""

    def informational(self, fields: Fields) -> None: ...
    def head(self, fields: Fields, end: bool) -> None: ...
    def data(self, data: bytes, flow: int, end: bool) -> None: ...
    def trailers(self, fields: Fields) -> None: ...
    def reset(self, code: int, unprocessed: bool) -> None: ...
    def writable(self) -> None: ...


NO_SINK = _NoSink()


class ServerHandler(Protocol):
    """Who answers the requests of a server session."""

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> StreamSink:
        """A request head arrived. Called once per stream; returns where the rest of the stream goes."""


class Session(Protocol):
    """One connection's protocol state. See the module's docstring for the contract."""

    closed: bool
    """Nothing will be sent or accepted any more: flush what is queued, then close the socket."""
    wants_read: bool
    """False: hold back reading from the socket until `resume_reading` is called."""
    resume_reading: Callable[[], None]
    """Set by the socket's owner; called when `wants_read` turns True again."""
    slice_frames: int
    """Set by the socket's owner: run no more than so many frames in one `receive` (row A39); 0: all there are.
    HTTP/1.1 runs one message at a time anyway."""
    has_more: bool
    """Not all that was received was run: call `receive(b"")` when others had their turn, and read nothing before."""
    fault: RequestError | None
    """What the peer did wrong, if that is why the connection ends; its `row` and `reason` are for metrics."""

    @property
    def awaits_pong(self) -> bool:
        """A `ping` has not been answered yet. HTTP/1.1: never."""

    def ping(self) -> None:
        """Ask whether the peer is still there (RFC 9113 section 6.7). HTTP/1.1 cannot ask, and does nothing."""

    @property
    def awaits_rest(self) -> bool:
        """The beginning of a message or frame has arrived and its rest has not (row I01: not for long)."""

    def receive(self, data: bytes) -> None:
        """Bytes arrived. Runs every complete frame or message through, synchronously."""

    def eof(self) -> None:
        """The peer will send nothing more, or the connection is lost: end every stream that cannot finish."""

    def take(self) -> bytes:
        """The bytes to send now; empty when there are none. They are the caller's from here on."""

    def sent(self, unsent: int) -> None:
        """The socket took bytes; `unsent` octets that `take` gave out still wait. Wakes writers when there is room."""

    @property
    def can_open(self) -> bool:
        """Clients: may `request` be called now? (the peer's stream limit, GOAWAY, our own drain, HEADS_OCTETS_MAX)"""

    @property
    def open_streams(self) -> int:
        """Streams that have not ended in both directions."""

    @property
    def draining(self) -> bool:
        """No new streams will be opened or accepted: GOAWAY came or went, `Connection: close`, or `drain` called."""

    def request(self, fields: Fields, end: bool, sink: StreamSink) -> int:
        """Clients: open a stream. Returns its id. Requires `can_open`."""

    def informational(self, stream: int, fields: Fields) -> None:
        """Servers: send a 1xx head."""

    def head(self, stream: int, fields: Fields, end: bool) -> None:
        """Servers: send the final response head."""

    def data(self, stream: int, data: bytes, end: bool) -> None:
        """Send body bytes, at most `credit(stream)` of them (an empty `data` with `end` needs no credit)."""

    def trailers(self, stream: int, fields: Fields) -> None:
        """Send the trailer section and end our half."""

    def reset(self, stream: int, code: int) -> None:
        """Abandon the stream in both directions; its sink hears nothing more."""

    def credit(self, stream: int) -> int:
        """Octets of body that may be sent now; 0 if blocked or gone."""

    def want_write(self, stream: int) -> None:
        """Call the sink's `writable` once, when `credit(stream)` is positive."""

    def consumed(self, stream: int, flow: int) -> None:
        """Give `flow` octets of receive credit back: the other side took the bytes."""

    def drain(self) -> None:
        """Take no new streams, let the open ones finish, then become `closed`. Servers tell the peer (GOAWAY)."""

    def shutdown(self, code: int) -> None:
        """Say goodbye now: end every stream through its sink and become `closed`."""
