"""`h2` as the reference engine wants it: frames, HPACK, stream states and windows, and no opinion on anything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import FlowControlError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy
from h2.utilities import is_informational_response
from hpack.exceptions import HPACKError
from hpack.struct import Header, HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import DataFrame, Frame, RstStreamFrame

from sidecar.config import Limits
from sidecar.http.frames import PREFACE
from sidecar.http.session import NO_SINK, ErrorCode, Fields, StreamSink

HPACK_TABLE_OCTETS_MAX = 4_096
SENSITIVE = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"})
"""Never put into a compression table (RFC 7541 section 7.1.3)."""

ENDED_BY_PEER = frozenset({StreamClosedBy.RECV_END_STREAM, StreamClosedBy.SEND_END_STREAM})
"""Both ends were said, in either order."""


class _Stream(H2Stream):
    def _initialize_content_length(self, headers: object) -> None:
        """Left to `headers.BodyLength`: a wrong length is the fault of one stream, not of the connection."""

    def receive_headers(
        self, headers: Iterable[Header], end_stream: bool, header_encoding: bool | str | None
    ) -> tuple[list[Frame], list[Event]]:
        """A 1xx head that crossed our reset is no fault, but `h2` has no row for it and would end the connection."""
        if self.closed and is_informational_response(headers):
            raise StreamClosedError(self.stream_id)
        return super().receive_headers(headers, end_stream, header_encoding)


class Connection(H2Connection):
    resets_elicited = 0
    """RST_STREAM frames that `h2` wrote by itself because of what it was given."""
    _is_late = False
    """The frame being received belongs to a stream that we have reset."""
    _is_receiving = False

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _Stream
        return stream

    def _receive_frame(self, frame: Frame) -> list[Event]:
        closed_by = self._stream_closed_by(frame.stream_id)
        # Faults of the connection (RFC 9113 sections 5.1 and 6.4) that `h2` lets pass or blames on the stream.
        if isinstance(frame, RstStreamFrame) and self._is_idle(frame.stream_id):
            raise ProtocolError(f"RST_STREAM for idle stream {frame.stream_id}")
        if isinstance(frame, DataFrame) and closed_by in ENDED_BY_PEER:
            raise StreamClosedError(frame.stream_id)
        self._is_late = closed_by is StreamClosedBy.SEND_RST_STREAM
        self._is_receiving = True
        try:
            return super()._receive_frame(frame)
        finally:
            self._is_receiving = self._is_late = False

    def _is_idle(self, stream_id: int) -> bool:
        is_ours = self._stream_id_is_outbound(stream_id)
        return stream_id > (self.highest_outbound_stream_id if is_ours else self.highest_inbound_stream_id)

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        """What crossed our reset is no fault (RFC 9113 section 5.1), but `h2` would reset the stream once more for
        each such frame."""
        if self._is_receiving:
            if self._is_late:
                frames = [frame for frame in frames if not isinstance(frame, RstStreamFrame)]
            self.resets_elicited += sum(isinstance(frame, RstStreamFrame) for frame in frames)
        super()._prepare_for_sending(frames)

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """The goodbye is written by `ReferenceSession._fail`, which knows the right code and ends the streams."""


class OpenStream:
    """What the engine remembers of a stream that has not ended in both directions."""

    __slots__ = ("is_answered", "opened_at", "received_end", "reset_early", "sent_end", "sink", "tiny", "waiting")

    def __init__(self, sink: StreamSink | None, opened_at: float) -> None:
        self.sink: StreamSink = sink or NO_SINK
        self.opened_at = opened_at
        """Monotonic seconds."""
        self.is_answered = False
        """Servers: the final response head was sent."""
        self.waiting = 0
        """Octets of credit that the sink has not given back."""
        self.tiny = 0
        """Tiny DATA frames among them (row A16)."""
        self.received_end = False
        self.sent_end = False
        self.reset_early: int | None = None
        """Code with which the session was shut down by the very handler that had yet to return its sink."""


_ROWS: dict[type[ProtocolError], str] = {FlowControlError: "A19", StreamIDTooLowError: "A29"}


def make_connection(limits: Limits, *, is_client: bool) -> Connection:
    """A connection whose first SETTINGS wait in `data_to_send`. A server's has been given the client's preface."""
    conn = Connection(
        H2Configuration(
            client_side=is_client,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    conn.local_settings = Settings(
        client=is_client,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_octets,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list_octets_max,
            SettingCodes.HEADER_TABLE_SIZE: HPACK_TABLE_OCTETS_MAX,
        },
    )
    # Beyond four times the limit the block is not even decoded; up to there one stream is answered 431 (row A26).
    conn.decoder.max_header_list_size = 4 * limits.header_list_octets_max
    conn.initiate_connection()
    if not is_client:
        conn.receive_data(PREFACE)
    return conn


def fault_of(error: ProtocolError) -> tuple[int, str]:
    """What GOAWAY says of it, and the row of the catalogue of bad inputs where one is known."""
    if isinstance(error.__cause__, HPACKError):
        is_oversized = int(error.error_code) == ErrorCode.ENHANCE_YOUR_CALM
        return (ErrorCode.ENHANCE_YOUR_CALM, "A26") if is_oversized else (ErrorCode.COMPRESSION_ERROR, "A24")
    row = next((row for kind, row in _ROWS.items() if isinstance(error, kind)), "")
    return int(error.error_code), row


def cap_encoder(conn: H2Connection) -> None:
    """The peer may not grow our encoder's table (row A25), and is told the smallest size and the last (RFC 7541 section
    4.2).

    hpack by itself announces every size it was ever set to, also those that the peer does not allow any more, and
    forgets to announce any when it is set to the same size twice: in both cases the peer could not read on."""
    encoder = conn.encoder
    if encoder.header_table_size > HPACK_TABLE_OCTETS_MAX:
        encoder.header_table_size = HPACK_TABLE_OCTETS_MAX
    if encoder.table_size_changes:
        last = encoder.header_table_size
        smallest = min(*encoder.table_size_changes, last)
        encoder.table_size_changes = [last] if smallest == last else [smallest, last]
        encoder.header_table.resized = True


def header_tuples(fields: Fields) -> list[Header]:
    return [
        NeverIndexedHeaderTuple(name, value) if name in SENSITIVE else HeaderTuple(name, value)
        for name, value in fields
    ]


def received_fields(headers: object) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in cast("list[tuple[bytes, bytes]]", headers)]
