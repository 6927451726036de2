"""The composition root: everything of the control plane is made and wired here.

`run(config)` is what the command line calls; `serve(config)` is the same for whoever has an event loop. Start order is
the order of refusal: data directory, lock and store, CA, ports; until all are right nothing is served and nothing on
disk has changed but what a first start creates.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from certs.spiffe_id import TrustDomain
from control_plane import logs
from control_plane.api.callers import KnownCallers
from control_plane.api.credentials import OwnCertificate
from control_plane.api.methods import methods
from control_plane.api.server import Addresses, GrpcServer
from control_plane.api.together import Together
from control_plane.audit import AuditLog
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError
from control_plane.ca.kek import KEK_NAME, KekFile
from control_plane.ca.opening import refuse_lost_store
from control_plane.config import ControlPlaneConfig, Limits, check
from control_plane.errors import ControlPlaneError, StartError, StoreError
from control_plane.handlers import apis
from control_plane.logs import fields
from control_plane.push.acknowledged import Acknowledged
from control_plane.push.hub import Hub
from control_plane.push.snapshot import WorldLoader
from control_plane.push.trust import Trust
from control_plane.registry import Registry
from control_plane.revocation import RevokedView
from control_plane.state import State
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore

log = logging.getLogger(__name__)

STORE_NAME = "hauberk.db"
AUDIT_NAME = "audit.jsonl"
TICK_S = 0.5
STOP_GRACE_S = 1.0
FORGET_EVERY_S = 3_600.0
EXPIRED_KEPT_S = 86_400.0
"""Expired tokens and certificates are remembered this long, to tell people what happened to theirs."""
DOUBTED_FACT = "clock doubted until"
JUMPED_S, DOUBTED_S = 600.0, 86_400.0
"""A clock that goes so much ahead from one tick to the next was set, or the machine slept; how long it is doubted."""

Started = Callable[[Addresses], None]


def run(config: ControlPlaneConfig, *, started: Started | None = None) -> int:
    """Serves until SIGTERM or SIGINT. The exit code: 0, or 1 with one line on standard error."""
    logs.to_standard_error()
    try:
        asyncio.run(_until_signal(config, started))
    except StartError as error:
        sys.stderr.write(f"hauberk control-plane: {error}\n")
        return 1
    return 0


async def _until_signal(config: ControlPlaneConfig, started: Started | None) -> None:
    serving = asyncio.create_task(serve(config, started=started))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        log.info("control plane stopped")


async def serve(
    config: ControlPlaneConfig, *, now: Callable[[], float] = time.time, started: Started | None = None
) -> None:
    """Serves until cancelled, then ends every stream with UNAVAILABLE and stops within STOP_GRACE_S.

    `started` gets the addresses as bound, once calls are answered. Raises StartError."""
    check(config)
    with contextlib.ExitStack() as stack:
        state = open_state(config, stack, now)
        hub, server = state.hub, _server(state, config.limits, now)
        addresses = await server.start(config.listen, config.join_listen, config.operator_socket_path)
        state.join_port = addresses.join_listen.port
        log.info(
            "control plane listening",
            extra=fields(
                listen=str(addresses.listen),
                join_listen=str(addresses.join_listen),
                operator_socket=str(addresses.operator_socket),
                epoch=state.store.epoch,
                version=state.store.revision,
            ),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(hub.run())
                tasks.create_task(_tick(state, now))
                if started is not None:
                    started(addresses)
        finally:
            hub.close()
            await server.stop(STOP_GRACE_S)


def open_state(config: ControlPlaneConfig, stack: contextlib.ExitStack, now: Callable[[], float]) -> State:
    """Opens what is on disk and wires what stands on it; `stack` closes what was opened. Raises StartError."""
    trust_domain = TrustDomain.parse(config.trust_domain)
    prepare_data_dir(config.data_dir)
    kept = config.limits.history_versions_max
    _refuse_lost_store(config)
    opened = SqliteStore.open(config.data_dir / STORE_NAME, history_versions_max=kept)
    store = stack.enter_context(contextlib.closing(opened))
    audit = stack.enter_context(contextlib.closing(AuditLog.open(config.data_dir / AUDIT_NAME, store, now=now())))
    store.record_fact("trust domain", trust_domain.name)
    try:
        authority = _authority(config, trust_domain, store, audit, now())
        stack.callback(authority.close)
        _sign_audit(config, audit, now())
        certificate = OwnCertificate(authority, store, audit, trust_domain, now())
    except CaError as error:
        raise StartError(str(error)) from error
    revoked = RevokedView(store, authority)
    loader = WorldLoader(
        store,
        trust_domain,
        lambda: Trust(
            anchors_der=authority.bundle.anchors_der,
            revocations=revoked.current(),
            jwt_keys=authority.jwt_keys(),
        ),
        certificate_lifetime_s=config.certificate_lifetime_s,
    )
    _check_stored(loader)
    registry = Registry(
        store,
        lost_s=config.endpoint_lost_s,
        restart_s=config.restart_grace_s,
        streams_per_identity_max=config.limits.streams_per_identity_max,
    )
    registry.start(now())
    return State(
        trust_domain=trust_domain,
        store=store,
        audit=audit,
        ca=config.ca,
        authority=authority,
        revoked=revoked,
        acknowledged=Acknowledged(store, lambda: authority.authorities, revoked.current),
        certificate=certificate,
        loader=loader,
        registry=registry,
        hub=Hub(store, loader, debounce_s=config.push_debounce_s),
        ticked_at=now(),
        doubted_until=_doubted_at_start(store, audit.last_at, now()),
    )


def _server(state: State, limits: Limits, now: Callable[[], float]) -> GrpcServer:
    """The API over the state, on gRPC."""
    made = apis(state, limits, now)
    return GrpcServer(
        methods(
            made.identity,
            made.discovery,
            made.resources,
            made.explain,
            made.history,
            made.admin,
            made.ca,
            made.revoke,
        ),
        certificate=state.certificate,
        known=KnownCallers(lambda: state.authority.bundle, state.revoked.current),
        limits=limits,
        now=now,
        refused=state.audit.refused,
        together=Together(state.store),
    )


def prepare_data_dir(path: Path) -> None:
    """Makes it (0700), or checks that it is a directory of ours that nobody else may enter. Raises StartError (J05)."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = path.lstat()
    except OSError as error:
        raise StartError(f"{path}: cannot be made or read ({error.strerror}); check --data-dir") from error
    if not stat.S_ISDIR(held.st_mode):
        raise StartError(f"{path}: must be a directory, not a link or a file; check --data-dir")
    if held.st_uid != os.geteuid():
        raise StartError(f"{path}: belongs to another user; run the control plane as its owner, or: chown it")
    if held.st_mode & 0o077:
        raise StartError(f"{path}: others may enter it (mode {held.st_mode & 0o777:04o}); run: chmod 700 {path}")


