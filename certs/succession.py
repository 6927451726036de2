"""Anchors that vouch for those who came after them.

Theory of operation. A sidecar that slept while the mesh changed its root wakes up trusting an anchor nobody signs with
any more. When a root is made, the one in force signs a statement that this is its successor. Whoever holds the older
anchor follows such statements, one after the other, to those of today; the statements prove themselves, so it does not
matter where they came from or whether the older anchor has expired in the meantime.

What this is worth: exactly as much as the older anchor. So nobody publishes statements of an anchor that was revoked,
and nobody follows them from an anchor they know to be revoked; who slept through that needs a new join token.

    statement = "hauberk anchor succession v1" NUL  SHA-256(predecessor DER)  SHA-256(successor DER)
    signature = ECDSA with SHA-256 by the predecessor's key (P-256), DER
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from certs.bundle import TrustBundle, pin
from certs.der import load_certificate
from certs.errors import CertsError, InvalidBundle
from certs.spiffe_id import TrustDomain

SUCCESSIONS_MAX = 64
_CONTEXT = b"hauberk anchor succession v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """One statement."""

    predecessor_sha256: bytes
    successor_der: bytes
    signature: bytes


def succeed(predecessor_key: ec.EllipticCurvePrivateKey, predecessor_der: bytes, successor_der: bytes) -> Succession:
    """The statement that `successor_der` takes the place of `predecessor_der`, whose key signs it."""
    statement = _statement(pin(predecessor_der), successor_der)
    return Succession(
        predecessor_sha256=pin(predecessor_der),
        successor_der=successor_der,
        signature=predecessor_key.sign(statement, ec.ECDSA(SHA256())),
    )


def follow(
    held_der: Collection[bytes], successions: Iterable[Succession], trust_domain: TrustDomain
) -> tuple[bytes, ...]:
    """The anchors that those held vouch for, directly or through one another, without those held; oldest first.

    `successions` in order, each predecessor before its successor. What does not verify is passed over: it may be
    somebody else's. Validity in time is not looked at. Nothing is raised."""
    known = {pin(der): der for der in held_der}
    found: list[bytes] = []
    for one in list(successions)[:SUCCESSIONS_MAX]:
        predecessor = known.get(one.predecessor_sha256)
        successor_pin = hashlib.sha256(one.successor_der).digest()
        if predecessor is None or successor_pin in known:
            continue
        if _is_vouched_for(predecessor, one) and _is_anchor(one.successor_der, trust_domain):
            known[successor_pin] = one.successor_der
            found.append(one.successor_der)
    return tuple(found)


def _statement(predecessor_sha256: bytes, successor_der: bytes) -> bytes:
    return _CONTEXT + predecessor_sha256 + hashlib.sha256(successor_der).digest()


def _is_vouched_for(predecessor_der: bytes, one: Succession) -> bool:
    try:
        certificate, _ = load_certificate(predecessor_der, InvalidBundle)
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(one.signature, _statement(one.predecessor_sha256, one.successor_der), ec.ECDSA(SHA256()))
    except (CertsError, InvalidSignature, ValueError):
        return False
    return True


def _is_anchor(der: bytes, trust_domain: TrustDomain) -> bool:
    try:
        TrustBundle.of(trust_domain, [der])
    except CertsError:
        return False
    return True
