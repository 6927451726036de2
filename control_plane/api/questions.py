"""What Explain is asked, as facts: read strictly, and made canonical as a sidecar makes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.errors import InvalidRequest
from protos.hauberk.v1 import config_pb2 as pb
from protos.hauberk.v1 import discovery_pb2
from sidecar.rules.addresses import canonical_address
from sidecar.rules.authz import Facts, Token
from sidecar.rules.errors import PathError
from sidecar.rules.facts import Json
from sidecar.rules.header_names import HEADER_NAME
from sidecar.rules.jwt_json import Refused, read_object
from sidecar.rules.match import host_of
from sidecar.rules.paths import canonical
from sidecar.rules.snapshot import Snapshot

PLAINTEXT = "plaintext"
"""As `from_identity`: nobody authenticated."""
PATH_CHARACTERS_MAX = 8_192
HEADERS_MAX = 100
VALUE_CHARACTERS_MAX = 8_192
CLAIMS_CHARACTERS_MAX = 65_536

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]{1,64}")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_AS_IN_POLICIES = re.compile(r"[^/]+/ns/[^/]+/sa/[^/]+")
"""A principal as policies write it: mesh.local/ns/shop/sa/web."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request as a sidecar would see it."""

    facts: Facts
    """Without its token, which depends on who takes it: see `claims`."""
    claims: Mapping[str, Json] | None
    notes: tuple[str, ...]


def read_question(request: pb.ExplainRequest, principal: SpiffeId | None, service: str, port: int) -> Question:
    """Raises InvalidRequest with the way out."""
    method = request.method or "GET"
    if not _METHOD.fullmatch(method):
        raise InvalidRequest(f"method: {method[:80]!r} is no method; they are written in upper case, such as GET")
    typed = request.path or "/"
    path = _path(typed, method)
    notes: tuple[str, ...] = () if path == typed else (f"the path is judged as {path}",)
    if not request.claims_json and any(one.name.lower() == "authorization" for one in request.headers):
        notes += ("a token is not read from a header here: say what it holds with --claim or --claims",)
    facts = Facts(
        principal=principal,
        host=host_of(request.host) if request.host else service,
        port=port,
        method=method,
        path=path,
        source_ip=_address(request.source_ip, "source_ip"),
        remote_ip=_address(request.remote_ip, "remote_ip") or None,
        destination_ip=_address(request.destination_ip, "destination_ip"),
        sni=request.sni.lower().rstrip("."),
        headers=_headers(request.headers),
    )
    return Question(facts, _claims(request.claims_json), notes)


def read_principal(text: str, trust_domain: TrustDomain) -> SpiffeId | None:
    """Raises InvalidRequest."""
    if text == PLAINTEXT:
        return None
    try:
        if text.startswith("spiffe://"):
            return SpiffeId.parse(text)
        if _AS_IN_POLICIES.fullmatch(text):
            return SpiffeId.parse(f"spiffe://{text}")
        namespace, slash, service_account = text.partition("/")
        if not slash:
            raise InvalidRequest(
                f'from: {text[:80]!r} has no namespace; write "namespace/service-account", or "plaintext" for nobody'
            )
        return SpiffeId.for_workload(trust_domain, namespace, service_account)
    except CertsError as error:
        raise InvalidRequest(
            f'from: {error}; write "namespace/service-account" or a SPIFFE ID such as'
            f" spiffe://{trust_domain}/ns/shop/sa/web"
        ) from error


def reported_facts(asked: discovery_pb2.Asked, snapshot: Snapshot) -> Facts:
    """What a sidecar reported. Headers that it hides are there without a value."""
    try:
        principal = SpiffeId.parse(asked.principal) if asked.principal else None
    except CertsError:
        principal = None  # it is shown as it was reported; no policy names it
    try:
        claims = read_object(asked.claims_json.encode()) if asked.claims_json else None
    except Refused:
        claims = None
    return Facts(
        principal=principal,
        host=asked.host,
        port=asked.port,
        method=asked.method,
        path=asked.path,
        source_ip=asked.source_ip,
        remote_ip=asked.remote_ip or None,
        destination_ip=asked.destination_ip,
        sni=asked.sni,
        headers=tuple((one.name, one.value) for one in asked.headers),
        token=None if claims is None else token_of(claims, snapshot),
    )