def _authority(
    config: ControlPlaneConfig, trust_domain: TrustDomain, store: Store, audit: AuditLog, now: float
) -> CertificateAuthority:
    """The CA in this store. A store whose CA is gone is refused: a new root would cut every workload off (J04)."""
    return CertificateAuthority.open(
        config.data_dir,
        trust_domain,
        store=store,
        audit=audit,
        now=now,
        kek_file=config.kek_file,
        policy=config.ca.policy(config.certificate_lifetime_s),
        sign_command=config.ca.sign_command,
    )


def _refuse_lost_store(config: ControlPlaneConfig) -> None:
    kek_path = config.kek_file or config.data_dir / KEK_NAME
    try:
        refuse_lost_store(config.data_dir / STORE_NAME, [kek_path, config.data_dir / AUDIT_NAME])
    except CaError as error:
        raise StartError(str(error)) from error


def _sign_audit(config: ControlPlaneConfig, audit: AuditLog, now: float) -> None:
    """Checkpoints of the audit file are signed with a key of their own, sealed as the CA's are. Raises CaError."""
    kek = KekFile(path=(config.kek_file or config.data_dir / KEK_NAME).absolute(), owner_uid=os.geteuid()).read()
    assert kek is not None, "the CA has opened with it"
    audit.sign_with(kek, now)


def _check_stored(loader: WorldLoader) -> None:
    """A stored policy this version does not understand stops the start: serving without it could let somebody in."""
    try:
        loader.load()
    except ControlPlaneError as error:
        raise StoreError(f"{error}; start the version that stored it, or restore a backup") from error


async def _tick(state: State, now: Callable[[], float]) -> None:
    """What must happen without anybody asking."""
    while True:
        await asyncio.sleep(TICK_S)
        try:
            housekeep(state, now())
        except Exception:
            # A full disk must not stop the pushes (security.md J03): say so and go on.
            log.exception("housekeeping failed")


def housekeep(state: State, now: float) -> None:
    """All that is due at `now`, Unix seconds. Called every TICK_S."""
    is_doubted = _doubts_clock(state, now)
    if state.registry.sweep(now):
        state.hub.notify()
    state.authority.doubt_clock(is_doubted)
    if state.authority.tick(now, state.acknowledged.readiness(now)):
        state.hub.notify()
    state.certificate.renew(now)
    state.audit.tick(now)
    if not state.forget_at:
        state.forget_at = now + FORGET_EVERY_S  # the clock may be set right after a start
    if not is_doubted and not now < state.forget_at <= now + FORGET_EVERY_S:
        state.forget_at = now + FORGET_EVERY_S
        state.store.forget_expired(now - EXPIRED_KEPT_S)
        state.acknowledged.forget(now)


def _doubted_at_start(store: Store, last_at: float, now: float) -> float:
    """Until when. `last_at`: when something was written last; what is more than a day later may be a wrong clock."""
    if 0 < last_at < now - DOUBTED_S:
        return now + FORGET_EVERY_S
    until = float(store.fact(DOUBTED_FACT) or 0.0)
    return until if until <= now + DOUBTED_S else 0.0


def _doubts_clock(state: State, now: float) -> bool:
    """In the day after it went ahead further than a tick does. If it is wrong, what it calls expired is not: an anchor
    that is dropped, or a revocation that is forgotten, was needed (R24)."""
    before, state.ticked_at = state.ticked_at, now
    if before - now > JUMPED_S:
        state.doubted_until = now  # it was ahead, and is not any more; a small step back says nothing
    elif now - before > JUMPED_S:
        state.doubted_until = now + DOUBTED_S
        state.store.change_fact(DOUBTED_FACT, str(state.doubted_until))
        facts = fields(by_s=round(now - before, 1), for_s=DOUBTED_S)
        log.warning("the clock went ahead; nothing is forgotten, and roots stay as they are for a while", extra=facts)
    return now < state.doubted_until
