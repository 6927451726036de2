"""What may cross: the one judge of heads and trailers, whatever protocol they arrived by.

Every head is judged here before anything else looks at it, and what leaves here is what is sent on: there is no
second reading. The sessions (`sidecar.http.session`) translate to and from the shape of RFC 9113 section 8.3 and
judge only what their own protocol adds (HTTP/1.1 framing). Whatever is not certainly right is refused; a refusal
costs the one stream, never its connection, and names the row of the catalogue of bad inputs it comes from.

What all field sections share is judged in `fields`; here each kind of message adds its own table of the names that
mean something to it (`_REQUEST_RULES`, ...). A name in no table crosses as it is.

Identity fields (`x-forwarded-client-cert`, `x-hauberk-*`, any spelling with `_`) are removed always, also when
there is nothing to put in their place: an app must be able to believe them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.config import Limits
from sidecar.errors import BadRequest, MethodNotAllowed, UpstreamFailed
from sidecar.http.authority import Authority, parse_authority
from sidecar.http.fields import Fault, check_fields, check_outgoing, content_length, without_identity
from sidecar.http.paths import canonical
from sidecar.http.session import Field, Fields

__all__ = [
    "BodyLength",
    "RequestHead",
    "ResponseHead",
    "admit_informational",
    "admit_request",
    "admit_response",
    "admit_trailers",
    "check_outgoing",
    "request_fields",
    "response_fields",
]

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"})
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Z]{1,64}")
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_GRPC = re.compile(rb"application/grpc(?:[+;\t ].*)?", re.IGNORECASE)

# What a name means to us.
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

# RFC 9110 section 6.5.1: what frames, routes, modifies or authenticates a message, or says how to read its content.
_NOT_IN_TRAILERS = frozenset(
    b"accept-encoding authorization cache-control connection content-encoding content-length content-range"
    b" content-type cookie date expect expires forwarded host http2-settings if-match if-modified-since"
    b" if-none-match if-range if-unmodified-since keep-alive location max-forwards pragma proxy-authenticate"
    b" proxy-authorization proxy-connection range retry-after set-cookie te traceparent tracestate trailer"
    b" transfer-encoding upgrade vary www-authenticate x-forwarded-client-cert".split()
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
    """Of the field; the body has it only if there may be a body (see `BodyLength.of_response`)."""


# Requests


def admit_request(fields: Fields, end: bool, limits: Limits = _LIMITS) -> RequestHead:
    """Judge a request head in the shape of RFC 9113 section 8.3.1; `end`: no body follows.

    Raises BadRequest, HeadersTooLarge, or MethodNotAllowed (CONNECT), with the row that was broken."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in pseudo or name not in _REQUEST_PSEUDO:
            row = "B34" if name == b":protocol" else "B01"
            raise BadRequest("repeated or unknown pseudo-header field", row=row)
        pseudo[name] = value
    all_names = check_fields(fields, len(pseudo), limits, BadRequest)
    method = _method(pseudo)
    regular = fields[len(pseudo) :]
    rules = _REQUEST_RULES
    special = _Special([field for field in regular if field[0] in rules])
    kept = [field for field in regular if field[0] not in rules]
    kept += special.kept
    authority = _authority(pseudo.get(b":authority"), special.host)
    if special.length and end:
        raise BadRequest("content-length without a body", row="B17")
    path, target, without_params = canonical(pseudo[b":path"], method)
    return RequestHead(
        method=method,
        scheme=pseudo[b":scheme"],
        authority=authority.text,
        host=authority.host,
        port=authority.port,
        target=target,
        path=path,
        without_params=without_params,
        fields=without_identity(kept, all_names),
        content_length=special.length,
        is_grpc=special.is_grpc,
        traceparent=special.traceparent or None,
    )


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


