"""The certificate authority as the rest of the control plane sees it: open it once, then ask it to issue."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from certs.bundle import TrustBundle, pin
from certs.csr import read_csr
from certs.der import PublicKey
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.ca.errors import CaError, CaStateError, IdentityMismatch
from control_plane.ca.keystore import CA_NAME, CERTIFICATE_NAME, KEK_NAME, Keystore
from control_plane.ca.root import Root, check_root, make_root
from control_plane.ca.signer import IssuedSvid, Signer

ROOT_LIFETIME_S = 365 * 24 * 3600.0


class CertificateAuthority:
    """One root and the right to sign with it. Make it with `open`."""

    def __init__(self, root: Root, bundle: TrustBundle, *, token_bytes: Callable[[int], bytes]) -> None:
        self._root = root
        self._bundle = bundle
        self._signer = Signer(root, bundle, token_bytes=token_bytes)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        trust_domain: TrustDomain,
        *,
        now: float,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
        kek_file: Path | None = None,
        root_lifetime_s: float = ROOT_LIFETIME_S,
    ) -> CertificateAuthority:
        """The CA kept in `data_dir`; made there if there is no trace of one. `now` in Unix seconds.

        Raises CaStateError, and then nothing on disk was changed: wrong modes, a key that does not open, something
        missing, a root of another trust domain, an expired one. See `keystore` for the states."""
        data_dir = data_dir.absolute()
        kek_file = (kek_file or data_dir / KEK_NAME).absolute()
        store = Keystore(data_dir=data_dir, kek_file=kek_file, owner_uid=os.geteuid())
        certificate_file = data_dir / CA_NAME / CERTIFICATE_NAME
        try:
            with store.locked() as session:
                root = session.load()
                if root is None:
                    new = make_root(trust_domain, lifetime_s=root_lifetime_s, now=now, token_bytes=token_bytes)
                    _check(new, trust_domain, now, certificate_file)
                    session.save(new, token_bytes)
                    root = session.load()  # from the disk: the next start will find what this one uses
                    assert root is not None
        except OSError as failure:
            remedy = "Nothing was committed; start again when that is mended."
            problem = f"the disk does not do what it must ({failure.strerror})"
            raise CaStateError(data_dir, problem, remedy, row="J03") from failure
        return cls(root, _check(root, trust_domain, now, certificate_file), token_bytes=token_bytes)

    @property
    def bundle(self) -> TrustBundle:
        return self._bundle

    @property
    def anchor_der(self) -> bytes:
        return self._root.der

    @property
    def anchor_not_after(self) -> float:
        """Unix seconds."""
        return self._root.not_after

    @property
    def pin(self) -> bytes:
        """SHA-256 of the anchor's DER, for join tokens."""
        return pin(self._root.der)

    def issue(self, identity: SpiffeId, csr_der: bytes, lifetime_s: float, now: float) -> IssuedSvid:
        """An SVID for `identity`: whom the caller was authenticated as, or what its join token binds.

        Of the request only the key counts. Raises certs.errors.InvalidCsr (INVALID_ARGUMENT), IdentityMismatch if it
        names somebody else (PERMISSION_DENIED, row G01), CaExpired, UnfitToIssue."""
        facts = read_csr(csr_der)
        if facts.spiffe_id is not None and facts.spiffe_id != identity:
            raise IdentityMismatch(f"{identity} asked for a certificate of {facts.spiffe_id}", row="G01")
        return self._signer.issue(identity, facts.public_key, lifetime_s, now)

    def issue_for_key(self, identity: SpiffeId, public_key: PublicKey, lifetime_s: float, now: float) -> IssuedSvid:
        """The same for a key that is known to be the identity's: the control plane's own. Raises as `issue`."""
        return self._signer.issue(identity, public_key, lifetime_s, now)

    def __repr__(self) -> str:
        return f"CertificateAuthority({self._bundle.trust_domain}, root {self._root.key_id})"


def _check(root: Root, trust_domain: TrustDomain, now: float, path: Path) -> TrustBundle:
    try:
        bundle = check_root(root, trust_domain)
    except CaError as failure:
        remedy = "Start with the trust domain it was made for, or restore the right files from a backup."
        raise CaStateError(path, str(failure), remedy, row=failure.row) from failure
    if now < root.not_before:
        problem = f"the root is not valid before {_date(root.not_before)}"
        raise CaStateError(path, problem, "Set this machine's clock.", row="F01")
    if now >= root.not_after:
        remedy = "Set the clock if it is wrong; otherwise move the CA's files away: every workload must join anew."
        raise CaStateError(path, f"the root expired at {_date(root.not_after)}", remedy, row="F01")
    return bundle


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
