"""What a peer can do wrong, by how much of the connection it costs (RFC 9113 section 5.4)."""

from __future__ import annotations


class ConnectionFault(Exception):
    """The connection ends: GOAWAY with `code`. `row` of the catalogue of bad inputs, when one applies."""

    def __init__(self, code: int, detail: str, row: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.row = row


class StreamFault(Exception):
    """One stream ends: RST_STREAM with `code`. Nobody else notices."""

    def __init__(self, stream: int, code: int) -> None:
        super().__init__(f"stream {stream}: HTTP/2 error {code}")
        self.stream = stream
        self.code = code
