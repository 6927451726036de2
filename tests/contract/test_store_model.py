"""Any sequence of calls, on a store and on dictionaries: they say the same, also after the store was opened again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from control_plane.model import (
    Authority,
    IssuedRecord,
    JoinTokenRecord,
    Phase,
    ResourceRecord,
    RevocationRecord,
    RevokedKind,
)
from control_plane.store.sqlite import SqliteStore
from tests.contract.test_store_identity import authority, issued
from tests.control_plane.support import NOW, resource_record, token_record

TOKENS = st.sampled_from([f"{number:016x}" for number in range(4)])
NAMES = st.sampled_from(["web", "orders", "billing"])
VALUES = st.sampled_from(["1f", "2f", "3f"])
KINDS = st.sampled_from(list(RevokedKind))
SERIALS = st.integers(1, 6)
AUTHORITIES = st.sampled_from("abc")
PHASES = st.sampled_from([Phase.PREPARED, Phase.ACTIVE, Phase.OLD, Phase.REVOKED])
TIMES = st.sampled_from([NOW, NOW + 300, NOW + 700])


class Model(RuleBasedStateMachine):
    """`NOW` is when tokens are made; they live 600 s."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.store = SqliteStore.open(Path(self.directory.name) / "hauberk.db")
        self.tokens: dict[str, JoinTokenRecord] = {}
        self.resources: dict[str, ResourceRecord] = {}
        self.certificates: dict[int, IssuedRecord] = {}
        self.authorities: dict[str, Authority] = {}
        self.revocations: dict[tuple[RevokedKind, str], RevocationRecord] = {}
        self.revision, self.epoch = self.store.revision, self.store.epoch

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.directory.cleanup()

    def changes(self, is_change: bool) -> None:
        """Rule 2 and rule 5: the revision says so, and only then."""
        assert (self.store.revision > self.revision) == is_change
        self.revision = self.store.revision

    @rule(token_id=TOKENS)
    def make_token(self, token_id: str) -> None:
        if token_id not in self.tokens:
            self.tokens[token_id] = token_record(token_id)
            self.store.put_token(token_record(token_id))
        self.changes(False)

    @rule(token_id=TOKENS, secret=st.sampled_from([b"\x01" * 32, b"\x02" * 32]), now=TIMES)
    def spend_token(self, token_id: str, secret: bytes, now: float) -> None:
        held = self.tokens.get(token_id)
        right = held is not None and secret == held.secret_sha256 and held.consumed_at is None and now < held.expires_at
        given = self.store.consume_token(token_id, secret, now)
        assert (given is not None) == right
        if held is not None and right:
            self.tokens[token_id] = replace(held, consumed_at=now)
            assert given == self.tokens[token_id]
        self.changes(False)

    @rule(now=TIMES)
    def void_tokens(self, now: float) -> None:
        good = [one for one in self.tokens.values() if one.consumed_at is None and now < one.expires_at]
        assert self.store.void_tokens(now) == len(good)
        self.tokens |= {one.token_id: replace(one, consumed_at=now) for one in good}

    @rule(name=NAMES, text=st.sampled_from(["a", "b"]))
    def apply(self, name: str, text: str) -> None:
        record = resource_record(name, yaml=text)
        held = self.resources.get(name)
        (change,) = self.store.apply_resources([record])
        same = held is not None and held.yaml == text
        assert change.what == ("unchanged" if same else "created" if held is None else "updated")
        self.changes(not same)
        if not same:
            self.resources[name] = replace(record, version=self.revision)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        gone = self.resources.pop(name, None)
        assert self.store.delete_resource(resource_record(name).key, at=NOW, by="ann") == (gone is not None)
        self.changes(gone is not None)

    @rule(serial=SERIALS)
    def issue(self, serial: int) -> None:
        if serial not in self.certificates:
            number = self.store.record_issued(issued(serial))
            assert number > max((one.number for one in self.certificates.values()), default=0)
            self.certificates[serial] = replace(issued(serial), number=number)
        self.changes(False)

    @rule(name=AUTHORITIES, phase=PHASES)
    def put_authority(self, name: str, phase: Phase) -> None:
        one = authority(name, phase)
        others = [each for each in self.authorities.values() if each.authority_id != one.authority_id]
        if phase is Phase.ACTIVE and any(each.phase is Phase.ACTIVE for each in others):
            return
        changed = self.authorities.get(name) != one
        assert self.store.put_authority(one) == changed
        self.authorities[name] = one
        self.changes(changed)

    @rule(kind=KINDS, value=VALUES, at=TIMES)
    def revoke(self, kind: RevokedKind, value: str, at: float) -> None:
        one = RevocationRecord(kind=kind, value=value, at=at, by="ann", reason="")
        is_new = (kind, value) not in self.revocations
        assert self.store.put_revocation(one) == is_new
        self.revocations.setdefault((kind, value), one)
        self.changes(is_new)

    @rule(kind=KINDS, value=VALUES)
    def reinstate(self, kind: RevokedKind, value: str) -> None:
        gone = self.revocations.pop((kind, value), None)
        assert self.store.delete_revocation(kind, value) == (gone is not None)
        self.changes(gone is not None)

    @rule(name=NAMES, token_id=TOKENS)
    def fail_in_the_middle(self, name: str, token_id: str) -> None:
        """Rule 1: nothing of it is left."""
        try:
            with self.store.transaction():
                self.store.apply_resources([resource_record(name, yaml="c")])
                self.store.consume_token(token_id, b"\x01" * 32, NOW)
                self.store.put_revocation(RevocationRecord(kind=RevokedKind.TOKEN, value="x", at=NOW, by="", reason=""))
                raise ZeroDivisionError
        except ZeroDivisionError:
            self.changes(False)

    @rule()
    def begin_a_new_epoch(self) -> None:
        assert self.store.new_epoch() > self.epoch
        self.epoch = self.store.epoch
        self.changes(True)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = SqliteStore.open(Path(self.directory.name) / "hauberk.db")

    @invariant()
    def they_say_the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        store = self.store
        assert {one.key.name: one for one in store.resources()} == self.resources
        assert {name: store.token(name) for name in self.tokens} == self.tokens
        assert store.live_certificates(NOW) == sorted(self.certificates.values(), key=lambda one: one.number)
        assert {one.authority_id[0]: one for one in store.authorities()} == self.authorities
        assert {(one.kind, one.value): one for one in store.revocations()} == self.revocations
        assert (store.epoch, store.revision) == (self.epoch, self.revision)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
