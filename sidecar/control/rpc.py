"""gRPC over one TLS connection, client side, on trio: what the sidecar speaks with its control plane.

    async with open_channel(address, context, trust_domain, expected, clock=time.time) as channel:
        reply = await channel.unary("/hauberk.v1.Identity/Renew", request, SvidResponse, timeout_s=10)
        async with channel.stream("/hauberk.v1.Discovery/Watch", Snapshot) as call:
            await call.send(hello)
            async for snapshot in call: ...

Theory of operation
-------------------
Protocol state lives in `Calls` (sans-IO); this file owns the socket and three tasks. The reader feeds what arrives; the
writer sends, and only it; the keeper sends a PING when nothing was heard for 10 s and gives the link up when nothing
came for another 20 s, so that a dead link is found within 30 s. None of them raises: a broken connection is recorded
once (`Calls.fail`), and every call, open or future, meets that first failure as RpcError(UNAVAILABLE).

GOAWAY leaves the calls running that the server promised to finish; new ones are refused.

A grpcio server answers PINGs it finds too frequent with GOAWAY ("too_many_pings"); it must be told
`grpc.http2.min_ping_interval_without_data_ms` <= 5000 and `grpc.http2.max_ping_strikes` = 0.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import trio
from google.protobuf.message import DecodeError, Message
from trio.lowlevel import ParkingLot

from certs.revocation import NOTHING_REVOKED
from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.config import Address
from sidecar.control.calls import Call, Calls
from sidecar.control.errors import RpcError
from sidecar.control.trusted import wait_distrusted
from sidecar.control.wire import frame_message
from sidecar.errors import GRPC_DEADLINE_EXCEEDED, GRPC_INTERNAL, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE
from sidecar.identity.source import IdentitySource
from sidecar.net.dial import dial
from sidecar.net.errors import HandshakeFailed
from sidecar.net.tls import PeerCertificate, check_peer, handshake, map_ssl_error, unverified_client_context
from sidecar.rules.decode import SNAPSHOT_OCTETS_MAX

READ_OCTETS = 65_536

Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    message_octets_max: int = 4_194_304
    """Of one reply to a unary call, and of one message sent."""
    snapshot_octets_max: int = SNAPSHOT_OCTETS_MAX
    """Of one message received on a stream."""
    output_octets_max: int = 1_048_576
    """Bytes the peer does not take; beyond it the connection is given up."""
    ping_after_s: float = 10.0
    """Of silence."""
    ping_timeout_s: float = 20.0


@asynccontextmanager
async def open_channel(
    address: Address,
    context: ssl.SSLContext,
    trust_domain: TrustDomain,
    expected: SpiffeId,
    *,
    clock: Callable[[], float],
    connect_timeout_s: float = 5.0,
    limits: ChannelLimits | None = None,
    trust: IdentitySource | None = None,
) -> AsyncIterator[Channel]:
    """Connect, check that `expected` is there, and keep the connection while the block runs, and while `trust` has it.

    Raises RpcError(UNAVAILABLE) when nobody answers, and PeerRefused, PeerRevoked, RefusedByPeer, AlpnMissing or
    WrongPeer when somebody else does. Errors of the block come out as they are, not in an ExceptionGroup."""
    ssl_socket = await _connect(address, context, connect_timeout_s)
    try:
        revocations = trust.revocations if trust else NOTHING_REVOKED
        peer = check_peer(ssl_socket, trust_domain, clock(), (expected,), revocations)
    except BaseException:
        ssl_socket.close()
        raise
    channel = Channel(ssl_socket, peer, authority=_authority(address), limits=limits)
    async with _running(channel, *([partial(channel._keep_trusted, trust, clock)] if trust else [])):
        yield channel


@asynccontextmanager
async def open_unverified_channel(address: Address, *, connect_timeout_s: float = 5.0) -> AsyncIterator[Channel]:
    """To somebody who has proved nothing: nothing may be told them, and what they say must prove itself.

    Raises RpcError(UNAVAILABLE)."""
    ssl_socket = await _connect(address, unverified_client_context(), connect_timeout_s)
    async with _running(Channel(ssl_socket, None, authority=_authority(address))) as channel:
        yield channel


@asynccontextmanager
async def _running(channel: Channel, *tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[Channel]:
    """Closes it at the end. Errors of the block come out as they are, not in an ExceptionGroup."""
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            for task in (channel._read, channel._write, channel._keep_alive, *tasks):
                nursery.start_soon(task)
            try:
                yield channel
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        channel._close()
    if failure is not None:
        raise failure


def _authority(address: Address) -> str:
    return "localhost" if address.path else str(address)


async def _connect(address: Address, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    try:
        with trio.fail_after(timeout_s):
            return await handshake(await dial(address), context, server_side=False)
    except trio.TooSlowError:
        raise RpcError(GRPC_UNAVAILABLE, f"{address} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise RpcError(GRPC_UNAVAILABLE, f"{address}: {error.strerror or error}") from None
    except HandshakeFailed as error:
        raise RpcError(GRPC_UNAVAILABLE, f"{address}: {error}") from None


class Channel:
    """One connection to the control plane. Made by `open_channel`."""

    def __init__(
        self,
        ssl_socket: ssl.SSLSocket,
        peer: PeerCertificate | None,
        *,
        authority: str,
        limits: ChannelLimits | None = None,
    ) -> None:
        self._peer = peer
        self._socket = ssl_socket
        self._limits = limits or ChannelLimits()
        self._calls = Calls(authority, trio.current_time)
        self._out = bytearray()
        self._heard_at = trio.current_time()
        self._heard = ParkingLot()
        self._wake_writer = trio.Event()
        self._flushed = ParkingLot()
        self._changed = ParkingLot()
        self._writable = trio.Lock()

    def __repr__(self) -> str:
        state = "failed" if self._calls.failure else "going away" if self._calls.is_going_away else "open"
        whom = self._peer.identity if self._peer else "somebody"
        return f"<Channel to {whom} {state}, {self._calls.open_calls} calls>"

    @property
    def peer(self) -> PeerCertificate:
        """Who is there. Not of an unverified channel."""
        assert self._peer is not None
        return self._peer

    @property
    def is_usable(self) -> bool:
        """May a new call be opened?"""
        return self._calls.failure is None and not self._calls.is_going_away

    async def unary(self, path: str, request: Message, reply_type: type[Reply], timeout_s: float = 10.0) -> Reply:
        """One message there, one back. Raises RpcError, DEADLINE_EXCEEDED when it took too long."""
        lot = ParkingLot()
        call = self._calls.open(
            path,
            timeout_s=timeout_s,
            message_octets_max=self._limits.message_octets_max,
            on_change=lot.unpark_all,
        )
        try:
            with trio.move_on_after(timeout_s):
                call.outbox += self._framed(request)
                call.is_closing = True
                self._wake_writer.set()
                while not call.is_finished and len(call.inbox) < 2:
                    await lot.park()
            if not call.is_finished and len(call.inbox) < 2:
                raise RpcError(GRPC_DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s")
        finally:
            self._calls.cancel(call)
            self._wake_writer.set()
        if call.error is not None and len(call.inbox) < 2:
            raise call.error
        if len(call.inbox) != 1:
            raise RpcError(GRPC_INTERNAL, "the answer is not exactly one message")
        return _parse(call.inbox.popleft(), reply_type)

    @asynccontextmanager
    async def stream(self, path: str, reply_type: type[Reply]) -> AsyncIterator[StreamCall[Reply]]:
        """A call with any number of messages both ways. Leaving the block cancels it. Raises RpcError."""
        lot = ParkingLot()
        call = self._calls.open(
            path,
            timeout_s=None,
            message_octets_max=self._limits.snapshot_octets_max,
            on_change=lot.unpark_all,
        )
        self._wake_writer.set()
        try:
            yield StreamCall(self, call, lot, reply_type)
        finally:
            self._calls.cancel(call)
            self._wake_writer.set()

    async def ping(self, timeout_s: float = 5.0) -> None:
        """Returns when the server has read all that was sent before. Raises RpcError(UNAVAILABLE)."""
        number = self._calls.ping()
        self._wake_writer.set()
        with trio.move_on_after(timeout_s):
            while self._calls.pings_acknowledged < number and self._calls.failure is None:
                await self._heard.park()
        if self._calls.failure is not None:
            raise self._calls.failure
        if self._calls.pings_acknowledged < number:
            raise RpcError(GRPC_UNAVAILABLE, f"no answer to a PING within {timeout_s:g} s")

    async def wait_unusable(self) -> None:
        """Until the server sent GOAWAY or the connection failed."""
        while self.is_usable:
            await self._changed.park()

    # For StreamCall ---------------------------------------------------------------------------------------------

    async def _send(self, call: Call, message: Message) -> None:
        framed = self._framed(message)
        while call.outbox and not call.is_finished:
            await self._flushed.park()
        _check_open(call)
        call.outbox += framed
        self._wake_writer.set()
        await trio.lowlevel.checkpoint()
        while (call.outbox or self._out) and not call.is_finished:
            await self._flushed.park()
        _check_open(call)

    def _next_message(self, call: Call) -> bytes | None:
        message = self._calls.next_message(call)
        self._wake_writer.set()  # credit may go out
        return message

    def _framed(self, message: Message) -> bytes:
        payload = message.SerializeToString()
        if len(payload) > self._limits.message_octets_max:
            raise RpcError(GRPC_RESOURCE_EXHAUSTED, "the message is too large to send")
        return frame_message(payload)

    # Tasks ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while self._calls.failure is None:
            await trio.lowlevel.checkpoint()
            try:
                data = self._socket.recv(READ_OCTETS)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except ssl.SSLWantWriteError:  # a KeyUpdate to answer while the socket is full
                await self._wait_writable()
                continue
            except OSError as error:
                self._fail(str(map_ssl_error(error)))
                return
            if not data:
                self._fail("the control plane closed the connection")
                return
            self._received(data)

    def _received(self, data: bytes) -> None:
        self._heard_at = trio.current_time()
        self._calls.receive(data)
        self._out += self._calls.take()
        if len(self._out) > self._limits.output_octets_max:
            self._fail("the control plane does not take what it asked for")
        self._heard.unpark_all()
        if not self.is_usable:
            self._changed.unpark_all()
        self._wake_writer.set()

    async def _write(self) -> None:
        while self._calls.failure is None:
            if not self._out:
                self._calls.pump()
                self._out += self._calls.take()
            if not self._out:
                self._flushed.unpark_all()
                await self._wake_writer.wait()
                self._wake_writer = trio.Event()
                continue
            try:
                del self._out[: self._socket.send(self._out)]
            except ssl.SSLWantWriteError:
                await self._wait_writable()
            except OSError as error:
                # SSLWantRead ends here too: without renegotiation a TLS 1.3 write never waits for a read.
                self._fail(str(map_ssl_error(error)))
            await trio.lowlevel.checkpoint()
        self._flushed.unpark_all()

    async def _keep_alive(self) -> None:
        while True:
            silent_s = trio.current_time() - self._heard_at
            if silent_s < self._limits.ping_after_s:
                await trio.sleep(self._limits.ping_after_s - silent_s)
                continue
            heard_at = self._heard_at
            self._calls.ping()
            self._wake_writer.set()
            with trio.move_on_after(self._limits.ping_timeout_s):
                while self._heard_at == heard_at:
                    await self._heard.park()
            if self._heard_at == heard_at:
                self._fail("the control plane gives no sign of life")
                return

    async def _keep_trusted(self, trust: IdentitySource, clock: Callable[[], float]) -> None:
        self._fail(str(await wait_distrusted(self.peer, trust, clock)))

    async def _wait_writable(self) -> None:
        async with self._writable:  # trio wants one waiter per socket and direction
            await trio.lowlevel.wait_writable(self._socket)

    def _fail(self, reason: str) -> None:
        self._calls.fail(RpcError(GRPC_UNAVAILABLE, reason))
        for lot in (self._heard, self._changed, self._flushed):
            lot.unpark_all()
        self._wake_writer.set()

    def _close(self) -> None:
        """Close the socket; what is left to say (the reset of a cancelled call) is said if it does not block."""
        try:
            self._socket.send(self._out + self._calls.take())
        except OSError:
            pass
        self._fail("the connection was closed")
        self._socket.close()


class StreamCall(Generic[Reply]):
    """An open call. `async for` gives its messages; RpcError is raised where it ended badly."""

    def __init__(self, channel: Channel, call: Call, lot: ParkingLot, reply_type: type[Reply]) -> None:
        self._channel = channel
        self._call = call
        self._lot = lot
        self._reply_type = reply_type

    async def send(self, message: Message) -> None:
        """Returns when the socket took the message. One sender at a time. Raises RpcError if the call has ended."""
        await self._channel._send(self._call, message)

    def finish_sending(self) -> None:
        """No more messages from us."""
        self._call.is_closing = True
        self._channel._wake_writer.set()

    def __aiter__(self) -> StreamCall[Reply]:
        return self

    async def __anext__(self) -> Reply:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            payload = self._channel._next_message(self._call)
            if payload is not None:
                return _parse(payload, self._reply_type)
            if self._call.is_finished:
                if self._call.error is not None:
                    raise self._call.error
                raise StopAsyncIteration
            await self._lot.park()


def _check_open(call: Call) -> None:
    if call.is_finished:
        raise call.error or RpcError(GRPC_UNAVAILABLE, "the call has ended")


def _parse(payload: bytes, reply_type: type[Reply]) -> Reply:
    try:
        return reply_type.FromString(payload)
    except DecodeError:
        raise RpcError(GRPC_INTERNAL, "the answer does not decode") from None
