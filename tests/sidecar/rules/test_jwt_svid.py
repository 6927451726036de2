"""JWT-SVIDs: each requirement of the specification, one broken at a time; then any octets."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from certs.spiffe_id import TrustDomain
from sidecar.rules.jwt import TokenRefused
from sidecar.rules.jwt_keys import KeySetRefused
from sidecar.rules.jwt_svid import read_bundle, validate

NOW = 1_800_000_000.0
TD = TrustDomain.parse("mesh.local")
SUBJECT = "spiffe://mesh.local/ns/shop/sa/web"
KEY = ECKey.generate_key("P-256", {"kid": "one"})
OTHER = ECKey.generate_key("P-256", {"kid": "two"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
HEADER = {"alg": "ES256", "kid": "one", "typ": "JWT"}
CLAIMS = {"sub": SUBJECT, "aud": ["orders", "billing"], "iat": int(NOW) - 10, "exp": int(NOW) + 300}
ALGORITHMS = ["ES256", "ES384", "RS256", "PS256", "Ed25519", "EdDSA"]

Changes = dict[str, Any]


def bundle(*keys: ECKey | OKPKey | RSAKey, use: str = "jwt-svid") -> str:
    return json.dumps({"keys": [{**key.as_dict(private=False), "use": use} for key in keys]})


KEYS = read_bundle(bundle(KEY, ED, RSA))


def token(header: Changes | None = None, claims: Changes | None = None, key: Any = KEY) -> str:
    """A token with other fields; a value of None takes one away."""
    full = {name: value for name, value in {**HEADER, **(header or {})}.items() if value is not None}
    body = {name: value for name, value in {**CLAIMS, **(claims or {})}.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    return jws.serialize_compact(full, json.dumps(body).encode(), key, registry=registry)


def reason(made: str, audience: str = "orders") -> str:
    with pytest.raises(TokenRefused) as raised:
        validate(made, audience, KEYS, TD, NOW)
    return raised.value.reason


def test_a_good_one_says_who_and_what() -> None:
    """Any of its audiences may validate it."""
    for audience in ("orders", "billing"):
        valid = validate(token(), audience, KEYS, TD, NOW)
        assert str(valid.spiffe_id) == SUBJECT
        assert valid.claims["iat"] == int(NOW) - 10


@pytest.mark.parametrize(
    "made",
    [
        lambda: token({"typ": None}),
        lambda: token({"typ": "JOSE"}),
        lambda: token({"kid": None}),
        lambda: token(claims={"aud": "orders"}),
        lambda: token(claims={"iat": None}),
        lambda: token(claims={"iss": "https://anybody", "more": {"a": [1, None]}}),
        lambda: token({"alg": "RS256", "kid": "rsa"}, key=RSA),
        lambda: token({"alg": "PS256", "kid": "rsa"}, key=RSA),
    ],
)
def test_what_the_specification_leaves_open_is_taken(made: Callable[[], str]) -> None:
    """`typ`, `kid`, `iat` and `iss` are optional, and other claims are nobody's business."""
    assert str(validate(made(), "orders", KEYS, TD, NOW).spiffe_id) == SUBJECT


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"typ": "at+jwt"}, "token_type"),
        ({"alg": "ES384"}, "algorithm"),
        ({"alg": "none"}, "algorithm"),
        ({"kid": "two"}, "unknown_key"),
        ({"kid": "rsa"}, "algorithm"),
        ({"jku": "https://attacker"}, "header"),
        ({"x5c": ["a"]}, "header"),
        ({"cty": "JWT"}, "header"),
        ({"crit": ["exp"]}, "critical_header"),
    ],
)
def test_a_header_that_is_not_allowed_is_refused(header: Changes, why: str) -> None:
    """SPIFFE JWT-SVID section 2: three fields, and values of a short list."""
    head = base64.urlsafe_b64encode(json.dumps({**HEADER, **header}).encode()).rstrip(b"=").decode()
    assert reason(f"{head}.{token().partition('.')[2]}") == why


