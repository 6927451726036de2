"""What an issuer of tokens does, for docs/policy.md: never use it for more than that.

python3 issuer.py jwks                    makes a key pair in issuer.pem (once), prints its public half as a JWKS
python3 issuer.py SUBJECT [ROLE]...       prints a token for SUBJECT, signed with it, good for ten minutes
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

FILE = Path("issuer.pem")
ISSUER, AUDIENCE, KEY_ID = "https://id.shop.example", "billing", "2026-11"


def key() -> ECKey:
    if not FILE.exists():
        FILE.touch(0o600)
        FILE.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    return ECKey.import_key(FILE.read_bytes())


def answer(subject: str, *roles: str) -> str:
    if subject == "jwks":
        public = key().as_dict(private=False)
        return json.dumps({"keys": [{**public, "kid": KEY_ID, "alg": "ES256", "use": "sig"}]})
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600, "roles": list(roles)}
    return jwt.encode({"alg": "ES256", "kid": KEY_ID}, claims, key())


sys.stdout.write(answer(*sys.argv[1:]) + "\n")
