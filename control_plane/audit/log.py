"""`AuditLog`: writes the chain, and takes it up again at a start.

Theory of operation. `append` holds a record until the store's transaction ends; right before it commits, all records of
the transaction go into the file with one write and one fsync, and the new head into the store, as part of that same
transaction. So:

1. What is committed is written down: the record is durable before the commit is, and the commit before the answer.
2. What was rolled back is not written down.
3. What was written down and then not committed (the commit failed, or we were killed between the two) is told by a
   later record, `audit.not_committed`: the store's head shows up to where the file and the store agree.
4. A file that does not hold the store's head was cut, edited or exchanged, and the start is refused (security.md J11).

Refused calls change nothing, so their records are written without waiting for the disk; the next transaction, or
`tick`, carries them along.

The file has one writer, who holds the store's lock, and writes at the place where the last good record ends. What a
failed write left behind that place is overwritten or cut off by the next one: it was never answered for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from control_plane.audit import chain, files
from control_plane.audit.chain import Field, Head
from control_plane.audit.checkpoint import CHECKPOINT, KEY_MADE, CheckpointKey, open_or_make
from control_plane.audit.opening import HEAD_FACT, NOT_COMMITTED, REFUSED, REFUSED_MORE, take_up
from control_plane.audit.refusals import Refusals
from control_plane.errors import ControlPlaneError, StoreError, Unavailable
from control_plane.logs import fields as log_fields
from control_plane.store.base import Store

log = logging.getLogger(__name__)

ROTATE_OCTETS = 16 * 1024 * 1024
"""A file that is larger is closed and another begun. Small enough to be read whole at each start."""
CHECKPOINT_RECORDS, CHECKPOINT_S = 1_000, 300.0
SYNC_S = 5.0
"""How long refused calls may be in the file without being in the store's head."""
REASON_CHARS_MAX = 300

WE = "control plane"


