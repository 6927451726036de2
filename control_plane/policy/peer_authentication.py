"""PeerAuthentication, `security.istio.io/v1`: what a workload's ports take, read from a document.

Fields and meaning are Istio's (https://istio.io/latest/docs/reference/config/security/peer_authentication/): the one
that selects a workload wins over its namespace's, that one over the root namespace's, and UNSET inherits. Differences:
with none at all a port is STRICT; of several at one level Istio takes the oldest, we the strictest. A port is one of
`inbound` in the sidecar's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.policy import documents, own_annotations, values
from control_plane.policy.documents import Node
from control_plane.policy.model import PeerAuthenticationSpec
from control_plane.policy.reader import Fields, checked, did_you_mean
from control_plane.policy.selection import SELECTOR_FIELDS, read_selection
from sidecar.rules.snapshot import TlsMode

FIELDS = (*SELECTOR_FIELDS, "mtls", "portLevelMtls")
PORTS_MAX = 100
PEERS_MAX = 256
UNSET = "UNSET"


def read_spec(node: Node, *, namespace: str, name: str, source: str, ours: Fields) -> PeerAuthenticationSpec:
    """The spec, as far as it could be read; what could not is in the problems. `ours`: its annotations."""
    spec = Fields(node, "spec", ours.problems, known=FIELDS)
    spec.refuse_others({"targetRef": "use spec.selector", "targetRefs": "use spec.selector"})
    mtls_node = spec.node_of("mtls")
    ports_node = spec.node_of("portLevelMtls")
    if ports_node is not None and "selector" not in spec.entries:
        hint = "select the workloads whose ports they are with spec.selector"
        spec.problems.add(spec.entries["portLevelMtls"][0], spec.path_of("portLevelMtls"), "needs a selector", hint)
    return PeerAuthenticationSpec(
        namespace=namespace,
        name=name,
        selection=read_selection(spec),
        mode=None if mtls_node is None else _mtls(mtls_node, spec.path_of("mtls"), spec),
        ports={} if ports_node is None else _ports(ports_node, spec),
        until=ours.value(own_annotations.PLAINTEXT_UNTIL, values.point_in_time, plain="timestamp") or 0.0,
        peers=ours.value(own_annotations.PLAINTEXT_FROM, _peers) or (),
        source=source,
    )


def _mtls(node: Node, path: str, spec: Fields) -> TlsMode | None:
    mtls = Fields(node, path, spec.problems, known=("mode",))
    mtls.refuse_others()
    text = mtls.value("mode", _mode)
    return None if text is None or text == UNSET else TlsMode[text]


def _mode(text: str) -> str:
    known = (UNSET, *TlsMode.__members__)
    if text not in known:
        hint = did_you_mean(text, known) or f"use one of {', '.join(known)}"
        raise values.BadValue(f"{values.shown(text)} is not a mode", hint)
    return text


def _ports(node: Node, spec: Fields) -> Mapping[int, TlsMode | None]:
    path = spec.path_of("portLevelMtls")
    if not isinstance(node, documents.Mapping):
        spec.problems.add(node, path, f"expected a mapping, found {documents.describe(node)}", "write 8080: {mode: X}")
        return {}
    if not 1 <= len(node.entries) <= PORTS_MAX:
        spec.problems.add(node, path, f"holds {len(node.entries)} ports", f"name 1 to {PORTS_MAX}, or remove it")
        return {}
    found: dict[int, TlsMode | None] = {}
    for name, (key, value) in node.entries.items():
        port = checked(key, path, spec.problems, values.port, plain="int")
        mode = _mtls(value, f"{path}.{values.shown(name)[1:-1]}", spec)
        if port is not None:
            found[int(port)] = mode
    return found


def _peers(text: str) -> tuple[str, ...]:
    found = values.comma_separated(text, values.block)
    if len(found) > PEERS_MAX:
        raise values.BadValue(f"{len(found)} are more than {PEERS_MAX}", "join them to wider blocks")
    return found
