"""The shop's orders: a grpcio server. Its messages are google.protobuf.Struct, so there is no code to generate.

/shop.v1.Orders/Place  unary: has an invoice written by billing, over HTTP
/shop.v1.Orders/Get    unary: an order by its number
/shop.v1.Orders/Watch  server streaming: three states of an order
Port in $PORT; billing is called at $BILLING ("http://billing.shop:8082"), through the HTTP_PROXY that `hauberk run`
sets.
"""

from __future__ import annotations

import itertools
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.struct_pb2 import Struct

_numbers = itertools.count(1)
_orders: dict[int, Struct] = {}


def place(request: Struct, context: grpc.ServicerContext) -> Struct:
    number = next(_numbers)
    body = json.dumps({"order": number, "item": request["item"]}).encode()
    call = urllib.request.Request(  # noqa: S310  # the scheme is the operator's
        f"{os.environ['BILLING']}/invoices", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(call, timeout=10) as answer:  # noqa: S310  # the scheme is the operator's
            invoice = json.load(answer)
    except urllib.error.HTTPError as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"billing answered {error.code}")
    reply = Struct()
    reply.update({"service": "orders", "order": number, "invoice": invoice})
    _orders[number] = reply
    return reply


def get(request: Struct, context: grpc.ServicerContext) -> Struct:
    number = int(request.fields["order"].number_value)
    if number not in _orders:
        context.abort(grpc.StatusCode.NOT_FOUND, f"there is no order {number}")
    return _orders[number]


def watch(request: Struct, _context: grpc.ServicerContext) -> Iterator[Struct]:
    for state in ("placed", "paid", "shipped"):
        reply = Struct()
        reply.update({"order": request["order"], "state": state})
        yield reply


def main() -> None:
    read, write = Struct.FromString, Struct.SerializeToString
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "shop.v1.Orders",
                {
                    "Place": grpc.unary_unary_rpc_method_handler(place, read, write),
                    "Get": grpc.unary_unary_rpc_method_handler(get, read, write),
                    "Watch": grpc.unary_stream_rpc_method_handler(watch, read, write),
                },
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
