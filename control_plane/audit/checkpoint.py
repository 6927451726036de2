"""Signed statements that the chain was so long and ended so.

The key is P-256, made at the first start and kept in the store: sealed under the key-encryption key, as the keys of the
CA are, and its public half beside it. Who holds a copy of the public half (`hauberk audit verify` prints its id, every
backup carries it) finds a chain that was written anew even if the whole data directory was.

    signature = ECDSA-SHA256(statement), DER in base64
    statement = "hauberk audit checkpoint v1" | epoch | time | number of the record before | its SHA-256, one a line
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from certs.authority_id import key_id
from certs.svid import new_private_key
from control_plane.audit.chain import Head, Record
from control_plane.ca import keys
from control_plane.store.base import Store

CHECKPOINT, KEY_MADE = "audit.checkpoint", "audit.key"
PUBLIC_FACT, SEALED_FACT = "audit key", "audit key sealed"

PublicKey = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointKey:
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def key_id(self) -> str:
        return key_id(self.private_key.public_key())

    @property
    def public_text(self) -> str:
        return public_text(self.private_key.public_key())

    def sign(self, *, epoch: int, at: float, before: Head) -> str:
        signature = self.private_key.sign(statement(epoch=epoch, at=at, before=before), ec.ECDSA(SHA256()))
        return base64.b64encode(signature).decode("ascii")


def statement(*, epoch: int, at: float, before: Head) -> bytes:
    return f"hauberk audit checkpoint v1\n{epoch}\n{at:.3f}\n{before.seq}\n{before.sha256}\n".encode("ascii")


def is_signed(record: Record, public_key: PublicKey) -> bool:
    """Whether that checkpoint carries this key's signature."""
    epoch, signature = record.fields.get("epoch"), record.fields.get("signature")
    if not isinstance(epoch, int) or not isinstance(signature, str):
        return False
    before = Head(seq=record.seq - 1, sha256=record.prev)
    try:
        octets = base64.b64decode(signature, validate=True)
        public_key.verify(octets, statement(epoch=epoch, at=record.at, before=before), ec.ECDSA(SHA256()))
    except (binascii.Error, InvalidSignature):
        return False
    return True


def public_text(key: PublicKey) -> str:
    """SubjectPublicKeyInfo in base64."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(spki).decode("ascii")


def read_public(text: str) -> PublicKey | None:
    """From `public_text`. None: it is none."""
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except Exception:  # the parser's exceptions are not a closed set
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def open_or_make(
    store: Store, *, kek: bytes, token_bytes: Callable[[int], bytes], made: Callable[[CheckpointKey], None]
) -> CheckpointKey:
    """The store's key, made if there is none; `made` is told so within the same transaction.

    Raises EnvelopeError (row J06), Unavailable."""
    sealed = store.fact(SEALED_FACT)
    if sealed is not None:
        return CheckpointKey(private_key=keys.unseal(base64.b64decode(sealed), kek=kek))
    key = CheckpointKey(private_key=new_private_key())
    with store.transaction():
        put(store, key, kek=kek, nonce=token_bytes(keys.NONCE_BYTES))
        made(key)
    return key


def put(store: Store, key: CheckpointKey, *, kek: bytes, nonce: bytes) -> None:
    """Seals it into the store. `nonce`: never used with this `kek`."""
    sealed = keys.seal(key.private_key, kek=kek, nonce=nonce)
    with store.transaction():
        store.change_fact(PUBLIC_FACT, key.public_text)
        store.change_fact(SEALED_FACT, base64.b64encode(sealed).decode("ascii"))


def reseal(store: Store, *, old_kek: bytes, new_kek: bytes, nonce: bytes) -> bool:
    """The same key under another key-encryption key. False: there is none. Raises EnvelopeError."""
    sealed = store.fact(SEALED_FACT)
    if sealed is None:
        return False
    key = CheckpointKey(private_key=keys.unseal(base64.b64decode(sealed), kek=old_kek))
    put(store, key, kek=new_kek, nonce=nonce)
    return True
