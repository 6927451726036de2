"""gRPC, server side, sans-IO: streams of an HTTP/2 session become calls, and what is answered becomes frames.

Theory of operation
-------------------
Every method here takes exactly one message and answers with one or with a stream of them. So a `Call` has three phases:

    asking      its message is not complete; it is dropped when that takes too long (`Calls.sweep`)
    answering   the method has it; it sends messages and finishes, now or later
    over        the status is sent, the caller gave up, or the connection is gone

At most two messages wait for a slow caller: the one of which a part was sent, and the newest. A message that is
overtaken while it waits is dropped, for each one says everything (SPIFFE Workload API section 4.3). A caller that takes
nothing for `STALLED_MAX_S` loses its call.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.control.errors import RpcError
from sidecar.control.wire import MessageAssembler, decode_timeout, encode_text
from sidecar.errors import (
    GRPC_DEADLINE_EXCEEDED,
    GRPC_INTERNAL,
    GRPC_INVALID_ARGUMENT,
    GRPC_UNIMPLEMENTED,
)
from sidecar.http.session import ErrorCode, Fields, Session

MESSAGE_OCTETS_MAX = 32_768
"""Of a request; the largest that makes sense holds a token of 8 KiB or sixteen audiences."""
STALLED_MAX_S = 30.0
SECURITY_HEADER = b"workload.spiffe.io"
"""Must be there, once, and say `true` (SPIFFE Workload Endpoint section 3): row G29."""
GRPC_OK = 0

_CONTENT_TYPES = (b"application/grpc", b"application/grpc+proto")
_HEAD: Fields = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The process at the other end, as the kernel knows it (SO_PEERCRED, unix(7)); for the log."""

    pid: int
    uid: int
    gid: int
    known_for: set[str] = field(default_factory=set, repr=False, compare=False)
    """Methods it has called before, which are not logged again."""


Answer = Callable[["Call", bytes], None]
"""A method: is given the call and its message, and answers now or later. Raises RpcError."""


