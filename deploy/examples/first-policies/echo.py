"""A service that says what it was asked: `python3 echo.py NAME PORT`. It stands for the shop's own services."""

from __future__ import annotations

import http.server
import sys


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = f"{sys.argv[1]} was asked {self.command} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # the names http.server looks for

    def log_message(self, *_: object) -> None:
        """The sidecar's log has every request."""


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Echo).serve_forever()
