"""JSON from strangers, read one way or not at all (RFC 8259; RFC 7519 section 4 for duplicate names).

The standard library takes the last of two equal names, NaN and numbers without end, and recurses as deep as it is told
to. Two readers that differ there disagree on who somebody is (security.md E09, E13, E15), so all of that is refused.
Base64url (RFC 7515 section 2) is strict too: no padding, no other letters, and no bits that mean nothing.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sidecar.rules.facts import Json

DEPTH_MAX = 32
INTEGER_DIGITS_MAX = 20
"""What holds every time and count, and 64 bits."""

_BRACKET_OR_TEXT = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class Refused(ValueError):
    """Not JSON, or not base64url, that can be read in one way only. The text is constant: it quotes nothing."""


class Duplicate(Refused):
    """A name stands twice in one object."""


class Excessive(Refused):
    """Nested too deeply, or a number too long or not finite."""


def read_json(octets: bytes) -> Json:
    """The value in `octets` (UTF-8), frozen: arrays are tuples, objects are read-only mappings. Raises Refused."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("is not UTF-8") from None
    _check_depth(text)
    try:
        found: object = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except Refused:
        raise
    except (ValueError, RecursionError):
        raise Refused("is not JSON") from None
    return _frozen(found)


def read_object(octets: bytes) -> Mapping[str, Json]:
    """The same of an object. Raises Refused."""
    found = read_json(octets)
    if not isinstance(found, Mapping):
        raise Refused("is not a JSON object")
    return found


def read_base64url(text: str) -> bytes:
    """Raises Refused."""
    if _BASE64URL.fullmatch(text) is None or len(text) % 4 == 1:
        raise Refused("is not base64url")
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii") != text:
        raise Refused("is not canonical base64url")  # else one token had many spellings
    return octets


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return
    depth = 0
    for matched in _BRACKET_OR_TEXT.finditer(text):
        bracket = matched[0]
        if bracket in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise Excessive("is nested too deeply")
        elif bracket in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Duplicate("has a name twice")
    return MappingProxyType(found)


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > INTEGER_DIGITS_MAX:
        raise Excessive("has a number with too many digits")
    return int(digits)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Excessive("has a number that is not finite")
    return number


def _constant(_name: str) -> float:
    raise Refused("has NaN or Infinity, which JSON does not know")


def _frozen(value: Any) -> Json:
    """Lists become tuples; text must be what UTF-8 can carry, which a lone surrogate is not."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Refused("has text that is not Unicode")
        return value
    if isinstance(value, list):
        return tuple(_frozen(one) for one in value)
    if isinstance(value, Mapping):
        return MappingProxyType({str(_frozen(name)): _frozen(one) for name, one in value.items()})
    assert value is None or isinstance(value, bool | int | float)
    return value
