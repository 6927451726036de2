"""The wire of the simulated mesh: what a channel to the control plane does, in memory, on trio's clock.

`Network.open_channel` stands where `sidecar.control.rpc.open_channel` stands in a sidecar. Both ends prove who they are
with their certificates, as TLS would have them do, by the code that does it in production (`certs.verify`,
`control_plane.api.callers`): only the bytes between them are left out. A message takes `LATENCY_S`; a partition, a
control plane that is down, or bad luck loses what is under way, also an answer to something that was done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from google.protobuf.message import Message

from certs.bundle import TrustBundle, pin
from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid
from certs.verify import verify_chain
from control_plane.errors import ControlPlaneError, Replaced
from protos.hauberk.v1 import discovery_pb2
from sidecar.config import Address
from sidecar.control.errors import RpcError
from sidecar.errors import GRPC_UNAVAILABLE
from sidecar.identity.errors import ControlPlaneUnreachable, WrongPin
from sidecar.net.errors import PeerRefused, RefusedByPeer, WrongPeer
from tests.sim.node import number_of

if TYPE_CHECKING:
    from tests.sim.control import Control, Stream

LATENCY_S = 0.02
CHECKED_EVERY_S = 60.0
"""How exactly a client looks at the clock when it looks at the control plane's certificate."""
M = TypeVar("M", bound=Message)

