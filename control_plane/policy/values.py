"""What the values of a policy may look like. One check a kind of value, each returning it or raising `BadValue`.

What can never match anything is refused too: a DENY on `//admin` would look like protection and be none, because paths
are matched in their canonical form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime

from certs.errors import CertsError
from certs.spiffe_id import SCHEME, SpiffeId, TrustDomain
from sidecar.rules.addresses import ipv6_host
from sidecar.rules.decode import TRUSTED_PROXIES_MAX, VALUE_CHARS_MAX
from sidecar.rules.decode_policies import TIMEOUT_S_MAX
from sidecar.rules.header_names import HEADER_NAME
from sidecar.rules.match import ANY_SEGMENTS, ONE_SEGMENT, Shape, is_template, shape_of
from sidecar.rules.routing import DNS_LABEL, PORT_MAX

Check = Callable[[str], str]

DNS_SUBDOMAIN_CHARS_MAX = 253
LABEL_CHARS_MAX = 63
LIFETIME_S_MIN, LIFETIME_S_MAX = 2, 86_400
TIMEOUT_S_MIN = 0.001

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
_COUNT = re.compile(r"0|[1-9][0-9]{0,4}")
_BLOCK = re.compile(r"[0-9a-fA-F.:]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_V4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_SERVICE_ACCOUNT = re.compile(r"[A-Za-z0-9._-]+")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]{8,15}(?:[Zz]|[+-][0-9]{2}:[0-9]{2})")
_TIMEOUT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)(ms|s|m)")
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


def service_account(own_namespace: str) -> Check:
    """ "NAMESPACE/NAME", or "NAME" in the policy's own namespace -> the former."""

    def check(text: str) -> str:
        namespace, slash, name = text.rpartition("/")
        if "*" in text:
            raise BadValue(f"{shown(text)}: service accounts are matched exactly", "use principals to match a pattern")
        if not _SERVICE_ACCOUNT.fullmatch(name) or name in (".", "..") or len(name) > DNS_SUBDOMAIN_CHARS_MAX:
            raise BadValue(f"{shown(text)} is not a service account", "write NAMESPACE/NAME, or NAME")
        return f"{dns_label(namespace) if slash else own_namespace}/{name}"

    return check


def block(text: str) -> str:
    """A CIDR block (RFC 4632) or an address, in the one spelling that the evaluator compares (security.md H11, C29)."""
    if not text:
        raise BadValue("is empty", "name a value, or remove it")
    refused = BadValue(f"{shown(text)} is neither an address nor a CIDR block", "write 10.1.2.3 or 10.0.0.0/8")
    if len(text) > VALUE_CHARS_MAX or not _BLOCK.fullmatch(text):
        raise refused
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise refused from None
    if str(network.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise BadValue(f"{shown(text)} has bits set behind the prefix", f"write {network} or {text.partition('/')[0]}")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_V4_MAPPED):
        # Mapped addresses are compared as the IPv4 they are.
        v4 = network.network_address.ipv4_mapped
        assert v4 is not None
        network = ipaddress.IPv4Network((v4, network.prefixlen - 96))
    return str(network) if "/" in text else str(network.network_address)


def exact(text: str) -> str:
    """Printable ASCII, compared octet by octet."""
    if not text.isascii():
        raise BadValue(f"{shown(text)} has characters that are not ASCII")
    return printable(text)


def printable(text: str) -> str:
    """What an issuer writes, in whatever alphabet; compared as it is."""
    if not text:
        raise BadValue("is empty", "name a value, or remove it")
    if len(text) > VALUE_CHARS_MAX:
        raise BadValue(f"longer than {VALUE_CHARS_MAX} characters")
    if not text.isprintable():
        raise BadValue(f"{shown(text)} has characters that are not printable")
    if text != text.strip():
        raise BadValue(f"{shown(text)} begins or ends with a space", "remove it")
    return text


def pattern(text: str) -> str:
    """Printable ASCII in one of the four shapes."""
    _shape(text)
    return exact(text)


def claim_pattern(text: str) -> str:
    """The same of what an issuer writes."""
    _shape(text)
    return printable(text)


def header_name(text: str) -> str:
    """In lower case."""
    if not HEADER_NAME.fullmatch(text):
        raise BadValue(f"{shown(text)} is not the name of a header", "write one such as x-token")
    return text.lower()


# Fields of an operation


