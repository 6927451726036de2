"""What every field section must be, whatever it belongs to: legal names and values, within limits, none of them ours.

A head is some twenty small byte strings, and a regular expression for each would cost more than the rest of the
request. So names and values are joined and judged in one `bytes.translate`, a table look-up in C; only when that
fails are the fields gone through singly, to say which row of the catalogue of bad inputs was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from sidecar.errors import HeadersTooLarge, RequestError, UpstreamFailed
from sidecar.http.session import Field

FIELD_OVERHEAD_OCTETS = 32
"""RFC 9113 section 6.5.2."""
CONTENT_LENGTH_DIGITS_MAX = 18

Fault = Callable[..., RequestError]
"""BadRequest or UpstreamFailed: whose fault a malformed message is."""

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# RFC 9110 section 5.5: HTAB, SP, VCHAR, obs-text.
_VALUE = frozenset([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

# What may stand in a name beside letters, digits and `-`. CGI and WSGI turn `_` into `-`; some servers all of these.
_LIKE_A_DASH = bytes.maketrans(b"!#$%&'*+.^_`|~", b"-" * 14)

_METHOD_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})

# 0 where a byte may not be. The colon is let through here and counted: pseudo-header fields have one each.
_NAME_TABLE = bytes(octet if octet in _TOKEN or octet == 0x3A else 0 for octet in range(256))
_VALUE_TABLE = bytes(octet if octet in _VALUE else 0 for octet in range(256))


class Remembered(list[Field]):
    """A section that a decoder has kept, without secrets, and hands out again whenever it comes again: the very same.

    `judged` is where its judge keeps what became of it. It lives and dies with the connection's decoder."""

    __slots__ = ("judged",)
    judged: object

    def __init__(self, fields: Iterable[Field]) -> None:
        super().__init__(fields)
        self.judged = None


def check_names(names: Sequence[bytes], pseudo_count: int, fault: Fault) -> None:
    """Judge the names of a field section, of which the first `pseudo_count` are known pseudo-header fields."""
    joined = b"".join(names)
    if b"\0" in joined.translate(_NAME_TABLE) or joined.count(b":") != pseudo_count or b"" in names:
        raise _name_fault(names[pseudo_count:], fault)


def check_values(values: Sequence[bytes], joined: bytes, pseudo_count: int, fault: Fault) -> None:
    """Judge the values, `joined` together; those of pseudo-header fields are judged by whoever knows them."""
    # `strip` gives back the very same object when there is nothing to strip, so comparing is cheap.
    if b"\0" in joined.translate(_VALUE_TABLE) or tuple(map(bytes.strip, values)) != values:
        _check_values(values[pseudo_count:], fault)


def too_large(detail: str, row: str, fault: Fault) -> RequestError:
    """Whose fault it is decides whether it is 431 or 502."""
    return UpstreamFailed(detail, row=row) if fault is UpstreamFailed else HeadersTooLarge(detail, row=row)


def _name_fault(names: Iterable[bytes], fault: Fault) -> RequestError:
    for name in names:
        if name[:1] == b":":
            return fault("pseudo-header field out of place", row="B01")
        if not name or not _TOKEN.issuperset(name):
            # B10 is what RFC 9113 section 8.2.1 names; B13 the rest of what is no token.
            plain = not name or b":" in name or b" " in name or (_TOKEN | _UPPER).issuperset(name)
            return fault("field name is not a lower-case token", row="B10" if plain else "B13")
    raise AssertionError("no name is at fault")


def _check_values(values: Iterable[bytes], fault: Fault) -> None:
    for value in values:
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise fault("CR, LF or NUL in a field value", row="B11")
        if not _VALUE.issuperset(value):
            raise fault("control character in a field value", row="B13")
        if value.strip(b" \t") != value:
            raise fault("white space around a field value", row="B14")


def content_length(value: bytes, fault: Fault) -> int:
    """Digits and nothing else (row B20); `fault` otherwise."""
    if len(value) > CONTENT_LENGTH_DIGITS_MAX or not value.isdigit():  # bytes.isdigit is ASCII only
        raise fault("content-length is not a number", row="B20")
    return int(value)


def folded(name: bytes) -> bytes:
    """One spelling for all that an app may take for the same field: CGI variables know no difference."""
    return name.translate(_LIKE_A_DASH)


def is_identity(name: bytes) -> bool:
    """Is this a field only we may set, in any spelling an app may take for it? (rows D01, D02)"""
    name = name.translate(_LIKE_A_DASH)
    return name.startswith(b"x-hauberk") or name == b"x-forwarded-client-cert"


def is_ours(name: bytes) -> bool:
    """`is_identity`, or the id of a decision, which no app can make."""
    name = name.translate(_LIKE_A_DASH)
    return name == b"hauberk-decision-id" or is_identity(name)


def is_method_override(name: bytes) -> bool:
    """Would an app take the field's value for the request's method, in any spelling? (row C28)"""
    return name.translate(_LIKE_A_DASH) in _METHOD_OVERRIDES


def check_outgoing(fields: Iterable[Field]) -> None:
    """What every session does last (row B12): ValueError if a name or value holds CR, LF or NUL."""
    joined = b"".join(chain.from_iterable(fields))
    if b"\r" in joined or b"\n" in joined or b"\0" in joined:
        raise ValueError("CR, LF or NUL in a field to be sent")
