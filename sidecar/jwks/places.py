"""Where tokens are looked for in a request's head, and what is taken out of it.

A request has one token in one place. Two are refused, whatever they say: the app might believe the other one
(security.md E17; RFC 6750 section 2; Istio calls it undefined). Places are those the rules name and no others: unlike
Istio, `access_token` in the query is none of them unless a rule says so, because queries end up in logs.

The headers that carry verified claims to the app are taken out of every request, in every spelling an app may take for
them, also when there is no token: the app must be able to believe them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from sidecar.http.fields import folded
from sidecar.http.headers import RequestHead
from sidecar.http.session import Field
from sidecar.rules.jwt import TokenRefused
from sidecar.rules.snapshot import JwtRule

DEFAULT = (("authorization", "Bearer "),)
AUTHORIZATION = b"authorization"


@dataclass(frozen=True, slots=True)
class Place:
    """One kind of place, by name: "header", "param" or "cookie"."""

    kind: str
    name: bytes
    prefix: bytes = b""
    """What stands before the token, lower case; of headers only."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Presented:
    """A token as somebody showed it. Nothing is known of it."""

    text: str
    place: Place
    remove: Callable[[RequestHead], None]
    """Takes it out of the head."""

    def __repr__(self) -> str:
        return f"<Presented in {self.place.kind} {self.place.name.decode()}>"  # never the token


class Places:
    """Of all rules of one snapshot."""

    def __init__(self, rules: Iterable[JwtRule]) -> None:
        self._rules: dict[Place, tuple[JwtRule, ...]] = {}
        for rule in rules:
            for place in _places_of(rule):
                self._rules[place] = (*self._rules.get(place, ()), rule)
        by_length = sorted(self._rules, key=lambda place: len(place.prefix), reverse=True)
        self._headers: dict[bytes, list[Place]] = {}
        for place in by_length:
            if place.kind == "header":
                self._headers.setdefault(place.name, []).append(place)
        self._params = {place.name: place for place in by_length if place.kind == "param"}
        self._cookies = {place.name: place for place in by_length if place.kind == "cookie"}
        self._by_folded = {folded(name): name for name in self._headers}
        self.folded_headers = frozenset(self._by_folded)

    def rules(self, place: Place) -> Sequence[JwtRule]:
        """Who takes tokens from there."""
        return self._rules.get(place, ())

    def find(self, head: RequestHead) -> Presented | None:
        """The token of a request, if it has one. Raises TokenRefused if it has several, or something like one."""
        found: list[Presented] = []
        seen: set[bytes] = set()
        for field in head.fields:
            name, value = field
            if name in self._headers:
                if name in seen:
                    raise TokenRefused("E17", "several_tokens")
                seen.add(name)
                self._in_header(field, found)
            elif name == b"cookie" and self._cookies:
                self._in_cookies(value, found)
        if self._params and b"?" in head.target:
            self._in_query(head.target, found)
        if len(found) > 1:
            raise TokenRefused("E17", "several_tokens")
        return found[0] if found else None

    def is_alias(self, name: bytes) -> bool:
        """Would an app that reads CGI variables take this field for one we look for tokens in?"""
        known = self._by_folded.get(folded(name))
        return known is not None and known != name

    def _in_header(self, field: Field, found: list[Presented]) -> None:
        name, value = field
        for place in self._headers[name]:
            text = _after_prefix(place, value)
            if text is not None:
                found.append(_presented(text, place, _drop))
                return

    def _in_cookies(self, value: bytes, found: list[Presented]) -> None:
        for crumb in value.split(b";"):
            name, _, text = crumb.strip(b" \t").partition(b"=")
            place = self._cookies.get(name)
            if place is not None:
                found.append(_presented(text.strip(b'"'), place, _drop_cookie))

    def _in_query(self, target: bytes, found: list[Presented]) -> None:
        for pair in target.partition(b"?")[2].split(b"&"):
            name, text = _decoded(pair)
            place = self._params.get(name)
            if place is not None:
                found.append(_presented(text, place, _drop_param))


def _presented(text: bytes, place: Place, remove: Callable[[RequestHead, bytes], None]) -> Presented:
    return Presented(text=text.decode("latin-1"), place=place, remove=lambda head: remove(head, place.name))


def _places_of(rule: JwtRule) -> Iterable[Place]:
    headers = rule.from_headers
    if not (headers or rule.from_params or rule.from_cookies):
        headers = DEFAULT
    for name, prefix in headers:
        yield Place("header", name.encode(), prefix.lower().encode())
    for name in rule.from_params:
        yield Place("param", name.encode())
    for name in rule.from_cookies:
        yield Place("cookie", name.encode())


def _after_prefix(place: Place, value: bytes) -> bytes | None:
    """What follows the prefix; None if the value is of another kind. Schemes have no case (RFC 9110 section 11.1), and
    one without anything behind it is a token all the same, an empty one."""
    if value[: len(place.prefix)].lower() == place.prefix:
        return value[len(place.prefix) :]
    scheme = place.prefix.rstrip(b" ")
    if scheme and scheme != place.prefix and value[: len(scheme)].lower() == scheme:
        rest = value[len(scheme) :]
        if not rest or rest[:1] in (b" ", b"\t", b",", b"="):
            return b""
    return None


def _decoded(pair: bytes) -> tuple[bytes, bytes]:
    name, _, value = pair.partition(b"=")
    return unquote_to_bytes(name.replace(b"+", b" ")), unquote_to_bytes(value)


def _drop(head: RequestHead, name: bytes) -> None:
    head.fields = [field for field in head.fields if field[0] != name]


def _drop_cookie(head: RequestHead, name: bytes) -> None:
    fields: list[Field] = []
    for field in head.fields:
        if field[0] != b"cookie":
            fields.append(field)
            continue
        crumbs = [one for one in field[1].split(b";") if one.strip(b" \t").partition(b"=")[0] != name]
        if crumbs:
            fields.append((b"cookie", b";".join(crumbs).strip(b" \t")))
    head.fields = fields


def _drop_param(head: RequestHead, name: bytes) -> None:
    path, _, query = head.target.partition(b"?")
    pairs = [pair for pair in query.split(b"&") if _decoded(pair)[0] != name]
    head.target = b"%s?%s" % (path, b"&".join(pairs)) if pairs else path
