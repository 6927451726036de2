"""The certificate and the policy of the process before, to serve by while the control plane is away (row R02, opt-in).

    "hauberk cache v1" LF
    header      JSON, one line: who, when, and the lengths of what follows
    key         of the certificate, PKCS#8 DER
    chain       certificates, DER, leaf first
    anchors     DER
    snapshot    hauberk.v1.Snapshot as it came
    tag         HMAC-SHA-256 over all of the above, 32 octets

The tag's key is derived from the node key (HKDF, RFC 5869), so a cache that was altered or comes from another node is
not taken (J09). Nothing here is believed longer than the certificate lives. An older cache of this same node is still
authentic: who can write into the directory can put it back, and gains a policy that was in force within the life of a
certificate that has not ended. A torn write fails the tag; so writing needs no fsync, and the event loop no wait for a
disk.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.spiffe_id import TrustDomain
from certs.svid import X509Svid
from certs.verify import verify_chain

CACHE_FILE = "cache"
CACHE_OCTETS_MAX = 24 * 1_048_576
FUTURE_S = 60.0
"""A cache written later than now by more than this is not from where our clock is."""
_MAGIC = b"hauberk cache v1\n"
_TAG_OCTETS = 32


class CacheRefused(Exception):
    """It is not used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """What an earlier process had."""

    svid: X509Svid
    bundle: TrustBundle
    snapshot: bytes = field(repr=False)
    """hauberk.v1.Snapshot; empty: there was none yet."""
    received_at: float
    """When the certificate came; Unix seconds."""
    saved_at: float
    sequence: int
    """Counts what this node has written."""


def seal(cached: Cached, node_key: ec.EllipticCurvePrivateKey) -> bytes:
    """As it is written."""
    key = cached.svid.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    chain, anchors = cached.svid.chain_der, cached.bundle.anchors_der
    header = {
        "spiffe_id": str(cached.svid.spiffe_id),
        "received_at": cached.received_at,
        "saved_at": cached.saved_at,
        "sequence": cached.sequence,
        "lengths": [len(key), [len(der) for der in chain], [len(der) for der in anchors], len(cached.snapshot)],
    }
    body = b"".join((_MAGIC, json.dumps(header).encode(), b"\n", key, *chain, *anchors, cached.snapshot))
    return body + hmac.digest(_tag_key(node_key), body, "sha256")


def unseal(content: bytes, node_key: ec.EllipticCurvePrivateKey, trust_domain: TrustDomain, now: float) -> Cached:
    """What `seal` wrote, if this node wrote it and its certificate is good at `now` (Unix seconds).

    Raises CacheRefused."""
    body, tag = content[:-_TAG_OCTETS], content[-_TAG_OCTETS:]
    if not hmac.compare_digest(hmac.digest(_tag_key(node_key), body, "sha256"), tag):
        raise CacheRefused("it was altered, or is another node's")
    # From here on it is what we wrote; what fails was written by another version.
    try:
        cached = _read(body, trust_domain, now)
    except (ValueError, KeyError, TypeError, CertsError) as error:
        raise CacheRefused(f"it is of no use: {error}") from None
    if cached.saved_at > now + FUTURE_S:
        raise CacheRefused("it was written in the future: is the clock right?")
    return cached


def _read(body: bytes, trust_domain: TrustDomain, now: float) -> Cached:
    if not body.startswith(_MAGIC):
        raise ValueError("another format")
    line, _, rest = body[len(_MAGIC) :].partition(b"\n")
    header = json.loads(line)
    key_length, chain_lengths, anchor_lengths, snapshot_length = header["lengths"]
    parts = _cut(rest, [key_length, *chain_lengths, *anchor_lengths, snapshot_length])
    key = load_der_private_key(parts[0], None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")  # noqa: TRY004 - of what was read, not of an argument
    chain, anchors = parts[1 : 1 + len(chain_lengths)], parts[1 + len(chain_lengths) : -1]
    bundle = TrustBundle.of(trust_domain, anchors)
    svid = X509Svid.of(chain, key, trust_domain, now)
    verify_chain(svid.chain_der, bundle, now)
    return Cached(
        svid=svid,
        bundle=bundle,
        snapshot=parts[-1],
        received_at=float(header["received_at"]),
        saved_at=float(header["saved_at"]),
        sequence=int(header["sequence"]),
    )


def _cut(octets: bytes, lengths: Iterable[int]) -> list[bytes]:
    parts, at = [], 0
    for length in lengths:
        parts.append(octets[at : at + length])
        at += length
    if at != len(octets):
        raise ValueError("lengths do not add up")
    return parts


def _tag_key(node_key: ec.EllipticCurvePrivateKey) -> bytes:
    """HKDF with SHA-256 (RFC 5869): extract with a zero salt, one round of expand."""
    secret = node_key.private_numbers().private_value.to_bytes(32, "big")
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, b"hauberk sidecar cache v1\x01", "sha256")
