"""Keeps the sidecar in touch with its control plane.

Theory of operation
-------------------
`ControlLink.run` keeps one Watch stream up, each in a `_Session` of its own: one TLS connection, made with the
certificate current at that moment. The loop in `run` is all there is to reconnecting:

    start a session; wait until it is up (our hello was answered with a snapshot) or has ended
    up:    it becomes the active one and the one before is stopped
           wait until it ends, is going away (GOAWAY), or was made with a certificate since replaced; then begin again
           (or with other anchors than those of now: they change for the whole fleet at once, so after up to 2 s)
    ended: wait (back-off, 0.1 s to 5 s, or until there is another certificate), then begin again

So a replacement is made before the old stream is broken, and a certificate change leaves no gap. While two sessions are
open, whatever we say goes to both, and the subscription's rule on versions keeps an old stream from undoing a new one.

Sessions report their end by `error`; only bugs raise. Losing the control plane never stops the sidecar: the last good
snapshot stays until the certificate expires (R03).
"""

from __future__ import annotations

import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping

import trio
from trio.lowlevel import ParkingLot

from certs.bundle import TrustBundle
from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid
from protos.hauberk.v1 import discovery_pb2, identity_pb2
from sidecar.config import Config
from sidecar.control.errors import ControlError, RpcError
from sidecar.control.identity_calls import IdentityCalls
from sidecar.control.rpc import Channel, ChannelLimits, StreamCall
from sidecar.control.subscription import Accepted, Refused, Subscription
from sidecar.errors import SidecarError
from sidecar.identity.source import IdentitySource
from sidecar.net.backoff import Backoff
from sidecar.net.errors import TlsError
from sidecar.net.slices import in_slices, uncollected
from sidecar.net.tls import client_context
from sidecar.rules.errors import RulesError
from sidecar.rules.snapshot import Protocol, Snapshot
from sidecar.version import VERSION

log = logging.getLogger(__name__)

WATCH_PATH = "/hauberk.v1.Discovery/Watch"
HEARTBEAT_S = 10.0
RECONNECT_MAX_S = 5.0  # with the connect timeout: back within 10 s of the control plane's return
RECONNECT_JITTER = 0.3  # a fleet loses its control plane in one moment: more than others have who wait
WITHDRAW_TIMEOUT_S = 2.0
SETTLE_S = 2.0
"""A control plane that reads our hello but has nothing to answer counts as up after this long."""
PROVEN_S = 10.0
"""A session this old, or one that brought a snapshot, resets the back-off when it ends."""
OUTBOX_MAX = 256
ANCHORS_SPREAD_S = 2.0


