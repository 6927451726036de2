"""HTTP/1.1 heads as they are sent: the shape of RFC 9113 section 8.3 to bytes."""

from __future__ import annotations

from http import HTTPStatus

from sidecar.errors import RequestError
from sidecar.http.fields import check_outgoing
from sidecar.http.session import Field, Fields

# Whatever is handed to us, these are said by the session or not at all.
_NEVER_SENT = frozenset(b"connection keep-alive proxy-connection transfer-encoding upgrade http2-settings".split())

_STATUS_LINES = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus}


def join_fields(fields: Fields) -> bytes:
    return b"".join([b"%s: %s\r\n" % field for field in fields])


def write_request(fields: Fields, framing: Field | None) -> bytes:
    """A request head to be sent. `framing`: the field to be added that says how the body is delimited, if any.

    Raises ValueError for what would not be one well-formed head (row B12)."""
    check_outgoing(fields)
    pseudo = dict(fields[:4])
    try:
        method, authority, target = pseudo[b":method"], pseudo[b":authority"], pseudo[b":path"]
    except KeyError:
        raise ValueError("pseudo-header fields are missing") from None
    if b" " in method or b" " in target or b" " in authority:
        raise ValueError("space in the request line")
    regular = _regular(fields)
    if any(name == b"te" for name, _ in regular):  # RFC 9110 section 10.1.4
        regular.append((b"connection", b"te"))
    if framing is not None:
        regular.append(framing)
    return b"%s %s HTTP/1.1\r\nhost: %s\r\n%s\r\n" % (method, target, authority, join_fields(regular))


def write_response(fields: Fields, extra: Fields) -> bytes:
    """A response head to be sent; `extra` holds the fields of the connection. Raises ValueError (row B12)."""
    check_outgoing(fields)
    status = int(fields[0][1])
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"%s%s\r\n" % (line, join_fields(_regular(fields) + extra))


def _regular(fields: Fields) -> Fields:
    return [field for field in fields if field[0] not in _NEVER_SENT and field[0][:1] != b":"]


def error_answer(error: RequestError) -> bytes:
    """A whole response that says what is wrong and repeats nothing of what was sent (row I16)."""
    status = error.http_status
    body = error.title.encode("ascii") + b"\n"
    return b"%scontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        _STATUS_LINES[status],
        len(body),
        body,
    )
