"""Going on without what is lost: an operator's decision, on record (security.md J11)."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from control_plane.audit import files
from control_plane.audit.chain import RESTARTED, Field, Head
from control_plane.audit.log import AuditLog
from control_plane.audit.opening import HEAD_FACT
from control_plane.errors import AuditDamaged, StoreError
from control_plane.store.sqlite import SqliteStore


def restart(data_dir: Path, store_name: str, *, reason: str, by: str, now: float) -> Path | None:
    """Sets the file at hand aside and begins another after the record the store knows last. The file set aside; None:
    there was none. `now`: Unix seconds.

    Raises StoreError (a control plane runs there, or the store knows no chain), AuditDamaged (nothing is wrong)."""
    with contextlib.closing(SqliteStore.open(data_dir / store_name)) as store:
        held = store.fact(HEAD_FACT)
        if held is None:
            raise StoreError(f"{data_dir / store_name}: knows no audit file; restore the store it belongs to")
        path = data_dir / files.NAME
        try:
            with contextlib.closing(AuditLog.open(path, store, now=now)):
                pass
        except AuditDamaged:
            pass
        else:
            raise AuditDamaged(f"{path}: is as it was written; nothing was changed")
        told: dict[str, Field] = {"reason": reason}
        aside = None
        if path.exists():
            told["set_aside_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            aside = files.set_aside(path, f"audit-broken-{int(now)}")
            told["set_aside"] = aside.name
        head = Head.parse(held)
        audit = AuditLog(path, files.open_private(path), store, head=head, first=head.seq + 1, end=0)
        with contextlib.closing(audit):
            store.attach(audit)
            audit.append(RESTARTED, at=now, by=by, **told)
    return aside
