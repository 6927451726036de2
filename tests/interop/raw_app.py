"""An HTTP/1.1 app of plain sockets, for what no server library lets a test do or see."""

from __future__ import annotations

import socketserver
import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """As it came on the wire."""

    line: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    trailers: dict[str, str]


@dataclass(slots=True)
class Script:
    """What to answer, octet for octet, by path."""

    answers: dict[str, bytes] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)
    connections: int = 0


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"


class RawApp(socketserver.ThreadingTCPServer):
    """Answers each path with what `script.answers` holds for it, and closes if that says `connection: close`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.script = Script()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Connection(socketserver.StreamRequestHandler):
    server: RawApp

    def handle(self) -> None:
        script = self.server.script
        script.connections += 1
        try:
            while line := self.rfile.readline().decode("latin-1").rstrip():
                headers = self._fields()
                if headers.get("expect") == "100-continue":
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body, trailers = self._body(headers)
                script.seen.append(Request(line=line, headers=headers, body=body, trailers=trailers))
                answer = script.answers.get(line.split()[1], OK)
                self.wfile.write(answer)
                if b"connection: close" in answer.partition(b"\r\n\r\n")[0]:
                    return
        except OSError:
            return

    def _fields(self) -> dict[str, str]:
        fields = {}
        while line := self.rfile.readline().decode("latin-1").rstrip():
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return fields

    def _body(self, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", "0"))), {}
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body, self._fields()
