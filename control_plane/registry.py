"""Which sidecars are there, where they can be reached, and when they are gone. Sans-IO: `now` is an argument.

The life of an instance (one sidecar process, named by workload and by the random name it gave itself):

- `connected` opens a stream; a newer stream of the same instance takes over from the older.
- `advertise` stores its endpoint; `withdraw` removes it at once, the stream stays while the sidecar drains.
- `disconnected` without withdraw: it may only be reconnecting, so the endpoint stays `lost_s` more. The same holds
  after a reconnect until the sidecar advertises again.
- `start`: endpoints found in the store after a restart stay `restart_s`, so that a restart empties nothing.
- `sweep`, called about once a second, removes what is overdue.

Endpoints live in the store, everything else here.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from certs.spiffe_id import SpiffeId
from control_plane.errors import ResourceExhausted
from control_plane.model import EndpointRecord, InstanceKey, Workload
from control_plane.store.base import Store
from sidecar.rules.snapshot import Protocol


@dataclass(slots=True, kw_only=True)
class Instance:
    """One sidecar process, as last heard of."""

    workload: Workload
    name: str
    streams: list[int] = field(default_factory=list)
    """Oldest first; the last one counts."""
    has_withdrawn: bool = False
    """It leaves in good order."""
    endpoint: EndpointRecord | None = None
    endpoint_until: float | None = None
    """When the endpoint goes unless its sidecar advertises again. None: it stays."""
    connected_since: float = 0.0
    last_seen: float = 0.0
    sidecar_version: str = ""
    clock_skew_s: float = 0.0
    """Sidecar's clock minus ours."""
    certificate_not_after: float = 0.0
    certificate_serial: int = 0
    """Of the one it says it uses; 0: not told."""

    @property
    def key(self) -> InstanceKey:
        return self.workload.workload_id, self.name

    @property
    def is_connected(self) -> bool:
        return bool(self.streams)