class ControlLink:
    """The sidecar's side of the control channel. All methods but `run`, `renew` and `withdraw` are synchronous."""

    def __init__(
        self,
        *,
        config: Config,
        identity: SpiffeId,
        source: IdentitySource,
        on_snapshot: Callable[[Snapshot], Awaitable[None]],
        instance: str,
        clock: Callable[[], float],
        rng: random.Random,
        pinned_services: Iterable[str] = (),
        limits: ChannelLimits | None = None,
        on_applied: Callable[[discovery_pb2.Snapshot], object] = lambda message: None,
    ) -> None:
        """`on_snapshot` gets every snapshot that is new, with the link already holding it; it refuses one by raising
        SidecarError, RulesError or ValueError. `instance` is random per process. `pinned_services` are full names.
        `on_applied` is given each snapshot in force, in its wire form."""
        self._config = config
        self._identity = identity
        self._source = source
        self._on_snapshot = on_snapshot
        self._clock = clock
        self._calls = IdentityCalls(config, identity, source, clock, limits)
        self._on_applied = on_applied
        self._rng = rng
        self._backoff = Backoff(rng, max_s=RECONNECT_MAX_S, jitter=RECONNECT_JITTER)
        self._sessions: list[_Session] = []
        self._active: _Session | None = None
        self._changed = ParkingLot()
        self._applying = trio.StrictFIFOLock()
        self.last_error = ""
        """Why there is no connection; empty while there is one."""
        self.was_connected = False
        """Whether there ever was one."""
        self.subscription = Subscription(
            identity=identity,
            service=config.service,
            namespace=config.namespace,
            instance=instance,
            sidecar_version=VERSION,
            services_max=config.limits.subscriptions_max,
        )
        for name in pinned_services:
            self.subscription.subscribe(name, clock(), pinned=True)

    def __repr__(self) -> str:
        return f"<ControlLink {'connected' if self.connected else 'not connected'}, {self.subscription!r}>"

    @property
    def connected(self) -> bool:
        return self._active is not None and not self._active.has_ended

    def channel(self) -> Channel | None:
        """A connection with room for other calls than ours; None: there is none now."""
        return self._active.channel if self._active and not self._active.is_going_away else None

    # What the sidecar says --------------------------------------------------------------------------------------

    def needs(self, name: str) -> bool:
        """Does the current snapshot say nothing about the service "name.namespace"?"""
        return self.subscription.needs(name)

    def subscribe(self, name: str) -> None:
        """Ask about a service "name.namespace"; the answer is a snapshot that holds it. Raises SubscriptionsFull."""
        self._say(self.subscription.subscribe(name, self._clock()))

    def used(self, name: str) -> None:
        """The service was called; names not used for a while are dropped."""
        self.subscription.used(name, self._clock())

    def advertise(self, address: str, ports: Mapping[int, Protocol]) -> None:
        """The app accepts connections: send callers to `address` ("ip:port"). Said again after every reconnect."""
        self._say(self.subscription.advertise(address, ports))

    def report(self, take: Callable[[], discovery_pb2.Decisions | None]) -> None:
        """Tell what was decided, if all that was said before is on its way; else it stays where it is and may wait."""
        session = self._active
        if session is not None and session.is_idle and (decisions := take()) is not None:
            session.post(discovery_pb2.WatchRequest(decisions=decisions))

    async def withdraw(self) -> None:
        """No new callers, please. Returns when that was sent, at the latest after 2 s."""
        message = self.subscription.withdraw()
        sent = [session.post(message) for session in list(self._sessions)]
        with trio.move_on_after(WITHDRAW_TIMEOUT_S):
            for event in sent:
                await event.wait()

    async def renew(self, csr_der: bytes) -> identity_pb2.SvidResponse:
        """Ask for a new certificate with the current one, for the rotator. Raises RpcError, TlsError."""
        session = self._active
        is_usable = session is not None and session.svid is self._source.svid
        return await self._calls.renew(csr_der, session.channel if session and is_usable else None)

    async def confirm(self, svid: X509Svid, bundle: TrustBundle) -> None:
        """Does the control plane take a certificate that is not in use yet? Raises RpcError, TlsError, SSLError."""
        await self._calls.confirm(svid, bundle)

    # The loop ---------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. See the module's docstring."""
        await self._source.wait_ready()
        unsubscribe = self._source.subscribe(self._changed.unpark_all)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                task_status.started()
                while True:
                    await self._one_session(nursery)
        finally:
            unsubscribe()

    async def _one_session(self, nursery: trio.Nursery) -> None:
        session = _Session(self)
        nursery.start_soon(session.run)
        while not (session.is_up or session.has_ended):
            await self._changed.park()
        if session.is_up:
            previous, self._active = self._active, session
            if previous is not None:
                previous.stop()
            self.last_error = self._source.denied = ""
            self.was_connected = True
            log.info("connected to the control plane", extra={"address": str(self._config.control_plane)})
            while not (session.has_ended or session.is_going_away or session.svid is not self._source.svid):
                if session.trusted != self._trusted():
                    with trio.move_on_after(self._rng.uniform(0, ANCHORS_SPREAD_S)):
                        await session.wait_over()
                    break
                await self._changed.park()
            if not session.has_ended and not session.is_going_away:
                self._backoff.reset()
                return  # only to come back with the new certificate, at once
        if session.is_proven:
            self._backoff.reset()
        delay_s = self._backoff.next_delay_s()
        error = session.error or "the control plane asked us to reconnect"
        if self._not_after() <= self._clock():
            error = f"our certificate has expired, and another is not there yet ({error})"
        if not self.connected:
            self.last_error = error
        facts = {"address": str(self._config.control_plane), "error": error, "retry_in_s": round(delay_s, 2)}
        log.warning("reconnecting to the control plane", extra=facts)
        with trio.move_on_after(delay_s):
            while session.svid is self._source.svid:
                await self._changed.park()

    async def _beat(self) -> None:
        while True:
            await trio.sleep(HEARTBEAT_S)
            now = self._clock()
            serial = f"{self._source.svid.serial:x}" if self._source.svid else ""
            not_after = self._not_after()
            self._say(self.subscription.heartbeat(now=now, certificate_not_after=not_after, certificate_serial=serial))
            self._say(self.subscription.expire(now))

    def _say(self, message: discovery_pb2.WatchRequest | None) -> None:
        if message is not None:
            for session in list(self._sessions):
                session.post(message)

    def _trusted(self) -> tuple[TrustBundle | None, frozenset[str]]:
        """What the control plane's own certificate is judged by."""
        return self._source.bundle, self._source.revocations.authorities

    def _not_after(self) -> float:
        return self._source.svid.not_after if self._source.svid else 0.0

    # Snapshots --------------------------------------------------------------------------------------------------

    async def _received(self, message: discovery_pb2.Snapshot) -> discovery_pb2.WatchRequest:
        """Apply a snapshot whole, or not at all. Returns the answer. One after the other, and never broken off."""
        with trio.CancelScope(shield=True):
            async with self._applying:
                with uncollected():
                    verdict = await in_slices(self.subscription.receiving(message))
                    answer = await self._apply(verdict) if isinstance(verdict, Accepted) else verdict
        if not isinstance(answer, Refused):
            self._on_applied(message)
            return answer
        facts = {"epoch": answer.epoch, "version": answer.version, "reason": answer.reason}
        log.error("snapshot refused, the last good one stays", extra=facts)
        return self.subscription.refuse(answer.epoch, answer.version, answer.reason)

    async def restore(self, message: discovery_pb2.Snapshot) -> bool:
        """Put a snapshot into force that an earlier process kept, unless the control plane was faster."""
        return self.subscription.current is None and (await self._received(message)).WhichOneof("body") == "ack"

    async def _apply(self, accepted: Accepted) -> discovery_pb2.WatchRequest | Refused:
        snapshot, previous = accepted.snapshot, self.subscription.current
        ack = self.subscription.commit(accepted)
        if accepted.is_unchanged:
            return ack
        try:
            if accepted.bundle != self._source.bundle:
                client_context(None, accepted.bundle)  # does OpenSSL take these anchors?
            await self._on_snapshot(snapshot)
        except (SidecarError, RulesError, ValueError, ssl.SSLError) as error:
            self.subscription.take_back(previous)
            return Refused(epoch=snapshot.epoch, version=snapshot.version, reason=f"could not be applied: {error}")
        self._source.set(bundle=accepted.bundle, revocations=snapshot.revocations)
        log.info("snapshot applied", extra={"epoch": snapshot.epoch, "version": snapshot.version})
        return ack


