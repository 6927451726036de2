"""The shop's front: plain HTTP/1.1 on the standard library. Knows nothing of certificates, identities or the mesh.

GET /            a greeting, and who the mesh says is asking
GET /order?item= places an order over gRPC
PUT /upload      counts and hashes what it is sent
Port in $PORT; where orders is, in $ORDERS ("host:port", plaintext gRPC).
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
from collections.abc import Callable
from urllib.parse import parse_qs, urlparse

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

PLACE = "/shop.v1.Orders/Place"


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    channel: grpc.Channel

    def do_GET(self) -> None:
        url = urlparse(self.path)
        pages: dict[str, Callable[[str], None]] = {"/": self.greet, "/order": self.order}
        pages.get(url.path, self.missing)(url.query)

    def greet(self, _query: str) -> None:
        caller = self.headers.get("x-forwarded-client-cert", "").rpartition("URI=")[2]
        self.answer(200, {"service": "web", "called_by": caller or "somebody outside the mesh"})

    def order(self, query: str) -> None:
        item = parse_qs(query).get("item", ["book"])[0]
        request = Struct()
        request.update({"item": item})
        place = self.channel.unary_unary(
            PLACE, request_serializer=Struct.SerializeToString, response_deserializer=Struct.FromString
        )
        try:
            reply = place(request, timeout=10)
        except grpc.RpcError as error:
            self.answer(502, {"grpc": str(error.code()), "details": error.details()})
        else:
            self.answer(200, MessageToDict(reply))

    def missing(self, _query: str) -> None:
        self.answer(404, {"error": "no such page"})

    def do_PUT(self) -> None:
        left, digest = int(self.headers["content-length"]), hashlib.sha256()
        size = left
        while left:
            piece = self.rfile.read(min(left, 65_536))
            if not piece:
                raise ConnectionError("the upload broke off")
            left -= len(piece)
            digest.update(piece)
        self.answer(200, {"octets": size, "sha256": digest.hexdigest()})

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the standard library's
        """The sidecar logs every request."""


if __name__ == "__main__":
    # grpcio would send a plaintext channel through HTTP_PROXY with CONNECT; the named port needs no proxy.
    Web.channel = grpc.insecure_channel(os.environ["ORDERS"], options=[("grpc.enable_http_proxy", 0)])
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Web).serve_forever()
