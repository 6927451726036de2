"""The Watch stream's state, sans-IO: what to tell the control plane, and which of its snapshots to believe.

A snapshot is applied whole or refused whole. `receiving` judges one without changing anything; whoever applies it then
calls `commit` (and sends the ACK it returns) or `refuse` (and sends the NACK). The last good one stays meanwhile.

Which snapshots are refused:

1. one that `sidecar.rules.decode` does not take (an unknown field, an unspecified enum, a malformed identity),
2. one that is for somebody else: another identity, service, namespace or trust domain,
3. one whose trust anchors cannot be a bundle,
4. an older one: a lower version in the same epoch, or a lower epoch on the same stream (H14). On a new stream any other
   epoch is taken, because a store restored from a backup begins a new one,
5. one of the held version with another content. The same again is acknowledged again: a control plane may repeat, on a
   new stream, what it is not sure we got.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.spiffe_id import SpiffeId
from protos.hauberk.v1 import discovery_pb2
from sidecar.control.errors import SubscriptionsFull
from sidecar.rules.decode import decoding
from sidecar.rules.errors import DecodeError
from sidecar.rules.snapshot import Protocol, Snapshot

REASON_CHARACTERS_MAX = 512
UNKNOWN_KEPT_S = 60.0
"""A name nobody ever joined as is asked about for this long after its last use."""
UNUSED_KEPT_S = 3_600.0

_WIRE_PROTOCOL = {
    Protocol.HTTP1: discovery_pb2.PROTOCOL_HTTP1,
    Protocol.HTTP2: discovery_pb2.PROTOCOL_HTTP2,
    Protocol.TCP: discovery_pb2.PROTOCOL_TCP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A snapshot to apply, then `commit`."""

    snapshot: Snapshot
    bundle: TrustBundle
    is_unchanged: bool
    """It equals the one held: nothing to apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A snapshot to `refuse`."""

    epoch: int
    version: int
    reason: str


