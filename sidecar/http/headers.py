"""What may cross: the one judge of heads and trailers, whatever protocol they arrived by.

Every head is judged here before anything else looks at it, and what leaves here is what is sent on: there is no
second reading. The sessions (`sidecar.http.session`) translate to and from the shape of RFC 9113 section 8.3 and
judge only what their own protocol adds (HTTP/1.1 framing). Whatever is not certainly right is refused; a refusal
costs the one stream, never its connection, and names the row of the catalogue of bad inputs it comes from.

What all field sections share is judged in `fields`, and what names alone decide once for each sequence of names, in
`layout`; here each kind of message adds its own table of the names that mean something to it (`_REQUEST_RULES`, ...).
A name in no table crosses as it is.

Identity fields (`x-forwarded-client-cert`, `x-hauberk-*`, any spelling with `_`) are removed always, also when
there is nothing to put in their place: an app must be able to believe them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.config import Limits
from sidecar.errors import BadRequest, MethodNotAllowed, UpstreamFailed
from sidecar.http.authority import Authority, parse_authority
from sidecar.http.body_length import BodyLength
from sidecar.http.fields import Fault, Remembered, check_outgoing, content_length, is_ours
from sidecar.http.layout import (
    COOKIE,
    DROP,
    HOST,
    LENGTH,
    REFUSE,
    TE,
    TRACEPARENT,
    TYPE,
    Layout,
    Layouts,
    Names,
    refuse_connection_fields,
)
from sidecar.http.session import Field, Fields
from sidecar.rules.errors import PathError
from sidecar.rules.paths import canonical

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
_SCHEMES = frozenset({b"http", b"https"})
_REQUEST_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_GRPC = re.compile(rb"application/grpc(?:[+;\t ].*)?", re.IGNORECASE)

_COMMON_RULES = {
    # RFC 9113 section 8.2.2. HTTP/1.1 sessions have taken their own out before.
    b"connection": REFUSE,
    b"keep-alive": REFUSE,
    b"proxy-connection": REFUSE,
    b"transfer-encoding": REFUSE,
    b"upgrade": REFUSE,
    b"content-length": LENGTH,
    b"http2-settings": DROP,
    b"x-forwarded-client-cert": DROP,
}
_REQUEST_RULES = {
    **_COMMON_RULES,
    b"host": HOST,
    b"te": TE,
    b"cookie": COOKIE,
    b"content-type": TYPE,
    b"traceparent": TRACEPARENT,
    b"proxy-authorization": DROP,
}
_RESPONSE_RULES = {**_COMMON_RULES, b"te": REFUSE}

# RFC 9110 section 6.5.1: what frames, routes, modifies or authenticates a message, or says how to read its content.
_TRAILER_RULES = dict.fromkeys(
    b"accept-encoding authorization cache-control connection content-encoding content-length content-range"
    b" content-type cookie date expect expires forwarded host http2-settings if-match if-modified-since"
    b" if-none-match if-range if-unmodified-since keep-alive location max-forwards pragma proxy-authenticate"
    b" proxy-authorization proxy-connection range retry-after set-cookie te traceparent tracestate trailer"
    b" transfer-encoding upgrade vary www-authenticate x-forwarded-client-cert".split(),
    DROP,
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
    sent: Fields
    """The whole list as it is sent on when nothing is added."""


# Requests


def admit_request(fields: Fields, end: bool, limits: Limits = _LIMITS) -> RequestHead:
    """Judge a request head in the shape of RFC 9113 section 8.3.1; `end`: no body follows.

    Raises BadRequest, HeadersTooLarge, or MethodNotAllowed (CONNECT), with the row that was broken."""
    layout, values = _REQUESTS.read(fields, limits, BadRequest)
    method = _method(layout, values)
    kept = [*layout.kept(fields)]
    host, length, is_grpc = None, None, False
    if layout.special:
        special = _Special(layout, fields)
        kept += special.kept
        host, length, is_grpc = special.host, special.length, special.is_grpc
    authority = _authority(values[layout.authority] if layout.authority >= 0 else None, host)
    if length and end:
        raise BadRequest("content-length without a body", row="B17")
    try:
        path, target, without_params = canonical(values[layout.path], method)
    except PathError as e:
        raise BadRequest(e.problem, row=e.row) from None
    return RequestHead(
        method=method,
        scheme=values[layout.scheme],
        authority=authority.text,
        host=authority.host,
        port=authority.port,
        target=target,
        path=path,
        without_params=without_params,
        fields=kept,
        content_length=length,
        is_grpc=is_grpc,
        traceparent=values[layout.traceparent] if layout.traceparent >= 0 else None,
    )


def _request_names(names: Names, fault: Fault) -> int:
    """How many pseudo-header fields lead; each at most once and none that we do not know."""
    count = 0
    for name in names:
        if name[:1] != b":":
            break
        if name not in _REQUEST_PSEUDO or name in names[:count]:
            row = "B34" if name == b":protocol" else "B01"
            raise fault("repeated or unknown pseudo-header field", row=row)
        count += 1
    if names.count(b"host") > 1:
        raise fault("repeated host", row="B08")
    refuse_connection_fields(names, _REQUEST_RULES, lambda: fault("connection-specific field", row="B09"))
    return count


def _method(layout: Layout, values: Sequence[bytes]) -> bytes:
    """The method; with it, that the pseudo-header fields it needs are there and the scheme is one we know."""
    if layout.method < 0:
        raise BadRequest("no method", row="B01")
    method = values[layout.method]
    if method not in _METHODS:
        if method == b"CONNECT":
            raise MethodNotAllowed("CONNECT is not configured", row="B34")
        if not _METHOD.fullmatch(method):
            row = "B40" if _METHOD.fullmatch(method.upper()) else "B02"
            raise BadRequest("method is not an upper-case token", row=row)
    if layout.path < 0 or layout.scheme < 0:
        raise BadRequest("missing pseudo-header field", row="B01")
    if values[layout.scheme] not in _SCHEMES:
        raise BadRequest("scheme is neither http nor https", row="B05")
    return method


class _Special:
    """The fields of a request that mean something to us, read once."""

    __slots__ = ("host", "is_grpc", "kept", "length")

    def __init__(self, layout: Layout, fields: Fields) -> None:
        self.kept: Fields = []
        self.host: bytes | None = None
        self.length: int | None = None
        self.is_grpc = False
        cookies: Fields = []
        for rule, position in layout.special:
            field = fields[position]
            value = field[1]
            if rule == TYPE:
                self.is_grpc = _GRPC.fullmatch(value) is not None
                self.kept.append(field)
            elif rule == LENGTH:
                self._read_length(value)
            elif rule == COOKIE:
                cookies.append(field)
            elif rule == HOST:
                self.host = value
            else:
                self._read_te(value)
        if len(cookies) > 1:  # RFC 9113 section 8.2.3: crumbs are one field again for whoever cannot crumble
            self.kept.append((b"cookie", b"; ".join([crumb for _, crumb in cookies])))
        else:
            self.kept += cookies

    def _read_length(self, value: bytes) -> None:
        length = content_length(value, BadRequest)
        if self.length is None:
            self.length = length
            self.kept.append((b"content-length", b"%d" % length))
        elif length != self.length:
            raise BadRequest("conflicting content-lengths", row="B18")

    def _read_te(self, value: bytes) -> None:
        if value.lower() != b"trailers":
            raise BadRequest("te other than trailers", row="B09")
        self.kept.append((b"te", b"trailers"))


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
    if head.traceparent is not None:
        for name, _ in extra:
            if name == b"traceparent":
                return out
        out.append((b"traceparent", head.traceparent))
    return out


# Responses


def admit_response(fields: Fields, limits: Limits = _LIMITS, *, of_app: bool = False) -> ResponseHead:
    """Judge a final response head (status 200 to 599). Raises UpstreamFailed (B35 or the row of the field).

    `of_app`: an app answers, not another sidecar, and has no decisions to tell of. One that is `Remembered` was judged
    before, unless it comes for the first time: neither a session's limits change nor who is at its other end."""
    if type(fields) is Remembered:
        if isinstance(fields.judged, ResponseHead):
            return fields.judged
        fields.judged = head = _final_head(fields, limits, of_app)
        return head
    return _final_head(fields, limits, of_app)


