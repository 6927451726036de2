"""TLS between sidecars, and to the control plane: TLS 1.3 only, both ends shown to be who they must be.

Theory of operation
-------------------
OpenSSL does what it does well: the protocol, signatures, validity in time, chains to one of our anchors. It accepts
much that is not a legal identity (a leaf that is a CA, two URI names, a foreign trust domain, no ALPN: rows F03 to
F17), so nothing may be sent or believed on a connection until `check_peer` has passed its certificate. The order is
always

    ssl_socket = await handshake(sock, context, server_side=...)
    peer = check_peer(ssl_socket, trust_domain, now, expected, revocations)

that is: OpenSSL's verification, whose certificate it is and whether it may be one at all, whether it was revoked, and
whether it is the one looked for. What is trusted may change while a handshake runs and while a connection lives: the
same questions are asked again then (`sidecar.net.trust`).

Sessions are never resumed: resumption skips the certificate check, so an expired or revoked leaf would come back in
(F14). No tickets are sent, none are asked for, there is no TLS 1.2 and so no session id cache, every change of
certificate or bundle makes new contexts (`sidecar.identity.source`), and a resumed session is refused all the same.

F18, for clients: in TLS 1.3 the client's handshake is complete before the server has looked at the client's
certificate. A server's refusal therefore arrives as an alert at the client's first read, after the client may have
written a request. Count a connection as good only when the first bytes came back, and use `map_ssl_error` on what the
first read raises.

Private keys never touch a disk: `SSLContext.load_cert_chain` takes paths only, so the PEM goes through an anonymous
memory file (memfd_create(2)) that is named /proc/self/fd/N while OpenSSL reads it, and is closed right after.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import trio
from cryptography import x509

from certs.authority_id import key_id
from certs.bundle import TrustBundle
from certs.der import load_certificate, load_public_key
from certs.errors import CertsError, InvalidSvid
from certs.revocation import NOTHING_REVOKED, Revocations
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid
from certs.verify import check_leaf
from sidecar.net.errors import (
    AlpnMissing,
    HandshakeFailed,
    PeerRefused,
    PeerRevoked,
    RefusedByPeer,
    TlsError,
    WrongPeer,
)
from sidecar.net.tls_messages import MeshSocket, limit_messages

ALPN = "h2"
CHAIN_CERTIFICATES_MAX = 5
"""The leaf, three intermediates, and the anchor if the peer sends it (F22)."""
CHAIN_OCTETS_MAX = 16_384
SERVER_NAME_CHARACTERS_MAX = 253

# Host names: labels of letters, digits, `-` and `_`, the last of them not a number, so that no address is one.
_SERVER_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[a-z0-9_-]{1,63}")

# X509_V_ERR_* of OpenSSL's x509_vfy.h, as found in `SSLCertVerificationError.verify_code`.
_ROW_OF_VERIFY_CODE = {
    9: "F01",  # certificate is not yet valid
    10: "F01",  # certificate has expired
    2: "F02",  # unable to get issuer certificate
    18: "F02",  # self-signed certificate
    19: "F02",  # self-signed certificate in chain
    20: "F02",  # unable to get local issuer certificate
    21: "F02",  # unable to verify the first certificate
    7: "F02",  # certificate signature failure
    22: "F22",  # chain too long
    25: "F09",  # path length constraint exceeded
    47: "F09",  # permitted subtree violation
    48: "F09",  # excluded subtree violation
    66: "F23",  # EE certificate key too weak
    67: "F23",  # CA certificate key too weak
    68: "F23",  # CA signature digest algorithm too weak
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """Who is at the other end, as proved by its certificate."""

    identity: SpiffeId
    der: bytes
    """The leaf."""
    not_after: float
    """Unix seconds; the connection must not outlive it (F15)."""
    sha256_hex: str
    """Of `der`; what x-forwarded-client-cert calls Hash."""
    serial: int
    issuers_der: tuple[bytes, ...] = ()
    """What the peer sent after its leaf. One object for all connections with the same."""
    authority_ids: tuple[str, ...] = ()
    """`certs.authority_id.key_id` of each of them."""


def server_context(svid: X509Svid, bundle: TrustBundle) -> ssl.SSLContext:
    """For accepting: we are `svid`, and every client must show a certificate that chains to `bundle`."""
    context = _base_context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.sni_callback = _note_server_name
    _trust(context, bundle)
    _load_identity(context, svid)
    return context


def client_context(svid: X509Svid | None, bundle: TrustBundle) -> ssl.SSLContext:
    """For dialling. Without `svid` (only to join the mesh) we stay anonymous; the server is checked all the same."""
    context = _base_context(ssl.PROTOCOL_TLS_CLIENT)
    _trust(context, bundle)
    if svid is not None:
        _load_identity(context, svid)
    return context


def unverified_client_context() -> ssl.SSLContext:
    """For looking at a server's chain before it is trusted. Nothing may be said on such a connection."""
    context = _base_context(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE
    return context


def _note_server_name(sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
    """Called by OpenSSL for each ClientHello, before the client has proved anything. A name that is none (RFC 6066
    section 3: no addresses, no trailing dot, which is forgiven) ends the handshake with an alert."""
    if isinstance(sock, MeshSocket):
        plain = (name or "").lower().removesuffix(".")
        if name is not None and (len(plain) > SERVER_NAME_CHARACTERS_MAX or _SERVER_NAME.fullmatch(plain) is None):
            return ssl.AlertDescription.ALERT_DESCRIPTION_ILLEGAL_PARAMETER
        sock.server_name = plain
    return None


def server_name(ssl_socket: ssl.SSLSocket) -> str:
    """What the client asked for (SNI): lower case, no trailing dot; "" if it named nothing. For a server's socket."""
    return ssl_socket.server_name if isinstance(ssl_socket, MeshSocket) else ""


async def handshake(
    sock: socket.socket, context: ssl.SSLContext, *, server_side: bool, ask_for: str = ""
) -> ssl.SSLSocket:
    """Run the handshake on a connected non-blocking socket. The caller sets the deadline and then calls `check_peer`.

    `ask_for`: the name a client sends (SNI), ASCII; who is really there is for `check_peer` to say.
    The socket belongs to the returned SSLSocket; on any failure, cancellation included, it is closed.
    Raises PeerRefused, RefusedByPeer or HandshakeFailed."""
    assert sock.gettimeout() == 0, "a blocking socket would stop the whole sidecar"
    try:
        # A peer that already hung up makes this raise, or makes a socket that would read *plaintext* (F19,
        # CVE-2023-40217): do_handshake() refuses such a socket, and check_peer asks for a certificate.
        ssl_socket = context.wrap_socket(
            sock,
            server_side=server_side,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=True,
            server_hostname=ask_for.encode("ascii") or None,  # text would go through IDNA, and load its tables
        )
    except (OSError, ValueError) as error:
        sock.close()
        raise map_ssl_error(error) from None
    try:
        await _do_handshake(ssl_socket)
    except BaseException:
        ssl_socket.close()
        raise
    return ssl_socket


async def _do_handshake(ssl_socket: ssl.SSLSocket) -> None:
    while True:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            ssl_socket.do_handshake()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(ssl_socket)
        except ssl.SSLWantWriteError:
            await trio.lowlevel.wait_writable(ssl_socket)
        except (OSError, ValueError, AttributeError) as error:
            # AttributeError: CPython left the socket without an SSL object because the peer was gone (F19).
            raise map_ssl_error(error) from None
        else:
            return


def map_ssl_error(error: Exception) -> TlsError:
    """What an exception of the ssl module or the socket means. Use it for the first reads of a client too (F18)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        row = _ROW_OF_VERIFY_CODE.get(error.verify_code, "")
        return PeerRefused(f"the peer's certificate was refused: {error.verify_message}", row=row)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").lower().replace("_", " ") or "connection closed"
        if "alert" in reason:
            return RefusedByPeer(f"the peer refused us: {reason}")
        if "callback failed" in reason:
            return HandshakeFailed("the client asked for a server name that is none", row="D07")
        row = "F12" if "protocol" in reason or "version" in reason else ""
        row = "F20" if "wrong version number" in reason or "http request" in reason else row
        return HandshakeFailed(f"TLS failed: {reason}", row=row)
    if isinstance(error, OSError):
        return HandshakeFailed(f"the connection broke: {error.strerror or type(error).__name__}")
    return HandshakeFailed("the peer was gone before TLS began", row="F19")


def check_peer(
    ssl_socket: ssl.SSLSocket,
    trust_domain: TrustDomain,
    now: float,
    expected: Collection[SpiffeId] | None,
    revocations: Revocations = NOTHING_REVOKED,
) -> PeerCertificate:
    """Who is there, or an error. Call it after `handshake` and before the first byte is sent or read.

    `expected` is whom a client looks for; None (servers) accepts every identity of the trust domain.
    Raises AlpnMissing, PeerRefused, PeerRevoked, WrongPeer, or HandshakeFailed for a protocol below TLS 1.3."""
    der = ssl_socket.getpeercert(binary_form=True)
    if der is None:
        raise PeerRefused("the peer showed no certificate", row="F19")
    if ssl_socket.version() != "TLSv1.3":
        raise HandshakeFailed("the peer does not speak TLS 1.3", row="F12")
    if ssl_socket.session_reused:
        raise PeerRefused("the peer resumed a session, in which no certificate is looked at", row="F14")
    if ssl_socket.selected_alpn_protocol() != ALPN:
        raise AlpnMissing("the peer did not agree on h2", row="F17")
    peer = _peer_certificate(der, peer_chain(ssl_socket), trust_domain, now)
    if revoked := revocation_of(peer, revocations):
        raise revoked
    if expected is not None and peer.identity not in expected:
        wanted = " or ".join(sorted(str(one) for one in expected)[:3]) or "nobody"
        raise WrongPeer(f"found {peer.identity} where {wanted} should be", row="F11")
    return peer


def _peer_certificate(der: bytes, chain: list[bytes], trust_domain: TrustDomain, now: float) -> PeerCertificate:
    if len(chain) > CHAIN_CERTIFICATES_MAX or sum(map(len, chain)) > CHAIN_OCTETS_MAX:
        raise PeerRefused("the peer's certificate chain is too long", row="F22")
    try:
        identity = check_leaf(der, trust_domain, now)
        issuers_der, ids = _issuers(tuple(chain[1:]))
    except CertsError as error:
        raise PeerRefused(f"the peer's certificate is no identity of this mesh: {error}", row=error.row) from None
    leaf = x509.load_der_x509_certificate(der)
    return PeerCertificate(
        identity=identity,
        der=der,
        not_after=leaf.not_valid_after_utc.timestamp(),
        sha256_hex=hashlib.sha256(der).hexdigest(),
        serial=leaf.serial_number,
        issuers_der=issuers_der,
        authority_ids=ids,
    )


@lru_cache(maxsize=64)
def _issuers(issuers_der: tuple[bytes, ...]) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The same tuple for the same chain, and the authorities' ids. A mesh has few chains at a time; what somebody
    makes up besides is forgotten again. Raises InvalidSvid, which is not remembered."""
    keys = (load_public_key(load_certificate(der, InvalidSvid)[0], InvalidSvid, "F23") for der in issuers_der)
    return issuers_der, tuple(key_id(key) for key in keys)


def authority_ids(issuers_der: tuple[bytes, ...]) -> tuple[str, ...]:
    """`certs.authority_id.key_id` of each of these signing certificates. Raises InvalidSvid."""
    return _issuers(issuers_der)[1]


def revocation_of(peer: PeerCertificate, revocations: Revocations) -> PeerRevoked | None:
    """What is revoked of it, or None."""
    what = revocations.refusal(peer.identity, peer.serial, peer.authority_ids)
    if not what:
        return None
    return PeerRevoked(peer.identity, what, peer.serial)


def peer_chain(ssl_socket: ssl.SSLSocket) -> list[bytes]:
    """The certificates as the peer sent them, DER, leaf first, verified or not.

    Python 3.13 made this public (`get_unverified_chain`); 3.10 to 3.12 have the same method one object further in,
    where it gives certificate objects (or None when the peer sent nothing)."""
    public = getattr(ssl_socket, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    inner = getattr(ssl_socket, "_sslobj")  # noqa: B009 - not in the type stubs
    der_encoding = 2  # _ssl.ENCODING_DER
    return [bytes(one.public_bytes(der_encoding)) for one in inner.get_unverified_chain() or ()]


def _base_context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    limit_messages(context)
    context.check_hostname = False  # names are SPIFFE IDs, compared in check_peer; this must precede CERT_REQUIRED
    return context


def _trust(context: ssl.SSLContext, bundle: TrustBundle) -> None:
    if not bundle.anchors_der:
        raise ValueError("a trust bundle without anchors verifies nothing")  # F26
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=b"".join(bundle.anchors_der))


def _load_identity(context: ssl.SSLContext, svid: X509Svid) -> None:
    with _memory_file(svid.key_pem() + svid.chain_pem()) as path:
        context.load_cert_chain(path)


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """A path to `content` that no other process can open and that never was on a disk."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        written = os.write(descriptor, content)
        assert written == len(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
