"""The part of a snapshot's wire form that says whom to trust no more. Part of `decode`."""

from __future__ import annotations

import json
import re

from certs.authority_id import KEY_ID
from certs.errors import CertsError
from certs.revocation import NOTHING_REVOKED, SERIALS_MAX, Revocations
from certs.spiffe_id import SpiffeId, TrustDomain
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.errors import DecodeError

IDENTITIES_MAX = 10_000
AUTHORITIES_MAX = 64
JWT_KEYS_OCTETS_MAX = 65_536

_SERIAL = re.compile(r"[1-9a-f][0-9a-f]{0,39}")
"""At most 20 octets (RFC 5280 section 4.1.2.2)."""


def revocations(message: pb.Revocations, trust_domain: TrustDomain) -> Revocations:
    """Raises DecodeError. One that cannot be read refuses the snapshot: it must not be lost among the others."""
    counts = (
        ("identities", len(message.identities), IDENTITIES_MAX),
        ("serials", len(message.serials), SERIALS_MAX),
        ("authorities", len(message.authorities), AUTHORITIES_MAX),
        ("tainted_authorities", len(message.tainted_authorities), AUTHORITIES_MAX),
    )
    if not any(count for _, count, _ in counts):
        return NOTHING_REVOKED
    for name, count, most in counts:
        if count > most:
            raise DecodeError(f"revocations.{name}", f"{count} of them; at most {most} are read")
    return Revocations(
        identities=frozenset(
            _identity(one, trust_domain, f"revocations.identities[{i}]") for i, one in enumerate(message.identities)
        ),
        serials=frozenset(_serial(one, f"revocations.serials[{i}]") for i, one in enumerate(message.serials)),
        authorities=frozenset(
            _authority(one, f"revocations.authorities[{i}]") for i, one in enumerate(message.authorities)
        ),
        tainted_authorities=frozenset(
            _authority(one, f"revocations.tainted_authorities[{i}]")
            for i, one in enumerate(message.tainted_authorities)
        ),
    )


def jwt_keys(text: str) -> str:
    """A JSON Web Key Set (RFC 7517 section 5), or nothing. Raises DecodeError."""
    if not text:
        return ""
    if len(text) > JWT_KEYS_OCTETS_MAX:
        raise DecodeError("jwt_keys", f"is longer than {JWT_KEYS_OCTETS_MAX} octets")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise DecodeError("jwt_keys", "is no JSON") from None
    if not (isinstance(document, dict) and isinstance(document.get("keys"), list)):
        raise DecodeError("jwt_keys", "is no JSON Web Key Set")
    return text


def _identity(value: str, trust_domain: TrustDomain, field: str) -> SpiffeId:
    try:
        identity = SpiffeId.parse(value)
    except CertsError as error:
        raise DecodeError(field, str(error)) from None
    if identity.trust_domain != trust_domain:
        raise DecodeError(field, f"{identity} is not of {trust_domain}")
    return identity


def _serial(value: str, field: str) -> int:
    if not _SERIAL.fullmatch(value):
        raise DecodeError(field, f"{value[:80]!a} is no serial number in lower-case hexadecimal")
    return int(value, 16)


def _authority(value: str, field: str) -> str:
    if not KEY_ID.fullmatch(value):
        raise DecodeError(field, f"{value[:80]!a} is no authority's id")
    return value
