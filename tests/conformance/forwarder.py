"""Plaintext in, mutual TLS out: h2spec can neither present a certificate of ours nor verify one.

Octets are carried as they come, and so is how a connection ends, because h2spec judges that: the end of the stream
arrives as an end, a reset as a reset. (A client that closes cannot be told from one that closes its half; h2spec does
only the former, so TLS is closed with it.)
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

RECEIVE_OCTETS = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: close(2) sends a reset."""


@asynccontextmanager
async def forwarding(to_port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Yields the loopback port whose connections are carried to the mesh port `to_port`."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_carry, to_port=to_port, context=context), 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _carry(plain: trio.SocketStream, *, to_port: int, context: ssl.SSLContext) -> None:
    mesh = await trio.open_tcp_stream("127.0.0.1", to_port)
    tls = trio.SSLStream(mesh, context, https_compatible=True)
    try:
        await tls.do_handshake()
        assert tls.selected_alpn_protocol() == "h2"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_to_mesh, plain, tls, mesh)
            await _to_client(plain, tls)
            nursery.cancel_scope.cancel()
    finally:
        plain.socket.close()  # at once, also when cancelled
        mesh.socket.close()


async def _to_mesh(plain: trio.SocketStream, tls: trio.SSLStream[trio.SocketStream], mesh: trio.SocketStream) -> None:
    try:
        while data := await plain.receive_some(RECEIVE_OCTETS):
            await tls.send_all(data)
        await tls.aclose()
    except trio.BrokenResourceError:
        _reset_on_close(plain)  # which of the two broke does not matter: the other gets to know
        _reset_on_close(mesh)


async def _to_client(plain: trio.SocketStream, tls: trio.SSLStream[trio.SocketStream]) -> None:
    """Returns when the mesh side is over, whichever way."""
    try:
        while data := await tls.receive_some(RECEIVE_OCTETS):
            await plain.send_all(data)
    except trio.ClosedResourceError:
        return  # the client left
    except trio.BrokenResourceError:
        _reset_on_close(plain)


def _reset_on_close(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