class _Session:
    """One connection with one Watch stream."""

    def __init__(self, link: ControlLink) -> None:
        self._link = link
        self.svid = link._source.svid
        """What the connection is made with."""
        self.trusted = link._trusted()
        self._scope = trio.CancelScope()
        self._outbox: deque[tuple[discovery_pb2.WatchRequest, trio.Event]] = deque()
        self._posted = ParkingLot()
        self._began_at = trio.current_time()
        self._got_snapshot = trio.Event()
        self.channel: Channel | None = None
        self.error = ""
        self.is_up = False
        self.has_ended = False

    @property
    def is_going_away(self) -> bool:
        return self.channel is not None and not self.channel.is_usable

    @property
    def is_proven(self) -> bool:
        return self._got_snapshot.is_set() or (self.is_up and trio.current_time() - self._began_at > PROVEN_S)

    @property
    def is_idle(self) -> bool:
        """Nothing waits to be said."""
        return not self.has_ended and not self._outbox

    def post(self, message: discovery_pb2.WatchRequest) -> trio.Event:
        """Say it when the messages before it are said. The event is set when the socket took it, or nothing can be."""
        sent = trio.Event()
        if self.has_ended:
            sent.set()
        elif len(self._outbox) >= OUTBOX_MAX:
            self._end("the control plane does not read what it is told")
            self._scope.cancel()
            sent.set()
        else:
            self._outbox.append((message, sent))
            self._posted.unpark_all()
        return sent

    async def wait_over(self) -> None:
        """Until it has ended, or takes no more calls."""
        while not (self.has_ended or self.is_going_away):
            await self._link._changed.park()

    def stop(self) -> None:
        """Another session took over."""
        self._end("replaced")
        self._scope.cancel()

    async def run(self) -> None:
        try:
            with self._scope:
                self.svid, self.trusted = self._link._source.svid, self._link._trusted()
                async with self._link._calls.open_channel() as channel:
                    self.channel = channel
                    async with channel.stream(WATCH_PATH, discovery_pb2.Snapshot) as call:
                        await self._watch(channel, call)
        except (ControlError, TlsError) as error:
            self._end(str(error))
        finally:
            self._end("cancelled")

    async def _watch(self, channel: Channel, call: StreamCall[discovery_pb2.Snapshot]) -> None:
        link = self._link
        # From here on this session hears everything that is said; what was said before is in the hello.
        hello = link.subscription.open_stream(now=link._clock(), certificate_not_after=link._not_after())
        said = [self.post(message) for message in hello]
        link._sessions.append(self)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all, call)
            nursery.start_soon(self._prove, channel, said[-1])
            try:
                async for snapshot in call:
                    if self.has_ended:
                        break
                    self.post(await link._received(snapshot))
                    self._got_snapshot.set()
                self._end("the control plane ended the stream")
            except RpcError as error:
                self._end(link._source.note_refusal(error.status, error.message or str(error)))
            nursery.cancel_scope.cancel()

    async def _send_all(self, call: StreamCall[discovery_pb2.Snapshot]) -> None:
        while True:
            while not self._outbox:
                await self._posted.park()
            message, sent = self._outbox.popleft()
            try:
                await call.send(message)
            except RpcError:
                return  # whoever receives meets the same error and reports it
            finally:
                sent.set()

    async def _prove(self, channel: Channel, said: trio.Event) -> None:
        """Up, when the first snapshot came. Without one a PING must have been answered, because in TLS 1.3 only what
        the server says shows that it took our certificate (F18), and the stream must not be refused soon after."""
        await said.wait()
        try:
            await channel.ping()
        except RpcError:
            return
        with trio.move_on_after(SETTLE_S):
            await self._got_snapshot.wait()
        self.is_up = True
        self._link._changed.unpark_all()
        await channel.wait_unusable()
        self._link._changed.unpark_all()

    def _end(self, error: str) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        self.error = error
        if self in self._link._sessions:
            self._link._sessions.remove(self)
        for _, sent in self._outbox:
            sent.set()
        self._outbox.clear()
        self._link._changed.unpark_all()
