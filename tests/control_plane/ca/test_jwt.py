"""JWT-SVIDs: what stands in them, who can verify them, and who gets none."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from joserfc import jwt as jose
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from certs.spiffe_id import SpiffeId
from certs.svid import new_private_key
from control_plane.ca import jwt
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaExpired, IdentityMismatch, UnfitToIssue
from tests.control_plane.support import NOW, TD, open_ca

WEB = SpiffeId.for_workload(TD, "shop", "web")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return open_ca(tmp_path_factory.mktemp("ca") / "cp")


def parts(token: str) -> tuple[dict[str, object], dict[str, object]]:
    header, claims, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(one + "==")) for one in (header, claims))


def test_a_token_says_who_for_whom_and_how_long(ca: CertificateAuthority) -> None:
    """SPIFFE JWT-SVID sections 2 and 3: five minutes, ES256, the key's id."""
    issued = ca.issue_jwt(WEB, ["orders", "billing", "orders"], NOW + 0.75)
    header, claims = parts(issued.token)
    assert claims == {"sub": str(WEB), "aud": ["orders", "billing"], "iat": int(NOW), "exp": int(NOW) + 300}
    assert (issued.issued_at, issued.expires_at) == (NOW, NOW + 300)
    (key,) = json.loads(ca.jwt_keys())["keys"]
    assert header == {"alg": "ES256", "kid": key["kid"], "typ": "JWT"}


def test_whoever_has_the_published_keys_can_verify_it(ca: CertificateAuthority) -> None:
    """And sees when one octet is changed."""
    keys = KeySet.import_key_set(json.loads(ca.jwt_keys().replace('"jwt-svid"', '"sig"')))
    token = ca.issue_jwt(WEB, ["orders"], NOW).token
    assert jose.decode(token, keys, algorithms=["ES256"]).claims["sub"] == str(WEB)
    head, claims, signature = token.split(".")
    forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(claims + "==").replace(b"web", b"wob")).rstrip(b"=")
    with pytest.raises(JoseError):
        jose.decode(f"{head}.{forged.decode()}.{signature}", keys, algorithms=["ES256"])


@pytest.mark.parametrize("audiences", [[], [""], ["x" * 513], ["a"] * 17, ["new\nline"]])
def test_a_token_for_nobody_or_for_too_many_is_refused(audiences: list[str], ca: CertificateAuthority) -> None:
    """A token without an audience would be good everywhere."""
    with pytest.raises(ValueError, match="audience"):
        ca.issue_jwt(WEB, audiences, NOW)


def test_f03_nobody_of_another_trust_domain_gets_one(ca: CertificateAuthority) -> None:
    """Row F03, for tokens."""
    with pytest.raises(IdentityMismatch):
        ca.issue_jwt(SpiffeId.parse("spiffe://other/ns/shop/sa/web"), ["orders"], NOW)


def test_g08_no_token_outlives_its_key() -> None:
    """Cut to what is left; under a second nothing is signed."""
    key = new_private_key()
    assert jwt.sign(key, "k", WEB, ["a"], lifetime_s=2.5, now=NOW).expires_at == NOW + 2
    with pytest.raises(CaExpired):
        jwt.sign(key, "k", WEB, ["a"], lifetime_s=0.2, now=NOW + 0.5)


def test_what_does_not_verify_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature by another key than the one that is published."""
    real, other = jose.encode, new_private_key()

    def wrong_key(header: dict[str, object], claims: dict[str, object], key: object, **more: object) -> str:
        return real(header, claims, type(key).import_key(jwt_pem(other)), **more)  # type: ignore[attr-defined, arg-type]

    monkeypatch.setattr(jose, "encode", wrong_key)
    with pytest.raises(UnfitToIssue, match="does not verify"):
        jwt.sign(new_private_key(), "k", WEB, ["a"], lifetime_s=60, now=NOW)


def jwt_pem(key: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined, no-any-return]


def test_the_token_is_in_no_repr(ca: CertificateAuthority) -> None:
    """Objects get logged."""
    issued = ca.issue_jwt(WEB, ["orders"], NOW)
    assert issued.token not in repr(issued)


def test_the_library_is_loaded_when_the_first_one_is_signed() -> None:
    """A control plane that signs none does not carry it."""
    code = "import sys, control_plane.ca.authority; sys.exit('joserfc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), check=False).returncode == 0
