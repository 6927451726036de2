"""The control plane of the simulated mesh: the real parts, driven by calls in place of gRPC and by trio's clock.

State, handlers, push and housekeeping are those of `control_plane.app`; what is here is what `api.server` and the two
tasks of `api.discovery` do on sockets and asyncio: know the caller, ask the table, call the handler, and hand a
subscriber what its session says is due. Its store is a real file, so it may be killed and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from typing import Any, TypeVar

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message

from certs.spiffe_id import SpiffeId
from control_plane import app, handlers
from control_plane.api import callers
from control_plane.api.authz import Caller, authorize
from control_plane.api.methods import methods
from control_plane.config import ControlPlaneConfig
from control_plane.errors import ControlPlaneError, StartError, Unauthenticated
from control_plane.state import State
from protos.hauberk.v1 import discovery_pb2

JOIN_PORT = 15011
T = TypeVar("T")


class Control:
    """See the module's docstring. `now` gives Unix seconds."""

    def __init__(self, config: ControlPlaneConfig, now: Callable[[], float]) -> None:
        self._config = config
        self._now = now
        self._stack = contextlib.ExitStack()
        self._streams: dict[Stream, None] = {}
        self._woken: dict[Stream, None] = {}
        self.is_up = False
        self.state: State
        self.apis: handlers.Apis
        self.starts = 0
        self._known: dict[tuple[tuple[bytes, ...], tuple[bytes, ...]], Caller] = {}
        self._shown: tuple[bytes, tuple[bytes, ...]] = b"", ()

    # Life

    def start(self) -> None:
        """Raises StartError."""
        assert not self.is_up
        self._stack = contextlib.ExitStack()
        try:
            self.state = app.open_state(self._config, self._stack, self._now)
        except StartError:
            self._stack.close()
            raise
        self.state.join_port = JOIN_PORT
        self.apis = handlers.apis(self.state, self._config.limits, self._now)
        made = self.apis
        served = methods(*(getattr(made, one.name) for one in fields(made)))
        self._unary = {one.path: one.unary for one in served if one.unary is not None}
        self.is_up = True
        self.starts += 1

    def stop(self) -> None:
        """Whoever is connected must be told by the network."""
        assert self.is_up
        self.is_up = False
        self._streams.clear()
        self._woken.clear()
        self._stack.close()

    async def keep_house(self, every_s: float) -> None:
        """For ever; `app._tick` with a longer breath."""
        while True:
            await trio.sleep(every_s)
            if self.is_up:
                self.housekeep()

    def housekeep(self) -> None:
        app.housekeep(self.state, self._now())
        for stream in list(self._streams):
            stream.expire(self._now())
        self.settle()

    # Who it is

    @property
    def identity(self) -> SpiffeId:
        return SpiffeId.for_control_plane(self.state.trust_domain)

    @property
    def server_chain(self) -> tuple[bytes, ...]:
        """Leaf first, as it is shown in a handshake."""
        pem = self.state.certificate.current.chain_pem
        if self._shown[0] != pem:
            self._shown = pem, tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(pem))
        return self._shown[1]

    def refuses_handshake(self, chain_der: tuple[bytes, ...]) -> str:
        """Why TLS would not take a client's chain; empty: it would. TLS does not know what is revoked."""
        try:
            self._verified(chain_der)
        except Unauthenticated as error:
            return str(error)
        return ""

    def _verified(self, chain_der: tuple[bytes, ...]) -> Caller:
        """As `callers.KnownCallers` has it: verified once for each chain and bundle, while the leaf lives."""
        bundle, now = self.state.authority.bundle, self._now()
        key = (chain_der, bundle.anchors_der)
        held = self._known.get(key)
        if held is None or now >= held.not_after:
            held = self._known[key] = callers.of_certificate(chain_der, bundle, peer="", now=now)
        return held

    # Calls

    def unary(self, path: str, chain_der: tuple[bytes, ...], peer: str, request: Message) -> Message:
        """Raises ControlPlaneError."""
        caller = self._caller(path, chain_der, peer)
        handler = self._unary[path]
        try:
            return at_once(handler(caller, request))  # type: ignore[arg-type]  # handlers are coroutine functions
        finally:
            self.settle()

    def operate(self, path: str, request: Message) -> Any:
        """What an operator calls. Raises ControlPlaneError."""
        try:
            return at_once(self._unary[path](callers.LOCAL_OPERATOR, request))  # type: ignore[arg-type]  # as above
        finally:
            self.settle()

    def watch(
        self,
        chain_der: tuple[bytes, ...],
        peer: str,
        hello: discovery_pb2.Hello,
        deliver: Callable[[discovery_pb2.Snapshot], None],
        ended: Callable[[ControlPlaneError], None],
    ) -> Stream:
        """A Watch stream begins. Raises ControlPlaneError."""
        caller = self._caller("/hauberk.v1.Discovery/Watch", chain_der, peer)
        stream = Stream(self, caller, hello, deliver, ended)
        self._streams[stream] = None
        self.woke(stream)
        self.settle()
        return stream

    def settle(self) -> None:
        """Does what `Hub.run` and the writers of streams do when they are woken."""
        if not self.is_up:
            return
        hub = self.state.hub
        if hub.is_due:
            hub.flush()
        while self._woken:
            self._woken.popitem()[0].write(self._now())

    def woke(self, stream: Stream) -> None:
        """Something is due on it."""
        if stream in self._streams:
            self._woken[stream] = None

    def closed(self, stream: Stream) -> None:
        self._streams.pop(stream, None)
        self._woken.pop(stream, None)

    def _caller(self, path: str, chain_der: tuple[bytes, ...], peer: str) -> Caller:
        if not chain_der:
            caller = callers.anonymous(peer)
        else:
            caller = replace(self._verified(chain_der), peer=peer)
            callers.check_not_revoked(caller, self.state.revoked.current())
        authorize(caller, path)
        return caller


