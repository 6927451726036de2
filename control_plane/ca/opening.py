"""From a data directory to a vault and the authorities in it: in which states the control plane starts.

    the store holds     KEK file        what happens
    authorities         the right one   they are used, after each was checked
    authorities         wrong, missing  refused (row J06)
    authorities that nobody vouches for refused, until an operator does (row J06)
    nothing             none            first start: the KEK is named in the store, written, and then used
    a KEK's name only   none            a first start that was killed: as above
    a KEK's name only   that one        a first start that was killed: goes on with it, if it vouches for the store
    nothing any more    any             refused: what was in it is gone (row J04)
    nothing             there           refused: the database is not the one it belongs to (row J04)
    nothing             there, and ca/  of before authorities were in the store: its root is adopted

Whom the mesh trusts is what the KEK vouches for (`control_plane.store.trust`), not what somebody wrote into the
database. That begins with the name of the KEK, in one transaction with it, and never begins again by itself: a store
that nobody vouches for is one that an older version made, or one that somebody made look like that. Only an operator
can tell (`hauberk ca vouch`).

Nothing is ever repaired, and a new root is never made over what does not open: it would cut off every workload of the
mesh while looking like a success (rows J04, J05, J06). While the KEK is being changed (`rekey`), two KEK files are
there; the store knows which one is in force, so the other one is taken away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from certs.authority_id import key_id
from certs.bundle import pin
from certs.errors import CertsError
from certs.spiffe_id import TrustDomain
from control_plane.ca import files, keys, legacy
from control_plane.ca.book import MADE_FACT
from control_plane.ca.errors import CaError, CaStateError, EnvelopeError
from control_plane.ca.hierarchy import check_intermediate
from control_plane.ca.kek import RESTORE, KekFile, kek_id, trust_key
from control_plane.ca.records import load
from control_plane.ca.refusals import date
from control_plane.ca.root import Root, check_root
from control_plane.ca.slots import active
from control_plane.ca.vault import Vault
from control_plane.logs import fields
from control_plane.model import Authority, Level, Phase
from control_plane.store.base import Store

log = logging.getLogger(__name__)

STORE_NAME = "hauberk.db"
KEK_FACT = "kek"
ANCHOR_FACT = "trust anchor"
"""Written by versions that had one root for ever: SHA-256 of it, hexadecimal."""

UNVOUCHED = "nothing vouches for the authorities in it: an older hauberk made it, or somebody changed it"


def how_to_vouch(data_dir: Path) -> str:
    return (
        f"Look at what is in it, and vouch for it once: hauberk ca vouch --data-dir {files.quoted(data_dir)}. If it was"
        " in use with this version before, restore a backup instead."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    vault: Vault
    adopted: Root | None
    """The root of an older data directory, to be recorded now."""


def open_vault(
    data_dir: Path, kek_file: KekFile, store: Store, token_bytes: Callable[[int], bytes], *, trust_known: int = 0
) -> Opened:
    """The vault over what is there; from now on the KEK vouches for what changes in the store. `trust_known`: number of
    the last statement of whom the mesh trusts that the audit file speaks of.

    Raises CaStateError, TrustBroken, and then nothing has changed; OSError."""
    settle(kek_file, store)
    kek, named = kek_file.read(), store.fact(KEK_FACT)
    if kek is not None and store.is_vouched_for:
        store.open_trust(trust_key(_right(kek, named, kek_file)))
    refuse_older_trust(data_dir, store, kek, trust_known)
    if store.authorities():
        kek = _right(kek, named, kek_file)
        if not store.is_vouched_for:
            raise CaStateError(data_dir / STORE_NAME, UNVOUCHED, how_to_vouch(data_dir), row="J06")
        if named is None:  # its root was adopted
            store.change_fact(KEK_FACT, kek_id(kek))
        return Opened(vault=Vault(kek, token_bytes=token_bytes), adopted=None)
    if store.fact(MADE_FACT) is not None:
        problem = "the authorities are gone that were in it"
        raise CaStateError(data_dir / STORE_NAME, problem, RESTORE, row="J04")
    if named is None and (kek is not None or legacy.is_there(data_dir)):
        root = _adopt(data_dir, kek_file, kek, store)
        assert kek is not None
        store.vouch(trust_key(kek))  # for nothing, yet
        return Opened(vault=Vault(kek, token_bytes=token_bytes), adopted=root)
    if kek is not None:
        if not store.is_vouched_for:
            problem = "it names the key-encryption key, and nothing else of a CA is in it"
            raise CaStateError(data_dir / STORE_NAME, problem, RESTORE, row="J04")
        return Opened(vault=Vault(kek, token_bytes=token_bytes), adopted=None)
    return Opened(vault=Vault(_first_kek(kek_file, named, store, token_bytes), token_bytes=token_bytes), adopted=None)


def refuse_lost_store(store_path: Path, beside: Sequence[Path]) -> None:
    """Asked before a database is made: what is `beside` it shows that there was one. Raises CaStateError (row J04)."""
    found = [path for path in beside if os.path.lexists(path)]
    if os.path.lexists(store_path) or not found:
        return
    problem = f"the database is missing, while {found[0]} is there"
    remedy = (
        "Restore it from a backup; a new CA is never made over an old one. If there never was a mesh here, move away:"
        f" {', '.join(map(files.quoted, found))}"
    )
    raise CaStateError(store_path, problem, remedy, row="J04")


def settle(kek_file: KekFile, store: Store) -> None:
    """Completes or undoes a change of the KEK that was interrupted. Raises CaStateError."""
    following, named = kek_file.read_next(), store.fact(KEK_FACT)
    if following is None:
        return
    if kek_id(following) == named:
        kek_file.swap()
        log.warning("a change of the key-encryption key that was interrupted is complete", extra=fields(kek=named))
        return
    current = kek_file.read()
    if current is None or kek_id(current) != named:
        raise CaStateError(kek_file.path, "neither it nor the one beside it seals the CA's keys", RESTORE, row="J06")
    kek_file.discard(kek_file.next_path)
    log.warning("a change of the key-encryption key that was interrupted is undone", extra=fields(kek=named))


def refuse_older_trust(data_dir: Path, store: Store, kek: bytes | None, trust_known: int) -> None:
    """Rows that were right once, put into a store that has seen more, or what vouches for them taken away (row J07).
    Raises CaStateError."""
    if kek is None or store.trust_number >= trust_known:
        return
    held = f"number {store.trust_number}" if store.is_vouched_for else "missing"
    problem = (
        f"what vouches for whom the mesh trusts is {held}, while the audit file knows of number {trust_known}: somebody"
        " took it away, or put back what was there before"
    )
    remedy = f"Restore a backup. If it was you: hauberk ca vouch --data-dir {files.quoted(data_dir)}"
    raise CaStateError(data_dir / STORE_NAME, problem, remedy, row="J07")


def check_authorities(authorities: Sequence[Authority], vault: Vault, trust_domain: TrustDomain, where: Path) -> None:
    """Is what is stored whole, and does every key open? Raises CaStateError. Expired ones are sound, only useless."""
    by_id = {one.authority_id: one for one in authorities}
    for one in authorities:
        if one.phase is Phase.REVOKED:
            continue
        name = f"{where} ({one.level.value} {one.authority_id})"
        try:
            _check_one(one, by_id, vault, trust_domain)
        except EnvelopeError as failure:
            raise CaStateError(name, f"its private key is {failure}", RESTORE, row="J06") from failure
        except (CaError, CertsError, ValueError) as failure:
            row = getattr(failure, "row", "")
            remedy = "Start with the trust domain it was made for, or restore the database from a backup."
            raise CaStateError(name, str(failure), remedy, row=row or "J04") from failure


def refuse_clock(authorities: Sequence[Authority], now: float, where: Path) -> None:
    """Raises CaStateError (row F01): the root is not valid yet, so the clock is wrong, or was when the root was made.

    An intermediate that is not valid yet is replaced (`slots`)."""
    root = active(authorities, Level.ROOT)
    if root is not None and now < root.not_before:
        problem = f"the root is not valid before {date(root.not_before)}"
        remedy = (
            "Set this machine's clock. If it is right, and was ahead when the root was made: hauberk ca recover --force"
        )
        raise CaStateError(where, problem, remedy, row="F01")


def _check_one(one: Authority, by_id: dict[str, Authority], vault: Vault, trust_domain: TrustDomain) -> None:
    if not one.sealed_key and one.level is not Level.ROOT:  # an offline root's is kept elsewhere
        raise EnvelopeError("missing", row="J06")
    key = vault.unseal(one) if one.sealed_key else None
    if one.level is Level.JWT or one.phase is Phase.REQUESTED:
        return
    certificate = load(one)
    if key_id(certificate.public_key()) != one.authority_id:  # type: ignore[arg-type]  # of a known kind
        raise CaError("its certificate belongs to another key", row="J06")
    if one.level is Level.INTERMEDIATE:
        if one.parent_id not in by_id:
            raise CaError("its root is missing", row="J04")
        check_intermediate(one.certificate_der, by_id[one.parent_id].certificate_der, None)
    elif key is not None:
        check_root(Root(certificate=certificate, private_key=key), trust_domain)


def _right(kek: bytes | None, named: str | None, kek_file: KekFile) -> bytes:
    if kek is None:
        problem = "is missing, while the CA's keys are in the database"
        raise CaStateError(kek_file.path, problem, RESTORE, row="J06")
    if named is not None and kek_id(kek) != named:
        problem = "is not the key-encryption key that the CA's keys are encrypted with"
        raise CaStateError(kek_file.path, problem, RESTORE, row="J06")
    return kek


def _adopt(data_dir: Path, kek_file: KekFile, kek: bytes | None, store: Store) -> Root:
    """The root of an older data directory. Raises CaStateError."""
    known = store.fact(ANCHOR_FACT)
    if not legacy.is_there(data_dir):
        problem = f"is there, but the database in {data_dir} knows no CA"
        remedy = (
            f"{RESTORE} If this data directory never held a CA, move the key-encryption key away:"
            f" {files.quoted(kek_file.path)}"
        )
        raise CaStateError(kek_file.path, problem, remedy, row="J04")
    if kek is None:
        problem = f"is missing, while {data_dir / legacy.CA_NAME} is there"
        raise CaStateError(kek_file.path, problem, RESTORE, row="J06")
    root = legacy.load(data_dir, kek_file.path, kek, kek_file.owner_uid)
    found = pin(root.der).hex()
    if known not in (None, found):
        problem = f"its anchor is {found[:16]}..., but the store knows {str(known)[:16]}...; they are of two meshes"
        raise CaStateError(data_dir, problem, "Restore both from the same backup.", row="J04")
    return root


def _first_kek(kek_file: KekFile, named: str | None, store: Store, token_bytes: Callable[[int], bytes]) -> bytes:
    """The store names the KEK before the file is written: whoever finds the file can tell whose it is."""
    known = store.fact(ANCHOR_FACT)
    if known is not None:
        problem = f"the CA is gone that the store knows (anchor {known[:16]}...)"
        raise CaStateError(kek_file.path.parent, problem, RESTORE, row="J04")
    if named is not None:
        kek_file.discard(kek_file.temporary_path)
    elif kek_file.is_half_written():
        remedy = f"If no other control plane is starting now: rm {files.quoted(kek_file.temporary_path)}"
        raise CaStateError(kek_file.temporary_path, "is left from a start that was interrupted", remedy)
    kek = token_bytes(keys.KEK_BYTES)
    with store.transaction():
        store.change_fact(KEK_FACT, kek_id(kek))
        store.vouch(trust_key(kek))
    kek_file.write(kek)
    return kek
