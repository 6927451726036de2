"""An operator's word for what is in a database that nothing vouches for, or that was changed by other means.

The KEK vouches for whom the mesh trusts (`opening`). A database of an older version has nothing of the kind yet, and
one that was edited by hand is refused; whether what is in it is right, only somebody can say who knows the mesh.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from control_plane.ca.errors import CaStateError
from control_plane.ca.kek import KEK_NAME, RESTORE, KekFile, kek_id, trust_key
from control_plane.ca.opening import KEK_FACT, settle
from control_plane.store.base import Store


def doubts(data_dir: Path, kek_file: Path | None, store: Store, trust_known: int) -> Sequence[str]:
    """What the KEK does not vouch for, one clause each; none: it does for all. `trust_known`: see `open_vault`.

    Raises CaStateError (no KEK, or the wrong one)."""
    found = list(store.doubts(trust_key(_kek(data_dir, kek_file, store))))
    if not found and store.trust_number < trust_known:
        found.append(f"it is as of number {store.trust_number}, while the audit file knows of number {trust_known}")
    return found


def vouch(
    data_dir: Path, kek_file: Path | None, store: Store, trust_known: int, *, recorded: Callable[[], None]
) -> None:
    """The KEK vouches for all that is in the store now. `recorded` is called inside the transaction, to write it down.

    Raises CaStateError, Unavailable; then nothing has changed."""
    key = trust_key(_kek(data_dir, kek_file, store))
    with store.transaction():
        store.vouch(key, after=trust_known)
        recorded()


def _kek(data_dir: Path, kek_file: Path | None, store: Store) -> bytes:
    file = KekFile(path=(kek_file or data_dir / KEK_NAME).absolute(), owner_uid=os.geteuid())
    settle(file, store)
    kek = file.read()
    if kek is None:
        raise CaStateError(file.path, "is missing", RESTORE, row="J06")
    if store.fact(KEK_FACT) not in (None, kek_id(kek)):
        problem = "is not the key-encryption key that the CA's keys are encrypted with"
        raise CaStateError(file.path, problem, RESTORE, row="J06")
    return kek
