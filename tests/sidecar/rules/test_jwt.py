"""Tokens: what is taken, and every row of the catalogue that is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.jwt import KeysMissing, TokenRefused, UnknownKey, Verified, verify
from sidecar.rules.jwt_keys import KeySet, read_key_set
from sidecar.rules.snapshot import JwtRule
from tests.sidecar.jwks.tokens import AUDIENCE, ISSUER, NOW, SigningKey, b64, claims_of, key_set, rule_of

KEY = SigningKey("ES256")
RSA = SigningKey("RS256", "r1")
ED = SigningKey("EdDSA", "e1")
RULE = rule_of(KEY, RSA, ED)
_SETS: dict[str, KeySet] = {}


def inline(rule: JwtRule) -> KeySet | None:
    """Keys as they stand in the rule; each set is read once."""
    if rule.jwks and rule.jwks not in _SETS:
        _SETS[rule.jwks] = read_key_set(rule.jwks)
    return _SETS.get(rule.jwks)


def taken(token: str, *rules: JwtRule, now: float = NOW) -> Verified:
    return verify(token, rules or (RULE,), inline, now)


def refusal(token: str, *rules: JwtRule, now: float = NOW) -> tuple[str, str]:
    """Row and reason."""
    with pytest.raises(TokenRefused) as caught:
        taken(token, *rules, now=now)
    assert caught.value.__cause__ is None
    return caught.value.row, caught.value.reason


def raw(payload: str, header: str = "") -> str:
    """A rightly signed token of these very texts."""
    return KEY.sign((header or '{"alg":"ES256","kid":"k1"}').encode(), payload.encode())


def with_claim(text: str) -> str:
    """A right token, whose payload says this besides."""
    return raw(json.dumps(claims_of())[:-1] + f", {text}}}")


# What is taken


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
)
def test_a_right_token_is_taken_with_every_asymmetric_algorithm(algorithm: str) -> None:
    """Whether the key set names the algorithm or leaves it to the key's type and curve."""
    key = SigningKey(algorithm)
    for jwk in (key.jwk(), key.jwk(alg=None), key.jwk(alg=None, use=None, key_ops=["verify"])):
        assert taken(key.token(), rule_of(jwk)).token.principal == f"{ISSUER}/ann"


def test_claims_are_facts_for_policy() -> None:
    """Frozen; lists are tuples; the payload is what was signed."""
    token = KEY.token(
        azp="shop-web", aud=[AUDIENCE, "x"], scope="read write", realm={"roles": ["a", "b"]}, n=1.5, t=True
    )
    verified = taken(token, replace(RULE, space_delimited_claims=("groups",)))
    found = verified.token
    assert (found.issuer, found.subject, found.presenter) == (ISSUER, "ann", "shop-web")
    assert found.audiences == (AUDIENCE, "x")
    assert found.expires_at == NOW + 600
    assert found.claim(("realm", "roles")) == ("a", "b")
    assert found.claim(("scope",)) == ("read", "write")
    assert found.space_delimited == {"scope", "permission", "groups"}
    assert verified.payload == token.split(".")[1]
    with pytest.raises(TypeError):
        found.claims["sub"] = "eve"  # type: ignore[index]  # that is the point


def test_a_token_without_a_subject_names_nobody() -> None:
    """It is taken, but no policy that demands a user is met by it."""
    assert taken(KEY.token(sub=None)).token.principal == ""
    assert refusal(KEY.token(sub=7))[0] == "E16"


def test_the_first_rule_that_takes_it_wins_and_one_that_does_not_spoils_nothing() -> None:
    """Several rules may be for one issuer."""
    other = rule_of(KEY, audiences=("other",))
    assert taken(KEY.token(), other, RULE).rule is RULE
    assert refusal(KEY.token(), other)[0] == "E11"
    assert taken(KEY.token(aud="any"), rule_of(KEY, audiences=())).token.audiences == ("any",)


# Rows E


