"""The composition root: one function builds the parts, binds every listener, and runs them in one nursery.

    node key or token -> listeners -> SVID -> control link -> first snapshot -> ready -> app listens -> advertised

Until there is a certificate the mesh port is bound but nobody is accepted (row F26); until there is a snapshot, local
callers are told 503. Losing the control plane later changes nothing until the certificate ends.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import Mapping

import trio

from sidecar.admin import ADMIN, HEALTH, serve_admin
from sidecar.config import Address, Config
from sidecar.control.errors import SubscriptionsFull
from sidecar.control.watcher import ControlLink
from sidecar.data_plane import DataPlane
from sidecar.decisions import Decisions
from sidecar.describe import describe
from sidecar.identity.handout import Handout
from sidecar.identity.source import IdentitySource
from sidecar.listening import warn_if_exposed
from sidecar.membership import Membership
from sidecar.net.connection import Driver
from sidecar.net.dial import dial
from sidecar.net.listener import bind, bound_address
from sidecar.net.slices import in_slices
from sidecar.observe import Observer
from sidecar.rules.routing import resolve
from sidecar.rules.snapshot import Snapshot
from sidecar.runtime import INBOUND, Runtime
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.logs import log_through
from sidecar.telemetry.metrics import Metrics, watch_loop_lag
from sidecar.telemetry.sink import Sink
from sidecar.telemetry.trace import Tracer
from sidecar.version import VERSION

log = logging.getLogger(__name__)

APP_PROBE_S = 0.1
APP_PROBE_MAX_S = 1.0
REPORT_S = 1.0
PROPAGATION_S = 1.0
"""How long callers may need to hear that we left, before we turn new connections away."""


class Listeners:
    """Every socket of the sidecar, bound before anything runs, so that a port in use is found at once."""

    def __init__(self, config: Config, handout: Handout) -> None:
        """`handout` has bound its own, and is closed with the others."""
        self._bound: list[socket.socket | Handout] = [handout]
        try:
            self.mesh = self._bind(config.mesh_listen, "mesh_listen")
            self.outbound = self._bind(config.outbound.listen, "outbound.listen") if config.outbound.listen else None
            self.ports = [
                (self._bind(port.listen, f"outbound.ports[{index}].listen"), port)
                for index, port in enumerate(config.outbound.ports)
            ]
            self.plaintext = [
                (self._bind(one.plaintext, f"inbound[{index}].plaintext"), one)
                for index, one in enumerate(config.inbound)
                if one.plaintext
            ]
            self.admin = self._bind(config.admin, "admin")
            self.health = self._bind(config.health, "health") if config.health else None
        except BaseException:
            self.close()
            raise

    def _bind(self, address: Address, what: str) -> socket.socket:
        sock = bind(address, what)
        self._bound.append(sock)
        return sock

    def close(self) -> None:
        for sock in self._bound:
            sock.close()


class Sidecar:
    """One sidecar. `run` runs it; the rest is for whoever supervises it and for the admin pages."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        """Opens the state directory or reads the join token, and binds every listener. Raises ConfigError."""
        self.config = config
        self._environ = environ
        self._rng = random.SystemRandom()
        self._instance = secrets.token_hex(8)
        self._identity = IdentitySource()
        self._handout = Handout(config, self._identity, lambda: self._link.channel() if self._link else None)
        self._membership = Membership(config, self._identity, clock=time.time, rng=self._rng)
        try:
            self._listeners = Listeners(config, self._handout)
        except BaseException:
            self._membership.close()
            raise
        self._metrics = Metrics(version=VERSION)
        self._decisions = Decisions(time.monotonic, self._rng.getrandbits, self._metrics.decision_dropped)
        self._link: ControlLink | None = None
        self._runtime: Runtime | None = None
        self._data_plane: DataPlane | None = None
        self._snapshot = trio.Event()
        self._listening = trio.Event()
        self._app_up = trio.Event()
        self._app_is_up = False
        self._leaving = False
        self.mesh_address = bound_address(self._listeners.mesh)
        self.outbound_address = str(bound_address(self._listeners.outbound)) if self._listeners.outbound else ""
        self.workload_api_socket = self._handout.endpoint_socket
        self.admin_address = str(bound_address(self._listeners.admin))
        self.plaintext_addresses = {one.port: str(bound_address(sock)) for sock, one in self._listeners.plaintext}
        """Service's port -> where callers without mTLS come in."""
        self.health_address = str(bound_address(self._listeners.health)) if self._listeners.health else ""

    @property
    def spiffe_id(self) -> str:
        return str(self._identity.svid.spiffe_id) if self._identity.svid else ""

    # Running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises what joining cannot get over (WrongPin, JoinRefused, ...)."""
        sink = Sink(sys.stderr.fileno())
        access_log = AccessLog(self.config.access_log, sink.write, on_drop=self._metrics.access_log_dropped)
        tracer = Tracer.from_config(self.config, self._environ, instance=self._instance)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._log, access_log)
                driver = Driver(nursery, self.config.limits, self._metrics.connection)
                observer = Observer(self._metrics, access_log, tracer, self._decisions)
                self._runtime = Runtime(self.config, driver, self._rng, tracer, observer)
                self._data_plane = DataPlane(
                    self.config,
                    driver,
                    self._identity,
                    self._runtime,
                    self._metrics,
                    access_log,
                    self._subscribe,
                    self._used,
                )
                nursery.start_soon(self._data_plane.sweep)
                nursery.start_soon(watch_loop_lag, self._metrics)
                await self._serve_pages(nursery)
                self._serve_apps(nursery)
                nursery.start_soon(self._handout.run, driver, self._metrics.refused)
                task_status.started()
                await self._join(nursery)
                nursery.start_soon(self._data_plane.serve_mesh, self._listeners.mesh)
                for sock, inbound in self._listeners.plaintext:
                    nursery.start_soon(self._data_plane.serve_plaintext, sock, inbound)
                self._listening.set()
                nursery.start_soon(self._watch_app)
        finally:
            self._listeners.close()
            self._membership.close()
            sink.close()
            await tracer.aclose()

    async def _log(self, access_log: AccessLog, *, task_status: trio.TaskStatus[None]) -> None:
        """Standard error may be a pipe that nobody empties: while this runs, nothing waits for it."""
        with log_through(access_log.line):
            task_status.started()
            await access_log.run()

    async def _serve_pages(self, nursery: trio.Nursery) -> None:
        await nursery.start(serve_admin, [_trio_listener(self._listeners.admin)], _Pages(self), ADMIN)
        if self._listeners.health is not None:
            await nursery.start(serve_admin, [_trio_listener(self._listeners.health)], _Pages(self), HEALTH)

    def _serve_apps(self, nursery: trio.Nursery) -> None:
        assert self._data_plane is not None
        if self._listeners.outbound is not None:
            nursery.start_soon(self._data_plane.serve_apps, self._listeners.outbound, None)
        for sock, port in self._listeners.ports:
            nursery.start_soon(self._data_plane.serve_apps, sock, port)

    async def _join(self, nursery: trio.Nursery) -> None:
        """First certificate, then the control link, and what keeps both."""
        await self._membership.enter()
        assert self._identity.svid is not None
        self._certificate_changed()
        self._identity.subscribe(self._certificate_changed)
        self._link = ControlLink(
            config=self.config,
            identity=self._identity.svid.spiffe_id,
            source=self._identity,
            on_snapshot=self._snapshot_received,
            instance=self._instance,
            clock=time.time,
            rng=self._rng,
            pinned_services=[
                str(resolve(port.service, port.port, self.config.namespace)) for port in self.config.outbound.ports
            ],
            on_applied=self._membership.applied,
        )
        self._membership.attach(self._link)
        nursery.start_soon(self._link.run)
        nursery.start_soon(self._report, self._link)
        nursery.start_soon(self._membership.run)
        restart = "needs no token" if self.config.state_dir else "needs a new join token, for there is no state_dir"
        facts = {"spiffe_id": self.spiffe_id, "mesh": str(self.mesh_address), "restart": restart}
        log.info("joined the mesh", extra=facts)

    # What comes from the control plane

    async def _snapshot_received(self, snapshot: Snapshot) -> None:
        assert self._data_plane is not None
        await in_slices(self._data_plane.applying(snapshot))
        self._metrics.snapshot(snapshot.version)
        self._membership.lifetime_wanted(snapshot.certificate_lifetime_s)
        self._handout.jwt_keys_changed(snapshot.jwt_keys)
        self._snapshot.set()

    def _certificate_changed(self) -> None:
        if self._identity.svid is not None:
            self._metrics.certificate(self._identity.svid.not_after)

    def _subscribe(self, name: str) -> bool:
        if self._link is None:
            return False
        try:
            self._link.subscribe(name)
        except SubscriptionsFull:
            return False
        return self._link.connected

    def _used(self, name: str) -> None:
        if self._link is not None:
            self._link.used(name)

    async def _report(self, link: ControlLink) -> None:
        """For ever, tell the control plane what was denied."""
        while True:
            await trio.sleep(REPORT_S)
            link.report(self._decisions.take)

    # The app

    async def _watch_app(self) -> None:
        """Advertise while every inbound port of the app accepts connections, and only then."""
        assert self._link is not None
        delay_s = APP_PROBE_S
        while not self._leaving:
            is_up = await self._probe_app() if not self._app_is_up or self._app_failed() else True
            if is_up and not self._app_is_up:
                warn_if_exposed(self.config)
                await self._snapshot.wait()
                self._advertise()
                delay_s = APP_PROBE_S
            elif not is_up and self._app_is_up:
                log.error("the app no longer accepts connections; callers are told to go elsewhere")
                await self._link.withdraw()
            self._app_is_up = is_up
            if is_up:
                self._app_up.set()
            await trio.sleep(APP_PROBE_MAX_S if is_up else delay_s)
            delay_s = min(delay_s * 2, APP_PROBE_MAX_S)

    def _app_failed(self) -> bool:
        return self._data_plane is not None and self._data_plane.app_failures > 0

    async def _probe_app(self) -> bool:
        for inbound in self.config.inbound:
            try:
                with trio.fail_after(self.config.timeouts.connect_s):
                    (await dial(inbound.app)).close()
            except (OSError, trio.TooSlowError):
                return False
        if self._data_plane is not None:
            self._data_plane.app_is_back()
        return True

    def _advertise(self) -> None:
        assert self._link is not None
        if self.config.inbound:
            address = str(self.config.advertise or self._own_address())
            self._link.advertise(address, {i.port: i.protocol for i in self.config.inbound})
            log.info("advertised", extra={"address": address})

    def _own_address(self) -> Address:
        """The mesh listener as others reach it: for a wildcard, the address that faces the control plane."""
        if self.mesh_address.host not in ("0.0.0.0", "::"):
            return self.mesh_address
        peer = self.config.control_plane
        family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer.host, peer.port))  # UDP: nothing is sent, the kernel only chooses a source address
            return Address(probe.getsockname()[0], self.mesh_address.port)

    # For the supervisor

    async def wait_ready(self) -> None:
        """Certificate, policy and listeners are live."""
        await self._listening.wait()
        await self._snapshot.wait()

    async def wait_app_listening(self) -> None:
        await self._app_up.wait()

    async def withdraw(self) -> None:
        """Tell the control plane that we leave, and give callers the time to hear of it."""
        self._leaving = True
        if self._link is not None and self._link.connected and self.config.inbound:
            await self._link.withdraw()
            await trio.sleep(PROPAGATION_S)

    async def drain(self) -> None:
        """Finish what is in flight from the mesh, at most `timeouts.drain_s` long."""
        self._leaving = True
        if self._data_plane is not None and not await self._data_plane.drain(self.config.timeouts.drain_s):
            left = self._runtime.live_in(INBOUND) if self._runtime else 0
            log.warning("requests were still open at the end of the drain", extra={"requests": left})

    # For the admin pages

    def missing(self) -> list[str]:
        """What is missing to be ready, one word each."""
        there = {
            "snapshot": self._snapshot.is_set(),
            "listeners": self._listening.is_set(),
            "app": self._app_is_up or not self.config.inbound,
            "staying": not self._leaving,
        }
        return [*self._membership.missing(), *(word for word, is_there in there.items() if not is_there)]

    def export_metrics(self) -> bytes:
        self._membership.measure(self._metrics)
        self._metrics.control_connected(self._link is not None and self._link.connected)
        return self._metrics.export()

    def status(self) -> dict[str, object]:
        snapshot, link = self._runtime.snapshot if self._runtime else None, self._link
        return {
            "spiffe_id": self.spiffe_id,
            "instance": self._instance,
            "mesh": str(self.mesh_address),
            "outbound": self.outbound_address,
            "plaintext": {str(port): address for port, address in self.plaintext_addresses.items()},
            "health": self.health_address,
            **self._membership.status(),
            "snapshot_epoch": snapshot.epoch if snapshot else None,
            "snapshot_version": snapshot.version if snapshot else None,
            "control_plane_connected": bool(link and link.connected),
            "control_plane_error": link.last_error if link else "",
            "token_issuers": self._runtime.authentication.issuers() if self._runtime else [],
            "live_exchanges": self._runtime.live_count if self._runtime else 0,
            "pid": os.getpid(),
        }


class _Pages:
    """`AdminState` of a sidecar."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def ready(self) -> tuple[bool, list[str]]:
        missing = self._sidecar.missing()
        return not missing, missing

    def live(self) -> bool:
        return True  # it answered, so the loop turns

    def metrics(self) -> bytes:
        return self._sidecar.export_metrics()

    def config(self) -> dict[str, object]:
        return describe(self._sidecar.config)

    def status(self) -> dict[str, object]:
        return self._sidecar.status()


def _trio_listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
