"""Which headers a policy may look at, take a token from or set: what `sidecar.http.headers` does with them decides.

A condition on a header that is refused or removed at the border could never match: as a DENY it would protect nothing,
so it is no policy. tests/sidecar/rules/test_header_names.py holds these tables against what the border does.
"""

from __future__ import annotations

import re

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""RFC 9110 section 5.1."""

# As `sidecar.http.fields.folded`: CGI and WSGI turn `_` into `-`; some servers all of these.
_LIKE_A_DASH = str.maketrans(dict.fromkeys("!#$%&'*+.^_`|~", "-"))

_OCTETS_LIKE_A_DASH = bytes.maketrans(b"!#$%&'*+.^_`|~", b"-" * 14)

_OF_CONNECTIONS = frozenset({
    "connection", "http2-settings", "keep-alive", "proxy-authorization", "proxy-connection", "transfer-encoding",
    "upgrade",
})  # fmt: skip
_NOT_SEEN = {
    "host": "use hosts in `to`",
    "traceparent": "it is the mesh's own",
    **dict.fromkeys(_OF_CONNECTIONS, "it is about one connection, and no request is judged with it"),
}
_NEVER_A_TOKEN = _OF_CONNECTIONS | {"content-length", "host", "te", "traceparent", "trailer"}
# What frames, routes or authenticates a message, says who sent it, or means another method.
_NOT_TO_BE_SET = _NEVER_A_TOKEN | {
    "authorization", "content-encoding", "content-type", "cookie", "expect", "forwarded", "hauberk-decision-id",
    "tracestate", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-http-method",
    "x-http-method-override", "x-method-override",
}  # fmt: skip


def folded(name: str) -> str:
    """One spelling for all that an app may take for the same header."""
    return name.translate(_LIKE_A_DASH)


def folded_octets(name: bytes) -> bytes:
    """The same of a name as it arrived."""
    return name.translate(_OCTETS_LIKE_A_DASH)


def is_identity(name: str) -> bool:
    """Does only the mesh say this header, so that whatever comes in by its name is removed? (rows D01, D02)"""
    name = folded(name)
    return name.startswith("x-hauberk") or name == "x-forwarded-client-cert"


def why_not_seen(name: str) -> str:
    """Why no request has this header when it is judged, in words for the author of a policy; "" if it may have it.

    Here and below `name` is in lower case."""
    if is_identity(name):
        return "only the mesh sets it, after the decision; use principals in `from`"
    return _NOT_SEEN.get(name, "")


def may_carry_token(name: str) -> bool:
    """Can a token stand in this header, and reach whoever verifies it?"""
    return name not in _NEVER_A_TOKEN and not is_identity(name)


def may_be_set(name: str) -> bool:
    """May what a token says be put into this header? Not if an app or a sidecar takes it for something else."""
    return folded(name) not in _NOT_TO_BE_SET and not is_identity(name)
