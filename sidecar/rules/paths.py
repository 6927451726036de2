"""One canonical path per request: what policy matches is what is routed and what is sent on.

Every known way around path policy lives on two parties reading one path differently, so this sidecar reads it
once, writes down what it understood, and forwards exactly that. What could be read in two ways is either made
into one spelling or refused:

* dot segments are resolved (RFC 3986 section 5.2.4), above the root is the root; `//` is `/`, a backslash is `/`;
* a percent-encoded *unreserved* character is decoded, once (RFC 3986 section 6.2.2.2); every other triplet
  stays, its digits in upper case (6.2.2.1), so `%252e` stays what it is;
* characters that RFC 3986 has no place for in a path but that senders use (`{`, `|`, `"`, ...) get their only
  legal spelling, the encoded one;
* `%2f`, `%5c`, `%00`, a fragment, a broken triplet, a dot segment with parameters (`..;x`), white space,
  controls and bytes above 0x7e are refused.

Nothing here decodes text, and no `urlsplit` comes near: it takes `//admin/x` for the host `admin` and deletes
tabs. The query is no part of the path. It is checked for bytes that may not be there and forwarded as it came.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from sidecar.rules.errors import PathError

_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_SUB_DELIMS = b"!$&'()*+,;="
_PATH = _UNRESERVED + _SUB_DELIMS + b":@/"
# `;` alone of the legal characters needs a closer look, for `without_params`.
_PLAIN_PATH = _PATH.replace(b";", b"")
_QUERY = bytes(byte for byte in range(0x21, 0x7F) if byte != 0x23)

REMEMBERED_OCTETS_MAX = 128

_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_TRIPLET = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_REFUSED_TRIPLET = re.compile(rb"%(?:2f|5c|00)", re.IGNORECASE)
_NOT_IN_A_PATH = re.compile(rb"[\"<>\[\]^`{|}]")
_DOTS_WITH_PARAMS = re.compile(r"/\.\.?(?:;|%3B)")
_PARAMS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")


class CanonicalPath(NamedTuple):
    """What a request asks for, in one spelling."""

    path: str
    """For policy and routing: no query; starts with "/", or is "*" (OPTIONS only)."""
    target: bytes
    """For the wire: path and query."""
    without_params: str
    """`path` with every `;parameter` removed, as servlet containers read it; a DENY must match this one as
    well. Equal to `path` when there are none."""


_ASTERISK = CanonicalPath("*", b"*", "*")


def canonical(raw: bytes, method: bytes = b"GET") -> CanonicalPath:
    """The canonical form of a request target in origin-form (RFC 9112 section 3.2.1), or `*` with OPTIONS.

    `canonical(canonical(x).target)` is the same value. Raises PathError with the row that `raw` breaks."""
    path, mark, query = raw.partition(b"?")
    if mark and query.translate(None, _QUERY):
        raise _bad_octets(query)
    if path[:1] != b"/":
        if raw == b"*" and method == b"OPTIONS":
            return _ASTERISK
        raise PathError("path does not start with a slash", "B03")
    found = _remembered(path) if len(path) <= REMEMBERED_OCTETS_MAX else _canonical(path)
    if not mark:
        return found
    return CanonicalPath(found.path, raw if found.target == path else found.target + mark + query, found.without_params)


def _canonical(path: bytes) -> CanonicalPath:
    """Of a path without its query."""
    if not path.translate(None, _PLAIN_PATH) and b"/." not in path and b"//" not in path:
        text = path.decode("ascii")
        return CanonicalPath(text, path, text)
    text = _normalize(path)
    without = _without_params(text) if ";" in text else text
    return CanonicalPath(text, text.encode("ascii"), without)


_remembered = lru_cache(maxsize=1024)(_canonical)  # of pure values of bounded length; failures are not kept


def _normalize(path: bytes) -> str:
    """The path rewritten into its one spelling. Linear in its length."""
    if path.translate(None, _QUERY):
        raise _bad_octets(path)
    if b"%" in path:
        path = _decode_once(path)
    path = path.replace(b"\\", b"/")  # C05
    path = _NOT_IN_A_PATH.sub(_encode, path)
    text = path.decode("ascii")
    if _DOTS_WITH_PARAMS.search(text):
        raise PathError("dot segment with parameters", "C06")
    return _resolve_dots(text)


def _decode_once(path: bytes) -> bytes:
    if _BAD_TRIPLET.search(path):
        raise PathError("broken percent-encoding in path", "C13")
    if refused := _REFUSED_TRIPLET.search(path):
        row = "C08" if refused[0] == b"%00" else "C03"
        raise PathError("path holds an encoded separator or NUL", row)
    return _TRIPLET.sub(_decode_unreserved, path)


def _decode_unreserved(match: re.Match[bytes]) -> bytes:
    octet = bytes((int(match[1], 16),))
    return octet if octet in _UNRESERVED else match[0].upper()


def _encode(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(match[0])


def _resolve_dots(text: str) -> str:
    """Dot segments and empty segments removed; a path that ended in one of them ends in "/"."""
    segments = text.split("/")
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    if kept and segments[-1] in ("", ".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _without_params(text: str) -> str:
    return _SLASHES.sub("/", _PARAMS.sub("", text))


def _bad_octets(part: bytes) -> PathError:
    if b"#" in part:
        return PathError("fragment in the request target", "C09")
    if b"\0" in part:
        return PathError("NUL in the request target", "C08")
    return PathError("white space, control or non-ASCII in the request target", "B04")
