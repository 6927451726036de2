"""A tiny HTTP/2 app without TLS, on `h2` and trio: what a gRPC service looks like to its sidecar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio

from sidecar.config import Address
from sidecar.http.session import Fields


class H2Request:
    """One stream; bodies obey flow control both ways."""

    def __init__(self, serving: _Serving, stream: int, fields: Fields) -> None:
        self.fields = fields
        self.stream = stream
        self.send_piece, self._receive_piece = trio.open_memory_channel[tuple[bytes, int]](10_000)
        self._serving = serving
        self.window = trio.Event()

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end."""
        try:
            data, flow = await self._receive_piece.receive()
        except trio.EndOfChannel:
            return b""
        self._serving.conn.acknowledge_received_data(flow, self.stream)
        await self._serving.flush()
        return data

    async def head(self, fields: Fields, *, end: bool = False) -> None:
        self._serving.conn.send_headers(self.stream, fields, end)
        await self._serving.flush()

    async def data(self, data: bytes, *, end: bool = False) -> None:
        conn = self._serving.conn
        while data:
            size = min(conn.local_flow_control_window(self.stream), conn.max_outbound_frame_size, len(data))
            if not size:
                self.window = trio.Event()
                await self.window.wait()
                continue
            conn.send_data(self.stream, data[:size])
            data = data[size:]
            await self._serving.flush()
        if end:
            conn.end_stream(self.stream)
            await self._serving.flush()

    async def trailers(self, fields: Fields) -> None:
        await self.head(fields, end=True)


class _Serving:
    def __init__(self, app: H2App, stream: trio.SocketStream) -> None:
        self._app = app
        self._stream = stream
        self._lock = trio.Lock()
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self._requests: dict[int, H2Request] = {}

    async def flush(self) -> None:
        async with self._lock:
            await self._stream.send_all(self.conn.data_to_send())

    async def run(self) -> None:
        self.conn.initiate_connection()
        await self.flush()
        async with trio.open_nursery() as nursery:
            while data := await self._stream.receive_some(65_536):
                for event in self.conn.receive_data(data):
                    self._event(event, nursery)
                await self.flush()
            nursery.cancel_scope.cancel()

    def _event(self, event: h2.events.Event, nursery: trio.Nursery) -> None:
        if isinstance(event, h2.events.RequestReceived):
            fields = [(bytes(n), bytes(v)) for n, v in event.headers]
            request = self._requests[event.stream_id] = H2Request(self, event.stream_id, fields)
            self._app.requests.append(request)
            nursery.start_soon(self._serve_one, request)
        elif isinstance(event, h2.events.DataReceived) and event.stream_id in self._requests:
            self._requests[event.stream_id].send_piece.send_nowait((event.data, event.flow_controlled_length))
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            if event.stream_id in self._requests:
                self._requests[event.stream_id].send_piece.close()
        elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
            for request in self._requests.values():
                request.window.set()

    async def _serve_one(self, request: H2Request) -> None:
        try:
            await self._app.serve_one(request)
        except h2.exceptions.StreamClosedError:
            pass  # the sidecar gave the request up


class H2App:
    """`serve_one` answers each request; as it is, an echo with trailers, as gRPC has them."""

    def __init__(self) -> None:
        self.requests: list[H2Request] = []

    async def serve_one(self, request: H2Request) -> None:
        await request.head([(b":status", b"200"), (b"content-type", b"application/grpc")])
        while piece := await request.read():
            await request.data(piece)
        await request.trailers([(b"grpc-status", b"0")])

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await _Serving(self, stream).run()
        except* trio.BrokenResourceError:
            pass

    async def run(self, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(Address(*listener.socket.getsockname()[:2]))
        await trio.serve_listeners(self._serve, [listener])


@asynccontextmanager
async def serving_h2c(app: H2App) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(app.run)
        nursery.cancel_scope.cancel()
