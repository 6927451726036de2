"""An issuer for tests: its keys, as JWKs and as a key set, and tokens, right ones and all kinds of wrong ones.

Signed with `cryptography` directly, so that what verifies is not what signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sidecar.rules.snapshot import JwtRule

ISSUER = "https://issuer.example"
AUDIENCE = "https://orders.shop"
NOW = 1_800_000_000.0

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_CURVE_NAMES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA: list[rsa.RSAPrivateKey] = []


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def b64_number(number: int, octets: int = 0) -> str:
    return b64(number.to_bytes(octets or (number.bit_length() + 7) // 8, "big"))


class SigningKey:
    """A key pair of an issuer. RSA keys are taken from a few, for making one takes long."""

    def __init__(self, algorithm: str = "ES256", kid: str | None = "k1", *, bits: int = 2048, number: int = 0) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
        if algorithm in _CURVES:
            self.private = ec.generate_private_key(_CURVES[algorithm])
        elif algorithm in ("EdDSA", "Ed25519"):
            self.private = ed25519.Ed25519PrivateKey.generate()
        elif bits != 2048:
            self.private = rsa.generate_private_key(65_537, bits)
        else:
            while len(_RSA) <= number:
                _RSA.append(rsa.generate_private_key(65_537, 2048))
            self.private = _RSA[number]

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public half (RFC 7518 section 6); `more` members, None takes one away."""
        found: dict[str, Any]
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.public_key().public_numbers()
            found = {"kty": "RSA", "n": b64_number(numbers.n), "e": b64_number(numbers.e)}
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            point, size = self.private.public_key().public_numbers(), (self.private.key_size + 7) // 8
            found = {"kty": "EC", "crv": _CURVE_NAMES[self.algorithm]}
            found |= {"x": b64_number(point.x, size), "y": b64_number(point.y, size)}
        else:
            found = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.private.public_key().public_bytes_raw())}
        found |= {"kid": self.kid, "use": "sig", "alg": self.algorithm, **more}
        return {name: value for name, value in found.items() if value is not None}

    def signature(self, signing_input: bytes, algorithm: str | None = None) -> bytes:
        algorithm = algorithm or self.algorithm
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(signing_input)
        digest = _HASHES[algorithm[2:]]
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.private.sign(signing_input, ec.ECDSA(digest)))
            size = (self.private.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.private.sign(signing_input, pss, digest)
        return self.private.sign(signing_input, padding.PKCS1v15(), digest)

    def sign(self, header: bytes, payload: bytes, algorithm: str | None = None) -> str:
        """A token of these octets, whatever they are."""
        signing_input = f"{b64(header)}.{b64(payload)}"
        return f"{signing_input}.{b64(self.signature(signing_input.encode(), algorithm))}"

    def token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A right token at `NOW`; `claims` and `header` in place of what is in one, None takes one away."""
        head = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        return self.sign(json.dumps(head).encode(), json.dumps(claims_of(**claims)).encode())


def claims_of(**claims: Any) -> dict[str, Any]:
    found = {"iss": ISSUER, "sub": "ann", "aud": AUDIENCE, "iat": int(NOW), "exp": int(NOW) + 600, **claims}
    return {name: value for name, value in found.items() if value is not None}


def key_set(*keys: SigningKey | dict[str, Any]) -> str:
    return json.dumps({"keys": [key.jwk() if isinstance(key, SigningKey) else key for key in keys]})


def rule_of(*keys: SigningKey | dict[str, Any], **fields: Any) -> JwtRule:
    """Takes the tokens that `SigningKey.token` makes."""
    return JwtRule(**{"issuer": ISSUER, "audiences": (AUDIENCE,), "jwks": key_set(*keys) if keys else "", **fields})