class Subscription:
    """One sidecar's. Survives reconnects."""

    def __init__(
        self,
        *,
        identity: SpiffeId,
        service: str,
        namespace: str,
        instance: str,
        sidecar_version: str,
        services_max: int,
    ) -> None:
        self._identity = identity
        self._service = service
        self._namespace = namespace
        self._instance = instance
        self._sidecar_version = sidecar_version
        self._services_max = services_max
        self._used_at: dict[str, float] = {}
        self._pinned: set[str] = set()
        self._advertised: discovery_pb2.Advertise | None = None
        self._withdrawn = False
        self._is_new_stream = True
        self.current: Snapshot | None = None
        self.refusals = 0
        self.last_refusal = ""

    def __repr__(self) -> str:
        held = f"{self.current.epoch}.{self.current.version}" if self.current else "nothing"
        return f"<Subscription of {self._identity} holds {held}, {len(self._used_at)} services>"

    # What to say ------------------------------------------------------------------------------------------------

    def open_stream(self, *, now: float, certificate_not_after: float) -> list[discovery_pb2.WatchRequest]:
        """A new stream begins: its first messages. `now` in Unix seconds."""
        self._is_new_stream = True
        hello = discovery_pb2.Hello(
            sidecar_version=self._sidecar_version,
            instance=self._instance,
            epoch=self.current.epoch if self.current else 0,
            version=self.current.version if self.current else 0,
            services=sorted(self._used_at),
            clock=now,
            certificate_not_after=certificate_not_after,
        )
        messages = [discovery_pb2.WatchRequest(hello=hello)]
        if self._withdrawn:
            messages.append(discovery_pb2.WatchRequest(withdraw=discovery_pb2.Withdraw()))
        elif self._advertised is not None:
            messages.append(discovery_pb2.WatchRequest(advertise=self._advertised))
        return messages

    def heartbeat(
        self, *, now: float, certificate_not_after: float, certificate_serial: str = ""
    ) -> discovery_pb2.WatchRequest:
        body = discovery_pb2.Heartbeat(
            clock=now, certificate_not_after=certificate_not_after, certificate_serial=certificate_serial
        )
        return discovery_pb2.WatchRequest(heartbeat=body)

    def advertise(self, address: str, ports: Mapping[int, Protocol]) -> discovery_pb2.WatchRequest:
        """The app accepts connections at `address` ("ip:port" of the mesh listener). Said again on every new stream."""
        self._advertised = discovery_pb2.Advertise(
            address=address,
            ports=[
                discovery_pb2.InboundPort(port=port, protocol=_WIRE_PROTOCOL[protocol])
                for port, protocol in sorted(ports.items())
            ],
        )
        self._withdrawn = False
        return discovery_pb2.WatchRequest(advertise=self._advertised)

    def withdraw(self) -> discovery_pb2.WatchRequest:
        """No new callers, please; not on later streams either."""
        self._withdrawn = True
        return discovery_pb2.WatchRequest(withdraw=discovery_pb2.Withdraw())

    # Services ---------------------------------------------------------------------------------------------------

    def needs(self, name: str) -> bool:
        """Does the current snapshot say nothing about the service "name.namespace"?"""
        return self.current is None or name not in self.current.services

    def subscribe(self, name: str, now: float, *, pinned: bool = False) -> discovery_pb2.WatchRequest | None:
        """Ask about a service, or note that it is used. Returns what to send, None if it was asked about already.

        `pinned` names (those of the configuration) are never dropped. Raises SubscriptionsFull."""
        if pinned:
            self._pinned.add(name)
        if name in self._used_at:
            self._used_at[name] = now
            return None
        if len(self._used_at) >= self._services_max:
            self._drop_stale(now)
        if len(self._used_at) >= self._services_max:
            raise SubscriptionsFull(f"{self._services_max} services are subscribed to already")
        self._used_at[name] = now
        return self._subscribe_message()

    def used(self, name: str, now: float) -> None:
        """The service was called: keep it."""
        if name in self._used_at:
            self._used_at[name] = now

    def expire(self, now: float) -> discovery_pb2.WatchRequest | None:
        """Drop names not used for a while. Returns what to send if any went."""
        return self._subscribe_message() if self._drop_stale(now) else None

    @property
    def services(self) -> Iterable[str]:
        return self._used_at.keys()

    def _drop_stale(self, now: float) -> bool:
        stale = [
            name for name, at in self._used_at.items() if name not in self._pinned and now - at > self._kept_s(name)
        ]
        for name in stale:
            del self._used_at[name]
        return bool(stale)

    def _kept_s(self, name: str) -> float:
        service = self.current.services.get(name) if self.current else None
        return UNUSED_KEPT_S if service is not None and service.known else UNKNOWN_KEPT_S

    def _subscribe_message(self) -> discovery_pb2.WatchRequest:
        return discovery_pb2.WatchRequest(subscribe=discovery_pb2.Subscribe(services=sorted(self._used_at)))

    # Snapshots --------------------------------------------------------------------------------------------------

    def receiving(self, message: discovery_pb2.Snapshot) -> Generator[None, None, Accepted | Refused]:
        """Judge a snapshot, in slices of about a millisecond; nothing changes."""

        def refused(reason: str) -> Refused:
            text = "".join(c if c.isprintable() else "?" for c in reason[:REASON_CHARACTERS_MAX])
            return Refused(epoch=message.epoch, version=message.version, reason=text)

        try:
            snapshot = yield from decoding(message)
        except DecodeError as error:
            return refused(f"does not decode: {error}")
        reason = self._not_for_us(snapshot) or self._not_newer(snapshot)
        if reason:
            return refused(reason)
        try:
            bundle = TrustBundle.of(snapshot.trust_domain, snapshot.trust_anchors_der)
        except CertsError as error:
            return refused(f"trust anchors: {error}")
        return Accepted(snapshot=snapshot, bundle=bundle, is_unchanged=snapshot == self.current)

    def commit(self, accepted: Accepted) -> discovery_pb2.WatchRequest:
        """It was applied. Returns the ACK."""
        snapshot = accepted.snapshot
        self.current = snapshot
        self.last_refusal = ""
        self._is_new_stream = False
        return discovery_pb2.WatchRequest(ack=discovery_pb2.Ack(epoch=snapshot.epoch, version=snapshot.version))

    def take_back(self, previous: Snapshot | None) -> None:
        """What was committed last could not be applied after all; the answer is then `refuse`."""
        self.current = previous

    def refuse(self, epoch: int, version: int, reason: str) -> discovery_pb2.WatchRequest:
        """It was not applied; the last good one stays. Returns the NACK."""
        self.refusals += 1
        self.last_refusal = reason[:REASON_CHARACTERS_MAX]
        nack = discovery_pb2.Nack(epoch=epoch, version=version, reason=self.last_refusal)
        return discovery_pb2.WatchRequest(nack=nack)

    def _not_for_us(self, snapshot: Snapshot) -> str:
        if snapshot.trust_domain != self._identity.trust_domain:
            return f"it is for the trust domain {snapshot.trust_domain}, we are in {self._identity.trust_domain}"
        if snapshot.identity != self._identity:
            return f"it is for {snapshot.identity}, we are {self._identity}"
        if (snapshot.service, snapshot.namespace) != (self._service, self._namespace):
            return (
                f"it is for the service {snapshot.service}.{snapshot.namespace}, "
                f"we are {self._service}.{self._namespace}"
            )
        return ""

    def _not_newer(self, snapshot: Snapshot) -> str:
        held = self.current
        if held is None:
            return ""
        if snapshot.epoch != held.epoch:
            if snapshot.epoch < held.epoch and not self._is_new_stream:
                return f"epoch {snapshot.epoch} came after epoch {held.epoch}"
            return ""
        if snapshot.version < held.version:
            return f"version {snapshot.version} came after version {held.version}"
        if snapshot.version == held.version and snapshot != held:
            return f"version {snapshot.version} came again with another content"
        return ""
