"""Whom a certificate proves, and what a peer's name holds."""

from __future__ import annotations

import pytest

from certs.bundle import TrustBundle
from control_plane.api import callers
from control_plane.api.authz import Role
from control_plane.errors import PermissionDenied, Unauthenticated
from tests.certs.forge import NOW, TD, WEB, make_ca, make_leaf, uri

CA = make_ca()
BUNDLE = TrustBundle.of(TD, [CA.der])


def test_a_workloads_certificate_proves_identity_serial_and_end() -> None:
    """All three come from the certificate, nothing from a message."""
    caller = callers.of_certificate([make_leaf(CA, serial=4711)], BUNDLE, peer="10.0.0.1", now=NOW)
    assert (caller.role, caller.spiffe_id, caller.name, caller.peer) == (Role.WORKLOAD, WEB, str(WEB), "10.0.0.1")
    assert caller.serial == 4711
    assert caller.not_after == int(NOW + 60)


def test_an_operators_certificate_proves_an_operator() -> None:
    """By its path alone."""
    leaf = make_leaf(CA, names=[uri("spiffe://mesh.local/hauberk/operator/ann")])
    assert callers.of_certificate([leaf], BUNDLE, peer="10.0.0.1", now=NOW).role is Role.OPERATOR


def test_g23_an_expired_certificate_proves_nothing() -> None:
    """Whatever TLS said when the connection was made."""
    leaf = make_leaf(CA)
    with pytest.raises(Unauthenticated, match="reconnect"):
        callers.of_certificate([leaf], BUNDLE, peer="", now=NOW + 61)


def test_a_certificate_of_another_ca_proves_nothing() -> None:
    """Checked here too: two locks on this door."""
    with pytest.raises(Unauthenticated):
        callers.of_certificate([make_leaf(make_ca())], BUNDLE, peer="", now=NOW)


def test_g15_the_control_planes_own_certificate_is_no_callers() -> None:
    """It never calls itself."""
    leaf = make_leaf(CA, names=[uri("spiffe://mesh.local/hauberk/control-plane")])
    with pytest.raises(PermissionDenied):
        callers.of_certificate([leaf], BUNDLE, peer="", now=NOW)


@pytest.mark.parametrize(
    ("peer", "ip"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:[::1]:5000", "::1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("unix:", "unix"),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_without_its_port(peer: str, ip: str) -> None:
    """Limits are per address."""
    assert callers.ip_of(peer) == ip