def token_of(claims: Mapping[str, Json], snapshot: Snapshot) -> Token:
    """As a sidecar would take it from a token with these claims."""
    issuer, audiences = _text(claims, "iss"), claims.get("aud", ())
    rules = [rule for one in snapshot.request_authentications for rule in one.jwt_rules if rule.issuer == issuer]
    lists = {claim for rule in rules for claim in rule.space_delimited_claims}
    return Token(
        issuer=issuer,
        subject=_text(claims, "sub"),
        audiences=(audiences,)
        if isinstance(audiences, str)
        else tuple(one for one in audiences if isinstance(one, str))
        if isinstance(audiences, tuple)
        else (),
        presenter=_text(claims, "azp"),
        claims=claims,
        expires_at=0.0,
        space_delimited=frozenset({"scope", "permission", *lists}),
    )


def not_taken(token: Token, snapshot: Snapshot) -> str:
    """Why a real token with these claims would not be taken, whatever policy says; "": it would be."""
    rules = [rule for one in snapshot.request_authentications for rule in one.jwt_rules if rule.issuer == token.issuer]
    if not token.issuer:
        return "the claims name no issuer (iss): a real token without one is not taken"
    if not rules:
        return f"no RequestAuthentication here takes tokens of {token.issuer}: a real one would not count"
    if not any(not rule.audiences or set(rule.audiences) & set(token.audiences) for rule in rules):
        audiences = ", ".join(token.audiences) or "nobody"
        return f"no RequestAuthentication here takes tokens for {audiences}: a real one is answered 401"
    return ""


def _text(claims: Mapping[str, Json], name: str) -> str:
    value = claims.get(name, "")
    return value if isinstance(value, str) else ""


def _path(typed: str, method: str) -> str:
    """As a sidecar reads it."""
    if len(typed) > PATH_CHARACTERS_MAX:
        raise InvalidRequest(f"path: has more than {PATH_CHARACTERS_MAX} characters")
    try:
        return canonical(typed.encode("utf-8", "surrogateescape"), method.encode("ascii")).path
    except PathError as error:
        raise InvalidRequest(
            f"path: {error.problem} (row {error.row}): a sidecar answers 400 and asks no policy; percent-encode what"
            " has no place in a path"
        ) from error


def _address(text: str, field: str) -> str:
    address = canonical_address(text)
    if text and not address:
        raise InvalidRequest(f"{field}: {text[:80]!r} is no IP address; write one, such as 10.0.0.7 or 2001:db8::7")
    return address


def _headers(given: Iterable[pb.RequestHeader]) -> tuple[tuple[str, str], ...]:
    headers = []
    for one in given:
        name = one.name.lower()
        if not HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"headers: {one.name[:80]!r} is no header's name; write 'name: value'")
        value = one.value.strip(" \t")
        if len(value) > VALUE_CHARACTERS_MAX or not _VALUE.fullmatch(value):
            raise InvalidRequest(f"headers: the value of {name} is too long or holds control characters")
        headers.append((name, value))
    if len(headers) > HEADERS_MAX:
        raise InvalidRequest(f"headers: more than {HEADERS_MAX}")
    return tuple(headers)


def _claims(text: str) -> Mapping[str, Json] | None:
    if not text:
        return None
    if len(text) > CLAIMS_CHARACTERS_MAX:
        raise InvalidRequest(f"claims: more than {CLAIMS_CHARACTERS_MAX} characters")
    try:
        return read_object(text.encode("utf-8", "surrogateescape"))
    except Refused as error:
        raise InvalidRequest(
            f"""claims: {error}; write an object, such as '{{"iss": "https://id.example", "sub": "ann"}}'"""
        ) from error
