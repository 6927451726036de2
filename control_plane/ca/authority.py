"""The certificate authority as the rest of the control plane sees it: open it, tick it, ask it to issue.

Reading (`bundle`, `tainted`, ...) is a look at the view in force, which is replaced whole. What changes authorities is
in `operations`; when it is due, `slots` says.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from certs.bundle import TrustBundle, pin
from certs.csr import CsrFacts, read_csr
from certs.der import PublicKey
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.succession import Succession
from control_plane.audit import AuditLog
from control_plane.ca import jwt
from control_plane.ca.book import Book
from control_plane.ca.errors import CaError, CaExpired, CaStateError, IdentityMismatch
from control_plane.ca.kek import KEK_NAME, KekFile
from control_plane.ca.opening import STORE_NAME, check_authorities, open_vault, refuse_clock
from control_plane.ca.operations import Operations
from control_plane.ca.records import Maker
from control_plane.ca.signer import IssuedSvid
from control_plane.ca.slots import CaPolicy, Live, Readiness, Step, StepKind
from control_plane.ca.vault import Vault
from control_plane.errors import Unavailable
from control_plane.model import Authority, Level
from control_plane.store.base import Store


class CertificateAuthority:
    """Every authority of one mesh, and the right to sign with them. Make it with `open`."""

    def __init__(self, book: Book, operations: Operations, vault: Vault, trust_domain: TrustDomain) -> None:
        self._book = book
        self._operations = operations
        self._vault = vault
        self._trust_domain = trust_domain

    @classmethod
    def open(
        cls,
        data_dir: Path,
        trust_domain: TrustDomain,
        *,
        store: Store,
        audit: AuditLog,
        now: float,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
        kek_file: Path | None = None,
        policy: CaPolicy | None = None,
        sign_command: Sequence[str] = (),
        recovering: bool = False,
    ) -> CertificateAuthority:
        """The CA in `store`, made there at the first start; its keys are sealed with the KEK in `kek_file` (default: in
        `data_dir`). `now` in Unix seconds. `recovering`: also with a root that is not valid yet, for `recover`.

        Raises CaStateError, TrustBroken: what is there does not open (see `opening` for the states), or is not what
        the KEK vouches for, and nothing was changed.
        Expired authorities are no error."""
        policy = policy or CaPolicy()
        kek = KekFile(path=(kek_file or data_dir / KEK_NAME).absolute(), owner_uid=os.geteuid())
        try:
            opened = open_vault(data_dir.absolute(), kek, store, token_bytes, trust_known=audit.trust_known)
            vault = opened.vault
            check_authorities(store.authorities(), vault, trust_domain, data_dir / STORE_NAME)
            if not recovering:
                refuse_clock(store.authorities(), now, data_dir / STORE_NAME)
            book = Book(store, audit, trust_domain, vault, policy, now=now, token_bytes=token_bytes)
            maker = Maker(trust_domain, policy, vault, token_bytes)
            operations = Operations(book, maker, policy, trust_domain, vault, sign_command=sign_command)
            operations.begin(now, opened.adopted)
        except CaStateError:
            raise
        except (OSError, Unavailable) as failure:
            problem = f"the disk does not do what it must ({failure})"
            remedy = "Nothing was committed; start again when that is mended."
            raise CaStateError(data_dir, problem, remedy, row="J03") from failure
        except CaError as failure:
            remedy = "Start with the trust domain it was made for, or restore the right files from a backup."
            raise CaStateError(data_dir, str(failure), remedy, row=failure.row) from failure
        return cls(book, operations, vault, trust_domain)

    # whom the mesh trusts

    @property
    def bundle(self) -> TrustBundle:
        """The ACTIVE root first, then the newest. While there is none: an anchor nobody has the key of."""
        return self._book.view.bundle

    @property
    def anchor_der(self) -> bytes:
        """Of the ACTIVE root."""
        return self._book.view.anchor_der

    @property
    def anchor_not_after(self) -> float:
        """Of the ACTIVE root; Unix seconds; 0: there is none."""
        root = self._book.view.root
        return root.not_after if root is not None else 0.0

    @property
    def pin(self) -> bytes:
        """SHA-256 of the DER of the root under which certificates are signed now, for join tokens.

        That need not be the ACTIVE one: as long as nobody has signed under that, our own certificate is not under it
        either, and who joins has to verify our certificate."""
        signer = self._book.view.signer
        return pin(signer.anchor_der if signer is not None else self._book.view.anchor_der)

    @property
    def issuer_id(self) -> str:
        """Who signs leaves now; empty: nobody."""
        signer = self._book.view.signer
        return signer.issuer_id if signer is not None else ""

    @property
    def has_root(self) -> bool:
        """False: a new mesh that waits for its offline root."""
        return self._book.view.root is not None

    @property
    def revoked_intermediates(self) -> frozenset[str]:
        """Their key ids: not to be trusted although their time has not run out."""
        return self._book.view.revoked_intermediates

    @property
    def tainted(self) -> frozenset[str]:
        """Key ids: who holds something under one renews at once."""
        return self._book.view.tainted

    def successions(self) -> tuple[Succession, ...]:
        """In order; without those of roots that were revoked."""
        return self._book.view.successions

    def jwt_keys(self) -> str:
        """JSON Web Key Set of those whose signatures are to be taken; empty: none."""
        return self._book.view.jwt_keys

    # issuing

    def issue(self, identity: SpiffeId, csr_der: bytes, lifetime_s: float, now: float) -> IssuedSvid:
        """An SVID for `identity`: whom the caller was authenticated as, or what its join token binds.

        Of the request only the key counts. Raises certs.errors.InvalidCsr (INVALID_ARGUMENT), IdentityMismatch if it
        names somebody else (PERMISSION_DENIED, row G01), CaExpired, UnfitToIssue."""
        return self.issue_for_request(identity, read_csr(csr_der), lifetime_s, now)

    def issue_for_request(self, identity: SpiffeId, facts: CsrFacts, lifetime_s: float, now: float) -> IssuedSvid:
        """The same for a request that was read (`read_csr`), which proved its key. Raises as `issue`."""
        if facts.spiffe_id is not None and facts.spiffe_id != identity:
            raise IdentityMismatch(f"{identity} asked for a certificate of {facts.spiffe_id}", row="G01")
        self._operations.leaf_lifetime(lifetime_s)
        return self.issue_for_key(identity, facts.public_key, lifetime_s, now)

    def issue_for_key(self, identity: SpiffeId, public_key: PublicKey, lifetime_s: float, now: float) -> IssuedSvid:
        """The same for a key that is known to be the identity's: the control plane's own. Raises as `issue`."""
        signer = self._book.view.signer
        if signer is None:
            raise CaExpired("there is no active intermediate to sign with; see `hauberk ca status`", row="G08")
        return signer.issue(identity, public_key, lifetime_s, now)

    def issue_jwt(self, identity: SpiffeId, audiences: Sequence[str], now: float) -> jwt.IssuedJwt:
        """A JWT-SVID. Raises IdentityMismatch (another trust domain), CaExpired, UnfitToIssue, ValueError (audiences:
        none, empty, too many)."""
        if identity.trust_domain != self._trust_domain:
            raise IdentityMismatch(f"{identity} is not of the trust domain {self._trust_domain} of this CA", row="F03")
        key = self._book.view.jwt
        if key is None or now >= key.not_after:
            raise CaExpired("there is no active key for JWT-SVIDs; see `hauberk ca status`", row="G08")
        lifetime_s = min(self._operations.policy.jwt_lifetime_s, key.not_after - now)
        return jwt.sign(self._vault.unseal(key), key.authority_id, identity, audiences, lifetime_s=lifetime_s, now=now)

    # what time and operators do

    def tick(self, now: float, readiness: Readiness) -> bool:
        """Does what is due. True: the mesh must be told. Raises nothing: what fails is logged and tried again."""
        return self._operations.tick(now, readiness)

    def doubt_clock(self, is_doubted: bool) -> None:
        """It may be ahead. As long as it is doubted, time alone retires nothing, and changes nothing about roots: what
        was made of them ahead of time would have to be undone by an operator."""
        self._operations.is_clock_doubted = is_doubted

    def close(self) -> None:
        """Ends what it started. Idempotent."""
        self._operations.close()

    def prepare(self, level: Level, now: float, by: str, *, force: bool = False) -> Authority:
        """A new one, PREPARED; REQUESTED if an offline root is to sign it (`csr_pem`). Raises CaRefused, CaError."""
        return self._operations.prepare(level, now, by, force=force)

    def activate(
        self, authority_id: str, now: float, by: str, readiness: Readiness, *, force: bool = False
    ) -> Authority:
        """From now on it signs; the one before is OLD. Raises CaRefused, KeyError (no such id)."""
        return self._operations.activate(authority_id, now, by, readiness, force=force)

    def taint(self, authority_id: str, now: float, by: str) -> Authority:
        """Whoever holds something under it renews at once. Raises CaRefused, KeyError."""
        return self._operations.taint(authority_id, now, by)

    def revoke(self, authority_id: str, now: float, by: str, *, force: bool = False) -> Authority:
        """Nobody trusts it any more. Raises CaRefused (live certificates stand under it), KeyError."""
        return self._operations.revoke(authority_id, now, by, force=force)

    def install(self, certificate_pem: str, now: float, by: str) -> Authority:
        """The intermediate an offline root signed, and its root if that is new. Raises CaRefused."""
        return self._operations.install(certificate_pem, now, by)

    def recover(self, now: float, by: str, *, force: bool = False) -> Authority:
        """After the root has expired, or by `force`: a new root and intermediate, vouched for by the old root. Returns
        the root. Raises CaRefused: the root is good, is kept elsewhere, or too many are trusted."""
        return self._operations.recover(now, by, force=force)

    # for people, and for rehearsals

    @property
    def authorities(self) -> tuple[Authority, ...]:
        """All, oldest first."""
        return self._book.view.authorities

    @property
    def policy(self) -> CaPolicy:
        return self._operations.policy

    def find(self, prefix: str, level: Level | None = None) -> Authority:
        """By its id or the beginning of it. Raises CaRefused: none, or more than one."""
        return self._operations.find(prefix, level)

    def live(self, now: float) -> Live:
        """What hangs on whom, with names."""
        return self._book.live(now)

    def breaks(self, authority_id: str, kind: StepKind, now: float, readiness: Readiness) -> tuple[str, ...]:
        """Who would lose by activate or revoke, for people. Raises KeyError."""
        return self._operations.breaks(authority_id, kind, now, readiness)

    def next_steps(self, now: float, readiness: Readiness) -> tuple[Step, ...]:
        """What will be done by itself, when, and what that waits for."""
        return self._operations.next_steps(now, readiness)

    def alarms(self, now: float, readiness: Readiness) -> tuple[str, ...]:
        """What somebody should look at."""
        return self._operations.alarms(now, readiness)

    def csr_pem(self, authority_id: str) -> str:
        """The request for the offline root; empty: it is not REQUESTED. Raises KeyError."""
        return self._operations.csr_pem(authority_id)

    def __repr__(self) -> str:
        view = self._book.view
        root = view.root.authority_id if view.root is not None else "none"
        return f"CertificateAuthority({self._trust_domain}, root {root}, {len(view.authorities)} authorities)"
