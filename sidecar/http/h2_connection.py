"""`h2` as the reference engine wants it: frames, HPACK, stream states and windows, and no opinion on anything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from h2.utilities import is_informational_response
from hpack.struct import Header, HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import Frame

from sidecar.config import Limits
from sidecar.http.gate import PREFACE
from sidecar.http.session import Fields, StreamSink

HPACK_TABLE_OCTETS_MAX = 4_096
SENSITIVE = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"})
"""Never put into a compression table (RFC 7541 section 7.1.3)."""


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


class _Connection(H2Connection):
    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = _Stream
        return stream

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """The goodbye is written by `ReferenceSession._fail`, which knows the right code and ends the streams."""


class OpenStream:
    """What the engine remembers of a stream that has not ended in both directions."""

    __slots__ = ("received_end", "reset_early", "sent_end", "sink")

    def __init__(self, sink: StreamSink | None) -> None:
        self.sink: StreamSink = sink or NO_SINK
        self.received_end = False
        self.sent_end = False
        self.reset_early: int | None = None
        """Code with which the session was shut down by the very handler that had yet to return its sink."""


class _NoSink:
    """Stands in while the handler decides; a session calls nothing on a stream before its handler returned."""

    def informational(self, fields: Fields) -> None: ...
    def head(self, fields: Fields, end: bool) -> None: ...
    def data(self, data: bytes, flow: int, end: bool) -> None: ...
    def trailers(self, fields: Fields) -> None: ...
    def reset(self, code: int, unprocessed: bool) -> None: ...
    def writable(self) -> None: ...


NO_SINK = _NoSink()


def make_connection(limits: Limits, *, is_client: bool) -> H2Connection:
    """A connection whose first SETTINGS wait in `data_to_send`. A server's has been given the client's preface."""
    conn = _Connection(
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


def cap_encoder(conn: H2Connection) -> None:
    """The peer may not grow our encoder's table (row A25).

    Setting the size it has would make hpack forget to announce a smaller one, and the peer could not read on."""
    if conn.encoder.header_table_size > HPACK_TABLE_OCTETS_MAX:
        conn.encoder.header_table_size = HPACK_TABLE_OCTETS_MAX


def header_tuples(fields: Fields) -> list[Header]:
    return [
        NeverIndexedHeaderTuple(name, value) if name in SENSITIVE else HeaderTuple(name, value)
        for name, value in fields
    ]


def received_fields(headers: object) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in cast("list[tuple[bytes, bytes]]", headers)]
