"""An authority's private key at rest: AES-256-GCM under a key-encryption key (KEK) that is kept in another file.

    envelope   = magic  key-id  newline  nonce  sealed
    magic      = "hauberk-ca-key v1" newline
    key-id     = 32 hexadecimal digits: the first 16 bytes of SHA-256 over the public key (SubjectPublicKeyInfo)
    nonce      = 12 random bytes (NIST SP 800-38D section 8.2.2); one KEK seals some thousand keys in its life
    sealed     = PKCS#8 DER, encrypted, and the tag of 16 bytes

The key id is authenticated together with the version as associated data, so an envelope cannot be passed off as that of
another key or of another format. Nothing in it depends on where it is stored: files may be moved and restored. Every
byte counts: an envelope with one bit changed does not open.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from certs.authority_id import key_id
from control_plane.ca.errors import EnvelopeError

KEK_BYTES = 32
NONCE_BYTES = 12

_MAGIC = b"hauberk-ca-key v1\n"
_KEY_ID_CHARS = 32
_TAG_BYTES = 16
_HEAD_BYTES = len(_MAGIC) + _KEY_ID_CHARS + 1 + NONCE_BYTES


def seal(private_key: ec.EllipticCurvePrivateKey, *, kek: bytes, nonce: bytes) -> bytes:
    """The envelope. `nonce` must never have been used with this `kek`."""
    if len(kek) != KEK_BYTES or len(nonce) != NONCE_BYTES:
        raise EnvelopeError(f"a key-encryption key has {KEK_BYTES} bytes and a nonce {NONCE_BYTES}")
    name = key_id(private_key.public_key()).encode("ascii")
    plain = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return _MAGIC + name + b"\n" + nonce + AESGCM(kek).encrypt(nonce, plain, _label(name))


def unseal(envelope: bytes, *, kek: bytes) -> ec.EllipticCurvePrivateKey:
    """The key. Raises EnvelopeError, whose text holds nothing secret (row J06)."""
    if len(kek) != KEK_BYTES:
        raise EnvelopeError(f"the key-encryption key has {len(kek)} bytes instead of {KEK_BYTES}", row="J06")
    head, sealed = envelope[:_HEAD_BYTES], envelope[_HEAD_BYTES:]
    name = head[len(_MAGIC) : len(_MAGIC) + _KEY_ID_CHARS]
    separator = head[len(_MAGIC) + _KEY_ID_CHARS : -NONCE_BYTES]
    if not envelope.startswith(_MAGIC) or separator != b"\n" or len(sealed) <= _TAG_BYTES:
        raise EnvelopeError("not an encrypted CA key, or cut short", row="J06")
    try:
        plain = AESGCM(kek).decrypt(head[-NONCE_BYTES:], sealed, _label(name))
    except InvalidTag:
        # AES-GCM cannot tell the two apart, so neither can the message.
        raise EnvelopeError("damaged, or encrypted with another key-encryption key", row="J06") from None
    key = load_der_private_key(plain, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key_id(key.public_key()).encode("ascii") != name:
        raise EnvelopeError("holds another key than its name says", row="J06")
    return key


def _label(name: bytes) -> bytes:
    return b"hauberk-ca|" + name + b"|v1"
