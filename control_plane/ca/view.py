"""The authorities as they are in force: whom the mesh trusts, who signs, what is published. Made new at each change."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from certs.bundle import TrustBundle, pin
from certs.spiffe_id import TrustDomain
from certs.succession import Succession
from control_plane.ca.hierarchy import Issuer
from control_plane.ca.records import load
from control_plane.ca.root import make_root
from control_plane.ca.signer import Signer
from control_plane.ca.slots import PUBLISHED, CaPolicy, active, is_distrusted, signs_leaves_only
from control_plane.ca.vault import Vault
from control_plane.model import Authority, Level, Phase

_NOBODYS_LIFETIME_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything here follows from the authorities; nothing is looked at in time."""

    authorities: tuple[Authority, ...]
    bundle: TrustBundle
    root: Authority | None
    """The ACTIVE one."""
    anchor_der: bytes
    """The ACTIVE root's certificate. None: the anchor nobody has the key of."""
    signer: Signer | None
    """Signs leaves. None: nobody can."""
    jwt: Authority | None
    """The ACTIVE one."""
    jwt_keys: str
    """JSON Web Key Set (RFC 7517 section 5), SPIFFE Trust Domain and Bundle section 4.2.1; empty: no key."""
    revoked_intermediates: frozenset[str]
    tainted: frozenset[str]
    successions: tuple[Succession, ...]


def nobody(trust_domain: TrustDomain, now: float, token_bytes: Callable[[int], bytes]) -> bytes:
    """An anchor whose key is thrown away as soon as it is made. A bundle may not be empty, and this one trusts nobody:
    it stands in while a new mesh waits for its offline root."""
    return make_root(trust_domain, lifetime_s=_NOBODYS_LIFETIME_S, now=now, token_bytes=token_bytes).der


def make_view(
    authorities: Sequence[Authority],
    trust_domain: TrustDomain,
    vault: Vault,
    policy: CaPolicy,
    *,
    nobody_der: bytes,
    token_bytes: Callable[[int], bytes],
) -> View:
    """Raises EnvelopeError, CaError, certs.errors.InvalidBundle: what is stored cannot be used."""
    root = active(authorities, Level.ROOT)
    published = [one for one in authorities if one.level is Level.ROOT and one.phase in PUBLISHED]
    published.sort(key=lambda one: (one is not root, -one.prepared_at, one.authority_id))
    anchors_der = [one.certificate_der for one in published] or [nobody_der]
    issuer = issuer_of(authorities, vault)
    signer = None
    if issuer is not None:
        lifetime_max_s = policy.leaf_lifetime_max_s
        signer = Signer(issuer, trust_domain, token_bytes=token_bytes, lifetime_max_s=lifetime_max_s)
    return View(
        authorities=tuple(authorities),
        bundle=TrustBundle.of(trust_domain, anchors_der),
        root=root,
        anchor_der=root.certificate_der if root is not None else nobody_der,
        signer=signer,
        jwt=active(authorities, Level.JWT),
        jwt_keys=_key_set(authorities),
        revoked_intermediates=frozenset(
            one.authority_id for one in authorities if one.level is Level.INTERMEDIATE and is_distrusted(one)
        ),
        tainted=frozenset(one.authority_id for one in authorities if one.phase is Phase.TAINTED),
        successions=tuple(_successions(authorities)),
    )


def issuer_of(authorities: Sequence[Authority], vault: Vault) -> Issuer | None:
    """The ACTIVE intermediate; the ACTIVE root if it is of before there were any."""
    by_id = {one.authority_id: one for one in authorities}
    intermediate, root = active(authorities, Level.INTERMEDIATE), active(authorities, Level.ROOT)
    signing = intermediate
    if root is not None and signs_leaves_only(root):
        signing = root
    if signing is None or signing.parent_id not in by_id:
        return None
    anchor = by_id[signing.parent_id]
    return Issuer(certificate=load(signing), anchor=load(anchor), private_key=vault.unseal(signing))


def _successions(authorities: Sequence[Authority]) -> Iterable[Succession]:
    """Each predecessor before its successor, whatever a clock that was ahead wrote beside them; without those of or for
    somebody who was revoked."""
    by_id = {one.authority_id: one for one in authorities}

    def generation(one: Authority) -> int:
        passed = {one.authority_id}
        while one.predecessor_id in by_id and one.predecessor_id not in passed:
            one = by_id[one.predecessor_id]
            passed.add(one.authority_id)
        return len(passed)

    for one in sorted(authorities, key=lambda one: (generation(one), one.prepared_at)):
        predecessor = by_id.get(one.predecessor_id)
        if one.level is not Level.ROOT or not one.succession or predecessor is None:
            continue
        if not is_distrusted(one) and not is_distrusted(predecessor):
            yield Succession(
                predecessor_sha256=pin(predecessor.certificate_der),
                successor_der=one.certificate_der,
                signature=one.succession,
            )


def _key_set(authorities: Iterable[Authority]) -> str:
    keys = [
        _jwk(one)
        for one in sorted(authorities, key=lambda one: one.authority_id)
        if one.level is Level.JWT and one.phase in (Phase.PREPARED, Phase.ACTIVE, Phase.OLD)
    ]
    return json.dumps({"keys": keys}, sort_keys=True, separators=(",", ":")) if keys else ""


def _jwk(one: Authority) -> dict[str, str]:
    """RFC 7518 section 6.2.1."""
    key = load_der_public_key(one.public_key_der)
    assert isinstance(key, ec.EllipticCurvePublicKey), "JWT keys are made here"
    numbers = key.public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (numbers.x, numbers.y))
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": x,
        "y": y,
        "kid": one.authority_id,
        "alg": "ES256",
        "use": "jwt-svid",
    }
