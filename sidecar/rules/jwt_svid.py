"""Does a JWT-SVID hold, for whom, and what does it say? Pure; the strictness is that of `sidecar.rules.jwt`.

What a JWT-SVID has that other tokens do not (SPIFFE JWT-SVID sections 2 to 4): three header fields and no others, no
issuer, the SPIFFE ID of a workload as its subject, and the keys of that workload's trust domain. We know those of our
own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.rules.facts import Json
from sidecar.rules.jwt import KEYS_TRIED_MAX, TokenRefused, check_times, read_audiences, read_token
from sidecar.rules.jwt_keys import RSA_ALGORITHMS, KeySet, read_key_set

HEADERS = frozenset({"alg", "kid", "typ"})
ALGORITHMS = RSA_ALGORITHMS | {"ES256", "ES384", "ES512"}
"""RFC 7518 sections 3.3 to 3.5, and no EdDSA."""
KINDS = frozenset({"", "jwt", "jose"})
USE = "jwt-svid"
"""What the keys of a SPIFFE bundle say they are for (SPIFFE JWT-SVID section 6.1)."""
_SIGNS = "sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidSvid:
    """A JWT-SVID that holds."""

    spiffe_id: SpiffeId
    claims: Mapping[str, Json]


def read_bundle(jwt_keys: str) -> KeySet:
    """The keys of a JWT bundle; those for other uses are passed over. Raises KeySetRefused."""
    document: dict[str, Any] = json.loads(jwt_keys)
    keys = [
        {**key, "use": _SIGNS}
        for key in document["keys"]
        if isinstance(key, dict) and key.get("use", USE) in (USE, _SIGNS)
    ]
    return read_key_set(json.dumps({"keys": keys}))


def validate(token: str, audience: str, keys: KeySet, trust_domain: TrustDomain, now: float) -> ValidSvid:
    """`audience`: who validates. `now` in Unix seconds. Raises TokenRefused."""
    read = read_token(token)
    if read.algorithm not in ALGORITHMS:
        raise TokenRefused("E01", "algorithm")
    if not read.header_names <= HEADERS:
        raise TokenRefused("E06", "header")
    if read.kind not in KINDS:
        raise TokenRefused("E24", "token_type")
    if audience not in read_audiences(read.claims):
        raise TokenRefused("E11", "audience")
    check_times(read.claims, now)
    subject = read.claims.get("sub")
    try:
        spiffe_id = SpiffeId.parse(subject) if isinstance(subject, str) else None
    except CertsError:
        spiffe_id = None
    if spiffe_id is None:
        raise TokenRefused("E16", "subject")
    if spiffe_id.trust_domain != trust_domain:
        raise TokenRefused("E18", "trust_domain")
    candidates = keys.candidates(read.kid)
    if not candidates:
        raise TokenRefused("E22", "unknown_key")
    fitting = [key for key in candidates if read.algorithm in key.algorithms]
    if not fitting:
        raise TokenRefused("E03", "algorithm")
    if not any(key.verifies(read.signing_input, read.signature, read.algorithm) for key in fitting[:KEYS_TRIED_MAX]):
        raise TokenRefused("E16", "signature")
    return ValidSvid(spiffe_id=spiffe_id, claims=read.claims)
