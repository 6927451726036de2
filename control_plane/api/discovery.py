"""Watch: one stream a sidecar. Snapshots go out; acknowledgements, subscriptions and endpoints come in.

Two tasks serve a stream, one reads and one writes; whichever ends first ends it. The reader changes the session's and
the registry's state at once and never waits for the writer, so a sidecar that does not read cannot keep us from hearing
it withdraw. The stream ends when the caller's certificate does: the sidecar has a newer one by then and reconnects.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from control_plane.api.advertised import read_address, read_ports
from control_plane.api.authz import Caller
from control_plane.api.clones import CloneAlarm
from control_plane.api.identity import workload_of
from control_plane.decisions import DecisionLog
from control_plane.errors import (
    InvalidRequest,
    PermissionDenied,
    Replaced,
    ResourceExhausted,
    Revoked,
    Unauthenticated,
    Unavailable,
)
from control_plane.limits import RateLimit
from control_plane.logs import fields
from control_plane.model import IssuedRecord, Workload
from control_plane.nodes import Standing, standing
from control_plane.push.acknowledged import Acknowledged
from control_plane.push.hub import Hub, Subscriber
from control_plane.push.session import Session
from control_plane.registry import Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import discovery_pb2 as pb

log = logging.getLogger(__name__)

HELLO_S = 10.0
"""How long a stream may stay silent at its beginning."""

LAST_WRITE_S = 1.0
"""How long the write of a snapshot may still take when its stream must end."""

HEARD_S = 15.0
"""A sidecar that is there says so every ten seconds."""

EPOCH_S_MIN = 60.0
"""Between two epochs that sidecars caused."""

MESSAGES_PER_S = 100.0
MESSAGES_BURST = 2_000
"""Of one stream. A sidecar that starts asks for names one by one, and answers each snapshot; none needs more."""

REPORTS_PER_S = 2.0
REPORTS_BURST = 60
"""Of one stream. A sidecar reports once a second at most; one that floods loses its stream."""

_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class DiscoveryApi:
    """Handler of hauberk.v1.Discovery."""

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        hub: Hub,
        decisions: DecisionLog,
        acknowledged: Acknowledged,
        clones: CloneAlarm,
        subscriptions_max: int,
        streams_max: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._registry = registry
        self._hub = hub
        self._decisions = decisions
        self._acknowledged = acknowledged
        self._clones = clones
        self._subscriptions_max = subscriptions_max
        self._streams_max = streams_max
        self._now = now
        self._next_epoch_at = 0.0

    async def watch(
        self,
        caller: Caller,
        requests: AsyncIterator[pb.WatchRequest],
        send: Callable[[pb.Snapshot], Awaitable[None]],
    ) -> None:
        """Returns when the sidecar ends the stream. Raises ControlPlaneError when we do."""
        stream, subscriber = self.open_stream(caller, await _first(requests))
        try:
            await self._serve(caller, stream, subscriber, requests, send)
        finally:
            self.close_stream(stream, subscriber)

    def open_stream(self, caller: Caller, hello: pb.Hello) -> tuple[int, Subscriber]:
        """A stream begins: its number in the registry, and whom to wake when something is due. Raises
        ControlPlaneError; then nothing of it is left."""
        workload = workload_of(self._store, caller)
        session = self._session(caller, workload, hello)
        self._confirm(caller, session)
        stream = self._registry.connected(
            workload, hello.instance, sidecar_version=hello.sidecar_version[:64], now=self._now()
        )
        try:
            self._heard(stream, hello.clock, hello.certificate_not_after, caller.serial)
            subscriber = self._hub.add(session)
        except BaseException:
            self._registry.disconnected(stream, self._now())
            raise
        self._end_oldest(subscriber)
        log.info("watch stream opened", extra=fields(sidecar=session.label, version=hello.version))
        return stream, subscriber

    def close_stream(self, stream: int, subscriber: Subscriber) -> None:
        """It ended, in whatever way. Nobody is sent to one that was revoked, from now on."""
        self._hub.remove(subscriber)
        if isinstance(subscriber.end, Revoked) and self._registry.withdraw(stream, self._now()):
            self._hub.notify()
        elif self._registry.has_withdrawn(stream) and subscriber.session.certificate is not None:
            self._acknowledged.left(subscriber.session.certificate)
        self._registry.disconnected(stream, self._now())
        log.info("watch stream closed", extra=fields(sidecar=subscriber.session.label))

    def _confirm(self, caller: Caller, session: Session) -> None:
        """The node uses it; that is known even if its Confirm was lost. Raises PermissionDenied for what it has put
        away: whoever comes with that is a second holder of the key, or a sidecar that did not hear that its newer one
        was confirmed (its answer was lost, or the sidecar was killed before it was kept). That one is back with the
        newer one, or its node key, in seconds (`sidecar.identity.rotator`)."""
        certificate = session.certificate
        node = self._store.node(certificate.node_id) if certificate is not None else None
        match standing(certificate, node):
            case Standing.NEWER:
                assert certificate is not None
                self._store.confirm_certificate(certificate.node_id, certificate.number)
            case Standing.PUT_AWAY:
                assert certificate is not None
                assert node is not None
                if self._is_elsewhere(session, certificate):
                    self._clones.seen(caller, node, self._now(), "a certificate is used in two places")
                raise PermissionDenied(
                    "this certificate was replaced by a newer one that is in use; come with that, or with the node key,"
                    " or join with a new token"
                )

    def _is_elsewhere(self, session: Session, certificate: IssuedRecord) -> bool:
        """Is the node there already, as another process and with a newer certificate? One that was killed is not, and
        one whose machine died is not heard any more."""
        there = {
            one.key
            for one in self._hub
            if one.certificate is not None
            and one.certificate.node_id == certificate.node_id
            and one.certificate.number > certificate.number
            and one.instance != session.instance
        }
        heard_after = self._now() - HEARD_S
        return any(one.key in there and one.last_seen >= heard_after for one in self._registry)

    def _session(self, caller: Caller, workload: Workload, hello: pb.Hello) -> Session:
        if not _INSTANCE.fullmatch(hello.instance):
            raise InvalidRequest("hello.instance: must be 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")
        if hello.epoch == self._store.epoch and hello.version > self._store.revision:
            self._begin_epoch(hello)
        session = Session(
            workload=workload,
            instance=hello.instance,
            epoch_held=hello.epoch,
            version_held=hello.version,
            epoch=self._store.epoch,
            certificate=self._store.certificate(caller.serial),
            serial=caller.serial,
            issuer_ids=caller.issuer_ids,
        )
        session.subscribe(self._services(hello.services))
        return session

    def _end_oldest(self, newest: Subscriber) -> None:
        """A sidecar that moves to a new certificate has two streams for a moment. More than that means that older ones
        are broken and nobody noticed yet: the oldest make room, so that no sidecar can be locked out by its own past
        (security.md G25)."""
        others = self._hub.others(newest)
        for older in others[: max(0, len(others) + 1 - self._streams_max)]:
            older.close(Replaced("newer watch streams of this sidecar took over"))

    def _begin_epoch(self, hello: pb.Hello) -> None:
        """A sidecar holds a version this store has not reached: the store was restored from a backup (security.md J07),
        or the sidecar lies. A new epoch is right in the first case and harmless in the second, if it is rare."""
        now = self._now()
        if self._next_epoch_at - EPOCH_S_MIN <= now < self._next_epoch_at:
            raise InvalidRequest(f"hello.version: {hello.version} does not exist in this epoch")
        self._next_epoch_at = now + EPOCH_S_MIN
        epoch = self._store.new_epoch()
        facts = fields(instance=hello.instance, version=hello.version, epoch=epoch)
        log.warning("store is older than what a sidecar holds, so a new epoch begins", extra=facts)
        self._hub.notify()

    async def _serve(
        self,
        caller: Caller,
        stream: int,
        subscriber: Subscriber,
        requests: AsyncIterator[pb.WatchRequest],
        send: Callable[[pb.Snapshot], Awaitable[None]],
    ) -> None:
        reader = asyncio.create_task(self._read(stream, subscriber, requests))
        writer = asyncio.create_task(self._write(subscriber, send))
        tasks = {reader, writer}
        left_s = min(caller.not_after - self._now(), 86_400.0)
        try:
            done, _ = await asyncio.wait(tasks, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
            # gRPC cannot end a call while a message of it is being written, so the writer may finish that.
            subscriber.close(Unavailable("the stream has ended"))
            await asyncio.wait({writer}, timeout=LAST_WRITE_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not done:
            raise Unauthenticated("the certificate of this connection has expired; reconnect with the renewed one")
        for task in done:
            task.result()

    async def _write(self, subscriber: Subscriber, send: Callable[[pb.Snapshot], Awaitable[None]]) -> None:
        while True:
            await send(await subscriber.wait_next(self._now))

    async def _read(self, stream: int, subscriber: Subscriber, requests: AsyncIterator[pb.WatchRequest]) -> None:
        reports = RateLimit(rate_per_s=REPORTS_PER_S, burst=REPORTS_BURST)
        has_complained = False
        async for request in paced(requests, self._now):
            if request.WhichOneof("body") != "decisions":
                self.take(stream, subscriber, request)
                continue
            if reports.take("", self._now()):
                raise ResourceExhausted("decisions are reported too often; once a second is enough")
            session = subscriber.session
            problem = self._decisions.report(session.workload, request.decisions, self._now())
            if problem and not has_complained:  # once a stream: a bad sidecar fills no disk of ours
                has_complained = True
                log.warning("sidecar reported no decision", extra=fields(sidecar=session.label, reason=problem))

    def take(self, stream: int, subscriber: Subscriber, request: pb.WatchRequest) -> None:
        """One message of the sidecar's. Raises InvalidRequest."""
        session = subscriber.session
        match request.WhichOneof("body"):
            case "ack":
                session.acknowledge(request.ack.epoch, request.ack.version)
                if session.in_force is not None and session.certificate is not None:
                    trust = session.in_force
                    self._acknowledged.said(session.certificate, trust.trust_anchors_der, trust.jwt_keys)
                subscriber.woken.set()
                self._hub.answered()
            case "nack":
                is_first = request.nack.version > session.rejected_version
                session.reject(request.nack.epoch, request.nack.version, request.nack.reason)
                if is_first:  # a sidecar that says it again fills no disk of ours
                    log.warning(
                        "sidecar rejected a snapshot",
                        extra=fields(
                            sidecar=session.label, version=request.nack.version, reason=session.rejected_reason
                        ),
                    )
                subscriber.woken.set()
                self._hub.answered()
            case "subscribe":
                session.subscribe(self._services(request.subscribe.services))
                self._hub.refresh(subscriber)
            case "advertise":
                address = read_address(request.advertise.address)
                ports = read_ports(request.advertise.ports)
                if self._registry.advertise(stream, address, ports, self._now()):
                    self._hub.notify()
            case "withdraw":
                if self._registry.withdraw(stream, self._now()):
                    self._hub.notify()
            case "heartbeat":
                said = request.heartbeat
                self._heard(stream, said.clock, said.certificate_not_after, _serial(said.certificate_serial))
            case _:  # a second hello, or a kind of message from the future
                raise InvalidRequest("expected ack, nack, subscribe, advertise, withdraw, heartbeat or decisions")

    def _heard(self, stream: int, clock: float, certificate_not_after: float, serial: int) -> None:
        self._registry.heard(
            stream,
            clock=clock,
            certificate_not_after=certificate_not_after,
            now=self._now(),
            certificate_serial=serial,
        )

    def _services(self, names: Iterable[str]) -> frozenset[str]:
        services = frozenset(names)
        if len(services) > self._subscriptions_max:
            raise InvalidRequest(f"services: at most {self._subscriptions_max}")
        for one in services:
            name, _, namespace = one.partition(".")
            if not (_DNS_LABEL.fullmatch(name) and _DNS_LABEL.fullmatch(namespace)):
                raise InvalidRequest(f'services: {one[:130]!r} is not "service.namespace"')
        return services


def _serial(text: str) -> int:
    """0: none, or not one."""
    return int(text, 16) if _SERIAL.fullmatch(text) else 0


async def paced(
    requests: AsyncIterator[pb.WatchRequest],
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[pb.WatchRequest]:
    """The same messages, no more of them than one sidecar may cost us; the rest wait in the sender (G25)."""
    limit = RateLimit(rate_per_s=MESSAGES_PER_S, burst=MESSAGES_BURST)
    async for request in requests:
        while wait_s := limit.take("", now()):
            await sleep(max(wait_s, 0.001))  # a rounding error is no time to wait
        yield request


async def _first(requests: AsyncIterator[pb.WatchRequest]) -> pb.Hello:
    try:
        async with asyncio.timeout(HELLO_S):
            request = await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        raise InvalidRequest("a watch stream begins with hello") from None
    if request.WhichOneof("body") != "hello":
        raise InvalidRequest("a watch stream begins with hello")
    return request.hello
