"""Who is at the other end of an inbound connection, and what the snapshot in force makes of them, port by port.

PeerAuthentication decides it (https://istio.io/latest/docs/reference/config/security/peer_authentication/): on a port
that is DISABLE nobody has an identity, whoever proved one included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sidecar.http.session import Fields
from sidecar.net.tls import PeerCertificate
from sidecar.rules.authz import Authorizer, PeerAuthorizer
from sidecar.rules.facts import Peer
from sidecar.rules.snapshot import PortTls, Snapshot, TlsMode
from sidecar.runtime import Runtime

if TYPE_CHECKING:
    from sidecar.jwks.authenticator import Authenticator


def mode_at(port: PortTls, now: float) -> TlsMode:
    """What a port takes at `now` (Unix seconds): after its end date it is STRICT."""
    return TlsMode.STRICT if port.until and now >= port.until else port.mode


class Seen(NamedTuple):
    """A caller, as one port sees them."""

    facts: Peer
    """What policies may look at."""
    judge: PeerAuthorizer
    source: str
    """SPIFFE ID; empty: no identity."""
    identity_fields: Fields
    """Envoy's x-forwarded-client-cert, from the verified certificate and nothing else; nothing for nobody."""


class InForce(NamedTuple):
    """What of the snapshot in force concerns one caller."""

    snapshot: Snapshot
    authenticator: Authenticator | None
    """Of users; None: no RequestAuthentication selects this workload."""
    own_id: str
    version: int
    seen: Seen
    at_port: Mapping[int, Seen]
    """Of ports that see them otherwise."""
    until: float
    """Unix seconds at which a port changes its mind; 0: never."""

    def at(self, port: int) -> Seen:
        return self.at_port.get(port, self.seen) if self.at_port else self.seen


class Caller:
    """One per connection."""

    def __init__(
        self, runtime: Runtime, facts: Peer, certificate: PeerCertificate | None, now: Callable[[], float] = time.time
    ) -> None:
        """`facts`: what policies may look at. `certificate`: None for a plaintext connection. `now`: Unix seconds."""
        self.facts = facts
        is_local = facts.source_ip == "::1" or facts.source_ip.startswith("127.")
        self.is_exposed = certificate is None and not is_local
        """Without TLS, from another machine: what is said here others may hear."""
        self._runtime = runtime
        self._certificate = certificate
        self._now = now
        self._in_force: InForce | None = None

    def __repr__(self) -> str:
        return f"<Caller {self.facts.principal or 'nobody'} from {self.facts.source_ip or 'somewhere'}>"

    @property
    def is_plaintext(self) -> bool:
        return self._certificate is None

    def forget(self) -> None:
        """What was in force: a connection that waits for use would keep a large policy in memory that no longer is."""
        self._in_force = None

    def in_force(self) -> InForce:
        """The caller's rules are compiled once per snapshot (and hold a DENY also against `/admin;x`, row C06).

        Raises NotReady before the first."""
        snapshot, authorizer = self._runtime.current()
        held = self._in_force
        if held is None or held.snapshot is not snapshot or (held.until and self._now() >= held.until):
            held = self._in_force = self._put_into_force(snapshot, authorizer)
        return held

    def _put_into_force(self, snapshot: Snapshot, authorizer: Authorizer) -> InForce:
        self._runtime.callers.add(self)
        facts, certificate = self.facts, self._certificate
        own_id, judge = str(snapshot.identity), authorizer.for_peer(facts)
        seen = Seen(facts, judge, "", [])
        if certificate is not None:
            source = str(certificate.identity)
            client_cert = f"By={own_id};Hash={certificate.sha256_hex};URI={source}"
            seen = Seen(facts, judge, source, [(b"x-forwarded-client-cert", client_cert.encode("ascii"))])
        authenticator = self._runtime.authentication.under(snapshot)
        in_force = InForce(snapshot, authenticator, own_id, snapshot.version, seen, {}, 0.0)
        ports, now = snapshot.peer_authentication, self._now()
        all_ports = [ports.rest, *ports.ports.values()]
        if certificate is None or all(mode_at(one, now) is not TlsMode.DISABLE for one in all_ports):
            return in_force
        anonymous = replace(facts, principal=None)
        nobody = Seen(anonymous, authorizer.for_peer(anonymous), "", [])

        def seen_at(port: PortTls) -> Seen:
            return nobody if mode_at(port, now) is TlsMode.DISABLE else seen

        return in_force._replace(
            seen=seen_at(ports.rest),
            at_port={port: seen_at(one) for port, one in ports.ports.items()},
            until=min((one.until for one in all_ports if one.until > now), default=0.0),
        )
