"""What the values of a policy may look like. One check a kind of value, each returning it or raising `BadValue`.

What can never match anything is refused too: a DENY on `//admin` would look like protection and be none, because paths
are matched in their canonical form.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from certs.errors import CertsError
from certs.spiffe_id import SCHEME, SpiffeId, TrustDomain
from sidecar.rules.decode import VALUE_CHARS_MAX
from sidecar.rules.match import Shape, shape_of
from sidecar.rules.routing import DNS_LABEL, PORT_MAX

Check = Callable[[str], str]

DNS_SUBDOMAIN_CHARS_MAX = 253
LABEL_CHARS_MAX = 63
LIFETIME_S_MIN, LIFETIME_S_MAX = 2, 86_400

_PRINCIPAL_TEXT = re.compile(r"[A-Za-z0-9._/-]+")
_NAMESPACE_TEXT = re.compile(r"[a-z0-9-]+")
_HOST_TEXT = re.compile(r"[a-z0-9._-]+")
_IPV6_HOST = re.compile(r"\[[0-9a-f:.]+\]")
_METHOD_TEXT = re.compile(r"[A-Z0-9._-]+")
_PATH_TEXT = re.compile(r"[A-Za-z0-9._~!$&'()+,;=:@/%-]+")
_BROKEN_TRIPLET = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TRIPLET = re.compile(r"%[0-9A-Fa-f]{2}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DURATION = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})s)?")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class BadValue(Exception):  # never leaves this package: the reader makes a PolicyProblem of it
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def shown(text: str) -> str:
    """A value in a message: quoted, ASCII, of bounded length."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")


# Names


def dns_label(text: str) -> str:
    if not DNS_LABEL.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a DNS label", "use a-z, 0-9 and - (not at the ends), at most 63 of them")
    return text


def dns_subdomain(text: str) -> str:
    if len(text) > DNS_SUBDOMAIN_CHARS_MAX or not all(map(DNS_LABEL.fullmatch, text.split("."))):
        raise BadValue(f"{shown(text)} is not a DNS name", "use a-z, 0-9, - and . (not at the ends)")
    return text


def label_key(text: str) -> str:
    """Kubernetes: an optional DNS name and "/", then at most 63 characters."""
    prefix, slash, name = text.rpartition("/")
    if slash:
        dns_subdomain(prefix)
    if not (len(name) <= LABEL_CHARS_MAX and _LABEL_NAME.fullmatch(name)):
        raise BadValue(f"{shown(text)} is not a label's name", "use letters, digits, - _ and ., at most 63 of them")
    return text


def label_value(text: str) -> str:
    if text and not (len(text) <= LABEL_CHARS_MAX and _LABEL_NAME.fullmatch(text)):
        raise BadValue(
            f"{shown(text)} is not a label's value", "use letters, digits, - _ and ., at most 63 of them; no wildcards"
        )
    return text


def trust_domain(text: str) -> str:
    try:
        return TrustDomain.parse(text).name
    except CertsError as error:
        raise BadValue(str(error)) from None


# Fields of a source


def principal(text: str) -> str:
    if text.startswith(SCHEME):
        raise BadValue("principals are written without the scheme", f"write {shown(text.removeprefix(SCHEME))}")
    shape, rest = _shape(text)
    if rest and not _PRINCIPAL_TEXT.fullmatch(rest):
        raise BadValue(f"{shown(text)} has characters that no SPIFFE ID has")
    if rest.startswith("/") and shape is not Shape.SUFFIX:
        raise BadValue(f"{shown(text)} has no trust domain", "write mesh.local/ns/NAMESPACE/sa/NAME")
    if "//" in rest or (rest.endswith("/") and shape is not Shape.PREFIX):
        raise BadValue(f"{shown(text)} matches no SPIFFE ID: it has an empty segment")
    if shape is Shape.EXACT:
        try:
            SpiffeId.parse(SCHEME + text)
        except CertsError:
            raise BadValue(
                f"{shown(text)} is not a principal", "write mesh.local/ns/NAMESPACE/sa/NAME, or `*` at one end"
            ) from None
    return text


def namespace_pattern(text: str) -> str:
    shape, rest = _shape(text)
    if shape is Shape.EXACT:
        return dns_label(text)
    if rest and not (_NAMESPACE_TEXT.fullmatch(rest) and len(rest) <= LABEL_CHARS_MAX):
        raise BadValue(f"{shown(text)} matches no namespace", "use a-z, 0-9 and -, with `*` at one end")
    return text


# Fields of an operation


