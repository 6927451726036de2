"""The shop's billing, for machines without Node: the same as billing.mjs on the standard library. Port in $PORT."""

from __future__ import annotations

import http.server
import json
import os

_invoices: list[dict[str, object]] = []


class Billing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/invoices":
            self.answer(200, {"invoices": _invoices})
        elif self.path == "/admin":
            self.answer(200, {"secret": "if you can read this, policy failed"})
        else:
            self.answer(404, {"error": "no such page"})

    def do_POST(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != "/invoices":
            self.answer(404, {"error": "no such page"})
            return
        invoice = {"number": len(_invoices) + 1, "written_in": "python", **order}
        _invoices.append(invoice)
        self.answer(201, invoice)

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the standard library's
        """The sidecar logs every request."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Billing).serve_forever()