def host(text: str) -> str:
    """An IPv6 address in the one spelling that requests have."""
    shape, rest = _shape(text)
    lower = rest.lower()
    if shape is Shape.EXACT and _IPV6_HOST.fullmatch(lower):
        try:
            return f"[{ipv6_host(lower[1:-1])}]"
        except ValueError:
            raise BadValue(f"{shown(text)} is not an IPv6 address", "write [2001:db8::1]") from None
    if ":" in rest:
        raise BadValue(f"{shown(text)} holds a port; hosts are matched without", "remove it and use `ports`")
    if rest and not _HOST_TEXT.fullmatch(lower):
        raise BadValue(f"{shown(text)} matches no host", "use letters, digits, . and -, with `*` at one end if needed")
    if lower.endswith(".") and shape is not Shape.PREFIX:
        raise BadValue(f"{shown(text)} ends with a dot; hosts are matched without", "remove the dot")
    if ".." in rest or (rest.startswith(".") and shape is not Shape.SUFFIX):
        raise BadValue(f"{shown(text)} matches no host: it has an empty label", "remove the dot")
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


def server_name(text: str) -> str:
    """Of the TLS handshake (RFC 6066 section 3): a DNS name, compared in lower case."""
    if text.startswith("["):
        raise BadValue(f"{shown(text)} is an address, and nobody asks for one by name", "name a host")
    return host(text).lower()


def path(text: str) -> str:
    if is_template(text) or "}" in text:
        return _template(text)
    shape, rest = _shape(text)
    if shape is Shape.PRESENCE:
        return text
    if shape is not Shape.SUFFIX and not rest.startswith("/"):
        raise BadValue(f"{shown(text)} does not start with / or *", f"write {shown('/' + text)}")
    _check_path_text(text, rest)
    _refuse_what_is_not_canonical(text, shape, rest)
    return text


def _template(text: str) -> str:
    """Istio's rules for them: {*} and {**} are whole segments, {**} is the last of them, and there is no other `*`."""
    if len(text) > VALUE_CHARS_MAX:
        raise BadValue(f"longer than {VALUE_CHARS_MAX} characters")
    if not text.startswith("/"):
        raise BadValue(f"{shown(text)} does not start with /", f"write {shown('/' + text)}")
    segments = text.split("/")
    operators = [one for one in segments if one in (ONE_SEGMENT, ANY_SEGMENTS)]
    literal = "/".join("x" if one in (ONE_SEGMENT, ANY_SEGMENTS) else one for one in segments)
    if any(char in literal for char in "{}*"):
        raise BadValue(f"{shown(text)}: in a template {{*}} and {{**}} are whole segments, and there is no other `*`")
    if ANY_SEGMENTS in operators[:-1]:
        raise BadValue(f"{shown(text)}: after {{**}} comes no other {{*}} or {{**}}", "use {*} for one segment")
    _check_path_text(text, literal)
    _refuse_what_is_not_canonical(text, Shape.EXACT, literal)
    return text


def _check_path_text(text: str, rest: str) -> None:
    if "?" in rest or "#" in rest:
        raise BadValue(f"{shown(text)} holds a query; paths are matched without", "remove it")
    if not _PATH_TEXT.fullmatch(rest):
        raise BadValue(f"{shown(text)} has characters that no path has", "percent-encode them")


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


def timeout_s(text: str) -> float:
    """Seconds of `5s`, `1.5s`, `500ms`."""
    matched = _TIMEOUT.fullmatch(text)
    if not matched:
        raise BadValue(f"{shown(text)} is not a duration", "write 5s or 500ms")
    seconds = float(matched[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[matched[2]]
    if not TIMEOUT_S_MIN <= seconds <= TIMEOUT_S_MAX:
        raise BadValue(f"{shown(text)} is out of bounds", f"write at least 1ms and at most {TIMEOUT_S_MAX:.0f}s")
    return seconds


def proxies_count(text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) > TRUSTED_PROXIES_MAX:
        raise BadValue(f"{shown(text)} is out of bounds", f"write a number from 0 to {TRUSTED_PROXIES_MAX}")
    return int(text)


# Annotations


def point_in_time(text: str) -> float:
    """RFC 3339, with its offset -> Unix seconds."""
    refused = BadValue(f"{shown(text)} is not a time", "write 2026-12-31T00:00:00Z")
    if not _TIME.fullmatch(text):
        raise refused
    try:
        seconds = datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise refused from None
    if seconds <= 0:
        raise refused
    return seconds


def comma_separated(text: str, check: Check) -> tuple[str, ...]:
    """At least one, each checked, none twice."""
    found = [check(one.strip(" ")) for one in text.split(",")]
    return tuple(dict.fromkeys(found))


def _shape(text: str) -> tuple[Shape, str]:
    if len(text) > VALUE_CHARS_MAX:
        raise BadValue(f"longer than {VALUE_CHARS_MAX} characters")
    if not text:
        raise BadValue("is empty", "name a value, or remove it")
    try:
        return shape_of(text)
    except ValueError:
        raise BadValue(f"{shown(text)}: `*` may stand at one end only", "write exact, prefix*, *suffix or *") from None
