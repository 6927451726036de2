"""HTTP/1.1 heads as they are sent: the shape of RFC 9113 section 8.3 to bytes."""

from __future__ import annotations

from http import HTTPStatus

from sidecar.errors import RequestError
from sidecar.http.session import Field, Fields

# Whatever is handed to us, these are said by the session or not at all.
_NEVER_SENT = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade http2-settings".split())

_NOT_REGULAR = _NEVER_SENT | {b":method", b":scheme", b":authority", b":path", b":status"}

_STATUS_LINES = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus}


def join_fields(fields: Fields) -> bytes:
    """Field lines, each with its CRLF. Raises ValueError for a CR, LF or NUL in any of them (row B12)."""
    if not fields:
        return b""
    lines = b"\r\n".join(map(b": ".join, fields)) + b"\r\n"
    count = len(fields)
    if lines.count(b"\r") != count or lines.count(b"\n") != count or lines.count(b"\r\n") != count or b"\0" in lines:
        raise ValueError("CR, LF or NUL in a field to be sent")
    return lines


def write_request(fields: Fields, framing: Field | None) -> bytes:
    """A request head to be sent. `framing`: the field to be added that says how the body is delimited, if any.

    Raises ValueError for what would not be one well-formed head (row B12)."""
    named = dict(fields)
    try:
        method, authority, target = named[b":method"], named[b":authority"], named[b":path"]
    except KeyError:
        raise ValueError("pseudo-header fields are missing") from None
    line = b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (method, target, authority)
    if line.count(b" ") != 3 or line.count(b"\r") != 2 or line.count(b"\n") != 2 or b"\0" in line:
        raise ValueError("white space, CR, LF or NUL in the request line")
    regular = _regular(fields)
    if b"te" in named:  # RFC 9110 section 10.1.4
        regular.append((b"connection", b"te"))
    if framing is not None:
        regular.append(framing)
    return b"%s%s\r\n" % (line, join_fields(regular))


def response_lines(fields: Fields) -> bytes:
    """Status line and field lines, without the empty line that ends a head. Raises ValueError (row B12)."""
    status = int(fields[0][1])
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return line + join_fields(_regular(fields))


def write_response(fields: Fields, extra: Fields) -> bytes:
    """A response head to be sent; `extra` holds the fields of the connection. Raises ValueError (row B12)."""
    return b"%s%s\r\n" % (response_lines(fields), join_fields(extra))


def _regular(fields: Fields) -> Fields:
    return [field for field in fields if field[0] not in _NOT_REGULAR]


def error_answer(error: RequestError) -> bytes:
    """A whole response that says what is wrong and repeats nothing of what was sent (row I16)."""
    status = error.http_status
    body = error.title.encode("ascii") + b"\n"
    return b"%scontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        _STATUS_LINES[status],
        len(body),
        body,
    )
