"""An app with a mind of its own, for `hauberk run`. Port in $PORT; without one it serves nothing.

GET /end/N     answers, then ends with exit code N
GET /environ   its environment as JSON
GET /wait      answers when it is sent SIGUSR1
else           its own process id
SIGHUP and SIGUSR1 are said on standard output; SIGTERM ends it with 0, and it says so.
argv: `end N` ends at once with N; `call URL` fetches the URL as any client that heeds http_proxy, prints the answer.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
import urllib.request

usr1 = threading.Event()


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        if self.path == "/environ":
            body = json.dumps(dict(os.environ)).encode()
        if self.path == "/wait":
            say("waiting")
            usr1.wait()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path.startswith("/end/"):
            self.wfile.flush()
            os._exit(int(self.path.rpartition("/")[2]))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the standard library's
        """The sidecar logs."""


def say(what: str) -> None:
    sys.stdout.write(f"app: {what}\n")
    sys.stdout.flush()


def heard(number: int, _frame: object) -> None:
    say(signal.Signals(number).name)
    if number == signal.SIGUSR1:
        usr1.set()
    if number == signal.SIGTERM:
        os._exit(0)


def main() -> None:
    verb, argument = [*sys.argv[1:], "", ""][:2]
    if verb == "end":
        sys.exit(int(argument))
    if verb == "call":
        with urllib.request.urlopen(argument, timeout=20) as answer:
            say(f"{answer.status} {answer.read()!r}")
        return
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, heard)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()


if __name__ == "__main__":
    main()
