"""control_plane/policy/mtls.py: all PeerAuthentications of one workload, made into one."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.policy.compile import Selectable, peer_authentication_for
from control_plane.policy.model import MeshConfigSpec, PeerAuthenticationSpec, Selection
from control_plane.policy.mtls import strictest
from sidecar.rules.snapshot import PeerAuthentication, PortTls, TlsMode

STRICT, PERMISSIVE, DISABLE = TlsMode.STRICT, TlsMode.PERMISSIVE, TlsMode.DISABLE
WEB = Selectable(namespace="shop", service="web", labels={"app": "web"})
MESH = MeshConfigSpec()


def spec(
    name: str,
    mode: TlsMode | None,
    *,
    namespace: str = "shop",
    app: str = "",
    ports: Mapping[int, TlsMode | None] | None = None,
    until: float = 0.0,
    peers: tuple[str, ...] = (),
) -> PeerAuthenticationSpec:
    return PeerAuthenticationSpec(
        namespace=namespace,
        name=name,
        selection=Selection(labels={"app": app}) if app else Selection(),
        mode=mode,
        ports=ports or {},
        until=until,
        peers=peers,
        source=f"{name}:1",
    )


def resolved(*specs: PeerAuthenticationSpec, mesh: MeshConfigSpec = MESH) -> PeerAuthentication:
    return peer_authentication_for(specs, WEB, mesh)


ROOT = spec("mesh", PERMISSIVE, namespace="istio-system")
LEVELS = [
    ((), STRICT, ""),
    ((ROOT,), PERMISSIVE, "mesh:1"),
    ((ROOT, spec("ns", DISABLE)), DISABLE, "ns:1"),
    ((ROOT, spec("ns", None)), PERMISSIVE, "mesh:1"),
    ((ROOT, spec("ns", DISABLE), spec("web", STRICT, app="web")), STRICT, "web:1"),
    ((ROOT, spec("ns", DISABLE), spec("web", None, app="web")), DISABLE, "ns:1"),
    ((spec("web", PERMISSIVE, app="web"), spec("ns", STRICT)), PERMISSIVE, "web:1"),
    ((spec("other", PERMISSIVE, app="db"),), STRICT, ""),
    ((spec("other", PERMISSIVE, namespace="pay"),), STRICT, ""),
    ((spec("all-web", PERMISSIVE, namespace="istio-system", app="web"), spec("ns", STRICT)), PERMISSIVE, "all-web:1"),
    ((spec("a", PERMISSIVE), spec("b", STRICT)), STRICT, "b:1"),
    ((spec("a", DISABLE), spec("b", PERMISSIVE)), PERMISSIVE, "b:1"),
]


@pytest.mark.parametrize(("specs", "mode", "source"), LEVELS)
def test_the_narrower_overrules_and_of_equals_the_strictest(
    specs: tuple[PeerAuthenticationSpec, ...], mode: TlsMode, source: str
) -> None:
    """Workload, namespace, root namespace, STRICT; UNSET says nothing; the order does not matter."""
    for order in (specs, specs[::-1]):
        assert (resolved(*order).rest.mode, resolved(*order).rest.source) == (mode, source)


def test_ports_are_of_those_that_select_the_workload() -> None:
    """One that says nothing of a port says its mode of it."""
    a = spec("a", STRICT, app="web", ports={80: DISABLE, 81: None, 82: PERMISSIVE})
    assert {port: tls.mode for port, tls in resolved(a).ports.items()} == {80: DISABLE, 81: STRICT, 82: PERMISSIVE}
    b = spec("b", STRICT, app="web", ports={82: DISABLE})
    assert {port: tls.mode for port, tls in resolved(a, b).ports.items()} == {80: STRICT, 81: STRICT, 82: PERMISSIVE}
    silent = spec("c", None, app="web", ports={80: None})
    assert resolved(silent, ROOT).ports[80].mode is PERMISSIVE


def test_what_the_mesh_demands_and_is_not_there_makes_it_strict() -> None:
    """An end, named peers; stored before the demand or not."""
    until = MeshConfigSpec(permissive_until_required=True)
    peers = MeshConfigSpec(permissive_peers_required=True)
    for mode in (PERMISSIVE, DISABLE):
        bare, ending = spec("a", mode), spec("a", mode, until=9.0)
        named = spec("a", mode, peers=("10.0.0.0/8",))
        assert [resolved(one, mesh=until).rest.mode for one in (bare, ending, named)] == [STRICT, mode, STRICT]
        assert [resolved(one, mesh=peers).rest.mode for one in (bare, ending, named)] == [STRICT, STRICT, mode]


def test_several_ends_and_peers_are_those_of_all() -> None:
    """The first end, and whom all of them name."""
    some = spec("a", PERMISSIVE, until=9.0, peers=("10.0.0.0/8", "::1"))
    others = spec("b", PERMISSIVE, until=7.0, peers=("10.1.0.0/16", "192.0.2.1"))
    assert resolved(some, others).rest == PortTls(mode=PERMISSIVE, until=7.0, peers=("10.1.0.0/16",), source="a:1")
    assert resolved(some, spec("c", PERMISSIVE)).rest.peers == some.peers
    assert resolved(some, spec("d", PERMISSIVE, peers=("192.0.2.1",))).rest == PortTls(mode=STRICT, source="a:1")


BLOCKS = st.sampled_from(
    ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "::/0", "2001:db8::/32", "0.0.0.0/0"]
)
TLS = st.builds(
    PortTls,
    mode=st.sampled_from(TlsMode),
    until=st.sampled_from([0.0, 5.0, 9.0]),
    peers=st.lists(BLOCKS, max_size=3, unique=True).map(tuple),
)


def lets_in(tls: PortTls, address: str, now: float) -> bool:
    if tls.mode is STRICT or (tls.until and now >= tls.until):
        return False
    ip = ipaddress.ip_address(address)
    return not tls.peers or any(ip in ipaddress.ip_network(block) for block in tls.peers)


@given(
    st.lists(TLS, min_size=1, max_size=4),
    st.sampled_from(["10.1.2.3", "10.9.9.9", "192.0.2.7", "2001:db8::1", "::1"]),
    st.sampled_from([1.0, 6.0, 20.0]),
)
def test_together_they_let_in_whom_each_lets_in(found: list[PortTls], address: str, now: float) -> None:
    """Nobody more, nobody less."""
    together = strictest(found)
    assert together is not None
    assert lets_in(together, address, now) == all(lets_in(one, address, now) for one in found)
