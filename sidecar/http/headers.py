"""What may cross: the one judge of heads and trailers, whatever protocol they arrived by.

Theory of operation
-------------------
Every head is judged here before anything else looks at it, and what leaves here is what is sent on: there is no
second reading. The sessions (`sidecar.http.session`) translate to and from the shape of RFC 9113 section 8.3 and
judge only what their own protocol adds (HTTP/1.1 framing). Whatever is not certainly right is refused; a refusal
costs the one stream, never its connection, and names the row of the catalogue of bad inputs it comes from.

Cost. A head is some twenty small byte strings, and a regular expression for each would cost more than the rest of
the request. So names and values are joined and judged in one `bytes.translate`, which is a table look-up in C, and
only the few names that mean something to us (`_REQUEST_RULES`, ...) are looked at one by one. Only when the joined
check fails are the fields gone through singly, to say which row was broken.

Identity fields (`x-forwarded-client-cert`, `x-hauberk-*`, any spelling with `_`) are removed always, also when there
is nothing to put in their place: an app must be able to believe them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from itertools import chain
from typing import Final, NamedTuple

from sidecar.config import Limits
from sidecar.errors import BadRequest, HeadersTooLarge, MethodNotAllowed, RequestError, UpstreamFailed
from sidecar.http.paths import canonical
from sidecar.http.session import Field, Fields

FIELD_OVERHEAD_OCTETS = 32
"""RFC 9113 section 6.5.2."""
AUTHORITY_OCTETS_MAX = 262
"""A name of 255 octets, a colon, a port, a trailing dot."""
CONTENT_LENGTH_DIGITS_MAX = 18

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# RFC 9110 section 5.5: HTAB, SP, VCHAR, obs-text.
_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_VALUE_AND_LF = _VALUE + b"\n"

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"})
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Z]{1,64}")
_AUTHORITY = re.compile(rb"((?:[a-z0-9_-]+\.)*[a-z0-9_-]+)\.?(?::([0-9]{1,5}))?")
_AUTHORITY_V6 = re.compile(rb"\[([0-9a-f:.]{2,45})\](?::([0-9]{1,5}))?")
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_GRPC = re.compile(rb"application/grpc(?:[+;\t ].*)?", re.IGNORECASE)

# What a name means to us. A name in none of the tables crosses as it is.
_DROP: Final = 1
_REFUSE: Final = 2
_HOST: Final = 3
_LENGTH: Final = 4
_COOKIE: Final = 5
_TE: Final = 6
_TYPE: Final = 7
_TRACEPARENT: Final = 8

_COMMON_RULES = {
    # RFC 9113 section 8.2.2. HTTP/1.1 sessions have taken their own out before.
    b"connection": _REFUSE,
    b"keep-alive": _REFUSE,
    b"proxy-connection": _REFUSE,
    b"transfer-encoding": _REFUSE,
    b"upgrade": _REFUSE,
    b"content-length": _LENGTH,
    b"http2-settings": _DROP,
    b"x-forwarded-client-cert": _DROP,
}
_REQUEST_RULES = {
    **_COMMON_RULES,
    b"host": _HOST,
    b"te": _TE,
    b"cookie": _COOKIE,
    b"content-type": _TYPE,
    b"traceparent": _TRACEPARENT,
    b"proxy-authorization": _DROP,
}
_RESPONSE_RULES = {**_COMMON_RULES, b"te": _REFUSE}

# RFC 9110 section 6.5.1: framing, routing, modifiers, authentication and content handling have no place in trailers.
_NOT_IN_TRAILERS = frozenset(
    b"accept-encoding authorization cache-control connection content-encoding content-length content-range"
    b" content-type cookie date expect expires forwarded host http2-settings if-match if-modified-since"
    b" if-none-match if-range if-unmodified-since keep-alive location max-forwards pragma proxy-authenticate"
    b" proxy-authorization proxy-connection range retry-after set-cookie te traceparent tracestate trailer"
    b" transfer-encoding upgrade vary www-authenticate".split()
)

_LIMITS = Limits()


@dataclass(slots=True, kw_only=True)
class RequestHead:
    """A request head that may cross. Treat as frozen (`frozen=True` would double the cost of making one)."""

    method: bytes
    scheme: bytes
    """b"http" or b"https", as the client said."""
    authority: bytes
    """As forwarded: lower case, no trailing dot, port only if the client gave one."""
    host: str
    """`authority` without the port; IPv6 in brackets, compressed."""
    port: int | None
    """None: the client gave none."""
    target: bytes
    """Canonical path and query, as forwarded."""
    path: str
    """Canonical, for policy: no query."""
    without_params: str
    """`path` without `;parameters`; a DENY must match this one too. Equal to `path` when there are none."""
    fields: Fields
    """Regular fields as forwarded, without `host` and `traceparent`."""
    content_length: int | None
    is_grpc: bool
    traceparent: bytes | None
    """As received, unparsed; None if absent or repeated. `request_fields` sends it on unless given another."""


@dataclass(slots=True, kw_only=True)
class ResponseHead:
    """A final response head that may cross. Treat as frozen."""

    status: int
    fields: Fields
    """Regular fields as forwarded."""
    content_length: int | None
    """Of the field; a body has it only if there may be one (see `BodyLength.of_response`)."""


class Authority(NamedTuple):
    """`uri-host [ ":" port ]` (RFC 3986 section 3.2), read once."""

    text: bytes
    """Lower case, no trailing dot."""
    host: str
    port: int | None


# Requests


def admit_request(fields: Fields, end: bool, limits: Limits = _LIMITS) -> RequestHead:
    """Judge a request head in the shape of RFC 9113 section 8.3.1; `end`: no body follows.

    Raises BadRequest, HeadersTooLarge, or MethodNotAllowed (CONNECT), with the row that was broken."""
    _check_size(fields, limits)
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in pseudo or name not in _REQUEST_PSEUDO:
            raise BadRequest("repeated or unknown pseudo-header field", row=_row_of_pseudo(name))
        pseudo[name] = value
    regular = fields[len(pseudo) :]
    _check_fields(regular, BadRequest)
    method = _method(pseudo)
    draft = _RequestDraft(regular)
    authority = _authority(pseudo.get(b":authority"), draft.host)
    if draft.content_length and end:
        raise BadRequest("content-length without a body", row="B17")
    path = canonical(pseudo[b":path"], method)
    return RequestHead(
        method=method,
        scheme=pseudo[b":scheme"],
        authority=authority.text,
        host=authority.host,
        port=authority.port,
        target=path.target,
        path=path.path,
        without_params=path.without_params,
        fields=draft.fields,
        content_length=draft.content_length,
        is_grpc=draft.is_grpc,
        traceparent=draft.traceparent or None,
    )


def _row_of_pseudo(name: bytes) -> str:
    return "B34" if name == b":protocol" else "B01"


def _method(pseudo: dict[bytes, bytes]) -> bytes:
    """The method; with it, that the pseudo-header fields it needs are there and the scheme is one we know."""
    method = pseudo.get(b":method")
    if method is None:
        raise BadRequest("no method", row="B01")
    if method not in _METHODS:
        if method == b"CONNECT":
            raise MethodNotAllowed("CONNECT is not configured", row="B34")
        if not _METHOD.fullmatch(method):
            row = "B40" if _METHOD.fullmatch(method.upper()) else "B02"
            raise BadRequest("method is not an upper-case token", row=row)
    if b":path" not in pseudo or b":scheme" not in pseudo:
        raise BadRequest("missing pseudo-header field", row="B01")
    if pseudo[b":scheme"] not in (b"http", b"https"):
        raise BadRequest("scheme is neither http nor https", row="B05")
    return method


class _RequestDraft:
    """The regular fields of a request while they are gone through once."""

    __slots__ = ("content_length", "cookies", "fields", "host", "is_grpc", "traceparent")

    def __init__(self, regular: Sequence[Field]) -> None:
        self.fields: Fields = []
        self.host: bytes | None = None
        self.content_length: int | None = None
        self.is_grpc = False
        self.traceparent: bytes | None = None
        self.cookies: list[bytes] = []
        rules, keep = _REQUEST_RULES, self.fields.append
        for field in regular:
            rule = rules.get(field[0])
            if rule is None:
                keep(field)
            elif rule != _DROP:
                self._special(rule, field)
        if self.cookies:  # RFC 9113 section 8.2.3: crumbs are one field again towards whoever cannot crumble
            keep((b"cookie", b"; ".join(self.cookies)))
        self.fields = _without_identity(self.fields)

    def _special(self, rule: int, field: Field) -> None:
        value = field[1]
        if rule == _TYPE:
            self.is_grpc = _GRPC.fullmatch(value) is not None
            self.fields.append(field)
        elif rule == _COOKIE:
            self.cookies.append(value)
        elif rule == _LENGTH:
            if self.content_length is None:
                self.content_length = _content_length(value, BadRequest)
                self.fields.append((b"content-length", b"%d" % self.content_length))
            elif _content_length(value, BadRequest) != self.content_length:
                raise BadRequest("conflicting content-lengths", row="B18")
        elif rule == _HOST:
            if self.host is not None:
                raise BadRequest("repeated host", row="B08")
            self.host = value
        elif rule == _TE:
            if value.lower() != b"trailers":
                raise BadRequest("te other than trailers", row="B09")
            self.fields.append((b"te", b"trailers"))
        elif rule == _TRACEPARENT:
            # W3C Trace Context section 3.2: more than one is none. b"" marks that.
            self.traceparent = value if self.traceparent is None else b""
        else:
            raise BadRequest("connection-specific field", row="B09")


def _authority(given: bytes | None, host: bytes | None) -> Authority:
    """One authority of `:authority` and `host` (RFC 9113 section 8.3.1)."""
    if given is None:
        if host is None:
            raise BadRequest("no authority", row="B01")
        return parse_authority(host)
    authority = parse_authority(given)
    if host is not None and host != given and host.lower() != given.lower():
        raise BadRequest("host differs from authority", row="B07")
    return authority


@lru_cache(maxsize=1024)  # failures are not kept, and what is kept is short
def parse_authority(raw: bytes) -> Authority:
    """Read `host[:port]`, strictly: no userinfo, no percent-encoding, no empty port, no zone.

    Raises BadRequest (B06, C17)."""
    if len(raw) > AUTHORITY_OCTETS_MAX:
        raise BadRequest("authority is too long", row="B06")
    text = raw.lower()
    if match := _AUTHORITY.fullmatch(text):
        host = match[1].decode("ascii")
    elif match := _AUTHORITY_V6.fullmatch(text):
        try:
            host = f"[{IPv6Address(match[1].decode('ascii')).compressed}]"
        except AddressValueError:
            raise BadRequest("authority is not an IPv6 address", row="C17") from None
    else:
        row = "C17" if text[:1] == b"[" or text[-1:] == b"." else "B06"
        raise BadRequest("authority is not host[:port]", row=row)
    if match[2] is None:
        return Authority(host.encode("ascii"), host, None)
    port = int(match[2])
    if not 1 <= port <= 65_535:
        raise BadRequest("port is out of range", row="B06")
    return Authority(b"%s:%d" % (host.encode("ascii"), port), host, port)


def request_fields(head: RequestHead, extra: Fields) -> Fields:
    """The list for `Session.request`: `head` as it may cross, then `extra`.

    The received `traceparent` is sent on unless `extra` has its own."""
    out: Fields = [
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":authority", head.authority),
        (b":path", head.target),
        *head.fields,
        *extra,
    ]
    if head.traceparent is not None and not any(name == b"traceparent" for name, _ in extra):
        out.append((b"traceparent", head.traceparent))
    return out


# Responses


def admit_response(fields: Fields, limits: Limits = _LIMITS) -> ResponseHead:
    """Judge a final response head (status 200 to 599). Raises UpstreamFailed (B35 or the row of the field)."""
    status, regular = _response(fields, limits)
    if not 200 <= status <= 599:
        raise UpstreamFailed("status is not that of a final response", row="B35")
    return _response_head(status, regular)


def admit_informational(fields: Fields, limits: Limits = _LIMITS) -> Fields:
    """Judge a 1xx head, 101 excepted, and return it as it is sent on. Raises UpstreamFailed."""
    status, regular = _response(fields, limits)
    if not 100 <= status <= 199 or status == 101:
        raise UpstreamFailed("status is not that of an interim response", row="B35")
    return response_fields(_response_head(status, regular), [])


def _response(fields: Fields, limits: Limits) -> tuple[int, Fields]:
    try:
        _check_size(fields, limits)
    except HeadersTooLarge as error:
        raise UpstreamFailed(error.detail, row=error.row) from None
    if not fields or fields[0][0] != b":status":
        raise UpstreamFailed("no status", row="B35")
    code = fields[0][1]
    if len(code) != 3 or not code.isdigit():
        raise UpstreamFailed("status is not three digits", row="B35")
    regular = fields[1:]
    _check_fields(regular, UpstreamFailed)
    return int(code), regular


def _response_head(status: int, regular: Fields) -> ResponseHead:
    kept: Fields = []
    length: int | None = None
    rules = _RESPONSE_RULES
    for field in regular:
        rule = rules.get(field[0])
        if rule is None:
            kept.append(field)
        elif rule == _LENGTH:
            value = _content_length(field[1], UpstreamFailed)
            if length is None:
                length = value
                if status >= 200 and status != 204:  # RFC 9110 section 8.6: none in 1xx and 204
                    kept.append((b"content-length", b"%d" % value))
            elif value != length:
                raise UpstreamFailed("conflicting content-lengths", row="B35")
        elif rule == _REFUSE:
            raise UpstreamFailed("connection-specific field", row="B35")
    return ResponseHead(status=status, fields=_without_identity(kept), content_length=length)


def response_fields(head: ResponseHead, extra: Fields) -> Fields:
    """The list for `Session.head`: `head` as it may cross, then `extra`."""
    return [(b":status", b"%d" % head.status), *head.fields, *extra]


# Trailers


def admit_trailers(
    fields: Fields, limits: Limits = _LIMITS, *, fault: Callable[..., RequestError] = BadRequest
) -> Fields:
    """Judge a trailer section and return what may cross of it (row B37).

    Raises `fault` (BadRequest for a request's, UpstreamFailed for a response's) for pseudo-header and malformed
    fields; fields that have no place in trailers are dropped (RFC 9110 section 6.5.1)."""
    try:
        _check_size(fields, limits)
    except HeadersTooLarge as error:
        raise (error if fault is BadRequest else fault(error.detail, row=error.row)) from None
    if any(name[:1] == b":" for name, _ in fields):
        raise fault("pseudo-header field in trailers", row="B37")
    _check_fields(fields, fault)
    kept = [
        field
        for field in fields
        if field[0] not in _NOT_IN_TRAILERS and not field[0].replace(b"_", b"-").startswith(b"x-forwarded-")
    ]
    return _without_identity(kept)


# What they share


def _check_size(fields: Fields, limits: Limits) -> None:
    """Count and size as received: cookie crumbs singly, before they are merged (rows A21, B38, B39)."""
    count = len(fields)
    # Four pseudo-header fields a request has anyway; they are not what the limit is about.
    if count > limits.header_fields_max + 4:
        raise HeadersTooLarge("too many fields", row="B38")
    if count > limits.header_fields_max:
        regular = sum(1 for name, _ in fields if name[:1] != b":")
        if regular > limits.header_fields_max:
            raise HeadersTooLarge("too many fields", row="B38")
    octets = sum(map(len, chain.from_iterable(fields))) + FIELD_OVERHEAD_OCTETS * count
    if octets > limits.header_list_octets_max:
        raise HeadersTooLarge("fields are too large", row="B39")


def _check_fields(fields: Sequence[Field], fault: Callable[..., RequestError]) -> None:
    """Names are lower-case tokens, values have no controls and no white space around them."""
    if not fields:
        return
    names, values = zip(*fields, strict=True)
    if b"" in names or b"".join(names).translate(None, _TOKEN):
        raise _name_fault(names, fault)
    # Values joined with LF: white space at either end then stands beside an LF, and an LF inside is one too many.
    joined = b"\n%s\n" % b"\n".join(values)
    if (
        joined.count(b"\n") != len(values) + 1
        or joined.translate(None, _VALUE_AND_LF)
        or b"\n " in joined
        or b" \n" in joined
        or b"\n\t" in joined
        or b"\t\n" in joined
    ):
        raise _value_fault(values, fault)


def _name_fault(names: Iterable[bytes], fault: Callable[..., RequestError]) -> RequestError:
    for name in names:
        if name[:1] == b":":
            return fault("pseudo-header field after a regular one", row="B01")
        if not name or name.translate(None, _TOKEN):
            wrong_case = name and not name.translate(None, _TOKEN + _UPPER)
            colon_or_space = b":" in name or b" " in name
            row = "B10" if not name or wrong_case or colon_or_space else "B13"
            return fault("field name is not a lower-case token", row=row)
    raise AssertionError("no name is at fault")


def _value_fault(values: Iterable[bytes], fault: Callable[..., RequestError]) -> RequestError:
    for value in values:
        if b"\r" in value or b"\n" in value or b"\0" in value:
            return fault("CR, LF or NUL in a field value", row="B11")
        if value.translate(None, _VALUE):
            return fault("control character in a field value", row="B13")
        if value.strip(b" \t") != value:
            return fault("white space around a field value", row="B14")
    raise AssertionError("no value is at fault")


def _content_length(value: bytes, fault: Callable[..., RequestError]) -> int:
    if len(value) > CONTENT_LENGTH_DIGITS_MAX or not value.isdigit():  # bytes.isdigit is ASCII only
        raise fault("content-length is not a number", row="B20" if fault is BadRequest else "B35")
    return int(value)


def is_identity(name: bytes) -> bool:
    """Is this a field only we may set, in any spelling an app may take for it? (rows D01, D02)"""
    if b"_" in name:
        name = name.replace(b"_", b"-")
    return name.startswith(b"x-hauberk") or name == b"x-forwarded-client-cert"


def _without_identity(fields: Fields) -> Fields:
    for name, _ in fields:
        if name[:2] in (b"x-", b"x_") and is_identity(name):
            return [field for field in fields if not is_identity(field[0])]
    return fields


def check_outgoing(fields: Iterable[Field]) -> None:
    """What every session does last (row B12): ValueError if a name or value holds CR, LF or NUL."""
    joined = b"".join(chain.from_iterable(fields))
    if b"\r" in joined or b"\n" in joined or b"\0" in joined:
        raise ValueError("CR, LF or NUL in a field to be sent")


class BodyLength:
    """Counts the body of one message against its content-length (row B16, RFC 9113 section 8.1.1)."""

    __slots__ = ("_fault", "_left")

    def __init__(self, expected: int | None, fault: Callable[..., RequestError]) -> None:
        self._left = expected
        self._fault = fault

    @classmethod
    def of_request(cls, head: RequestHead) -> BodyLength:
        return cls(head.content_length, BadRequest)

    @classmethod
    def of_response(cls, head: ResponseHead, method: bytes) -> BodyLength:
        """HEAD, 204 and 304 have no body, whatever their content-length (RFC 9110 section 6.4.1)."""
        no_body = method == b"HEAD" or head.status in (204, 304)
        return cls(0 if no_body else head.content_length, UpstreamFailed)

    def __repr__(self) -> str:
        return f"<BodyLength {'unknown' if self._left is None else self._left} left>"

    def take(self, octets: int) -> None:
        """Body octets arrived. Raises BadRequest or UpstreamFailed if they are more than announced."""
        if self._left is not None:
            self._left -= octets
            if self._left < 0:
                raise self._fault("body is longer than content-length", row="B16")

    def finish(self) -> None:
        """The body is over. Raises BadRequest or UpstreamFailed if it is shorter than announced."""
        if self._left:
            raise self._fault("body is shorter than content-length", row="B16")
