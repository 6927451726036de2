"""Another key-encryption key in the place of the one there is.

    1. the new KEK is written beside the old one (`<kek file>.next`)
    2. every sealed key is sealed anew, the new KEK vouches for what the old one did, and the store names it: one
       transaction
    3. the new file takes the old one's place

Killed before 2 the next start throws the new file away, killed after it the next start does 3 (`opening.settle`).
Backups made before need the old KEK: keep it with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from control_plane.audit import checkpoint
from control_plane.ca import keys
from control_plane.ca.errors import CaStateError, EnvelopeError
from control_plane.ca.kek import KEK_NAME, RESTORE, KekFile, kek_id, trust_key
from control_plane.ca.opening import KEK_FACT, STORE_NAME, UNVOUCHED, how_to_vouch, refuse_older_trust, settle
from control_plane.store.base import Store


def rotate_kek(
    data_dir: Path,
    kek_file: Path | None,
    store: Store,
    token_bytes: Callable[[int], bytes],
    *,
    recorded: Callable[[str], None] = lambda kek: None,
    trust_known: int = 0,
) -> str:
    """The id of the new KEK. The store is open, so no control plane runs on it. `recorded` is called with that id
    inside the transaction, to write it down in the audit log; `trust_known`: see `opening.open_vault`.

    Raises CaStateError (no KEK, the wrong one, a key that does not open), and then nothing has changed; OSError,
    TrustBroken, Unavailable and what `recorded` raises, and then the next start completes it or takes it back."""
    file = KekFile(path=(kek_file or data_dir / KEK_NAME).absolute(), owner_uid=os.geteuid())
    settle(file, store)
    old = file.read()
    if old is None:
        raise CaStateError(file.path, "is missing", RESTORE, row="J06")
    if store.fact(KEK_FACT) != kek_id(old):
        problem = "is not the key-encryption key that the CA's keys are encrypted with"
        raise CaStateError(file.path, problem, RESTORE, row="J06")
    if not store.is_vouched_for:
        raise CaStateError(data_dir / STORE_NAME, UNVOUCHED, how_to_vouch(data_dir), row="J06")
    store.open_trust(trust_key(old))
    refuse_older_trust(data_dir, store, old, trust_known)
    new = token_bytes(keys.KEK_BYTES)
    file.discard(file.next_temporary_path)
    file.write_next(new)
    try:
        with store.transaction():
            _reseal(store, old, new, token_bytes)
            store.change_fact(KEK_FACT, kek_id(new))
            store.vouch(trust_key(new))
            recorded(kek_id(new))
    except EnvelopeError as failure:
        file.discard(file.next_path)
        raise CaStateError(data_dir, f"a sealed key is {failure}", RESTORE, row="J06") from failure
    # Whatever else fails, both files stay: a commit whose fsync failed may be found done after a crash, and what it
    # sealed opens with the new KEK only. The next start knows (`settle`).
    file.swap()
    return kek_id(new)


def _reseal(store: Store, old: bytes, new: bytes, token_bytes: Callable[[int], bytes]) -> None:
    """All that is sealed with it. Raises EnvelopeError."""
    for one in store.authorities():
        if one.sealed_key:
            private_key = keys.unseal(one.sealed_key, kek=old)
            sealed = keys.seal(private_key, kek=new, nonce=token_bytes(keys.NONCE_BYTES))
            store.put_authority(replace(one, sealed_key=sealed))
    checkpoint.reseal(store, old_kek=old, new_kek=new, nonce=token_bytes(keys.NONCE_BYTES))