def _final_head(fields: Fields, limits: Limits, of_app: bool) -> ResponseHead:
    status = _status(fields)
    if not 200 <= status <= 599:
        raise UpstreamFailed("status is not that of a final response", row="B35")
    return _response_head(status, fields, limits, of_app)


def admit_informational(fields: Fields, limits: Limits = _LIMITS) -> Fields:
    """Judge a 1xx head, 101 excepted, and return it as it is sent on. Raises UpstreamFailed."""
    status = _status(fields)
    if not 100 <= status <= 199 or status == 101:
        raise UpstreamFailed("status is not that of an interim response", row="B35")
    return response_fields(_response_head(status, fields, limits, True), [])  # no sidecar sends the id with these


def _status(fields: Fields) -> int:
    if not fields or fields[0][0] != b":status":
        raise UpstreamFailed("no status", row="B35")
    code = fields[0][1]
    if len(code) != 3 or not code.isdigit():
        raise UpstreamFailed("status is not three digits", row="B35")
    return int(code)


def _response_head(status: int, fields: Fields, limits: Limits, of_app: bool) -> ResponseHead:
    layout, values = (_APP_RESPONSES if of_app else _RESPONSES).read(fields, limits, UpstreamFailed)
    kept = [*layout.kept(fields)]
    length: int | None = None
    for _, position in layout.special:
        value = content_length(values[position], UpstreamFailed)
        if length is None:
            length = value
            if status >= 200 and status != 204:  # RFC 9110 section 8.6: none in 1xx and 204
                kept.append((b"content-length", b"%d" % value))
        elif value != length:
            raise UpstreamFailed("conflicting content-lengths", row="B35")
    sent = Remembered([fields[0], *kept]) if type(fields) is Remembered else [fields[0], *kept]
    return ResponseHead(status=status, fields=kept, content_length=length, sent=sent)


