"""The name of a key: short enough to type, the same wherever the key turns up."""

from __future__ import annotations

import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.der import PublicKey

KEY_ID = re.compile(r"[0-9a-f]{32}")


def key_id(public_key: PublicKey) -> str:
    """32 hexadecimal digits: the first 16 bytes of SHA-256 over the SubjectPublicKeyInfo in DER.

    An authority is named by its key and not by one of its certificates, so that another certificate of the same key
    (a cross-signed one, an earlier one) is the same authority: who revokes the one has revoked the other."""
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()[:32]


def authority_ids(issuers_der: tuple[bytes, ...]) -> tuple[str, ...]:
    """Of signing certificates that were parsed before (a chain without its leaf). Raises ValueError for other bytes."""
    found = []
    for der in issuers_der:
        spki = (
            x509.load_der_x509_certificate(der)
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
        found.append(hashlib.sha256(spki).hexdigest()[:32])
    return tuple(found)