def host(text: str) -> str:
    shape, rest = _shape(text)
    lower = rest.lower()
    if shape is Shape.EXACT and _IPV6_HOST.fullmatch(lower):
        return text
    if ":" in rest:
        raise BadValue(f"{shown(text)} holds a port; hosts are matched without", "remove it and use `ports`")
    if rest and not _HOST_TEXT.fullmatch(lower):
        raise BadValue(f"{shown(text)} matches no host", "use letters, digits, . and -, with `*` at one end if needed")
    if lower.endswith(".") and shape is not Shape.PREFIX:
        raise BadValue(f"{shown(text)} ends with a dot; hosts are matched without", "remove the dot")
    return text


def port(text: str) -> str:
    if not (_PORT.fullmatch(text) and int(text) <= PORT_MAX):
        raise BadValue(f"{shown(text)} is not a port", "write a decimal number from 1 to 65535")
    return text


def method(text: str) -> str:
    _, rest = _shape(text)
    if rest and _METHOD_TEXT.fullmatch(rest.upper()) and rest != rest.upper():
        raise BadValue(f"{shown(text)}: methods are compared in upper case", f"write {shown(text.upper())}")
    if rest and not _METHOD_TEXT.fullmatch(rest):
        raise BadValue(f"{shown(text)} is not a method", "write GET, POST ...; a gRPC method is a path, sent with POST")
    return text


def path(text: str) -> str:
    if "{*}" in text or "{**}" in text:
        raise BadValue("path templates ({*}, {**}) are not yet supported", "use `prefix*` or `*suffix`")
    shape, rest = _shape(text)
    if shape is Shape.PRESENCE:
        return text
    if shape is not Shape.SUFFIX and not rest.startswith("/"):
        raise BadValue(f"{shown(text)} does not start with / or *", f"write {shown('/' + text)}")
    if "?" in rest or "#" in rest:
        raise BadValue(f"{shown(text)} holds a query; paths are matched without", "remove it")
    if not _PATH_TEXT.fullmatch(rest):
        raise BadValue(f"{shown(text)} has characters that no path has", "percent-encode them")
    _refuse_what_is_not_canonical(text, shape, rest)
    return text


def _refuse_what_is_not_canonical(text: str, shape: Shape, rest: str) -> None:
    """Paths are matched after normalisation (dots resolved, slashes merged, unreserved characters decoded)."""
    never = f"{shown(text)} never matches: paths are matched in their canonical form"
    segments = rest.split("/")
    if shape is Shape.PREFIX:
        segments = segments[:-1]  # `/.*` may begin /.well-known
    if shape is Shape.SUFFIX:
        segments = segments[1:]  # `*..` may end /a..
    if "//" in rest or "." in segments or ".." in segments:
        raise BadValue(never, "remove `//`, `/.` and `/..`")
    if _BROKEN_TRIPLET.search(rest):
        raise BadValue(never, "a % is followed by two hexadecimal digits")
    for triplet in _TRIPLET.findall(rest):
        octet = chr(int(triplet[1:], 16))
        if octet in "/\\\0":
            raise BadValue(never, f"remove {triplet}: requests that hold it are refused")
        if octet in _UNRESERVED:
            raise BadValue(never, f"write {octet} for {triplet}")
        if triplet != triplet.upper():
            raise BadValue(never, f"write {triplet.upper()} for {triplet}")


# MeshConfig


def duration_s(text: str) -> int:
    """Whole seconds of `1h`, `30s`, `1h30m`."""
    matched = _DURATION.fullmatch(text)
    if not text or not matched:
        raise BadValue(f"{shown(text)} is not a duration", "write 1h, 30m, 90s or 1h30m")
    hours, minutes, seconds = (int(group or 0) for group in matched.groups())
    return hours * 3600 + minutes * 60 + seconds


def certificate_lifetime_s(text: str) -> int:
    lifetime_s = duration_s(text)
    if not LIFETIME_S_MIN <= lifetime_s <= LIFETIME_S_MAX:
        raise BadValue(f"{shown(text)} is out of bounds", "write at least 2s and at most 24h")
    return lifetime_s


def _shape(text: str) -> tuple[Shape, str]:
    if len(text) > VALUE_CHARS_MAX:
        raise BadValue(f"longer than {VALUE_CHARS_MAX} characters")
    if not text:
        raise BadValue("is empty", "name a value, or remove it")
    try:
        return shape_of(text)
    except ValueError:
        raise BadValue(f"{shown(text)}: `*` may stand at one end only", "write exact, prefix*, *suffix or *") from None