def _response_names(names: Names, fault: Fault) -> int:
    """One pseudo-header field leads: `_status` saw it."""
    refuse_connection_fields(names, _RESPONSE_RULES, lambda: fault("connection-specific field", row="B35"))
    return 1


def response_fields(head: ResponseHead, extra: Fields) -> Fields:
    """The list for `Session.head`: `head` as it may cross, then `extra`. Not to be changed: it may be sent again."""
    return [*head.sent, *extra] if extra else head.sent


# Trailers


def admit_trailers(fields: Fields, limits: Limits = _LIMITS, *, fault: Fault = BadRequest) -> Fields:
    """Judge a trailer section and return what may cross of it (row B37).

    Raises `fault` (BadRequest for a request's, UpstreamFailed for a response's) for pseudo-header and malformed
    fields; fields that have no place in trailers are dropped (RFC 9110 section 6.5.1)."""
    if type(fields) is Remembered and isinstance(fields.judged, _Trailers):
        return fields.judged
    layout, _ = _TRAILERS.read(fields, limits, fault)
    kept = _Trailers(layout.kept(fields))
    if type(fields) is Remembered:
        fields.judged = kept
    return kept


class _Trailers(list[Field]):
    """Trailers that may cross. Not to be changed: they may be sent again."""

    __slots__ = ()


def _trailer_names(names: Names, fault: Fault) -> int:
    if any(name[:1] == b":" for name in names):
        raise fault("pseudo-header field in trailers", row="B37")
    return 0


def _is_ours_in_trailers(name: bytes) -> bool:
    return name.replace(b"_", b"-").startswith(b"x-forwarded-") or is_ours(name)


_REQUESTS = Layouts(_REQUEST_RULES, _request_names)
_RESPONSES = Layouts(_RESPONSE_RULES, _response_names)
_APP_RESPONSES = Layouts(_RESPONSE_RULES, _response_names, is_ours)
_TRAILERS = Layouts(_TRAILER_RULES, _trailer_names, _is_ours_in_trailers)
