"""Is this token what it says? `verify` answers, strictly: one reading of every byte, everything required is there.

Theory of operation
-------------------
A token is cut, decoded and read strictly (`jwt_json`) before anything in it is believed; then its issuer finds the
rules that may take it; then, per rule, claims are checked, which costs nothing, and at last the signature, with a key
of that issuer and the algorithm of that key (`jwt_keys`). Nothing in a token says where keys are: `jku`, `x5u`, `jwk`
and `x5c` are never looked at (security.md E05).

Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (best practices), RFC 9068 (access tokens), and Istio's
RequestAuthentication (https://istio.io/latest/docs/reference/config/security/jwt/). We are stricter than Istio:
`exp`, `iss` and `aud` are required, a token lives a day at most, JSON is read strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sidecar.rules.facts import Json, Token
from sidecar.rules.jwt_json import Duplicate, Excessive, Refused, read_base64url, read_object
from sidecar.rules.jwt_keys import ALGORITHMS, KeySet
from sidecar.rules.snapshot import JwtRule

TOKEN_OCTETS_MAX = 8_192
LEEWAY_S = 60.0
"""By how much clocks may differ."""
LIFETIME_S_MAX = 86_400.0
KEYS_TRIED_MAX = 8
"""For a token that names no key."""

_ABSENT = "\0absent"

Keys = Callable[[JwtRule], KeySet | None]
"""What a rule's issuer published; None: not known now."""


class TokenRefused(Exception):
    """A token that is not taken. `reason` is a constant word, `row` its row in the catalogue of bad inputs."""

    def __init__(self, row: str, reason: str) -> None:
        super().__init__(f"{reason} ({row})")
        self.row = row
        self.reason = reason


class UnknownKey(TokenRefused):
    """Signed with a key its issuer has not published, as far as we know. `rules`: whose keys could be asked for."""

    def __init__(self, rules: Sequence[JwtRule]) -> None:
        super().__init__("E22", "unknown_key")
        self.rules = tuple(rules)