class Call:
    """One stream: a `StreamSink`, and what a method answers through."""

    def __init__(self, calls: Calls, session: Session, stream: int, caller: Caller, now: float) -> None:
        self.caller = caller
        self.method = ""
        """Its name without the service; empty until it is known to exist."""
        self.abandoned: Callable[[], object] = lambda: None
        """Called once when the call is over, whoever ended it."""
        self.is_over = False
        self._calls = calls
        self._session = session
        self._stream = stream
        self._answer: Answer | None = None
        self._assembler = MessageAssembler(MESSAGE_OCTETS_MAX)
        self._messages: list[bytes] = []
        self._asked_at: float | None = None
        self._opened_at = self._moved_at = now
        self._deadline: float | None = None
        self._has_ended_asking = False
        self._has_headed = False
        self._current = b""
        """What is left of a message of which a part may have been sent."""
        self._newest: bytes | None = None
        self._status: tuple[int, str] | None = None

    def __repr__(self) -> str:
        phase = "over" if self.is_over else "asking" if self._asked_at is None else "answering"
        return f"<Call {self.method or '?'} of pid {self.caller.pid} {phase}>"

    # For methods

    def send(self, framed: bytes) -> None:
        """Answer with a message (`frame_message`); one that waits meanwhile is overtaken."""
        if self.is_over or self._status is not None:
            return
        if self._current:
            self._newest = framed
        else:
            self._current = framed
            self._moved_at = self._calls.clock()
        self._pump()

    def finish(self, error: RpcError | None = None) -> None:
        """No more answers: OK, or what went wrong. What is being sent is sent to its end before."""
        if self.is_over or self._status is not None:
            return
        self._newest = None if error is not None else self._newest
        self._status = (GRPC_OK, "") if error is None else (error.status, error.message)
        self._pump()

    def answer(self, framed: bytes) -> None:
        """The one answer of a method that has only one."""
        self.send(framed)
        self.finish()

    # What the session says

    def informational(self, fields: Fields) -> None:
        """Servers get none."""

    def head(self, fields: Fields, end: bool) -> None:
        """Servers get none."""

    def data(self, data: bytes, flow: int, end: bool) -> None:
        self._session.consumed(self._stream, flow)
        if self.is_over or self._status is not None:
            self._has_ended_asking |= end
            return
        try:
            self._messages += self._assembler.receive(data)
            if len(self._messages) > 1:
                raise RpcError(GRPC_INTERNAL, "more than one message came")
            if end:
                self._asked()
        except RpcError as error:
            self._has_ended_asking |= end
            self.finish(error)

    def trailers(self, fields: Fields) -> None:
        if not (self.is_over or self._status is not None):
            self.data(b"", 0, True)

    def reset(self, code: int, unprocessed: bool) -> None:
        self._over()

    def writable(self) -> None:
        self._pump()

    # Within

    def begin(self, fields: Fields, end: bool, find: Callable[[str], Answer | None]) -> None:
        """The head. What is wrong with it is answered at once, before any message is looked at."""
        try:
            path = self._judge(fields)
            answer = find(path)
            if answer is None:
                raise RpcError(GRPC_UNIMPLEMENTED, "there is no such method")
            self.method = path.rpartition("/")[2]
            self._answer = answer
            if end:
                raise RpcError(GRPC_INTERNAL, "the call came without a message")
        except _NotGrpc as error:
            self._refuse(error.http_status, end)
        except RpcError as error:
            self._has_ended_asking = end
            self.finish(error)

    def _judge(self, fields: Fields) -> str:
        """The path. Raises _NotGrpc, RpcError."""
        found: dict[bytes, bytes] = {}
        headers = []
        for name, value in fields:
            if name == SECURITY_HEADER:
                headers.append(value)
            found[name] = value
        if found.get(b":method") != b"POST":
            raise _NotGrpc(405)
        if found.get(b"content-type", b"").partition(b";")[0].strip() not in _CONTENT_TYPES:
            raise _NotGrpc(415)
        if headers != [b"true"]:
            self._calls.on_refused(self.caller)
            raise RpcError(GRPC_INVALID_ARGUMENT, "security header missing from request")
        if found.get(b"grpc-encoding", b"identity") != b"identity":
            raise RpcError(GRPC_UNIMPLEMENTED, "messages are taken uncompressed only")
        if (timeout := found.get(b"grpc-timeout")) is not None:
            try:
                self._deadline = self._opened_at + decode_timeout(timeout)
            except ValueError as error:
                raise RpcError(GRPC_INVALID_ARGUMENT, str(error)) from None
        return found.get(b":path", b"").decode("ascii", "replace")

    def _refuse(self, http_status: int, end: bool) -> None:
        """What is no gRPC cannot be answered in it."""
        self._session.head(self._stream, [(b":status", b"%d" % http_status)], True)
        if not end:
            self._session.reset(self._stream, ErrorCode.NO_ERROR)
        self._over()

    def _asked(self) -> None:
        """The message is complete. Raises RpcError."""
        self._has_ended_asking = True
        if not self._messages or not self._assembler.is_between_messages:
            raise RpcError(GRPC_INTERNAL, "the call ended before its message did")
        self._asked_at = self._calls.clock()
        message = self._messages.pop()
        assert self._answer is not None
        self._answer(self, message)

    def _pump(self) -> None:
        """Send what may be sent."""
        session, stream = self._session, self._stream
        if self._current and not self._has_headed:
            self._has_headed = True
            session.head(stream, _HEAD, False)
        while self._current and not self.is_over:
            credit = session.credit(stream)
            if credit <= 0:
                session.want_write(stream)
                break
            piece, self._current = self._current[:credit], self._current[credit:]
            self._moved_at = self._calls.clock()
            session.data(stream, piece, False)
            if not self._current and self._newest is not None:
                self._current, self._newest = self._newest, None
        if not self._current and self._status is not None and not self.is_over:
            self._end(*self._status)
        self._calls.touch(session)

    def _end(self, status: int, text: str) -> None:
        fields = [(b"grpc-status", b"%d" % status)]
        if text:
            fields.append((b"grpc-message", encode_text(text)))
        if self._has_headed:
            self._session.trailers(self._stream, fields)
        else:
            self._session.head(self._stream, [*_HEAD, *fields], True)
        if not self._has_ended_asking:  # RFC 9113 section 8.1: the rest of the request is of no use
            self._session.reset(self._stream, ErrorCode.NO_ERROR)
        self._over()

    def _over(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._current, self._newest = b"", None
            self._calls.open.discard(self)
            self.abandoned()

    def sweep(self, now: float, asking_max_s: float) -> None:
        """End it if it is overdue at `now` (monotonic)."""
        if self._deadline is not None and now >= self._deadline:
            self.finish(RpcError(GRPC_DEADLINE_EXCEEDED, "the call's own time is over"))
        elif self._asked_at is None and now - self._opened_at > asking_max_s:
            self.finish(RpcError(GRPC_DEADLINE_EXCEEDED, "the call's message did not come"))
        if self._current and now - self._moved_at > STALLED_MAX_S:
            self._session.reset(self._stream, ErrorCode.CANCEL)
            self._calls.touch(self._session)
            self._over()


class Calls:
    """All open calls of the endpoint, whatever their connections."""

    def __init__(
        self,
        find: Callable[[str], Answer | None],
        clock: Callable[[], float],
        touch: Callable[[Session], object],
        on_refused: Callable[[Caller], object],
    ) -> None:
        """`find`: the method of a path. `clock`: monotonic seconds. `touch`: the session has something to say.
        `on_refused`: somebody asked without the security header."""
        self.open: set[Call] = set()
        self.clock = clock
        self.touch = touch
        self.on_refused = on_refused
        self._find = find

    def __repr__(self) -> str:
        return f"<Calls {len(self.open)} open>"

    def handler(self, caller: Caller) -> Handler:
        """Of one connection."""
        return Handler(self, caller)

    def begin(self, session: Session, stream: int, fields: Fields, end: bool, caller: Caller) -> Call:
        call = Call(self, session, stream, caller, self.clock())
        self.open.add(call)
        call.begin(fields, end, self._find)
        return call

    def sweep(self, asking_max_s: float) -> None:
        """End what is overdue. `asking_max_s`: how long a call's message may take."""
        now = self.clock()
        for call in list(self.open):
            call.sweep(now, asking_max_s)


class Handler:
    """`ServerHandler` of one connection."""

    def __init__(self, calls: Calls, caller: Caller) -> None:
        self._calls = calls
        self._caller = caller

    def request(self, session: Session, stream: int, fields: Fields, end: bool) -> Call:
        return self._calls.begin(session, stream, fields, end, self._caller)


class _NotGrpc(Exception):
    def __init__(self, http_status: int) -> None:
        super().__init__(http_status)
        self.http_status = http_status
