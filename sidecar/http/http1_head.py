"""HTTP/1.1 heads as they are received: bytes to the shape of RFC 9113 section 8.3.

Theory of operation
-------------------
Request smuggling is two parsers that disagree about one head, so a head is looked at twice before it is believed.
One anchored regular expression over the raw bytes says that it has no line but what RFC 9112 allows: CRLF and nothing
else ends a line, no folded lines, no white space before a colon, no controls, version 1.0 or 1.1. Each character of
it can match in one way only, so it cannot backtrack. What passes is read by httptools (llhttp), and the two must
agree on target and number of fields. Only when either refuses is the head gone through line by line, to name the row
of the catalogue of bad inputs that was broken.

What frames the body is decided here and nowhere else (`_framing`), and whatever belongs to one connection is removed
(`_take_hop_by_hop`). Whether the request is one that may cross is not asked here: that is `headers.admit_request`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httptools

from sidecar.config import Limits
from sidecar.errors import BadRequest, HeadersTooLarge, MethodNotAllowed, RequestError, UpstreamFailed
from sidecar.http.fields import Fault, content_length, is_identity
from sidecar.http.session import Fields

REQUEST_LINE_OCTETS_MAX = 16_384

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
"""A body's framing is its length in octets, or one of these two."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD_LINES = rb"((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*)"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])\r\n" + _FIELD_LINES)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n" + _FIELD_LINES)
_FIELDS = re.compile(_FIELD_LINES)
_OTHER_VERSION = re.compile(rb"[^\r\n]* HTTP/[0-9]+(?:\.[0-9]+)?")
_NAME_THEN_SPACE = re.compile(_TOKEN + rb"[ \t]+:")
_METHOD = re.compile(_TOKEN)

# Removed from every head, after they were acted upon.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection transfer-encoding upgrade http2-settings te content-length".split()
)
_REQUEST_TAKEN = _HOP_BY_HOP | {b"host", b"expect"}
# `Connection` may take fields away that are about this connection, never what others rely on (row B41).
_CONNECTION_OPTIONS = frozenset({b"", b"close", b"keep-alive", b"te", b"upgrade", b"http2-settings"})
_NOT_NOMINATED = frozenset(
    b"authorization cache-control content-encoding content-length content-range content-type cookie expect forwarded"
    b" host range set-cookie traceparent tracestate via".split()
)


class UriTooLong(BadRequest):
    http_status, reason, title = 414, "uri_too_long", "The request line is too long."


class CodingNotImplemented(BadRequest):
    http_status, reason, title = 501, "not_implemented", "This transfer coding is not implemented."


class VersionNotSupported(BadRequest):
    http_status, reason, title = 505, "version", "This HTTP version is not spoken here."


@dataclass(slots=True, kw_only=True)
class Request1:
    """A request head as HTTP/1.1 had it. Treat as frozen."""

    fields: Fields
    """Pseudo-header fields first; nothing in it belongs to the connection."""
    method: bytes
    framing: int
    """Length in octets, or CHUNKED."""
    is_http10: bool
    keep_alive: bool
    expects_continue: bool


@dataclass(slots=True, kw_only=True)
class Response1:
    """A response head as HTTP/1.1 had it. Treat as frozen."""

    fields: Fields
    status: int
    framing: int
    """Length in octets, CHUNKED or UNTIL_CLOSE."""
    keep_alive: bool


class _Collector:
    """What httptools reads out of one head."""

    __slots__ = ("fields", "url")

    def __init__(self) -> None:
        self.fields: Fields = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))


# Requests


def parse_request(block: bytes, limits: Limits) -> Request1:
    """Read a request head: request line and field lines, each with its CRLF, without the empty line that ends it.

    Raises BadRequest, UriTooLong, HeadersTooLarge, CodingNotImplemented, VersionNotSupported or MethodNotAllowed
    (CONNECT). All of them end the connection: where the message ends is no longer certain."""
    match = _REQUEST.fullmatch(block)
    if match is None:
        raise _request_line_fault(block)
    method, target, minor, lines = match.groups()
    if len(method) + len(target) > REQUEST_LINE_OCTETS_MAX:
        raise UriTooLong("request line", row="B39")
    if method == b"CONNECT":
        raise MethodNotAllowed("CONNECT is not configured", row="B34")
    _check_target(target)
    _check_size(lines, limits, HeadersTooLarge)
    fields = _read_request(block, method, target, lines)
    is_http10 = minor == b"0"
    kept, taken = _take_hop_by_hop(fields, _REQUEST_TAKEN, BadRequest)
    options = _connection_options(taken)
    framing = _framing(taken, is_http10=is_http10, fault=BadRequest)
    authority, path = _target(method, target, taken, is_http10=is_http10)
    kept = _without_nominated(kept, options, BadRequest)
    expects = () if is_http10 else taken.get(b"expect", ())  # RFC 9110 section 10.1.1: HTTP/1.0 cannot expect
    out: Fields = [(b":method", method), (b":scheme", b"http"), (b":path", path), *kept]
    if authority is not None:
        out.insert(2, (b":authority", authority))
    if b"content-length" in taken:
        out.append((b"content-length", b"%d" % framing))
    if b"te" in taken and _asks_for_trailers(taken[b"te"]):
        out.append((b"te", b"trailers"))
    if expects:
        out += [(b"expect", value) for value in expects]
    return Request1(
        fields=out,
        method=method,
        framing=0 if framing == UNTIL_CLOSE else framing,  # RFC 9112 section 6.3: a request without framing is empty
        is_http10=is_http10,
        keep_alive=b"close" not in options and (not is_http10 or b"keep-alive" in options),
        expects_continue=bool(expects) and any(value.lower() == b"100-continue" for value in expects),
    )


