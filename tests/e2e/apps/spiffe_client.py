"""A workload that asks the Workload API with the `spiffe` package, which is not ours, and tells what it hears.

Prints one JSON object a line: whenever its X.509 source or its JWT source was updated, and what each line on standard
input asked for: `{"do": "jwt", "audience": "orders"}`, `{"do": "validate", "audience": ..., "token": ...}`.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from spiffe import JwtSource, JwtSvid, TrustDomain, WorkloadApiClient, X509Source

MESH = TrustDomain("mesh.local")
START_S = 30
lock = threading.Lock()


def say(**what: Any) -> None:
    with lock:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def tell_x509(source: X509Source) -> None:
    svid = source.get_x509_context().default_svid
    bundle = source.get_bundle_for_trust_domain(MESH)
    assert bundle is not None
    public_key = svid.private_key.public_key()
    assert isinstance(public_key, EllipticCurvePublicKey)
    say(
        event="x509",
        spiffe_id=str(svid.spiffe_id),
        serial=f"{svid.leaf.serial_number:x}",
        issuers=[f"{one.serial_number:x}" for one in svid.cert_chain[1:]],
        anchors=sorted(f"{one.serial_number:x}" for one in bundle.x509_authorities),
        fits=public_key == svid.leaf.public_key(),
    )


def tell_jwt(source: JwtSource) -> None:
    bundle = source.get_bundle_for_trust_domain(MESH)
    assert bundle is not None
    say(event="jwt_bundle", kids=sorted(bundle.jwt_authorities))


def answer(asked: dict[str, Any], source: JwtSource, client: WorkloadApiClient) -> None:
    audience = asked["audience"]
    if asked["do"] == "jwt":
        token = source.fetch_svid({audience}).token
        bundle = source.get_bundle_for_trust_domain(MESH)
        assert bundle is not None
        local = JwtSvid.parse_and_validate(token, bundle, {audience})
        say(event="jwt", token=token, spiffe_id=str(local.spiffe_id), expiry=local.expiry)
    else:
        valid = client.validate_jwt_svid(asked["token"], audience)
        say(event="valid", spiffe_id=str(valid.spiffe_id))


def main() -> None:
    with X509Source(timeout_in_seconds=START_S) as x509_source, JwtSource(timeout_in_seconds=START_S) as jwt_source:
        x509_source.subscribe_for_updates(lambda: tell_x509(x509_source))
        jwt_source.subscribe_for_updates(lambda: tell_jwt(jwt_source))
        tell_x509(x509_source)
        tell_jwt(jwt_source)
        with WorkloadApiClient() as client:
            for line in sys.stdin:
                try:
                    answer(json.loads(line), jwt_source, client)
                except Exception as error:  # whatever it is, the test wants to know
                    say(event="error", error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
