"""The `Store` interface: everything the control plane must remember.

Methods are synchronous and short: a laptop's store is a file beside the process, and every statement is an indexed
look-up or a single-row write. Callers run in one event loop and never await between reading and writing, so a
`transaction()` cannot be interleaved. The rules each back end keeps, and the contract suite checks:

1. What a method returned is durable; a transaction is all or nothing.
2. Every change of a resource or an endpoint makes `revision` larger, in the same transaction; a call that changes
   nothing leaves it alone.
3. A join token is spent by exactly one caller, whatever runs beside it (security.md G11).
4. A serial number is recorded once (security.md J10).
5. Every change of an authority, and every revocation, makes `revision` larger too: all snapshots may change by it.
6. Every change of resources has one entry in the history, made in the same transaction; what was in force at any
   version since `history_floor` can be had, and later changes do not alter that answer. The newest
   `history_versions_max` entries are kept.
7. What cannot be written now raises Unavailable and changes nothing (J03); reading goes on.
8. No transaction commits before the journal has been asked to write down what it must (G30).
9. Once vouched for with a key, authorities and revocations change only together with what vouches for them (J06).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from certs.spiffe_id import SpiffeId
from control_plane.model import (
    Authority,
    Change,
    EndpointRecord,
    HistoryEntry,
    IssuedRecord,
    JoinTokenRecord,
    Node,
    ResourceKey,
    ResourceRecord,
    RevocationRecord,
    RevokedKind,
    Workload,
    WorkloadSpec,
)

HISTORY_VERSIONS_MAX = 1_000


def what_changes(held: ResourceRecord | None, record: ResourceRecord) -> str:
    """What applying `record` over `held` does: created | updated | unchanged."""
    if held is None:
        return "created"
    return "unchanged" if (held.yaml, held.source) == (record.yaml, record.source) else "updated"


class Journal(Protocol):
    """What must be durable before a transaction is."""

    def flush(self) -> None:
        """Called inside the outermost transaction, right before it commits. If it raises, nothing is committed."""

    def settled(self, *, committed: bool) -> None:
        """Called after every outermost transaction, whatever became of it. Never raises."""

    def mark(self) -> int:
        """How much of the open transaction waits for `flush`."""

    def undo(self, mark: int) -> None:
        """What came after that mark did not happen; the transaction goes on without it. Never raises."""


class Store(Protocol):
    """See the module's docstring for the rules."""

    @property
    def epoch(self) -> int:
        """62 random bits, drawn when the store was made; `new_epoch` makes it larger."""

    @property
    def revision(self) -> int:
        """Grows with every change, within an epoch."""

    @property
    def revocation_changes(self) -> int:
        """Grows, within a process, whenever `revocations` may say something else than before: with every change, and
        when one is undone."""

    def new_epoch(self) -> int:
        """After a restore: sidecars know revisions this store has not reached yet (security.md J07)."""

    def next_revision(self) -> int:
        """Makes the revision larger by one without a change, and returns it."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; may be nested, the outermost decides."""

    def batch(self) -> AbstractContextManager[None]:
        """The transactions inside become durable together, at its end: what that costs is paid once. Each is still all
        or nothing by itself: one that fails takes nothing away from the others. Never nested.

        Raises Unavailable at the end if they could not be made durable: then none of them happened."""

    def attach(self, journal: Journal) -> None:
        """From now on no transaction commits before that one's `flush` returned."""

    def close(self) -> None:
        """Idempotent."""

    # facts about this mesh, written once

    def fact(self, name: str) -> str | None:
        """A fact recorded before, or None."""

    def record_fact(self, name: str, value: str) -> None:
        """Raises StoreError if the fact is already recorded with another value."""

    def change_fact(self, name: str, value: str) -> None:
        """Records it, or replaces what was recorded."""

    # whom the mesh trusts

    @property
    def is_vouched_for(self) -> bool:
        """Somebody with a key has said that authorities and revocations are right (see `trust`)."""

    @property
    def trust_number(self) -> int:
        """Of the statement that says so; grows with every change. 0: it was not looked at."""

    def open_trust(self, key: bytes) -> None:
        """From now on every change of authorities and revocations is vouched for, within its transaction. Raises
        TrustBroken: what is there is not what was vouched for with that key. (`authorities` and `revocations`, and what
        changes them, raise that too, should somebody else change them later.)"""

    def doubts(self, key: bytes) -> Sequence[str]:
        """What is not as it was vouched for with that key, one clause each; none: all is."""

    def vouch(self, key: bytes, *, after: int = 0) -> None:
        """As `open_trust`, but what is there is right from now on, whatever it was. With a number above `after`."""

    # join tokens

    def put_token(self, token: JoinTokenRecord) -> None: ...

    def token(self, token_id: str) -> JoinTokenRecord | None: ...

    def tokens(self) -> Sequence[JoinTokenRecord]:
        """All that are not forgotten, used and expired ones too, oldest first."""

    def unspent_tokens_until(self, created_before: float, now: float) -> float:
        """When the last token ends that was made before and may still be used; 0: there is none."""

    def void_tokens(self, now: float) -> int:
        """Spends every token that is still good, for nobody; how many (after a restore: they may have been used)."""

    def consume_token(self, token_id: str, secret_sha256: bytes, now: float) -> JoinTokenRecord | None:
        """The token, now spent, if it exists, the hash matches, it has not expired and nobody spent it before."""

    # workloads and their certificates

    def ensure_workload(self, spec: WorkloadSpec, now: float) -> Workload:
        """The live workload of that description, made if need be. A removed one is not revived: a new one is made."""

    def workload(self, workload_id: int) -> Workload | None:
        """None also for a removed one."""

    def workloads(self) -> Sequence[Workload]:
        """All that joined and were not removed, oldest first."""

    def workload_of_certificate(self, spiffe_id: SpiffeId, serial: int) -> Workload | None:
        """Whom we issued that certificate for. None: not ours, or its workload was removed.

        A serial number we do not know (this store is older than the certificate: a restore) counts as its SPIFFE ID's
        workload if exactly one workload has that ID."""

    def remove_workload(self, workload_id: int, now: float) -> bool:
        """Its certificates can no longer be renewed (security.md G22). False: there was none."""

    def record_issued(self, record: IssuedRecord) -> int:
        """Its number. Raises StoreError if the serial number was recorded before."""

    def certificate(self, serial: int) -> IssuedRecord | None:
        """None: not ours, or long expired."""

    def live_certificates(self, now: float) -> Sequence[IssuedRecord]:
        """What may be in use: not expired, and no older than what its node was seen to use. In the order issued."""

    def certificates_of_node(self, node_id: str, now: float) -> Sequence[IssuedRecord]:
        """All that have not expired, those replaced included. In the order issued."""

    def certificates_of_token(self, token_id: str, now: float) -> Sequence[IssuedRecord]:
        """All that have not expired and came of that join token, or belong to a node that joined with it last. In the
        order issued."""

    def unexpired_until(self, now: float) -> Mapping[tuple[str, str], float]:
        """(issuer id, root id) -> when the last of the certificates under it ends, those replaced included. Of the
        control plane's own only the newest counts."""

    # nodes

    def put_node(self, node: Node) -> None:
        """Made, or replaced whole (by id)."""

    def node(self, node_id: str) -> Node | None: ...

    def nodes(self) -> Sequence[Node]:
        """Of workloads that were not removed, in the order they joined."""

    def confirm_certificate(self, node_id: str, number: int) -> bool:
        """The node uses the certificate of that number, and none before it. False: that was known."""

    def forget_node(self, node_id: str) -> bool:
        """It cannot rejoin, and its certificates belong to nobody. False: there was none."""

    # authorities and revocations

    def put_authority(self, authority: Authority) -> bool:
        """Made, or replaced whole (by id). False: nothing changed."""

    def authority(self, authority_id: str) -> Authority | None: ...

    def authorities(self) -> Sequence[Authority]:
        """All, oldest first."""

    def forget_authority(self, authority_id: str) -> bool:
        """False: there was none."""

    def put_revocation(self, revocation: RevocationRecord) -> bool:
        """False: it is revoked already, and stays as it was."""

    def delete_revocation(self, kind: RevokedKind, value: str) -> bool:
        """False: there was none."""

    def revocations(self) -> Sequence[RevocationRecord]:
        """All, oldest first."""

    def forget_expired(self, before: float) -> int:
        """Drops tokens and certificates that expired before `before`, nodes that can neither renew nor rejoin since
        then, and revocations of serial numbers and tokens that nothing is left of; how many."""

    # resources

    def apply_resources(self, records: Sequence[ResourceRecord]) -> Sequence[Change]:
        """Stores all, as one revision. `record.version` is ignored and set. A record whose text and source are
        stored already is unchanged. The history says it was done when and by whom the first record does."""

    def resource(self, key: ResourceKey) -> ResourceRecord | None: ...

    def resources(self, kind: str = "", namespace: str = "") -> Sequence[ResourceRecord]:
        """Ordered by kind, namespace, name. Empty: all."""

    def delete_resource(self, key: ResourceKey, *, at: float, by: str) -> bool:
        """False: there was none."""

    def restore_resources(self, version: int, *, at: float, by: str) -> Sequence[Change] | None:
        """Resources become what `resources_at(version)` says, as one new revision; those that do are as if applied
        now. The changes, none if they are that already. None: not known."""

    # what they were before

    def history(self, count_max: int, before: int = 0) -> Sequence[HistoryEntry]:
        """At most `count_max` entries, newest first; `before`: only of smaller versions."""

    def resources_at(self, version: int) -> Sequence[ResourceRecord] | None:
        """All that were in force at a revision, with their text of then, ordered as `resources` does. None: not known
        any more, or not reached yet."""

    @property
    def resources_version(self) -> int:
        """The last revision that changed a resource; 0: none did."""

    @property
    def history_floor(self) -> int:
        """The oldest revision `resources_at` knows."""

    # endpoints

    def put_endpoint(self, endpoint: EndpointRecord) -> bool:
        """Replaces what that instance advertised before, and what another instance of the same workload advertised
        at the same address (it restarted). False: nothing changed."""

    def delete_endpoint(self, workload_id: int, instance: str) -> bool:
        """False: there was none."""

    def endpoints(self) -> Sequence[EndpointRecord]:
        """Of workloads that were not removed, ordered by workload and instance."""