def _asks_for_trailers(values: list[bytes]) -> bool:
    return any(coding.strip(b" \t").lower() == b"trailers" for te in values for coding in te.split(b","))


def _read_request(block: bytes, method: bytes, target: bytes, lines: bytes) -> Fields:
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(block + b"\r\n")
        agreed = parser.get_method() == method and collector.url == target
    except httptools.HttpParserUpgrade:
        agreed = collector.url == target
    except httptools.HttpParserInvalidMethodError:
        # A method llhttp has no number for; the token was checked above.
        return _read_request(b"GET" + block[len(method) :], b"GET", target, lines)
    except httptools.HttpParserError:
        collapsed = _explain_fields(lines, BadRequest)
        return _read_request(block[: len(block) - len(lines)] + collapsed, method, target, collapsed)
    if not agreed or len(collector.fields) != lines.count(b"\r\n"):
        raise BadRequest("two readings of the head differ")
    return collector.fields


def _check_target(target: bytes) -> None:
    """Only the forms we know (RFC 9112 section 3.2), so that httptools is not the one to say what is wrong."""
    if target[:1] != b"/" and target != b"*" and target[:7] != b"http://":
        raise BadRequest("request target is in no form we know", row="B03")
    if b"#" in target:
        raise BadRequest("fragment in the request target", row="C09")


def _target(
    method: bytes, target: bytes, taken: dict[bytes, list[bytes]], *, is_http10: bool
) -> tuple[bytes | None, bytes]:
    """Authority and path of the request target and Host (RFC 9112 section 3.2)."""
    hosts = taken.get(b"host", [])
    if len(hosts) > 1 or (not hosts and not is_http10):
        raise BadRequest("missing or repeated host", row="B30")
    if target[:1] == b"/" or target == b"*":
        return (hosts[0] if hosts else None), target
    rest = target[7:]
    ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
    end = min(ends, default=len(rest))
    path = rest[end:]
    if path[:1] != b"/":
        # RFC 9112 sections 3.2.1 and 3.2.4: an empty path is "/", or "*" for OPTIONS without a query.
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    return rest[:end], path  # B31: the target's authority, whatever Host said


def _request_line_fault(block: bytes) -> RequestError:
    if fault := _line_end_fault(block, BadRequest):
        return fault
    line, _, lines = block.partition(b"\r\n")
    if len(line) > REQUEST_LINE_OCTETS_MAX:
        return UriTooLong("request line", row="B39")
    if not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
        if _OTHER_VERSION.fullmatch(line):
            return VersionNotSupported("neither HTTP/1.0 nor HTTP/1.1", row="B29")
        return BadRequest("request line without a version", row="B29")
    if not _FIELDS.fullmatch(lines):
        return _field_line_fault(lines, BadRequest)
    method = line.split(b" ", 1)[0]
    row = "B04" if _METHOD.fullmatch(method) else "B02"
    return BadRequest("malformed request line", row=row)


# Responses


def parse_response(block: bytes, method: bytes, limits: Limits) -> Response1:
    """Read a response head, as `parse_request` does; `method` is that of the request it answers.

    Raises UpstreamFailed (B35 or the row of the fault)."""
    match = _RESPONSE.fullmatch(block)
    if match is None:
        raise _status_line_fault(block)
    minor, code, lines = match.groups()
    status = int(code)
    if status < 100 or status == 101:
        raise UpstreamFailed("status nobody asked for", row="B35")
    _check_size(lines, limits, UpstreamFailed)
    fields = _read_response(block, lines)
    is_http10 = minor == b"0"
    kept, taken = _take_hop_by_hop(fields, _HOP_BY_HOP, UpstreamFailed)
    options = _connection_options(taken)
    framing = _framing(taken, is_http10=is_http10, fault=UpstreamFailed)
    out: Fields = [(b":status", code), *_without_nominated(kept, options, UpstreamFailed)]
    if b"content-length" in taken and status >= 200 and status != 204:
        out.append((b"content-length", b"%d" % framing))
    if status < 200 or status in (204, 304) or method == b"HEAD":
        framing = 0
    keep_alive = b"close" not in options and (not is_http10 or b"keep-alive" in options) and framing != UNTIL_CLOSE
    return Response1(fields=out, status=status, framing=framing, keep_alive=keep_alive)