def test_keys_of_one_name_are_all_tried() -> None:
    """As while one takes the place of another: both count, a third does not (RFC 7517 section 4.5)."""
    twins = [ECKey.generate_key("P-256", {"kid": "one"}) for _ in range(3)]
    keys = read_bundle(bundle(*twins[:2]))
    for key in twins[:2]:
        assert str(validate(token(key=key), "orders", keys, TD, NOW).spiffe_id) == SUBJECT
    with pytest.raises(TokenRefused) as raised:
        validate(token(key=twins[2]), "orders", keys, TD, NOW)
    assert raised.value.reason == "signature"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_e09_a_time_is_finite(name: str, value: str) -> None:
    """A time that is later than any, or compares with none, is no end of a token's life."""
    body = json.dumps({**CLAIMS, name: 0.5}).replace("0.5", value)
    registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    made = jws.serialize_compact(HEADER, body.encode(), KEY, registry=registry)
    assert reason(made) in ("malformed", "excessive")


def test_e01_eddsa_is_no_algorithm_of_a_jwt_svid() -> None:
    """Although its key is there and the signature holds."""
    assert reason(token({"alg": "Ed25519", "kid": "ed"}, key=ED)) == "algorithm"


def test_e02_a_public_key_is_no_shared_secret() -> None:
    """HMAC over the published key."""
    head = base64.urlsafe_b64encode(json.dumps({**HEADER, "alg": "HS256"}).encode()).rstrip(b"=").decode()
    signed = f"{head}.{token().split('.')[1]}"
    mac = hmac.digest(KEY.as_pem(private=False), signed.encode(), "sha256")
    assert reason(f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}") == "algorithm"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"sub": None}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": "web"}, "subject"),
        ({"sub": "spiffe://mesh.local/../x"}, "subject"),
        ({"sub": "spiffe://other.local/ns/shop/sa/web"}, "trust_domain"),
        ({"aud": None}, "no_audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["orders", 7]}, "audience"),
        ({"aud": "orders2"}, "audience"),
        ({"exp": None}, "no_expiry"),
        ({"exp": "soon"}, "not_a_time"),
        ({"exp": int(NOW) - 61}, "expired"),
        ({"exp": int(NOW) + 90_000}, "lifetime"),
        ({"iat": int(NOW) + 120}, "not_yet_valid"),
        ({"nbf": int(NOW) + 120}, "not_yet_valid"),
    ],
)
def test_a_claim_that_is_missing_or_wrong_is_refused(claims: Changes, why: str) -> None:
    """Sections 3.1 to 3.3; a minute of leeway."""
    assert reason(token(claims=claims)) == why


def test_a_signature_of_another_key_is_refused() -> None:
    """Under the name of ours."""
    assert reason(token(key=OTHER)) == "signature"


def test_e14_a_token_that_is_too_large_is_refused() -> None:
    """Before anything in it is read."""
    assert reason(token(claims={"more": "a" * 8_192})) == "too_large"


def test_keys_for_another_use_are_passed_over() -> None:
    """Section 6.2: what is in a bundle for X.509 verifies no token; none at all is no bundle."""
    with pytest.raises(KeySetRefused):
        read_bundle(bundle(KEY, use="x509-svid"))
    with pytest.raises(KeySetRefused):
        read_bundle('{"keys": []}')
    assert len(read_bundle(bundle(KEY, OTHER)).keys) == 2


@given(st.data())
def test_no_changed_octet_leaves_a_token_valid(data: st.DataObject) -> None:
    """Each is signed, or is the signature; or the change is one of base64's idle bits, which is refused too."""
    made = token()
    at = data.draw(st.integers(0, len(made) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != made[at]))
    with pytest.raises(TokenRefused):
        validate(made[:at] + other + made[at + 1 :], "orders", KEYS, TD, NOW)


@given(st.text(max_size=300))
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    """TokenRefused, always."""
    with pytest.raises(TokenRefused):
        validate(text, "orders", KEYS, TD, NOW)
