"""Messages that TLS 1.3 allows after the handshake: few are ever needed, and floods of them are stopped (row F24).

Theory of operation. OpenSSL handles KeyUpdate and NewSessionTicket (RFC 8446 section 4.6) inside of a read, goes on to
the next record, and returns when there is data or nothing is left. It counts neither, so a peer that sends nothing
else keeps the read going, and with it the process, for as long as it likes: a KeyUpdate of 27 octets costs some 18 us.

OpenSSL does tell of every message it sees (SSL_CTX_set_msg_callback(3)), and CPython passes that on
(`SSLContext._msg_callback`, since 3.8, made for debugging). Beyond `PER_SECOND_MAX` of these messages the socket is
shut down and what waits in it is thrown away, so that OpenSSL's next read finds the end. It costs 0.5 us for each
record. We use the attribute of the C class: the one above it makes enumeration members of each argument, at seven times
the price.
"""

from __future__ import annotations

import socket
import ssl
import time

PER_SECOND_MAX = 100
"""As HAProxy's tune.ssl.keyupdate-rate-limit. OpenSSL itself sends none; a peer that moves a terabyte, a few dozen."""
DISCARD_OCTETS = 1_048_576

_HANDSHAKE = 22
"""Content type (RFC 8446 section 5.1)."""
_AFTER_HANDSHAKE = frozenset({4, 24})
"""new_session_ticket and key_update (RFC 8446 section 4)."""


class MeshSocket(ssl.SSLSocket):
    """Knows what name the client asked for, and what its peer said after the handshake."""

    server_name = ""
    messages = 0
    """Within the second that began at `counted_from`."""
    counted_from = 0.0
    is_flooded = False


def limit_messages(context: ssl.SSLContext) -> None:
    """Of every connection that is made with the context."""
    context.sslsocket_class = MeshSocket
    attribute = vars(ssl.SSLContext.__bases__[0])["_msg_callback"]
    attribute.__set__(context, _note)


def is_flooded(sock: socket.socket) -> bool:
    """Was it shut down because of its peer's messages?"""
    return isinstance(sock, MeshSocket) and sock.is_flooded


def _note(sock: object, direction: str, version: int, content: int, message: int, data: bytes) -> None:
    """Called by OpenSSL for every record and every message, both ways."""
    if content != _HANDSHAKE or message not in _AFTER_HANDSHAKE or direction != "read":
        return
    if isinstance(sock, MeshSocket) and not sock.is_flooded:
        now = time.monotonic()
        if now - sock.counted_from >= 1.0:
            sock.counted_from, sock.messages = now, 0
        sock.messages += 1
        if sock.messages > PER_SECOND_MAX:
            sock.is_flooded = True
            _shut(sock)


def _shut(sock: MeshSocket) -> None:
    """The methods of a plain socket, for OpenSSL is in the middle of a read."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
        while socket.socket.recv(sock, DISCARD_OCTETS, socket.MSG_TRUNC | socket.MSG_DONTWAIT):
            pass
    except OSError:
        pass