class _Special:
    """The fields of a request that mean something to us, read once."""

    __slots__ = ("host", "is_grpc", "kept", "length", "traceparent")

    def __init__(self, fields: Fields) -> None:
        self.kept: Fields = []
        self.host: bytes | None = None
        self.length: int | None = None
        self.is_grpc = False
        self.traceparent: bytes | None = None
        cookies: list[bytes] = []
        for field in fields:
            name, value = field
            rule = _REQUEST_RULES[name]
            if rule == _TYPE:
                self.is_grpc = _GRPC.fullmatch(value) is not None
                self.kept.append(field)
            elif rule == _LENGTH:
                self._read_length(value)
            elif rule == _COOKIE:
                cookies.append(value)
            elif rule == _TRACEPARENT:
                # W3C Trace Context section 3.2.1: more than one is none. b"" marks that.
                self.traceparent = value if self.traceparent is None else b""
            elif rule != _DROP:
                self._read_routing(rule, value)
        if cookies:  # RFC 9113 section 8.2.3: crumbs are one field again for whoever cannot crumble
            self.kept.append((b"cookie", b"; ".join(cookies)))

    def _read_length(self, value: bytes) -> None:
        length = content_length(value, BadRequest)
        if self.length is None:
            self.length = length
            self.kept.append((b"content-length", b"%d" % length))
        elif length != self.length:
            raise BadRequest("conflicting content-lengths", row="B18")

    def _read_routing(self, rule: int, value: bytes) -> None:
        if rule == _HOST:
            if self.host is not None:
                raise BadRequest("repeated host", row="B08")
            self.host = value
        elif rule == _TE:
            if value.lower() != b"trailers":
                raise BadRequest("te other than trailers", row="B09")
            self.kept.append((b"te", b"trailers"))
        else:
            raise BadRequest("connection-specific field", row="B09")


def _authority(given: bytes | None, host: bytes | None) -> Authority:
    """One authority of `:authority` and `host` (RFC 9113 section 8.3.1)."""
    if given is None:
        if host is None:
            raise BadRequest("no authority", row="B01")
        return parse_authority(host)
    if host is not None and host.lower() != given.lower():
        raise BadRequest("host differs from authority", row="B07")
    return parse_authority(given)


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
    status = _status(fields)
    if not 200 <= status <= 599:
        raise UpstreamFailed("status is not that of a final response", row="B35")
    return _response_head(status, fields, limits)


def admit_informational(fields: Fields, limits: Limits = _LIMITS) -> Fields:
    """Judge a 1xx head, 101 excepted, and return it as it is sent on. Raises UpstreamFailed."""
    status = _status(fields)
    if not 100 <= status <= 199 or status == 101:
        raise UpstreamFailed("status is not that of an interim response", row="B35")
    return response_fields(_response_head(status, fields, limits), [])


def _status(fields: Fields) -> int:
    if not fields or fields[0][0] != b":status":
        raise UpstreamFailed("no status", row="B35")
    code = fields[0][1]
    if len(code) != 3 or not code.isdigit():
        raise UpstreamFailed("status is not three digits", row="B35")
    return int(code)


def _response_head(status: int, fields: Fields, limits: Limits) -> ResponseHead:
    all_names = check_fields(fields, 1, limits, UpstreamFailed)
    kept: Fields = []
    length: int | None = None
    rules = _RESPONSE_RULES
    for field in fields[1:]:
        rule = rules.get(field[0])
        if rule is None:
            kept.append(field)
        elif rule == _LENGTH:
            value = content_length(field[1], UpstreamFailed)
            if length is None:
                length = value
                if status >= 200 and status != 204:  # RFC 9110 section 8.6: none in 1xx and 204
                    kept.append((b"content-length", b"%d" % value))
            elif value != length:
                raise UpstreamFailed("conflicting content-lengths", row="B35")
        elif rule == _REFUSE:
            raise UpstreamFailed("connection-specific field", row="B35")
    return ResponseHead(status=status, fields=without_identity(kept, all_names), content_length=length)


def response_fields(head: ResponseHead, extra: Fields) -> Fields:
    """The list for `Session.head`: `head` as it may cross, then `extra`."""
    return [(b":status", b"%d" % head.status), *head.fields, *extra]


# Trailers and bodies


def admit_trailers(fields: Fields, limits: Limits = _LIMITS, *, fault: Fault = BadRequest) -> Fields:
    """Judge a trailer section and return what may cross of it (row B37).

    Raises `fault` (BadRequest for a request's, UpstreamFailed for a response's) for pseudo-header and malformed
    fields; fields that have no place in trailers are dropped (RFC 9110 section 6.5.1)."""
    if any(name[:1] == b":" for name, _ in fields):
        raise fault("pseudo-header field in trailers", row="B37")
    all_names = check_fields(fields, 0, limits, fault)
    return without_identity([field for field in fields if _may_trail(field)], all_names)


def _may_trail(field: Field) -> bool:
    name = field[0]
    return name not in _NOT_IN_TRAILERS and not name.replace(b"_", b"-").startswith(b"x-forwarded-")


class BodyLength:
    """Counts the body of one message against its content-length (row B16, RFC 9113 section 8.1.1)."""

    __slots__ = ("_fault", "_left")

    def __init__(self, expected: int | None, fault: Fault) -> None:
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
        return f"<BodyLength, {'unknown' if self._left is None else self._left} octets left>"

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
