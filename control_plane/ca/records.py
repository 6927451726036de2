"""Makes authorities: a key, its certificate, and the record of both as the store keeps it.

Nothing is recorded that was not checked: a root against itself, an intermediate by a leaf signed with it and verified
as a peer would (see `hierarchy`).
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.authority_id import key_id
from certs.der import PublicKey, load_public_key
from certs.errors import InvalidBundle
from certs.spiffe_id import TrustDomain
from certs.succession import succeed
from certs.svid import new_private_key
from control_plane.ca.hierarchy import Issuer, check_intermediate, make_intermediate
from control_plane.ca.root import Root, check_root, make_root
from control_plane.ca.signer import Signer
from control_plane.ca.slots import CaPolicy
from control_plane.ca.template import BACKDATE_S
from control_plane.ca.vault import Vault
from control_plane.model import Authority, Level, Phase


class Maker:
    """What it makes is PREPARED (or REQUESTED); the caller writes it down."""

    def __init__(
        self, trust_domain: TrustDomain, policy: CaPolicy, vault: Vault, token_bytes: Callable[[int], bytes]
    ) -> None:
        self._trust_domain = trust_domain
        self._policy = policy
        self._vault = vault
        self._token_bytes = token_bytes

    def root(self, now: float, predecessor: Authority | None) -> Authority:
        """A new root, vouched for by its predecessor if that one's key is here. Raises CaError."""
        lifetime_s = self._policy.root_lifetime_s
        new = make_root(self._trust_domain, lifetime_s=lifetime_s, now=now, token_bytes=self._token_bytes)
        return self.root_record(new.certificate, self._vault.seal(new.private_key), now, predecessor, new)

    def root_record(
        self,
        certificate: x509.Certificate,
        sealed_key: bytes,
        prepared_at: float,
        predecessor: Authority | None,
        root: Root | None = None,
    ) -> Authority:
        """Of a root that is there. Raises CaError: no root of this trust domain."""
        der = certificate.public_bytes(Encoding.DER)
        public_key = load_public_key(certificate, InvalidBundle, "F23")
        if root is not None:
            check_root(root, self._trust_domain)
        name = key_id(public_key)
        succession = b""
        if predecessor is not None and predecessor.sealed_key:
            vouching = self._vault.unseal(predecessor)
            succession = succeed(vouching, predecessor.certificate_der, der).signature
        return Authority(
            authority_id=name,
            level=Level.ROOT,
            phase=Phase.PREPARED,
            parent_id=name,
            public_key_der=_spki(public_key),
            certificate_der=der,
            sealed_key=sealed_key,
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            prepared_at=prepared_at,
            predecessor_id=predecessor.authority_id if predecessor is not None else "",
            succession=succession,
        )

    def adopted_root(self, root: Root) -> Authority:
        """Of an older data directory. Raises CaError."""
        born_at = min(root.not_before + BACKDATE_S, root.not_after)
        return self.root_record(root.certificate, self._vault.seal(root.private_key), born_at, None, root)

    def intermediate(self, root: Authority, now: float) -> Authority:
        """Raises CaExpired, CaError."""
        issuer = make_intermediate(
            Root(certificate=load(root), private_key=self._vault.unseal(root)),
            self._trust_domain,
            lifetime_s=self._policy.intermediate_lifetime_s,
            now=now,
            token_bytes=self._token_bytes,
        )
        return self.intermediate_record(issuer, self._vault.seal(issuer.private_key), now)

    def intermediate_record(self, issuer: Issuer, sealed_key: bytes, now: float) -> Authority:
        """Raises CaError: it is none, or what it signs does not verify."""
        check_intermediate(issuer.der, issuer.anchor_der, now)
        Signer(issuer, self._trust_domain, token_bytes=self._token_bytes).probe(now)
        return Authority(
            authority_id=issuer.issuer_id,
            level=Level.INTERMEDIATE,
            phase=Phase.PREPARED,
            parent_id=issuer.root_id,
            public_key_der=_spki(issuer.private_key.public_key()),
            certificate_der=issuer.der,
            sealed_key=sealed_key,
            not_before=issuer.certificate.not_valid_before_utc.timestamp(),
            not_after=issuer.not_after,
            prepared_at=now,
        )

    def request(self, now: float, parent_id: str) -> Authority:
        """A key whose certificate an offline root is asked for."""
        return self._without_certificate(Level.INTERMEDIATE, Phase.REQUESTED, parent_id, now, lifetime_s=None)

    def jwt_key(self, now: float) -> Authority:
        lifetime_s = self._policy.jwt_key_lifetime_s
        return self._without_certificate(Level.JWT, Phase.PREPARED, "", now, lifetime_s=lifetime_s)

    def _without_certificate(
        self, level: Level, phase: Phase, parent_id: str, now: float, *, lifetime_s: float | None
    ) -> Authority:
        key = new_private_key()
        return Authority(
            authority_id=key_id(key.public_key()),
            level=level,
            phase=phase,
            parent_id=parent_id,
            public_key_der=_spki(key.public_key()),
            sealed_key=self._vault.seal(key),
            not_before=0.0 if lifetime_s is None else now,
            not_after=0.0 if lifetime_s is None else now + lifetime_s,
            prepared_at=now,
        )


def load(authority: Authority) -> x509.Certificate:
    """Its certificate, which was checked when it came in."""
    return x509.load_der_x509_certificate(authority.certificate_der)


def _spki(public_key: PublicKey) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
