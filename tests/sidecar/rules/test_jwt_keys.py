"""Key sets as issuers publish them, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.jwt_keys import KEYS_MAX, KeySetRefused, read_key_set
from tests.sidecar.jwks.tokens import SigningKey, b64, b64_number, key_set

EC = SigningKey("ES256")
RSA = SigningKey("RS256")


def test_keys_are_found_by_their_names() -> None:
    """Several may have one name (RFC 7517 section 4.5), and one may have none."""
    found = read_key_set(key_set(EC, RSA, SigningKey(kid=None)))
    assert [len(found.candidates(kid)) for kid in ("k1", "other", None)] == [2, 1, 3]


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "AAAA"},
        EC.jwk(use="enc"),
        EC.jwk(key_ops=["sign"]),
        EC.jwk(key_ops="verify"),
        EC.jwk(alg="ES384"),
        EC.jwk(alg="ES256K"),
        EC.jwk(alg=["ES256"]),
        EC.jwk(crv="secp256k1"),
        EC.jwk(crv=["P-256"]),
        EC.jwk(crv="P-384"),
        EC.jwk(x=b64(bytes(32)), y=b64(bytes(32))),
        EC.jwk(x=None),
        EC.jwk(x=7),
        EC.jwk(x=EC.jwk()["x"] + "="),
        EC.jwk(kid=7),
        EC.jwk(kid=""),
        EC.jwk(kid="x" * 1_025),
        EC.jwk(d="AAAA"),
        EC.jwk(kty=["EC"]),
        RSA.jwk(alg="HS256"),
        RSA.jwk(alg="RSA-OAEP"),
        RSA.jwk(n=b64_number(2**1023 + 1)),
        RSA.jwk(n=b64_number(2**8192 + 1)),
        RSA.jwk(e=b64_number(2**64 + 1)),
        RSA.jwk(e=b64_number(2)),
        RSA.jwk(p="AAAA"),
        SigningKey("EdDSA").jwk(x=b64(bytes(31))),
        SigningKey("EdDSA").jwk(crv="X25519"),
        "text",
        None,
        [],
    ],
)
def test_a_key_that_cannot_be_used_is_passed_over(jwk: Any) -> None:
    """RFC 7517 section 5; weak ones, secret ones and those for other purposes with it."""
    found = read_key_set(key_set(jwk, SigningKey("EdDSA", "good")))
    assert [key.kid for key in found.keys] == ["good"]
    assert found.skipped == 1
    with pytest.raises(KeySetRefused, match="no key that verifies"):
        read_key_set(key_set(jwk))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "has no list `keys`"),
        ('{"keys": {}}', "has no list `keys`"),
        ('{"keys": []}', "has no key"),
        ('{"keys": [], "keys": []}', "has a name twice"),
        ("{" + " " * 1_048_576 + "}", "is larger than"),
        (json.dumps({"keys": [{}] * (KEYS_MAX + 1)}), "has more than 100 keys"),
        ('{"keys": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("\ud800", "is not UTF-8"),
    ],
)
def test_what_is_no_key_set_is_refused(text: str, why: str) -> None:
    """With words that quote nothing of it."""
    with pytest.raises(KeySetRefused, match=why):
        read_key_set(text)


NAMES = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops"])
WORDS = st.sampled_from(["EC", "RSA", "OKP", "P-256", "Ed25519", EC.jwk()["x"], RSA.jwk()["n"], "AQAB"])
INTEGERS = st.integers(min_value=-(10**12), max_value=10**12)  # with more digits the whole set is refused
VALUES = st.none() | INTEGERS | st.text(max_size=60) | WORDS | st.lists(st.text(max_size=3), max_size=2)


@given(st.dictionaries(NAMES, VALUES))
def test_any_key_is_used_or_passed_over(jwk: dict[str, Any]) -> None:
    """Never a crash; a key that is used never verifies what nobody signed."""
    for key in read_key_set(key_set(jwk, EC)).keys[:-1]:
        assert not any(key.verifies(b"x", bytes(64), algorithm) for algorithm in key.algorithms)
