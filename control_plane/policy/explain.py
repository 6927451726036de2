"""What the evaluator says about one request. The very one that enforces, so the two cannot disagree."""

from __future__ import annotations

from datetime import UTC, datetime

from sidecar.rules.addresses import compile_blocks
from sidecar.rules.authz import Authorizer, Facts
from sidecar.rules.explain import Explanation
from sidecar.rules.snapshot import PortTls, Snapshot, TlsMode


def explain(snapshot: Snapshot, facts: Facts) -> Explanation:
    """`snapshot` is the one of the workload that is called, `facts` what is asked of it."""
    return Authorizer(snapshot).explain(facts)


def mode_at(tls: PortTls, now: float) -> TlsMode:
    """What a port takes at `now` (Unix seconds)."""
    return TlsMode.STRICT if tls.until and now >= tls.until else tls.mode


def refused_at_the_door(tls: PortTls, source_ip: str, now: float) -> str:
    """Why a port does not take a caller without TLS; "": it does. `source_ip`: "" if it is not known."""
    if tls.mode is TlsMode.STRICT:
        return "the port takes mutual TLS only (STRICT)"
    if mode_at(tls, now) is TlsMode.STRICT:
        ended = datetime.fromtimestamp(tls.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"the port takes mutual TLS only ({tls.mode.value} until {ended}, which has passed)"
    if tls.peers and source_ip and not compile_blocks(tls.peers)(source_ip):
        return f"the port takes plaintext from {', '.join(tls.peers)} only"
    return ""


def mode_in_words(tls: PortTls) -> str:
    """ "STRICT by peers.yaml:3"."""
    return f"{tls.mode.value} by {tls.source or 'the default of the mesh'}"