class AuditLog:
    """See the module's docstring. Used from one thread, as the store is."""

    def __init__(self, path: Path, fd: int, store: Store, *, head: Head, first: int, end: int) -> None:
        """`head`: of the last good record; `first`: number of the file's first record; `end`: where it ends."""
        self._path = path
        self._fd = fd
        self._store = store
        self._head = head
        self._first = first
        self._end = end
        self._stored = head
        self._flushed: int | None = None
        self._held: list[bytes] = []
        self._not_committed: list[str] = []
        self._residue = False
        self._refusals = Refusals()
        self._key: CheckpointKey | None = None
        self._checkpoint_at, self._checkpoint_seq = 0.0, head.seq
        self._synced_at = self._seen = 0.0
        self._trust_told = 0
        self.trust_known = 0
        """Number of the last statement of whom the mesh trusts that the file spoke of when it was opened."""
        self.last_at = 0.0
        """When the last record was written that was there then; Unix seconds, 0: there was none."""

    def __repr__(self) -> str:
        return f"<AuditLog {self._path.name} seq={self._head.seq} held={len(self._held)}>"

    @classmethod
    def open(cls, path: Path, store: Store, *, now: float) -> AuditLog:
        """Takes the chain up where it ends, or begins it. `now`: Unix seconds.

        Raises StoreError, StoreDamaged (the file and the store do not belong together, or it was changed), and
        Unavailable if what this finds cannot be written down."""
        try:
            taken = take_up(path, store, now)
        except OSError as error:
            raise StoreError(f"{path}: the audit file cannot be read or written ({error.strerror})") from error
        audit = cls(path, taken.fd, store, head=taken.head, first=taken.first, end=taken.end)
        audit.trust_known, audit.last_at = taken.trust, taken.last_at
        try:
            store.attach(audit)
            with store.transaction():
                for event, told in taken.to_tell:
                    audit.append(event, at=now, by=WE, **told)
        except BaseException:
            os.close(taken.fd)
            raise
        return audit

    @property
    def head(self) -> Head:
        """Of the last record in the file."""
        return self._head

    # --- records -----------------------------------------------------------------------------------------------------

    def append(self, event: str, *, at: float, by: str, **fields: Field) -> None:
        """A record of the store's transaction, or of one of its own. `event` is a constant such as "token.created".

        Raises Unavailable, here or when the transaction ends, if it cannot be written; nothing is changed then."""
        self._seen = max(self._seen, at)
        with self._store.transaction():
            self._held.append(chain.body(event, at=at, by=by, fields=fields))

    def refused(self, method: str, caller: str, peer: str, status: str, reason: str, now: float) -> None:
        """A call that was answered with an error. `caller`: whom the connection proved, "" if that was what failed.

        Never raises: what cannot be written now is counted, and told later."""
        self._seen = max(self._seen, now)
        self._tell_refusals(now)
        if not self._refusals.admit(peer, now):
            return
        told = chain.body(
            REFUSED,
            at=now,
            by=caller[:REASON_CHARS_MAX],
            fields={"method": method[:200], "peer": peer[:200], "status": status, "reason": reason[:REASON_CHARS_MAX]},
        )
        try:
            self._write([told], durable=False)
        except OSError:
            self._refusals.leave_out(peer, now)

    def _tell_refusals(self, now: float, *, all_of_them: bool = False) -> None:
        told = self._refusals.take() if all_of_them else self._refusals.due(now)
        if told is None:
            return
        told_as: dict[str, Field] = {"count": told.count, "since": round(told.since, 3), "peers": told.peers}
        try:
            self._write([chain.body(REFUSED_MORE, at=now, by=WE, fields=told_as)], durable=False)
        except OSError:
            self._refusals.put_back(told)

    def tick(self, now: float) -> None:
        """What is due without anybody asking: sums of refused calls, the head, a checkpoint. Raises Unavailable."""
        self._seen = max(self._seen, now)
        self._tell_refusals(now)
        written = self._head.seq - self._checkpoint_seq
        late = not 0 <= now - self._checkpoint_at < CHECKPOINT_S
        if self._key is not None and written > 0 and (written >= CHECKPOINT_RECORDS or late):
            self.checkpoint(now)
        if self._head != self._stored and not 0 <= now - self._synced_at < SYNC_S:
            self._synced_at = now
            self.sync()

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def sign_with(self, kek: bytes, now: float, *, token_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """From now on there are checkpoints, with the store's key, which `kek` opens.

        Raises EnvelopeError, Unavailable."""

        def made(key: CheckpointKey) -> None:
            self.append(KEY_MADE, at=now, by=WE, key=key.key_id, public_key=key.public_text)

        self._key = open_or_make(self._store, kek=kek, token_bytes=token_bytes, made=made)
        self.checkpoint(now)

    def checkpoint(self, now: float) -> Head:
        """Signs the chain as it is; the head with that record. Raises Unavailable."""
        self.sync()
        if self._key is not None:
            at, epoch = round(now, 3), self._store.epoch
            # Whatever else were in this transaction would stand between what is signed and the signature.
            assert not self._held, "a checkpoint is a transaction of its own"
            signature = self._key.sign(epoch=epoch, at=at, before=self._head)
            self.append(CHECKPOINT, at=at, by=WE, epoch=epoch, key=self._key.key_id, signature=signature)
            self._checkpoint_at, self._checkpoint_seq = now, self._head.seq
        return self._head

    def sync(self) -> None:
        """All that was written is durable and in the store's head. Raises Unavailable."""
        if self._head != self._stored or self._not_committed:
            with self._store.transaction():
                pass  # `flush` does it

    # --- the store's transaction -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """The transaction is about to commit (`store.base.Journal`). Raises Unavailable; it must be rolled back."""
        if self._not_committed:
            told: dict[str, Field] = {"records": list(self._not_committed)}
            self._held.insert(0, chain.body(NOT_COMMITTED, at=self._seen, by=WE, fields=told))
        if not self._held and self._head == self._stored:
            return
        before = self._head.seq
        if self._held:
            # A store that knows less than this was not left by a crash: it is an older one, put back.
            self._held[0] = chain.with_after(self._held[0], self._stored.seq)
            if self._store.trust_number > self._trust_told:
                self._trust_told = self._store.trust_number
                self._held[0] = chain.with_trust(self._held[0], self._trust_told)
        try:
            self._write(self._held, durable=True)
        except OSError as error:
            raise Unavailable(
                "the audit record cannot be written, so nothing was changed; free space in the control plane's data"
                " directory and try again"
            ) from error
        self._not_committed.clear()
        self._flushed = before + 1 if self._held else None
        self._store.change_fact(HEAD_FACT, str(self._head))

    def mark(self) -> int:
        return len(self._held)

    def undo(self, mark: int) -> None:
        del self._held[mark:]

    def settled(self, *, committed: bool) -> None:
        """The transaction is over."""
        self._held.clear()
        if committed:
            self._stored = self._head
        else:
            self._trust_told = 0
            if self._flushed is not None:
                self._not_committed.append(f"{self._flushed}-{self._head.seq}")
        self._flushed = None

    # --- the file ----------------------------------------------------------------------------------------------------

    def _write(self, told: list[bytes], *, durable: bool) -> None:
        """All of it, or none as far as anybody can tell. Raises OSError."""
        if self._fd < 0:
            raise OSError(9, "closed")
        if told and not self._has_its_name():
            raise OSError(2, "was moved or removed")
        if self._end >= ROTATE_OCTETS and told:
            self._rotate()
        head, lines = self._head, []
        for one in told:
            line, head = chain.link(head, one)
            lines.append(line)
        octets = b"".join(lines)
        try:
            if self._residue:
                os.ftruncate(self._fd, self._end)
            self._residue = True
            if octets and os.pwrite(self._fd, octets, self._end) != len(octets):
                raise OSError(28, "written in part")
            if durable:
                os.fsync(self._fd)
            self._residue = False
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
                self._residue = False
            raise
        self._head = head
        self._end += len(octets)

    def _has_its_name(self) -> bool:
        """What is written to a file without a name is lost with us."""
        try:
            return os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self._fd))
        except OSError:
            return False

    def _rotate(self) -> None:
        """Begins another file. Whatever fails, the one at hand goes on. Raises OSError."""
        fresh = self._path.with_name(self._path.name + ".new")
        os.fsync(self._fd)
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._path.rename(self._path.with_name(files.full_name(self._first, self._head.seq)))
        except OSError:
            os.close(fd)
            raise
        # Killed between the two renames there is no current file: the next start goes on from the full one.
        os.close(self._fd)
        self._fd, self._first, self._end, self._trust_told = fd, self._head.seq + 1, 0, 0
        fresh.rename(self._path)
        files.sync_directory(self._path.parent)

    def close(self) -> None:
        """With a last checkpoint, if it can be written. Idempotent."""
        if self._fd < 0:
            return
        try:
            self._tell_refusals(self._seen, all_of_them=True)
            if self._head.seq != self._checkpoint_seq:
                self.checkpoint(self._seen)
        except ControlPlaneError:
            log.exception("the last audit checkpoint cannot be written", extra=log_fields(seq=self._head.seq))
        os.close(self._fd)
        self._fd = -1
