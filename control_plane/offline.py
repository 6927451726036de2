"""A data directory without its control plane: for commands that work while none runs.

The store's lock keeps both apart: whoever holds it is the only one who changes anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from certs.spiffe_id import TrustDomain
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError
from control_plane.ca.kek import KEK_NAME, KekFile
from control_plane.ca.rekey import rotate_kek
from control_plane.ca.vouching import doubts, vouch
from control_plane.config import ControlPlaneConfig
from control_plane.errors import StartError
from control_plane.model import Authority, RevocationRecord
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore

STORE_NAME, AUDIT_NAME = "hauberk.db", "audit.jsonl"
OPERATOR = "local operator"
VOUCHED = "ca.vouched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    store: Store
    audit: AuditLog
    trust_domain: TrustDomain


@contextlib.contextmanager
def opened(config: ControlPlaneConfig, now: float) -> Iterator[Opened]:
    """The store and the audit log of `config.data_dir`. Raises StoreLocked (a control plane runs on it), StartError."""
    store_path = config.data_dir / STORE_NAME
    if not os.path.lexists(store_path):
        raise StartError(f"{store_path}: there is no database; is --data-dir the control plane's?")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(SqliteStore.open(store_path)))
        audit_path = config.data_dir / AUDIT_NAME
        audit = stack.enter_context(contextlib.closing(AuditLog.open(audit_path, store, now=now)))
        trust_domain = TrustDomain.parse(store.fact("trust domain") or config.trust_domain)
        yield Opened(store=store, audit=audit, trust_domain=trust_domain)


@contextlib.contextmanager
def authority(config: ControlPlaneConfig, now: float) -> Iterator[CertificateAuthority]:
    """The CA of `config.data_dir`, to recover it. Raises as `opened`; CaError as StartError."""
    with opened(config, now) as held:
        try:
            made = CertificateAuthority.open(
                config.data_dir,
                held.trust_domain,
                store=held.store,
                audit=held.audit,
                now=now,
                kek_file=config.kek_file,
                policy=config.ca.policy(config.certificate_lifetime_s),
                sign_command=config.ca.sign_command,
                recovering=True,
            )
            held.audit.sign_with(_kek(config), now)
        except CaError as error:
            raise StartError(str(error)) from error
        yield made


def new_kek(config: ControlPlaneConfig, now: float) -> tuple[str, Path]:
    """Exchanges the key-encryption key: the id of the new one, and where it is. Raises as `authority`."""
    path = (config.kek_file or config.data_dir / KEK_NAME).absolute()
    with opened(config, now) as held:

        def recorded(kek: str) -> None:
            held.audit.append("ca.kek_rotated", at=now, by=OPERATOR, kek=kek)

        try:
            made = rotate_kek(
                config.data_dir,
                config.kek_file,
                held.store,
                os.urandom,
                recorded=recorded,
                trust_known=held.audit.trust_known,
            )
            return made, path
        except CaError as error:
            raise StartError(str(error)) from error
        except OSError as error:
            raise StartError(
                f"{path}: the disk does not do what it must ({error.strerror}); start the control plane, which"
                " completes the change or takes it back"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Unvouched:
    """What an operator is asked to vouch for."""

    authorities: Sequence[Authority]
    revocations: Sequence[RevocationRecord]
    doubts: Sequence[str]
    """None: the key-encryption key vouches for it already."""
    vouch: Callable[[], None]
    """From now on it does. Raises StartError, Unavailable."""


@contextlib.contextmanager
def unvouched(config: ControlPlaneConfig, now: float) -> Iterator[Unvouched]:
    """What is in `config.data_dir`, whatever vouches for it. Raises as `authority`."""
    with opened(config, now) as held:
        known, store = held.audit.trust_known, held.store

        def say() -> None:
            told = [f"{one.level.value} {one.authority_id} {one.phase.value}" for one in found.authorities]
            count = len(found.revocations)

            def recorded() -> None:
                held.audit.append(
                    VOUCHED, at=now, by=OPERATOR, vouched=told, revocations=count, doubts=list(found.doubts)
                )

            vouch(config.data_dir, config.kek_file, store, known, recorded=recorded)

        try:
            found = Unvouched(
                authorities=store.authorities(),
                revocations=store.revocations(),
                doubts=doubts(config.data_dir, config.kek_file, store, known),
                vouch=say,
            )
            yield found
        except CaError as error:
            raise StartError(str(error)) from error


def kek_in(path: Path) -> bytes | None:
    """The key-encryption key in that file; None: there is none. Raises StartError: it is not one, or open to others."""
    try:
        return KekFile(path=path.absolute(), owner_uid=os.geteuid()).read()
    except CaError as error:
        raise StartError(str(error)) from error


def _kek(config: ControlPlaneConfig) -> bytes:
    kek = KekFile(path=(config.kek_file or config.data_dir / KEK_NAME).absolute(), owner_uid=os.geteuid()).read()
    assert kek is not None, "the CA has opened with it"
    return kek