def _read_response(block: bytes, lines: bytes) -> Fields:
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(block + b"\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        collapsed = _explain_fields(lines, UpstreamFailed)
        return _read_response(block[: len(block) - len(lines)] + collapsed, collapsed)
    if len(collector.fields) != lines.count(b"\r\n"):
        raise UpstreamFailed("two readings of the head differ", row="B35")
    return collector.fields


def _status_line_fault(block: bytes) -> RequestError:
    if fault := _line_end_fault(block, UpstreamFailed):
        return fault
    line, _, lines = block.partition(b"\r\n")
    if _RESPONSE.fullmatch(line + b"\r\n") and not _FIELDS.fullmatch(lines):
        return _field_line_fault(lines, UpstreamFailed)
    return UpstreamFailed("malformed status line", row="B35")


# What both have


def _check_size(lines: bytes, limits: Limits, fault: Fault) -> None:
    if len(lines) > limits.header_list_octets_max:
        raise fault("field section is too large", row="B39")
    if lines.count(b"\r\n") > limits.header_fields_max:
        raise fault("too many fields", row="B38")


def _take_hop_by_hop(
    fields: Fields, taken_names: frozenset[bytes], fault: Fault
) -> tuple[Fields, dict[bytes, list[bytes]]]:
    """Fields that may be passed on, and the values of the others by name."""
    kept: Fields = []
    taken: dict[bytes, list[bytes]] = {}
    for field in fields:
        if field[0] in taken_names:
            taken.setdefault(field[0], []).append(field[1])
        else:
            kept.append(field)
    return kept, taken


def _connection_options(taken: dict[bytes, list[bytes]]) -> set[bytes]:
    values = taken.get(b"connection")
    if values is None:
        return set()
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")}


def _without_nominated(kept: Fields, options: set[bytes], fault: Fault) -> Fields:
    """RFC 9110 section 7.6.1: fields that `Connection` names end here, unless they are not its to name (B41)."""
    if not options:
        return kept
    nominated = options - _CONNECTION_OPTIONS
    if not nominated:
        return kept
    for name in nominated:
        if name in _NOT_NOMINATED or name.startswith(b"x-forwarded-") or is_identity(name):
            raise fault("connection names a field that is not its own", row="B41")
    return [field for field in kept if field[0] not in nominated]


def _framing(taken: dict[bytes, list[bytes]], *, is_http10: bool, fault: Fault) -> int:
    """RFC 9112 section 6.3, without its leniencies: what is not certain is refused."""
    codings, lengths = taken.get(b"transfer-encoding"), taken.get(b"content-length")
    if codings is None:
        return UNTIL_CLOSE if lengths is None else _one_length(lengths, fault)
    if lengths is not None:
        raise fault("both content-length and transfer-encoding", row="B21")
    if is_http10:
        raise fault("transfer-encoding in HTTP/1.0", row="B23")
    if len(codings) != 1 or codings[0].lower() != b"chunked":
        not_implemented = CodingNotImplemented if fault is BadRequest else fault
        raise not_implemented("transfer-encoding is not exactly chunked", row="B22")
    return CHUNKED


def _one_length(lengths: list[bytes], fault: Fault) -> int:
    first = content_length(lengths[0], fault)
    if len(lengths) > 1 and any(content_length(value, fault) != first for value in lengths):
        raise fault("conflicting content-lengths", row="B18")
    return first


def _explain_fields(lines: bytes, fault: Fault) -> bytes:
    """Why httptools refused well-formed field lines: raises what is wrong with them.

    It also refuses a content-length that is merely repeated; those are returned with one of them (row B19)."""
    split = split_fields(lines)
    _, taken = _take_hop_by_hop(split, _REQUEST_TAKEN, fault)
    _framing(taken, is_http10=False, fault=fault)
    if len(taken.get(b"content-length", ())) < 2:
        raise fault("malformed head", row="B13" if fault is BadRequest else "B35")
    once = [field for field in split if field[0] != b"content-length"]
    once.append((b"content-length", taken[b"content-length"][0]))
    return b"".join([b"%s:%s\r\n" % field for field in once])


def _line_end_fault(block: bytes, fault: Fault) -> RequestError | None:
    rest = block.replace(b"\r\n", b"")
    if b"\r" in rest or b"\n" in rest:
        return fault("bare CR or LF", row="B24")
    if b"\0" in rest:
        return fault("NUL in a head", row="B11")
    return None


def _field_line_fault(lines: bytes, fault: Fault) -> RequestError:
    for line in lines.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            return fault("folded line", row="B25")
        if not _FIELDS.fullmatch(line + b"\r\n"):
            if _NAME_THEN_SPACE.match(line):
                return fault("white space before a colon", row="B22")
            return fault("malformed field line", row="B10" if line[:1] == b":" or b":" not in line else "B13")
    return fault("malformed field section", row="B10")


def parse_trailers(lines: bytes, fault: Fault) -> Fields:
    """Read a trailer section: field lines, each with its CRLF, without the empty line that ends it."""
    if not _FIELDS.fullmatch(lines):
        raise _line_end_fault(lines, fault) or _field_line_fault(lines, fault)
    return split_fields(lines)


def split_fields(lines: bytes) -> Fields:
    """Field lines that are known to be well-formed, as fields."""
    fields: Fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields
