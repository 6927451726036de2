"""What a control plane does while it is killed, and what must hold afterwards.

A scenario is played in a process of its own on a copy of a data directory. What it was answered it tells through `ack`,
which the parent hears even if the process dies right after. `examine` starts the control plane again on what is left.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from certs.csr import make_csr
from certs.svid import new_private_key
from control_plane.api.authz import Caller, Role
from control_plane.api.together import Together
from control_plane.app import housekeep, open_state
from control_plane.audit import AuditLog
from control_plane.audit import log as audit_log
from control_plane.audit.chain import Record, walk
from control_plane.audit.opening import NOT_COMMITTED
from control_plane.audit.verify import files_of, store_facts, verify
from control_plane.backup import make
from control_plane.ca.kek import KEK_NAME
from control_plane.ca.rekey import rotate_kek
from control_plane.ca.slots import Readiness
from control_plane.config import ControlPlaneConfig, Limits
from control_plane.errors import PermissionDenied, StartError
from control_plane.handlers import Apis, apis
from control_plane.model import Level, Phase, RevocationRecord, RevokedKind
from control_plane.restore import Restored, restore
from control_plane.state import State
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import admin_pb2, config_pb2, identity_pb2
from tests.control_plane.support import LOOPBACK, NOW, join_request, policy_yaml

Ack = Callable[[str], None]
"""Says what was answered: "token ID", "serial HEX", "policy NAME", "authority ID PHASE", "revoked VALUE"."""

OPERATOR = Caller(role=Role.OPERATOR, name="local operator", peer="unix")
STRANGER = Caller(role=Role.ANONYMOUS, name="anonymous", peer="192.0.2.1")
TOKEN_FILE, BACKUP_FILE = "token", "backup"
ORDER = [Phase.PREPARED, Phase.ACTIVE, Phase.OLD, Phase.TAINTED, Phase.REVOKED]


def config_of(data_dir: Path) -> ControlPlaneConfig:
    return ControlPlaneConfig(data_dir=data_dir, listen=LOOPBACK, join_listen=LOOPBACK)


class Running:
    """A control plane without its ports: the same parts, called as its server calls them."""

    def __init__(self, data_dir: Path, now: float) -> None:
        self._stack = contextlib.ExitStack()
        self.now = now
        try:
            self.state: State = open_state(config_of(data_dir), self._stack, lambda: self.now)
            self.apis: Apis = apis(self.state, Limits(), lambda: self.now)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(self, work: Any) -> Any:
        return asyncio.run(work)

    def token(self) -> str:
        request = admin_pb2.CreateTokenRequest(service="orders", namespace="shop")
        text: str = self.call(self.apis.admin.create_token(OPERATOR, request)).token
        return text

    def join(self, token: str) -> int:
        request = join_request(token, make_csr(new_private_key(), None))
        return _serial(self.call(self.apis.identity.join(STRANGER, request)))

    def apply(self, name: str) -> None:
        files = [config_pb2.SourceFile(name="a.yaml", text=policy_yaml(name))]
        self.call(self.apis.resources.apply(OPERATOR, config_pb2.ApplyRequest(files=files)))


def _serial(answer: identity_pb2.SvidResponse) -> int:
    from cryptography import x509

    return x509.load_der_x509_certificate(answer.certificate_chain_der[0]).serial_number


def prepare(directory: Path) -> None:
    """A mesh that has run, its token, and a backup; every scenario but the first start begins with a copy."""
    data_dir = directory / "mesh"
    with Running(data_dir, NOW) as one:
        (directory / TOKEN_FILE).write_text(one.token())
        one.apply("first")
        make(data_dir, directory / BACKUP_FILE, release="1", now=NOW, kek=(data_dir / KEK_NAME).read_bytes())
        one.join(one.token())


# --- scenarios ------------------------------------------------------------------------------------------------------


def first_start(directory: Path, ack: Ack) -> None:
    with Running(directory / "mesh", NOW) as one:
        ack(f"root {one.state.authority.pin.hex()}")


def token_and_join(directory: Path, ack: Ack) -> None:
    with Running(directory / "mesh", NOW + 10) as one:
        token = one.token()
        ack(f"token {token.split('.')[1]}")
        ack(f"serial {one.join(token):x}")
        ack(f"serial {one.join((directory / TOKEN_FILE).read_text()):x}")


def joins_together(directory: Path, ack: Ack) -> None:
    """Two that share a commit with one that is refused."""
    with Running(directory / "mesh", NOW + 10) as one:
        good, other = one.token(), (directory / TOKEN_FILE).read_text()
        requests = [join_request(text, make_csr(new_private_key(), None)) for text in (good, good, other)]

        async def run() -> list[identity_pb2.SvidResponse | BaseException]:
            together = Together(one.state.store)
            calls = [partial(one.apis.identity.join, STRANGER, each) for each in requests]
            return await asyncio.gather(*map(together.run, calls), return_exceptions=True)

        first, again, second = asyncio.run(run())
        assert isinstance(again, PermissionDenied)
        for answer in (first, second):
            assert isinstance(answer, identity_pb2.SvidResponse)
            ack(f"serial {_serial(answer):x}")


def renew(directory: Path, ack: Ack) -> None:
    with Running(directory / "mesh", NOW + 10) as one:
        (first,) = [each for each in one.state.store.live_certificates(one.now) if each.workload_id is not None]
        caller = Caller(
            role=Role.WORKLOAD, name=str(first.spiffe_id), peer="192.0.2.1", spiffe_id=first.spiffe_id,
            serial=first.serial, not_after=first.not_after,
        )  # fmt: skip
        request = identity_pb2.RenewRequest(csr_der=make_csr(new_private_key(), None))
        for _ in range(2):
            ack(f"serial {_serial(one.call(one.apis.identity.renew(caller, request))):x}")


def revoke(directory: Path, ack: Ack) -> None:
    with Running(directory / "mesh", NOW + 10) as one:
        for value in ("spiffe://mesh.local/ns/shop/sa/orders", "spiffe://mesh.local/ns/shop/sa/web"):
            record = RevocationRecord(
                kind=RevokedKind.IDENTITY, value=value, at=one.now, by="local operator", reason="stolen"
            )
            with one.state.store.transaction():
                one.state.store.put_revocation(record)
                one.state.audit.append(
                    "revoked", at=one.now, by="local operator", kind="identity", value=value, reason="stolen"
                )
            ack(f"revoked {value}")


def authorities(directory: Path, ack: Ack) -> None:
    with Running(directory / "mesh", NOW + 10) as one:
        old = one.state.authority.find("", Level.INTERMEDIATE).authority_id
        _activate_another(one, Level.INTERMEDIATE, ack)
        _retire(one, old, ack)


def new_root(directory: Path, ack: Ack) -> None:
    """Forced, for nobody is there who could say that they know it."""
    with Running(directory / "mesh", NOW + 10) as one:
        old = one.state.authority.find("", Level.ROOT).authority_id
        _activate_another(one, Level.ROOT, ack)
        _activate_another(one, Level.INTERMEDIATE, ack)
        _retire(one, old, ack)


def _activate_another(one: Running, level: Level, ack: Ack) -> None:
    made = one.state.authority.prepare(level, one.now, "ann", force=True).authority_id
    ack(f"authority {made} prepared")
    one.state.authority.activate(made, one.now, "ann", Readiness(), force=True)
    ack(f"authority {made} active")


def _retire(one: Running, old: str, ack: Ack) -> None:
    one.state.authority.taint(old, one.now, "ann")
    ack(f"authority {old} tainted")
    one.state.authority.revoke(old, one.now, "ann", force=True)
    ack(f"authority {old} revoked")


def apply(directory: Path, ack: Ack) -> None:
    with Running(directory / "mesh", NOW + 10) as one:
        for name in ("second", "third"):
            one.apply(name)
            ack(f"policy {name}")
        request = config_pb2.DeleteRequest(kind="AuthorizationPolicy", namespace="shop", name="first")
        one.call(one.apis.resources.delete(OPERATOR, request))
        ack("no-policy first")


def rotate_audit(directory: Path, ack: Ack) -> None:
    audit_log.ROTATE_OCTETS = 1_500  # for this process
    with Running(directory / "mesh", NOW + 10) as one:
        for _ in range(6):
            ack(f"token {one.token().split('.')[1]}")
            one.state.audit.refused("/x", "", "192.0.2.1", "PERMISSION_DENIED", "no", one.now)
        one.now += 1_000
        housekeep(one.state, one.now)


def change_kek(directory: Path, ack: Ack) -> None:
    data_dir = directory / "mesh"
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(SqliteStore.open(data_dir / "hauberk.db")))
        opened = AuditLog.open(data_dir / "audit.jsonl", store, now=NOW + 10)
        audit = stack.enter_context(contextlib.closing(opened))

        def recorded(kek: str) -> None:
            audit.append("ca.rekeyed", at=NOW + 10, by="ann", kek=kek)

        rotate_kek(data_dir, None, store, os.urandom, recorded=recorded, trust_known=audit.trust_known)
    ack("kek changed")


def restoring(directory: Path, ack: Ack) -> None:
    ack(f"epoch {_restore(directory, NOW + 10, replace=True).epoch}")


def _restore(directory: Path, now: float, *, replace: bool) -> Restored:
    data_dir = directory / "mesh"
    kek = (data_dir / KEK_NAME).read_bytes()
    return restore(data_dir, directory / BACKUP_FILE, replace=replace, by="ann", now=now, kek=kek)


def answers_too_early(directory: Path, ack: Ack) -> None:
    """A planted fault: what is acknowledged is done only then."""
    with Running(directory / "mesh", NOW + 10) as one:
        ack("policy second")
        one.apply("second")


SCENARIOS: Mapping[str, Callable[[Path, Ack], None]] = {
    one.__name__: one
    for one in (
        first_start,
        token_and_join,
        joins_together,
        renew,
        revoke,
        authorities,
        new_root,
        apply,
        rotate_audit,
        change_kek,
        restoring,
        answers_too_early,
    )
}


# --- afterwards -----------------------------------------------------------------------------------------------------


def examine(name: str, directory: Path, acks: list[str], before: Mapping[str, str]) -> None:
    """Raises AssertionError. `before`: the active root's id and the epoch before the scenario."""
    data_dir = directory / "mesh"
    if name == "restoring":
        _restore_again_if_need_be(directory)
    with Running(data_dir, NOW + 2_000) as one:
        _kept(one, acks)
        _whole(one, data_dir, is_restored=name == "restoring")
        _one_signs(one, acks, before.get("root", ""), is_rotated=name == "new_root")
        if name != "first_start":
            _spent_once(one, (directory / TOKEN_FILE).read_text(), is_restored=name == "restoring")
        if name == "restoring":
            assert one.state.store.epoch >= int(before["epoch"])
    facts = store_facts(data_dir)
    report = verify(files_of(data_dir), key=facts.public_key, stored=facts.head)
    assert report.problem is None, str(report.problem)
    assert (data_dir / KEK_NAME).stat().st_size == 32


def _one_signs(one: Running, acks: list[str], root: str, *, is_rotated: bool) -> None:
    """At each level exactly one authority signs; no root was made twice, none lost. `root`: the first, "": not known.

    `is_rotated`: another may stand beside it, and sign once that was asked for."""
    held = one.state.store.authorities()
    roots = [each.authority_id for each in held if each.level is Level.ROOT]
    signing = {each.level: each for each in held if each.phase is Phase.ACTIVE}
    assert len(signing) == len(Level) == sum(each.phase is Phase.ACTIVE for each in held)
    assert signing[Level.INTERMEDIATE].parent_id in roots
    assert len(roots) <= 1 + is_rotated, "a root was made twice"
    assert root in ("", *roots), "another root is there, or the old one is lost"
    may_sign = is_rotated and any(ack.endswith(" prepared") for ack in acks)
    assert root in ("", signing[Level.ROOT].authority_id) or may_sign, "a root signs that nobody activated"


def _restore_again_if_need_be(directory: Path) -> None:
    """Killed between the last two renames there is no database: a start is refused, and restoring goes on."""
    if not (directory / "mesh" / "hauberk.db").exists():
        try:
            Running(directory / "mesh", NOW + 20)
        except StartError:
            _restore(directory, NOW + 20, replace=False)
        else:
            raise AssertionError("a control plane started on half a restore")


