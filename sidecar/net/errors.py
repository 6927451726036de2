"""What can go wrong with a connection's TLS: one tree, each class carrying its row of the catalogue of bad inputs.

None of these is ever shown to the peer; OpenSSL has sent its alert already, or the connection is simply closed.
"""

from __future__ import annotations

from certs.spiffe_id import SpiffeId
from sidecar.errors import SidecarError


class TlsError(SidecarError):
    """The connection must be closed. `reason` is a constant word for metrics and logs."""

    reason = "tls"

    def __init__(self, detail: str, *, row: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.row = row


class HandshakeFailed(TlsError):
    """The handshake did not finish: the peer spoke no TLS 1.3, or went away (F12, F20)."""

    reason = "handshake_failed"


class RefusedByPeer(TlsError):
    """The peer sent an alert: it refused our certificate or what we offered.

    With TLS 1.3 a client's own handshake is over before the server has judged its certificate, so a client meets this
    at its first read (F18)."""

    reason = "refused_by_peer"


class AlpnMissing(TlsError):
    """The peer finished the handshake without agreeing on `h2` (F17); RFC 7301 section 3.2."""

    reason = "alpn_missing"


class PeerRefused(TlsError):
    """The peer's certificate is no legal identity of this mesh (F01 to F10, F19, F22, F23)."""

    reason = "peer_refused"


class PeerRevoked(TlsError):
    """Whatever the certificate says, it is worth nothing any more: its identity, its serial number or the authority
    that signed it was revoked (F15)."""

    reason = "peer_revoked"

    def __init__(self, identity: SpiffeId, what: str, serial: int) -> None:
        """`what`: "identity", "serial" or "authority"."""
        told = {
            "identity": f"the identity {identity} is revoked",
            "serial": f"the certificate with the serial number {serial:x} of {identity} is revoked",
            "authority": f"an authority over the certificate of {identity} is revoked",
        }
        super().__init__(told[what], row="F15")
        self.what = what


class OwnRevoked(TlsError):
    """The certificate that a connection was made with is our own, and nobody takes it any more (F15)."""

    reason = "own_revoked"


class OtherService(TlsError):
    """The client asked for another name than this service's (C26)."""

    reason = "other_service"

    def __init__(self, asked_for: str) -> None:
        super().__init__(f"asked for {asked_for}", row="C26")
        self.asked_for = asked_for


class NotAWorkload(TlsError):
    """The control plane's or an operator's identity, where only workloads call each other."""

    reason = "not_a_workload"


class WrongPeer(TlsError):
    """A legal identity, but not the one that was to be found there (F11)."""

    reason = "wrong_peer"