class Registry:
    """See the module's docstring."""

    def __init__(
        self,
        store: Store,
        *,
        lost_s: float,
        restart_s: float,
        streams_per_identity_max: int = 1_000,
    ) -> None:
        self._store = store
        self._lost_s = lost_s
        self._restart_s = restart_s
        self._streams_per_identity_max = streams_per_identity_max
        self._instances: dict[InstanceKey, Instance] = {}
        self._of_workload: defaultdict[int, dict[str, Instance]] = defaultdict(dict)
        """The same ones."""
        self._streams: dict[int, Instance] = {}
        self._streams_of: Counter[SpiffeId] = Counter()
        """How many, by identity: it is asked for every stream that opens, of a fleet that all comes back at once."""
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Registry instances={len(self._instances)} streams={len(self._streams)}>"

    def __iter__(self) -> Iterator[Instance]:
        return iter(list(self._instances.values()))

    def __contains__(self, key: InstanceKey) -> bool:
        return key in self._instances

    def start(self, now: float) -> None:
        """Takes over what the store remembers from before a restart."""
        workloads = {one.workload_id: one for one in self._store.workloads()}
        for endpoint in self._store.endpoints():
            instance = Instance(
                workload=workloads[endpoint.workload_id],
                name=endpoint.instance,
                endpoint=endpoint,
                endpoint_until=now + self._restart_s,
            )
            self._put(instance)

    def connected(self, workload: Workload, name: str, *, sidecar_version: str, now: float) -> int:
        """A stream begins; its number. Raises ResourceExhausted (security.md G25)."""
        instance = self._instances.get((workload.workload_id, name))
        same_identity = self._streams_of[workload.spiffe_id]
        if same_identity >= self._streams_per_identity_max:
            raise ResourceExhausted(
                f"{workload.spiffe_id} has {same_identity} watch streams, which is the most allowed"
            )
        if instance is None:
            instance = Instance(workload=workload, name=name)
            self._put(instance)
        if not instance.streams:
            instance.connected_since = now
        instance.workload = workload
        instance.sidecar_version = sidecar_version
        instance.last_seen = now
        if instance.endpoint is not None:
            instance.endpoint_until = now + self._lost_s
        stream = next(self._numbers)
        instance.streams.append(stream)
        self._streams[stream] = instance
        self._streams_of[workload.spiffe_id] += 1
        return stream

    def is_current(self, stream: int) -> bool:
        """Is this the stream that speaks for its instance?"""
        instance = self._streams.get(stream)
        return instance is not None and instance.streams[-1] == stream

    def heard(
        self, stream: int, *, clock: float, certificate_not_after: float, now: float, certificate_serial: int = 0
    ) -> None:
        """A Hello or Heartbeat: `clock` is Unix seconds at the sidecar; 0 for any: not told."""
        instance = self._streams[stream]
        instance.last_seen = now
        if clock > 0:
            instance.clock_skew_s = clock - now
        if certificate_not_after > 0:
            instance.certificate_not_after = certificate_not_after
        if certificate_serial > 0:
            instance.certificate_serial = certificate_serial

    def advertise(self, stream: int, address: str, ports: Mapping[int, Protocol], now: float) -> bool:
        """Callers may come. True: the store changed. From a stream that was taken over: ignored."""
        if not self.is_current(stream):
            return False
        instance = self._streams[stream]
        instance.last_seen = now
        instance.has_withdrawn = False
        workload_id, name = instance.key
        endpoint = EndpointRecord(workload_id=workload_id, instance=name, address=address, ports=dict(ports))
        changed = self._store.put_endpoint(endpoint)
        instance.endpoint, instance.endpoint_until = endpoint, None
        if changed:
            self._drop_predecessors(instance, address)
        return changed

    def withdraw(self, stream: int, now: float) -> bool:
        """No new callers, please. True: the store changed."""
        if not self.is_current(stream):
            return False
        instance = self._streams[stream]
        instance.last_seen = now
        instance.has_withdrawn = True
        return self._remove_endpoint(instance)

    def has_withdrawn(self, stream: int) -> bool:
        """Did its sidecar say that it leaves?"""
        instance = self._streams.get(stream)
        return instance is not None and instance.has_withdrawn

    def disconnected(self, stream: int, now: float) -> None:
        """The stream ended, in whatever way. Idempotent."""
        instance = self._streams.pop(stream, None)
        if instance is None:
            return
        instance.streams.remove(stream)
        self._streams_of[instance.workload.spiffe_id] -= 1
        if instance.streams:
            return
        instance.last_seen = now
        if instance.endpoint is None:
            self._drop(instance)
        else:
            instance.endpoint_until = now + self._lost_s

    def sweep(self, now: float) -> bool:
        """Removes what is overdue. True: the store changed."""
        changed = False
        latest = now + max(self._lost_s, self._restart_s)
        for instance in self:
            if instance.endpoint_until is None:
                continue
            # A clock that was ahead put it off for as long.
            instance.endpoint_until = min(instance.endpoint_until, latest)
            if instance.endpoint_until <= now:
                changed |= self._remove_endpoint(instance)
                if not instance.is_connected:
                    self._drop(instance)
        return changed

    def _remove_endpoint(self, instance: Instance) -> bool:
        instance.endpoint = instance.endpoint_until = None
        return self._store.delete_endpoint(*instance.key)

    def _drop_predecessors(self, successor: Instance, address: str) -> None:
        """The store dropped what another instance of the workload had at the same address: that process is gone."""
        for instance in list(self._of_workload[successor.workload.workload_id].values()):
            if instance is successor or instance.endpoint is None or instance.endpoint.address != address:
                continue
            instance.endpoint = instance.endpoint_until = None
            if not instance.is_connected:
                self._drop(instance)

    def _put(self, instance: Instance) -> None:
        self._instances[instance.key] = self._of_workload[instance.workload.workload_id][instance.name] = instance

    def _drop(self, instance: Instance) -> None:
        self._instances.pop(instance.key, None)
        of_workload = self._of_workload[instance.workload.workload_id]
        of_workload.pop(instance.name, None)
        if not of_workload:
            del self._of_workload[instance.workload.workload_id]
