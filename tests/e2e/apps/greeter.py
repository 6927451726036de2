"""A grpcio server for tests; messages are plain octets, so there is no code to generate. Port in $PORT.

/test.Greeter/Echo      unary: the request back; initial and trailing metadata, the latter also binary
/test.Greeter/Metadata  unary: the caller's metadata as JSON
/test.Greeter/Fail      unary: aborts with the status named, with trailing metadata
/test.Greeter/Count     server streaming: "0" to "n-1"
/test.Greeter/Sum       client streaming: the sum of all numbers sent
/test.Greeter/Chat      bidirectional: every message back at once
/test.Greeter/Hang      unary: until the call is cancelled
/test.Greeter/Hanging   unary: how many Hang calls are there now, and how many were cancelled
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

BINARY = bytes(range(256))


class Hanging:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.cancelled = 0


hanging = Hanging()


def echo(request: bytes, context: Any) -> bytes:
    context.send_initial_metadata((("initial", "first"),))
    context.set_trailing_metadata((("trailing", "last"), ("trailing-bin", BINARY)))
    return request


def metadata(_request: bytes, context: Any) -> bytes:
    seen = [[key, value if isinstance(value, str) else value.hex()] for key, value in context.invocation_metadata()]
    return json.dumps(seen).encode()


def fail(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("why-bin", b"\0\xff"),))
    context.abort(grpc.StatusCode[request.decode()], "because: 100 % so, und zwar \u00fcberall")
    raise AssertionError


def count(request: bytes, _context: Any) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def total(requests: Iterator[bytes], _context: Any) -> bytes:
    return b"%d" % sum(int(request) for request in requests)


def chat(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    yield from requests


def hang(_request: bytes, context: Any) -> bytes:
    done = threading.Event()
    if context.add_callback(done.set):
        with hanging.lock:
            hanging.now += 1
        done.wait(60)
        with hanging.lock:
            hanging.now -= 1
            hanging.cancelled += not context.is_active()
    return b""


def hanging_now(_request: bytes, _context: Any) -> bytes:
    with hanging.lock:
        return json.dumps([hanging.now, hanging.cancelled]).encode()


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 8 << 20)])
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Sum": grpc.stream_unary_rpc_method_handler(total),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
        "Hanging": grpc.unary_unary_rpc_method_handler(hanging_now),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", handlers),))
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    signal.signal(signal.SIGTERM, lambda *_: server.stop(1))
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