@pytest.mark.parametrize("algorithm", ["none", "NoNe", "NONE", "", None, 1, ["ES256"]])
def test_e01_a_token_without_a_signature_is_refused(algorithm: object) -> None:
    """In every spelling, signed rightly or not at all."""
    header = json.dumps({"alg": algorithm, "kid": "k1"}).encode()
    payload = json.dumps(claims_of()).encode()
    assert refusal(KEY.sign(header, payload)) == ("E01", "algorithm")
    assert refusal(f"{b64(header)}.{b64(payload)}.")[0] in ("E01", "E16")
    assert refusal(f"{b64(header)}.{b64(payload)}.AAAA") == ("E01", "algorithm")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "hs256"])
@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
def test_e02_a_public_key_is_no_shared_secret(algorithm: str, form: str) -> None:
    """CVE-2022-29217: HMAC with whatever text of the public key; there is no symmetric algorithm here."""
    public = RSA.private.public_key()
    encoding = serialization.Encoding.DER if form == "der" else serialization.Encoding.PEM
    secret = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    if form == "jwk":
        secret = json.dumps(RSA.jwk()).encode()
    signing_input = (
        f"{b64(json.dumps({'alg': algorithm, 'kid': 'r1'}).encode())}.{b64(json.dumps(claims_of()).encode())}"
    )
    digest = hmac.new(secret, signing_input.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
    assert refusal(f"{signing_input}.{b64(digest)}") == ("E02", "algorithm")


def test_e02_a_shared_secret_in_a_key_set_is_no_key() -> None:
    """Published, it would be nobody's secret."""
    secret = {"kty": "oct", "k": b64(b"s" * 32), "kid": "s", "alg": "HS256"}
    assert read_key_set(key_set(KEY, secret)).skipped == 1


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS384"), (RSA, "PS256"), (RSA, "ES256"), (KEY, "ES384"), (KEY, "RS256"), (KEY, "EdDSA"), (ED, "ES256")],
)
def test_e03_the_algorithm_is_the_keys_and_not_the_tokens(key: SigningKey, algorithm: str) -> None:
    """Even where the same key could make such a signature."""
    made = algorithm if key is RSA and algorithm[:2] in ("RS", "PS") else None
    token = key.sign(json.dumps({"alg": algorithm, "kid": key.kid}).encode(), json.dumps(claims_of()).encode(), made)
    assert refusal(token) == ("E03", "algorithm")


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "k1' OR '1'='1", "https://evil.example/k", "K1", "k1 ", "", "x" * 5_000]
)
def test_e04_a_key_id_is_looked_up_and_never_interpreted(kid: str) -> None:
    """One that is no key's is an unknown key; nothing else is done with it."""
    with pytest.raises(UnknownKey):
        taken(KEY.token({"kid": kid}))


@pytest.mark.parametrize("kid", [1, True, ["k1"], {"k1": 1}, 1.5])
def test_e04_a_key_id_is_text(kid: object) -> None:
    """Everything else is no token."""
    assert refusal(KEY.token({"kid": kid})) == ("E04", "malformed")
    assert refusal(raw(json.dumps(claims_of()), '{"alg":"ES256","kid":null}')) == ("E04", "malformed")


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_e05_a_token_does_not_bring_its_own_key(name: str) -> None:
    """What it says of keys is not looked at: a stranger's token stays refused, a right one stays right."""
    stranger = SigningKey()
    says: dict[str, Any] = {"jku": "https://evil.example", "x5u": "https://evil.example", "x5c": ["AAAA"]}
    header = {name: says.get(name, stranger.jwk())}
    assert refusal(stranger.token(header)) == ("E16", "signature")
    assert taken(KEY.token(header)).token.subject == "ann"


@pytest.mark.parametrize(
    "header", [{"crit": ["b64"], "b64": False}, {"crit": ["x"], "x": 1}, {"crit": []}, {"b64": False}, {"b64": True}]
)
def test_e06_what_is_critical_and_unknown_is_refused(header: Mapping[str, Any]) -> None:
    """RFC 7515 section 4.1.11; RFC 7797."""
    assert refusal(KEY.token(header)) == ("E06", "critical_header")