class Stream:
    """One Watch stream at the control plane: `DiscoveryApi.watch` without its tasks."""

    def __init__(
        self,
        control: Control,
        caller: Caller,
        hello: discovery_pb2.Hello,
        deliver: Callable[[discovery_pb2.Snapshot], None],
        ended: Callable[[ControlPlaneError], None],
    ) -> None:
        self._control = control
        self._caller = caller
        self._deliver = deliver
        self._ended = ended
        self._discovery = control.apis.discovery
        self._start = control.starts
        self._number, self._subscriber = self._discovery.open_stream(caller, hello)
        self._subscriber.woken = _Woken(lambda: control.woke(self))

    def take(self, message: discovery_pb2.WatchRequest) -> None:
        """Raises ControlPlaneError."""
        if self._is_ours:
            self._discovery.take(self._number, self._subscriber, message)
            self._control.settle()

    def write(self, now: float) -> None:
        """Everything that is due."""
        if self._subscriber.end is not None:
            self._end(self._subscriber.end)
            return
        while (due := self._subscriber.session.take(now)) is not None:
            self._deliver(due)

    def expire(self, now: float) -> None:
        if now >= self._caller.not_after:
            self._end(Unauthenticated("the certificate of this connection has expired"))

    def close(self) -> None:
        """Idempotent; nothing of a control plane that is gone."""
        self._control.closed(self)
        if self._is_ours:
            self._discovery.close_stream(self._number, self._subscriber)
            self._start = -1

    @property
    def _is_ours(self) -> bool:
        return self._control.is_up and self._control.starts == self._start

    def _end(self, error: ControlPlaneError) -> None:
        self.close()
        self._ended(error)


class _Woken(asyncio.Event):
    """Does not wait for somebody to look at it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def set(self) -> None:
        self._tell()


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a handler that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("a handler waits for something, which calls of the simulation cannot")
