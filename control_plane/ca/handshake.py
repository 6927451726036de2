"""Would peers take what an authority signs? `certs.verify` says so by the rules of SPIFFE and RFC 5280; sidecars shake
hands with OpenSSL besides, which has rules of its own (purposes along the chain, key identifiers). So one handshake is
made as they make it, in memory, each end asking for the other's certificate."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from control_plane.ca.errors import CaError

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (X509_VERIFY_PARAM_set_flags(3)): OpenSSL would ask the machine's clock, and the time is an
argument here, which was looked at before."""
FLIGHTS_MAX = 8


def check_handshake(chain_der: Sequence[bytes], private_key: ec.EllipticCurvePrivateKey, anchor_der: bytes) -> None:
    """`chain_der`: a leaf for `private_key` first; who trusts nothing but `anchor_der` is to take it, as a server's and
    as a client's. RFC 8446, RFC 5280 as OpenSSL reads it with X509_V_FLAG_X509_STRICT. Raises CaError."""
    key = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = key + b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain_der)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server = _context(ssl.PROTOCOL_TLS_SERVER, pem, anchor_der).wrap_bio(to_server, to_client, server_side=True)
        client = _context(ssl.PROTOCOL_TLS_CLIENT, pem, anchor_der).wrap_bio(to_client, to_server)
        waiting = [client, server]
        for _ in range(FLIGHTS_MAX):
            waiting = [end for end in waiting if not _is_done(end)]
    except ssl.SSLCertVerificationError as failure:
        raise CaError(f"signs what no TLS peer takes: {failure.verify_message}", row="F02") from failure
    except ssl.SSLError as failure:
        raise CaError(f"signs what no TLS peer takes: {failure.reason or failure}", row="F02") from failure
    assert not waiting, "a handshake takes three flights"


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _context(protocol: int, pem: bytes, anchor_der: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
    context.load_verify_locations(cadata=anchor_der)
    descriptor = os.memfd_create("probe", os.MFD_CLOEXEC)  # it takes paths only, and no key is to be on a disk
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