@pytest.mark.parametrize(("name", "reason"), [("exp", "no_expiry"), ("iss", "no_issuer"), ("aud", "no_audience")])
def test_e07_what_every_token_needs_is_there(name: str, reason: str) -> None:
    """Also when the rule lists no audience."""
    assert refusal(KEY.token(**{name: None})) == ("E07", reason)
    assert refusal(KEY.token(**{name: None}), replace(RULE, audiences=())) == ("E07", reason)


def test_e08_a_token_holds_from_its_beginning_to_its_end() -> None:
    """Clocks may differ by a minute and no more."""
    token = KEY.token(nbf=int(NOW), exp=int(NOW) + 600)
    assert taken(token, now=NOW + 659.9).token.subject == "ann"
    assert refusal(token, now=NOW + 660) == ("E08", "expired")
    assert taken(token, now=NOW - 60).token.subject == "ann"
    assert refusal(token, now=NOW - 60.1) == ("E08", "not_yet_valid")
    assert refusal(KEY.token(nbf=int(NOW) + 61)) == ("E08", "not_yet_valid")
    assert refusal(KEY.token(iat=int(NOW) + 61)) == ("E08", "not_yet_valid")


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ['"1800000300"', "true", "[1800000300]", "{}", "null", '""'])
def test_e09_times_are_numbers(name: str, value: str) -> None:
    """A truth value is none, and a text of digits is none."""
    claims = json.dumps(claims_of(**{name: None}))[:-1]
    assert refusal(raw(f'{claims}, "{name}": {value}}}')) == ("E09", "not_a_time")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_e09_numbers_are_finite(value: str) -> None:
    """JSON knows no others, Python's reader does."""
    claims = json.dumps(claims_of(exp=None))[:-1]
    assert refusal(raw(f'{claims}, "exp": {value}}}'))[0] in ("E15", "E16")


@pytest.mark.parametrize("exp", [4_685_989_700, int(NOW) + 86_461, 10**14])
def test_e10_a_token_lives_a_day_at_most(exp: int) -> None:
    """Not even on its last day does one that was made for years become good."""
    assert refusal(KEY.token(exp=exp)) == ("E10", "lifetime")
    assert refusal(KEY.token(exp=exp, iat=None)) == ("E10", "lifetime")
    assert refusal(KEY.token(exp=exp), now=exp - 60.0) == ("E10", "lifetime")


@pytest.mark.parametrize(
    "aud",
    ["https://orders.sho", "https://orders.shop/", "orders", [], [""], "", {"https://orders.shop": 1}, 7, True,
     ["https://orders.shop", 7], [["https://orders.shop"]], "HTTPS://orders.shop"],
)  # fmt: skip
def test_e11_an_audience_is_an_exact_member(aud: object) -> None:
    """Of the rule's list; whatever is no text or list of texts is no audience."""
    assert refusal(KEY.token(aud=aud)) == ("E11", "audience")


@pytest.mark.parametrize(
    "iss", [ISSUER + "/", "https://issuer.exampl", ISSUER.upper(), ISSUER + ".evil", "issuer.example"]
)
def test_e12_an_issuer_is_exactly_its_name(iss: str) -> None:
    """No prefix, no trailing slash, no other case."""
    assert refusal(KEY.token(iss=iss))[1] == "unlisted_issuer"


@pytest.mark.parametrize("iss", [1, [ISSUER], {"a": ISSUER}, "", True])
def test_e12_an_issuer_is_text(iss: object) -> None:
    """CVE-2024-53861 compared it with `in`."""
    assert refusal(KEY.token(iss=iss)) == ("E07", "no_issuer")


