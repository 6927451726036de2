"""A node's own key: how a sidecar proves that it is the one that joined, when its certificate no longer can.

    statement = "hauberk node key v1" NUL  purpose NUL  SHA-256(fresh)  SHA-256(csr DER)

`purpose` is "join" or "rejoin"; `fresh` is what makes the statement good once: the id of the join token, or the nonce
of a challenge. The request for a certificate is part of it, so that nobody can put another key in its place.
ECDSA with SHA-256, DER; P-256 only.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from certs.errors import InvalidCsr

NODE_KEY_OCTETS_MAX = 512
JOIN, REJOIN = "join", "rejoin"
_CONTEXT = b"hauberk node key v1\0"


def sign(key: ec.EllipticCurvePrivateKey, purpose: str, fresh: bytes, csr_der: bytes) -> bytes:
    """The node's signature over its statement."""
    return key.sign(statement(purpose, fresh, csr_der), ec.ECDSA(SHA256()))


def public_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SubjectPublicKeyInfo, as it is registered."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load(der: bytes) -> ec.EllipticCurvePublicKey:
    """A node key from a stranger. Raises InvalidCsr: not P-256, not canonical, too long."""
    if len(der) > NODE_KEY_OCTETS_MAX:
        raise InvalidCsr(f"node key of {len(der)} bytes; at most {NODE_KEY_OCTETS_MAX} are read", row="G06")
    try:
        key = load_der_public_key(der)
        canonical = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as failure:  # see certs.der: the parser's exceptions are not a closed set
        raise InvalidCsr(f"node key is no public key in DER ({type(failure).__name__})", row="G06") from failure
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidCsr("node key must be an elliptic curve key on P-256", row="G05")
    if canonical != der:
        raise InvalidCsr("node key is not in canonical DER", row="G06")
    return key


def check(key: ec.EllipticCurvePublicKey, signature: bytes, purpose: str, fresh: bytes, csr_der: bytes) -> None:
    """Raises InvalidCsr if the statement was not signed with the node key."""
    try:
        key.verify(signature, statement(purpose, fresh, csr_der), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError) as failure:
        raise InvalidCsr("the request is not signed with the node key", row="G04") from failure


def statement(purpose: str, fresh: bytes, csr_der: bytes) -> bytes:
    """What is signed; see the module's docstring."""
    return (
        _CONTEXT + purpose.encode("ascii") + b"\0" + hashlib.sha256(fresh).digest() + hashlib.sha256(csr_der).digest()
    )