_STATUS = {
    "INVALID_ARGUMENT": 3,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What an SSLContext is made of. Stands where one stands."""

    svid: X509Svid | None
    bundle: TrustBundle


@dataclass(slots=True, kw_only=True)
class Network:
    """Who can reach the control plane now."""

    control: Control
    cut_off: set[int] = field(default_factory=set)
    """Numbers of nodes on the other side of a partition."""
    losing: Callable[[], bool] = lambda: False
    """Is this message lost?"""
    channels: dict[MemoryChannel, None] = field(default_factory=dict)

    def is_reachable(self, node: int) -> bool:
        return self.control.is_up and node not in self.cut_off

    def cut(self, node: int) -> None:
        """From now on nothing passes; what was open breaks as a keep-alive would find it broken."""
        self.cut_off.add(node)
        for channel in [one for one in self.channels if one.node == node]:
            channel.fail("the network is partitioned")

    def mend(self, node: int) -> None:
        self.cut_off.discard(node)

    def went_down(self) -> None:
        """Of the control plane."""
        for channel in list(self.channels):
            channel.fail("the control plane went away")

    @asynccontextmanager
    async def open_channel(
        self,
        address: Address,
        context: Contexts,
        trust_domain: TrustDomain,
        expected: SpiffeId,
        *,
        clock: Callable[[], float],
        connect_timeout_s: float = 5.0,
        limits: object = None,
        trust: object = None,
    ) -> AsyncIterator[MemoryChannel]:
        """Stands for `sidecar.control.rpc.open_channel`; raises what that raises."""
        await self._dialled(address)
        assert expected == self.control.identity, "nobody else is in this network"
        _check_server(self.control, context, clock())
        chain = context.svid.chain_der if context.svid is not None else ()
        if chain and (why := self.control.refuses_handshake(chain)):
            raise RefusedByPeer(why)
        async with self._open(number_of(address), chain) as channel:
            yield channel

    @asynccontextmanager
    async def open_unverified_channel(
        self, address: Address, *, connect_timeout_s: float = 5.0
    ) -> AsyncIterator[MemoryChannel]:
        """Stands for `sidecar.control.rpc.open_unverified_channel`."""
        await self._dialled(address)
        async with self._open(number_of(address), ()) as channel:
            yield channel

    async def find_anchor(self, address: Address, wanted: bytes, timeout_s: float) -> bytes:
        """Stands for the look at a server's chain with which a join begins."""
        try:
            await self._dialled(address)
        except RpcError as error:
            raise ControlPlaneUnreachable(str(error)) from None
        for der in self.control.server_chain:
            if pin(der) == wanted:
                return der
        raise WrongPin("another anchor")

    async def _dialled(self, address: Address) -> None:
        if not self.is_reachable(number_of(address)):
            await trio.lowlevel.checkpoint()
            raise RpcError(GRPC_UNAVAILABLE, "nobody is there")
        await trio.sleep(LATENCY_S)
        if not self.is_reachable(number_of(address)):
            raise RpcError(GRPC_UNAVAILABLE, "nobody answers")

    @asynccontextmanager
    async def _open(self, node: int, chain: tuple[bytes, ...]) -> AsyncIterator[MemoryChannel]:
        channel = MemoryChannel(self, node, chain)
        self.channels[channel] = None
        try:
            yield channel
        finally:
            self.channels.pop(channel, None)
            channel.fail("closed")


def _check_server(control: Control, context: Contexts, now: float) -> None:
    try:
        found = _found(control.server_chain, context.bundle, now // CHECKED_EVERY_S)
    except CertsError as error:
        raise PeerRefused(str(error), row=error.row) from None
    if found != control.identity:
        raise WrongPeer(f"found {found}", row="F11")


@lru_cache(maxsize=1_024)
def _found(chain_der: tuple[bytes, ...], bundle: TrustBundle, tick: float) -> SpiffeId:
    return verify_chain(chain_der, bundle, tick * CHECKED_EVERY_S)


class MemoryChannel:
    """`sidecar.control.rpc.Channel`, as far as anybody uses it."""

    def __init__(self, network: Network, node: int, chain_der: tuple[bytes, ...]) -> None:
        self._network = network
        self.node = node
        self.chain_der = chain_der
        self._failure: RpcError | None = None
        self._failed = trio.Event()
        self._calls: dict[MemoryCall, None] = {}

    @property
    def is_usable(self) -> bool:
        return self._failure is None

    def fail(self, why: str) -> None:
        if self._failure is None:
            self._failure = RpcError(GRPC_UNAVAILABLE, why)
            self._failed.set()
            for call in list(self._calls):
                call.end(self._failure)

    async def unary(self, path: str, request: Message, reply_type: type[M], timeout_s: float = 10.0) -> M:
        control = self._network.control
        await trio.sleep(LATENCY_S)
        self._check()
        if self._network.losing():
            await self._lost(timeout_s)
        answer = _answered(lambda: control.unary(path, self.chain_der, f"10.0.0.{self.node}", _copied(request)))
        if self._network.losing():
            await self._lost(timeout_s)
        await trio.sleep(LATENCY_S)
        self._check()
        reply = reply_type()
        reply.CopyFrom(answer)
        return reply

    @asynccontextmanager
    async def stream(self, path: str, reply_type: type[discovery_pb2.Snapshot]) -> AsyncIterator[MemoryCall]:
        """Nothing is on the wire before the first message."""
        await trio.lowlevel.checkpoint()
        self._check()
        call = MemoryCall(self, self._network.control)
        self._calls[call] = None
        try:
            yield call
        finally:
            self._calls.pop(call, None)
            call.end(None)

    async def ping(self, timeout_s: float = 5.0) -> None:
        await trio.sleep(2 * LATENCY_S)
        self._check()

    async def wait_unusable(self) -> None:
        await self._failed.wait()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _lost(self, timeout_s: float) -> None:
        """A message got lost: nothing comes until somebody loses patience."""
        with trio.move_on_after(timeout_s):
            await self._failed.wait()
        self.fail("no answer")
        self._check()


class MemoryCall:
    """`StreamCall` of a Watch stream."""

    def __init__(self, channel: MemoryChannel, control: Control) -> None:
        self._channel = channel
        self._control = control
        self._stream: Stream | None = None
        self._inbox: deque[discovery_pb2.Snapshot] = deque()
        self._changed = trio.lowlevel.ParkingLot()
        self._has_ended = False
        self._error: RpcError | None = None

    async def send(self, message: discovery_pb2.WatchRequest) -> None:
        await trio.sleep(LATENCY_S)
        if self._has_ended:
            raise self._error or RpcError(GRPC_UNAVAILABLE, "the call has ended")
        copied = _copied(message)
        try:
            if self._stream is None:
                chain, node = self._channel.chain_der, f"10.0.0.{self._channel.node}"
                self._stream = self._control.watch(chain, node, copied.hello, self._deliver, self._ended_by)
            else:
                self._stream.take(copied)
        except ControlPlaneError as error:
            self.end(_status(error))

    def finish_sending(self) -> None:
        self.end(None)

    def __aiter__(self) -> MemoryCall:
        return self

    async def __anext__(self) -> discovery_pb2.Snapshot:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            if self._has_ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._changed.park()
        return self._inbox.popleft()

    def end(self, error: RpcError | None) -> None:
        if self._has_ended:
            return
        self._has_ended, self._error = True, error
        if self._stream is not None:
            self._stream.close()
        self._changed.unpark_all()

    def _deliver(self, snapshot: discovery_pb2.Snapshot) -> None:
        self._inbox.append(_copied(snapshot))
        self._changed.unpark_all()

    def _ended_by(self, error: ControlPlaneError) -> None:
        self.end(_status(error))


def _answered(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ControlPlaneError as error:
        raise _status(error) from None


def _status(error: ControlPlaneError) -> RpcError:
    return RpcError(_STATUS["ABORTED" if isinstance(error, Replaced) else error.status], str(error))


def _copied(message: M) -> M:
    """As if it had been on a wire: nobody shares what another may change."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