def test_e13_no_name_stands_twice() -> None:
    """In claims, deeper in them, or in the header: two readers would take different ones."""
    assert refusal(with_claim('"sub": "admin"')) == ("E13", "duplicate_name")
    assert refusal(with_claim('"a": [{"b": 1, "b": 2}]')) == ("E13", "duplicate_name")
    assert refusal(with_claim('"\\u0073ub": "admin"')) == ("E13", "duplicate_name")
    assert refusal(raw(json.dumps(claims_of()), '{"alg":"ES256","kid":"x","kid":"k1"}')) == ("E13", "duplicate_name")


def test_e14_a_large_token_is_refused_before_anything_is_read() -> None:
    """8,192 characters are the most, whatever they are."""
    fits = KEY.token(x="x" * 5_000)
    assert len(fits) < 8_192
    assert taken(fits).token.subject == "ann"
    assert refusal(KEY.token(x="x" * 6_500)) == ("E14", "too_large")
    assert refusal("\udcff." * 100_000) == ("E14", "too_large")


@pytest.mark.parametrize(
    "claim", ['"d": ' + "[" * 2_000 + "]" * 2_000, '"d": ' + '{"a":' * 600 + "1" + "}" * 600, '"n": ' + "9" * 5_000,
              '"n": -' + "9" * 21, '"d": ' + "[" * 33 + "]" * 33],
)  # fmt: skip
def test_e15_depth_and_digits_have_a_bound(claim: str) -> None:
    """Refused, not a crash; brackets within text are text."""
    assert refusal(with_claim(claim)) == ("E15", "excessive")
    assert taken(with_claim('"t": "' + "[" * 2_000 + '\\"{{"')).token.subject == "ann"


def _swap(number: int, segment: str) -> Callable[[str], str]:
    def changed(token: str) -> str:
        segments = token.split(".")
        segments[number] = segment
        return ".".join(segments)

    return changed


@pytest.mark.parametrize(
    "change",
    [_swap(2, ""), _swap(2, b64(bytes(64))), _swap(2, b64(bytes(63))), _swap(2, b64(b"\xff" * 64)), _swap(2, "===="),
     _swap(0, ""), _swap(1, ""), _swap(1, "e30"), _swap(0, "e30"), _swap(1, b64(b"[]")), _swap(1, b64(b'"x"')),
     _swap(1, b64(b"{")), _swap(1, b64(b"\xff\xfe")), _swap(1, b64(b"\xef\xbb\xbf{}")), _swap(0, "A"),
     lambda token: token + ".", lambda token: token + "." + token, lambda token: token.replace(".", ""),
     lambda token: token + "=", lambda token: token + "\n", lambda token: " " + token, lambda token: token[:-1] + "/",
     lambda token: token.replace(".", ".\n"), lambda _: "", lambda _: "..", lambda _: "\0.\0.\0", lambda _: "é.é.é"],
)  # fmt: skip
def test_e16_whatever_is_not_a_token_is_refused_without_a_crash(change: Callable[[str], str]) -> None:
    """Segments, base64url, JSON and signatures that are not."""
    assert refusal(change(KEY.token()))[0] in ("E16", "E01", "E07")


def test_e16_a_token_has_one_spelling() -> None:
    """The last letter of base64 may carry bits that mean nothing: they must be zero."""
    token = KEY.token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(token[-1]) ^ 1]
    assert base64.urlsafe_b64decode(token[-4:] + "==")[:2] == base64.urlsafe_b64decode(token[-4:-1] + other + "==")[:2]
    assert refusal(token[:-1] + other) == ("E16", "malformed")


def test_e16_text_is_unicode() -> None:
    """A lone surrogate can be written in JSON, and in nothing that leaves here."""
    assert refusal(with_claim('"name": "\\ud800"')) == ("E16", "malformed")
    assert taken(with_claim('"name": "\\ud83d\\ude00 \\u00e9"')).token.claims["name"] == "😀 é"


