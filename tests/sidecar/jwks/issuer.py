"""An issuer's server on loopback, by https with a certificate of its own authority; the test says what it answers."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def ok(body: str | bytes, *headers: str) -> bytes:
    """An answer as it is sent."""
    octets = body.encode() if isinstance(body, str) else body
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(octets)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + octets


class Authority:
    """Makes a certificate in files, for `localhost` or another name, which may be a wildcard."""

    def __init__(self, directory: Path, dns_name: str = "localhost", hours: int = 1) -> None:
        self.ca_file, self.certificate, self.key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name, name = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)]) for word in ("test CA", "localhost")
        )
        none = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys((*none, "encipher_only", "decipher_only"), False)

        def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, is_ca: bool) -> x509.Certificate:
            now = datetime.datetime.now(datetime.UTC)
            builder = (
                x509.CertificateBuilder(issuer_name=ca_name, subject_name=subject, public_key=public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(hours=hours))
                .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
                .add_extension(
                    x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **usage),
                    critical=True,
                )
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            )
            if not is_ca:
                builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
            return builder.sign(ca_key, hashes.SHA256())

        pem = serialization.Encoding.PEM
        self.ca_file.write_bytes(certificate(ca_name, ca_key.public_key(), True).public_bytes(pem))
        self.certificate.write_bytes(certificate(name, key.public_key(), False).public_bytes(pem))
        plain = serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class IssuerServer:
    """`answers`: path -> what is sent. Anything else is 404."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.hold: trio.Event | None = None
        """While there is one that is not set, answers wait for it."""

    def url(self, path: str, scheme: str = "https", host: str = "localhost") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def _serve(self, stream: trio.abc.Stream) -> None:
        received = b""
        try:
            while b"\r\n\r\n" not in received:
                data = await stream.receive_some(65_536)
                if not data:
                    return
                received += bytes(data)
                if not received.startswith(b"GET"[: len(received)]):
                    return
            path = received.split(b" ")[1].decode()
            self.asked.append(path)
            self.heads.append(received)
            if self.hold is not None:
                await self.hold.wait()
            answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            await stream.send_all(answer)
            await stream.aclose()
        except (trio.BrokenResourceError, ssl.SSLError):
            return  # the other side had enough


@asynccontextmanager
async def serving_keys(authority: Authority | None) -> AsyncIterator[IssuerServer]:
    """By https, or without an `authority` in plaintext."""
    server = IssuerServer()
    async with trio.open_nursery() as nursery:
        if authority is None:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            server.port = listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, server._serve, [listener])
        else:
            context = authority.server_context()
            tls = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
            transport = tls[0].transport_listener
            assert isinstance(transport, trio.SocketListener)
            server.port = transport.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, server._serve, tls)
        yield server
        nursery.cancel_scope.cancel()