def _kept(one: Running, acks: list[str]) -> None:
    """What was acknowledged is there."""
    store = one.state.store
    policies = {each.key.name for each in store.resources()}
    for ack in acks:
        kind, _, value = ack.partition(" ")
        if kind == "token":
            assert store.token(value) is not None, ack
        elif kind == "serial":
            assert store.certificate(int(value, 16)) is not None, ack
        elif kind == "policy":
            assert value in policies, ack
        elif kind == "no-policy":
            assert value not in policies, ack
        elif kind == "revoked":
            assert value in {each.value for each in store.revocations()}, ack
        elif kind == "authority":
            name, phase = value.split()
            held = store.authority(name)
            assert held is not None, ack
            assert ORDER.index(held.phase) >= ORDER.index(Phase(phase)), ack
        elif kind == "root":
            assert one.state.authority.pin.hex() == value, ack
        elif kind == "epoch":
            assert store.epoch == int(value), ack


def _whole(one: Running, data_dir: Path, *, is_restored: bool) -> None:
    """Nothing is half there: the audit file and the store tell of the same tokens, certificates and revocations."""
    records = [record for path in files_of(data_dir) for record in walk(path.read_bytes()).records]
    undone = _undone(records)
    told = [record for record in records if record.seq not in undone]
    store = one.state.store
    serials = [str(record.fields["serial"]) for record in told if "serial" in record.fields]
    assert len(serials) == len(set(serials)), "a serial number twice"
    for serial in serials:
        assert store.certificate(int(serial, 16)) is not None, f"{serial} is in the audit file and not in the store"
    for certificate in store.live_certificates(0.0):
        assert f"{certificate.serial:x}" in serials, f"{certificate} is in the store and not in the audit file"
    revoked = {str(record.fields["value"]) for record in told if record.event == "revoked"}
    assert revoked == {each.value for each in store.revocations()}
    if not is_restored:
        for record in told:
            if record.event == "token.created":
                assert store.token(str(record.fields["token_id"])) is not None, "a token is in the audit file only"
    joined = [str(record.fields["token_id"]) for record in told if record.event == "identity.joined"]
    assert len(joined) == len(set(joined)), "a token was spent twice"
    for token_id in joined:
        token = store.token(token_id)
        assert token is None or token.consumed_at is not None, "a token joined and is not spent"


def _undone(records: list[Record]) -> set[int]:
    found: set[int] = set()
    for record in records:
        ranges = record.fields.get("records")
        for text in ranges if record.event == NOT_COMMITTED and isinstance(ranges, list) else []:
            first, _, last = text.partition("-")
            found.update(range(int(first), int(last) + 1))
    return found


def _spent_once(one: Running, token: str, *, is_restored: bool) -> None:
    """Good until it was used or its identity was revoked, and never after; void after a restore."""
    _, token_id, secret, _, _ = token.split(".")
    held = one.state.store.token(token_id)
    assert held is not None
    assert len(base64.urlsafe_b64decode(secret + "==")) == 16
    one.now = NOW + 30  # it lives ten minutes
    tries = []
    for _ in range(2):
        try:
            one.join(token)
            tries.append("joined")
        except PermissionDenied:
            tries.append("refused")
    identity = f"spiffe://mesh.local/ns/{held.spec.namespace}/sa/{held.spec.service_account}"
    is_void = held.consumed_at is not None or identity in {each.value for each in one.state.store.revocations()}
    assert tries == ["refused" if is_void else "joined", "refused"]
    if is_restored:
        assert one.state.store.epoch > 0
