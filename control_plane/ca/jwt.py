"""JWT-SVIDs (SPIFFE JWT-SVID sections 2 to 4): signed with ES256, and verified before anybody gets one.

joserfc is loaded at the first one, so that a control plane that signs none does not carry it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from certs.spiffe_id import SpiffeId
from control_plane.ca.errors import CaExpired, UnfitToIssue

ALGORITHM = "ES256"
AUDIENCES_MAX = 16
AUDIENCE_CHARS_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedJwt:
    token: str = field(repr=False)
    """Compact serialization (RFC 7515 section 3.1)."""
    issued_at: float
    expires_at: float
    """Unix seconds, whole."""


def check_audiences(audiences: Sequence[str]) -> list[str]:
    """Raises ValueError."""
    if not 1 <= len(audiences) <= AUDIENCES_MAX:
        raise ValueError(f"a JWT-SVID is for 1 to {AUDIENCES_MAX} audiences, not {len(audiences)}")
    for one in audiences:
        if not one or len(one) > AUDIENCE_CHARS_MAX or not one.isprintable():
            raise ValueError(f"an audience is 1 to {AUDIENCE_CHARS_MAX} printable characters")
    return list(dict.fromkeys(audiences))


def sign(
    private_key: ec.EllipticCurvePrivateKey,
    kid: str,
    identity: SpiffeId,
    audiences: Sequence[str],
    *,
    lifetime_s: float,
    now: float,
) -> IssuedJwt:
    """Claims `sub`, `aud`, `iat` and `exp`; header `alg`, `kid` and `typ`. `now` in Unix seconds.

    Raises ValueError (audiences), CaExpired (not even a second is left), UnfitToIssue."""
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey

    wanted = check_audiences(audiences)
    issued_at = math.floor(now)
    expires_at = math.floor(now + lifetime_s)
    if expires_at <= now:
        raise CaExpired("the key for JWT-SVIDs ends within a second", row="G08")
    claims = {"sub": str(identity), "aud": wanted, "iat": issued_at, "exp": expires_at}
    header = {"alg": ALGORITHM, "kid": kid, "typ": "JWT"}
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    token = jwt.encode(header, claims, ECKey.import_key(pem), algorithms=[ALGORITHM])
    public_pem = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        read = jwt.decode(token, ECKey.import_key(public_pem), algorithms=[ALGORITHM])
    except (JoseError, ValueError) as failure:
        raise UnfitToIssue(f"signed a token that does not verify: {failure}") from failure
    if read.claims != claims or read.header != header:
        raise UnfitToIssue("signed a token that does not say what was meant")
    return IssuedJwt(token=token, issued_at=float(issued_at), expires_at=float(expires_at))