def test_e18_an_issuer_nobody_lists_is_refused() -> None:
    """Whatever it signed with."""
    assert refusal(KEY.token(iss="https://other.example")) == ("E18", "unlisted_issuer")
    assert refusal(KEY.token(), replace(RULE, issuer="https://other.example")) == ("E18", "unlisted_issuer")


def test_e19_without_keys_nothing_is_taken() -> None:
    """It cannot be told; what needs no key to be refused is refused all the same."""
    rule = rule_of(jwks_uri="https://issuer.example/keys")
    with pytest.raises(KeysMissing) as caught:
        taken(KEY.token(), rule)
    assert caught.value.rules == (rule,)
    assert refusal(KEY.token(exp=1), rule) == ("E08", "expired")
    assert taken(KEY.token(), rule, RULE).rule is RULE


def test_e22_a_key_that_is_no_longer_there_signs_nothing() -> None:
    """Its tokens are of an unknown key: the issuer may be asked once more."""
    with pytest.raises(UnknownKey) as caught:
        taken(KEY.token(), rule_of(RSA))
    assert caught.value.row == "E22"


@pytest.mark.parametrize(
    ("kind", "is_taken"),
    [("at+jwt", True), ("application/at+jwt", True), ("AT+JWT", True), ("JWT", False), (None, False)],
)
def test_e24_an_id_token_is_no_access_token(kind: str | None, is_taken: bool) -> None:
    """Where a rule says of which type tokens are (RFC 9068 section 2.1); and by their audience anyway."""
    rule = replace(RULE, token_types=("at+jwt",))
    token = KEY.token({"typ": kind})
    if is_taken:
        assert taken(token, rule).rule is rule
    else:
        assert refusal(token, rule) == ("E24", "token_type")
    assert refusal(KEY.token(aud="the-client")) == ("E11", "audience")


# Keys without names


def test_a_token_that_names_no_key_is_tried_with_those_that_fit() -> None:
    """And a key without a name serves tokens whose key is not found by name."""
    assert taken(KEY.token({"kid": None})).token.subject == "ann"
    assert taken(KEY.token(), rule_of(KEY.jwk(kid=None))).token.subject == "ann"
    assert refusal(SigningKey().token({"kid": None})) == ("E16", "signature")
    many = [SigningKey(kid=f"k{number}") for number in range(9)]
    assert refusal(many[8].token({"kid": None}), rule_of(*many)) == ("E16", "signature")


# Anything at all


def parts() -> st.SearchStrategy[str]:
    json_text = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ).map(lambda value: b64(json.dumps(value).encode()))
    return json_text | st.binary(max_size=40).map(b64) | st.text(max_size=20)


@given(st.lists(parts(), max_size=5).map(".".join) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_e16_random_texts_are_refused_and_nothing_else(token: str) -> None:
    """Never another exception, never a yes."""
    refusal(token)


TOKENS = [KEY.token(), RSA.token(), ED.token()]


@given(
    st.sampled_from(TOKENS),
    st.integers(0, 2_000),
    st.sampled_from(["set", "cut", "put", "double"]),
    st.integers(0, 255),
)
def test_e16_a_changed_token_is_refused_and_nothing_else(token: str, at: int, how: str, octet: int) -> None:
    """Wherever it is changed, and however."""
    at %= len(token)
    letter = chr(octet)
    changed = {
        "set": token[:at] + letter + token[at + 1 :],
        "cut": token[:at],
        "put": token[:at] + letter + token[at:],
        "double": token[:at] + token[at:] + token[at:],
    }[how]
    if changed != token:
        refusal(changed)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "azp"]),
    VALUES | st.lists(VALUES) | st.dictionaries(st.text(), VALUES),
)
def test_a_claim_of_any_kind_is_taken_or_refused(name: str, value: object) -> None:
    """Rightly signed by the issuer, and still nothing else than a token or a refusal."""
    try:
        found = taken(raw(json.dumps({**claims_of(), name: value})))
    except (TokenRefused, UnknownKey):
        return
    assert found.token.issuer == ISSUER
    assert AUDIENCE in found.token.audiences
