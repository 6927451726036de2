"""All PeerAuthentications that select one workload, made into one.

Three levels, each of which overrules the one before: those of the root namespace without a selector, those of the
workload's namespace without one, those with a selector. UNSET says nothing. With nothing said at all a port is STRICT.
What Istio ignores is heard: several at one level (Istio takes the oldest, which nobody sees in a file) make the
strictest of them, and one of the root namespace with a selector holds for what it selects.

What MeshConfig demands of plaintext (an end, named peers) and is not there makes the port STRICT: `apply` refuses such
a document, but what was stored before the demand must not stay open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace

from control_plane.policy.model import MeshConfigSpec, PeerAuthenticationSpec
from sidecar.rules.snapshot import PeerAuthentication, PortTls, TlsMode

_STRICTEST_FIRST = (TlsMode.STRICT, TlsMode.PERMISSIVE, TlsMode.DISABLE)


def resolve(specs: Iterable[PeerAuthenticationSpec], mesh: MeshConfigSpec) -> PeerAuthentication:
    """Of those that select one workload; in an order that does not matter but for which is named as the source."""
    levels: tuple[list[PeerAuthenticationSpec], ...] = ([], [], [])
    for spec in specs:
        levels[level_of(spec, mesh)].append(spec)
    rest = PortTls()
    for level in levels:
        rest = strictest([_tls(spec, spec.mode, mesh) for spec in level if spec.mode is not None]) or rest
    ports: dict[int, PortTls] = {}
    for port in sorted({port for spec in levels[-1] for port in spec.ports}):
        said = ((spec, spec.ports.get(port) or spec.mode) for spec in levels[-1])
        ports[port] = strictest([_tls(spec, mode, mesh) for spec, mode in said if mode is not None]) or rest
    return PeerAuthentication(rest=rest, ports=ports)


def level_of(spec: PeerAuthenticationSpec, mesh: MeshConfigSpec) -> int:
    """0: the mesh's. 1: its namespace's. 2: some workloads'."""
    if not spec.selection.is_everything:
        return 2
    return 0 if spec.namespace == mesh.root_namespace else 1


def lacks(spec: PeerAuthenticationSpec, mesh: MeshConfigSpec) -> str:
    """What MeshConfig demands of its plaintext and it does not say; empty: nothing."""
    if not spec.takes_plaintext:
        return ""
    missing = ["an end"] * (mesh.permissive_until_required and not spec.until)
    missing += ["named peers"] * (mesh.permissive_peers_required and not spec.peers)
    return " and ".join(missing)


def _tls(spec: PeerAuthenticationSpec, mode: TlsMode, mesh: MeshConfigSpec) -> PortTls:
    if mode is TlsMode.STRICT or lacks(spec, mesh):
        return PortTls(mode=TlsMode.STRICT, source=spec.source)
    return PortTls(mode=mode, until=spec.until, peers=spec.peers, source=spec.source)


def strictest(found: Sequence[PortTls]) -> PortTls | None:
    """At least as strict as each of them. None: there is none."""
    if not found:
        return None
    first, *others = sorted(found, key=lambda one: _STRICTEST_FIRST.index(one.mode))
    for other in others:
        first = _both(first, other)
    return first


def _both(strict: PortTls, other: PortTls) -> PortTls:
    if strict.mode is TlsMode.STRICT:
        return strict
    ends = [one.until for one in (strict, other) if one.until]
    peers = strict.peers or other.peers
    if strict.peers and other.peers:
        peers = _in_both(strict.peers, other.peers)
        if not peers:
            return PortTls(mode=TlsMode.STRICT, source=strict.source)
    return replace(strict, until=min(ends, default=0.0), peers=peers)


def _in_both(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """The blocks that lie in one of each. Two CIDR blocks are disjoint, or one lies in the other."""
    theirs = [(text, ipaddress.ip_network(text)) for text in others]
    found: dict[str, None] = {}
    for text in some:
        mine = ipaddress.ip_network(text)
        for other, network in theirs:
            if mine.version == network.version and mine.overlaps(network):
                found[text if mine.prefixlen >= network.prefixlen else other] = None
    return tuple(found)
