"""Who may call what: the table against the descriptors, and each role against each method."""

from __future__ import annotations

import itertools

import pytest

from control_plane.api.authz import TABLE, Caller, Role, authorize, check_complete
from control_plane.api.methods import FILES
from control_plane.api.server import _stock_methods
from control_plane.errors import PermissionDenied


def declared() -> list[str]:
    """Every method of every service the server has, from the descriptors."""
    services = [service for file in FILES for service in file.services_by_name.values()]
    return [f"/{one.full_name}/{method.name}" for one in services for method in one.methods] + _stock_methods()


def caller(role: Role) -> Caller:
    return Caller(role=role, name=role.value, peer="10.0.0.1")


def test_the_table_is_complete() -> None:
    """Nothing is served that it does not list, and it lists nothing that is not served."""
    check_complete(declared())
    assert len(TABLE) == 30


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ([*TABLE, "/hauberk.v1.Admin/Shutdown"], "/hauberk.v1.Admin/Shutdown is not in the table"),
        (list(TABLE)[1:], "/hauberk.v1.Identity/Join is in the table but does not exist"),
    ],
)
def test_an_incomplete_table_stops_the_start(methods: list[str], told: str) -> None:
    """The method is named."""
    with pytest.raises(RuntimeError, match=told):
        check_complete(methods)


def test_a_method_without_a_role_stops_the_start() -> None:
    """An empty entry is more likely a mistake than a wish."""
    with pytest.raises(RuntimeError, match="has no role"):
        check_complete(["/a/B"], {"/a/B": frozenset()})


ALLOWED = {
    *((Role.ANONYMOUS, f"/hauberk.v1.Identity/{name}") for name in ("Join", "Challenge", "Rejoin", "Anchors")),
    *((Role.WORKLOAD, f"/hauberk.v1.Identity/{name}") for name in ("Renew", "Confirm", "IssueJwtSvid")),
    (Role.WORKLOAD, "/hauberk.v1.Discovery/Watch"),
    *((Role.OPERATOR, f"/hauberk.v1.Config/{name}") for name in ("Apply", "Get", "List", "Delete", "Explain")),
    *((Role.OPERATOR, f"/hauberk.v1.Config/{name}") for name in ("History", "Rollback", "Inventory")),
    *((Role.OPERATOR, f"/hauberk.v1.Admin/{name}") for name in ("CreateToken", "ListTokens", "Status")),
    *((Role.OPERATOR, f"/hauberk.v1.Admin/{name}") for name in ("CaStatus", "CaStep", "CaInstall", "CaRehearse")),
    *((Role.OPERATOR, f"/hauberk.v1.Admin/{name}") for name in ("Revoke", "Reinstate", "ListRevocations")),
    *(
        (role, f"/grpc.health.v1.Health/{name}")
        for role in (Role.WORKLOAD, Role.OPERATOR)
        for name in ("Check", "List", "Watch")
    ),
    (Role.OPERATOR, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
}
"""Written a second time, by hand: a change of the table must be meant."""


@pytest.mark.parametrize(("role", "method"), list(itertools.product(Role, declared())))
def test_g19_each_role_may_call_its_methods_and_no_other(role: Role, method: str) -> None:
    """Every pair."""
    if (role, method) in ALLOWED:
        authorize(caller(role), method)
    else:
        with pytest.raises(PermissionDenied, match=f"{role.value} may not call {method.rpartition('/')[2]}"):
            authorize(caller(role), method)


@pytest.mark.parametrize("method", ["", "/", "hauberk.v1.Admin/Status", "/hauberk.v1.Admin/status", "/x/Y"])
def test_g26_what_is_not_listed_is_denied_to_everybody(method: str) -> None:
    """Deny is the default."""
    for role in Role:
        with pytest.raises(PermissionDenied):
            authorize(caller(role), method)