class KeysMissing(Exception):
    """It cannot be told: the keys of these rules are not known. Never a yes (E19)."""

    def __init__(self, rules: Sequence[JwtRule]) -> None:
        super().__init__("the issuer's keys are not known")
        self.rules = tuple(rules)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verified:
    """A token that holds, and why."""

    token: Token
    rule: JwtRule
    keys: KeySet
    """The set that had its key."""
    payload: str
    """base64url, as it was signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """A token as it reads. Nothing of it is true yet."""

    algorithm: str
    kid: str | None
    kind: str
    """`typ`, lower case, without "application/"; empty: none."""
    header_names: frozenset[str]
    claims: Mapping[str, Json]
    payload: str
    signing_input: bytes
    signature: bytes


def verify(token: str, rules: Sequence[JwtRule], keys: Keys, now: float) -> Verified:
    """The token, verified by the first of `rules` that takes it, at `now` (Unix seconds).

    Raises TokenRefused (UnknownKey is one), or KeysMissing when one of the rules might take it if its keys were known.
    """
    read = read_token(token)
    issuer = read.claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise TokenRefused("E07", "no_issuer")
    ours = [rule for rule in rules if rule.issuer == issuer]
    if not ours:
        near = any(rule.issuer.rstrip("/") == issuer.rstrip("/") for rule in rules)
        raise TokenRefused("E12" if near else "E18", "unlisted_issuer")
    first: TokenRefused | None = None
    without_keys: list[JwtRule] = []
    with_other_keys: list[JwtRule] = []
    for rule in ours:
        try:
            return _by_rule(read, rule, keys(rule), issuer, now)
        except KeysMissing:
            without_keys.append(rule)
        except UnknownKey:
            with_other_keys.append(rule)
        except TokenRefused as e:
            first = first or e
    if without_keys:
        raise KeysMissing(without_keys)
    if with_other_keys:
        raise UnknownKey(with_other_keys)
    assert first is not None
    raise first


def read_token(token: str) -> Unverified:
    """Raises TokenRefused."""
    if len(token) > TOKEN_OCTETS_MAX:
        raise TokenRefused("E14", "too_large")
    segments = token.split(".")
    if len(segments) != 3:
        raise TokenRefused("E16", "malformed")
    try:
        header_octets, payload_octets, signature = map(read_base64url, segments)
        header, claims = read_object(header_octets), read_object(payload_octets)
    except Refused as e:
        _refuse_form(e)
    algorithm, kid, kind = header.get("alg"), header.get("kid", _ABSENT), header.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused("E02" if str(algorithm)[:2].upper() == "HS" else "E01", "algorithm")
    if "crit" in header or "b64" in header:  # RFC 7515 section 4.1.11: what we do not know we must not skip
        raise TokenRefused("E06", "critical_header")
    if not isinstance(kid, str) or not isinstance(kind, str):
        raise TokenRefused("E04", "malformed")
    return Unverified(
        algorithm=algorithm,
        kid=None if kid is _ABSENT else kid,
        kind=kind.lower().removeprefix("application/"),
        header_names=frozenset(header),
        claims=claims,
        payload=segments[1],
        signing_input=f"{segments[0]}.{segments[1]}".encode("ascii"),
        signature=signature,
    )


def _refuse_form(fault: Refused) -> NoReturn:
    if isinstance(fault, Duplicate):
        raise TokenRefused("E13", "duplicate_name") from None
    if isinstance(fault, Excessive):
        raise TokenRefused("E15", "excessive") from None
    raise TokenRefused("E16", "malformed") from None


def _by_rule(read: Unverified, rule: JwtRule, keys: KeySet | None, issuer: str, now: float) -> Verified:
    """Raises TokenRefused, KeysMissing."""
    claims = read.claims
    if rule.token_types and read.kind not in rule.token_types:
        raise TokenRefused("E24", "token_type")
    audiences = read_audiences(claims)
    if rule.audiences and not any(one in rule.audiences for one in audiences):
        raise TokenRefused("E11", "audience")
    subject, presenter = claims.get("sub", ""), claims.get("azp", "")
    if not isinstance(subject, str):
        raise TokenRefused("E16", "malformed")
    expires_at = check_times(claims, now)
    if keys is None:
        raise KeysMissing((rule,))
    _check_signature(read, rule, keys)
    token = Token(
        issuer=issuer,
        subject=subject,
        audiences=audiences,
        presenter=presenter if isinstance(presenter, str) else "",
        claims=claims,
        expires_at=expires_at,
        space_delimited=frozenset({"scope", "permission", *rule.space_delimited_claims}),
    )
    return Verified(token=token, rule=rule, keys=keys, payload=read.payload)


def read_audiences(claims: Mapping[str, Json]) -> tuple[str, ...]:
    """RFC 7519 section 4.1.3: one text, or a list of them. Here at least one."""
    if "aud" not in claims:
        raise TokenRefused("E07", "no_audience")
    found = claims["aud"]
    audiences = (found,) if isinstance(found, str) else found
    if not isinstance(audiences, tuple) or not audiences:
        raise TokenRefused("E11", "audience")
    texts = tuple(one for one in audiences if isinstance(one, str) and one)
    if len(texts) != len(audiences):
        raise TokenRefused("E11", "audience")
    return texts


def check_times(claims: Mapping[str, Json], now: float) -> float:
    """When it ends, Unix seconds (RFC 7519 sections 4.1.4 to 4.1.6)."""
    if "exp" not in claims:
        raise TokenRefused("E07", "no_expiry")
    expires_at = _time(claims, "exp", now)
    issued_at, not_before = (_time(claims, name, now) for name in ("iat", "nbf"))
    if now >= expires_at + LEEWAY_S:
        raise TokenRefused("E08", "expired")
    if "iat" in claims and issued_at > now + LEEWAY_S:
        raise TokenRefused("E08", "not_yet_valid")
    if "nbf" in claims and not_before > now + LEEWAY_S:
        raise TokenRefused("E08", "not_yet_valid")
    began_at = min(issued_at, now)  # what would live for years does not become good on its last day
    if expires_at - began_at > LIFETIME_S_MAX + LEEWAY_S:
        raise TokenRefused("E10", "lifetime")
    return expires_at


def _time(claims: Mapping[str, Json], name: str, absent: float) -> float:
    value = claims.get(name, absent)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused("E09", "not_a_time")
    return float(value)


def _check_signature(read: Unverified, rule: JwtRule, keys: KeySet) -> None:
    candidates = keys.candidates(read.kid)
    if not candidates:
        raise UnknownKey((rule,))
    fitting = [key for key in candidates if read.algorithm in key.algorithms]
    if not fitting:
        raise TokenRefused("E03", "algorithm")
    if not any(key.verifies(read.signing_input, read.signature, read.algorithm) for key in fitting[:KEYS_TRIED_MAX]):
        raise TokenRefused("E16", "signature")
